//! The registers of a stopped thread as its tracer sees and changes them: Linux's user_regs_struct, the FPU's areas, debug registers.
//!
//! Called by `process::ptrace` (taking and loading) and by the system call. Nothing that a tracer writes is trusted: flags are cut to
//! what user mode may set, selectors have to be user mode's, bases user addresses, FPU areas well formed. What is left, a bad return
//! address or selector, faults at IRET, which becomes the thread's own fault (`entry::exception`).
//! Source: Linux arch/x86/include/uapi/asm/ptrace.h and sys/user.h; ptrace(2).

use super::signal::Info;
use crate::arch::fpu;
use crate::arch::irq_flag::IrqOff;
use crate::arch::page_table::USER_END;
use crate::entry::frame::{Frame, RFLAGS_IF, USER_RFLAGS};
use crate::errno::{EINVAL, EIO, Errno};
use crate::sched;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use x86_64::registers::model_specific::Msr;
use x86_64::registers::segmentation::{FS, Segment64};

const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TF: u64 = 0x100;
const NT: u64 = 0x4000;
const ID: u64 = 0x20_0000;
/// RFLAGS that a tracer may set.
const SETTABLE: u64 = USER_RFLAGS & !ID | NT;

/// Words of user_regs_struct.
pub const WORDS: usize = 27;
/// Indices in it of what is no plain register of the frame.
mod at {
    pub const ORIG_RAX: usize = 15;
    pub const RIP: usize = 16;
    pub const CS: usize = 17;
    pub const RFLAGS: usize = 18;
    pub const SS: usize = 20;
    pub const FS_BASE: usize = 21;
    pub const GS_BASE: usize = 22;
}

/// Indices of the bases.
pub use at::{FS_BASE, GS_BASE};

/// Registers of a thread that stands still, and how it goes on.
pub struct Registers {
    frame: Frame,
    fs_base: u64,
    gs_base: u64,
    /// The XSAVE (or FXSAVE) area; empty if there was no memory.
    fpu: Vec<u8>,
    fpu_changed: bool,
    /// Of the stop.
    pub info: Option<Info>,
    /// It goes on with this signal; 0: none.
    pub signal: u32,
    /// It goes on for one instruction.
    pub steps: bool,
}

impl Registers {
    /// Those of the running thread, whose user-mode registers are in `frame`.
    pub fn of_running(frame: &Frame) -> Registers {
        let task = sched::current();
        let mut area = Vec::new();
        let fits = area.try_reserve_exact(fpu::area_size()).is_ok();
        let irq_off = IrqOff::new();
        // SAFETY: interrupts are off: the CPU holds the running task's user state, and nobody else saves it.
        let (fs_base, gs_base) = unsafe {
            if let Some(state) = task.fpu.as_ref().filter(|_| fits) {
                state.save();
                area.extend_from_slice(state.bytes());
            }
            (FS::read_base().as_u64(), Msr::new(KERNEL_GS_BASE).read())
        };
        drop(irq_off);
        let mut frame = frame.clone();
        if task.forced_step.swap(false, Ordering::Relaxed) {
            frame.rflags &= !TF;
        }
        Registers { frame, fs_base, gs_base, fpu: area, fpu_changed: false, info: None, signal: 0, steps: false }
    }

    /// The running thread goes on with these; `frame` is what it returns to user mode by.
    pub fn load(&self, frame: &mut Frame) {
        let task = sched::current();
        *frame = self.frame.clone();
        if self.steps && frame.rflags & TF == 0 {
            frame.rflags |= TF;
            task.forced_step.store(true, Ordering::Relaxed);
        }
        let _irq_off = IrqOff::new();
        // SAFETY: 1. interrupts are off: the CPU holds the running task's user state; 2. the bases are user addresses; 3. the area was checked.
        unsafe {
            FS::write_base(x86_64::VirtAddr::new_truncate(self.fs_base));
            Msr::new(KERNEL_GS_BASE).write(self.gs_base);
            if let Some(state) = task.fpu.as_ref().filter(|_| self.fpu_changed) {
                state.replace(&self.fpu);
                state.restore();
            }
        }
    }

