//! `host trace`: decodes what the second serial port gave (TRACE=file), checks it against the rules of the context word,
//! and makes a demo of it. The format and the rules are kcore's.

pub mod conformance;
mod demo;
mod json;
pub mod spans;
pub mod stream;
mod summary;
mod timeline;

use crate::failure::{self, Failure};
use crate::tree::Tree;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Command-line options of `host trace`.
#[derive(clap::Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Write a trace as text, with figures and losses at its end
    Decode {
        /// What the second serial port gave
        file: PathBuf,
        /// One JSON object a line instead
        #[arg(long)]
        json: bool,
        /// Write a page with a time line too
        #[arg(long, value_name = "OUT")]
        html: Option<PathBuf>,
    },
    /// Replay a trace against the rules of the context word; exit code 1 if a step is unexplained
    Check {
        /// What the second serial port gave
        file: PathBuf,
    },
    /// Run a demo load, and write its trace, its text and a time line
    Demo,
}

/// Does what the options say.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    match &options.command {
        Command::Decode { file, json, html } => decode(file, *json, html.as_deref()),
        Command::Check { file } => check(file),
        Command::Demo => demo::main(tree),
    }
}

fn decode(file: &Path, json: bool, html: Option<&Path>) -> Result<(), Failure> {
    let trace = read(file)?;
    let spans = spans::spans(&trace);
    if let Some(out) = html {
        failure::write(out, timeline::write(&trace, &spans).as_bytes())?;
    }
    let text = if json { json::write(&trace, &spans) } else { text(&trace, &spans) };
    print(&text)
}

/// All lines, the figures, the losses.
pub fn text(trace: &stream::Trace, spans: &[spans::Span]) -> String {
    let mut out = String::new();
    for entry in &trace.entries {
        out.push_str(&trace.line(entry));
        out.push('\n');
    }
    let table = summary::table(trace, spans);
    let blank = if out.is_empty() || table.is_empty() { "" } else { "\n" };
    out + blank + &table + "\n" + &summary::account(trace)
}

fn check(file: &Path) -> Result<(), Failure> {
    let trace = read(file)?;
    if !conformance::has_transitions(&trace) {
        let hint = "record one with trace_event=context,irq";
        return Err(Failure::Usage(format!("{}: no transition in this trace; {hint}", file.display())));
    }
    let findings = conformance::replay(&trace);
    print(&findings.text())?;
    print(&summary::account(&trace))?;
    match findings.faults.first() {
        None => Ok(()),
        Some((number, ..)) => Err(Failure::Bad(format!("{}: record {number} is unexplained", file.display()))),
    }
}

/// The trace in this file, which must hold at least one frame.
fn read(file: &Path) -> Result<stream::Trace, Failure> {
    let trace = stream::read(file)?;
    if trace.account.frames == 0 {
        let what = match trace.account.skipped_bytes {
            0 => "is empty".into(),
            bytes => format!("holds {bytes} bytes and no frame of a trace"),
        };
        return Err(Failure::Usage(format!("{}: {what}", file.display())));
    }
    Ok(trace)
}

/// A reader that went away ends the output and is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Bad(format!("standard output: {e}"))),
        _ => Ok(()),
    }
}
