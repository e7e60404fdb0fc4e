//! Scenario: a full disk ends a host command with exit code 1 and one line that names the file; what was there before stays, and nothing
//! unfinished is left. The disk is a small one in memory, which only root can mount.

use scenarios::program::{Program, Run};
use scenarios::sandbox::Sandbox;
use scenarios::{Failed, Outcome, skip};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A disk of 64 KiB; it goes with this value.
struct Disk(PathBuf);

impl Disk {
    /// Mounts it; None where this user may not.
    fn mount(place: PathBuf) -> Result<Option<Disk>, Failed> {
        std::fs::create_dir_all(&place)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&place).stderr(Stdio::null());
        let mounted = mount.status().is_ok_and(|status| status.success());
        Ok(mounted.then_some(Disk(place)))
    }

    /// Fills all of it but `room` bytes.
    fn fill(&self, room: usize) -> Outcome {
        Ok(std::fs::write(self.0.join("filler"), vec![0; 64 * 1024 - room])?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: nothing of ours is open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: Command, input: &str) -> Result<Run, Failed> {
    let mut program = Program::start(command)?;
    program.send(input);
    program.finish()
}

/// Exit code 1 and one line that names `path`.
#[track_caller]
fn named(run: &Run, path: &Path) {
    assert_eq!(run.code, Some(1), "{run:#?}");
    let wanted = format!("{}: No space left on device", path.display());
    let lines: Vec<&str> = run.stderr.lines().filter(|l| !l.contains("waiting: two QEMUs")).collect();
    assert!(lines.len() == 1 && lines[0].contains(&wanted), "{wanted}: {run:#?}");
}

#[test]
fn a_trace_that_does_not_fit() -> Outcome {
    let sandbox = Sandbox::new("full-trace")?;
    let traced = |path: &Path| {
        let variables = [("TRACE", &*path.to_string_lossy()), ("CMDLINE", "trace_event=syscalls,irq,sched")];
        run(sandbox.run_smp(&variables), "ps\npoweroff\n")
    };
    let full = Path::new("/dev/full");
    named(&traced(full)?, full);
    let Some(disk) = Disk::mount(sandbox.path("disk"))? else {
        return skip("no file system can be mounted");
    };
    disk.fill(8192)?;
    let path = disk.0.join("trace");
    named(&traced(&path)?, &path);
    assert_eq!(sandbox.left()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn an_image_that_does_not_fit() -> Outcome {
    let sandbox = Sandbox::new("full-iso")?;
    let Some(disk) = Disk::mount(sandbox.path("disk"))? else {
        return skip("no file system can be mounted");
    };
    sandbox.tool("xorriso", "head -c 200000 /dev/zero")?;
    let limine = sandbox.limine("share")?;
    let (iso, archive) = (disk.0.join("quiesce.iso"), disk.0.join("quiesce.cpio"));
    let iso_words = ["iso", "--out", &*iso.to_string_lossy()];
    let archive_words = ["image", "--out", &*archive.to_string_lossy()];
    for (path, words) in [(&iso, iso_words), (&archive, archive_words)] {
        std::fs::write(path, b"before")?;
        let run = run(sandbox.host(&words, &[("LIMINE_DIR", &limine.to_string_lossy())]), "")?;
        named(&run, path);
        assert_eq!(std::fs::read(path)?, b"before");
    }
    let mut names: Vec<_> = std::fs::read_dir(&disk.0)?.flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["quiesce.cpio", "quiesce.iso"], "nothing unfinished is left");
    Ok(())
}

#[test]
fn an_output_that_takes_nothing() -> Outcome {
    let sandbox = Sandbox::new("full-output")?;
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let output = sandbox.host(&["check-elf"], &[]).stdout(full).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said, "host: standard output: No space left on device (os error 28)\n");
    Ok(())
}
