//! ELF planning: whatever the file, no panic, and an accepted plan keeps every promise.
//! A failing case is printed with its seed by proptest.

use elf::abi;
use kcore::elf::{Kind, LoadPlan, PAGE_SIZE, USER_END, plan, plan_kernel, plan_user, section};
use proptest::prelude::*;

/// A small file with two segments and three sections.
fn sample() -> Vec<u8> {
    let mut bytes = vec![0u8; 0x2400];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(16, &abi::ET_DYN.to_le_bytes());
    put(18, &abi::EM_X86_64.to_le_bytes());
    put(20, &[1]);
    put(24, &0x1100u64.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(40, &0x2200u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 4, 0, 64, 0, 3, 0, 2, 0]);
    let phdrs = [
        (abi::PT_LOAD, 4, 0, 0, 0x1000, 0x1000, 0x1000),
        (abi::PT_LOAD, 5, 0x1000, 0x1000, 0x800, 0x900, 0x1000),
        (abi::PT_INTERP, 4, 0x2000, 0x2000, 4, 4, 1),
        (abi::PT_GNU_STACK, 6, 0, 0, 0, 0, 16u64),
    ];
    for (index, (kind, flags, offset, vaddr, filesz, memsz, align)) in phdrs.into_iter().enumerate() {
        let at = 64 + index * 56;
        put(at, &u32::to_le_bytes(kind));
        put(at + 4, &u32::to_le_bytes(flags));
        for (word, value) in [offset, vaddr, vaddr, filesz, memsz, align].into_iter().enumerate() {
            put(at + 8 + word * 8, &u64::to_le_bytes(value));
        }
    }
    put(0x2000, b"/ld\0");
    put(0x2100, b"\0.keys\0.names\0");
    for (index, (name, kind, offset, size)) in
        [(0, 0, 0, 0), (1, 1, 0x1000, 16), (7, 3, 0x2100, 14u64)].into_iter().enumerate()
    {
        let at = 0x2200 + index * 64;
        put(at, &u32::to_le_bytes(name));
        put(at + 4, &u32::to_le_bytes(kind));
        put(at + 24, &u64::to_le_bytes(offset));
        put(at + 32, &u64::to_le_bytes(size));
    }
    bytes
}

fn check(file: &[u8], plan: &LoadPlan) {
    assert!(!plan.segments.is_empty() && plan.align.is_power_of_two() && plan.align >= PAGE_SIZE);
    let mut sorted = plan.segments.clone();
    sorted.sort_by_key(|segment| segment.vaddr);
    for segment in &sorted {
        assert!(segment.memsz > 0 && segment.filesz <= segment.memsz);
        assert!(segment.vaddr.checked_add(segment.memsz).is_some());
        assert!(segment.file_offset + segment.filesz <= file.len() as u64);
        assert!(segment.filesz == 0 || segment.vaddr % PAGE_SIZE == segment.file_offset % PAGE_SIZE);
        assert!(plan.span().start <= segment.vaddr && segment.end() - 1 < plan.span().end);
    }
    assert!(sorted.windows(2).all(|pair| pair[0].end() <= pair[1].vaddr));
    assert!(plan.segments.iter().any(|s| s.exec && s.vaddr <= plan.entry && plan.entry < s.end()));
    if let Some(range) = &plan.interp {
        assert!(!file[range.clone()].is_empty() && !file[range.clone()].contains(&0));
    }
    if let Some(phdr) = plan.phdr_vaddr {
        assert!(plan.segments.iter().any(|s| s.vaddr <= phdr && phdr + u64::from(plan.phnum) * 56 <= s.end()));
    }
}

fn try_all(file: &[u8]) {
    for (plan, user) in [(plan(file), false), (plan_user(file), true), (plan_kernel(file), false)] {
        match plan {
            Ok(plan) => {
                check(file, &plan);
                assert!(!user || plan.segments.iter().all(|segment| segment.end() <= USER_END));
            }
            Err(error) => {
                let line = error.to_string();
                assert!(line.contains("ELF") && !line.contains('\n'));
            }
        }
    }
    for name in ["", ".keys", ".none"] {
        let _ = section(file, name);
    }
}

#[test]
fn the_sample_is_good() {
    let file = sample();
    let plan = plan_user(&file).unwrap();
    check(&file, &plan);
    assert_eq!((plan.kind, plan.segments.len(), plan.phdr_vaddr), (Kind::Pie, 2, Some(64)));
    assert_eq!(&file[plan.interp.unwrap()], b"/ld");
    assert_eq!(section(&file, ".keys").unwrap().unwrap().data.len(), 16);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_headers(
        hits in prop::collection::vec((0..64 + 4 * 56usize, any::<u8>()), 1..5),
        section_hits in prop::collection::vec((0x2100..0x2400usize, any::<u8>()), 0..4),
    ) {
        let mut file = sample();
        for (at, value) in hits.into_iter().chain(section_hits) {
            file[at] = value;
        }
        try_all(&file);
    }

    #[test]
    fn wild_words(index in 0..4usize, word in 0..6usize, value in any::<u64>(), shift in 0..64u32, entry in any::<u64>()) {
        let mut file = sample();
        file[64 + index * 56 + 8 + word * 8..][..8].copy_from_slice(&(value >> shift).to_le_bytes());
        try_all(&file);
        file[24..32].copy_from_slice(&(entry >> shift).to_le_bytes());
        try_all(&file);
    }

    #[test]
    fn cut_files_and_noise(cut in 0..0x2400usize, noise in any::<Vec<u8>>()) {
        let file = sample();
        try_all(&file[..cut]);
        try_all(&noise);
        try_all(&[&file[..20], &noise[..]].concat());
    }
}
