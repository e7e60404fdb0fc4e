//! A set of CPUs that all CPUs read and change without a lock.
//!
//! Anyone may call it, NMIs included. Each CPU's membership is one bit, whole at any moment; a set of several is not read or replaced at
//! once. A change of one CPU and the look at one are sequentially consistent: who enters a CPU here and then looks there does not miss
//! one who does it the other way round.

use super::{CpuSet, WORDS};
use crate::atomics::{AtomicU64, Ordering, const_unless_loom};

/// The set.
#[derive(Debug)]
pub struct SharedCpuSet {
    words: [AtomicU64; WORDS],
}

impl Default for SharedCpuSet {
    fn default() -> Self {
        Self::new()
    }
}

impl SharedCpuSet {
    const_unless_loom! {
        /// The empty set.
        pub fn new() -> Self {
            Self {
                words: [
                    AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0),
                    AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0),
                ],
            }
        }
    }

    /// Whether `cpu` is in it.
    #[inline]
    pub fn contains(&self, cpu: u32) -> bool {
        self.words.get(cpu as usize / 64).is_some_and(|word| word.load(Ordering::SeqCst) >> (cpu % 64) & 1 != 0)
    }

    /// Put `cpu` in, or take it out. One that no set can name is left alone.
    pub fn set(&self, cpu: u32, member: bool) {
        let Some(word) = self.words.get(cpu as usize / 64) else { return };
        let bit = 1 << (cpu % 64);
        if member {
            word.fetch_or(bit, Ordering::SeqCst);
        } else {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// Its members, word by word.
    pub fn load(&self) -> CpuSet {
        CpuSet::from_words(core::array::from_fn(|i| self.words[i].load(Ordering::Relaxed)))
    }

    /// Make it `set`, word by word.
    pub fn store(&self, set: &CpuSet) {
        for (word, bits) in self.words.iter().zip(set.words()) {
            word.store(*bits, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cpu_set::MAX_CPUS;

    #[test]
    fn members_come_and_go() {
        let set = SharedCpuSet::new();
        set.set(3, true);
        set.set(MAX_CPUS as u32 - 1, true);
        set.set(MAX_CPUS as u32, true);
        assert!(set.contains(3) && !set.contains(4) && set.contains(511) && !set.contains(MAX_CPUS as u32));
        set.set(3, false);
        assert_eq!(set.load(), CpuSet::single(511));
        set.store(&CpuSet::full(65));
        assert_eq!(set.load(), CpuSet::full(65));
        assert!(set.contains(64) && !set.contains(65));
    }
}
