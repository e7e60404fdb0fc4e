//! What the scenarios in `tests/` use: a guest under test (`vm`), a host program under test (`program`, `run_smp`) and a place of its own
//! for one (`sandbox`), a guest's trace (`trace_file`) and its ledger of interruptions (`ledger`), programs that the host's compilers
//! build (`compiled`), sums of files (`cksum`).

pub mod cksum;
pub mod compiled;
pub mod heard;
pub mod ledger;
pub mod program;
pub mod run_smp;
pub mod sandbox;
pub mod trace_file;
pub mod vm;

pub use vm::{Failed, Finished, Vm};

/// The result of a scenario.
pub type Outcome = Result<(), Failed>;

/// Ends a scenario that this machine cannot run: says so on a line of its own, which the test runner does not swallow.
pub fn skip(why: &str) -> Outcome {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("scenario").to_string();
    // The first line end is for the runner's row of dots; in one piece, for there may be other tests that write. The line is for people
    // and for .ci/run; a closed stderr changes no result.
    let _ = std::io::stderr().write_all(format!("\nSKIPPED: {name}: {why}\n").as_bytes());
    Ok(())
}
