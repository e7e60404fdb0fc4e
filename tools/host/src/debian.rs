//! Debian packages as files: found and downloaded by apt, unpacked by dpkg-deb, never installed. Used by `compare` for Debian's kernel and
//! by what runs Debian's programs.
//!
//! What is unpacked is kept by package and version, so that a second run needs no network. What is unfinished lies in a directory of its
//! own, which is removed on every way out (`interrupt::Scratch`).

use crate::failure::Failure;
use crate::interrupt::Scratch;
use crate::tool;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version of `package` that apt would install.
pub fn version(package: &str) -> Result<String, Failure> {
    let record = output(Command::new("apt-cache").args(["show", "--no-all-versions", package]))
        .map_err(|why| Failure::Usage(format!("{package}: {why}; Debian and `apt-get update` are needed")))?;
    let line = record.lines().find_map(|line| line.strip_prefix("Version:"));
    let version = line.map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
    version.ok_or_else(|| Failure::Usage(format!("{package}: apt-cache names no version")))
}

/// The directory in `cache` with the files of `package`, which is downloaded if it is not there yet.
pub fn unpacked(cache: &Path, package: &str, say: impl Fn(&str)) -> Result<PathBuf, Failure> {
    let version = version(package)?;
    let folder = format!("{package}_{}", version.replace(['/', ':'], "_"));
    let place = cache.join(&folder);
    if place.is_dir() {
        return Ok(place);
    }
    say(&format!("downloading {package} {version}"));
    let scratch = Scratch::new(cache.join(format!("unfinished-{package}-{}", std::process::id())));
    let tree = download(scratch.path(), package, &version)?;
    match std::fs::rename(&tree, &place) {
        // Another run was faster.
        Err(_) if place.is_dir() => Ok(place),
        moved => moved.map(|()| place.clone()).map_err(|e| Failure::Usage(format!("{}: {e}", place.display()))),
    }
}

/// What apt-get download is told besides the package: to say soon that nothing comes.
const DOWNLOAD: [&str; 8] =
    ["-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=10", "download"];

/// A failed download: what the network did is told from all else, as a package that apt does not know or a full disk.
fn not_downloaded(package: &str, why: &str) -> Failure {
    let text = format!("{package}: apt-get download: {why}");
    if why.starts_with("Failed to fetch") { Failure::Network(text) } else { Failure::Usage(text) }
}

/// Downloads and unpacks a package in `dir`; where its files are. `Failure::Network` if nothing came.
pub fn download(dir: &Path, package: &str, version: &str) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(dir).map_err(|e| Failure::Usage(format!("{}: {e}", dir.display())))?;
    let failed = |what: &str, why: &str| Failure::Usage(format!("{package}: {what}: {why}"));
    let wanted = format!("{package}={version}");
    output(Command::new("apt-get").args(DOWNLOAD).arg(&wanted).current_dir(dir))
        .map_err(|why| not_downloaded(package, &why))?;
    let file = only_file(dir).ok_or_else(|| failed("apt-get download", "no file came"))?;
    let tree = dir.join("tree");
    output(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&tree)).map_err(|why| failed("dpkg-deb", &why))?;
    Ok(tree)
}

fn only_file(dir: &Path) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(dir).ok()?.filter_map(|e| Some(e.ok()?.path()));
    files.find(|path| path.extension().is_some_and(|e| e == "deb"))
}

fn not_run(program: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program}: not found"),
        _ => format!("{program}: {error}"),
    }
}

/// Runs a command; gives its output, or one line that says why there is none.
pub fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = tool::output(command.env("LC_ALL", "C")).map_err(|e| not_run(&program, &e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = errors.lines().find(|l| l.starts_with("E:") || l.contains("error")).or_else(|| errors.lines().next());
    Err(first.map_or_else(|| output.status.to_string(), |line| line.trim_start_matches("E: ").to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_told_from_all_else() {
        let gone = "Failed to fetch http://deb.example/a.deb  Temporary failure resolving 'deb.example'";
        assert!(matches!(not_downloaded("a", gone), Failure::Network(_)));
        for why in ["Unable to locate package a", "apt-get: not found", "Version '1' for 'a' was not found"] {
            assert!(matches!(not_downloaded("a", why), Failure::Usage(_)), "{why}");
        }
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
