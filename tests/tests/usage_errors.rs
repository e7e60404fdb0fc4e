//! Scenario: wrong variables are refused with one line that names them and exit code 2; no guest is started.

use scenarios::{Outcome, run_smp::run_smp};
use std::process::Command;

#[track_caller]
fn refused(variables: &[(&str, &str)], named: &str) {
    let run = run_smp(variables, "").expect("the runner ends");
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stdout.is_empty(), "{run:#?}");
    let ours: Vec<&str> = run.stderr.lines().filter(|l| l.starts_with("run-smp: ") && l.contains(named)).collect();
    assert_eq!(ours.len(), 1, "one line names {named}: {}", run.stderr);
}

#[test]
fn wrong_values() {
    refused(&[("SMP", "0")], "SMP=0");
    refused(&[("SMP", "many")], "SMP=many");
    refused(&[("MEM", "lots")], "MEM=lots");
    refused(&[("PROFILE", "fast")], "PROFILE=fast");
    refused(&[("ACCEL", "xen")], "ACCEL=xen");
    refused(&[("TIMEOUT", "-1")], "TIMEOUT=-1");
    refused(&[("LOADER", "grub")], "LOADER=grub");
}

#[test]
fn missing_files() {
    refused(&[("INITRD", "/no/such/initrd")], "INITRD=/no/such/initrd");
    refused(&[("LIMINE_DIR", "/no/such/limine")], "LIMINE_DIR=/no/such/limine");
    refused(&[("LOADER", "limine"), ("LIMINE_DIR", "/proc")], "no limine-bios.sys");
}

#[test]
fn impossible_combinations() {
    refused(&[("ICOUNT", "1"), ("ACCEL", "kvm")], "ACCEL=kvm");
    refused(&[("ICOUNT", "1"), ("CPU", "max,+x2apic")], "CPU=max,+x2apic");
    refused(&[("ICOUNT", "1"), ("SMP", "256")], "SMP=256");
    refused(&[("LOADER", "direct"), ("FIRMWARE", "uefi")], "FIRMWARE=uefi");
    refused(&[("ICOUNT", "1"), ("FIRMWARE", "uefi")], "FIRMWARE=uefi");
}

#[test]
fn a_misspelt_variable_is_named_by_make() -> Outcome {
    let tree = host::tree::Tree::find(None)?;
    let output = Command::new("make")
        .args(["-s", "run-smp", "SPM=4"])
        .current_dir(&tree.root)
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("unknown variable SPM"), "{stderr}");
    Ok(())
}
