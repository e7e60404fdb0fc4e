//! What /sys/kernel/quiesce/ipi says: interruptions that were sent and that were avoided.

use crate::Failed;

/// Sums over lines of the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// IPIs.
    pub sent: u64,
    /// Work that was left instead.
    pub avoided: u64,
}

/// The number behind `key=` or `"key":` in a line.
pub fn number(line: &str, key: &str) -> Result<u64, Failed> {
    let digits = |at: usize| line[at..].trim_start().chars().take_while(char::is_ascii_digit).collect::<String>();
    let found = [format!(" {key}="), format!("\"{key}\":")].iter().find_map(|k| Some(digits(line.find(k)? + k.len())));
    found.and_then(|d| d.parse().ok()).ok_or_else(|| Failed(format!("no {key} in {line}")))
}

/// What `text` has of CPU `target`; `of` chooses lines.
pub fn sums(text: &str, target: u32, of: impl Fn(&str) -> bool) -> Result<Sums, Failed> {
    let mut sums = Sums::default();
    for line in text.lines().filter(|l| l.contains(&format!(" to={target} ")) && of(l)) {
        sums.sent += number(line, "sent")?;
        sums.avoided += number(line, "avoided")?;
    }
    Ok(sums)
}

/// The same, of one cause.
pub fn of_cause(text: &str, target: u32, cause: &str) -> Result<Sums, Failed> {
    sums(text, target, |line| line.contains(&format!(" cause={cause} ")))
}
