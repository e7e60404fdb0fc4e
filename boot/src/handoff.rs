//! The last instructions: the machine state that the Limine protocol prescribes ("x86-64 machine state at entry"),
//! then the jump into the kernel.

use crate::apic::{read_msr, write_msr};
use crate::entry::DIRECT_MAP;
use crate::fail;
use core::arch::{asm, x86_64::__cpuid};

const EFER: u32 = 0xc000_0080;
const EFER_NO_EXECUTE: u64 = 1 << 11;
const PAT: u32 = 0x277;
/// WB, WT, UC-, UC, WP, WC, and two slots that the protocol leaves open.
pub const PAT_VALUE: u64 = 0x0000_0105_0007_0406;

/// What CPUID offers of the things that matter here.
pub struct Features {
    /// 1 GiB pages.
    pub has_huge_pages: bool,
    /// x2APIC mode.
    pub has_x2apic: bool,
}

/// Looks at CPUID, and switches on what the rest relies on: no-execute pages and the PAT.
pub fn prepare_cpu() -> Features {
    let basic = __cpuid(1);
    let extended = __cpuid(0x8000_0001);
    if extended.edx & 1 << 20 == 0 || basic.edx & 1 << 16 == 0 {
        fail!("this CPU lacks no-execute pages or the page attribute table, both are needed");
    }
    // SAFETY: CPUID has just said that both are there; nothing is mapped with the changed PAT slots.
    unsafe {
        write_msr(EFER, read_msr(EFER) | EFER_NO_EXECUTE);
        write_msr(PAT, PAT_VALUE);
    }
    Features { has_huge_pages: extended.edx & 1 << 26 != 0, has_x2apic: basic.ecx & 1 << 21 != 0 }
}

/// Stops this CPU until an interrupt; with interrupts off, for good.
pub fn halt() {
    // SAFETY: HLT touches nothing; interrupts stay off.
    unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
}

/// Enters the kernel at `entry` with page tables `root` and the stack below `stack_end` (a direct-map address, 16-byte
/// aligned): a zero return address on the stack, RFLAGS 2, every other register zero.
///
/// # Safety
/// `root` must map the direct map as the boot tables do for the loader's image and the stack, and `entry` as the
/// kernel's code.
pub unsafe fn enter_kernel(root: u64, stack_end: u64, entry: u64) -> ! {
    // SAFETY: 1. The boot tables map the direct map's first 4 GiB, so execution, GDT and stack move there before the
    // tables change. 2. The caller vouches for the kernel's tables. 3. Nothing of the loader runs afterwards on
    // this CPU.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]",
            "add rax, rcx",
            "jmp rax",
            "2:",
            "lea rax, [rip + boot_gdt]",
            "lea rbx, [rip + boot_gdt_pointer]",
            "mov [rbx + 2], rax",
            "lgdt [rbx]",
            "mov rsp, rsi",
            "mov cr3, rdi",
            "push 0",
            "push rdx",
            "push 2",
            "popfq",
            "xor eax, eax",
            "xor ebx, ebx",
            "xor ecx, ecx",
            "xor edx, edx",
            "xor esi, esi",
            "xor edi, edi",
            "xor ebp, ebp",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "xor r10d, r10d",
            "xor r11d, r11d",
            "xor r12d, r12d",
            "xor r13d, r13d",
            "xor r14d, r14d",
            "xor r15d, r15d",
            "ret",
            in("rdi") root,
            in("rsi") stack_end,
            in("rdx") entry,
            in("rcx") DIRECT_MAP,
            options(noreturn),
        )
    }
}
