//! `host image`: the boot archive that the loader reads, and the root file system in it. Used by `run` and the scenarios.

use crate::archive::Archive;
use crate::failure::{self, Failure};
use crate::root_tree;
use crate::tool;
use crate::tree::{Profile, Tree};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The guest program that is many small ones, by the name it is called by.
const BOX: &str = "bin/box";

/// Command-line options of `host image`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Where the boot archive goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write the root file system alone
    #[arg(long, value_name = "FILE")]
    initrd_out: Option<PathBuf>,
    /// Use this root file system (cpio, plain or compressed by gzip or zstd) in place of our own
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Take the kernel's debug build
    #[arg(long)]
    debug: bool,
}

/// Builds everything and writes the archive.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    let profile = if options.debug { Profile::Debug } else { Profile::Release };
    tree.build(profile)?;
    let root = match &options.initrd {
        Some(path) => initrd_file(path)?,
        None => root_file_system(tree)?,
    };
    if let Some(path) = &options.initrd_out {
        failure::write(path, &root)?;
    }
    failure::write(&options.out, &boot_archive(tree, profile, &root)?)
}

/// The boot archive: `limine.cfg`, `boot/quiesce`, `boot/initrd.cpio`.
pub fn boot_archive(tree: &Tree, profile: Profile, initrd: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut archive = Archive::default();
    archive.file("limine.cfg", &failure::read(&tree.root.join("limine.cfg"))?);
    archive.directory("boot");
    archive.program("boot/quiesce", &loadable_part(&tree.kernel(profile))?);
    archive.file("boot/initrd.cpio", initrd);
    Ok(archive.finish())
}

/// Our root file system: `/init`, the other guest programs and the names of `box` in `/bin`, and the empty directories
/// that are mounted over.
pub fn root_file_system(tree: &Tree) -> Result<Vec<u8>, Failure> {
    let mut archive = Archive::default();
    our_files(tree, &mut archive, |_| false)?;
    Ok(archive.finish())
}

/// Adds our root file system to `archive`, but for the names in `/bin` that `others` has.
pub fn our_files(tree: &Tree, archive: &mut Archive, others: impl Fn(&str) -> bool) -> Result<(), Failure> {
    for directory in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.directory(directory);
    }
    for (name, path) in tree.guests()? {
        let place = if name == "init" { name.clone() } else { format!("bin/{name}") };
        if !others(&name) || place == name {
            archive.program(&place, &loadable_part(&path)?);
        }
        if place == BOX {
            for applet in applets(&path)?.iter().filter(|a| !others(a)) {
                archive.symbolic_link(&format!("bin/{applet}"), "box");
            }
        }
    }
    Ok(())
}

/// A directory of the host as root file system. What has no `/init` gets ours, which runs `/bin/sh`.
pub fn directory(tree: &Tree, dir: &Path) -> Result<Vec<u8>, Failure> {
    let mut archive = Archive::default();
    root_tree::add(&mut archive, dir)?;
    if std::fs::symlink_metadata(dir.join("init")).is_err() {
        archive.program("init", &loadable_part(&guest(tree, "init")?)?);
    }
    Ok(archive.finish())
}

/// The ELF file of a guest program.
pub fn guest(tree: &Tree, name: &str) -> Result<PathBuf, Failure> {
    let found = tree.guests()?.into_iter().find(|(known, _)| known == name);
    found.map(|(_, path)| path).ok_or_else(|| Failure::Usage(format!("no guest program {name}")))
}

/// A root file system with one guest program, as /init, and the directories that it may mount over.
pub fn program_alone(tree: &Tree, name: &str) -> Result<Vec<u8>, Failure> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "tmp"] {
        archive.directory(directory);
    }
    archive.program("init", &loadable_part(&guest(tree, name)?)?);
    Ok(archive.finish())
}

