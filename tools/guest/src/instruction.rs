//! Single instructions that measuring programs need: the time stamp counter, a counted loop, a bare system call, the counting plugin's marks.
//!
//! Safe to call by anyone: none touches memory that Rust knows of, except the bare calls, which are unsafe. All are inlined, so that a
//! loop around them holds what it shows. Manual: Intel SDM vol. 2, RDTSC, SYSCALL, NOP.

use core::arch::asm;

/// The time stamp counter.
#[inline(always)]
pub fn rdtsc() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: (1) RDTSC is allowed in user mode (CR4.TSD is clear on Linux and Quiesce), (2) it writes EAX and EDX only.
    unsafe { asm!("rdtsc", out("rax") low, out("rdx") high, options(nostack, preserves_flags)) };
    high << 32 | low
}

/// Executes exactly `2 * turns` instructions; `turns` must not be 0, or it takes 2^64 turns.
#[inline(always)]
pub fn count_down(turns: u64) {
    // SAFETY: (1) the loop changes its own register and the flags only.
    unsafe { asm!("2: dec {0}", "jnz 2b", inout(reg) turns => _, options(nostack)) };
}

/// A system call without arguments, the instruction alone.
///
/// # Safety
/// The call `number` must not change memory or state that Rust relies on.
#[inline(always)]
pub unsafe fn call0(number: i64) -> i64 {
    let value;
    // SAFETY: (1) the caller vouches for the call; (2) SYSCALL changes RAX, RCX and R11 only.
    unsafe { asm!("syscall", inlateout("rax") number => value, out("rcx") _, out("r11") _, options(nostack)) };
    value
}

/// A system call with six arguments, the instruction alone. Returns the value or minus the error number.
///
/// # Safety
/// Addresses among the arguments must be valid for what the call does with them, and the call must not change other memory that Rust
/// relies on.
#[inline(always)]
pub unsafe fn call6(number: i64, arguments: [i64; 6]) -> i64 {
    let value;
    // SAFETY: (1) the caller vouches for the call and its addresses; (2) SYSCALL changes RAX, RCX, R11 and memory only.
    unsafe {
        asm!("syscall", inlateout("rax") number => value, in("rdi") arguments[0], in("rsi") arguments[1], in("rdx") arguments[2],
            in("r10") arguments[3], in("r8") arguments[4], in("r9") arguments[5], out("rcx") _, out("r11") _, options(nostack))
    };
    value
}

/// One asm block: a reading of the counter, the given instructions, a second reading; gives the difference. The lines between may use
/// RAX, RDX, RCX, R11 and the given operands; what stands between two blocks never gets between the readings.
macro_rules! timed {
    ([$($line:literal),*] $(, $($operand:tt)*)?) => {{
        let ticks: u64;
        asm!(
            "rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "mov r8, rax",
            $($line,)*
            "rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "sub rax, r8",
            out("rax") ticks,
            out("rdx") _,
            out("rcx") _,
            out("r8") _,
            out("r11") _,
            $($($operand)*,)?
            options(nostack)
        );
        ticks
    }};
}

/// Ticks between two readings with nothing between them: what all the others have too much.
#[inline(always)]
pub fn timed_nothing() -> u64 {
    // SAFETY: (1) reads the counter only.
    unsafe { timed!([]) }
}

/// Ticks of a system call with up to two arguments: two instructions, the load of the number and SYSCALL, and what the kernel does.
///
/// # Safety
/// As for [`call6`].
#[inline(always)]
pub unsafe fn timed_call(number: i64, first: i64, second: i64) -> u64 {
    // SAFETY: (1) the caller vouches for the call; (2) SYSCALL changes RAX, RCX and R11 only.
    unsafe { timed!(["mov rax, r9", "syscall"], in("r9") number, in("rdi") first, in("rsi") second) }
}

/// Ticks of a write of one byte.
///
/// # Safety
/// `address` must be writable, and nobody may hold a reference to it.
#[inline(always)]
pub unsafe fn timed_write(address: *mut u8) -> u64 {
    // SAFETY: (1) the caller vouches for the address.
    unsafe { timed!(["mov byte ptr [r9], 1"], in("r9") address) }
}

