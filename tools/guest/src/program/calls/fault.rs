//! Instructions that a program may not execute or that go wrong: each ends the process by the signal that Linux sends, nothing more.

use super::{Check, call, equal, in_child};
use crate::linux::Ended;
use std::arch::asm;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("fault_privileged", privileged),
    ("fault_jump", jump),
    ("fault_arithmetic", arithmetic),
    ("fault_address", address),
    ("fault_trap", trap),
    ("fault_flags", flags),
];

/// Runs one instruction in a child, which that ends by `$signal`. Hardware tells a bad stack address from others (SIGBUS), QEMU not.
macro_rules! ends_by {
    ($signal:expr, $($code:literal),+ $(, in($register:tt) $value:expr)*) => {{
        let ended = in_child(|| {
            // SAFETY: (1) a child of the check's own: it faults, or falls off into `exit_now`.
            unsafe { asm!($($code),+ $(, in($register) $value)*, options(nostack)) };
            0
        })?;
        let stack = $signal == libc::SIGSEGV && ended == Ended::Signal(libc::SIGBUS);
        if ended != Ended::Signal($signal) && !stack {
            return Err(format!("{}: {ended:?}", concat!($($code, "; "),+)));
        }
    }};
}

fn privileged() -> Result<(), String> {
    ends_by!(libc::SIGSEGV, "cli");
    ends_by!(libc::SIGSEGV, "sti");
    ends_by!(libc::SIGSEGV, "hlt");
    ends_by!(libc::SIGSEGV, "in al, 0x60");
    ends_by!(libc::SIGSEGV, "out 0xf4, al", in("al") 0x10u8);
    ends_by!(libc::SIGSEGV, "mov cr3, rax", in("rax") 0u64);
    ends_by!(libc::SIGSEGV, "mov rax, cr0");
    ends_by!(libc::SIGSEGV, "mov dr7, rax", in("rax") 0u64);
    ends_by!(libc::SIGSEGV, "clts");
    ends_by!(libc::SIGSEGV, "swapgs");
    ends_by!(libc::SIGSEGV, "invlpg [rax]", in("rax") 0u64);
    ends_by!(libc::SIGSEGV, "lgdt [rsp]");
    ends_by!(libc::SIGSEGV, "lidt [rsp]");
    ends_by!(libc::SIGSEGV, "ltr ax", in("ax") 0x40u16);
    ends_by!(libc::SIGSEGV, "lldt ax", in("ax") 0u16);
    ends_by!(libc::SIGSEGV, "rdmsr", in("ecx") 0xc000_0082u32);
    ends_by!(libc::SIGSEGV, "wrmsr", in("ecx") 0xc000_0082u32, in("eax") 0u32, in("edx") 0u32);
    ends_by!(libc::SIGSEGV, "sysretq");
    ends_by!(libc::SIGSEGV, "int 0x20");
    ends_by!(libc::SIGSEGV, "int 0xef");
    ends_by!(libc::SIGSEGV, "mov ss, ax", in("ax") 0x10u16);
    ends_by!(libc::SIGSEGV, "push 0x10", "push 0", "push 2", "push 8", "push 0", "iretq");
    Ok(())
}

fn jump() -> Result<(), String> {
    for to in [0x8000_0000_0000u64, 0xdead_0000_0000_0000, 0xffff_ffff_8000_0000, 0, 0x7fff_ffff_f000, u64::MAX] {
        ends_by!(libc::SIGSEGV, "jmp rax", in("rax") to);
        ends_by!(libc::SIGSEGV, "push rax", "ret", in("rax") to);
        ends_by!(libc::SIGSEGV, "mov rsp, rax", "push rax", in("rax") to);
        // A system call leaves such a stack pointer alone; what follows faults.
        ends_by!(libc::SIGSEGV, "mov rsp, rcx", "syscall", "push rax", in("rax") libc::SYS_getppid, in("rcx") to);
    }
    Ok(())
}

fn arithmetic() -> Result<(), String> {
    ends_by!(libc::SIGFPE, "div ecx", in("ecx") 0u32, in("eax") 1u32, in("edx") 0u32);
    ends_by!(libc::SIGFPE, "idiv ecx", in("ecx") -1i32, in("eax") i32::MIN, in("edx") -1i32);
    // An unmasked x87 error.
    ends_by!(libc::SIGFPE, "push 0", "fldcw [rsp]", "fldz", "fld1", "fdivrp", "fwait");
    Ok(())
}

fn address() -> Result<(), String> {
    for at in [0u64, 8, 0x8000_0000_0000, 0xffff_8000_0000_0000, 0xffff_ffff_8000_0000, u64::MAX - 7, 0x7fff_ffff_f000]
    {
        ends_by!(libc::SIGSEGV, "mov rcx, [rax]", in("rax") at);
        ends_by!(libc::SIGSEGV, "mov [rax], rcx", in("rax") at);
        ends_by!(libc::SIGSEGV, "lock inc qword ptr [rax]", in("rax") at);
    }
    Ok(())
}

fn trap() -> Result<(), String> {
    ends_by!(libc::SIGTRAP, "int3");
    ends_by!(libc::SIGILL, "ud2");
    ends_by!(libc::SIGILL, ".byte 0x0f, 0xff, 0xc0");
    // Single steps, one of which is a system call.
    ends_by!(libc::SIGTRAP, "pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop", "nop");
    ends_by!(libc::SIGTRAP, "pushfq", "or dword ptr [rsp], 0x100", "popfq", "syscall", "nop", in("rax") libc::SYS_getppid);
    Ok(())
}

/// Flags that a program may set reach no kernel code; those that it may not set stay clear.
fn flags() -> Result<(), String> {
    let ended = in_child(|| {
        let after: u64;
        // SAFETY: (1) AC, DF and NT are put back before compiled code runs on; IOPL and VM are not taken.
        unsafe {
            asm!("pushfq", "mov rcx, [rsp]", "or dword ptr [rsp], 0x67400", "popfq", "mov eax, 39", "push rcx",
                "syscall", "pushfq", "pop rdx", "popfq", out("rax") _, out("rcx") _, out("rdx") after, out("r11") _);
        }
        // The program's own DF, NT and AC are there again after the call, IOPL (0x3000) and VM (0x20000) are not.
        if after & 0x64400 == 0x44400 && after & 0x23000 == 0 { 9 } else { 1 }
    })?;
    equal!(ended, Ended::Exit(9));
    equal!(call(libc::SYS_getppid, [0; 6]).is_ok(), true);
    Ok(())
}