/// The names that `box`, or busybox, answers to. It is a static Linux program, so it can say so itself, here.
pub fn applets(path: &Path) -> Result<Vec<String>, Failure> {
    let fail = |why: String| Failure::Usage(format!("{} --list: {why}", path.display()));
    let output = tool::output(Command::new(path).arg("--list")).map_err(|e| fail(e.to_string()))?;
    if !output.status.success() {
        return Err(fail(output.status.to_string()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect())
}

/// A root file system given by the user; passed on as it is, after a look at its first bytes.
pub fn initrd_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = failure::read(path).map_err(|e| Failure::Usage(format!("INITRD={e}")))?;
    const STARTS: [&[u8]; 4] = [b"070701", b"070702", &[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd]];
    if STARTS.iter().any(|start| bytes.starts_with(start)) {
        return Ok(bytes);
    }
    Err(Failure::Usage(format!("INITRD={}: neither a newc cpio nor a gzip or zstd file", path.display())))
}

/// An ELF file without what follows its last segment: symbols and line tables stay on the host.
pub fn loadable_part(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut elf = failure::read(path)?;
    trim(&mut elf).ok_or_else(|| Failure::Usage(format!("{}: not a 64-bit little-endian ELF file", path.display())))?;
    Ok(elf)
}

/// Cuts a 64-bit ELF file after its last segment and drops the section table. None if it is no such file.
/// Source: System V gABI, "ELF Header" and "Program Header".
fn trim(elf: &mut Vec<u8>) -> Option<()> {
    let word = |elf: &[u8], at: usize| Some(u64::from_le_bytes(elf.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let half = |elf: &[u8], at: usize| Some(u16::from_le_bytes(elf.get(at..at.checked_add(2)?)?.try_into().ok()?));
    const CLASS_64_LITTLE_ENDIAN: &[u8] = &[0x7f, b'E', b'L', b'F', 2, 1];
    if !elf.starts_with(CLASS_64_LITTLE_ENDIAN) {
        return None;
    }
    let table = usize::try_from(word(elf, 32)?).ok()?;
    let entry_len = usize::from(half(elf, 54)?);
    let count = usize::from(half(elf, 56)?);
    let mut end = table.checked_add(entry_len.checked_mul(count)?)?.max(64);
    for i in 0..count {
        let at = table + i * entry_len;
        let segment_end = word(elf, at + 8)?.checked_add(word(elf, at + 32)?)?;
        end = end.max(usize::try_from(segment_end).ok()?);
    }
    if end > elf.len() {
        return None;
    }
    elf.truncate(end);
    elf[40..48].fill(0); // e_shoff
    elf[60..64].fill(0); // e_shnum, e_shstrndx
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf_with_tail() -> Vec<u8> {
        let mut elf = vec![0u8; 256];
        elf[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        elf[32] = 64; // e_phoff
        elf[40] = 200; // e_shoff
        elf[54] = 56; // e_phentsize
        elf[56] = 1; // e_phnum
        elf[60] = 3; // e_shnum
        elf[64 + 8] = 120; // p_offset
        elf[64 + 32] = 40; // p_filesz
        elf
    }

    #[test]
    fn trim_keeps_segments_and_drops_sections() {
        let mut elf = elf_with_tail();
        assert_eq!(trim(&mut elf), Some(()));
        assert_eq!(elf.len(), 160);
        assert_eq!(elf[40], 0);
        assert_eq!(elf[60], 0);
    }

    #[test]
    fn trim_refuses_broken_files() {
        assert_eq!(trim(&mut b"#!/bin/sh\n".to_vec()), None);
        let mut past_end = elf_with_tail();
        past_end[64 + 33] = 1; // p_filesz 296
        assert_eq!(trim(&mut past_end), None);
        let mut huge = elf_with_tail();
        huge[64 + 8..64 + 16].fill(0xff);
        assert_eq!(trim(&mut huge), None);
        let mut short = elf_with_tail();
        short.truncate(50);
        assert_eq!(trim(&mut short), None);
    }
}
