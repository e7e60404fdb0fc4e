//! Scenario: the real Limine boots the unchanged kernel, under BIOS and UEFI, from CD and from disk. LIMINE_DIR names the
//! directories of the versions to try, separated by colons; without it, the distribution's Limine is tried.

use host::limine::Limine;
use host::settings::Firmware;
use scenarios::vm::Drive;
use scenarios::{Failed, Outcome, Vm, skip};
use std::path::Path;

/// The versions that this machine has.
fn versions() -> Result<Vec<Limine>, Failed> {
    match std::env::var("LIMINE_DIR").ok().filter(|dirs| !dirs.is_empty()) {
        Some(dirs) => dirs.split(':').map(|dir| Ok(Limine::open(Path::new(dir))?)).collect(),
        None => Ok(Limine::of_distribution().into_iter().collect()),
    }
}

/// Boots every version; `wants_installer` leaves out those that cannot be put on a disk for BIOS.
fn boots(firmware: Firmware, drive: Drive, wants_installer: bool) -> Outcome {
    if let Err(missing) = host::iso::find_xorriso("real Limine") {
        return skip(&missing.to_string());
    }
    if firmware == Firmware::Uefi
        && let Err(missing) = host::ovmf::find()
    {
        return skip(&missing.to_string());
    }
    let mut versions = versions()?;
    if versions.is_empty() {
        return skip("no Limine (LIMINE_DIR is not set)");
    }
    versions.retain(|limine| !wants_installer || limine.installer.is_some());
    if versions.is_empty() {
        return skip("no `limine` installer in LIMINE_DIR");
    }
    for limine in versions {
        let boot = |e: Failed| Failed(format!("Limine {}, {firmware:?}, {drive:?}: {}", limine.version, e.0));
        let mut guest =
            Vm::new().limine(&limine, firmware, drive).cmdline("hz=100").limit(180).spawn().map_err(boot)?;
        guest.expect("Command line: trace_event=irq,ipi,tick,sched hz=100\n").map_err(boot)?;
        guest.expect("4 of 4 CPUs up").map_err(boot)?;
    }
    Ok(())
}

#[test]
fn bios_cd() -> Outcome {
    boots(Firmware::Bios, Drive::Cd, false)
}

#[test]
fn uefi_cd() -> Outcome {
    boots(Firmware::Uefi, Drive::Cd, false)
}

#[test]
fn bios_disk() -> Outcome {
    boots(Firmware::Bios, Drive::Disk, true)
}

#[test]
fn uefi_disk() -> Outcome {
    boots(Firmware::Uefi, Drive::Disk, false)
}
