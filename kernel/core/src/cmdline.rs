//! Reads the kernel command line: Linux's words, quotes, names and CPU lists, and what they mean for this machine.
//!
//! Called once, early, by the boot CPU; allocates. Invariants: no input panics; a value that is wrong is replaced
//! and a [`Complaint`] says so; CPU sets name existing CPUs only; the boot CPU is always a housekeeping CPU.
//! Source: Linux Documentation/admin-guide/kernel-parameters.rst and .txt (meaning of each parameter, "cpu lists"),
//! bootparam(7) (what goes to init). Ours alone: `hz=`, `quiesce.defer=`.

mod complaint;
#[cfg(test)]
mod tests;
mod words;

pub use complaint::{Complaint, What};
pub use words::{Param, Params, params};

use crate::cpu_set::{CpuSet, MAX_CPUS, parse_list_clipped};
use alloc::vec::Vec;

/// Ticks per second where `hz=` does not say otherwise.
pub const DEFAULT_HZ: u32 = 250;
/// Seconds after which a grace period is told, where `rcu_cpu_stall_timeout=` does not say otherwise.
pub const DEFAULT_RCU_STALL_TIMEOUT_S: u32 = 21;
/// Messages less urgent than this are not printed, where `loglevel=` does not say otherwise.
pub const DEFAULT_LOGLEVEL: u8 = 7;
/// The loglevel of `quiet`.
pub const QUIET_LOGLEVEL: u8 = 4;
/// The loglevel of `debug`.
pub const DEBUG_LOGLEVEL: u8 = 10;
/// The longest line read, in bytes; what follows is left out, and that is said.
pub const MAX_LINE: usize = 8192;
/// The most words handed to init as arguments, and the most as environment (Linux: 32 each).
pub const MAX_INIT_WORDS: usize = 32;
/// The most complaints kept; the rest are counted.
pub const MAX_COMPLAINTS: usize = 32;
/// KiB of each CPU's trace where nobody says otherwise.
pub const DEFAULT_TRACE_BUF_KIB: u32 = 64;
/// The largest trace of a CPU, in KiB.
pub const MAX_TRACE_BUF_KIB: u32 = 2048;
/// The most names in `trace_event=`.
pub const MAX_TRACE_EVENTS: usize = 32;

const MIN_HZ: u32 = 10;
const MAX_HZ: u32 = 10_000;

/// What the command line asks for, with everything wrong replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootParams<'a> {
    /// CPUs whose tick stops when one task runs (`nohz_full=`, `isolcpus=nohz,`). Never the boot CPU.
    pub nohz_full: CpuSet,
    /// CPUs that no task is placed on unasked (`isolcpus=`, `isolcpus=domain,`). Never the boot CPU.
    pub isolated_domain: CpuSet,
    /// CPUs kept free of managed interrupts (`isolcpus=managed_irq,`). Never the boot CPU.
    pub isolated_managed_irq: CpuSet,
    /// CPUs whose RCU callbacks run elsewhere (`rcu_nocbs=`); every CPU of `nohz_full` is one.
    pub rcu_nocbs: CpuSet,
    /// `rcu_cpu_stall_timeout=`: a grace period that lasts longer, in seconds, is told.
    pub rcu_stall_timeout_s: u32,
    /// `watchdog_thresh=`: a CPU that hangs in the kernel for so many seconds is told; 0 (`nowatchdog`): nobody looks.
    pub watchdog_threshold_s: u32,
    /// `norandmaps` was not given: programs get a layout at random.
    pub random_layout: bool,
    /// `fail_alloc=N`: the N-th allocation of programs fails; 0: none.
    pub fail_alloc: u64,
    /// CPUs that device interrupts go to (`irqaffinity=`, else the housekeeping CPUs). Always the boot CPU.
    pub irq_affinity: CpuSet,
    /// CPUs that do the work of the others: neither nohz_full nor isolated. Always the boot CPU.
    pub housekeeping: CpuSet,
    /// `maxcpus=`: how many CPUs to start; 0 counts as 1. See [`BootParams::cpus_to_start`].
    pub max_cpus: Option<u32>,
    /// `nosmp`: start the boot CPU only.
    pub nosmp: bool,
    /// `hz=`: ticks per second.
    pub hz: u32,
    /// Messages of this level and above (less urgent) are not printed (`loglevel=`, `quiet`; the last one counts).
    pub loglevel: u8,
    /// `quiet` was given.
    pub quiet: bool,
    /// `panic=`: seconds until the machine restarts after a panic; 0 halts for ever, negative restarts at once.
    pub panic_timeout: i32,
    /// `init=`: the program to run as PID 1.
    pub init: Option<&'a str>,
    /// `trace_event=`: groups or events to trace from the start.
    pub trace_events: Vec<&'a str>,
    /// `trace_buf_size=`: KiB of each CPU's trace.
    pub trace_buf_kib: u32,
    /// `tp_printk`: trace events go to the console too.
    pub tp_printk: bool,
    /// `quiesce.defer=`: leave work for the next kernel entry instead of an IPI (default on).
    pub defer: bool,
    /// Words for init's argument list, after its name, in order; each prints as init gets it.
    pub init_args: Vec<Param<'a>>,
    /// Words for init's environment; each prints as `KEY=VALUE`. A key occurs once.
    pub init_env: Vec<Param<'a>>,
    /// What was wrong, in the order of the line.
    pub complaints: Vec<Complaint<'a>>,
    /// Complaints beyond [`MAX_COMPLAINTS`].
    pub complaints_lost: u32,
}

