//! Scenario: a root archive that is missing, cut off, unreadable or without `/init` ends the machine with the failure code
//! and a line that says why.

use host::archive::Archive;
use host::image;
use host::qemu::End;
use host::tree::{Profile, Tree};
use scenarios::{Outcome, Vm};

fn fails_naming(vm: Vm, named: &[&str]) -> Outcome {
    let finished = vm.smp(1).spawn()?.finish()?;
    assert_eq!(finished.end, End::Panic, "{}", finished.output);
    for wanted in named {
        assert!(finished.output.contains(wanted), "{wanted:?} is missing:\n{}", finished.output);
    }
    Ok(())
}

#[test]
fn missing() -> Outcome {
    let tree = Tree::find(None)?;
    let kernel = image::loadable_part(&tree.kernel(Profile::Release))?;
    let mut archive = Archive::default();
    archive.file("limine.cfg", b":Quiesce\nPROTOCOL=limine\nKERNEL_PATH=boot:///boot/quiesce\n");
    archive.program("boot/quiesce", &kernel);
    fails_naming(Vm::new().archive(archive.finish()), &["no root archive"])
}

#[test]
fn cut_off_before_init() -> Outcome {
    let mut root = Archive::default();
    root.directory("dev");
    root.program("init", &[0; 4096]);
    let mut bytes = root.finish();
    bytes.truncate(1024);
    fails_naming(Vm::new().initrd(bytes), &["initrd: ", "/init: "])
}

#[test]
fn no_archive_at_all() -> Outcome {
    fails_naming(Vm::new().initrd(b"this is no cpio".repeat(64)), &["initrd: ", "/init: "])
}

#[test]
fn broken_gzip() -> Outcome {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    bytes.extend([0xff; 512]);
    fails_naming(Vm::new().initrd(bytes), &["initrd: gzip", "/init: "])
}

#[test]
fn without_init() -> Outcome {
    let mut root = Archive::default();
    root.directory("dev");
    fails_naming(Vm::new().initrd(root.finish()), &["/init: not found in the root archive"])
}

fn init_is(program: &[u8], named: &str) -> Outcome {
    let mut root = Archive::default();
    root.program("init", program);
    fails_naming(Vm::new().initrd(root.finish()), &[named, "/init: cannot be run"])
}

#[test]
fn init_is_no_program() -> Outcome {
    init_is(b"hello, this is no program", "/init: not an ELF file")
}

#[test]
fn init_is_an_elf_file_that_cannot_be_run() -> Outcome {
    let tree = Tree::find(None)?;
    let whole = image::loadable_part(&tree.target.join("x86_64-unknown-linux-musl/release/spin"))?;
    let changed = |at: usize, byte: u8| {
        let mut elf = whole.clone();
        elf[at] = byte;
        elf
    };
    init_is(&whole[..whole.len() / 2], "bytes lie outside the file")?;
    init_is(&whole[..40], "/init: ELF file truncated: file header incomplete")?;
    init_is(&changed(4, 1), "/init: 32-bit ELF file")?;
    init_is(&changed(18, 0xb7), "/init: ELF file for machine 183")
}
