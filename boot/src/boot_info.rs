//! What the machine's loader passed to us, PVH or multiboot2, in one form.
//!
//! Source: Xen public/arch-x86/hvm/start_info.h; Multiboot2 Specification 3.6 "Boot information format".

use crate::entry::MULTIBOOT2_MAGIC;
use crate::fail;
use crate::physical_memory::{firmware_bytes, firmware_string};
use crate::rsdp::number;
use alloc::vec::Vec;
use kcore::boot_memory_map::{Kind, Region};

const PVH_MAGIC: u64 = 0x336e_c578;

/// Everything the loader starts from.
#[derive(Default)]
pub struct BootInfo {
    /// QEMU's `-append`, or GRUB's words behind the loader's name.
    pub command_line: &'static str,
    /// Base and length of the archive (QEMU's `-initrd`, GRUB's first `module2`).
    pub archive: Option<(u64, u64)>,
    /// Firmware's memory map, as it came.
    pub memory: Vec<Region>,
    /// ACPI root pointer, if it was passed.
    pub rsdp: Option<u64>,
    /// Ranges that hold the information itself, to be kept until the loader is done.
    pub occupied: Vec<(u64, u64)>,
}

/// Reads the information at `address`; `magic` is what EAX held at entry.
pub fn read(magic: u32, address: u32) -> BootInfo {
    let address = u64::from(address);
    if magic == MULTIBOOT2_MAGIC {
        return multiboot2(address);
    }
    // Under PVH EAX is undefined (qboot leaves multiboot1's magic there).
    match firmware_bytes(address, 56).filter(|info| number(info, 0, 4) == PVH_MAGIC) {
        Some(info) => pvh(address, info),
        None => fail!("started with EAX {magic:#x}, EBX {address:#x}: neither PVH nor multiboot2, one is needed"),
    }
}

fn pvh(address: u64, info: &[u8]) -> BootInfo {
    let modules = number(info, 12, 4);
    let (module_list, command_line) = (number(info, 16, 8), number(info, 24, 8));
    let (rsdp, memory_map, memory_map_entries) = (number(info, 32, 8), number(info, 40, 8), number(info, 48, 4));
    let mut boot =
        BootInfo { rsdp: (rsdp != 0).then_some(rsdp), command_line: text_at(command_line), ..BootInfo::default() };

    const ENTRY: u64 = 24;
    let Some(entries) = firmware_bytes(memory_map, memory_map_entries * ENTRY) else {
        fail!("PVH start info of version {} has no memory map, version 1 is needed", number(info, 4, 4));
    };
    boot.memory.extend(entries.chunks_exact(ENTRY as usize).map(|entry| Region {
        base: number(entry, 0, 8),
        length: number(entry, 8, 8),
        kind: Kind::from_e820(number(entry, 16, 4) as u32),
    }));
    if modules != 0 {
        // Only address and size: the module's command-line pointer is garbage under qboot.
        const MODULE: u64 = 32;
        let Some(first) = firmware_bytes(module_list, MODULE) else {
            fail!("the PVH module list at {module_list:#x} cannot be read");
        };
        boot.archive = Some((number(first, 0, 8), number(first, 8, 8)));
        boot.occupied.push((module_list, modules * MODULE));
    }
    let command_line_length = boot.command_line.len() as u64 + 1;
    boot.occupied.extend([
        (address, info.len() as u64),
        (memory_map, memory_map_entries * ENTRY),
        (command_line, if command_line == 0 { 0 } else { command_line_length }),
    ]);
    boot
}

fn multiboot2(address: u64) -> BootInfo {
    const TAG_COMMAND_LINE: u64 = 1;
    const TAG_MODULE: u64 = 3;
    const TAG_MEMORY_MAP: u64 = 6;
    const TAG_OLD_RSDP: u64 = 14;
    const TAG_NEW_RSDP: u64 = 15;
    let mut boot = BootInfo::default();
    let length = firmware_bytes(address, 8).map_or(0, |head| number(head, 0, 4));
    let Some(info) = firmware_bytes(address, length) else {
        fail!("the multiboot2 information at {address:#x} cannot be read");
    };
    boot.occupied.push((address, length));

    let mut offset = 8;
    while offset + 8 <= info.len() {
        let size = number(info, offset + 4, 4) as usize;
        let Some(tag) = info.get(offset..offset + size).filter(|tag| tag.len() >= 8) else { break };
        let content = address + offset as u64 + 8;
        match number(tag, 0, 4) {
            TAG_COMMAND_LINE => boot.command_line = text_at(content),
            TAG_MODULE if boot.archive.is_none() => {
                let start = number(tag, 8, 4);
                boot.archive = Some((start, number(tag, 12, 4).saturating_sub(start)));
            }
            TAG_MEMORY_MAP => {
                let entry_size = number(tag, 8, 4).max(24) as usize;
                boot.memory.extend(tag.get(16..).unwrap_or(&[]).chunks_exact(entry_size).map(|entry| Region {
                    base: number(entry, 0, 8),
                    length: number(entry, 8, 8),
                    kind: Kind::from_e820(number(entry, 16, 4) as u32),
                }));
            }
            TAG_NEW_RSDP => boot.rsdp = Some(content),
            TAG_OLD_RSDP => boot.rsdp = boot.rsdp.or(Some(content)),
            _ => {}
        }
        offset += size.next_multiple_of(8);
    }
    boot
}

/// A command line that firmware or the boot protocol left at `address`; empty for 0.
fn text_at(address: u64) -> &'static str {
    const LONGEST: u64 = 64 * 1024;
    if address == 0 {
        return "";
    }
    match firmware_string(address, LONGEST).map(core::str::from_utf8) {
        Some(Ok(text)) => text.trim(),
        Some(Err(_)) => fail!("the command line given to the loader is not UTF-8 text"),
        None => fail!("the command line given to the loader is longer than {} KiB", LONGEST >> 10),
    }
}
