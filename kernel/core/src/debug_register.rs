//! DR7 as a value: which breakpoints may be asked for, and what several owners' together are.
//!
//! Called by ptrace(2) and by the kernel's own watchpoints. Source: SDM vol. 3B, "Debug Registers".

/// Breakpoints that hardware has.
pub const COUNT: usize = 4;
/// Bits of DR7 that read as fixed values or are the kernel's own business: 10 to 15.
pub const RESERVED: u64 = 0xfc00;
/// DR7 with nothing enabled: bit 10 reads as one.
pub const OFF: u64 = 0x400;
/// DR6 bits of the four breakpoints.
pub const HIT: u64 = 0xf;
/// DR6: a single step.
pub const STEP: u64 = 1 << 14;

/// What a breakpoint waits for: its two bits in DR7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An instruction at the address.
    Execute,
    /// A write.
    Write,
    /// A read or write.
    Access,
}

/// One enabled breakpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breakpoint {
    /// What it waits for.
    pub kind: Kind,
    /// Bytes that it covers: 1, 2, 4 or 8.
    pub len: u64,
}

/// Why a breakpoint is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invalid;

impl Breakpoint {
    /// The one that DR7 `control` enables in register `index`, if it does.
    pub fn of(control: u64, index: usize) -> Result<Option<Breakpoint>, Invalid> {
        if control >> (2 * index) & 3 == 0 {
            return Ok(None);
        }
        let bits = control >> (16 + 4 * index) & 0xf;
        let len = [1, 2, 8, 4][(bits >> 2) as usize];
        let kind = match bits & 3 {
            0 => Kind::Execute,
            1 => Kind::Write,
            3 => Kind::Access,
            // Port access: no program may use ports.
            _ => return Err(Invalid),
        };
        if kind == Kind::Execute && len != 1 {
            return Err(Invalid);
        }
        Ok(Some(Breakpoint { kind, len }))
    }

    /// Its bits in DR7 for register `index`; `global`: for every task.
    pub const fn control(self, index: usize, global: bool) -> u64 {
        let kind = match self.kind {
            Kind::Execute => 0,
            Kind::Write => 1,
            Kind::Access => 3,
        };
        let len = match self.len {
            1 => 0,
            2 => 1,
            8 => 2,
            _ => 3,
        };
        let enable = if global { 2 } else { 1 };
        (kind | len << 2) << (16 + 4 * index) | enable << (2 * index)
    }

    /// Whether it may be at `address`, all of it below `end`: hardware ignores the low bits of what it covers.
    pub const fn fits(self, address: u64, end: u64) -> bool {
        address & (self.len - 1) == 0 && address < end && self.len <= end - address
    }
}

/// What DR7 is to be for a program that wrote `control`, with `addresses` in the other registers and its memory below `end`.
pub fn check(control: u64, addresses: &[u64; COUNT], end: u64) -> Result<u64, Invalid> {
    let control = control & !RESERVED & 0xffff_ffff;
    for (index, &address) in addresses.iter().enumerate() {
        match Breakpoint::of(control, index)? {
            Some(b) if !b.fits(address, end) => return Err(Invalid),
            _ => {}
        }
    }
    Ok(control)
}

/// The registers that DR7 `control` enables, a bit each.
pub fn enabled(control: u64) -> u64 {
    (0..COUNT).filter(|i| control >> (2 * i) & 3 != 0).map(|i| 1 << i).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 0x7fff_ffff_f000;

    #[test]
    fn control_and_breakpoint_are_inverse() {
        for index in 0..COUNT {
            for kind in [Kind::Write, Kind::Access] {
                for len in [1, 2, 4, 8] {
                    let b = Breakpoint { kind, len };
                    for global in [false, true] {
                        assert_eq!(Breakpoint::of(b.control(index, global), index), Ok(Some(b)));
                        assert_eq!(enabled(b.control(index, global)), 1 << index);
                    }
                    assert_eq!(Breakpoint::of(b.control(index, false), (index + 1) % COUNT), Ok(None));
                }
            }
        }
    }

    #[test]
    fn known_values() {
        // A four-byte write watchpoint in DR0, as debuggers write it.
        let watch = Breakpoint { kind: Kind::Write, len: 4 };
        assert_eq!(watch.control(0, false), 0xd_0001);
        assert_eq!(Breakpoint { kind: Kind::Execute, len: 1 }.control(3, false), 0x40);
        assert_eq!(Breakpoint { kind: Kind::Access, len: 8 }.control(1, true), 0xb0_0008);
    }

    #[test]
    fn ports_and_long_instructions_are_refused() {
        assert_eq!(Breakpoint::of(0x2_0001, 0), Err(Invalid));
        assert_eq!(Breakpoint::of(0x4_0001, 0), Err(Invalid));
        assert_eq!(Breakpoint::of(0x2_0000, 0), Ok(None), "not enabled");
    }

    #[test]
    fn a_program_watches_its_own_aligned_memory_only() {
        let at = |address| check(0xd_0001, &[address, 0, 0, 0], END);
        assert_eq!(at(0x1000), Ok(0xd_0001));
        assert_eq!(at(0x1002), Err(Invalid));
        assert_eq!(at(END - 4), Ok(0xd_0001));
        assert_eq!(at(END), Err(Invalid));
        assert_eq!(at(0xffff_ffff_8000_0000), Err(Invalid));
        assert_eq!(check(0xffff_ffff_0000_fc00, &[u64::MAX; 4], END), Ok(0), "reserved bits go");
    }
}
