//! SHELL_PROGRAM=busybox: our root file system with Debian's busybox-static as the shell and all its programs. Used by `run` and the
//! scenarios.
//!
//! The installed /bin/busybox is taken if it is a static program, else the package is downloaded and unpacked. It takes the place of our
//! own small programs of the same names, but for those that end the machine: they need no init to signal.

use crate::archive::Archive;
use crate::debian;
use crate::failure::{self, Failure};
use crate::image;
use crate::tree::Tree;
use kcore::elf;
use std::path::{Path, PathBuf};

const INSTALLED: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];
const PACKAGE: &str = "busybox-static";
/// Names that stay ours.
const OURS: [&str; 4] = ["busybox", "init", "poweroff", "reboot"];

const FILES: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
    ("etc/profile", "export PATH=/bin HOME=/root TERM=${TERM:-vt100}\n"),
];

/// Where Debian's static busybox is: installed, or else downloaded.
pub fn find(tree: &Tree, say: impl Fn(&str)) -> Result<PathBuf, Failure> {
    let installed = INSTALLED.iter().map(Path::new).find(|path| is_static(path));
    if let Some(path) = installed {
        return Ok(path.into());
    }
    let files = debian::unpacked(&tree.target.join("debian"), PACKAGE, say)
        .map_err(|e| Failure::Usage(format!("SHELL_PROGRAM=busybox: {e}; `make setup` installs {PACKAGE}")))?;
    let places = INSTALLED.map(|path| files.join(path.trim_start_matches('/')));
    places.into_iter().find(|path| is_static(path)).ok_or_else(|| {
        Failure::Usage(format!("SHELL_PROGRAM=busybox: {}: no static bin/busybox in it", files.display()))
    })
}

fn is_static(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| elf::plan_user(&bytes).is_ok_and(|plan| plan.interp.is_none()))
}

/// The root file system.
pub fn root_file_system(tree: &Tree, say: impl Fn(&str)) -> Result<Vec<u8>, Failure> {
    let busybox = find(tree, say)?;
    let names = image::applets(&busybox)?;
    let is_its = |name: &str| !OURS.contains(&name) && names.iter().any(|n| n == name);
    let mut archive = Archive::default();
    image::our_files(tree, &mut archive, is_its)?;
    for directory in ["etc", "root"] {
        archive.directory(directory);
    }
    archive.program("bin/busybox", &failure::read(&busybox)?);
    for name in names.iter().filter(|name| is_its(name)) {
        archive.symbolic_link(&format!("bin/{name}"), "busybox");
    }
    for (path, text) in FILES {
        archive.file(path, text.as_bytes());
    }
    Ok(archive.finish())
}