impl BootParams<'_> {
    /// Every CPU that is isolated in some way: nohz_full, domain or both.
    pub fn isolated(&self) -> CpuSet {
        self.nohz_full.union(&self.isolated_domain)
    }

    /// How many of `nr_cpus` CPUs to start, the boot CPU included; at least 1.
    pub fn cpus_to_start(&self, nr_cpus: u32) -> u32 {
        let limit = if self.nosmp { 1 } else { self.max_cpus.unwrap_or(nr_cpus) };
        limit.min(nr_cpus).max(1)
    }
}

/// Parameters that mean something here; `_` stands for `-` too.
const OURS: [&str; 22] = [
    "nohz_full",
    "isolcpus",
    "rcu_nocbs",
    "rcu_cpu_stall_timeout",
    "watchdog_thresh",
    "nowatchdog",
    "fail_alloc",
    "norandmaps",
    "irqaffinity",
    "maxcpus",
    "nosmp",
    "hz",
    "loglevel",
    "quiet",
    "panic",
    "init",
    "trace_event",
    "trace_buf_size",
    "ftrace",
    "tp_printk",
    "quiesce.defer",
    "debug",
];

/// Linux parameters that are usual and change nothing here; nothing is said.
const SILENT: [&str; 2] = ["console", "earlyprintk"];

/// Linux parameters that change nothing here; said once, at the first.
const IGNORED: [&str; 11] = [
    "root",
    "rw",
    "ro",
    "rootfstype",
    "rootflags",
    "rootwait",
    "rdinit",
    "initrd",
    "earlycon",
    "nokaslr",
    "mitigations",
];

/// What `line` asks for, on a machine with CPUs 0 to `nr_cpus - 1` of which `boot_cpu` runs this.
pub fn resolve(line: &str, nr_cpus: u32, boot_cpu: u32) -> BootParams<'_> {
    let mut reader = Reader::new(nr_cpus.clamp(1, MAX_CPUS as u32), boot_cpu.min(MAX_CPUS as u32 - 1));
    let line = if line.len() > MAX_LINE {
        reader.complain(Param { name: "command line", value: None }, What::TooMany(MAX_LINE));
        line.split_at(line.floor_char_boundary(MAX_LINE)).0
    } else {
        line
    };
    let mut words = params(line);
    while let Some(param) = words.next() {
        if param.value.is_none() && param.name == "--" {
            for word in words.by_ref() {
                reader.init_arg(word);
            }
        } else {
            reader.word(param, words.rest());
        }
    }
    reader.finish()
}

/// What is read so far.
struct Reader<'a> {
    nr_cpus: u32,
    boot_cpu: u32,
    out: BootParams<'a>,
    isol_nohz: CpuSet,
    irq_affinity: Option<Param<'a>>,
    ignored_said: bool,
    too_many_said: [bool; 2],
}

