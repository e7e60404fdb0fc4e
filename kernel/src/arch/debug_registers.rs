//! The debug registers of each CPU: breakpoints of the task that runs, and the kernel's own.
//!
//! Of the four registers the kernel's watchpoints take from the highest down (`kernel_set`; policy and refusals are
//! `isolation::watchpoint`'s), a traced program's are where its debugger put them (`UserBreakpoints`). Both are merged by `load`, which the
//! switch calls for traced tasks only, and every CPU once when the kernel's change. A test build that wants #DB at kernel addresses:
//! `kernel_set`, then `load(None)` on the CPU in question; #DB arrives in `entry::debug`.
//! Source: SDM vol. 3B, "Debug Registers".

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::debug_register::{Breakpoint, COUNT, HIT, OFF, enabled};

/// One task's breakpoints. Written while the task does not run, or by itself with interrupts off.
pub struct UserBreakpoints {
    address: [AtomicU64; COUNT],
    control: AtomicU64,
    status: AtomicU64,
}

impl UserBreakpoints {
    /// None.
    pub const fn new() -> Self {
        Self { address: [const { AtomicU64::new(0) }; COUNT], control: AtomicU64::new(0), status: AtomicU64::new(0) }
    }

    /// DR0 to DR3.
    pub fn addresses(&self) -> [u64; COUNT] {
        core::array::from_fn(|i| self.address[i].load(Ordering::Relaxed))
    }

    /// DR7.
    pub fn control(&self) -> u64 {
        self.control.load(Ordering::Relaxed)
    }

    /// Set them; the caller has checked them (`kcore::debug_register::check`).
    pub fn set(&self, addresses: &[u64; COUNT], control: u64) {
        self.address.iter().zip(addresses).for_each(|(to, &value)| to.store(value, Ordering::Relaxed));
        self.control.store(control, Ordering::Relaxed);
    }

    /// DR6 as the program's debugger sees it: what was hit last.
    pub fn status(&self) -> u64 {
        self.status.load(Ordering::Relaxed)
    }

    /// Set it.
    pub fn set_status(&self, status: u64) {
        self.status.store(status, Ordering::Relaxed);
    }
}

static KERNEL_ADDRESS: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];
static KERNEL_CONTROL: AtomicU64 = AtomicU64::new(0);

/// The kernel's DR7.
pub fn kernel_control() -> u64 {
    KERNEL_CONTROL.load(Ordering::Relaxed)
}

/// The kernel's breakpoint in register `index`: its address.
pub fn kernel_address(index: usize) -> u64 {
    KERNEL_ADDRESS[index].load(Ordering::Relaxed)
}

/// Put the kernel's breakpoint into register `index`, or take it out. CPUs have it after their next `load`. Callers exclude each other.
pub fn kernel_set(index: usize, breakpoint: Option<(u64, Breakpoint)>) {
    let others = kernel_control() & !(0xf << (16 + 4 * index) | 3 << (2 * index));
    match breakpoint {
        Some((address, b)) => {
            KERNEL_ADDRESS[index].store(address, Ordering::Relaxed);
            KERNEL_CONTROL.store(others | b.control(index, true), Ordering::Release);
        }
        None => KERNEL_CONTROL.store(others, Ordering::Release),
    }
}

/// Which of the hits in `dr6` are the kernel's own, a bit each.
pub fn kernel_hits(dr6: u64) -> u64 {
    dr6 & HIT & enabled(kernel_control())
}

macro_rules! write_register {
    ($name:literal, $value:expr) => {
        // SAFETY: a breakpoint's address; DR7 is off meanwhile.
        unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) $value, options(nomem, nostack, preserves_flags)) }
    };
}

/// Load what the kernel watches and, for a traced task, what `user` has. The running CPU, interrupts off. A register that
/// both want is the kernel's.
pub fn load(user: Option<&UserBreakpoints>) {
    let kernel = KERNEL_CONTROL.load(Ordering::Acquire);
    let taken = enabled(kernel);
    let (addresses, control) = user.map_or(([0; COUNT], 0), |u| (u.addresses(), u.control()));
    let mut merged = kernel;
    for index in (0..COUNT).filter(|i| taken >> i & 1 == 0) {
        merged |= control & (0xf << (16 + 4 * index) | 3 << (2 * index));
    }
    let address = |index: usize| if taken >> index & 1 != 0 { kernel_address(index) } else { addresses[index] };
    write_register!("dr7", OFF);
    if enabled(merged) == 0 {
        return;
    }
    write_register!("dr0", address(0));
    write_register!("dr1", address(1));
    write_register!("dr2", address(2));
    write_register!("dr3", address(3));
    write_register!("dr7", merged | OFF);
}
