//! Debian's kernel for `compare`: found, downloaded and unpacked by apt and dpkg-deb, never installed.
//!
//! The image is kept in `target/compare/debian` by package and version, so that a second run needs no network. What is
//! unfinished lies in a directory of its own, which is removed on every way out (`interrupt::Scratch`).

use crate::debian;
use crate::failure::{self, Failure};
use crate::interrupt::Scratch;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that depends on the current kernel's.
const CURRENT: &str = "linux-image-amd64";

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its package and version, for people.
    pub name: String,
    /// Its bzImage.
    pub image: PathBuf,
}

/// Finds the kernel that `linux-image-amd64` stands for, and downloads it unless it is in `cache`.
pub fn kernel(cache: &Path, say: impl Fn(&str)) -> Result<Kernel, Failure> {
    let record = debian::output(Command::new("apt-cache").args(["show", "--no-all-versions", CURRENT]))
        .map_err(|why| Failure::Usage(format!("compare: {why}; Debian and `apt-get update` are needed")))?;
    let Some(Package { name, version }) = current(&record) else {
        return Err(Failure::Usage(format!("compare: apt-cache names no kernel that {CURRENT} depends on")));
    };
    let image = cache.join(format!("vmlinuz-{name}_{}", version.replace(['/', ':'], "_")));
    let kernel = Kernel { name: format!("{name} {version}"), image };
    if kernel.image.is_file() {
        return Ok(kernel);
    }
    say(&format!("downloading {name} {version}"));
    let scratch = Scratch::new(cache.join(format!("unfinished-{}", std::process::id())));
    let tree = debian::download(scratch.path(), &name, &version)?;
    let boot = tree.join("boot").join(format!("vmlinuz-{}", name.trim_start_matches("linux-image-")));
    failure::read(&boot)?; // named if it is not there
    std::fs::rename(&boot, &kernel.image).map_err(|e| Failure::Usage(format!("{}: {e}", kernel.image.display())))?;
    Ok(kernel)
}

struct Package {
    name: String,
    version: String,
}

/// The kernel's package and version in a record of `apt-cache show linux-image-amd64`.
fn current(record: &str) -> Option<Package> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    depends.split(',').find_map(|item| {
        let (name, rest) = item.trim().split_once(' ')?;
        let version = rest.trim().strip_prefix("(=")?.strip_suffix(')')?.trim();
        name.starts_with("linux-image-").then(|| Package { name: name.into(), version: version.into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_kernel_is_found() {
        let record = "Package: linux-image-amd64\nVersion: 6.1.1-2\nDepends: base (>= 1), linux-image-6.1.0-5-amd64 (= 6.1.1-2)\n";
        let package = current(record).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("linux-image-6.1.0-5-amd64", "6.1.1-2"));
        assert!(current("Package: x\nDepends: linux-base\n").is_none());
        assert!(current("").is_none());
    }
}
