//! A directory with the programs as the image has them in /bin, and a root with kernel files; removed when dropped.

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Programs with files of their own, with what cargo built them as.
const PROGRAMS: [(&str, &str); 14] = [
    ("init", env!("CARGO_BIN_EXE_init")),
    ("sh", env!("CARGO_BIN_EXE_sh")),
    ("cpus", env!("CARGO_BIN_EXE_cpus")),
    ("isolate", env!("CARGO_BIN_EXE_isolate")),
    ("why", env!("CARGO_BIN_EXE_why")),
    ("run", env!("CARGO_BIN_EXE_run")),
    ("spin", env!("CARGO_BIN_EXE_spin")),
    ("noise", env!("CARGO_BIN_EXE_noise")),
    ("lease", env!("CARGO_BIN_EXE_lease")),
    ("log", env!("CARGO_BIN_EXE_log")),
    ("busy", env!("CARGO_BIN_EXE_busy")),
    ("trace", env!("CARGO_BIN_EXE_trace")),
    ("bench", env!("CARGO_BIN_EXE_bench")),
    ("box", env!("CARGO_BIN_EXE_box")),
];

/// The directory.
pub struct Image {
    dir: PathBuf,
}

/// How a program ended.
pub struct Ended {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Image {
    /// A new one.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("quiesce-guest-{}-{number}", std::process::id()));
        std::fs::create_dir_all(dir.join("bin")).unwrap();
        for (name, built) in PROGRAMS {
            symlink(built, dir.join("bin").join(name)).unwrap();
        }
        for (name, _) in guest::applet::APPLETS.iter() {
            symlink(env!("CARGO_BIN_EXE_box"), dir.join("bin").join(name)).unwrap();
        }
        Self { dir }
    }

    /// Gives the kernel file `path` this content.
    pub fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.dir.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Runs a program with `input` on its standard input.
    pub fn run_with(&self, words: &[&str], input: &str) -> Ended {
        use std::io::Write;
        let mut command = Command::new(self.dir.join("bin").join(words[0]));
        // The tests themselves may run where SIGINT is ignored, as a background job does; the programs shall not inherit that.
        let interruptible = || {
            // SAFETY: signal(2) with SIG_DFL is allowed between fork and exec.
            unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
            Ok(())
        };
        // SAFETY: the closure calls signal(2) alone, which is async-signal-safe.
        unsafe { command.pre_exec(interruptible) };
        let mut child = command
            .args(&words[1..])
            .env("PATH", self.dir.join("bin"))
            .env("QUIESCE_ROOT", &self.dir)
            .current_dir(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that does not read its input has closed it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { status: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// Runs a program without input.
    pub fn run(&self, words: &[&str]) -> Ended {
        self.run_with(words, "")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
