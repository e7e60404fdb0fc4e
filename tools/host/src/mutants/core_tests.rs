//! Mutants of kcore against its own tests, on the host or under loom.

use super::manifest::{Layer, Mutant};
use super::{Verdict, folder};
use crate::failure::Failure;
use crate::tool;
use crate::tree::Tree;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A mutant may make its test hang; that is a kill too.
const LIMIT: Duration = Duration::from_secs(240);

/// Builds and runs the test program that kills `mutant`, with what `wrapper` switches on.
pub fn run(tree: &Tree, mutant: &Mutant, wrapper: &Path) -> Result<Verdict, Failure> {
    let cargo = |more: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(["test", "-q", "-p", "kcore", "--release", "--test", &mutant.test]).args(more);
        command.current_dir(&tree.root).env("CARGO_TARGET_DIR", folder(tree)).env("RUSTC_WORKSPACE_WRAPPER", wrapper);
        command
            .env_remove("RUSTFLAGS")
            .env("LOOM_MAX_PREEMPTIONS", "2")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"); // builds sooner
        if mutant.layer == Layer::Loom {
            command.env("RUSTFLAGS", "--cfg loom");
        }
        command
    };
    let fail = |e| tool::failure("cargo", e);
    if !tool::status(&mut cargo(&["--no-run"])).map_err(fail)?.success() {
        return Err(Failure::Bad(format!("mutant {}: {} does not build", mutant.name, mutant.test)));
    }
    let quiet = &mut cargo(&[]);
    let ended = tool::status_within(quiet.stdout(Stdio::null()).stderr(Stdio::null()), LIMIT).map_err(fail)?;
    Ok(match ended {
        Some(status) if status.success() => Verdict::Passed,
        Some(_) => Verdict::Failed("killed"),
        None => Verdict::Failed("hung"),
    })
}
