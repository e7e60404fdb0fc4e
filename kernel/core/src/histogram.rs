//! A histogram of durations by powers of two, and what is read from it.
//!
//! Written by one context at a time (its owner's lock or CPU); a copy is read. No allocation; a sample costs no division.

/// Number of classes: class 0 counts 0, class n counts 2^(n-1) to 2^n - 1.
pub const CLASSES: usize = 48;

/// Durations in one unit, which the owner chooses.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: [u64; CLASSES],
    count: u64,
    total: u64,
    least: u64,
    most: u64,
}

impl Histogram {
    /// No sample.
    pub const fn new() -> Self {
        Histogram { counts: [0; CLASSES], count: 0, total: 0, least: u64::MAX, most: 0 }
    }

    /// One sample. The last class takes all that is longer.
    pub fn add(&mut self, value: u64) {
        let class = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[class.min(CLASSES - 1)] += 1;
        self.count += 1;
        self.total = self.total.saturating_add(value);
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    /// How many samples.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The least; 0 without a sample.
    pub fn least(&self) -> u64 {
        if self.count == 0 { 0 } else { self.least }
    }

    /// The most; 0 without a sample.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The classes that have a sample: the first value beyond the class, and its count.
    pub fn classes(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().enumerate().filter(|(_, count)| **count != 0).map(|(class, count)| (1 << class, *count))
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_below_the_end_of_its_class() {
        for value in [0, 1, 2, 3, 4, 1000, 1023, 1024, u64::MAX >> 20] {
            let mut one = Histogram::new();
            one.add(value);
            let [(end, 1)] = one.classes().collect::<Vec<_>>()[..] else { panic!("one class") };
            assert!(value < end && value >= end / 2, "{value} {end}");
            assert_eq!((one.count(), one.total(), one.least(), one.most()), (1, value, value, value));
        }
    }

    #[test]
    fn nothing_and_too_much() {
        let mut h = Histogram::new();
        assert_eq!((h.least(), h.most(), h.classes().count()), (0, 0, 0));
        h.add(u64::MAX);
        h.add(u64::MAX);
        assert_eq!((h.total(), h.count(), h.classes().count()), (u64::MAX, 2, 1));
    }
}