impl<'a> Reader<'a> {
    fn new(nr_cpus: u32, boot_cpu: u32) -> Self {
        Reader {
            nr_cpus,
            boot_cpu,
            out: BootParams {
                nohz_full: CpuSet::new(),
                isolated_domain: CpuSet::new(),
                isolated_managed_irq: CpuSet::new(),
                rcu_nocbs: CpuSet::new(),
                rcu_stall_timeout_s: DEFAULT_RCU_STALL_TIMEOUT_S,
                watchdog_threshold_s: crate::watchdog::DEFAULT_THRESHOLD_S,
                random_layout: true,
                fail_alloc: 0,
                irq_affinity: CpuSet::new(),
                housekeeping: CpuSet::new(),
                max_cpus: None,
                nosmp: false,
                hz: DEFAULT_HZ,
                loglevel: DEFAULT_LOGLEVEL,
                quiet: false,
                panic_timeout: 0,
                init: None,
                trace_events: Vec::new(),
                trace_buf_kib: DEFAULT_TRACE_BUF_KIB,
                tp_printk: false,
                defer: true,
                init_args: Vec::new(),
                init_env: Vec::new(),
                complaints: Vec::new(),
                complaints_lost: 0,
            },
            isol_nohz: CpuSet::new(),
            irq_affinity: None,
            ignored_said: false,
            too_many_said: [false; 2],
        }
    }

    fn complain(&mut self, param: Param<'a>, what: What<'a>) {
        if self.out.complaints.len() < MAX_COMPLAINTS {
            self.out.complaints.push(Complaint { name: param.name, value: param.value, what });
        } else {
            self.out.complaints_lost = self.out.complaints_lost.saturating_add(1);
        }
    }

    fn word(&mut self, param: Param<'a>, rest: &'a str) {
        if let Some(name) = OURS.iter().find(|name| param.is(name)) {
            let later = |word: &Param<'_>| word.is(name);
            if params(rest).take_while(|word| word.value.is_some() || word.name != "--").any(|word| later(&word)) {
                // Linux reads all of them, so that the last one counts; only that one is read here.
                return self.complain(param, What::Repeated);
            }
            self.ours(name, param);
        } else if SILENT.iter().any(|name| param.is(name)) {
        } else if IGNORED.iter().any(|name| param.is(name)) {
            if !self.ignored_said {
                self.ignored_said = true;
                self.complain(param, What::Ignored);
            }
        } else if param.name.starts_with("quiesce.") {
            self.complain(param, What::Unknown);
        } else if param.name.contains('.') {
            // A module's parameter; there are no modules, and Linux does not pass these on either.
        } else if param.value.is_some() {
            self.init_env(param);
        } else {
            self.init_arg(param);
        }
    }

    fn init_arg(&mut self, param: Param<'a>) {
        if self.out.init_args.len() < MAX_INIT_WORDS {
            self.out.init_args.push(param);
        } else if !core::mem::replace(&mut self.too_many_said[0], true) {
            self.complain(param, What::TooMany(MAX_INIT_WORDS));
        }
    }

    fn init_env(&mut self, param: Param<'a>) {
        if let Some(same) = self.out.init_env.iter_mut().find(|same| same.name == param.name) {
            *same = param;
        } else if self.out.init_env.len() < MAX_INIT_WORDS {
            self.out.init_env.push(param);
        } else if !core::mem::replace(&mut self.too_many_said[1], true) {
            self.complain(param, What::TooMany(MAX_INIT_WORDS));
        }
    }

