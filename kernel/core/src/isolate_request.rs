//! What is written to /sys/kernel/quiesce/isolate: `CPU on`, `CPU on keep` or `CPU off`, and whether it may be done.
//!
//! Pure; called by the kernel's file and by tests. Nothing here changes anything: the flip itself is the kernel's `isolation::live`.
//! Invariant: after any sequence of requests that [`allow`] lets through, an online CPU that is not isolated is left.

use crate::cpu_set::{CpuSet, MAX_CPUS};
use core::fmt;

/// What a CPU shall become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// One that is left alone. `keep`: tasks whose affinity names it stay; else they are moved.
    On {
        /// Whether they stay.
        keep: bool,
    },
    /// One like any other.
    Off,
}

/// A request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which CPU.
    pub cpu: u32,
    /// What it shall become.
    pub wish: Wish,
}

/// Why a text is no request; each names the word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadRequest<'a> {
    /// There is no word at all.
    Empty,
    /// Not the number of a CPU.
    Cpu(&'a str),
    /// Nothing behind the number.
    NoWish,
    /// Neither on nor off.
    Wish(&'a str),
    /// A word too many.
    Extra(&'a str),
}

impl fmt::Display for BadRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRequest::Empty => f.write_str("nothing was written"),
            BadRequest::Cpu(word) => write!(f, "{word:?} is not the number of a CPU"),
            BadRequest::NoWish => f.write_str("neither on nor off behind the CPU's number"),
            BadRequest::Wish(word) => write!(f, "{word:?} is neither on nor off"),
            BadRequest::Extra(word) => write!(f, "{word:?} is one word too many"),
        }
    }
}

/// The request that `text` makes.
pub fn parse(text: &str) -> Result<Request, BadRequest<'_>> {
    let mut words = text.split_ascii_whitespace();
    let cpu_word = words.next().ok_or(BadRequest::Empty)?;
    // `parse` alone would take a sign.
    let plain = cpu_word.bytes().all(|b| b.is_ascii_digit());
    let cpu = cpu_word.parse().ok().filter(|&cpu: &u32| plain && (cpu as usize) < MAX_CPUS);
    let cpu = cpu.ok_or(BadRequest::Cpu(cpu_word))?;
    let mut wish = match words.next().ok_or(BadRequest::NoWish)? {
        "on" => Wish::On { keep: false },
        "off" => Wish::Off,
        word => return Err(BadRequest::Wish(word)),
    };
    let mut extra = words.next();
    if let (Wish::On { keep }, Some("keep")) = (&mut wish, extra) {
        *keep = true;
        extra = words.next();
    }
    match extra {
        None => Ok(Request { cpu, wish }),
        Some(word) => Err(BadRequest::Extra(word)),
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No such CPU is online: ENODEV.
    NoSuchCpu,
    /// A program has a lease on it: EBUSY.
    Leased,
    /// No CPU would be left for everything else: EBUSY.
    LastHousekeeping,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NoSuchCpu => "no such CPU is online",
            Refusal::Leased => "a lease is held on it",
            Refusal::LastHousekeeping => "it is the last CPU that does housekeeping",
        })
    }
}

/// Whether `request` may be done now.
pub fn allow(request: &Request, online: &CpuSet, isolated: &CpuSet, leased: bool) -> Result<(), Refusal> {
    if !online.contains(request.cpu) {
        return Err(Refusal::NoSuchCpu);
    }
    if leased {
        return Err(Refusal::Leased);
    }
    let mut left = online.difference(isolated);
    left.remove(request.cpu);
    if request.wish != Wish::Off && left.is_empty() { Err(Refusal::LastHousekeeping) } else { Ok(()) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_of_every_form() {
        let on = |keep| Wish::On { keep };
        assert_eq!(parse("2 on\n"), Ok(Request { cpu: 2, wish: on(false) }));
        assert_eq!(parse(" 511  on keep "), Ok(Request { cpu: 511, wish: on(true) }));
        assert_eq!(parse("0 off"), Ok(Request { cpu: 0, wish: Wish::Off }));
    }

    #[test]
    fn nonsense_is_named() {
        for (text, error) in [
            ("", BadRequest::Empty),
            (" \n", BadRequest::Empty),
            ("two on", BadRequest::Cpu("two")),
            ("+2 on", BadRequest::Cpu("+2")),
            ("-1 on", BadRequest::Cpu("-1")),
            ("512 on", BadRequest::Cpu("512")),
            ("99999999999 on", BadRequest::Cpu("99999999999")),
            ("1-3 on", BadRequest::Cpu("1-3")),
            ("2", BadRequest::NoWish),
            ("2 maybe", BadRequest::Wish("maybe")),
            ("2 ON", BadRequest::Wish("ON")),
            ("2 on leave", BadRequest::Extra("leave")),
            ("2 on keep keep", BadRequest::Extra("keep")),
            ("2 off keep", BadRequest::Extra("keep")),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
        assert_eq!(BadRequest::Wish("maybe").to_string(), "\"maybe\" is neither on nor off");
    }

    #[test]
    fn refusals() {
        let on = Request { cpu: 2, wish: Wish::On { keep: false } };
        let off = Request { cpu: 2, wish: Wish::Off };
        let online = CpuSet::full(4);
        let others = online.difference(&CpuSet::single(2));
        assert_eq!(allow(&on, &online, &CpuSet::new(), false), Ok(()));
        assert_eq!(allow(&on, &CpuSet::full(2), &CpuSet::new(), false), Err(Refusal::NoSuchCpu));
        assert_eq!(allow(&on, &online, &others, false), Err(Refusal::LastHousekeeping));
        assert_eq!(allow(&off, &online, &others, false), Ok(()));
        assert_eq!(allow(&off, &online, &CpuSet::single(2), true), Err(Refusal::Leased));
        // Isolated already: asked again, it stays so.
        assert_eq!(allow(&on, &online, &online.difference(&CpuSet::single(3)), false), Ok(()));
    }

    proptest! {
        #[test]
        fn one_cpu_always_does_housekeeping(
            online in prop::collection::btree_set(0u32..8, 1..8),
            requests in prop::collection::vec((0u32..9, any::<bool>(), any::<bool>()), 0..64),
        ) {
            let mut set = CpuSet::new();
            online.iter().for_each(|&cpu| { set.insert(cpu); });
            let mut isolated = CpuSet::new();
            for (cpu, on, keep) in requests {
                let request = Request { cpu, wish: if on { Wish::On { keep } } else { Wish::Off } };
                if allow(&request, &set, &isolated, false).is_ok() {
                    if on { isolated.insert(cpu); } else { isolated.remove(cpu); }
                }
                prop_assert!(!set.difference(&isolated).is_empty());
            }
        }

        #[test]
        fn any_text_is_taken_or_named(text in "\\PC{0,40}") {
            let _ = parse(&text).map_err(|error| error.to_string());
        }
    }
}
