//! bench: one CPU's column of /proc/interrupts. Format: Linux, man 5 proc and arch/x86/kernel/irq.c.

use crate::kernel_file;

/// Counts of one CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// Local timer.
    pub loc: u64,
    /// Reschedule.
    pub res: u64,
    /// Function calls.
    pub cal: u64,
    /// All rows.
    pub all: u64,
}

impl Interrupts {
    /// What came in since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            loc: self.loc.saturating_sub(earlier.loc),
            res: self.res.saturating_sub(earlier.res),
            cal: self.cal.saturating_sub(earlier.cal),
            all: self.all.saturating_sub(earlier.all),
        }
    }
}

/// The counts of `cpu`; `None` when the kernel does not tell them.
pub fn of_cpu(cpu: u32) -> Option<Interrupts> {
    parse(&kernel_file::read("/proc/interrupts").ok()?, cpu)
}

fn parse(text: &str, cpu: u32) -> Option<Interrupts> {
    let mut lines = text.lines();
    let column =
        lines.next()?.split_ascii_whitespace().position(|head| head.strip_prefix("CPU") == Some(&cpu.to_string()))?;
    let mut counts = Interrupts::default();
    for (label, rest) in lines.filter_map(|line| line.split_once(':')) {
        let mut words = rest.split_ascii_whitespace();
        // A row with fewer numbers (ERR, MIS) counts for no single CPU.
        let Some(count) = words.nth(column).and_then(|word| word.parse::<u64>().ok()) else { continue };
        counts.all += count;
        match label.trim() {
            "LOC" => counts.loc = count,
            "RES" => counts.res = count,
            "CAL" => counts.cal = count,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "           CPU0       CPU1\n  4:   3   1  IO-APIC 4-edge ttyS0\nNMI:   0   2   Non-maskable interrupts\n\
        LOC:  100  50   Local timer interrupts\nRES: 7 8 x\nCAL: 1 4 y\nERR:   9\n";

    #[test]
    fn one_column_is_added_up() {
        assert_eq!(parse(TEXT, 1), Some(Interrupts { loc: 50, res: 8, cal: 4, all: 65 }));
        assert_eq!(parse(TEXT, 2), None);
        assert_eq!(parse("", 0), None);
    }
}
