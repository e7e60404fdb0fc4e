//! Unit tests of the address-space map. The comparison with an array of pages is in tests/prop_vma.rs.

use super::*;

const P: u64 = PAGE_SIZE;
const BASE: u64 = 0x10_0000;

fn limits() -> Limits {
    Limits { min: MMAP_MIN_ADDR, mmap_base: BASE + 256 * P, max: BASE + 4096 * P }
}

fn anon(start: u64, end: u64) -> Region {
    Region::new(BASE + start * P..BASE + end * P, Prot::RW, Kind::Anonymous)
}

/// The regions as page numbers from BASE and rights.
fn pages(map: &AddressSpaceMap) -> Vec<(u64, u64, u8)> {
    map.iter().map(|r| ((r.start - BASE) / P, (r.end - BASE) / P, r.prot.bits())).collect()
}

fn range(start: u64, end: u64) -> Range<u64> {
    BASE + start * P..BASE + end * P
}

#[test]
fn mmap_and_munmap_of_one_region() {
    let mut map = AddressSpaceMap::new(limits());
    let first = map.map_anywhere(10 * P, 0, Prot::RW, Kind::Anonymous).unwrap();
    assert_eq!(first, BASE + 246 * P);
    let second = map.map_anywhere(1, 0, Prot::RW, Kind::Anonymous).unwrap();
    assert_eq!((second, pages(&map)), (BASE + 245 * P, alloc::vec![(245, 256, 3)]));
    let removed = map.unmap(second..second + 1).unwrap();
    assert_eq!(removed.iter().copied().collect::<Vec<_>>(), [anon(245, 246)]);
    assert_eq!((pages(&map), map.total_bytes()), (alloc::vec![(246, 256, 3)], 10 * P));
}

#[test]
fn fixed_mappings_replace() {
    let mut map = AddressSpaceMap::new(limits());
    map.map_fixed(anon(0, 10)).unwrap();
    let file = Kind::FileBacked { file: 7, offset: 0x5000 };
    let removed = map.map_fixed(Region::new(range(4, 6), Prot::R, file)).unwrap();
    assert_eq!((removed.len(), removed.span()), (1, Some(range(4, 6))));
    assert_eq!(pages(&map), [(0, 4, 3), (4, 6, 1), (6, 10, 3)]);
    let removed = map.map_fixed(anon(3, 7)).unwrap();
    assert_eq!((removed.len(), removed.span()), (3, Some(range(3, 7))));
    assert_eq!(pages(&map), [(0, 10, 3)]);
    assert_eq!(map.map_fixed_noreplace(anon(9, 11)), Err(MapError::Exist));
    assert_eq!(map.map_fixed_noreplace(anon(10, 11)), Ok(()));
    assert_eq!((pages(&map), map.total_bytes()), (alloc::vec![(0, 11, 3)], 11 * P));
}

#[test]
fn neighbours_join_only_if_they_continue() {
    let mut map = AddressSpaceMap::new(limits());
    let file = |page| Kind::FileBacked { file: 7, offset: page * P };
    map.map_fixed(Region::new(range(0, 2), Prot::R, file(3))).unwrap();
    map.map_fixed(Region::new(range(4, 5), Prot::R, file(7))).unwrap();
    map.map_fixed(Region::new(range(2, 4), Prot::R, file(5))).unwrap();
    assert_eq!(pages(&map), [(0, 5, 1)]);
    map.map_fixed(Region::new(range(5, 6), Prot::R, file(9))).unwrap();
    map.map_fixed(Region::new(range(6, 7), Prot::R, Kind::Special { offset: 0 })).unwrap();
    map.map_fixed(Region::new(range(7, 8), Prot::R, Kind::Special { offset: P })).unwrap();
    assert_eq!(pages(&map), [(0, 5, 1), (5, 6, 1), (6, 7, 1), (7, 8, 1)]);
    // What is left of a file mapping keeps its place in the file.
    map.unmap(range(1, 3)).unwrap();
    assert_eq!(map.find(BASE + 3 * P).unwrap().kind, file(6));
    let shared = Kind::Shared { object: 1, offset: 0 };
    map.map_fixed(Region::new(range(10, 14), Prot::R, shared)).unwrap();
    map.protect(range(12, 13), Prot::RW).unwrap();
    assert_eq!(map.find(BASE + 13 * P).unwrap().kind, Kind::Shared { object: 1, offset: 3 * P });
}

