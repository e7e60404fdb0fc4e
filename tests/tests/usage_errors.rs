//! Scenario: wrong variables are refused with one line that names them and exit code 2; no guest is started.

use host::plugin;
use scenarios::program::{Program, Run};
use scenarios::sandbox::Sandbox;
use scenarios::{Failed, Outcome, run_smp::run_smp, skip};
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
    refused(&[("INITRD", &disc)], "neither a newc cpio nor a gzip or zstd file");
    refused(&[("LIMINE_DIR", &disc)], "not a directory");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

#[test]
fn kvm_that_does_not_run_a_guest() -> Outcome {
    let runs = host::accelerator::choose(host::settings::Accel::Kvm, false, |_| {}).is_ok();
    if runs {
        return skip("an unusable /dev/kvm: here it runs a guest");
    }
    refused(&[("ACCEL", "kvm"), ("LOADER", "direct")], "ACCEL=kvm: /dev/kvm");
    Ok(())
}

/// Runs `command` of `sandbox` with only these programs to be found beside its own.
fn with_only(sandbox: &Sandbox, mut command: Command, programs: &[&str]) -> Result<Run, Failed> {
    sandbox.only(&mut command, programs)?;
    Program::start(command)?.finish()
}

/// Exit code 2 and one line that ends like this; nothing left.
#[track_caller]
fn told(sandbox: &Sandbox, run: &Run, line: &str) -> Outcome {
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stdout.is_empty() && run.stderr.lines().count() == 1, "{run:#?}");
    assert!(run.stderr.trim_end().ends_with(line), "{line}: {run:#?}");
    assert_eq!(sandbox.left()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_missing_tool_is_named() -> Outcome {
    let sandbox = Sandbox::new("tools")?;
    let limine = sandbox.limine("share")?;
    let limine = [("LIMINE_DIR", &*limine.to_string_lossy())];
    let by = |what: &str| format!("{what}: not found; `make setup` installs it");
    let run = with_only(&sandbox, sandbox.run_smp(&[]), &[])?;
    told(&sandbox, &run, &by("run-smp: qemu-system-x86_64"))?;
    let run = with_only(&sandbox, sandbox.host(&["iso"], &limine), &[])?;
    told(&sandbox, &run, &by("host: make iso: xorriso"))?;
    let mut by_limine = sandbox.run_smp(&limine);
    by_limine.env("LOADER", "limine");
    let run = with_only(&sandbox, by_limine, &[])?;
    told(&sandbox, &run, &by("run-smp: LOADER=limine: xorriso"))?;
    let run = with_only(&sandbox, sandbox.host(&["compare"], &[]), &[])?;
    told(&sandbox, &run, "compare: apt-cache: not found; Debian and `apt-get update` are needed")?;
    std::fs::remove_file(sandbox.path("bin/cargo"))?;
    let run = with_only(&sandbox, sandbox.run_smp(&[]), &[])?;
    told(&sandbox, &run, "run-smp: cargo: not found; it comes with rustup, see README.md")?;
    let run = with_only(&sandbox, sandbox.host(&["bench"], &[]), &[])?;
    told(&sandbox, &run, "host: cargo: not found; it comes with rustup, see README.md")?;
    if plugin::why_not().is_none() {
        // Where the counting plugin is not built yet.
        sandbox.tool("cargo", "exit 0")?;
        let link = sandbox.path("target/plugin");
        if link.is_symlink() {
            std::fs::remove_file(&link)?;
        }
        let run = with_only(&sandbox, sandbox.host(&["bench"], &[]), &["qemu-system-x86_64"])?;
        std::fs::remove_dir(link)?;
        told(&sandbox, &run, &by("host: gcc"))?;
    }
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
