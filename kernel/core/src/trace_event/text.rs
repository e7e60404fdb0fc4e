//! A record as a line of text in the shape of ftrace's. The kernel and the decoder on the host both use this, so that
//! their lines are byte-equal.
//!
//! ```text
//!            spin-7       [001] dzu.     12.345678: irq_entry: vector=236 name=timer
//!            comm-task    [cpu] flags    seconds    event: what belongs to it
//! ```
//! Flags: `d` interrupts off, `z` in an NMI, `u` from user mode.

use super::record::{Data, Flags, Record, RecordTask};
use crate::context_tracking::Deferred;
use crate::tick::{Scope, TickDep};
use core::fmt::{Display, Formatter, Result, Write};

/// Where a call was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site<'a> {
    /// Source file.
    pub file: &'a str,
    /// Line in it.
    pub line: u32,
}

/// Who knows what numbers in records stand for.
pub trait Names {
    /// Name of the task with this id, zero-padded.
    fn comm(&self, task: u32) -> Option<[u8; 16]>;
    /// The site at this address (never 0).
    fn site(&self, address: u64) -> Option<Site<'_>>;
}

/// How TSC values become time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Ticks in a millisecond; 0 counts as 1.
    pub tsc_khz: u64,
    /// The TSC at time 0.
    pub boot_tsc: u64,
}

impl Clock {
    /// A number of ticks in nanoseconds.
    pub fn ns(&self, ticks: u64) -> u64 {
        u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(self.tsc_khz.max(1))).unwrap_or(u64::MAX)
    }

    /// Nanoseconds since time 0, which what is earlier counts as.
    pub fn time_ns(&self, tsc: u64) -> u64 {
        self.ns(tsc.saturating_sub(self.boot_tsc))
    }
}

/// A record of CPU `cpu`, to be written as one line without its end.
pub struct Line<'a> {
    /// The CPU whose record it is.
    pub cpu: u32,
    /// What happened.
    pub record: &'a Record,
    /// The clock of its TSC values.
    pub clock: &'a Clock,
    /// Who knows tasks and sites.
    pub names: &'a dyn Names,
}

/// A task's name; what is not printable becomes `?`. It ends at the first zero.
struct Comm([u8; 16]);

impl Comm {
    fn len(&self) -> usize {
        self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len())
    }
}

impl Display for Comm {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for &byte in &self.0[..self.len()] {
            f.write_char(if byte.is_ascii_graphic() { byte as char } else { '?' })?;
        }
        Ok(())
    }
}

/// ` key=file:line`, `key=0xaddress` if nobody knows it, nothing for 0.
struct At<'a>(&'static str, u64, &'a dyn Names);

impl Display for At<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let At(key, address, names) = *self;
        if address == 0 {
            return Ok(());
        }
        match names.site(address) {
            Some(site) => write!(f, " {key}={}:{}", site.file, site.line),
            None => write!(f, " {key}={address:#x}"),
        }
    }
}

/// A dependency and its scope; `none`.
struct Dep(Option<(TickDep, Scope)>);

impl Display for Dep {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            None => f.write_str("dependency=none"),
            Some((dep, scope)) => write!(f, "dependency={} scope={}", dep.name(), scope.name()),
        }
    }
}

