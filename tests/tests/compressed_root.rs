//! Scenario: root archives of every kind are unpacked alike, and those that are compressed give their own memory back: a tree loads where it and
//! its archive would not fit side by side uncompressed.

use host::archive::{Archive, Meta};
use host::image;
use host::tree::Tree;
use kcore::trace_frame::CRC;
use scenarios::cksum::cksum;
use scenarios::{Outcome, Vm};

const SIZE: usize = 40 << 20;
/// The tree twice, or the archive as it was and the tree, is more than this machine has.
const MEM: &str = "96M";

/// Our own root, and the check sum of a large file in it that does not shrink; with a hard link to it, a device, a symbolic link and a mode.
fn root() -> Result<(Vec<u8>, u32), scenarios::Failed> {
    let tree = &Tree::find(None)?;
    let mut archive = Archive::default();
    image::our_files(tree, &mut archive, |_| false)?;
    // xorshift: no two blocks are alike.
    let mut word = 0x9e37_79b9_7f4a_7c15u64;
    let noise = std::iter::repeat_with(|| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    });
    let mut bytes: Vec<u8> = noise.take(SIZE / 8 - 1).flatten().collect();
    bytes.extend(b"the end\n");
    let meta = Meta { mode: 0o100_640, links: 2, ..Meta::default() };
    let inode = archive.entry("large", &meta, &bytes);
    archive.entry("again", &Meta { inode: Some(inode), ..meta }, &[]);
    archive.entry("node", &Meta { mode: 0o020_600, links: 1, device: (1, 3), ..Meta::default() }, &[]);
    archive.symbolic_link("link", "large");
    Ok((archive.finish(), cksum(&bytes)))
}

/// `sum`: of the large file.
fn unpacks((archive, sum): (Vec<u8>, u32)) -> Outcome {
    let mut guest = Vm::new().smp(2).mem(MEM).cmdline("trace_event= nowatchdog").initrd(archive).spawn()?;
    guest.prompt()?;
    let listed = guest.command("ls -l /")?;
    let row = |name: &str| listed.lines().find(|l| l.split_whitespace().any(|w| w == name)).unwrap_or_default();
    for name in ["large", "again"] {
        assert!(row(name).starts_with("-rw-r-----") && row(name).contains(&SIZE.to_string()), "{listed}");
    }
    assert!(row("node").starts_with("crw-------") && row("link").starts_with('l'), "{listed}");
    // Each byte is what it was, though the memory that the archive gave back has been used meanwhile.
    guest.command("respawn 20")?;
    let told = guest.command("cksum /link /again")?;
    assert!(
        told.contains(&format!("{sum} {SIZE} /link")) && told.contains(&format!("{sum} {SIZE} /again")),
        "{sum}: {told}"
    );
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn zstd() -> Outcome {
    let (root, sum) = root()?;
    unpacks((ruzstd::encoding::compress_to_vec(root.as_slice(), ruzstd::encoding::CompressionLevel::Fastest), sum))
}

/// One member (RFC 1952) of `bytes`.
fn gzip_member(bytes: &[u8]) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    member.extend(miniz_oxide::deflate::compress_to_vec(bytes, 1));
    member.extend(CRC.checksum(bytes).to_le_bytes());
    member.extend((bytes.len() as u32).to_le_bytes());
    member
}

/// A plain archive first, as those with microcode have it; then a compressed one.
#[test]
fn gzip_behind_plain() -> Outcome {
    let (root, sum) = root()?;
    let mut first = Archive::default();
    first.entry("first", &Meta { mode: 0o100_644, links: 1, ..Meta::default() }, b"first\n");
    let mut both = first.finish();
    both.extend(gzip_member(&root));
    unpacks((both, sum))
}

#[test]
fn plain() -> Outcome {
    unpacks(root()?)
}
