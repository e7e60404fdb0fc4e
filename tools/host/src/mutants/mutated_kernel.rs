//! Mutants of the kernel: built in a directory of their own, then looked at by the ELF checks, or booted by a scenario that finds them
//! in place of the usual kernel.

use super::{Verdict, folder};
use crate::check_elf;
use crate::failure::{self, Failure};
use crate::plugin;
use crate::tool;
use crate::tree::{Profile, Tree};
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A scenario gives up by itself long before; it may wait for other QEMUs.
const LIMIT: Duration = Duration::from_secs(900);
/// What a kernel that is only booted is built with, so that it builds sooner.
const SOONER: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
];

/// Builds and looks.
pub struct MutatedKernel<'a> {
    tree: &'a Tree,
    /// What scenarios take for the build directory; none before the first scenario.
    stage: Option<PathBuf>,
    /// Programs of scenarios that are built.
    programs: BTreeMap<String, PathBuf>,
}

impl<'a> MutatedKernel<'a> {
    /// Nothing is built yet.
    pub fn new(tree: &'a Tree) -> Self {
        Self { tree, stage: None, programs: BTreeMap::new() }
    }

    /// Whether the check that is named fails; for the control, whether any does.
    pub fn check_elf(&self, wrapper: &Path, name: &str, is_control: bool) -> Result<Verdict, Failure> {
        let found = check_elf::violations(&self.build(wrapper, &[])?)?;
        if !found.iter().any(|(check, _)| check.contains(name)) {
            return Err(Failure::Usage(format!("MUTANTS.md: no ELF check is named {name}")));
        }
        let fails = |(check, lines): &(&str, Vec<String>)| !lines.is_empty() && (is_control || check.contains(name));
        Ok(if found.iter().any(fails) { Verdict::Failed("killed") } else { Verdict::Passed })
    }

    /// Whether test `part` of scenario `name` fails on this kernel.
    pub fn scenario(&mut self, wrapper: &Path, name: &str, part: &str) -> Result<Verdict, Failure> {
        let kernel = self.build(wrapper, &SOONER)?;
        let stage = self.stage()?;
        let place = stage.join("x86_64-unknown-none/release/kernel");
        failure::write(&place, &failure::read(&kernel)?)?;
        let program = self.program(name)?;
        let out = stage.join("output");
        let file = std::fs::File::create(&out).map_err(|e| Failure::Usage(format!("{}: {e}", out.display())))?;
        let mut command = Command::new(program);
        command.args([part, "--exact", "--test-threads=1", "--nocapture"]).current_dir(&self.tree.root);
        command.env("CARGO_TARGET_DIR", &stage).env_remove("PROFILE").env_remove("QUIESCE_LONG");
        command.stdout(file.try_clone().map_err(|e| Failure::Usage(format!("{}: {e}", out.display())))?).stderr(file);
        let ended = tool::status_within(&mut command, LIMIT).map_err(|e| tool::failure(name, e))?;
        let said = String::from_utf8_lossy(&failure::read(&out)?).into_owned();
        if let Some(why) = said.lines().find_map(|line| line.strip_prefix("SKIPPED: ")) {
            return Ok(Verdict::Skipped(why.into()));
        }
        if said.contains("\nrunning 0 tests") {
            return Err(Failure::Usage(format!("MUTANTS.md: {name} has no test {part}")));
        }
        Ok(match ended {
            Some(status) if status.success() => Verdict::Passed,
            Some(_) => Verdict::Failed("killed"),
            None => Verdict::Failed("hung"),
        })
    }

    fn build(&self, wrapper: &Path, variables: &[(&str, &str)]) -> Result<PathBuf, Failure> {
        let target = folder(self.tree);
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "-q", "--release", "-p", "kernel", "--target", "x86_64-unknown-none"]);
        cargo.current_dir(&self.tree.root).env("CARGO_TARGET_DIR", &target).env("RUSTC_WORKSPACE_WRAPPER", wrapper);
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").envs(variables.iter().copied());
        if !tool::status(&mut cargo).map_err(|e| tool::failure("cargo", e))?.success() {
            return Err(Failure::Bad(format!("the kernel with {} does not build", wrapper.display())));
        }
        Ok(Tree { root: self.tree.root.clone(), target }.kernel(Profile::Release))
    }

    /// A build directory with everything but the kernel.
    fn stage(&mut self) -> Result<PathBuf, Failure> {
        if let Some(stage) = &self.stage {
            return Ok(stage.clone());
        }
        self.tree.build(Profile::Release)?;
        if plugin::why_not().is_none() {
            plugin::build(self.tree)?;
        }
        let stage = folder(self.tree).join("stage");
        let fail = |e: std::io::Error| Failure::Usage(format!("{}: {e}", stage.display()));
        if stage.exists() {
            std::fs::remove_dir_all(&stage).map_err(fail)?;
        }
        std::fs::create_dir_all(stage.join("x86_64-unknown-none/release")).map_err(fail)?;
        for name in ["x86_64-unknown-none/release/boot", "x86_64-unknown-linux-musl", "plugin"] {
            symlink(self.tree.target.join(name), stage.join(name)).map_err(fail)?;
        }
        Ok(self.stage.insert(stage).clone())
    }

    /// The program of scenario `name`.
    fn program(&mut self, name: &str) -> Result<PathBuf, Failure> {
        if let Some(program) = self.programs.get(name) {
            return Ok(program.clone());
        }
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "-q", "-p", "scenarios", "--no-run", "--message-format=json", "--test", name]);
        cargo.current_dir(&self.tree.root).env("CARGO_TARGET_DIR", &self.tree.target);
        let output = tool::output(&mut cargo).map_err(|e| tool::failure("cargo", e))?;
        let program = executable(&String::from_utf8_lossy(&output.stdout), name);
        let program = program.filter(|_| output.status.success()).ok_or_else(|| {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            Failure::Usage(format!("scenario {name} does not build"))
        })?;
        Ok(self.programs.entry(name.into()).or_insert(program).clone())
    }
}

/// The executable of target `name` in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let of_target =
        |line: &&str| line.contains(&format!("\"name\":\"{name}\"")) && line.contains("\"kind\":[\"test\"]");
    messages.lines().filter(of_target).find_map(|line| {
        let path = line.split("\"executable\":\"").nth(1)?.split('"').next()?;
        Some(PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_the_tests() {
        let lib = r#"{"target":{"kind":["lib"],"name":"storm"},"executable":null}"#;
        let test = r#"{"target":{"kind":["test"],"name":"storm"},"executable":"/t/deps/storm-1"}"#;
        assert_eq!(executable(&format!("{lib}\n{test}\n"), "storm"), Some("/t/deps/storm-1".into()));
        assert_eq!(executable(lib, "storm"), None);
    }
}
