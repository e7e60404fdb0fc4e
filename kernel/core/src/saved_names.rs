//! Names of tasks that were seen, so that traces can name those that have ended: one place for each id modulo SLOTS.
//!
//! Writers and readers: any context, any CPU; no lock. Who finds a place being written leaves it. Invariant: a reader gets a name that
//! was saved for its id, whole, or none. A later task takes the place of one whose id falls on the same place.

use crate::atomics::{AtomicU64, Ordering, fence};

#[derive(Debug)]
struct Slot {
    /// Id 31..0; version 63..32, odd while the name is written.
    tag: AtomicU64,
    comm: [AtomicU64; 2],
}

/// The names. Id 0 has none.
#[derive(Debug)]
pub struct SavedNames<const SLOTS: usize>([Slot; SLOTS]);

const VERSION: u64 = 1 << 32;

impl<const SLOTS: usize> SavedNames<SLOTS> {
    /// No name.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self([const { Slot { tag: AtomicU64::new(0), comm: [const { AtomicU64::new(0) }; 2] } }; SLOTS])
    }

    /// Keep `comm` as the name of task `id`.
    pub fn save(&self, id: u32, comm: &[u8; 16]) {
        let slot = &self.0[id as usize % SLOTS];
        let tag = slot.tag.load(Ordering::Relaxed);
        let version = (tag & !(VERSION - 1)).wrapping_add(VERSION);
        if tag & VERSION != 0 || slot.tag.compare_exchange(tag, version, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return;
        }
        fence(Ordering::Release);
        let comm = u128::from_le_bytes(*comm);
        slot.comm[0].store(comm as u64, Ordering::Relaxed);
        slot.comm[1].store((comm >> 64) as u64, Ordering::Relaxed);
        slot.tag.store(version.wrapping_add(VERSION) | u64::from(id), Ordering::Release);
    }

    /// The name that was saved last for task `id`, if it is still there.
    pub fn get(&self, id: u32) -> Option<[u8; 16]> {
        let slot = &self.0[id as usize % SLOTS];
        let tag = slot.tag.load(Ordering::Acquire);
        if id == 0 || tag as u32 != id || tag & VERSION != 0 {
            return None;
        }
        let [low, high] = [0, 1].map(|i| u128::from(slot.comm[i].load(Ordering::Relaxed)));
        fence(Ordering::Acquire);
        (slot.tag.load(Ordering::Relaxed) == tag).then(|| (low | high << 64).to_le_bytes())
    }
}

#[cfg(not(loom))]
impl<const SLOTS: usize> Default for SavedNames<SLOTS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_of_a_place_counts() {
        let names: SavedNames<4> = SavedNames::new();
        assert_eq!((names.get(0), names.get(4)), (None, None));
        names.save(5, b"spin\0\0\0\0\0\0\0\0\0\0\0\0");
        names.save(6, b"fifteen letters\0");
        assert_eq!(names.get(5).as_ref(), Some(b"spin\0\0\0\0\0\0\0\0\0\0\0\0"));
        names.save(5, b"noise\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(names.get(5).as_ref(), Some(b"noise\0\0\0\0\0\0\0\0\0\0\0"));
        assert_eq!(names.get(6).as_ref(), Some(b"fifteen letters\0"));
        names.save(9, b"later\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!((names.get(5), names.get(1)), (None, None));
    }

    #[test]
    fn readers_never_get_half_a_name() {
        let names: SavedNames<1> = SavedNames::new();
        let rounds = if cfg!(miri) { 50 } else { 50_000u32 };
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=rounds).for_each(|n| names.save(1 + n % 2, &[n as u8; 16])));
            for _ in 0..rounds {
                if let Some(name) = names.get(1) {
                    assert!(name.iter().all(|&byte| byte == name[0] && byte % 2 == 0), "{name:?}");
                }
            }
        });
    }
}
