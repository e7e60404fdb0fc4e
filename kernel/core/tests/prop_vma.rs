//! The address-space map against an array that holds each page's rights and contents.
//! A failing case is printed with its seed by proptest.

use kcore::vma::{AddressSpaceMap, Kind, Limits, MapError, PAGE_SIZE, Pieces, Prot, Region};
use proptest::prelude::*;

const PAGES: u64 = 48;
const BASE: u64 = 0x10_0000;

/// Rights and kind of a page, the kind as of that page.
type Model = Vec<Option<(Prot, Kind)>>;

#[derive(Clone, Debug)]
enum Op {
    Fixed(u64, u64, Prot, Kind),
    NoReplace(u64, u64, Prot, Kind),
    Anywhere(u64, u64, Prot, Kind),
    Unmap(u64, u64),
    Protect(u64, u64, Prot),
    Brk(u64),
}

fn at_page(kind: Kind, pages: u64) -> Kind {
    match kind {
        Kind::FileBacked { file, offset } => Kind::FileBacked { file, offset: offset + pages * PAGE_SIZE },
        Kind::Shared { object, offset } => Kind::Shared { object, offset: offset + pages * PAGE_SIZE },
        Kind::Special { offset } => Kind::Special { offset: offset + pages * PAGE_SIZE },
        same => same,
    }
}

fn prots() -> impl Strategy<Value = Prot> {
    prop::sample::select(vec![Prot::NONE, Prot::R, Prot::RW])
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Anonymous),
        2 => (0..2u32, 0..4u64).prop_map(|(file, page)| Kind::FileBacked { file, offset: page * PAGE_SIZE }),
        1 => (0..4u64).prop_map(|page| Kind::Shared { object: 0, offset: page * PAGE_SIZE }),
        1 => Just(Kind::Special { offset: 0 }),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let page = 0..PAGES;
    let len = 1..12u64;
    prop_oneof![
        (page.clone(), len.clone(), prots(), kinds()).prop_map(|(a, b, c, d)| Op::Fixed(a, b, c, d)),
        (page.clone(), len.clone(), prots(), kinds()).prop_map(|(a, b, c, d)| Op::NoReplace(a, b, c, d)),
        (len.clone(), page.clone(), prots(), kinds()).prop_map(|(a, b, c, d)| Op::Anywhere(a, b, c, d)),
        (page.clone(), len.clone()).prop_map(|(a, b)| Op::Unmap(a, b)),
        (page.clone(), len, prots()).prop_map(|(a, b, c)| Op::Protect(a, b, c)),
        page.prop_map(Op::Brk),
    ]
}

fn range(start: u64, len: u64) -> std::ops::Range<u64> {
    BASE + start * PAGE_SIZE..BASE + (start + len) * PAGE_SIZE
}

fn region(start: u64, len: u64, prot: Prot, kind: Kind) -> Region {
    Region::new(range(start, len), prot, kind)
}

fn fill(model: &mut Model, start: u64, len: u64, prot: Prot, kind: Kind) {
    for page in 0..len {
        model[(start + page) as usize] = Some((prot, at_page(kind, page)));
    }
}

/// Takes `pieces` out of the model, each page of which must be as the piece says; how many pages.
fn taken(model: &mut Model, pieces: &Pieces) -> u64 {
    let mut count = 0;
    let mut last_end = 0;
    for piece in pieces.iter() {
        assert!(piece.start >= last_end && piece.start < piece.end);
        last_end = piece.end;
        for page in 0..piece.size() / PAGE_SIZE {
            let slot = &mut model[((piece.start - BASE) / PAGE_SIZE + page) as usize];
            assert_eq!(slot.take(), Some((piece.prot, at_page(piece.kind, page))));
            count += 1;
        }
    }
    count
}

fn mapped(model: &Model, start: u64, len: u64) -> u64 {
    model[start as usize..(start + len) as usize].iter().flatten().count() as u64
}

