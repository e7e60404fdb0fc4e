//! Processes.
pub mod fault;
pub mod signal;
pub fn start_init(_: &crate::limine::BootInfo, _: kcore::cmdline::BootParams<'static>) -> Result<(), &'static str> {
    Ok(())
}