impl Line<'_> {
    fn comm(&self, task: u32) -> Comm {
        if task == 0 {
            return Comm(*b"<idle>\0\0\0\0\0\0\0\0\0\0");
        }
        Comm(self.names.comm(task).unwrap_or(*b"<...>\0\0\0\0\0\0\0\0\0\0\0"))
    }

    /// ` key_task=id key_comm=name`.
    fn task(&self, key: &str, id: u32) -> impl Display {
        core::fmt::from_fn(move |f| write!(f, " {key}_task={id} {key}_comm={}", self.comm(id)))
    }

    fn head(&self, f: &mut Formatter<'_>) -> Result {
        let record = self.record;
        let comm = self.comm(record.task);
        write!(f, "{:pad$}{comm}-{:<7} ", "", record.task, pad = 16 - comm.len())?;
        let flag = |flag, letter| if record.flags.contains(flag) { letter } else { '.' };
        let (irqs, nmi, user) = (flag(Flags::IRQS_OFF, 'd'), flag(Flags::IN_NMI, 'z'), flag(Flags::FROM_USER, 'u'));
        let micros = self.clock.time_ns(record.tsc) / 1000;
        let (seconds, part) = (micros / 1_000_000, micros % 1_000_000);
        write!(f, "[{:03}] {irqs}{nmi}{user}. {seconds:5}.{part:06}: {}:", self.cpu, record.data.event().name())
    }

    fn data(&self, f: &mut Formatter<'_>) -> Result {
        let at = |key, address| At(key, address, self.names);
        match self.record.data {
            Data::IrqEntry { vector, cause } | Data::IrqExit { vector, cause } => {
                write!(f, " vector={vector} name={}", cause.name())
            }
            Data::NmiEntry { word } | Data::NmiExit { word } | Data::IdleEnter { word } | Data::IdleExit { word } => {
                context_word(f, word)
            }
            Data::ExceptionEntry { vector, address, error_code } => {
                write!(f, " vector={vector} address={address:#x} error_code={error_code:#x}")
            }
            Data::ExceptionExit { vector } => write!(f, " vector={vector}"),
            Data::UserExit { by, word } | Data::UserEnter { by, word } => {
                write!(f, " by={}", by.name())?;
                context_word(f, word)
            }
            Data::TickStop { prevented_by } => {
                write!(f, " success={} {}", u8::from(prevented_by.is_none()), Dep(prevented_by))
            }
            Data::TickRestart { dep, site, set_by_task } => {
                write!(f, " {}{}", Dep(dep), at("site", site))?;
                if set_by_task == 0 { Ok(()) } else { write!(f, "{}", self.task("set_by", set_by_task)) }
            }
            Data::IpiSend { target_cpu, cause, site } => {
                write!(f, " cpu={target_cpu} cause={}{}", cause.name(), at("callsite", site))
            }
            Data::IpiEntry { cause, sender, site } => {
                write!(f, " cause={}", cause.name())?;
                if let Some((cpu, task)) = sender {
                    write!(f, " sender_cpu={cpu}{}", self.task("sender", task))?;
                }
                write!(f, "{}", at("callsite", site))
            }
            Data::IpiExit { cause, duration_ticks } => {
                write!(f, " cause={} duration_ns={}", cause.name(), self.clock.ns(duration_ticks))
            }
            Data::TimerArm { timer, deadline_tsc, function } => {
                let expires_ns = self.clock.time_ns(deadline_tsc);
                write!(f, " hrtimer={timer:#x} expires_ns={expires_ns}{}", at("function", function))
            }
            Data::TimerCancel { timer } | Data::TimerExpireExit { timer } => write!(f, " hrtimer={timer:#x}"),
            Data::TimerExpireEntry { timer, deadline_tsc, function } => {
                let late_ns = self.clock.ns(self.record.tsc.saturating_sub(deadline_tsc));
                write!(f, " hrtimer={timer:#x} late_ns={late_ns}{}", at("function", function))
            }
            Data::SchedSwitch { prev_comm, prev_state, next } => {
                let state = if prev_state.is_ascii_graphic() { prev_state as char } else { '?' };
                write!(f, " prev_comm={} prev_pid={} prev_state={state}", Comm(prev_comm), self.record.task)?;
                write!(f, " ==> next_comm={} next_pid={}", Comm(next.comm), next.id)
            }
            Data::SchedWakeup { task: RecordTask { id, comm }, target_cpu } => {
                write!(f, " comm={} pid={id} target_cpu={target_cpu:03}", Comm(comm))
            }
            Data::SysEnter { number, args: [a, b, c, d] } => {
                write!(f, " NR {} ({a:x}, {b:x}, {c:x}, {d:x})", number as i64)
            }
            Data::SysExit { number, result } => write!(f, " NR {} = {result}", number as i64),
            Data::RcuGracePeriod { sequence, end, expedited } => {
                let name = if expedited { "expedited" } else { "rcu" };
                write!(f, " {name} {sequence} {}", if end { "end" } else { "start" })
            }
            Data::WorkPosted { target_cpu, bits, word, site } => {
                write!(f, " cpu={target_cpu} work={}", Work(bits))?;
                context_word(f, word)?;
                write!(f, "{}", at("callsite", site))
            }
            Data::WorkRan { bits, word } => {
                write!(f, " work={}", Work(bits))?;
                context_word(f, word)
            }
        }
    }
}

/// Bits of posted work by their names; what has none as a number.
struct Work(u8);

