//! What can be wrong with boot parameters, and the line that is printed for it.
//!
//! Callers as in [`crate::cmdline`], which exports all of this. Invariant: one complaint prints as one line.

use crate::cpu_set::ListError;
use core::fmt;

/// What was wrong with a parameter and what was done instead. Prints as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint<'a> {
    /// The parameter's name.
    pub name: &'a str,
    /// Its value.
    pub value: Option<&'a str>,
    /// What was wrong, what was done.
    pub what: What<'a>,
}

/// What was wrong with a parameter and what was done instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// Given again later; the later one counts.
    Repeated,
    /// Has no value, or an empty one, and needs one; ignored.
    NoValue,
    /// Has a value and takes none; the value is ignored.
    NeedlessValue,
    /// Not a number, or outside its limits; this is used instead.
    BadNumber {
        /// The least it may be.
        min: i64,
        /// The most it may be.
        max: i64,
        /// What is used.
        used: i64,
    },
    /// Neither `on` nor `off` (nor 1, 0, y, n); `on` or `off` is used.
    BadSwitch {
        /// What is used.
        used: bool,
    },
    /// A CPU list that cannot be read; ignored.
    BadList(ListError),
    /// The list names CPUs that do not exist; these are left out.
    NoSuchCpu(ListError),
    /// A list that names no CPU.
    EmptyList,
    /// A flag of `isolcpus=` that is not known; skipped.
    UnknownFlag(&'a str),
    /// The boot CPU cannot be isolated; it stays a housekeeping CPU.
    BootCpuKept {
        /// The boot CPU.
        cpu: u32,
        /// Without it no CPU would be left to do the housekeeping.
        all: bool,
    },
    /// `irqaffinity=` without the boot CPU; it is added.
    BootCpuAdded {
        /// The boot CPU.
        cpu: u32,
    },
    /// `irqaffinity=` names isolated CPUs; done as asked.
    IrqsOnIsolated {
        /// The first such CPU.
        cpu: u32,
    },
    /// More words, or names in a list, than this; the rest is left out.
    TooMany(usize),
    /// `init=` came after words for init; as in Linux these are dropped.
    WordsBeforeInit,
    /// Has the form of a parameter of ours, and there is none of that name; ignored.
    Unknown,
    /// `rcu_nocbs=`: no CPU runs its callbacks itself, so nothing changes.
    CallbacksElsewhere,
    /// `ftrace=` names a tracer; there is none but `nop`.
    NoTracer,
    /// A Linux parameter that has no meaning here; ignored.
    Ignored,
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Short(self.name))?;
        if let Some(value) = self.value {
            write!(f, "={}", Short(value))?;
        }
        match self.what {
            What::Repeated => write!(f, ": given more than once, the last one counts"),
            What::NoValue => write!(f, ": needs a value, ignored"),
            What::NeedlessValue => write!(f, ": takes no value, value ignored"),
            What::BadNumber { min, max, used } => write!(f, ": not a number from {min} to {max}, using {used}"),
            What::BadSwitch { used } => write!(f, ": neither on nor off, using {}", if used { "on" } else { "off" }),
            What::BadList(error) => write!(f, ": {error}; parameter ignored"),
            What::NoSuchCpu(error) => write!(f, ": {error}; CPUs that do not exist left out"),
            What::EmptyList => write!(f, ": names no CPU"),
            What::UnknownFlag(flag) => write!(f, ": unknown flag {} skipped", Short(flag)),
            What::BootCpuKept { cpu, all: false } => write!(f, ": boot CPU {cpu} kept as housekeeping CPU"),
            What::BootCpuKept { cpu, all: true } => {
                write!(f, ": no housekeeping CPU left, boot CPU {cpu} kept as housekeeping CPU")
            }
            What::BootCpuAdded { cpu } => write!(f, ": boot CPU {cpu} added"),
            What::IrqsOnIsolated { cpu } => write!(f, ": CPU {cpu} is isolated and will get interrupts as asked"),
            What::TooMany(limit) => write!(f, ": more than {limit} words, the rest left out"),
            What::WordsBeforeInit => write!(f, ": arguments for init before it dropped"),
            What::Unknown => write!(f, ": unknown parameter, ignored"),
            What::CallbacksElsewhere => {
                write!(f, ": changes nothing, RCU callbacks of all CPUs run on housekeeping CPUs in any case")
            }
            What::NoTracer => write!(f, ": no such tracer, ignored; trace_event= chooses what is traced"),
            What::Ignored => write!(f, ": has no meaning here, ignored"),
        }
    }
}

/// Prints text on one line and not too long.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        const MOST: usize = 80;
        for (at, c) in self.0.chars().enumerate() {
            if at == MOST {
                return f.write_str("...");
            }
            f.write_char(if c.is_control() { '?' } else { c })?;
        }
        Ok(())
    }
}
