//! Scenario: wrong variables are refused with one line that names them and exit code 2; no guest is started.

use scenarios::{Failed, Outcome, run_smp::run_smp};
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
fn files_of_another_kind() -> Outcome {
    let folder = std::env::temp_dir().join(format!("quiesce-usage-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let disc = folder.join("foreign.iso");
    let mut image = vec![0u8; 0x9000];
    image[0x8001..0x8006].copy_from_slice(b"CD001");
    std::fs::write(&disc, image)?;
    let disc = disc.to_string_lossy();
    refused(&[("INITRD", &disc)], "neither a newc cpio nor a gzip file");
    refused(&[("LIMINE_DIR", &disc)], "not a directory");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

#[test]
fn kvm_that_does_not_run_a_guest() {
    let runs = host::accelerator::choose(host::settings::Accel::Kvm, false, |_| {}).is_ok();
    if runs {
        println!("SKIPPED: an unusable /dev/kvm: here it runs a guest");
        return;
    }
    refused(&[("ACCEL", "kvm"), ("LOADER", "direct")], "ACCEL=kvm: /dev/kvm");
}

/// `tools/run-smp` with only these programs to be found.
fn with_programs(names: &[&str], variables: &[(&str, &str)]) -> Result<(Option<i32>, String), Failed> {
    let tree = host::tree::Tree::find(None)?;
    let folder = std::env::temp_dir().join(format!("quiesce-path-{}-{}", std::process::id(), names.len()));
    std::fs::create_dir_all(&folder)?;
    let path = std::env::var("PATH").unwrap_or_default();
    for name in names {
        let found = path.split(':').map(|dir| std::path::Path::new(dir).join(name)).find(|p| p.is_file());
        let found = found.ok_or_else(|| Failed(format!("{name}: not in PATH")))?;
        std::os::unix::fs::symlink(found, folder.join(name))?;
    }
    let output = Command::new(tree.root.join("tools/run-smp"))
        .envs(variables.iter().copied())
        .env("PATH", &folder)
        .stdin(std::process::Stdio::null())
        .output()?;
    std::fs::remove_dir_all(&folder)?;
    assert!(output.stdout.is_empty());
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn a_missing_tool_is_named() -> Outcome {
    let (code, said) = with_programs(&[], &[])?;
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("run-smp: cargo: not found"), "{said}");
    let (code, said) = with_programs(&["cargo", "rustc"], &[("LOADER", "direct"), ("ACCEL", "tcg")])?;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("qemu-system-x86_64: not found; `make setup` installs it"), "{said}");
    Ok(())
}

#[test]
fn an_output_that_is_full_ends_the_run() -> Outcome {
    let tree = host::tree::Tree::find(None)?;
    let output = Command::new(tree.root.join("tools/run-smp"))
        .envs([("LOADER", "direct"), ("ACCEL", "tcg"), ("SMP", "1")])
        .stdin(std::process::Stdio::null())
        .stdout(std::fs::OpenOptions::new().write(true).open("/dev/full")?)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("run-smp: standard output: No space left on device"), "{said}");
    Ok(())
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