#[test]
fn bad_arguments_are_errnos() {
    let mut map = AddressSpaceMap::new(Limits::for_stack(8 << 20));
    let region = |start, end| Region::new(start..end, Prot::RW, Kind::Anonymous);
    assert_eq!(map.map_fixed(region(BASE + 1, BASE + P)), Err(MapError::Inval));
    assert_eq!(map.map_fixed(region(BASE, BASE)), Err(MapError::Inval));
    assert_eq!(map.map_fixed(region(BASE + P, BASE)), Err(MapError::Inval));
    assert_eq!(map.map_fixed(region(0, P)), Err(MapError::Perm));
    assert_eq!(map.map_fixed(region(MMAP_MIN_ADDR - P, MMAP_MIN_ADDR)), Err(MapError::Perm));
    // The last page below 2^47 can never be mapped.
    assert_eq!(map.map_fixed(region(USER_END, USER_END + P)), Err(MapError::NoMem));
    assert_eq!(map.map_fixed(region(1 << 63, (1 << 63) + P)), Err(MapError::NoMem));
    assert!(map.map_fixed(region(USER_END - P, USER_END)).is_ok());
    let mut anywhere = |len, hint| map.map_anywhere(len, hint, Prot::RW, Kind::Anonymous);
    assert_eq!(anywhere(0, 0), Err(MapError::Inval));
    assert_eq!(anywhere(u64::MAX, 0), Err(MapError::NoMem));
    assert_eq!(anywhere(1 << 47, 0), Err(MapError::NoMem));
    assert!(anywhere(P, u64::MAX).is_ok() && anywhere(P, P).is_ok());
    assert_eq!(map.unmap(1..P), Err(MapError::Inval));
    assert_eq!(map.unmap(P..P), Err(MapError::Inval));
    assert_eq!(map.unmap(P..u64::MAX), Err(MapError::Inval));
    assert_eq!(map.unmap(P..USER_END + 1), Err(MapError::Inval));
    assert_eq!(map.unmap(0..BASE).map(|pieces| pieces.len()), Ok(0));
    assert_eq!(map.protect(1..P, Prot::R), Err(MapError::Inval));
    assert_eq!(map.protect(0..P, Prot::R), Err(MapError::NoMem));
    assert_eq!(map.protect(P..u64::MAX, Prot::R), Err(MapError::NoMem));
    assert_eq!(map.protect(P..P, Prot::R), Ok(Pieces::new()));
    assert_eq!((Prot::from_linux(8), Prot::from_linux(5)), (None, Some(Prot::RX)));
}

#[test]
fn limits_are_cut_to_user_space() {
    let map = AddressSpaceMap::new(Limits { min: 1, mmap_base: u64::MAX, max: u64::MAX });
    assert_eq!(map.limits(), Limits { min: P, mmap_base: USER_END, max: USER_END });
    for rlimit in [0, 8 << 20, u64::MAX] {
        let limits = Limits::for_stack(rlimit);
        assert!(limits.min < limits.mmap_base && limits.mmap_base < limits.max && aligned(limits.mmap_base));
    }
}

#[test]
fn hints_and_the_search_order() {
    let mut map = AddressSpaceMap::new(limits());
    map.map_fixed(anon(254, 255)).unwrap();
    assert_eq!(map.find_free(P, 0), Ok(BASE + 255 * P));
    assert_eq!(map.find_free(2 * P, 0), Ok(BASE + 252 * P));
    assert_eq!(map.find_free(2 * P, BASE + 1), Ok(BASE + P));
    assert_eq!(map.find_free(2 * P, BASE + 253 * P), Ok(BASE + 252 * P));
    assert_eq!(map.find_free(2 * P, 3), Ok(BASE + 252 * P));
    // Nothing below mmap_base is big enough: the highest place of all.
    assert_eq!(map.find_free(1000 * P, 0), Ok(BASE + 3096 * P));
    assert_eq!(map.find_free(4000 * P, 0), Err(MapError::NoMem));
    // The lowest place is used to the last page.
    let low = BASE - MMAP_MIN_ADDR;
    assert_eq!(map.find_free(low + 254 * P, 0), Ok(MMAP_MIN_ADDR));
    assert_eq!(map.find_free(low + 255 * P, 0), Ok(BASE + 3841 * P - low));
}