    /// user_regs_struct.
    pub fn words(&self) -> [u64; WORDS] {
        let f = &self.frame;
        [
            f.r15,
            f.r14,
            f.r13,
            f.r12,
            f.rbp,
            f.rbx,
            f.r11,
            f.r10,
            f.r9,
            f.r8,
            f.rax,
            f.rcx,
            f.rdx,
            f.rsi,
            f.rdi,
            f.orig_rax,
            f.rip,
            f.cs,
            f.rflags,
            f.rsp,
            f.ss,
            self.fs_base,
            self.gs_base,
            0, // ds, es, fs, gs: 64-bit programs have none
            0,
            0,
            0,
        ]
    }

    /// Change word `index` of user_regs_struct.
    pub fn set_word(&mut self, index: usize, value: u64) -> Result<(), Errno> {
        let f = &mut self.frame;
        let plain = match index {
            0 => &mut f.r15,
            1 => &mut f.r14,
            2 => &mut f.r13,
            3 => &mut f.r12,
            4 => &mut f.rbp,
            5 => &mut f.rbx,
            6 => &mut f.r11,
            7 => &mut f.r10,
            8 => &mut f.r9,
            9 => &mut f.r8,
            10 => &mut f.rax,
            11 => &mut f.rcx,
            12 => &mut f.rdx,
            13 => &mut f.rsi,
            14 => &mut f.rdi,
            at::ORIG_RAX => &mut f.orig_rax,
            at::RIP => &mut f.rip,
            19 => &mut f.rsp,
            at::CS | at::SS => {
                if !is_user_selector(value) || value == 0 {
                    return Err(EIO);
                }
                if index == at::CS { &mut f.cs } else { &mut f.ss }
            }
            at::RFLAGS => {
                f.rflags = f.rflags & !SETTABLE | value & SETTABLE | RFLAGS_IF;
                return Ok(());
            }
            at::FS_BASE | at::GS_BASE => {
                if value >= USER_END {
                    return Err(EIO);
                }
                if index == at::FS_BASE { &mut self.fs_base } else { &mut self.gs_base }
            }
            // ds, es, fs, gs: what they hold means nothing in 64-bit mode.
            23..WORDS => return if is_user_selector(value) { Ok(()) } else { Err(EIO) },
            _ => return Err(EIO),
        };
        *plain = value;
        Ok(())
    }

    /// The saved area, with XCR0 where debuggers look for it. EIO: there was no memory for it.
    pub fn area(&self) -> Result<Vec<u8>, Errno> {
        if self.fpu.is_empty() {
            return Err(EIO);
        }
        let mut area = self.fpu.clone();
        if fpu::has_xsave() {
            let at = fpu::DESCRIPTION as usize;
            area[at..at + 8].copy_from_slice(&fpu::parts().to_le_bytes());
        }
        Ok(area)
    }

    /// Change the first bytes of the area: the legacy region, or all of it. EINVAL: what hardware would not load.
    pub fn set_area(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let mut area = self.fpu.clone();
        area.get_mut(..bytes.len()).ok_or(EIO)?.copy_from_slice(bytes);
        if bytes.len() <= LEGACY && fpu::has_xsave() {
            // x87 and SSE are not in their initial state any more.
            area[LEGACY] |= 3;
        }
        if !fpu::is_well_formed(&area) {
            return Err(EINVAL);
        }
        self.fpu = area;
        self.fpu_changed = true;
        Ok(())
    }

    /// Instruction and stack pointer.
    pub fn place(&self) -> (u64, u64) {
        (self.frame.rip, self.frame.rsp)
    }

    /// Number and arguments of the system call that begins.
    pub fn call(&self) -> [u64; 7] {
        let f = &self.frame;
        [f.orig_rax, f.rdi, f.rsi, f.rdx, f.r10, f.r8, f.r9]
    }

    /// Result of the one that ended.
    pub fn result(&self) -> i64 {
        self.frame.rax as i64
    }
}

/// Bytes of an FXSAVE area.
pub const LEGACY: usize = 512;

/// Null, or one that asks for ring 3.
fn is_user_selector(value: u64) -> bool {
    let value = value as u16;
    value == 0 || value & 3 == 3
}
