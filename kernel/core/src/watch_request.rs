//! What is written to /sys/kernel/quiesce/watch: `PLACE LEN w|rw|x` watches, `PLACE off` ends that.
//!
//! Called by that file alone. A place is an address or the name of something of the kernel's, plus or minus an offset: `0xffff…`,
//! `stack:PID-48`, `sched:1+0x10`. What the names stand for, and which may be watched, is the kernel's business.

use crate::debug_register::{Breakpoint, Kind};

/// Something that has an address, before the offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// The address itself.
    Address(u64),
    /// Top of a task's kernel stack; `None`: the writer's.
    Stack(Option<u32>),
    /// A task.
    Task(Option<u32>),
    /// Where its FPU state is kept.
    Fpu(Option<u32>),
    /// A CPU's scheduler.
    Sched(u32),
    /// A CPU's task-state segment.
    Tss(u32),
    /// A CPU's GDT.
    Gdt(u32),
    /// Top of a CPU's interrupt stack, of the slot with this number in its TSS, from 1 on.
    Ist(u32, u8),
}

/// A place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// From where.
    pub base: Base,
    /// How far, in bytes; wraps.
    pub offset: u64,
}

/// One request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Watch it.
    Watch(Place, Breakpoint),
    /// No more.
    Off(Place),
}

fn number(text: &str) -> Option<u64> {
    // `parse` would take a sign.
    let digits = |text: &str, radix| {
        let plain = text.bytes().all(|b| (b as char).is_digit(radix));
        if plain { u64::from_str_radix(text, radix).ok() } else { None }
    };
    text.strip_prefix("0x").map_or_else(|| digits(text, 10), |text| digits(text, 16))
}

fn base(text: &str) -> Option<Base> {
    let Some((name, whose)) = text.split_once(':') else {
        return text.starts_with("0x").then(|| number(text).map(Base::Address)).flatten();
    };
    let task = || if whose == "self" { Some(None) } else { number(whose)?.try_into().ok().map(Some) };
    let cpu = || number(whose)?.try_into().ok();
    Some(match name {
        "stack" => Base::Stack(task()?),
        "task" => Base::Task(task()?),
        "fpu" => Base::Fpu(task()?),
        "sched" => Base::Sched(cpu()?),
        "tss" => Base::Tss(cpu()?),
        "gdt" => Base::Gdt(cpu()?),
        _ => {
            Base::Ist(cpu()?, number(name.strip_prefix("ist")?)?.try_into().ok().filter(|slot| (1..=7).contains(slot))?)
        }
    })
}

fn place(text: &str) -> Option<Place> {
    let (name, offset) = match text.find(['+', '-']) {
        None => (text, 0),
        Some(at) => {
            let distance = number(&text[at + 1..])?;
            (&text[..at], if text.as_bytes()[at] == b'-' { distance.wrapping_neg() } else { distance })
        }
    };
    Some(Place { base: base(name)?, offset })
}

/// The request in `text`; `None`: it is none.
pub fn parse(text: &str) -> Option<Request> {
    let mut words = text.split_whitespace();
    let place = place(words.next()?)?;
    let (second, third) = (words.next()?, words.next());
    if words.next().is_some() {
        return None;
    }
    let Some(kind) = third else { return (second == "off").then_some(Request::Off(place)) };
    let kind = match kind {
        "w" => Kind::Write,
        "rw" => Kind::Access,
        "x" => Kind::Execute,
        _ => return None,
    };
    let len = number(second).filter(|len| [1, 2, 4, 8].contains(len))?;
    // Hardware has breakpoints of one byte only.
    (kind != Kind::Execute || len == 1).then_some(Request::Watch(place, Breakpoint { kind, len }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn watch(base: Base, offset: u64, kind: Kind, len: u64) -> Option<Request> {
        Some(Request::Watch(Place { base, offset }, Breakpoint { kind, len }))
    }

    #[test]
    fn addresses_and_names() {
        let at = 0xffff_ffff_8000_1000;
        assert_eq!(parse("0xffffffff80001000 8 rw\n"), watch(Base::Address(at), 0, Kind::Access, 8));
        assert_eq!(parse("stack:self-48 4 w"), watch(Base::Stack(None), 48u64.wrapping_neg(), Kind::Write, 4));
        assert_eq!(parse("fpu:17+0x200 1 rw"), watch(Base::Fpu(Some(17)), 512, Kind::Access, 1));
        assert_eq!(parse("0xffffffff80001000 1 x"), watch(Base::Address(at), 0, Kind::Execute, 1));
        assert_eq!(parse("ist4:2-8 8 w"), watch(Base::Ist(2, 4), 8u64.wrapping_neg(), Kind::Write, 8));
        assert_eq!(parse("sched:1 off"), Some(Request::Off(Place { base: Base::Sched(1), offset: 0 })));
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "0x",
            "1000 8 rw",
            "0x1000",
            "0x1000 on",
            "0x1000 3 rw",
            "0x1000 8 x",
            "0x1000 +8 rw",
            "0x+1000 8 w",
            "0x1000 8 r",
            "0x1000 8 rw 1",
            "0x1000 off 1",
            "stack 8 rw",
            "stack: 8 rw",
            "stack:-1 8 rw",
            "stack:1- 8 rw",
            "stack:1--8 8 rw",
            "task:4294967296 8 rw",
            "sched:self 8 rw",
            "ist0:0 8 rw",
            "ist8:0 8 rw",
            "ist:0 8 rw",
            "heap:0 8 rw",
            "0x10000000000000000 8 rw",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_a_request_or_none(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
