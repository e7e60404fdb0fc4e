//! What epoll says of one watched file: level- or edge-triggered, once or again.
//!
//! Called in process context under the interest's lock. A file's generation counts the wake-ups of its wait queues: an edge is a generation
//! that was not reported. Invariant: who reads the generation before the readiness reports no edge too few; one too many is allowed.
//! Source: epoll(7), epoll_ctl(2).

/// EPOLLERR and EPOLLHUP are always asked for.
const ALWAYS: u32 = 8 | 0x10;
/// EPOLLEXCLUSIVE, EPOLLWAKEUP, EPOLLONESHOT, EPOLLET: how, not what.
const EXCLUSIVE: u32 = 1 << 28;
const WAKEUP: u32 = 1 << 29;
const ONE_SHOT: u32 = 1 << 30;
const EDGE: u32 = 1 << 31;
/// What may stand beside EPOLLEXCLUSIVE: IN, OUT, ERR, HUP, WAKEUP, ET.
const BESIDE_EXCLUSIVE: u32 = 1 | 4 | ALWAYS | WAKEUP | EDGE | EXCLUSIVE;

/// The operation is not allowed with these events: EINVAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What a program asked of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    events: u32,
    data: u64,
    /// The generation that was reported.
    reported: Option<u64>,
    /// EPOLLONESHOT: reported, and not asked for again.
    spent: bool,
}

impl Interest {
    /// EPOLL_CTL_ADD.
    pub const fn add(events: u32, data: u64) -> Result<Self, Refused> {
        if events & EXCLUSIVE != 0 && events & !BESIDE_EXCLUSIVE != 0 {
            return Err(Refused);
        }
        Ok(Self { events, data, reported: None, spent: false })
    }

    /// EPOLL_CTL_MOD: asks again. EPOLLEXCLUSIVE can neither come nor go.
    pub const fn modify(&mut self, events: u32, data: u64) -> Result<(), Refused> {
        if (events | self.events) & EXCLUSIVE != 0 {
            return Err(Refused);
        }
        *self = Self { events, data, reported: None, spent: false };
        Ok(())
    }

    /// The value that the program wants back.
    pub const fn data(&self) -> u64 {
        self.data
    }

    /// What there is to report, with the file ready for `ready` after its generation was `generation`; 0: nothing.
    pub fn due(&self, ready: u32, generation: u64) -> u32 {
        let found = ready & (self.events | ALWAYS);
        let told = self.events & EDGE != 0 && self.reported == Some(generation);
        if self.spent || told { 0 } else { found }
    }

    /// As `due`, and it counts as reported.
    pub fn take(&mut self, ready: u32, generation: u64) -> u32 {
        let found = self.due(ready, generation);
        if found != 0 {
            self.reported = Some(generation);
            self.spent = self.events & ONE_SHOT != 0;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const IN: u32 = 1;
    const OUT: u32 = 4;
    const HUP: u32 = 0x10;

    #[test]
    fn level_is_reported_as_long_as_it_lasts() {
        let mut interest = Interest::add(IN, 7).unwrap();
        assert_eq!((interest.take(IN | OUT, 1), interest.take(IN, 1), interest.data()), (IN, IN, 7));
        assert_eq!((interest.take(0, 1), interest.take(OUT, 1)), (0, 0));
        assert_eq!(interest.take(HUP, 1), HUP, "never asked for, always told");
    }

    #[test]
    fn an_edge_is_reported_once() {
        let mut interest = Interest::add(IN | EDGE, 0).unwrap();
        assert_eq!((interest.take(IN, 4), interest.take(IN, 4)), (IN, 0));
        assert_eq!(interest.take(0, 5), 0, "drained before anybody looked");
        assert_eq!(interest.take(IN, 5), IN, "ready again in the same generation as the look that found nothing");
        assert_eq!((interest.due(IN, 6), interest.take(IN, 6), interest.due(IN, 6)), (IN, IN, 0));
        interest.modify(IN | EDGE, 0).unwrap();
        assert_eq!(interest.take(IN, 6), IN, "asked again");
    }

    #[test]
    fn one_shot_is_spent_until_asked_again() {
        let mut interest = Interest::add(IN | ONE_SHOT, 0).unwrap();
        assert_eq!((interest.take(OUT, 1), interest.take(IN, 2), interest.take(IN | HUP, 3)), (0, IN, 0));
        interest.modify(OUT | ONE_SHOT, 1).unwrap();
        assert_eq!((interest.take(OUT, 3), interest.data()), (OUT, 1));
    }

    #[test]
    fn exclusive_stands_alone() {
        assert_eq!(Interest::add(EXCLUSIVE | IN | ONE_SHOT, 0), Err(Refused));
        let mut interest = Interest::add(EXCLUSIVE | IN | EDGE, 0).unwrap();
        assert_eq!(interest.modify(IN, 0), Err(Refused));
        assert_eq!(Interest::add(IN, 0).unwrap().modify(EXCLUSIVE | IN, 0), Err(Refused));
    }
}
