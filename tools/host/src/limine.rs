//! An installation of the real Limine on this machine: where it is, whether it is whole, which version it is.
//! Used by `run`, `iso` and the scenarios. Nothing of it is ever copied into the tree; a download lies in the build directory.

use crate::failure::{self, Failure};
use crate::interrupt::Scratch;
use crate::iso;
use crate::settings::{Firmware, Loader, Settings};
use crate::tool;
use crate::tree::Tree;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files that a disc needs, by the names that Limine's releases and packages give them.
pub const FILES: [&str; 4] = [BIOS_STAGE, "limine-bios-cd.bin", "limine-uefi-cd.bin", "BOOTX64.EFI"];
const BIOS_STAGE: &str = "limine-bios.sys";
/// Where a distribution's package, or Limine's own `make install`, puts them.
const SHARES: [&str; 2] = ["/usr/local/share/limine", "/usr/share/limine"];

/// Where Limine's binaries are downloaded from.
pub const URL: &str = "https://github.com/limine-bootloader/limine";
/// The branch of them that is taken.
pub const BRANCH: &str = "v8.x-binary";

/// A whole Limine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limine {
    /// The directory that holds [`FILES`].
    pub dir: PathBuf,
    /// Its version in its own words, such as `7.13.3`.
    pub version: String,
    /// The program that writes the BIOS stage into a disk image, where it is there.
    pub installer: Option<PathBuf>,
}

impl Limine {
    /// The Limine in `dir`. Fails with a line that names LIMINE_DIR and what is wrong with it.
    pub fn open(dir: &Path) -> Result<Limine, Failure> {
        let fail = |why: String| Failure::Usage(format!("LIMINE_DIR={}: {why}", dir.display()));
        if !dir.is_dir() {
            return Err(fail(if dir.exists() { "not a directory" } else { "no such directory" }.into()));
        }
        for name in FILES {
            if !dir.join(name).is_file() {
                return Err(fail(format!("not Limine's directory, it has no {name}")));
            }
        }
        let stage = failure::read(&dir.join(BIOS_STAGE))?;
        let version = version(&stage).ok_or_else(|| fail(format!("{BIOS_STAGE} names no version of Limine")))?;
        // Beside the files in a release that was built in place; else in the bin of the same prefix.
        let places = [dir.join("limine"), dir.join("../../bin/limine")];
        let installer = places.into_iter().find(|p| is_program(p));
        Ok(Limine { dir: dir.to_path_buf(), version, installer })
    }

    /// The distribution's Limine, if there is one.
    pub fn of_distribution() -> Option<Limine> {
        SHARES.iter().find_map(|dir| Limine::open(Path::new(dir)).ok())
    }

    /// The Limine that LIMINE_DIR names, else the distribution's, else the one downloaded before, else, with LIMINE_DOWNLOAD=1, one
    /// that is downloaded now; `what` needs it. `say` gets a line for the download.
    pub fn wanted(tree: &Tree, settings: &Settings, what: &str, say: impl FnOnce(&str)) -> Result<Limine, Failure> {
        if let Some(dir) = &settings.limine_dir {
            return Limine::open(dir);
        }
        let place = tree.target.join("limine");
        let here = Limine::of_distribution().or_else(|| Limine::open(&place).ok());
        match here {
            Some(limine) => Ok(limine),
            None if settings.limine_download => download(&place, &settings.limine_url, what, say),
            None => Err(Failure::Usage(format!(
                "{what}: no Limine in {}; name the directory of its binaries (LIMINE_DIR=), or let them be downloaded from {} \
(LIMINE_DOWNLOAD=1)",
                SHARES.join(" nor "),
                settings.limine_url
            ))),
        }
    }
}

/// Fetches the binaries of [`BRANCH`] from `url` into `place`. Nothing is there if it fails.
fn download(place: &Path, url: &str, what: &str, say: impl FnOnce(&str)) -> Result<Limine, Failure> {
    let fail = |why: &str| Failure::Usage(format!("{what}: {BRANCH} of {url}: {why}"));
    let part = Scratch::new(place.with_extension("part"));
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Failure::Usage(format!("{}: {e}", parent.display())))?;
    }
    say(&format!("downloading branch {BRANCH} of {url} to {}", place.display()));
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", "--depth", "1", "--branch", BRANCH, "--", url]).arg(part.path());
    // Nobody is there to be asked.
    git.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
    let output = tool::output(&mut git).map_err(|e| tool::failure("git", e))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let told = errors.lines().filter_map(|l| l.strip_prefix("fatal: ")).next_back();
        return Err(fail(told.or(errors.lines().next_back()).unwrap_or("git failed")));
    }
    let lacks = FILES.into_iter().find(|name| !part.path().join(name).is_file());
    if let Some(name) = lacks {
        return Err(fail(&format!("it has no {name}")));
    }
    let named = |e: std::io::Error| Failure::Usage(format!("{}: {e}", place.display()));
    if place.exists() {
        std::fs::remove_dir_all(place).map_err(named)?; // not whole, or it would have been taken
    }
    std::fs::rename(part.path(), place).map_err(named)?;
    Limine::open(place).map_err(|e| fail(&e.to_string()))
}

/// The loader that `settings` lead to: None for the direct one. `say` gets one line where `auto` was asked for.
pub fn choose(tree: &Tree, settings: &Settings, say: impl FnOnce(&str)) -> Result<Option<Limine>, Failure> {
    let given = settings.limine_dir.as_deref();
    match settings.loader {
        Loader::Direct => Ok(None),
        Loader::Limine => Limine::wanted(tree, settings, "LOADER=limine", say).map(Some),
        Loader::Auto => {
            let found = match given {
                Some(dir) => Some(Limine::open(dir)?),
                None => Limine::of_distribution().filter(|_| iso::find_xorriso("LOADER=auto").is_ok()),
            };
            if found.is_none() && settings.firmware == Firmware::Uefi {
                return Limine::wanted(tree, settings, "FIRMWARE=uefi", say).map(Some);
            }
            match &found {
                Some(limine) => {
                    say(&format!("LOADER=auto: taking Limine {} from {}", limine.version, limine.dir.display()));
                }
                None => say(
                    "LOADER=auto: taking the direct loader (no LIMINE_DIR, no Limine of the distribution with xorriso)",
                ),
            }
            Ok(found)
        }
    }
}

/// The version that the BIOS stage carries as text: `Limine 7.13.3`.
fn version(stage: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"Limine ";
    stage.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        let text = stage[at + NAME.len()..].iter().take(32);
        let number: String = text.map(|b| char::from(*b)).take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let number = number.trim_end_matches('.');
        number.starts_with(|c: char| c.is_ascii_digit()).then(|| number.to_string())
    })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_first_number_after_the_name() {
        assert_eq!(version(b"..Limine protocol\0Limine 7.13.3 (x86-64, BIOS)\0").as_deref(), Some("7.13.3"));
        assert_eq!(version(b"Limine 8.2.0").as_deref(), Some("8.2.0"));
        assert_eq!(version(b"Limine "), None);
        assert_eq!(version(b"GRUB 2.06"), None);
    }

    #[test]
    fn a_foreign_directory_is_named_with_what_it_lacks() {
        let message = Limine::open(Path::new("/")).unwrap_err().to_string();
        assert!(message.contains("LIMINE_DIR=/:") && message.contains("no limine-bios.sys"), "{message}");
        let message = Limine::open(Path::new("/no/such/limine")).unwrap_err().to_string();
        assert!(message.contains("LIMINE_DIR=/no/such/limine: no such directory"), "{message}");
    }
}
