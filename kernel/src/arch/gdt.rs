//! Segments and task-state segment of one CPU. Selector numbers are Linux's, so that debuggers feel at home.
//!
//! There is no 32-bit user code segment: a 32-bit program cannot run, and SYSRET cannot be used to make one.
//! Source: SDM vol. 3A, "Segment Descriptors", "Task Management in 64-bit Mode"; SYSRET's selector arithmetic.

use core::cell::UnsafeCell;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lgdt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::SegmentSelector;

/// Kernel code.
pub const KERNEL_CS: u16 = 0x10;
/// Kernel data.
pub const KERNEL_DS: u16 = 0x18;
/// User data, requested privilege level 3.
pub const USER_DS: u16 = 0x2b;
/// User code (64 bit), requested privilege level 3.
pub const USER_CS: u16 = 0x33;
const TSS: u16 = 0x40;
/// Base for SYSRET: CS = base + 16, SS = base + 8.
pub const SYSRET_BASE: u16 = 0x23;

/// IST slots, numbered from 1 as in the IDT entry.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Ist {
    /// NMI
    Nmi = 1,
    /// Double fault
    DoubleFault = 2,
    /// Debug exception: on IST because of the MOV SS shadow over SYSCALL.
    Debug = 3,
    /// Machine check
    MachineCheck = 4,
}
/// Number of IST stacks a CPU has.
pub const IST_COUNT: usize = 4;

/// Hardware's task-state segment. No I/O bitmap: its base lies beyond the limit.
#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    iomap_base: u16,
}

/// GDT and TSS of one CPU, kept in its per-CPU area, mapped for good.
#[repr(C, align(64))]
pub struct Segments {
    tss: UnsafeCell<TaskState>,
    gdt: UnsafeCell<[u64; 10]>,
}
// SAFETY: 1. written only by its own CPU with interrupts off (`load`, `set_rsp0`); 2. nobody else reads it but hardware.
unsafe impl Sync for Segments {}

impl Segments {
    /// Segments that are not loaded yet.
    pub const fn new() -> Self {
        Self {
            tss: UnsafeCell::new(TaskState {
                reserved0: 0,
                rsp: [0; 3],
                reserved1: 0,
                ist: [0; 7],
                reserved2: 0,
                reserved3: 0,
                iomap_base: size_of::<TaskState>() as u16,
            }),
            gdt: UnsafeCell::new([0; 10]),
        }
    }

    /// Fill and load GDT, TSS and segment registers of the running CPU. GS base is left alone.
    ///
    /// # Safety
    /// 1. `self` is the running CPU's own and never moves; 2. interrupts are off; 3. each of `ist` is the top of a
    ///    mapped stack of this CPU alone.
    pub unsafe fn load(&'static self, ist: [u64; IST_COUNT]) {
        // SAFETY: the caller's conditions 1 and 2 make this the only access.
        let (tss, gdt) = unsafe { (&mut *self.tss.get(), &mut *self.gdt.get()) };
        let mut slots = [0; 7];
        slots[..IST_COUNT].copy_from_slice(&ist);
        tss.ist = slots;
        let base = self.tss.get() as u64;
        let limit = size_of::<TaskState>() as u64 - 1;
        gdt[2] = 0x00af_9b00_0000_ffff; // code, ring 0, long
        gdt[3] = 0x00cf_9300_0000_ffff; // data, ring 0
        gdt[5] = 0x00cf_f300_0000_ffff; // data, ring 3
        gdt[6] = 0x00af_fb00_0000_ffff; // code, ring 3, long
        gdt[8] = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        gdt[9] = base >> 32;
        let pointer = DescriptorTablePointer { limit: (10 * 8 - 1) as u16, base: VirtAddr::new(self.gdt.get() as u64) };
        // SAFETY: 1. the table is filled above and lives for ever; 2. the selectors name descriptors of the right kind.
        unsafe {
            lgdt(&pointer);
            CS::set_reg(SegmentSelector(KERNEL_CS));
            SS::set_reg(SegmentSelector(KERNEL_DS));
            DS::set_reg(SegmentSelector(0));
            ES::set_reg(SegmentSelector(0));
            load_tss(SegmentSelector(TSS));
        }
    }

    /// Tops of the IST stacks.
    pub fn ist(&self) -> [u64; IST_COUNT] {
        // SAFETY: written once, before the CPU is online; others only read.
        let all = unsafe { (&raw const (*self.tss.get()).ist).read_unaligned() };
        core::array::from_fn(|i| all[i])
    }

    /// Where task-state segment and GDT lie.
    pub fn addresses(&self) -> (u64, u64) {
        (self.tss.get() as u64, self.gdt.get() as u64)
    }

    /// The stack on which interrupts and exceptions from user mode arrive.
    ///
    /// # Safety
    /// 1. `self` is the running CPU's own; 2. interrupts are off; 3. `top` is the running task's stack.
    #[inline]
    pub unsafe fn set_rsp0(&self, top: u64) {
        // SAFETY: by the caller's conditions nobody else accesses the field now.
        unsafe { (&raw mut (*self.tss.get()).rsp[0]).write_unaligned(top) }
    }
}
