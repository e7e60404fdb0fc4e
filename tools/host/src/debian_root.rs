//! A root file system of Debian packages with our init and a few of our programs: what Debian's own dynamic programs need to run here.
//! Used by the scenarios.
//!
//! An installed package is taken from this machine, any other is downloaded and unpacked. All is below /usr, and /bin, /sbin, /lib and
//! /lib64 are links there, as on an installed Debian.

use crate::archive::Archive;
use crate::debian;
use crate::debian_closure;
use crate::failure::Failure;
use crate::image;
use crate::root_tree::Packer;
use crate::tree::Tree;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories of the root that are links below /usr.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// Ours, as names of `box`.
const OURS: [&str; 2] = ["missing", "poweroff"];

/// The root file system with bash as /bin/sh, these packages and what they depend on, and `programs`, by place.
pub fn root_file_system(
    tree: &Tree,
    packages: &[&str],
    programs: &[(&str, &[u8])],
    say: impl Fn(&str) + Copy,
) -> Result<Vec<u8>, Failure> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "tmp", "usr", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin"] {
        archive.directory(directory);
    }
    for name in MERGED {
        archive.symbolic_link(name, &format!("usr/{name}"));
    }
    let mut seen: HashSet<String> = HashSet::new();
    let mut packer = Packer::default();
    for package in debian_closure::of(&[&["bash"], packages].concat())? {
        for (path, name) in files(tree, &package, say)? {
            if seen.insert(name.clone()) {
                packer.add(&mut archive, &path, &name)?;
            }
        }
    }
    if seen.insert("usr/bin/sh".into()) {
        archive.symbolic_link("usr/bin/sh", "bash");
    }
    for (name, place) in [("init", "init"), ("box", "usr/bin/box"), ("run", "usr/bin/run")] {
        archive.program(place, &image::loadable_part(&image::guest(tree, name)?)?);
    }
    for (place, bytes) in programs {
        archive.program(place, bytes);
    }
    for name in OURS {
        archive.symbolic_link(&format!("usr/bin/{name}"), "box");
    }
    Ok(archive.finish())
}

/// The package's files and where they go.
fn files(tree: &Tree, package: &str, say: impl Fn(&str)) -> Result<Vec<(PathBuf, String)>, Failure> {
    let listed = debian::output(Command::new("dpkg-query").args(["-L", package])).ok();
    let (base, paths): (PathBuf, Vec<String>) = match listed.filter(|_| debian_closure::is_installed(package)) {
        Some(text) => ("/".into(), text.lines().filter(|l| l.starts_with('/')).map(String::from).collect()),
        None => {
            let base = debian::unpacked(&tree.target.join("debian"), package, say)?;
            let mut paths = Vec::new();
            walk(&base, "", &mut paths)?;
            (base, paths)
        }
    };
    let named = paths.iter().map(|path| path.trim_start_matches('/')).filter(|path| !path.is_empty() && *path != ".");
    // Manuals and the like are not for programs, and an installed package may lack them.
    // Gdb's own are.
    let is_for_people = |path: &str| path.starts_with("usr/share") && !path.starts_with("usr/share/gdb");
    let wanted = named.filter(|path| !is_for_people(path) && base.join(path).symlink_metadata().is_ok());
    Ok(wanted.filter_map(|path| Some((base.join(path), place(path)?))).collect())
}

/// Where a file goes: what Debian has below /lib is below /usr/lib. None: for a directory that is there already.
fn place(path: &str) -> Option<String> {
    let first = path.split('/').next().unwrap_or(path);
    match (MERGED.contains(&first), path == first) {
        (true, true) => None,
        (true, false) => Some(format!("usr/{path}")),
        _ => {
            Some(path.to_string()).filter(|p| p != "usr" && p.strip_prefix("usr/").is_none_or(|p| !MERGED.contains(&p)))
        }
    }
}

fn walk(base: &Path, below: &str, paths: &mut Vec<String>) -> Result<(), Failure> {
    let dir = base.join(below);
    let failed = |e: std::io::Error| Failure::Usage(format!("{}: {e}", dir.display()));
    for entry in std::fs::read_dir(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        let is_dir = entry.file_type().map_err(failed)?.is_dir();
        paths.push(name.clone());
        if is_dir {
            walk(base, &format!("{name}/"), paths)?;
        }
    }
    paths.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_lib_goes_below_usr() {
        assert_eq!(place("lib/x/libc.so.6").as_deref(), Some("usr/lib/x/libc.so.6"));
        assert_eq!(place("usr/lib/x/libc.so.6").as_deref(), Some("usr/lib/x/libc.so.6"));
        assert_eq!(place("lib64/ld.so").as_deref(), Some("usr/lib64/ld.so"));
        assert_eq!(place("etc/bash.bashrc").as_deref(), Some("etc/bash.bashrc"));
        assert_eq!([place("lib"), place("usr"), place("usr/bin")], [None, None, None]);
    }
}
