//! The samples of one measurement: a fixed array whose memory is touched beforehand. Called by bench's measurements.

/// The most samples that are held.
pub const MOST: usize = 200_000;

/// Samples in ticks, at most [`MOST`]; more are dropped.
pub struct Samples {
    values: Vec<u64>,
    count: usize,
    overhead_ticks: u64,
}

impl Samples {
    /// None yet; all memory is touched now.
    pub fn new() -> Self {
        Self { values: vec![1; MOST], count: 0, overhead_ticks: 0 }
    }

    /// Forgets the samples.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Sets what an empty pair of readings takes.
    pub fn set_overhead(&mut self, ticks: u64) {
        self.overhead_ticks = ticks;
    }

    /// Adds a sample.
    #[inline(always)]
    pub fn add(&mut self, ticks: u64) {
        if let Some(value) = self.values.get_mut(self.count) {
            *value = ticks;
            self.count += 1;
        }
    }

    /// The samples in ascending order, as they were added.
    pub fn sorted(&mut self) -> &[u64] {
        let held = &mut self.values[..self.count];
        held.sort_unstable();
        held
    }

    /// Least, middle and largest sample, less the empty pair of readings; `None` without samples.
    pub fn spread(&mut self) -> Option<[u64; 3]> {
        let overhead = self.overhead_ticks;
        let held = self.sorted();
        let (least, most) = (held.first()?, held.last()?);
        Some([*least, held[held.len() / 2], *most].map(|ticks| ticks.saturating_sub(overhead)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_less_the_overhead() {
        let mut samples = Samples::new();
        assert_eq!(samples.spread(), None);
        samples.set_overhead(10);
        [50, 5, 30, 20].into_iter().for_each(|ticks| samples.add(ticks));
        assert_eq!(samples.spread(), Some([0, 20, 40]));
        assert_eq!(samples.sorted(), [5, 20, 30, 50]);
        samples.clear();
        assert_eq!(samples.spread(), None);
    }
}
