//! Scenario: a root archive that is missing, cut off, unreadable or without `/init` ends the machine with the failure code
//! and a line that says why.

use host::archive::Archive;
use host::image;
use host::qemu::End;
use host::tree::{Profile, Tree};
use kcore::trace_frame::CRC;
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

/// A member whose content is stored as it is, so that a flipped bit is content like any other: the CRC alone tells.
#[test]
fn gzip_with_a_flipped_bit() -> Outcome {
    let root = large_root();
    let whole = {
        let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        bytes.extend(miniz_oxide::deflate::compress_to_vec(&root, 0));
        bytes.extend(CRC.checksum(&root).to_le_bytes());
        bytes.extend((root.len() as u32).to_le_bytes());
        bytes
    };
    let wrong = "initrd: gzip data at offset 0: the checksum is wrong";
    // In the content, and in the trailer.
    for at in [whole.len() / 2, whole.len() - 8] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fails_naming(Vm::new().initrd(bytes), &[wrong, "/init: "])?;
    }
    // As it is, there is nothing to complain about but the /init that it lacks.
    let finished = Vm::new().initrd(whole).smp(1).spawn()?.finish()?;
    assert!(finished.output.contains("/init: ") && !finished.output.contains("initrd: gzip"), "{}", finished.output);
    Ok(())
}

#[test]
fn broken_zstd() -> Outcome {
    let whole = zstd(&large_root());
    fails_naming(
        Vm::new().initrd(whole[..whole.len() / 2].to_vec()),
        &["initrd: zstd data at offset 0: the data are cut off", "/init: "],
    )?;
    let mut bytes = whole.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fails_naming(Vm::new().initrd(bytes), &["initrd: zstd data at offset 0: the checksum is wrong", "/init: "])?;
    // A window of 16 MiB and one of its eighths.
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 14 << 3 | 1];
    bytes.extend([0; 64]);
    fails_naming(
        Vm::new().initrd(bytes),
        &["initrd: zstd data at offset 0: its window of 18 MiB is larger than 8 MiB", "/init: "],
    )
}

/// A root without /init, larger than a block of the format.
fn large_root() -> Vec<u8> {
    let mut root = Archive::default();
    let text: Vec<u8> = (0..200_000u32).flat_map(|i| i.wrapping_mul(i).to_le_bytes()).collect();
    root.file("large", &text);
    root.finish()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
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
