//! The source tree: where it is, where its build output lies, and how its programs are built.
//! Used by the commands and by the scenarios.

use crate::failure::Failure;
use crate::tool;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Cargo's build profile of the kernel. The loader and the guest programs are always release builds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// `--release`.
    Release,
    /// Cargo's `dev` profile, with the debug assertions.
    Debug,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Profile::Release => "release",
            Profile::Debug => "debug",
        }
    }
}

/// A source tree and its build directory.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The folder that holds `limine.cfg` and the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
}

impl Tree {
    /// Finds the tree: `root` if given, else the nearest folder at or above the current one that holds `limine.cfg`
    /// and `Cargo.toml`.
    pub fn find(root: Option<&Path>) -> Result<Tree, Failure> {
        let here = std::env::current_dir().map_err(|e| Failure::Usage(format!("current directory: {e}")))?;
        let is_root = |p: &&Path| p.join("limine.cfg").is_file() && p.join("Cargo.toml").is_file();
        let root = match root {
            Some(path) => path.to_path_buf(),
            None => here
                .ancestors()
                .find(is_root)
                .ok_or_else(|| Failure::Usage(format!("{}: not inside a Quiesce tree", here.display())))?
                .to_path_buf(),
        };
        let root = root.canonicalize().map_err(|e| Failure::Usage(format!("{}: {e}", root.display())))?;
        let target = match std::env::var_os("CARGO_TARGET_DIR").filter(|v| !v.is_empty()) {
            Some(dir) => here.join(dir),
            None => root.join("target"),
        };
        Ok(Tree { root, target })
    }

    /// The kernel's ELF file.
    pub fn kernel(&self, profile: Profile) -> PathBuf {
        self.target.join("x86_64-unknown-none").join(profile.folder()).join("kernel")
    }

    /// The direct loader's ELF file.
    pub fn loader(&self) -> PathBuf {
        self.target.join("x86_64-unknown-none/release/boot")
    }

    /// The guest programs as (name, ELF file), in the order of their names.
    pub fn guests(&self) -> Result<Vec<(String, PathBuf)>, Failure> {
        let sources = self.root.join("tools/guest/src/bin");
        let listing = std::fs::read_dir(&sources).map_err(|e| Failure::Usage(format!("{}: {e}", sources.display())))?;
        let mut names: Vec<String> = listing
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let is_program = path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").is_file();
                is_program.then(|| path.file_stem().map(|s| s.to_string_lossy().into_owned()))?
            })
            .collect();
        names.sort();
        let built = self.target.join("x86_64-unknown-linux-musl/release");
        Ok(names.into_iter().map(|name| (name.clone(), built.join(name))).collect())
    }

    /// Builds the kernel, the loader and the guest programs. Costs little when nothing changed.
    pub fn build(&self, profile: Profile) -> Result<(), Failure> {
        let none = ["--target", "x86_64-unknown-none"];
        match profile {
            Profile::Release => self.cargo(&["build", "-q", "--release", "-p", "kernel", "-p", "boot"], &none)?,
            Profile::Debug => {
                self.cargo(&["build", "-q", "-p", "kernel"], &none)?;
                self.cargo(&["build", "-q", "--release", "-p", "boot"], &none)?;
            }
        }
        self.build_guests()
    }

    /// Builds the guest programs alone.
    pub fn build_guests(&self) -> Result<(), Failure> {
        self.cargo(&["build", "-q", "--release", "-p", "guest"], &["--target", "x86_64-unknown-linux-musl"])
    }

    fn cargo(&self, words: &[&str], more: &[&str]) -> Result<(), Failure> {
        // A user's RUSTFLAGS would replace the ones in .cargo/config.toml. Output goes to stderr: stdout is the guest's.
        let mut command = Command::new("cargo");
        command
            .args(words)
            .args(more)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .stdout(std::io::stderr());
        let status = tool::status(&mut command).map_err(|e| tool::failure("cargo", e))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::Usage(format!("`cargo {} {}` failed", words.join(" "), more.join(" "))))
    }
}
