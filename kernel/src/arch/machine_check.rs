//! The machine-check registers of the running CPU: set up, read, cleared; and what was read last, by any CPU.
//!
//! `init_cpu` at boot, `read` and `clear` in the #MC handler (`entry::machine_check`). No lock; what it means is `kcore::machine_check`'s.
//! Source: SDM vol. 3B, "Machine-Check MSRs"; vol. 4 for the numbers.

use super::cpu_features::Features;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use kcore::machine_check::{Bank, MOST_BANKS, cap, is_concerned, status};
use x86_64::registers::model_specific::Msr;

const IA32_MCG_CAP: u32 = 0x179;
const IA32_MCG_STATUS: u32 = 0x17a;
const IA32_MCG_CTL: u32 = 0x17b;
/// CTL of bank 0, then STATUS, ADDR and MISC, then bank 1's.
const IA32_MC0_CTL: u32 = 0x400;

/// What the registers hold in a machine check.
pub struct Report {
    /// IA32_MCG_STATUS.
    pub mcg_status: u64,
    /// IA32_MCG_CAP.
    pub cap: u64,
    /// The banks that are valid.
    pub banks: ArrayVec<Bank, MOST_BANKS>,
}

impl Report {
    /// Nothing is read yet.
    pub const fn new() -> Self {
        Self { mcg_status: 0, cap: 0, banks: ArrayVec::new_const() }
    }
}

/// Machine checks since boot, those apart that ended the kernel.
static SEEN: AtomicU64 = AtomicU64::new(0);
/// The last bank that told something: CPU in the upper half, number; status, address, misc.
static LAST: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// The CPUs have #MC and the registers that say why: written by each at boot, before #MC is on.
static HAS_BANKS: AtomicBool = AtomicBool::new(false);

/// Reads one of the registers above.
///
/// # Safety
/// CPUID says that it is there.
unsafe fn read_register(register: u32) -> u64 {
    // SAFETY: the caller's condition; these have no side effect when they are read.
    unsafe { Msr::new(register).read() }
}

fn banks(cap: u64) -> u32 {
    ((cap & cap::BANKS) as u32).min(MOST_BANKS as u32)
}

/// Have every bank report every error, and forget what they hold from before the boot. Before CR4.MCE, which without this would be a
/// machine check that tells nothing. Interrupts are off. `features`: the CPUs'.
pub fn init_cpu(features: &Features) {
    if !(features.mce && features.mca) {
        return;
    }
    HAS_BANKS.store(true, Ordering::Relaxed);
    // SAFETY: 1. CPUID has MCA, so the global registers are there, MCG_CTL where MCG_CAP says it, and so many banks; 2. all ones and 0 are
    // what the manual has software write.
    unsafe {
        let cap = read_register(IA32_MCG_CAP);
        if cap & cap::CTL != 0 {
            Msr::new(IA32_MCG_CTL).write(u64::MAX);
        }
        for bank in 0..banks(cap) {
            Msr::new(IA32_MC0_CTL + 4 * bank).write(u64::MAX);
            Msr::new(IA32_MC0_CTL + 4 * bank + 1).write(0);
        }
        Msr::new(IA32_MCG_STATUS).write(0);
    }
}

/// What the registers hold, into `report`: in its place, for a copy of so many bytes is a call of memcpy, which has no business before user_exit.
/// In #MC, interrupts off.
pub fn read(report: &mut Report) {
    if !HAS_BANKS.load(Ordering::Relaxed) {
        // Nothing tells that the program may go on: MCG_STATUS is 0.
        return;
    }
    // SAFETY: as in `init_cpu`; ADDR and MISC are there where the bank's status says so.
    unsafe {
        report.mcg_status = read_register(IA32_MCG_STATUS);
        report.cap = read_register(IA32_MCG_CAP);
        for number in 0..banks(report.cap) {
            let first = IA32_MC0_CTL + 4 * number;
            let status = read_register(first + 1);
            if status & status::VALID == 0 {
                continue;
            }
            let word = |valid, register| if status & valid != 0 { read_register(register) } else { 0 };
            let (address, misc) = (word(status::ADDRESS_VALID, first + 2), word(status::MISC_VALID, first + 3));
            report.banks.push(Bank { number, status, address, misc });
        }
    }
}

/// It has been dealt with: the banks may report anew, but for those in which another CPU finds what it has to do, and the next machine check does not shut the CPU down. `cpu`: the running one.
pub fn clear(report: &Report, cpu: u32) {
    SEEN.fetch_add(1, Ordering::Relaxed);
    for bank in &report.banks {
        let words = [u64::from(cpu) << 32 | u64::from(bank.number), bank.status, bank.address, bank.misc];
        LAST.iter().zip(words).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
        // It may be shared with the CPU that is concerned, which has to read it.
        if !is_concerned(report.mcg_status) && bank.needs_action() {
            continue;
        }
        // SAFETY: the bank is there, it has been read; 0 clears it.
        unsafe { Msr::new(IA32_MC0_CTL + 4 * bank.number + 1).write(0) };
    }
    if HAS_BANKS.load(Ordering::Relaxed) {
        // SAFETY: the register is there with MCA; 0 says that the machine check is over.
        unsafe { Msr::new(IA32_MCG_STATUS).write(0) };
    }
}

/// Machine checks that were survived; CPU of the last bank that told something, and what. Any context; may mix two that come at once.
pub fn seen() -> (u64, u32, Bank) {
    let [at, status, address, misc] = core::array::from_fn(|i| LAST[i].load(Ordering::Relaxed));
    (SEEN.load(Ordering::Relaxed), (at >> 32) as u32, Bank { number: at as u32, status, address, misc })
}