/// Ticks of a read of one byte.
///
/// # Safety
/// `address` must be readable.
#[inline(always)]
pub unsafe fn timed_read(address: *const u8) -> u64 {
    // SAFETY: (1) the caller vouches for the address.
    unsafe { timed!(["mov al, byte ptr [r9]"], in("r9") address) }
}

/// Ends QEMU with the status of a clean power-off (33) through its debug-exit port, if the kernel lets a program use ports (Linux's
/// iopl, for root); returns if it does not.
pub fn leave_by_port() {
    const PORT: u16 = 0xf4;
    const CLEAN: u8 = 0x10;
    // SAFETY: (1) takes a descriptor only; what was printed has left the UART when it returns.
    unsafe { libc::tcdrain(1) };
    // SAFETY: (1) iopl changes the right to use ports and nothing else.
    if unsafe { call6(libc::SYS_iopl, [3, 0, 0, 0, 0, 0]) } == 0 {
        // SAFETY: (1) ports are allowed now; (2) nothing but QEMU's isa-debug-exit listens at this one.
        unsafe { asm!("out dx, al", in("dx") PORT, in("al") CLEAN, options(nomem, nostack, preserves_flags)) };
    }
}

/// Region numbers of the plugin's marks; the same as in the C measuring program that the Linux figures come from.
pub mod region {
    /// From the loader to the first instruction of a program; only its end is marked here.
    pub const BOOT: u32 = 1;
    /// getppid.
    pub const GETPPID: u32 = 2;
    /// An invalid system call number.
    pub const BAD_CALL: u32 = 3;
    /// First write to new pages.
    pub const FAULT: u32 = 4;
    /// Undisturbed spinning.
    pub const NOISE: u32 = 5;
    /// sched_yield, alone.
    pub const YIELD: u32 = 6;
    /// A signal to oneself.
    pub const SIGNAL: u32 = 7;
    /// fork, exit, wait.
    pub const FORK: u32 = 8;
    /// Pipe ping-pong on one CPU.
    pub const PIPE: u32 = 9;
    /// Pipe ping-pong between CPUs.
    pub const PIPE_CROSS: u32 = 10;
    /// Futex ping-pong on one CPU.
    pub const FUTEX: u32 = 11;
    /// Futex ping-pong between CPUs.
    pub const FUTEX_CROSS: u32 = 12;
    /// mmap and munmap of an untouched page.
    pub const MMAP: u32 = 13;
    /// Sleeping.
    pub const SLEEP: u32 = 14;
    /// First read of new pages.
    pub const FAULT_READ: u32 = 15;
    /// An interrupt from another CPU that hits user mode.
    pub const IPI: u32 = 16;
    /// Another CPU's munmap, which interrupts this one in user mode.
    pub const UNMAP: u32 = 17;
}

/// Tells the counting plugin that region `ID` begins: a 7-byte NOP (0f 1f 80 imm32) with the displacement 0x51420000 | ID.
#[inline(always)]
pub fn mark_begin<const ID: u32>() {
    // SAFETY: (1) the bytes are a NOP with a memory operand, which is not accessed. Without nomem: memory operations stay on their side.
    unsafe { asm!(".byte 0x0f, 0x1f, 0x80", ".long {0}", const 0x5142_0000 | ID, options(nostack, preserves_flags)) };
}

/// Tells the counting plugin that region `ID` ends (displacement 0x51420000 | 0x8000 | ID).
#[inline(always)]
pub fn mark_end<const ID: u32>() {
    // SAFETY: (1) as in mark_begin.
    unsafe { asm!(".byte 0x0f, 0x1f, 0x80", ".long {0}", const 0x5142_8000 | ID, options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_goes_on() {
        let first = rdtsc();
        count_down(1000);
        assert!(rdtsc() > first);
    }

    #[test]
    fn bare_calls_give_what_the_library_gives() {
        // SAFETY: (1) getpid changes nothing, (2) 10000 is no call.
        let (pid, bad) = unsafe { (call0(libc::SYS_getpid), call0(10000)) };
        assert_eq!(pid, i64::from(crate::linux::own_pid()));
        assert_eq!(bad, -i64::from(libc::ENOSYS));
    }

    #[test]
    fn marks_do_nothing() {
        mark_begin::<{ region::NOISE }>();
        mark_end::<{ region::NOISE }>();
    }
}
