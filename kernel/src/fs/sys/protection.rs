//! /sys/kernel/quiesce/protection: what keeps programs out of the kernel and data from being run, as registers and page tables have it now.

use crate::arch::cpu_features::{Features, enabled};
use crate::errno::Errno;
use crate::mm::kernel_map;
use alloc::string::String;
use core::fmt::Write;

/// One line of what the CPU that reads has on (`offered` where CPUID has it), one of the kernel's page tables.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    let (offered, on) = (Features::detect(), enabled());
    let state = |offered: bool, on: bool| match (offered, on) {
        (_, true) => "on",
        (true, false) => "off",
        (false, false) => "absent",
    };
    let _ = writeln!(
        out,
        "wp={} nx={} smep={} smap={} umip={} am={}",
        state(true, on.write_protect),
        state(offered.nx, on.nx),
        state(offered.smep, on.smep),
        state(offered.smap, on.smap),
        state(offered.umip, on.umip),
        state(true, on.alignment_mask)
    );
    let rights = kernel_map::rights();
    let _ = writeln!(
        out,
        "leaves={} executable={} writable_executable={} user={} tables={} tables_made={}",
        rights.leaves,
        rights.executable,
        rights.writable_executable,
        rights.user,
        rights.tables,
        kernel_map::table_frames()
    );
    Ok(())
}
