//! Debian's kernel for `compare`: found, downloaded and unpacked by apt and dpkg-deb, never installed.
//!
//! The image is kept in `target/compare/debian` by package and version, so that a second run needs no network. What is
//! unfinished lies in a directory of its own, which is removed on every way out, signals included.

use crate::failure::{self, Failure};
use nix::sys::signal::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
    let record = output(Command::new("apt-cache").args(["show", "--no-all-versions", CURRENT])).map_err(|why| {
        Failure::Usage(format!("compare: apt knows no {CURRENT} ({why}); Debian and `apt-get update` are needed"))
    })?;
    let Some(Package { name, version }) = current(&record) else {
        return Err(Failure::Usage(format!("compare: apt-cache names no kernel that {CURRENT} depends on")));
    };
    let image = cache.join(format!("vmlinuz-{name}_{}", version.replace(['/', ':'], "_")));
    let kernel = Kernel { name: format!("{name} {version}"), image };
    if kernel.image.is_file() {
        return Ok(kernel);
    }
    say(&format!("downloading {name} {version}"));
    let scratch = Scratch::new(cache)?;
    let dir = &scratch.0;
    let failed = |what: &str, why: &str| Failure::Usage(format!("compare: {what}: {why}"));
    let wanted = format!("{name}={version}");
    output(Command::new("apt-get").args(["-q", "-o", "APT::Sandbox::User=root", "download", &wanted]).current_dir(dir))
        .map_err(|why| failed(&format!("apt-get download {wanted}"), &why))?;
    let package = only_file(dir).ok_or_else(|| failed("apt-get download", "no file came"))?;
    say("unpacking");
    let tree = dir.join("tree");
    output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&tree)).map_err(|why| failed("dpkg-deb", &why))?;
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

fn only_file(dir: &Path) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(dir).ok()?.filter_map(|e| Some(e.ok()?.path()));
    files.find(|path| path.extension().is_some_and(|e| e == "deb"))
}

/// Runs a command that ends when this process does; gives its output, or one line that says why there is none.
fn output(command: &mut Command) -> Result<String, String> {
    // SAFETY: 1. the closure runs between fork and exec and makes one async-signal-safe system call; 2. it allocates
    // nothing.
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)) };
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).env("LC_ALL", "C").output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = errors.lines().find(|l| l.starts_with("E:") || l.contains("error")).or_else(|| errors.lines().next());
    Err(first.map_or_else(|| output.status.to_string(), |line| line.trim_start_matches("E: ").to_string()))
}

/// A directory that goes with this value, and on SIGINT, SIGTERM and SIGHUP.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Scratch, Failure> {
        let dir = parent.join(format!("unfinished-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| Failure::Usage(format!("{}: {e}", dir.display())))?;
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map_err(|e| Failure::Usage(format!("signal handlers: {e}")))?;
        let doomed = dir.clone();
        std::thread::spawn(move || {
            if let Some(number) = signals.forever().next() {
                remove(&doomed);
                eprintln!("host: ended by signal {number}");
                std::process::exit(1);
            }
        });
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a directory that a child may still be filling for a moment.
fn remove(dir: &Path) {
    for _ in 0..100 {
        match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                std::thread::sleep(std::time::Duration::from_millis(10))
            }
            _ => return,
        }
    }
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

    #[test]
    fn a_failed_command_gives_one_line() {
        let missing = output(&mut Command::new("no-such-program")).unwrap_err();
        assert!(missing.starts_with("no-such-program: "), "{missing}");
        let failed = output(Command::new("sh").args(["-c", "echo W: x >&2; echo E: gone >&2; exit 1"])).unwrap_err();
        assert_eq!(failed, "gone");
        assert_eq!(output(Command::new("echo").arg("yes")).unwrap(), "yes\n");
    }
}
