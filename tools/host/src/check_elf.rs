//! `host check-elf`: properties of the kernel's ELF file that no test on TCG can show. One function a check; add it to
//! `CHECKS`. Called by `make check`.

use crate::failure::{self, Failure};
use crate::tree::{Profile, Tree};
use object::elf::{self, FileHeader64};
use object::endian::LittleEndian;
use object::read::elf::{FileHeader, ProgramHeader};
use std::path::PathBuf;

/// Command-line options of `host check-elf`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Kernel ELF file [default: the release build]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
}

/// A named property: it returns a line for each violation.
struct Check {
    name: &'static str,
    run: fn(&[u8]) -> Result<Vec<String>, object::read::Error>,
}

/// Every check, in the order in which they are printed.
const CHECKS: &[Check] = &[Check { name: "no segment is both writable and executable", run: write_or_execute }];

/// Runs all checks and prints a line for each.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    let path = options.kernel.clone().unwrap_or_else(|| tree.kernel(Profile::Release));
    let bytes = failure::read(&path)?;
    let mut failed = 0;
    for check in CHECKS {
        let violations = (check.run)(&bytes).map_err(|e| Failure::Bad(format!("{}: {e}", path.display())))?;
        println!("{} {}", if violations.is_empty() { "ok    " } else { "FAILED" }, check.name);
        for line in &violations {
            println!("       {line}");
        }
        failed += usize::from(!violations.is_empty());
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Bad(format!("{failed} of {} ELF checks failed", CHECKS.len()))) }
}

fn write_or_execute(elf: &[u8]) -> Result<Vec<String>, object::read::Error> {
    let header = FileHeader64::<LittleEndian>::parse(elf)?;
    let endian = header.endian()?;
    let both = elf::PF_W | elf::PF_X;
    let segments = header.program_headers(endian, elf)?.iter();
    let bad = segments.filter(|s| s.p_type(endian) == elf::PT_LOAD && s.p_flags(endian) & both == both);
    Ok(bad.map(|s| format!("segment at {:#x}", s.p_vaddr(endian))).collect())
}