impl Display for Work {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let named = Deferred::EACH.into_iter().filter(|work| self.0 & work.bit() != 0);
        let rest = self.0 & !Deferred::ALL;
        let mut between = "";
        for work in named {
            write!(f, "{between}{}", work.name())?;
            between = "+";
        }
        if rest != 0 || self.0 == 0 { write!(f, "{between}{rest:#x}") } else { Ok(()) }
    }
}

/// ` word=` unless the site did not load it.
fn context_word(f: &mut Formatter<'_>, word: u64) -> Result {
    if word == 0 { Ok(()) } else { write!(f, " word={word:#x}") }
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.head(f)?;
        self.data(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::By;
    use super::*;
    use crate::interruption::Cause;

    struct Known;

    impl Names for Known {
        fn comm(&self, task: u32) -> Option<[u8; 16]> {
            (task == 7).then_some(*b"spin\0\0\0\0\0\0\0\0\0\0\0\0")
        }

        fn site(&self, address: u64) -> Option<Site<'_>> {
            (address == 0x1000).then_some(Site { file: "kernel/src/smp/ipi.rs", line: 12 })
        }
    }

    fn line(task: u32, flags: Flags, data: Data) -> String {
        let clock = Clock { tsc_khz: 1_000_000, boot_tsc: 5 };
        let record = Record { tsc: 12_345_678_905, flags, task, data };
        Line { cpu: 1, record: &record, clock: &clock, names: &Known }.to_string()
    }

    #[test]
    fn lines_read_like_those_of_ftrace() {
        let data = Data::IrqEntry { vector: 236, cause: Cause::Timer };
        let text = line(7, Flags::IRQS_OFF.with(Flags::FROM_USER), data);
        assert_eq!(text, "            spin-7       [001] d.u.    12.345678: irq_entry: vector=236 name=timer");
        let data = Data::IpiEntry { cause: Cause::CallFunction, sender: Some((0, 7)), site: 0x1000 };
        assert_eq!(
            line(9, Flags::NONE, data),
            "           <...>-9       [001] ....    12.345678: ipi_entry: cause=call_function sender_cpu=0 \
             sender_task=7 sender_comm=spin callsite=kernel/src/smp/ipi.rs:12"
        );
        let data = Data::UserExit { by: By::Syscall, word: 0x1_0000 };
        let text = line(0, Flags::IN_NMI, data);
        assert_eq!(text, "          <idle>-0       [001] .z..    12.345678: user_exit: by=syscall word=0x10000");
    }

    #[test]
    fn what_nobody_knows_is_shown_as_a_number() {
        let data = Data::IpiSend { target_cpu: 3, cause: Cause::Rcu, site: 0x2000 };
        assert!(line(7, Flags::NONE, data).ends_with("ipi_send_cpu: cpu=3 cause=rcu callsite=0x2000"));
        let comm = *b"a\x1bb\xff\0cdefghijklm\0";
        let data =
            Data::SchedWakeup { task: RecordTask { id: 4, comm: comm[..16].try_into().unwrap() }, target_cpu: 2 };
        assert!(line(7, Flags::NONE, data).ends_with("sched_wakeup: comm=a?b? pid=4 target_cpu=002"));
        let posted = |bits| Data::WorkPosted { target_cpu: 1, bits, word: 0x2_0001, site: 0x1000 };
        let of = "work_posted: cpu=1 work=";
        let rest = "word=0x20001 callsite=kernel/src/smp/ipi.rs:12";
        assert!(line(7, Flags::NONE, posted(3)).ends_with(&format!("{of}kernel_tlb_flush+sync_core {rest}")));
        assert!(line(7, Flags::NONE, posted(0x88)).ends_with(&format!("{of}rcu_recheck+0x80 {rest}")));
        let data = Data::WorkRan { bits: 4, word: 0x3_0400 };
        assert!(line(7, Flags::NONE, data).ends_with("work_ran: work=tick_recheck word=0x30400"));
        let data = Data::TickStop { prevented_by: Some((TickDep::Sched, Scope::Cpu)) };
        assert!(line(7, Flags::NONE, data).ends_with("tick_stop: success=0 dependency=sched scope=cpu"));
    }

    #[test]
    fn no_time_overflows() {
        let clock = Clock { tsc_khz: 0, boot_tsc: 0 };
        assert_eq!((clock.ns(u64::MAX), clock.ns(3)), (u64::MAX, 3_000_000));
        assert_eq!(Clock { tsc_khz: 1000, boot_tsc: 10 }.time_ns(4), 0);
    }
}
