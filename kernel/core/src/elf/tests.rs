//! Unit tests of ELF planning. Random ones are in tests/prop_elf.rs.

use super::*;
use alloc::string::ToString;
use alloc::vec::Vec;

const RX: u32 = abi::PF_R | abi::PF_X;
const RW: u32 = abi::PF_R | abi::PF_W;

/// A program header: type, flags, offset, vaddr, filesz, memsz, align.
type Phdr = (u32, u32, u64, u64, u64, u64, u64);

/// A file of 0x3000 bytes with these headers.
fn file(e_type: u16, entry: u64, phdrs: &[Phdr]) -> Vec<u8> {
    let mut bytes = alloc::vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [e_type, abi::EM_X86_64, 1, 0] {
        bytes.extend_from_slice(&half.to_le_bytes());
    }
    for word in [entry, 64, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&[0; 4]);
    for half in [64, 56, phdrs.len() as u16, 64, 0, 0] {
        bytes.extend_from_slice(&half.to_le_bytes());
    }
    for &(kind, flags, offset, vaddr, filesz, memsz, align) in phdrs {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        for word in [offset, vaddr, vaddr, filesz, memsz, align] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    // Not resize(), which fills byte by byte and is slow under Miri.
    let mut file = alloc::vec![0; 0x3000];
    file[..bytes.len()].copy_from_slice(&bytes);
    file
}

const TEXT: Phdr = (abi::PT_LOAD, RX, 0, 0x40_0000, 0x1800, 0x1800, 0x1000);
const DATA: Phdr = (abi::PT_LOAD, RW, 0x1800, 0x40_2800, 0x400, 0x2000, 0x20_0000);

#[test]
fn a_static_program() {
    let stack = (abi::PT_GNU_STACK, RW, 0, 0, 0, 0, 16);
    let tls = (abi::PT_TLS, abi::PF_R, 0x1800, 0x40_2800, 8, 24, 32);
    let plan = plan_user(&file(abi::ET_EXEC, 0x40_1000, &[TEXT, DATA, stack, tls])).unwrap();
    assert_eq!((plan.entry, plan.kind, plan.align), (0x40_1000, Kind::Static, 0x20_0000));
    let text = Segment {
        vaddr: 0x40_0000,
        memsz: 0x1800,
        file_offset: 0,
        filesz: 0x1800,
        read: true,
        write: false,
        exec: true,
    };
    assert_eq!(plan.segments[0], text);
    assert!(plan.segments[1].write && !plan.segments[1].exec && plan.segments[1].end() == 0x40_4800);
    assert_eq!((plan.phdr_vaddr, plan.phnum, plan.phentsize), (Some(0x40_0040), 4, 56));
    assert_eq!((plan.interp.clone(), plan.stack_exec), (None, false));
    assert_eq!(plan.tls, Some(Tls { vaddr: 0x40_2800, filesz: 8, memsz: 24, align: 32 }));
    assert_eq!(plan.span(), 0x40_0000..0x40_5000);
}

#[test]
fn pie_interpreter_and_executable_stack() {
    let mut bytes = file(
        abi::ET_DYN,
        0x10,
        &[
            (abi::PT_INTERP, abi::PF_R, 0x2000, 0x2000, 7, 7, 1),
            (abi::PT_LOAD, RX, 0, 0, 0x100, 0x100, 0x1000),
            (abi::PT_GNU_STACK, 7, 0, 0, 0, 0, 16),
            (abi::PT_LOAD, RW, 0, 0x5000, 0, 0, 0),
        ],
    );
    bytes[0x2000..0x2007].copy_from_slice(b"/ld.so\0");
    let plan = plan_user(&bytes).unwrap();
    assert_eq!((plan.kind, plan.interp.clone(), plan.stack_exec), (Kind::Pie, Some(0x2000..0x2006), true));
    // The headers run beyond the segment: no address to give. An empty segment is none.
    assert_eq!((plan.phdr_vaddr, plan.segments.len()), (None, 1));
    bytes[0x2006] = b'x';
    assert_eq!(plan_user(&bytes), Err(ElfError::BadInterp));
}

#[test]
fn the_two_halves() {
    let user = file(abi::ET_EXEC, 0x40_1000, &[TEXT]);
    let kernel = file(
        abi::ET_EXEC,
        0xffff_ffff_8000_0000,
        &[(abi::PT_LOAD, RX, 0, 0xffff_ffff_8000_0000, 0x100, 0x100, 0x1000)],
    );
    assert!(plan(&user).is_ok() && plan(&kernel).is_ok() && plan_kernel(&kernel).is_ok());
    assert_eq!(plan_kernel(&user), Err(ElfError::WrongHalf { index: 0 }));
    assert_eq!(plan_user(&kernel), Err(ElfError::WrongHalf { index: 0 }));
    let both =
        file(abi::ET_EXEC, 0x40_1000, &[TEXT, (abi::PT_LOAD, RX, 0, 0xffff_ffff_8000_0000, 0x100, 0x100, 0x1000)]);
    assert_eq!(plan(&both), Err(ElfError::WrongHalf { index: 1 }));
    for (vaddr, memsz, expected) in [
        (USER_END - 0x1000, 0x1000, Ok(())),
        (USER_END - 0x1000, 0x1001, Err(ElfError::WrongHalf { index: 0 })),
        (USER_END, 1, Err(ElfError::WrongHalf { index: 0 })),
        (USER_END, 0x2000, Err(ElfError::NonCanonical { index: 0 })),
        (1 << 47, 1, Err(ElfError::NonCanonical { index: 0 })),
        (KERNEL_START - 0x1000, 0x2000, Err(ElfError::NonCanonical { index: 0 })),
        (KERNEL_START, 1, Err(ElfError::WrongHalf { index: 0 })),
        (0x1000, u64::MAX - 0x1000, Err(ElfError::NonCanonical { index: 0 })),
        (0x1000, u64::MAX, Err(ElfError::AddressOverflow { index: 0 })),
    ] {
        let bytes = file(abi::ET_EXEC, vaddr, &[(abi::PT_LOAD, RX, 0, vaddr, 0, memsz, 0x1000)]);
        assert_eq!(plan_user(&bytes).map(|_| ()), expected, "{vaddr:#x} {memsz:#x}");
    }
}

#[test]
fn broken_headers() {
    let good = file(abi::ET_EXEC, 0x40_1000, &[TEXT]);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        plan_user(&bytes).unwrap_err().to_string()
    };
    assert_eq!(plan_user(b"#!/bin/sh"), Err(ElfError::NotElf));
    assert_eq!(plan_user(&good[..40]), Err(ElfError::Truncated("file header")));
    assert_eq!(plan_user(&good[..100]), Err(ElfError::Truncated("program headers")));
    assert_eq!(plan_user(&good[..0x1000]), Err(ElfError::OutsideFile { index: 0 }));
    assert_eq!(with(0, 0), "not an ELF file");
    assert_eq!(with(4, 1), "32-bit ELF file, 64-bit needed");
    assert_eq!(with(5, 2), "ELF file is not 64-bit little-endian version 1");
    assert_eq!(with(16, 1), "ELF file of type 1 is no program (2 or 3 needed)");
    assert_eq!(with(18, 183), "ELF file for machine 183, x86_64 (62) needed");
    assert_eq!(with(54, 32), "ELF file: program header size 32 is wrong");
    assert_eq!(with(56, 0), "ELF file has no segment to load");
    assert_eq!(with(27, 1), "ELF entry point 0x1401000 is in no executable segment");
}

