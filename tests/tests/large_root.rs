//! Scenario: a large directory of the host as root, packed as ROOT= packs it, loads in the memory that it takes itself: files lie where the loader
//! has them, and no byte is in memory twice. 128 MiB; `make test-long` takes 1 GiB.

use host::archive::Archive;
use host::image;
use host::interrupt::Scratch;
use host::root_tree::Packer;
use host::tree::Tree;
use scenarios::cksum::cksum;
use scenarios::{Failed, Outcome, Vm, skip};

/// Bytes of a file, and a few less: lengths that fill no page.
const FILE: usize = 4 << 20;
const ODD: usize = 1234;
/// Lengths of the small files, which are a tenth of the tree: most of them lie on no page boundary.
const SMALL: std::ops::Range<usize> = 2000..20_000;
/// What the kernel and the first programs may take besides the tree: their own 8 MiB, and what describes a file. 1220 small files take 394 kB, 331
/// bytes each; a loader that copied them would take thirty times as much.
const OWN_KB: u64 = 8 << 10;
const INODE_BYTES: u64 = 512;

/// Content that is each file's own, page by page.
fn content(number: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at ^ at >> 8) as u8).collect();
    for (page, start) in (0..bytes.len() - 16).step_by(4096).enumerate() {
        bytes[start..start + 8].copy_from_slice(&((number << 32 | page) as u64).to_le_bytes());
    }
    bytes
}

/// The length of small file `number`, odd and even ones.
fn small_bytes(number: usize) -> usize {
    SMALL.start + number * 7919 % SMALL.len()
}

/// A row of /proc/meminfo.
fn kib(meminfo: &str, name: &str) -> u64 {
    let row = meminfo.lines().find(|l| l.starts_with(name)).unwrap_or_default();
    row.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{name}: {meminfo}"))
}

/// What the long form needs of the host: the archive here, twice while it grows and is handed over, and in QEMU's memory.
const NEEDED_KB: u64 = 4 << 20;

/// The tree in the archive, of `files` files. There is never more than one of them on disk.
fn root(tree: &Tree, files: usize, small: usize) -> Result<Vec<u8>, Failed> {
    let mut archive = Archive::default();
    image::our_files(tree, &mut archive, |_| false)?;
    let dir = Scratch::new(tree.target.join(format!("tmp/large-root-{}", std::process::id())));
    std::fs::create_dir_all(dir.path())?;
    let (file, mut packer) = (dir.path().join("file"), Packer::default());
    archive.directory("data");
    (0..8).for_each(|folder| archive.directory(&format!("data/{folder}")));
    for number in 0..files {
        std::fs::write(&file, content(number, FILE - ODD))?;
        packer.add(&mut archive, &file, &format!("data/{}/{number}", number % 8))?;
    }
    for number in 0..small {
        std::fs::write(&file, content(number, small_bytes(number)))?;
        packer.add(&mut archive, &file, &format!("data/{}/small{number}", number % 8))?;
    }
    Ok(archive.finish())
}

#[test]
fn takes_the_memory_that_it_has() -> Outcome {
    // Less than the tree twice.
    let long = std::env::var_os("QUIESCE_LONG").is_some();
    let (mib, mem) = if long { (1024, "1200M") } else { (128, "192M") };
    let available_kb = kib(&std::fs::read_to_string("/proc/meminfo")?, "MemAvailable:");
    if long && available_kb < NEEDED_KB {
        return skip(&format!("{available_kb} kB of memory are available, a root of 1 GiB needs {NEEDED_KB} kB"));
    }
    let files = mib * (1 << 20) / FILE;
    let small = mib * (1 << 20) / 10 / (SMALL.start + SMALL.end) * 2;
    let archive = root(&Tree::find(None)?, files, small)?;
    let archive_kb = archive.len() as u64 >> 10;
    let mut guest = Vm::new().smp(2).mem(mem).cmdline("trace_event= quiet").initrd(archive).limit(300).spawn()?;
    guest.prompt()?;
    let before = guest.command("cat /proc/meminfo")?;
    let used_kb = kib(&before, "MemTotal:") - kib(&before, "MemFree:");
    println!("tree {archive_kb} kB, in use {used_kb} kB of {} kB", kib(&before, "MemTotal:"));
    let most_kb = archive_kb + OWN_KB + (files + small) as u64 * INODE_BYTES / 1024;
    assert!((archive_kb..=most_kb).contains(&used_kb), "{used_kb} kB are in use, {most_kb} kB at most: {before}");
    // What is read is there already. Programs come and go in what is left, and touch no byte of it.
    for number in [0, files / 2, files - 1] {
        let path = format!("/data/{}/{number}", number % 8);
        let told = guest.command(&format!("cksum {path}"))?;
        let wanted = content(number, FILE - ODD);
        assert!(told.contains(&format!("{} {} {path}", cksum(&wanted), wanted.len())), "{told}");
    }
    guest.command("respawn 20")?;
    let after = guest.command("cat /proc/meminfo")?;
    let grown_kb = kib(&before, "MemFree:").saturating_sub(kib(&after, "MemFree:"));
    assert!(grown_kb < FILE as u64 >> 10, "{grown_kb} kB more are in use: {after}");
    guest.power_off()?.assert_clean();
    Ok(())
}
