//! Scenario: a boot archive that cannot be booted ends the guest with the failure code and a line that says why.

use host::archive::Archive;
use host::qemu::End;
use scenarios::{Outcome, Vm};

const CONFIG: &[u8] = b":Quiesce\nPROTOCOL=limine\nKERNEL_PATH=boot:///boot/quiesce\n";

fn fails_naming(archive: Vec<u8>, named: &str) -> Outcome {
    let finished = Vm::new().smp(1).archive(archive).spawn()?.finish()?;
    assert_eq!(finished.end, End::Panic, "{}", finished.output);
    assert!(finished.output.contains(named), "{named:?} is not named:\n{}", finished.output);
    Ok(())
}

#[test]
fn no_kernel() -> Outcome {
    let mut archive = Archive::default();
    archive.file("limine.cfg", CONFIG);
    fails_naming(archive.finish(), "boot/quiesce")
}

#[test]
fn no_configuration() -> Outcome {
    let mut archive = Archive::default();
    archive.file("boot/quiesce", b"");
    fails_naming(archive.finish(), "limine.cfg")
}

#[test]
fn kernel_is_no_elf_file() -> Outcome {
    let mut archive = Archive::default();
    archive.file("limine.cfg", CONFIG);
    archive.program("boot/quiesce", b"#!/bin/sh\necho not a kernel\n");
    fails_naming(archive.finish(), "ELF")
}
