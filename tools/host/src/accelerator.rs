//! Chooses TCG or KVM. KVM counts only if it really runs a guest: /dev/kvm can be present, and open, and still fail.
//! Used by `qemu`.

use crate::failure::Failure;
use crate::qemu::{self, QEMU};
use crate::settings::Accel;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long an accelerator may take for it.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What QEMU is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Chosen {
    /// The translator.
    Tcg,
    /// The hardware.
    Kvm,
}

/// Turns the request into a choice; `say` gets one line when `auto` falls back to TCG.
pub fn choose(request: Accel, icount: bool, say: impl FnOnce(&str)) -> Result<Chosen, Failure> {
    match request {
        Accel::Tcg => Ok(Chosen::Tcg),
        Accel::Auto if icount => Ok(Chosen::Tcg),
        Accel::Kvm => match why_no_kvm() {
            None => Ok(Chosen::Kvm),
            Some(why) => Err(Failure::Usage(format!("ACCEL=kvm: {why}"))),
        },
        Accel::Auto => match why_no_kvm() {
            None => Ok(Chosen::Kvm),
            Some(why) => {
                say(&format!("using TCG: {why}"));
                Ok(Chosen::Tcg)
            }
        },
    }
}

fn why_no_kvm() -> Option<String> {
    if let Err(e) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Some(format!("/dev/kvm: {e}"));
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|l| l.starts_with("flags")).unwrap_or_default();
    if !flags.split_whitespace().any(|f| f == "svm" || f == "vmx") {
        return Some("/dev/kvm opens, but the CPU offers neither svm nor vmx".into());
    }
    if runs_probe("kvm", PROBE_LIMIT) { None } else { Some("/dev/kvm opens, but does not run a guest".into()) }
}

/// Runs a guest of four instructions from the reset vector; it ends QEMU through the debug-exit port.
fn runs_probe(accel: &str, limit: Duration) -> bool {
    let Ok(rom) = qemu::memory_file(&probe_rom()) else { return false };
    let mut command = Command::new(QEMU);
    command
        .args(["-M", "q35", "-nodefaults", "-display", "none", "-m", "32", "-accel", accel, "-bios"])
        .arg(format!("/proc/self/fd/{}", rom.as_raw_fd()))
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-no-reboot"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = qemu::spawn(&mut command, [rom.as_raw_fd()]);
    let mut works = false;
    if let Ok(mut child) = child {
        let deadline = Instant::now() + limit;
        let status = loop {
            match child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(status) => break status,
                Err(_) => break None,
            }
        };
        works = status.is_some_and(|s| s.code() == Some(33));
        if status.is_none() {
            // Already dead is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
    works
}

/// A 64 KiB ROM whose reset vector (16 bytes below the end) writes 0x10 to port 0xf4.
fn probe_rom() -> Vec<u8> {
    let mut rom = vec![0xf4; 0x1_0000]; // hlt
    // mov dx, 0xf4; mov al, 0x10; out dx, al; hlt
    rom[0xfff0..0xfff7].copy_from_slice(&[0xba, 0xf4, 0x00, 0xb0, 0x10, 0xee, 0xf4]);
    rom
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_rom_runs_where_the_accelerator_works() {
        let _slot = crate::slot::take(|| {}).unwrap();
        // On a machine that has much to do, and QEMU not in memory yet.
        let limit = Duration::from_secs(120);
        assert!(runs_probe("tcg", limit));
        assert!(!runs_probe("no-such-accelerator", limit));
    }
}
