//! Checks of the exception table: what may fault in the kernel, and where it goes on. Data only: the judge sees addresses.

use super::image::Image;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use std::ops::Range;

/// Each access of the routines that touch user memory or registers that may be absent stands in the table, once, and goes on within its own routine; the table is sorted
/// and has nothing else.
pub fn every_user_access(image: &Image) -> Vec<String> {
    let symbol = |name: &str| image.symbol(name).unwrap_or(0);
    let routines = symbol("__user_copy_start")..symbol("__user_copy_end");
    let (start, stop) = (symbol("__start_ex_table"), symbol("__stop_ex_table"));
    let bytes = image.bytes(start, stop.saturating_sub(start)).unwrap_or(&[]);
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|word| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        .collect();
    let table: Vec<(u64, u64)> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let functions: Vec<Range<u64>> =
        image.functions.iter().filter(|f| routines.contains(&f.start)).map(|f| f.start..f.end).collect();
    let code = functions.iter().flat_map(|f| image.instructions(f.clone()));
    let accesses: Vec<u64> = code.filter(may_be_refused).map(|i| i.ip()).collect();
    judge(&accesses, &table, &functions)
}

/// By what these routines read and write the kernel's own memory; all other registers may hold the user's address, and in string instructions so may this.
const KERNEL_SIDE: Register = Register::RSI;

/// Whether the CPU may refuse it: RDMSR and WRMSR in these routines, and what has an operand in memory that may be the user's. What PUSH, CALL and RET do is none: they use the kernel's stack.
fn may_be_refused(i: &Instruction) -> bool {
    let is_memory = |kind: OpKind| {
        !matches!(kind, OpKind::Register | OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
            && !format!("{kind:?}").starts_with("Immediate")
    };
    matches!(i.mnemonic(), Mnemonic::Rdmsr | Mnemonic::Wrmsr)
        || !matches!(i.mnemonic(), Mnemonic::Lea | Mnemonic::Nop)
            && i.memory_base() != KERNEL_SIDE
            && i.op_kinds().any(is_memory)
}

fn judge(accesses: &[u64], table: &[(u64, u64)], functions: &[Range<u64>]) -> Vec<String> {
    let mut bad = Vec::new();
    if accesses.is_empty() {
        bad.push("no access to user memory was found: this check would see nothing".into());
    }
    for at in accesses {
        let rows = table.iter().filter(|(fault, _)| fault == at).count();
        if rows != 1 {
            bad.push(format!("{at:#x}: {rows} rows of the exception table"));
        }
    }
    for pair in table.windows(2).filter(|pair| pair[0].0 >= pair[1].0) {
        bad.push(format!("{:#x}: stands in the exception table behind {:#x}: it is not sorted", pair[1].0, pair[0].0));
    }
    for (fault, fixup) in table {
        let function = functions.iter().find(|f| f.contains(fault));
        if !accesses.contains(fault) {
            bad.push(format!("{fault:#x}: in the exception table, but no access to user memory"));
        }
        if function.is_none_or(|f| !f.contains(fixup)) {
            bad.push(format!("{fault:#x}: goes on in another function, at {fixup:#x}"));
        }
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_wrong_row_is_told() {
        let (functions, accesses) = ([0x10..0x20, 0x20..0x30], [0x12, 0x24]);
        let judged = |table: &[(u64, u64)]| judge(&accesses, table, &functions).len();
        assert_eq!(judged(&[(0x12, 0x18), (0x24, 0x28)]), 0);
        assert_eq!(judged(&[(0x12, 0x18)]), 1, "one is missing");
        assert_eq!(
            judged(&[(0x12, 0x18), (0x12, 0x19), (0x24, 0x28)]),
            2,
            "one is there twice, which is no order either"
        );
        assert_eq!(judged(&[(0x12, 0x18), (0x24, 0x18)]), 1, "one goes on elsewhere");
        assert_eq!(judged(&[(0x12, 0x18), (0x24, 0x28), (0x26, 0x28)]), 1, "one is no access");
        assert_eq!(judged(&[(0x24, 0x28), (0x12, 0x18)]), 1, "not sorted");
        assert_eq!(judged(&[(0x12, 0x18), (0x24, 0x28), (0x40, 0x18)]), 2, "no access, and in no function of these");
        assert_eq!(judge(&[], &[], &functions).len(), 1, "nothing is found");
    }
}
