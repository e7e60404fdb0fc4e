//! `tools/run-smp` as a program, with given variables and input. Used by the scenarios that are about the runner itself.

use crate::Failed;
use crate::program::Program;
pub use crate::program::Run;
use host::tree::Tree;
use std::process::Command;

/// Every variable that the runner reads; those of the caller must not leak in.
pub const VARIABLES: [&str; 18] = [
    "SMP",
    "MEM",
    "PROFILE",
    "CMDLINE",
    "INITRD",
    "ROOT",
    "SHELL_PROGRAM",
    "ACCEL",
    "ICOUNT",
    "CPU",
    "LOADER",
    "FIRMWARE",
    "LIMINE_DIR",
    "LIMINE_DOWNLOAD",
    "LIMINE_URL",
    "TRACE",
    "TIMEOUT",
    "QEMU_ARGS",
];

/// Runs it with these variables and this input, to its end; the input ends right after.
pub fn run_smp(variables: &[(&str, &str)], input: &str) -> Result<Run, Failed> {
    let mut started = start(variables)?;
    started.send(input);
    started.close_input();
    started.finish()
}

/// Starts it with these variables; its input stays open.
pub fn start(variables: &[(&str, &str)]) -> Result<Program, Failed> {
    let tree = Tree::find(None)?;
    let mut command = Command::new(tree.root.join("tools/run-smp"));
    for name in VARIABLES {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    Program::start(command)
}
