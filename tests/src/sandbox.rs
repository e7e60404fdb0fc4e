//! A place of its own for a host command under test: a PATH whose first directory is the scenario's, a directory for temporary files,
//! and a build directory in which what was built can be found. Tells what a command left there, and which of its processes live.

use crate::Failed;
use crate::run_smp::VARIABLES;
use host::tree::Tree;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What is built before the scenarios run.
const BUILT: [&str; 4] = ["debug", "x86_64-unknown-none", "x86_64-unknown-linux-musl", "plugin"];
/// Safety net for processes to go, in seconds.
const LIMIT: Duration = Duration::from_secs(300);
/// What Limine's directory has to hold; the first names the version.
const LIMINE: [(&str, &str); 4] =
    [("limine-bios.sys", "Limine 8.0.0 "), ("limine-bios-cd.bin", ""), ("limine-uefi-cd.bin", ""), ("BOOTX64.EFI", "")];

/// The place; it goes with this value.
pub struct Sandbox {
    /// The source tree.
    pub tree: Tree,
    folder: PathBuf,
}

impl Sandbox {
    /// An empty one, in which `cargo` does nothing: everything is built.
    pub fn new(name: &str) -> Result<Sandbox, Failed> {
        let tree = Tree::find(None)?;
        let folder = std::env::temp_dir().join(format!("quiesce-{name}-{}", std::process::id()));
        let sandbox = Sandbox { tree, folder };
        for part in ["bin", "tmp", "target"] {
            std::fs::create_dir_all(sandbox.path(part))?;
        }
        for part in BUILT {
            let built = sandbox.tree.target.join(part);
            if built.exists() {
                symlink(built, sandbox.path("target").join(part))?;
            }
        }
        sandbox.tool("cargo", "exit 0")?;
        Ok(sandbox)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Puts a shell script into its PATH.
    pub fn tool(&self, name: &str, script: &str) -> Result<(), Failed> {
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?)
    }

    /// Puts what only looks like a Limine into directory `name`, and returns that.
    pub fn limine(&self, name: &str) -> Result<PathBuf, Failed> {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder)?;
        for (file, text) in LIMINE {
            std::fs::write(folder.join(file), text)?;
        }
        Ok(folder)
    }

    /// `program` in this place.
    pub fn command(&self, program: &Path, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        for name in VARIABLES {
            command.env_remove(name);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.envs([("PATH", format!("{}:{path}", self.path("bin").display()).as_str()), ("LC_ALL", "C")]);
        command.env("TMPDIR", self.path("tmp")).env("CARGO_TARGET_DIR", self.path("target"));
        command.current_dir(&self.tree.root).envs(variables.iter().copied());
        command
    }

    /// `tools/run-smp` in this place, by the direct loader under TCG.
    pub fn run_smp(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = self.command(&self.tree.root.join("tools/run-smp"), variables);
        command.envs([("LOADER", "direct"), ("ACCEL", "tcg")]);
        command
    }

    /// The host tool in this place.
    pub fn host(&self, words: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = self.command(&self.tree.target.join("debug/host"), variables);
        command.args(words);
        command
    }

    /// Nothing of a command is found but what `tool` put there, and these programs.
    pub fn only(&self, command: &mut Command, programs: &[&str]) -> Result<(), Failed> {
        let path = std::env::var("PATH").unwrap_or_default();
        for name in programs {
            let found = path.split(':').map(|dir| Path::new(dir).join(name)).find(|p| p.is_file());
            let found = found.ok_or_else(|| Failed(format!("{name}: not in PATH")))?;
            let link = self.path("bin").join(name);
            if !link.exists() {
                symlink(found, link)?;
            }
        }
        command.env("PATH", self.path("bin"));
        Ok(())
    }

    /// Waits until a process that was started in this place has `text` in its command line.
    pub fn wait_for_process(&self, text: &str) -> Result<(), Failed> {
        let deadline = Instant::now() + LIMIT;
        while !self.processes().iter().any(|line| line.contains(text)) {
            if Instant::now() > deadline {
                return Err(Failed(format!("timed out: no process has {text} in its command line")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until no process is left that was started in this place, and returns what files are left.
    pub fn left(&self) -> Result<Vec<String>, Failed> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                return Err(Failed(format!("timed out: still there: {}", processes.join("; "))));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut left = Vec::new();
        for part in ["tmp", "target"] {
            files(&self.path(part), &mut left)?;
        }
        Ok(left)
    }

    /// The command lines of processes whose environment names this place.
    fn processes(&self) -> Vec<String> {
        let marked = |id: &str| {
            let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            let mark = self.path("tmp").display().to_string();
            environment.windows(mark.len()).any(|w| w == mark.as_bytes())
        };
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = all.map(|e| e.file_name().to_string_lossy().into_owned());
        ids.filter(|id| id.bytes().all(|b| b.is_ascii_digit()) && marked(id))
            .map(|id| std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default().replace('\0', " "))
            .collect()
    }
}

/// Plain files below `folder`; links are not followed.
fn files(folder: &Path, found: &mut Vec<String>) -> Result<(), Failed> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        }
        if !entry.file_type()?.is_symlink() {
            found.push(entry.path().display().to_string());
        }
    }
    Ok(())
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A failed scenario may have left less of it.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