#[test]
fn protect_needs_all_pages_and_returns_what_changed() {
    let mut map = AddressSpaceMap::new(limits());
    map.map_fixed(anon(0, 4)).unwrap();
    map.map_fixed(anon(5, 8)).unwrap();
    assert_eq!(map.protect(range(3, 6), Prot::R), Err(MapError::NoMem));
    assert_eq!(pages(&map), [(0, 4, 3), (5, 8, 3)]);
    map.map_fixed(Region::new(range(4, 5), Prot::R, Kind::Anonymous)).unwrap();
    let changed = map.protect(range(3, 6), Prot::R).unwrap();
    assert_eq!(changed.iter().map(|piece| piece.start).collect::<Vec<_>>(), [BASE + 3 * P, BASE + 5 * P]);
    assert_eq!(pages(&map), [(0, 3, 3), (3, 6, 1), (6, 8, 3)]);
    assert!(map.protect(range(3, 6), Prot::R).unwrap().is_empty());
    map.protect(range(0, 8), Prot::RW).unwrap();
    assert_eq!(pages(&map), [(0, 8, 3)]);
    assert!(map.covers(range(0, 8), Prot::RW) && !map.covers(range(0, 9), Prot::NONE));
    assert_eq!(map.covered_to(range(0, 9), Prot::RW), range(0, 8).end);
    assert_eq!(map.covered_to(range(9, 10), Prot::NONE), range(9, 10).start);
    assert!(!map.covers(range(0, 8), Prot::X) && map.covers(range(9, 9), Prot::RW));
}

#[test]
fn a_stack_grows_to_its_limit_and_keeps_the_gap() {
    let mut map = AddressSpaceMap::new(limits());
    map.map_fixed(Region::new(range(2000, 2001), Prot::RW, Kind::Stack)).unwrap();
    let under = |page| BASE + page * P + 5;
    assert_eq!(map.fault(under(1990), Access::Write, Pte::Absent).0, FaultDecision::GrowStack);
    assert!(map.grow_stack(under(1990), 100 * P));
    assert_eq!((pages(&map), map.total_bytes()), (alloc::vec![(1990, 2001, 3)], 11 * P));
    assert!(!map.grow_stack(under(1990), 100 * P) && !map.grow_stack(under(2001), 100 * P));
    assert!(!map.grow_stack(under(1900), 100 * P) && map.grow_stack(under(1901), 100 * P));
    map.map_fixed(anon(1000, 1001)).unwrap();
    assert!(map.grow_stack(under(1257), 9999 * P) && !map.grow_stack(under(1256), 9999 * P));
    map.protect(range(1000, 1001), Prot::NONE).unwrap();
    assert!(map.grow_stack(under(1256), 9999 * P));
    // mmap keeps the gap too, with and without a hint.
    assert_eq!(map.find_free(P, BASE + 1001 * P), Ok(BASE + 255 * P));
    assert_eq!(map.find_free(P, BASE + 999 * P), Ok(BASE + 999 * P));
    assert_eq!(map.fault(under(900), Access::Write, Pte::Absent).0, FaultDecision::Segv(SegvCode::MapErr));
}

#[test]
fn the_break() {
    let mut map = AddressSpaceMap::new(limits());
    map.set_brk_start(BASE + 1);
    let start = BASE + P;
    assert_eq!((map.current_brk(), map.set_brk(0, 1 << 30).0), (start, start));
    assert_eq!(map.set_brk(start + 100, 1 << 30).0, start + 100);
    assert_eq!(map.set_brk(start + 3 * P, 1 << 30).0, start + 3 * P);
    assert_eq!(pages(&map), [(1, 4, 3)]);
    let (brk, pieces) = map.set_brk(start + P + 1, 1 << 30);
    assert_eq!((brk, pieces.span()), (start + P + 1, Some(range(3, 4))));
    assert_eq!(map.set_brk(start + 4 * P, 3 * P).0, start + P + 1);
    // One page stays free between the heap and what is above.
    map.map_fixed(anon(10, 11)).unwrap();
    assert_eq!(map.set_brk(BASE + 10 * P, 1 << 30).0, start + P + 1);
    assert_eq!(map.set_brk(BASE + 9 * P, 1 << 30).0, BASE + 9 * P);
    assert_eq!(map.set_brk(u64::MAX, u64::MAX).0, BASE + 9 * P);
    assert_eq!(pages(&map), [(1, 9, 3), (10, 11, 3)]);
    // The gap below a stack stays free of the heap too.
    map.unmap(range(10, 11)).unwrap();
    map.map_fixed(Region::new(range(300, 301), Prot::RW, Kind::Stack)).unwrap();
    assert_eq!(map.set_brk(BASE + 44 * P, 1 << 30).0, BASE + 9 * P);
    assert_eq!(map.set_brk(BASE + 43 * P, 1 << 30).0, BASE + 43 * P);
    map.clear();
    assert_eq!((map.iter().count(), map.total_bytes(), map.current_brk()), (0, 0, 0));
}

