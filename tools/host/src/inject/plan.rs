//! Where NMIs are injected: every instruction of the entry text, less a reviewed list (`unreachable.toml`) of those that nothing reaches.

use crate::check_elf::image::{Function, Image};
use crate::failure::Failure;
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Bytes from one stub to the next.
const STUB: u64 = 16;

/// What the list holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    unreachable: Vec<Row>,
}

/// Some instructions of one function, or all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    function: String,
    /// Only the instructions off the straight line around the call of this function.
    around_call_of: Option<String>,
    /// Only the instructions with these texts.
    texts: Option<Vec<String>>,
    /// Only these stubs: numbers and ranges `from-to`, separated by commas. The first one is number 0.
    stubs: Option<String>,
    reason: String,
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Place {
    /// The function that it lies in.
    pub function: String,
    /// Bytes from the function's beginning.
    pub offset: u64,
    /// Among stubs, which one it would be.
    stub: Option<u64>,
    /// It reads or writes memory, be it the stack.
    pub touches_memory: bool,
    /// What it does, in Intel's syntax.
    pub text: String,
    /// Why nothing reaches it, if so.
    pub unreachable: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{:#x}: {}", self.function, self.offset, self.text)
    }
}

/// The functions that a system call and an interrupt go through. Vectors have stubs of their own: `TIMER_STUB`.
const SYSTEM_CALL_AND_IRQ: [&str; 4] = [
    "kernel::entry::syscall::syscall_entry",
    "kernel::entry::irq::irq_common",
    "kernel::entry::exit_work::irq_full_exit",
    "kernel::entry::exit_work::full_exit_to_user",
];
const STUBS: &str = "kernel::entry::irq::irq_stubs";
/// Of the stubs, which begin with vector 32, that of the timer: `arch::apic::vector::TIMER` is 0xf0.
const TIMER_STUB: u64 = 0xf0 - 32;

/// Whether a system call or the timer's interrupt comes by.
pub fn is_system_call_or_timer(place: &Place) -> bool {
    SYSTEM_CALL_AND_IRQ.contains(&place.function.as_str()) || place.function == STUBS && place.stub == Some(TIMER_STUB)
}

fn parse_list(text: &str) -> Result<Vec<Row>, Failure> {
    let list: List = toml::from_str(text).map_err(|e| Failure::Bad(format!("unreachable.toml: {e}")))?;
    Ok(list.unreachable)
}

fn in_ranges(list: &str, number: u64) -> bool {
    list.split(',').any(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let bound = |text: &str| text.trim().parse::<u64>().unwrap_or(u64::MAX);
        (bound(from)..=bound(to)).contains(&number)
    })
}

/// The instructions between two that do not go on to the next one, with the one at `at` among them.
fn block(code: &[Instruction], at: usize) -> std::ops::RangeInclusive<usize> {
    let ends = |i: &Instruction| {
        matches!(i.flow_control(), FlowControl::UnconditionalBranch | FlowControl::Return | FlowControl::IndirectBranch)
    };
    let first = (0..at).rev().find(|i| ends(&code[*i])).map_or(0, |i| i + 1);
    let last = (at..code.len()).find(|i| ends(&code[*i])).unwrap_or(code.len() - 1);
    first..=last
}

fn covers(row: &Row, image: &Image, f: &Function, code: &[Instruction], at: usize) -> bool {
    if row.function != f.name {
        return false;
    }
    if let Some(stubs) = &row.stubs {
        let first = f.start.next_multiple_of(STUB);
        return code[at].ip() < first || in_ranges(stubs, (code[at].ip() - first) / STUB);
    }
    if let Some(texts) = &row.texts {
        return texts.contains(&code[at].to_string());
    }
    if let Some(callee) = &row.around_call_of {
        let calls = |i: &Instruction| {
            i.flow_control() == FlowControl::Call
                && image.functions.iter().any(|g| g.start == i.near_branch_target() && g.name == *callee)
        };
        return (0..code.len()).any(|i| calls(&code[i]) && block(code, i).contains(&at));
    }
    true
}

/// Whether it reads or writes memory. LEA and NOP only look like it.
fn touches_memory(i: &Instruction) -> bool {
    match i.mnemonic() {
        Mnemonic::Lea | Mnemonic::Nop => false,
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Pushfq | Mnemonic::Popfq => true,
        Mnemonic::Call | Mnemonic::Ret | Mnemonic::Iretq => true,
        _ => (0..i.op_count()).any(|op| i.op_kind(op) == OpKind::Memory),
    }
}

/// Every instruction of the entry text by its address. Padding between stubs is none.
pub fn of(image: &Image) -> Result<BTreeMap<u64, Place>, Failure> {
    let rows = parse_list(include_str!("unreachable.toml"))?;
    let mut used = vec![false; rows.len()];
    let mut places = BTreeMap::new();
    let text = image.entry_text();
    for f in image.functions.iter().filter(|f| text.contains(&f.start)) {
        let code = image.instructions(f.start..f.end);
        for (at, i) in code.iter().enumerate().filter(|(_, i)| i.mnemonic() != Mnemonic::Int3) {
            let row = rows.iter().position(|row| covers(row, image, f, &code, at));
            if let Some(row) = row {
                used[row] = true;
            }
            let unreachable = row.map(|row| rows[row].reason.clone());
            // Stubs are aligned; what stands before the first one is padding.
            let stub = i.ip().checked_sub(f.start.next_multiple_of(STUB)).map(|from_first| from_first / STUB);
            let (function, offset) = (f.name.clone(), i.ip() - f.start);
            let touches_memory = touches_memory(i);
            let place = Place { function, offset, stub, touches_memory, text: i.to_string(), unreachable };
            places.insert(i.ip(), place);
        }
    }
    match rows.iter().zip(used).find(|(_, used)| !used) {
        Some((row, _)) => Err(Failure::Bad(format!("unreachable.toml: nothing is as it says: {row:?}"))),
        None => Ok(places),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_read_and_gives_reasons() {
        let rows = parse_list(include_str!("unreachable.toml")).unwrap();
        assert!(rows.iter().all(|row| row.reason.len() > 10));
        assert!(parse_list("[[unreachable]]\nfunction = \"f\"\n").is_err());
    }

    #[test]
    fn ranges_of_stubs() {
        assert!(in_ranges("1, 5-7", 1) && in_ranges("1,5-7", 7) && !in_ranges("1,5-7", 4));
        assert!(!in_ranges("x", 0));
    }
}
