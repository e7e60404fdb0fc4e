//! Text poking: every mixture of old and new bytes that a CPU may have in flight at any step, and the list of sites.
#![cfg(not(loom))]

use kcore::static_key::{JMP32, JumpEntry, NOP5, SITE_LEN, nop_or_jmp};
use kcore::text_poke::{INT3, PokeList, STEPS, Step};

/// What a CPU that executes the site may see while steps are made: for each byte, all values since its last sync.
struct InFlight {
    now: [u8; SITE_LEN],
    seen: [Vec<u8>; SITE_LEN],
    listed: bool,
    /// Whether an INT3 was seen while it was not listed any more.
    was_listed: bool,
}

impl InFlight {
    fn write(&mut self, at: usize, byte: u8) {
        self.now[at] = byte;
        self.seen[at].push(byte);
    }

    fn sync(&mut self) {
        for (seen, now) in self.seen.iter_mut().zip(self.now) {
            *seen = vec![now];
        }
    }

    /// Panics if some mixture is neither `old` nor `new` nor a listed INT3.
    fn check(&self, old: [u8; SITE_LEN], new: [u8; SITE_LEN], step: usize) {
        let counts = self.seen.each_ref().map(Vec::len);
        for mut pick in 0..counts.iter().product::<usize>() {
            let decoded: [u8; SITE_LEN] = core::array::from_fn(|i| {
                let byte = self.seen[i][pick % counts[i]];
                pick /= counts[i];
                byte
            });
            let trapped = decoded[0] == INT3 && self.listed;
            assert!(trapped || decoded == old || decoded == new, "after step {step}: {decoded:02x?}");
        }
        assert!(!self.was_listed || self.listed || self.seen[0].iter().all(|&b| b != INT3), "INT3 and no list");
    }
}

fn every_mixture(old: [u8; SITE_LEN], new: [u8; SITE_LEN]) {
    let mut cpu = InFlight { now: old, seen: old.map(|b| vec![b]), listed: false, was_listed: false };
    for (i, step) in STEPS.into_iter().enumerate() {
        match step {
            Step::Publish => (cpu.listed, cpu.was_listed) = (true, true),
            Step::Trap => cpu.write(0, INT3),
            Step::Sync => cpu.sync(),
            Step::Head => cpu.write(0, new[0]),
            Step::Retire => cpu.listed = false,
            Step::Tail => {
                for at in 1..SITE_LEN {
                    cpu.write(at, new[at]);
                    cpu.check(old, new, i);
                }
            }
        }
        cpu.check(old, new, i);
    }
    assert_eq!((cpu.now, cpu.listed), (new, false));
}

#[test]
fn no_mixture_of_bytes_in_flight_is_another_instruction() {
    let entry = JumpEntry { code: 0xffff_ffff_8000_1000, target: 0xffff_ffff_8012_3456, key: 0 };
    let jump = nop_or_jmp(&entry, true).expect("in reach");
    assert_eq!(jump[0], JMP32);
    every_mixture(NOP5, jump);
    every_mixture(jump, NOP5);
}

#[test]
fn lookup_finds_what_is_listed_and_nothing_else() {
    let list: PokeList<2> = PokeList::new();
    assert_eq!(list.lookup(0), None, "an empty list has no site 0");
    assert!(!list.publish([(1, 2), (3, 4), (5, 6)].into_iter()), "more than fit");
    assert!(list.publish([(1, 2), (3, 4)].into_iter()));
    assert!(!list.publish([(7, 8)].into_iter()), "a second batch");
    assert_eq!((list.lookup(1), list.lookup(3), list.lookup(7)), (Some(2), Some(4), None));
    list.retire();
    assert_eq!(list.lookup(1), None);
}