#[test]
fn faults() {
    use Access::{Exec, Read, Write};
    let mut map = AddressSpaceMap::new(limits());
    map.map_fixed(anon(0, 1)).unwrap();
    for (at, prot, kind) in [
        (1, Prot::RW, Kind::FileBacked { file: 3, offset: 0x9000 }),
        (2, Prot::RW, Kind::Shared { object: 4, offset: 0xa000 }),
        (3, Prot::RX, Kind::Special { offset: 0xb000 }),
        (4, Prot::NONE, Kind::Anonymous),
        (5, Prot::W, Kind::Anonymous),
    ] {
        map.map_fixed(Region::new(range(at, at + 1), prot, kind)).unwrap();
    }
    let page = |writable, sole_owner| Pte::Page { writable, sole_owner };
    let (acc, unmapped) = (FaultDecision::Segv(SegvCode::AccErr), FaultDecision::Segv(SegvCode::MapErr));
    for (at, access, pte, decision) in [
        (0, Read, Pte::Absent, FaultDecision::ReadZero),
        (0, Write, Pte::Absent, FaultDecision::ZeroFill),
        (0, Exec, Pte::Absent, acc),
        (0, Write, Pte::ZeroPage, FaultDecision::ZeroFill),
        (0, Read, Pte::ZeroPage, FaultDecision::Refresh),
        (0, Write, page(false, false), FaultDecision::CopyOnWrite),
        (0, Write, page(false, true), FaultDecision::MakeWritable),
        (0, Write, page(true, true), FaultDecision::Refresh),
        (0, Read, page(false, false), FaultDecision::Refresh),
        (1, Read, Pte::Absent, FaultDecision::FileRead { file: 3, offset: 0x9000 }),
        (1, Write, Pte::Absent, FaultDecision::FileCopy { file: 3, offset: 0x9000 }),
        (1, Write, page(false, false), FaultDecision::CopyOnWrite),
        (2, Write, Pte::Absent, FaultDecision::SharedPage { object: 4, offset: 0xa000 }),
        (2, Write, page(false, false), FaultDecision::MakeWritable),
        (3, Exec, Pte::Absent, FaultDecision::SpecialPage { offset: 0xb000 }),
        (3, Write, page(false, true), acc),
        (4, Read, Pte::Absent, acc),
        (5, Read, Pte::Absent, FaultDecision::ReadZero),
        (6, Read, Pte::Absent, unmapped),
    ] {
        let addr = BASE + at * P + 0x123;
        let prot = map.find(addr).map_or(Prot::NONE, |region| region.prot);
        assert_eq!(map.fault(addr, access, pte), (decision, prot), "page {at} {access:?} {pte:?}");
    }
    for addr in [0, USER_END, 1 << 47, u64::MAX] {
        assert_eq!(map.fault(addr, Read, Pte::Absent), (unmapped, Prot::NONE));
    }
}

#[test]
fn mmap_starts_lower() {
    let mut map = AddressSpaceMap::new(Limits::for_stack(8 << 20));
    let before = map.limits().mmap_base;
    map.lower_mmap_base(5 * PAGE_SIZE + 1);
    assert_eq!(map.limits().mmap_base, before - 6 * PAGE_SIZE);
    map.lower_mmap_base(u64::MAX);
    assert_eq!(map.limits().mmap_base, map.limits().min);
}
