//! Durations and what is said of them: count, least, mean, percentiles, greatest.
//!
//! Used by readers of traces, in the guest and on the host. Invariant: every figure is one of the samples, but for the mean, which
//! lies between the least and the greatest.

use alloc::vec::Vec;

/// Durations of one kind, in whatever unit the caller takes.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    values: Vec<u64>,
    sum: u128,
}

/// What is said of at least one sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// The least.
    pub min: u64,
    /// The mean, rounded down.
    pub avg: u64,
    /// 99 of 100 are not greater.
    pub p99: u64,
    /// The greatest.
    pub max: u64,
}

impl Samples {
    /// None yet.
    pub const fn new() -> Self {
        Samples { values: Vec::new(), sum: 0 }
    }

    /// One more.
    pub fn add(&mut self, value: u64) {
        self.values.push(value);
        self.sum += u128::from(value);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.values.len() as u64
    }

    /// The least sample that at least `percent` of 100 samples do not exceed (nearest rank); 0 gives the least,
    /// 100 and more the greatest. `None` without samples.
    pub fn percentile(&mut self, percent: u32) -> Option<u64> {
        self.values.sort_unstable();
        let count = self.values.len() as u128;
        let rank = (count * u128::from(percent.min(100))).div_ceil(100);
        self.values.get(rank.saturating_sub(1) as usize).copied()
    }

    /// The summary; `None` without samples.
    pub fn summary(&mut self) -> Option<Summary> {
        let p99 = self.percentile(99)?;
        let (&min, &max) = (self.values.first()?, self.values.last()?);
        let avg = (self.sum / self.values.len() as u128) as u64;
        Some(Summary { count: self.count(), min, avg, p99, max })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        assert_eq!(Samples::new().summary(), None);
        let mut one = Samples::new();
        one.add(7);
        assert_eq!(one.summary(), Some(Summary { count: 1, min: 7, avg: 7, p99: 7, max: 7 }));
        let mut hundred = Samples::new();
        (1..=100).rev().for_each(|value| hundred.add(value));
        assert_eq!(hundred.summary(), Some(Summary { count: 100, min: 1, avg: 50, p99: 99, max: 100 }));
        assert_eq!(
            (hundred.percentile(0), hundred.percentile(50), hundred.percentile(1000)),
            (Some(1), Some(50), Some(100))
        );
        hundred.add(u64::MAX);
        hundred.add(u64::MAX);
        assert_eq!(hundred.summary().map(|s| s.max), Some(u64::MAX));
    }
}
