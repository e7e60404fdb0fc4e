//! `host check-elf`: properties of the kernel's ELF file that no test on TCG can show. One function a check; add it to
//! `CHECKS`. Called by `make check`.

mod entry_text;
mod fixups;
pub(crate) mod image;
mod paranoid;
mod text;

use crate::failure::{self, Failure};
use crate::tree::{Profile, Tree};
use image::Image;
use std::path::{Path, PathBuf};

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
    run: fn(&Image) -> Vec<String>,
}

/// Every check, in the order in which they are printed.
const CHECKS: &[Check] = &[
    Check { name: "no segment is both writable and executable", run: text::write_or_execute },
    Check { name: "no SIMD or x87 register is used in kernel text", run: text::no_simd },
    Check { name: "mfence; lfence stand before the WRMSR to the x2APIC ICR", run: text::fence_before_icr },
    Check {
        name: "who has been parked serialises before it returns, and meets no key site",
        run: text::park_serialises,
    },
    Check {
        name: "entry text is patchable at the tracking key's sites only, and at trace points behind user_exit",
        run: entry_text::boot_key_sites_only,
    },
    Check {
        name: "no key site in the NMI, #DB, #BP, #DF and #MC entries",
        run: entry_text::paranoid_paths_have_no_site,
    },
    Check {
        name: "NMI, #DB, #BP, #DF and #MC reach no key site before nmi_enter or user_exit",
        run: paranoid::no_site_before_transition,
    },
    Check {
        name: "SYSCALL to dispatch, all off: one NOP5 for tracking, one for traces, no locked instruction, no key load",
        run: entry_text::off_path,
    },
    Check {
        name: "the only locked instructions are the transitions, with kcore's deltas and masks",
        run: entry_text::transitions,
    },
    Check {
        name: "each access to user memory stands in the exception table, which is sorted and has nothing else",
        run: fixups::every_user_access,
    },
    Check { name: "entry text calls nothing but what is listed, and nothing before user_exit", run: entry_text::calls },
];

/// Runs all checks on the ELF file: name and violations of each.
pub fn violations(kernel: &Path) -> Result<Vec<(&'static str, Vec<String>)>, Failure> {
    let bytes = failure::read(kernel)?;
    let image = Image::parse(&bytes).map_err(|e| Failure::Bad(format!("{}: {e}", kernel.display())))?;
    Ok(CHECKS.iter().map(|check| (check.name, (check.run)(&image))).collect())
}

/// Runs all checks and prints a line for each.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    let path = options.kernel.clone().unwrap_or_else(|| tree.kernel(Profile::Release));
    let mut failed = 0;
    for (name, violations) in violations(&path)? {
        println!("{} {name}", if violations.is_empty() { "ok    " } else { "FAILED" });
        for line in &violations {
            println!("       {line}");
        }
        failed += usize::from(!violations.is_empty());
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Bad(format!("{failed} of {} ELF checks failed", CHECKS.len()))) }
}
