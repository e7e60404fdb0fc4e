//! The operation of FUTEX_WAKE_OP: what it makes of the second word, and whether waiters there are woken.
//!
//! Source: futex(2); Linux include/uapi/linux/futex.h (FUTEX_OP).

/// A decoded operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutexOp {
    operation: Operation,
    operand: u32,
    comparison: Comparison,
    compared: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Set,
    Add,
    Or,
    AndNot,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// Twelve bits with a sign.
const fn signed(bits: u32) -> i32 {
    (bits << 20) as i32 >> 20
}

impl FutexOp {
    /// From the call's last argument: operation in bits 28 to 30, "operand is a shift" in bit 31, comparison in bits 24 to 27, then
    /// 12 bits each of operand and compared value. `None` if there is no such operation or comparison.
    pub const fn decode(word: u32) -> Option<FutexOp> {
        let operation = match word >> 28 & 7 {
            0 => Operation::Set,
            1 => Operation::Add,
            2 => Operation::Or,
            3 => Operation::AndNot,
            4 => Operation::Xor,
            _ => return None,
        };
        let comparison = match word >> 24 & 15 {
            0 => Comparison::Equal,
            1 => Comparison::NotEqual,
            2 => Comparison::Less,
            3 => Comparison::LessEqual,
            4 => Comparison::Greater,
            5 => Comparison::GreaterEqual,
            _ => return None,
        };
        let operand = signed(word >> 12) as u32;
        let operand = if word >> 31 != 0 { 1 << (operand & 31) } else { operand };
        Some(FutexOp { operation, operand, comparison, compared: signed(word) })
    }

    /// What the word becomes.
    pub const fn apply(self, old: u32) -> u32 {
        match self.operation {
            Operation::Set => self.operand,
            Operation::Add => old.wrapping_add(self.operand),
            Operation::Or => old | self.operand,
            Operation::AndNot => old & !self.operand,
            Operation::Xor => old ^ self.operand,
        }
    }

    /// Whether the word's old value fulfils the comparison, which is one of signed numbers.
    pub const fn holds(self, old: u32) -> bool {
        let old = old as i32;
        match self.comparison {
            Comparison::Equal => old == self.compared,
            Comparison::NotEqual => old != self.compared,
            Comparison::Less => old < self.compared,
            Comparison::LessEqual => old <= self.compared,
            Comparison::Greater => old > self.compared,
            Comparison::GreaterEqual => old >= self.compared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(operation: u32, operand: u32, comparison: u32, compared: u32) -> Option<FutexOp> {
        FutexOp::decode(operation << 28 | comparison << 24 | (operand & 0xfff) << 12 | compared & 0xfff)
    }

    #[test]
    fn every_operation() {
        let apply = |operation, operand, old| op(operation, operand, 0, 0).map(|o| o.apply(old));
        assert_eq!(apply(0, 7, 99), Some(7));
        assert_eq!(apply(1, 7, 99), Some(106));
        assert_eq!(apply(1, u32::MAX, 99), Some(98), "operands have a sign");
        assert_eq!(apply(1, 1, u32::MAX), Some(0));
        assert_eq!(apply(2, 6, 9), Some(15));
        assert_eq!(apply(3, 8, 9), Some(1));
        assert_eq!(apply(4, 3, 9), Some(10));
        assert_eq!(apply(8, 12, 0), Some(4096), "a shift");
        assert_eq!(apply(8, 31, 0), Some(1 << 31));
        assert_eq!(apply(5, 0, 0), None);
    }

    #[test]
    fn every_comparison() {
        let holds = |comparison, old: i32| op(0, 0, comparison, 5).map(|o| o.holds(old as u32));
        for old in [-6, 4, 5, 6] {
            let wanted = [old == 5, old != 5, old < 5, old <= 5, old > 5, old >= 5];
            for (comparison, wanted) in wanted.into_iter().enumerate() {
                assert_eq!(holds(comparison as u32, old), Some(wanted), "{comparison} {old}");
            }
        }
        assert_eq!(op(0, 0, 2, u32::MAX).map(|o| o.holds(-2i32 as u32)), Some(true), "compared values have a sign");
        assert_eq!(holds(6, 0), None);
    }
}
