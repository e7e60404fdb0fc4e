//! Scenario: the real Limine boots the unchanged kernel, under BIOS and UEFI, from CD and from disk. LIMINE_DIR names the
//! directories of the versions to try, separated by colons; without it, the distribution's Limine is tried.

use host::limine::Limine;
use host::settings::Firmware;
use scenarios::vm::Drive;
use scenarios::{Failed, Outcome, Vm, run_smp::run_smp, skip};
use std::path::Path;

/// The versions that this machine has.
fn versions() -> Result<Vec<Limine>, Failed> {
    match std::env::var("LIMINE_DIR").ok().filter(|dirs| !dirs.is_empty()) {
        Some(dirs) => dirs.split(':').map(|dir| Ok(Limine::open(Path::new(dir))?)).collect(),
        None => Ok(Limine::of_distribution().into_iter().collect()),
    }
}

/// The versions to boot under `firmware`, or why there are none.
fn bootable(firmware: Firmware) -> Result<Result<Vec<Limine>, String>, Failed> {
    let tools = host::iso::find_xorriso("real Limine").and_then(|()| match firmware {
        Firmware::Bios => Ok(()),
        Firmware::Uefi => host::ovmf::find().map(drop),
    });
    let versions = versions()?;
    Ok(match tools {
        Err(missing) => Err(missing.to_string()),
        Ok(()) if versions.is_empty() => Err("no Limine (LIMINE_DIR is not set)".into()),
        Ok(()) => Ok(versions),
    })
}

/// Boots every version to the prompt. Under BIOS, a disk needs Limine's installer.
fn boots(firmware: Firmware, drive: Drive) -> Outcome {
    let mut versions = match bootable(firmware)? {
        Ok(versions) => versions,
        Err(why) => return skip(&why),
    };
    if (firmware, drive) == (Firmware::Bios, Drive::Disk) {
        versions.retain(|limine| limine.installer.is_some());
    }
    if versions.is_empty() {
        return skip("LIMINE_DIR has no program `limine`, which writes the BIOS stage");
    }
    for limine in versions {
        let boot = |e: Failed| Failed(format!("Limine {}, {firmware:?}, {drive:?}: {}", limine.version, e.0));
        let mut guest = Vm::new().limine(&limine, firmware, drive).cmdline("hz=100").spawn().map_err(boot)?;
        guest.expect("Command line: trace_event=irq,ipi,tick,sched hz=100").map_err(boot)?;
        guest.expect("4 of 4 CPUs up").map_err(boot)?;
        guest.prompt().map_err(boot)?;
        let finished = guest.power_off().map_err(boot)?;
        assert!(finished.clean, "Limine {}, {firmware:?}, {drive:?}: {finished:#?}", limine.version);
    }
    Ok(())
}

/// Lines piped into `tools/run-smp` are not lost to the firmware or the loader.
fn takes_piped_lines(firmware: Firmware, name: &str) -> Outcome {
    let versions = match bootable(firmware)? {
        Ok(versions) => versions,
        Err(why) => return skip(&why),
    };
    for limine in versions {
        let dir = limine.dir.display().to_string();
        let variables =
            [("LOADER", "limine"), ("FIRMWARE", name), ("LIMINE_DIR", &*dir), ("ACCEL", "tcg"), ("TIMEOUT", "300")];
        let run = run_smp(&variables, "cpus\npoweroff\n")?;
        assert_eq!(run.code, Some(0), "Limine {}, {name}: {run:#?}", limine.version);
        let cpus = run.stdout.lines().filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit())).count();
        assert_eq!(cpus, 4, "`cpus` prints a line per CPU:\n{}", run.stdout);
    }
    Ok(())
}

#[test]
fn bios_cd() -> Outcome {
    boots(Firmware::Bios, Drive::Cd)
}

#[test]
fn uefi_cd() -> Outcome {
    boots(Firmware::Uefi, Drive::Cd)
}

#[test]
fn bios_disk() -> Outcome {
    boots(Firmware::Bios, Drive::Disk)
}

#[test]
fn uefi_disk() -> Outcome {
    boots(Firmware::Uefi, Drive::Disk)
}

#[test]
fn bios_piped_lines() -> Outcome {
    takes_piped_lines(Firmware::Bios, "bios")
}

#[test]
fn uefi_piped_lines() -> Outcome {
    takes_piped_lines(Firmware::Uefi, "uefi")
}
