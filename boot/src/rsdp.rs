//! Finds the ACPI root pointer and the MADT, and reads from it which CPUs and IO APICs there are.
//!
//! The tables may have an XSDT only, or an RSDT only. Source: ACPI specification 6.5, "Root System Description
//! Pointer" and "Multiple APIC Description Table".

use crate::fail;
use crate::physical_memory::firmware_bytes;
use alloc::vec::Vec;

const SIGNATURE: &[u8] = b"RSD PTR ";
const HEADER_LENGTH: u64 = 36;

/// A little-endian number of up to 8 bytes at `offset`; 0 where the table is too short for it.
pub fn number(table: &[u8], offset: usize, length: usize) -> u64 {
    let bytes = table.get(offset..offset + length).unwrap_or(&[]);
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Looks for the root pointer where PC firmware puts it: the first KiB of the EBDA, then 0xe0000..0x100000.
pub fn search() -> Option<u64> {
    let ebda = firmware_bytes(0x40e, 2).map_or(0, |pointer| number(pointer, 0, 2) << 4);
    [(ebda, 0x400), (0xe_0000, 0x2_0000)].into_iter().find_map(|(base, length)| {
        let area = firmware_bytes(base, length)?;
        let found = area.chunks(16).position(|chunk| chunk.starts_with(SIGNATURE))?;
        let sum = area[found * 16..].iter().take(20).fold(0u8, |sum, &byte| sum.wrapping_add(byte));
        (sum == 0).then_some(base + found as u64 * 16)
    })
}

/// A CPU of the MADT.
#[derive(Clone, Copy)]
pub struct Cpu {
    /// ACPI processor UID.
    pub uid: u32,
    /// Local APIC id.
    pub apic_id: u32,
}

/// What the MADT lists.
#[derive(Default)]
pub struct Madt {
    /// Enabled CPUs in the table's order, each APIC id once.
    pub cpus: Vec<Cpu>,
    /// Physical addresses of the IO APICs.
    pub io_apics: Vec<u64>,
}

/// The table at `address`, if its header and length can be read.
fn table(address: u64) -> Option<&'static [u8]> {
    let header = firmware_bytes(address, HEADER_LENGTH)?;
    firmware_bytes(address, number(header, 4, 4).max(HEADER_LENGTH))
}

/// Reads the MADT behind the root pointer at `rsdp`; empty where there is none.
pub fn madt(rsdp: u64) -> Madt {
    let mut madt = Madt::default();
    let Some(root_pointer) = firmware_bytes(rsdp, 36).filter(|bytes| bytes.starts_with(SIGNATURE)) else {
        fail!("the ACPI root pointer at {rsdp:#x} is not one, it is needed to find the CPUs");
    };
    let xsdt = if root_pointer[15] >= 2 { number(root_pointer, 24, 8) } else { 0 };
    let (root, width) = if xsdt != 0 { (xsdt, 8) } else { (number(root_pointer, 16, 4), 4) };
    let Some(root) = table(root) else {
        fail!("the ACPI root table at {root:#x} cannot be read, it is needed to find the CPUs");
    };
    let mut tables =
        root[HEADER_LENGTH as usize..].chunks_exact(width).filter_map(|entry| table(number(entry, 0, width)));
    let Some(bytes) = tables.find(|table| table.starts_with(b"APIC")) else { return madt };

    let mut rest = bytes.get(44..).unwrap_or(&[]);
    while rest.len() >= 2 && rest[1] >= 2 && usize::from(rest[1]) <= rest.len() {
        let (entry, behind) = rest.split_at(usize::from(rest[1]));
        rest = behind;
        const ENABLED: u64 = 1;
        let cpu = match entry[0] {
            0 if number(entry, 4, 4) & ENABLED != 0 && number(entry, 3, 1) != 0xff => {
                Cpu { uid: number(entry, 2, 1) as u32, apic_id: number(entry, 3, 1) as u32 }
            }
            9 if number(entry, 8, 4) & ENABLED != 0 => {
                Cpu { uid: number(entry, 12, 4) as u32, apic_id: number(entry, 4, 4) as u32 }
            }
            1 => {
                madt.io_apics.push(number(entry, 4, 4));
                continue;
            }
            _ => continue,
        };
        if madt.cpus.iter().all(|known| known.apic_id != cpu.apic_id) {
            madt.cpus.push(cpu);
        }
    }
    madt
}
