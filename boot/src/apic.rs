//! The local APIC of the CPU that runs this, as far as starting others needs it, and masking of the PICs and IO
//! APICs. Source: Intel SDM 3A "Advanced Programmable Interrupt Controller (APIC)".

use crate::physical_memory::firmware_bytes;
use crate::port::write_u8;
use core::arch::asm;

const APIC_BASE: u32 = 0x1b;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ENABLED: u64 = 1 << 11;
const X2APIC_ID: u32 = 0x802;
const X2APIC_COMMAND: u32 = 0x830;
const ID: u64 = 0x20;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const DELIVERY_PENDING: u32 = 1 << 12;

/// Interrupt command: INIT, asserted.
pub const INIT: u32 = 0x4500;
/// Interrupt command: start-up; the low byte is the page to start at.
pub const STARTUP: u32 = 0x4600;

/// Reads a model-specific register.
///
/// # Safety
/// The CPU must have the register.
pub unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller vouches for the register; reading the ones used here has no side effects.
    unsafe { asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The CPU must have the register, and the value must keep what Rust code relies on (mode, mapping, stack).
pub unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller vouches for register and value.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    }
}

/// The boot CPU's local APIC, in the mode it is in.
pub struct LocalApic {
    base: u64,
    /// True if the APIC is in x2APIC mode.
    pub is_x2apic: bool,
}

impl LocalApic {
    /// Takes the APIC as firmware left it, and switches it to x2APIC mode if `want_x2apic`; the caller has seen
    /// in CPUID that the CPU can.
    pub fn open(want_x2apic: bool) -> Self {
        // SAFETY: 1. Every CPU with long mode has IA32_APIC_BASE. 2. Setting bit 10 in enabled mode is a legal
        // transition ("x2APIC State Transitions") on a CPU whose CPUID offers x2APIC.
        unsafe {
            let mut value = read_msr(APIC_BASE);
            if value & APIC_BASE_ENABLED == 0 {
                value |= APIC_BASE_ENABLED;
                write_msr(APIC_BASE, value);
            }
            if want_x2apic && value & APIC_BASE_X2APIC == 0 {
                value |= APIC_BASE_X2APIC;
                write_msr(APIC_BASE, value);
            }
            Self { base: value & 0x000f_ffff_ffff_f000, is_x2apic: value & APIC_BASE_X2APIC != 0 }
        }
    }

    /// This CPU's APIC id.
    pub fn id(&self) -> u32 {
        if self.is_x2apic {
            // SAFETY: in x2APIC mode the register is there.
            return unsafe { read_msr(X2APIC_ID) } as u32;
        }
        self.read(ID) >> 24
    }

    /// Sends `command` to the CPU with APIC id `target`.
    pub fn send(&self, target: u32, command: u32) {
        if self.is_x2apic {
            // SAFETY: 1. In x2APIC mode the register is there. 2. The command starts or resets another CPU, which
            // does not run Rust code yet.
            unsafe { write_msr(X2APIC_COMMAND, u64::from(target) << 32 | u64::from(command)) };
            return;
        }
        self.write(COMMAND_HIGH, target << 24);
        self.write(COMMAND_LOW, command);
        while self.read(COMMAND_LOW) & DELIVERY_PENDING != 0 {
            core::hint::spin_loop();
        }
    }

    fn read(&self, register: u64) -> u32 {
        // SAFETY: the APIC's page lies below 4 GiB, is mapped by the boot tables and holds no Rust object.
        unsafe { ((self.base + register) as *const u32).read_volatile() }
    }

    fn write(&self, register: u64, value: u32) {
        // SAFETY: as for `read`; the two command registers affect other CPUs only.
        unsafe { ((self.base + register) as *mut u32).write_volatile(value) }
    }
}

/// Masks every line of both legacy PICs.
pub fn mask_pics() {
    write_u8(0x21, 0xff);
    write_u8(0xa1, 0xff);
}

/// Masks the redirection entries of the IO APIC at `base` that deliver fixed or lowest-priority interrupts.
/// Source: Intel 82093AA data sheet, "IOREDTBL".
pub fn mask_io_apic(base: u64) {
    const VERSION: u32 = 1;
    const REDIRECTION: u32 = 0x10;
    const MASKED: u32 = 1 << 16;
    if firmware_bytes(base, 0x20).is_none() {
        return;
    }
    let (select, window) = (base as *mut u32, (base + 0x10) as *mut u32);
    // SAFETY: 1. `base` is the MADT's address of an IO APIC, mapped (checked above) and no Rust object. 2. Index
    // and window are accessed in pairs by this CPU alone.
    unsafe {
        select.write_volatile(VERSION);
        let entries = (window.read_volatile() >> 16 & 0xff) + 1;
        for entry in 0..entries {
            select.write_volatile(REDIRECTION + 2 * entry);
            let low = window.read_volatile();
            if low >> 8 & 7 <= 1 {
                window.write_volatile(low | MASKED);
            }
        }
    }
}
