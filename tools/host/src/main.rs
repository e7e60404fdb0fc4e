//! `host`: the commands behind make. `make help` tells their exit codes.

use clap::{Parser, Subcommand};
use host::failure::Failure;
use host::tree::Tree;
use host::{
    bench, budgets, check_arrows, check_elf, check_files, compare, image, interrupt, iso, mutants, run, symbolize,
    trace,
};
use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::process::ExitCode;

/// Host commands of the Quiesce tree
#[derive(Parser, Debug)]
#[command(name = "host", disable_help_subcommand = true)]
struct Arguments {
    /// The source tree [default: the one that holds the current directory]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Build everything and write the boot archive
    Image(image::Options),
    /// Write a bootable ISO image with the real Limine
    Iso(iso::Options),
    /// Build and boot; settings come from the environment (see `make help`)
    Run(run::Options),
    /// Resolve the addresses of a kernel panic to source lines
    #[command(alias = "backtrace")]
    Symbolize(symbolize::Options),
    /// Check properties of the kernel's ELF file
    CheckElf(check_elf::Options),
    /// Check which part of the kernel uses which
    CheckArrows(check_arrows::Options),
    /// Check the length and form of every source file
    CheckFiles(check_files::Options),
    /// Compare `metric` lines on standard input with budgets.toml
    Budgets(budgets::Options),
    /// Measure in the guest, and compare with budgets.toml
    Bench(bench::Options),
    /// Measure Debian's Linux and Quiesce with the same program
    Compare(compare::Options),
    /// Switch on each seeded defect, and expect its test to fail
    Mutants(mutants::Options),
    /// Decode, check or demonstrate traces from the second serial port
    Trace(trace::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let name = match arguments.command {
        Command::Run(_) => "run-smp",
        _ => "host",
    };
    interrupt::watch(name);
    std::panic::set_hook(Box::new(move |panic| panicked(name, panic)));
    match command(&arguments) {
        Ok(()) => interrupt::conclude(None, ExitCode::SUCCESS),
        Err(failure) => interrupt::conclude(Some(format!("{name}: {failure}")), ExitCode::from(failure.code())),
    }
}

/// An output that is closed or full ends a command with a line. Any other panic is told as usual.
fn panicked(name: &str, panic: &PanicHookInfo) {
    match panic.payload_as_str().and_then(|text| text.strip_prefix("failed printing to stdout: ")) {
        Some(why) => {
            interrupt::conclude(Some(format!("{name}: standard output: {why}")), ExitCode::FAILURE);
            std::process::exit(1);
        }
        None => eprintln!("{panic}"),
    }
}

fn command(arguments: &Arguments) -> Result<(), Failure> {
    let tree = Tree::find(arguments.root.as_deref())?;
    match &arguments.command {
        Command::Image(options) => image::main(&tree, options),
        Command::Iso(options) => iso::main(&tree, options),
        Command::Run(options) => run::main(&tree, options),
        Command::Symbolize(options) => symbolize::main(&tree, options),
        Command::CheckElf(options) => check_elf::main(&tree, options),
        Command::CheckArrows(options) => check_arrows::main(&tree, options),
        Command::CheckFiles(options) => check_files::main(&tree, options),
        Command::Budgets(options) => budgets::main(&tree, options),
        Command::Bench(options) => bench::main(&tree, options),
        Command::Compare(options) => compare::main(&tree, options),
        Command::Mutants(options) => mutants::main(&tree, options),
        Command::Trace(options) => trace::main(&tree, options),
    }
}
