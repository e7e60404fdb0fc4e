//! /sys/kernel/quiesce/cpuN/entries: kernel entries of one CPU by cause, and their differences. Pure; called by `noise` and `bench`.

/// Counts by cause, in the file's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryCounts {
    causes: Vec<(String, u64)>,
}

impl EntryCounts {
    /// The counts of the file's text, `name count` a line. The error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut causes = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_ascii_whitespace();
            match (words.next(), words.next().and_then(|count| count.parse().ok()), words.next()) {
                (Some(name), Some(count), None) => causes.push((name.to_string(), count)),
                _ => return Err(format!("not a cause with its count: {line:?}")),
            }
        }
        Ok(Self { causes })
    }

    /// What came in since `earlier`: causes with a difference, in the file's order. A cause that is new counts from 0.
    pub fn since(&self, earlier: &Self) -> Vec<(String, u64)> {
        let before = |name: &str| earlier.causes.iter().find(|(n, _)| n == name).map_or(0, |(_, count)| *count);
        let difference = |(name, count): &(String, u64)| (name.clone(), count.saturating_sub(before(name)));
        self.causes.iter().map(difference).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_by_cause() {
        let before = EntryCounts::parse("syscall 12\nexception 3\nnmi 0\ntimer 100\n").unwrap();
        let after = EntryCounts::parse("syscall 12\nexception 4\nnmi 0\ntimer 350\ncall_function 1\n").unwrap();
        let want = [("exception", 1), ("timer", 250), ("call_function", 1)].map(|(name, n)| (name.to_string(), n));
        assert_eq!(after.since(&before), want);
        assert_eq!(after.since(&after), []);
    }

    #[test]
    fn nonsense_is_named() {
        assert!(EntryCounts::parse("timer\n").unwrap_err().contains("timer"));
        assert!(EntryCounts::parse("timer 1 2\n").is_err());
        assert!(EntryCounts::parse("timer x\n").is_err());
    }
}