#[test]
fn broken_segments() {
    let text = |change: fn(&mut Phdr)| {
        let mut phdr = TEXT;
        change(&mut phdr);
        plan_user(&file(abi::ET_EXEC, 0x40_0800, &[phdr])).unwrap_err()
    };
    assert_eq!(text(|p| p.5 = 0x17ff), ElfError::FileszAboveMemsz { index: 0 });
    assert_eq!(text(|p| p.2 = 0x2000), ElfError::OutsideFile { index: 0 });
    assert_eq!(text(|p| p.2 = u64::MAX), ElfError::OutsideFile { index: 0 });
    assert_eq!(text(|p| p.3 += 1), ElfError::Misaligned { index: 0 });
    assert_eq!(text(|p| p.6 = 3), ElfError::BadAlign { index: 0 });
    assert_eq!(text(|p| p.1 = RW), ElfError::BadEntry(0x40_0800));
    assert_eq!(text(|p| p.0 = abi::PT_NOTE), ElfError::NoSegments);
    let overlap = (abi::PT_LOAD, RW, 0x7ff, 0x40_17ff, 1, 1, 0x1000);
    let bytes = file(abi::ET_EXEC, 0x40_0800, &[TEXT, DATA, overlap]);
    assert_eq!(plan_user(&bytes), Err(ElfError::Overlap { first: 0, second: 2 }));
    assert_eq!(plan_user(&file(abi::ET_EXEC, 0x40_0800, &[TEXT; 17])), Err(ElfError::TooManySegments));
    let tls = (abi::PT_TLS, abi::PF_R, 0x1800, 0x40_2800, 8, 24, 3);
    assert_eq!(plan_user(&file(abi::ET_EXEC, 0x40_0800, &[TEXT, tls])), Err(ElfError::BadAlign { index: 1 }));
}

/// The section header with these fields.
fn shdr(name: u32, kind: u32, vaddr: u64, offset: u64, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&name.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    for word in [2, vaddr, offset, size, 0, 0, 0] {
        bytes.extend_from_slice(&u64::to_le_bytes(word));
    }
    bytes.truncate(64);
    bytes
}

#[test]
fn sections_by_name() {
    let mut bytes = file(abi::ET_EXEC, 0x40_1000, &[TEXT]);
    assert_eq!(section(&bytes, ".text"), Ok(None));
    bytes[0x2000..0x2017].copy_from_slice(b"\0__jump_table\0.bss\0.x\0\0");
    bytes[0x2100..0x2104].copy_from_slice(b"keys");
    let headers = [
        shdr(0, 0, 0, 0, 0),
        shdr(1, abi::SHT_PROGBITS, 0x40_2100, 0x2100, 4),
        shdr(14, abi::SHT_NOBITS, 0x40_9000, 0x3000, 0x1000),
        shdr(19, abi::SHT_PROGBITS, 0, 0x2ff0, 0x11),
        shdr(0, abi::SHT_STRTAB, 0, 0x2000, 0x17),
    ];
    for (index, header) in headers.iter().enumerate() {
        bytes[0x2200 + index * 64..][..64].copy_from_slice(header);
    }
    bytes[40..48].copy_from_slice(&0x2200u64.to_le_bytes());
    bytes[60..62].copy_from_slice(&5u16.to_le_bytes());
    bytes[62..64].copy_from_slice(&4u16.to_le_bytes());
    let table = section(&bytes, "__jump_table").unwrap().unwrap();
    assert_eq!((table.vaddr, table.size, table.file_offset, table.data), (0x40_2100, 4, 0x2100, &b"keys"[..]));
    assert_eq!(section(&bytes, ".bss").unwrap().unwrap().data, b"");
    assert_eq!(section(&bytes, "jump_table"), Ok(None));
    assert_eq!(section(&bytes, ".x"), Err(ElfError::Truncated("section")));
    bytes[62] = 9;
    assert_eq!(section(&bytes, ".bss"), Err(ElfError::BadSections));
}
