//! How a program starts and ends: arguments, the outcome, the error line.
//!
//! Used through the [`program!`](crate::program!) macro by every file in `src/bin`. The C `main` is taken directly, so that nothing but the
//! program's own system calls is made at the start; SIGPIPE keeps its default action and ends a program quietly.

use crate::output;
use std::ffi::{CStr, c_char, c_int};

/// The words of the command line; the first is the program's name.
#[derive(Clone, Debug, Default)]
pub struct Args {
    words: Vec<String>,
}

impl Args {
    /// Arguments from ready words; the first is the program's name.
    pub fn new(words: Vec<String>) -> Self {
        Self { words }
    }

    /// The program's name without directories, or `?` when the kernel gave no words at all.
    pub fn name(&self) -> &str {
        let whole = self.words.first().map_or("?", String::as_str);
        whole.rsplit('/').next().unwrap_or(whole)
    }

    /// The words behind the name.
    pub fn rest(&self) -> &[String] {
        self.words.get(1..).unwrap_or(&[])
    }

    /// The same without the first word, for a program that was called through `box NAME`.
    pub fn shifted(&self) -> Self {
        Self { words: self.rest().to_vec() }
    }
}

/// Why a program gives up: the text of its one error line and its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Exit status, not 0.
    pub status: u8,
    /// What is wrong, without the program's name and without a newline.
    pub text: String,
}

impl Failure {
    /// The work failed: status 1.
    pub fn new(text: impl Into<String>) -> Self {
        Self { status: 1, text: text.into() }
    }

    /// The command line is wrong: status 2.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { status: 2, text: text.into() }
    }
}

/// What a program ends with: its exit status, or the failure to report.
pub type Outcome = Result<u8, Failure>;

/// A program's main function.
pub type Main = fn(&Args) -> Outcome;

/// Runs `main` on the C arguments and returns the exit status, after one error line if there is something to say.
///
/// # Safety
/// `argv` must be null or point at `argc` valid C strings that stay unchanged for the whole call, as the C start code gives them.
pub unsafe fn run(argc: c_int, argv: *const *const c_char, main: Main) -> c_int {
    let mut words = Vec::new();
    if !argv.is_null() {
        for index in 0..usize::try_from(argc).unwrap_or(0) {
            // SAFETY: (1) index < argc, (2) the caller promises argc valid C strings.
            let word = unsafe { CStr::from_ptr(*argv.add(index)) };
            words.push(word.to_string_lossy().into_owned());
        }
    }
    c_int::from(run_words(Args::new(words), main))
}

/// Runs `main` and returns the exit status, after one error line on standard error if it failed.
pub fn run_words(args: Args, main: Main) -> u8 {
    match main(&args) {
        Ok(status) => status,
        Err(failure) => {
            output::complain(args.name(), &failure.text);
            failure.status
        }
    }
}

/// Makes the C `main` of a program out of its main function.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        /// Start of the program, called by the C start code.
        ///
        /// # Safety
        /// To be called by the C start code alone, with its `argc` and `argv`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            argc: core::ffi::c_int,
            argv: *const *const core::ffi::c_char,
        ) -> core::ffi::c_int {
            // SAFETY: (1) the C start code passes argc valid strings, which nobody changes.
            unsafe { $crate::entry::run(argc, argv, $main) }
        }
    };
}