fn apply(map: &mut AddressSpaceMap, model: &mut Model, op: Op) {
    let fits = |start: u64, len: u64| start + len <= PAGES;
    match op {
        Op::Fixed(start, len, prot, kind) => match map.map_fixed(region(start, len, prot, kind)) {
            Ok(pieces) => {
                let expected = mapped(model, start, len);
                assert_eq!(taken(model, &pieces), expected);
                fill(model, start, len, prot, kind);
            }
            Err(error) => assert!(!fits(start, len) && error == MapError::NoMem),
        },
        Op::NoReplace(start, len, prot, kind) => match map.map_fixed_noreplace(region(start, len, prot, kind)) {
            Ok(()) => {
                assert_eq!(mapped(model, start, len), 0);
                fill(model, start, len, prot, kind);
            }
            Err(MapError::Exist) => assert!(mapped(model, start, len) > 0),
            Err(error) => assert!(!fits(start, len) && error == MapError::NoMem),
        },
        Op::Anywhere(len, hint, prot, kind) => {
            let free = |model: &Model, start: u64| fits(start, len) && mapped(model, start, len) == 0;
            let hinted = Some(hint).filter(|&hint| free(model, hint));
            let expected = hinted.or_else(|| (0..PAGES).rev().find(|&start| free(model, start)));
            match map.map_anywhere(len * PAGE_SIZE - 1, BASE + hint * PAGE_SIZE, prot, kind) {
                Ok(start) => {
                    assert_eq!(Some((start - BASE) / PAGE_SIZE), expected);
                    fill(model, (start - BASE) / PAGE_SIZE, len, prot, kind);
                }
                Err(error) => assert!(expected.is_none() && error == MapError::NoMem),
            }
        }
        Op::Unmap(start, len) => match map.unmap(range(start, len)) {
            Ok(pieces) => {
                let expected = mapped(model, start, len);
                assert_eq!(taken(model, &pieces), expected);
            }
            Err(error) => assert!(!fits(start, len) && error == MapError::Inval),
        },
        Op::Protect(start, len, prot) => match map.protect(range(start, len), prot) {
            Ok(pieces) => {
                assert_eq!(mapped(model, start, len), len);
                let before = model.clone();
                taken(model, &pieces);
                for page in (start..start + len).map(|page| page as usize) {
                    let (old, kind) = before[page].unwrap();
                    assert_eq!(model[page].is_none(), old != prot);
                    model[page] = Some((prot, kind));
                }
            }
            Err(error) => {
                assert_eq!(error, MapError::NoMem);
                assert!(!fits(start, len) || mapped(model, start, len) < len);
            }
        },
        Op::Brk(page) => {
            let old = (map.current_brk() - BASE) / PAGE_SIZE;
            let (brk, pieces) = map.set_brk(BASE + page * PAGE_SIZE, u64::MAX);
            let new = (brk - BASE) / PAGE_SIZE;
            assert!(new == page || new == old);
            taken(model, &pieces);
            if new < old {
                assert_eq!(mapped(model, new, old - new), 0);
            } else {
                assert_eq!(mapped(model, old, new - old), 0);
                fill(model, old, new - old, Prot::RW, Kind::Heap);
            }
        }
    }
}

/// The map says of every page what the model says, and keeps its own promises.
fn same(map: &AddressSpaceMap, model: &Model) {
    for (page, expected) in (0..).zip(model) {
        let addr = BASE + page * PAGE_SIZE + 17;
        let found = map.find(addr).map(|r| (r.prot, at_page(r.kind, (addr - r.start) / PAGE_SIZE)));
        assert_eq!(found, *expected, "page {page}");
    }
    assert_eq!(map.total_bytes(), mapped(model, 0, PAGES) * PAGE_SIZE);
    let regions: Vec<Region> = map.iter().copied().collect();
    for pair in regions.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        assert!(a.end <= b.start);
        let continues = at_page(a.kind, a.size() / PAGE_SIZE) == b.kind;
        let joinable = !matches!(a.kind, Kind::Special { .. });
        assert!(!(a.end == b.start && a.prot == b.prot && continues && joinable), "{a:?} and {b:?} are one");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_an_array_of_pages(ops in prop::collection::vec(ops(), 1..60)) {
        let end = BASE + PAGES * PAGE_SIZE;
        let mut map = AddressSpaceMap::new(Limits { min: BASE, mmap_base: end, max: end });
        map.set_brk_start(BASE + 4 * PAGE_SIZE);
        let mut model: Model = vec![None; PAGES as usize];
        for op in ops {
            apply(&mut map, &mut model, op);
            same(&map, &model);
        }
    }

    #[test]
    fn wild_numbers_do_not_panic(numbers in prop::collection::vec(any::<u64>(), 40), shift in 0..64u32) {
        let mut map = AddressSpaceMap::new(Limits::for_stack(numbers[0]));
        for n in numbers.windows(3) {
            let (a, b) = (n[0] >> shift, n[1] >> (63 - shift));
            let aligned = (a & !0xfff, a.wrapping_add(b) & !0xfff);
            let kind = if n[2] % 2 == 0 { Kind::Stack } else { Kind::FileBacked { file: 1, offset: n[2] } };
            let _ = map.map_fixed(Region::new(aligned.0..aligned.1, Prot::RW, kind));
            let _ = map.map_anywhere(b, a, Prot::R, kind);
            let _ = map.protect(a & !0xfff..b, Prot::RX);
            let _ = map.unmap(b & !0xfff..n[2]);
            map.grow_stack(n[2] >> shift, a);
            map.set_brk_start(n[2]);
            let _ = map.set_brk(a, b);
            let _ = map.fault(a, kcore::vma::Access::Write, kcore::vma::Pte::Absent);
            let _ = map.covers(a..b, Prot::R);
        }
    }
}
