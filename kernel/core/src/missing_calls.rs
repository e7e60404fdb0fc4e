//! What programs asked for that is not there: system calls and operations of calls, counted for each program.
//!
//! A fixed number of rows, filled in the order of their first request; what comes when all are taken is one sum. Plain data: the
//! caller serialises.

use crate::system_call_name;
use core::fmt;

/// Rows of a tally.
pub const ROWS: usize = 96;

/// One thing that one program asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    number: u32,
    /// The operation of the call that is missing; `None`: all of the call.
    operation: Option<u32>,
    comm: [u8; 16],
    count: u64,
}

/// All requests so far.
#[derive(Clone, Debug)]
pub struct MissingCalls {
    rows: [Row; ROWS],
    used: usize,
    others: u64,
}

impl Default for MissingCalls {
    fn default() -> Self {
        Self::new()
    }
}

impl MissingCalls {
    /// None yet.
    pub const fn new() -> Self {
        Self { rows: [Row { number: 0, operation: None, comm: [0; 16], count: 0 }; ROWS], used: 0, others: 0 }
    }

    /// The program `comm` asked for call `number`, or for `operation` of it.
    pub fn note(&mut self, number: u32, operation: Option<u32>, comm: [u8; 16]) {
        let key = |r: &Row| (r.number, r.operation, r.comm);
        let row = Row { number, operation, comm, count: 1 };
        match self.rows[..self.used].iter_mut().find(|r| key(r) == key(&row)) {
            Some(known) => known.count = known.count.saturating_add(1),
            None if self.used < ROWS => {
                self.rows[self.used] = row;
                self.used += 1;
            }
            None => self.others = self.others.saturating_add(1),
        }
    }
}

/// A line for each row: `call=NAME number=N [operation=0xHEX] count=N program=COMM`; last `others count=N`, if rows were too few.
impl fmt::Display for MissingCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows[..self.used] {
            match system_call_name::name(row.number as usize) {
                Some(name) => write!(f, "call={name} number={}", row.number)?,
                None => write!(f, "call=? number={}", row.number)?,
            }
            if let Some(operation) = row.operation {
                write!(f, " operation={operation:#x}")?;
            }
            write!(f, " count={} program=", row.count)?;
            for &byte in row.comm.iter().take_while(|b| **b != 0) {
                let shown = if byte.is_ascii_graphic() { byte } else { b'?' };
                write!(f, "{}", shown as char)?;
            }
            writeln!(f)?;
        }
        if self.others > 0 {
            writeln!(f, "others count={}", self.others)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const ASH: [u8; 16] = *b"ash\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const TOP: [u8; 16] = *b"a top\n\0\0\0\0\0\0\0\0\0\0";

    #[test]
    fn each_program_and_operation_has_its_row() {
        let mut all = MissingCalls::new();
        assert_eq!(all.to_string(), "");
        for _ in 0..3 {
            all.note(291, None, ASH);
        }
        all.note(291, None, TOP);
        all.note(157, Some(0x2a), ASH);
        all.note(400, None, ASH);
        let wanted = "call=epoll_create1 number=291 count=3 program=ash\n\
            call=epoll_create1 number=291 count=1 program=a?top?\n\
            call=prctl number=157 operation=0x2a count=1 program=ash\n\
            call=? number=400 count=1 program=ash\n";
        assert_eq!(all.to_string(), wanted);
    }

    #[test]
    fn what_finds_no_row_is_counted() {
        let mut all = MissingCalls::new();
        for number in 0..ROWS as u32 + 5 {
            all.note(number, None, ASH);
        }
        all.note(0, None, ASH);
        let text = all.to_string();
        assert!(text.starts_with("call=read number=0 count=2 program=ash\n"), "{text}");
        assert!(text.ends_with("\nothers count=5\n") && text.lines().count() == ROWS + 1, "{text}");
    }
}