    fn ours(&mut self, name: &str, param: Param<'a>) {
        match name {
            "nohz_full" => self.out.nohz_full = self.list(param, param.value.unwrap_or("")),
            "isolcpus" => self.isolcpus(param),
            // Without a list it is Linux's way to say that CPUs may be offloaded later.
            "rcu_nocbs" if param.value.is_none() => {}
            "rcu_nocbs" => {
                self.out.rcu_nocbs = self.list(param, param.value.unwrap_or(""));
                if !self.out.rcu_nocbs.is_empty() {
                    self.complain(param, What::CallbacksElsewhere);
                }
            }
            "irqaffinity" => {
                self.out.irq_affinity = self.list(param, param.value.unwrap_or(""));
                self.irq_affinity = Some(param).filter(|_| !self.out.irq_affinity.is_empty());
            }
            "maxcpus" => {
                let most = i64::from(self.nr_cpus);
                if let Some(count) = self.number(param, 0, i64::from(i32::MAX), most) {
                    self.out.max_cpus = Some(count as u32);
                }
            }
            "rcu_cpu_stall_timeout" => {
                if let Some(seconds) = self.number(param, 3, 300, self.out.rcu_stall_timeout_s.into()) {
                    self.out.rcu_stall_timeout_s = seconds as u32;
                }
            }
            "watchdog_thresh" => {
                let (most, used) = (crate::watchdog::MAX_THRESHOLD_S.into(), self.out.watchdog_threshold_s.into());
                if let Some(seconds) = self.number(param, 0, most, used) {
                    self.out.watchdog_threshold_s = seconds as u32;
                }
            }
            "norandmaps" => self.out.random_layout = !self.flag(param),
            "fail_alloc" => {
                if let Some(nth) = self.number(param, 0, i64::from(i32::MAX), 0) {
                    self.out.fail_alloc = nth as u64;
                }
            }
            "nowatchdog" => {
                self.flag(param);
                self.out.watchdog_threshold_s = 0;
            }
            "hz" => {
                if let Some(hz) = self.number(param, MIN_HZ.into(), MAX_HZ.into(), DEFAULT_HZ.into()) {
                    self.out.hz = hz as u32;
                }
            }
            "loglevel" => {
                if let Some(level) = self.number(param, 0, 15, self.out.loglevel.into()) {
                    self.out.loglevel = level as u8;
                }
            }
            "panic" => {
                if let Some(seconds) = self.number(param, i32::MIN.into(), i32::MAX.into(), 0) {
                    self.out.panic_timeout = seconds as i32;
                }
            }
            "init" => {
                if let Some(path) = self.text(param) {
                    self.out.init = Some(path);
                    if !self.out.init_args.is_empty() {
                        self.out.init_args.clear();
                        self.complain(param, What::WordsBeforeInit);
                    }
                }
            }
            "trace_event" => {
                let names = param.value.unwrap_or("").split(',').map(str::trim).filter(|name| !name.is_empty());
                self.out.trace_events = names.clone().take(MAX_TRACE_EVENTS).collect();
                if names.count() > MAX_TRACE_EVENTS {
                    self.complain(param, What::TooMany(MAX_TRACE_EVENTS));
                }
            }
            "trace_buf_size" => {
                let (unit, most) = (1024, i64::from(MAX_TRACE_BUF_KIB));
                let bytes = param.value.and_then(memory_size).unwrap_or(-1);
                if (1..=most * unit).contains(&bytes) {
                    self.out.trace_buf_kib = (bytes as u64).div_ceil(unit as u64) as u32;
                } else {
                    let used = i64::from(DEFAULT_TRACE_BUF_KIB) * unit;
                    self.complain(param, What::BadNumber { min: 1, max: most * unit, used });
                }
            }
            "ftrace" => self.tracer(param),
            "quiesce.defer" => self.out.defer = self.switch(param, true),
            "nosmp" => self.out.nosmp = self.flag(param),
            "tp_printk" => self.out.tp_printk = self.flag(param),
            "quiet" => {
                self.out.quiet = self.flag(param);
                self.out.loglevel = QUIET_LOGLEVEL;
            }
            "debug" => {
                self.flag(param);
                self.out.loglevel = DEBUG_LOGLEVEL;
            }
            _ => {}
        }
    }

    /// The one tracer is `nop`.
    fn tracer(&mut self, param: Param<'a>) {
        if self.text(param).is_some_and(|name| name != "nop") {
            self.complain(param, What::NoTracer);
        }
    }

    /// A parameter that is a word alone.
    fn flag(&mut self, param: Param<'a>) -> bool {
        if param.value.is_some() {
            self.complain(param, What::NeedlessValue);
        }
        true
    }

    fn switch(&mut self, param: Param<'a>, default: bool) -> bool {
        match param.value {
            Some("on" | "1" | "y" | "Y") => true,
            Some("off" | "0" | "n" | "N") => false,
            _ => {
                self.complain(param, What::BadSwitch { used: default });
                default
            }
        }
    }

    fn text(&mut self, param: Param<'a>) -> Option<&'a str> {
        let text = param.value.filter(|text| !text.is_empty());
        if text.is_none() {
            self.complain(param, What::NoValue);
        }
        text
    }

    /// The number, or `None` after a complaint: then the default stays.
    fn number(&mut self, param: Param<'a>, min: i64, max: i64, used: i64) -> Option<i64> {
        let number = number(param.value.unwrap_or("")).filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.complain(param, What::BadNumber { min, max, used });
        }
        number
    }

