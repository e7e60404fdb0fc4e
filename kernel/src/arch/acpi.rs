//! What the kernel wants of ACPI: I/O APICs, interrupt overrides, and how to power off. Read once at boot.
//!
//! Tables are read through the direct map by the `acpi` crate; the S5 sleep type is the one value that would need an
//! AML interpreter, so it is found by its fixed encoding (ACPI "\_Sx", NameOp PackageOp).

use super::page_table::phys_to_virt;
use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use arrayvec::ArrayVec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::instructions::port::Port;

#[derive(Clone)]
struct DirectMap;

impl AcpiHandler for DirectMap {
    unsafe fn map_physical_region<T>(&self, phys: usize, size: usize) -> PhysicalMapping<Self, T> {
        let virt = NonNull::new(phys_to_virt(phys as u64) as *mut T).expect("the direct map has no null");
        // SAFETY: all memory that holds ACPI tables is in the direct map for good.
        unsafe { PhysicalMapping::new(phys, virt, size, size, Self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

/// One I/O APIC.
#[derive(Clone, Copy)]
pub struct IoApic {
    /// Physical address of its registers.
    pub phys: u64,
    /// Global interrupt number of its first input.
    pub first_gsi: u32,
}

/// ISA interrupt that is wired to another input, or with another polarity.
#[derive(Clone, Copy)]
pub struct Override {
    /// ISA interrupt
    pub isa_irq: u8,
    /// Global interrupt
    pub gsi: u32,
    /// Level triggered
    pub level: bool,
    /// Active low
    pub active_low: bool,
}

/// The parts of the tables that the kernel uses.
#[derive(Default)]
pub struct Platform {
    /// I/O APICs
    pub ioapics: ArrayVec<IoApic, 4>,
    /// ISA overrides
    pub overrides: ArrayVec<Override, 16>,
}

/// PM1a control port | SLP_TYP << 16 | PM1b port << 32; 0 = unknown.
static S5: AtomicU64 = AtomicU64::new(0);

/// Read the tables. A missing or broken RSDP gives an empty platform: no I/O interrupts, no S5.
pub fn read(rsdp_phys: Option<u64>) -> Platform {
    let mut platform = Platform::default();
    let Some(rsdp) = rsdp_phys else { return platform };
    // SAFETY: the loader says that the RSDP is there; the crate checks signature and checksum.
    let Ok(tables) = (unsafe { AcpiTables::from_rsdp(DirectMap, rsdp as usize) }) else { return platform };
    if let Ok(madt) = tables.find_table::<Madt>() {
        for entry in madt.get().entries() {
            match entry {
                MadtEntry::IoApic(e) => {
                    let _ = platform
                        .ioapics
                        .try_push(IoApic { phys: e.io_apic_address as u64, first_gsi: e.global_system_interrupt_base });
                }
                MadtEntry::InterruptSourceOverride(e) if e.bus == 0 => {
                    let _ = platform.overrides.try_push(Override {
                        isa_irq: e.irq,
                        gsi: e.global_system_interrupt,
                        level: e.flags >> 2 & 3 == 3,
                        active_low: e.flags & 3 == 3,
                    });
                }
                _ => {}
            }
        }
    }
    if let Ok(fadt) = tables.find_table::<acpi::fadt::Fadt>() {
        let port = |g: acpi::AcpiResult<acpi::address::GenericAddress>| g.map_or(0, |g| g.address);
        let a = port(fadt.pm1a_control_block());
        let b = fadt.pm1b_control_block().ok().flatten().map_or(0, |g| g.address);
        if let Ok(dsdt) = fadt.dsdt_address()
            && a != 0
            && let Some(sleep_type) = sleep_type_s5(dsdt as u64)
        {
            S5.store(a & 0xffff | (sleep_type as u64) << 16 | (b & 0xffff) << 32, Ordering::Relaxed);
        }
    }
    platform
}

/// SLP_TYPa of `\_S5` in the DSDT at `phys`.
fn sleep_type_s5(phys: u64) -> Option<u8> {
    let header = phys_to_virt(phys) as *const u8;
    // SAFETY: 1. ACPI tables lie in the direct map for good; 2. bytes 4..8 of every table hold its length.
    let aml = unsafe {
        let len = header.add(4).cast::<u32>().read_unaligned() as usize;
        core::slice::from_raw_parts(header, len.min(1 << 20))
    };
    let at = aml.windows(4).position(|w| w == b"_S5_")?;
    // PackageOp, package length (1 byte here), element count, then the first element: a byte constant or Zero/One.
    let rest = aml.get(at + 4..at + 12)?;
    let element = &rest[3..];
    match (rest[0], element[0]) {
        (0x12, 0x0a) => Some(element[1]),
        (0x12, 0x00) => Some(0),
        (0x12, 0x01) => Some(1),
        _ => None,
    }
}

/// Power off by S5, if the tables said how. Returns if they did not, or if nothing happened.
pub fn enter_s5() {
    let s5 = S5.load(Ordering::Relaxed);
    if s5 == 0 {
        return;
    }
    let value = ((s5 >> 16 & 7) << 10 | 1 << 13) as u16;
    for port in [s5 as u16, (s5 >> 32) as u16] {
        if port != 0 {
            // SAFETY: PM1 control ports as the FADT names them; no memory is touched.
            unsafe { Port::new(port).write(value) };
        }
    }
}