    /// The set that a list names, less what does not exist; empty if it cannot be read.
    fn list(&mut self, param: Param<'a>, list: &str) -> CpuSet {
        match parse_list_clipped(list, self.nr_cpus) {
            Err(error) => {
                self.complain(param, What::BadList(error));
                CpuSet::new()
            }
            Ok((set, Some(error))) => {
                self.complain(param, What::NoSuchCpu(error));
                set
            }
            Ok((set, None)) => {
                if set.is_empty() {
                    self.complain(param, What::EmptyList);
                }
                set
            }
        }
    }

    fn isolcpus(&mut self, param: Param<'a>) {
        let (mut nohz, mut domain, mut managed_irq) = (false, false, false);
        let mut list = param.value.unwrap_or("");
        loop {
            let flag = list.split(',').next().unwrap_or("");
            let is_flag = flag.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !starts_list(flag);
            if !is_flag {
                break;
            }
            match flag {
                "nohz" => nohz = true,
                "domain" => domain = true,
                "managed_irq" => managed_irq = true,
                unknown => self.complain(param, What::UnknownFlag(unknown)),
            }
            list = list.get(flag.len() + 1..).unwrap_or("");
        }
        if !nohz && !managed_irq {
            domain = true;
        }
        let set = self.list(param, list);
        for (asked, target) in [
            (nohz, &mut self.isol_nohz),
            (domain, &mut self.out.isolated_domain),
            (managed_irq, &mut self.out.isolated_managed_irq),
        ] {
            if asked {
                *target = set;
            }
        }
    }

    /// Settles what concerns several parameters together.
    fn finish(mut self) -> BootParams<'a> {
        let all = CpuSet::full(self.nr_cpus).union(&CpuSet::single(self.boot_cpu));
        let wanted = self.out.nohz_full.union(&self.isol_nohz).union(&self.out.isolated_domain);
        let none_left = all.is_subset(&wanted);
        let boot = CpuSet::single(self.boot_cpu);
        let nohz_has_it = self.out.nohz_full.contains(self.boot_cpu);
        let isol = self.isol_nohz.union(&self.out.isolated_domain).union(&self.out.isolated_managed_irq);
        for (name, has_it) in [("nohz_full", nohz_has_it), ("isolcpus", isol.contains(self.boot_cpu))] {
            if has_it {
                let param = Param { name, value: None };
                self.complain(param, What::BootCpuKept { cpu: self.boot_cpu, all: none_left });
            }
        }
        let out = &mut self.out;
        out.nohz_full = out.nohz_full.union(&self.isol_nohz).difference(&boot);
        out.isolated_domain = out.isolated_domain.difference(&boot);
        out.isolated_managed_irq = out.isolated_managed_irq.difference(&boot);
        out.rcu_nocbs = out.rcu_nocbs.union(&out.nohz_full);
        out.housekeeping = all.difference(&out.nohz_full).difference(&out.isolated_domain);
        match self.irq_affinity {
            None => out.irq_affinity = out.housekeeping.difference(&out.isolated_managed_irq),
            Some(param) => {
                let on_isolated = out.irq_affinity.difference(&out.housekeeping).difference(&boot).first();
                let added = out.irq_affinity.insert(self.boot_cpu);
                if added {
                    self.complain(param, What::BootCpuAdded { cpu: self.boot_cpu });
                }
                if let Some(cpu) = on_isolated {
                    self.complain(param, What::IrqsOnIsolated { cpu });
                }
            }
        }
        self.out
    }
}

/// True if an item of `isolcpus=` that begins with a letter is `N…` or `all…` of the CPU list.
fn starts_list(item: &str) -> bool {
    let rest = match item.get(..3) {
        Some(word) if word.eq_ignore_ascii_case("all") => &item[3..],
        _ => match item.strip_prefix('N') {
            Some(rest) => rest,
            None => return false,
        },
    };
    !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

/// A number of bytes with K, M or G behind it, or none of them.
fn memory_size(text: &str) -> Option<i64> {
    let shift = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => return number(text),
    };
    number(&text[..text.len() - 1])?.checked_mul(1 << shift)
}

/// A number as Linux reads it: decimal, `0x` hex, `0` octal, with or without a sign.
fn number(text: &str) -> Option<i64> {
    let (digits, negative) = match text.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    // from_str_radix takes a sign of its own.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let value = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}
