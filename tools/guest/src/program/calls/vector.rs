//! Registers of the FPU and of SIMD: each task has its own, over switches, signals, fork and a new program, in every width that the CPU has.
//!
//! All that is between the loads and the stores of a check is one piece of assembly, so that nothing else touches the registers.

use super::{Check, call, ensure, equal, in_child, own_path};
use crate::entry::{Failure, Outcome};
use crate::linux::{self, Ended, Fork};
use crate::output::write_out;
use core::arch::asm;
use std::sync::atomic::Ordering;

pub const CHECKS: &[(&str, Check)] = &[
    ("vector_switches", switches),
    ("vector_signal", over_signal),
    ("vector_fork", over_fork),
    ("vector_exec", new_program),
];

/// First argument of the program when it is to look at the registers that it starts with.
pub const START_CHECK: &str = "--vector-check";
/// Rounds of registers loaded, CPU given away and registers compared that each of two tasks makes.
const ROUNDS: u64 = 40;
/// How often a round gives the CPU away.
const YIELDS: u64 = 5;

/// Registers in memory: 32 of 64 bytes, eight of x87, MXCSR, eight masks.
#[repr(C, align(64))]
#[derive(Clone, PartialEq)]
struct Registers {
    vectors: [[u8; 64]; 32],
    x87: [f64; 8],
    mxcsr: u32,
    masks: [u16; 8],
}

/// How wide the registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Xmm,
    Ymm,
    Zmm,
}

fn width() -> Width {
    if std::arch::is_x86_feature_detected!("avx512f") {
        Width::Zmm
    } else if std::arch::is_x86_feature_detected!("avx") {
        Width::Ymm
    } else {
        Width::Xmm
    }
}

impl Registers {
    /// A pattern that differs in every byte from that of another `seed`. The rounding bits of MXCSR too.
    fn pattern(width: Width, seed: u8) -> Self {
        let (count, bytes) = match width {
            Width::Xmm => (16, 16),
            Width::Ymm => (16, 32),
            Width::Zmm => (32, 64),
        };
        let mut registers = Self::zero();
        for (number, vector) in registers.vectors[..count].iter_mut().enumerate() {
            for (at, byte) in vector[..bytes].iter_mut().enumerate() {
                *byte = seed ^ (number as u8).rotate_left(3) ^ (at as u8);
            }
        }
        for (number, value) in registers.x87.iter_mut().enumerate() {
            *value = f64::from(seed) * 16.0 + number as f64;
        }
        registers.mxcsr = 0x1f80 | u32::from(seed & 3) << 13;
        if width == Width::Zmm {
            registers.masks = std::array::from_fn(|number| (u16::from(seed) << 8 | u16::from(seed)) ^ number as u16);
        }
        registers
    }

    fn zero() -> Self {
        Registers { vectors: [[0; 64]; 32], x87: [0.0; 8], mxcsr: 0, masks: [0; 8] }
    }

    /// Where the two differ.
    fn difference(&self, other: &Self) -> Option<String> {
        if let Some(number) = (0..32).find(|&i| self.vectors[i] != other.vectors[i]) {
            return Some(format!(
                "vector register {number} is {:x?}, not {:x?}",
                self.vectors[number], other.vectors[number]
            ));
        }
        if self.x87 != other.x87 {
            return Some(format!("x87 registers are {:?}, not {:?}", self.x87, other.x87));
        }
        if self.masks != other.masks {
            return Some(format!("masks are {:x?}, not {:x?}", self.masks, other.masks));
        }
        (self.mxcsr != other.mxcsr).then(|| format!("MXCSR is {:#x}, not {:#x}", self.mxcsr, other.mxcsr))
    }
}

/// One line for each of the registers 0 to 15.
macro_rules! each_of_16 {
    ($m:ident) => {
        concat!(
            $m!(0),
            $m!(1),
            $m!(2),
            $m!(3),
            $m!(4),
            $m!(5),
            $m!(6),
            $m!(7),
            $m!(8),
            $m!(9),
            $m!(10),
            $m!(11),
            $m!(12),
            $m!(13),
            $m!(14),
            $m!(15)
        )
    };
}
macro_rules! each_of_32 {
    ($m:ident) => {
        concat!(
            each_of_16!($m),
            $m!(16),
            $m!(17),
            $m!(18),
            $m!(19),
            $m!(20),
            $m!(21),
            $m!(22),
            $m!(23),
            $m!(24),
            $m!(25),
            $m!(26),
            $m!(27),
            $m!(28),
            $m!(29),
            $m!(30),
            $m!(31)
        )
    };
}
macro_rules! load_xmm {
    ($n:literal) => {
        concat!("movdqu xmm", $n, ", [r13 + 64 * ", $n, "]\n")
    };
}
macro_rules! store_xmm {
    ($n:literal) => {
        concat!("movdqu [r14 + 64 * ", $n, "], xmm", $n, "\n")
    };
}
macro_rules! load_ymm {
    ($n:literal) => {
        concat!("vmovdqu ymm", $n, ", [r13 + 64 * ", $n, "]\n")
    };
}
macro_rules! store_ymm {
    ($n:literal) => {
        concat!("vmovdqu [r14 + 64 * ", $n, "], ymm", $n, "\n")
    };
}
macro_rules! load_zmm {
    ($n:literal) => {
        concat!("vmovdqu64 zmm", $n, ", [r13 + 64 * ", $n, "]\n")
    };
}
macro_rules! store_zmm {
    ($n:literal) => {
        concat!("vmovdqu64 [r14 + 64 * ", $n, "], zmm", $n, "\n")
    };
}
macro_rules! each_of_8 {
    ($m:ident) => {
        concat!($m!(0), $m!(1), $m!(2), $m!(3), $m!(4), $m!(5), $m!(6), $m!(7))
    };
}
macro_rules! load_mask {
    ($n:literal) => {
        concat!("kmovw k", $n, ", [r13 + 2116 + 2 * ", $n, "]\n")
    };
}
macro_rules! store_mask {
    ($n:literal) => {
        concat!("kmovw [r14 + 2116 + 2 * ", $n, "], k", $n, "\n")
    };
}
/// Pushes the eight values, the last first, so that the first is on top.
macro_rules! load_x87 {
    () => { "fninit\nfld qword ptr [r13 + 2104]\nfld qword ptr [r13 + 2096]\nfld qword ptr [r13 + 2088]\nfld qword ptr [r13 + 2080]\nfld qword ptr [r13 + 2072]\nfld qword ptr [r13 + 2064]\nfld qword ptr [r13 + 2056]\nfld qword ptr [r13 + 2048]\nldmxcsr [r13 + 2112]\n" };
}
macro_rules! store_x87 {
    () => { "stmxcsr [r14 + 2112]\nfstp qword ptr [r14 + 2048]\nfstp qword ptr [r14 + 2056]\nfstp qword ptr [r14 + 2064]\nfstp qword ptr [r14 + 2072]\nfstp qword ptr [r14 + 2080]\nfstp qword ptr [r14 + 2088]\nfstp qword ptr [r14 + 2096]\nfstp qword ptr [r14 + 2104]\nfninit\n" };
}
const _: () = assert!(core::mem::offset_of!(Registers, x87) == 2048 && core::mem::offset_of!(Registers, mxcsr) == 2112);
const _: () = assert!(core::mem::offset_of!(Registers, masks) == 2116);

/// Loads the registers, makes the system call `number` with two arguments `times` times, stores the registers; gives what the last call
/// returned.
macro_rules! held_by {
    ($name:ident, $load:expr, $store:expr) => {
        fn $name(given: &Registers, found: &mut Registers, number: u64, args: [u64; 3], times: u64) -> u64 {
            let last: u64;
            let mxcsr: u32 = 0x1f80;
            // SAFETY: (1) loads and stores stay within the two structures; (2) the vector registers are named as changed, and x87 is
            // left empty; (3) callers choose calls that keep the program's memory as it is.
            unsafe {
                asm!(
                    load_x87!(),
                    $load,
                    "2: mov rax, r15",
                    "syscall",
                    "dec r12",
                    "jnz 2b",
                    $store,
                    store_x87!(),
                    "ldmxcsr [{mxcsr}]",
                    mxcsr = in(reg) &mxcsr,
                    inout("r12") times => _, in("r13") given, in("r14") found, in("r15") number,
                    in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
                    out("rax") last, out("rcx") _, out("r11") _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                    out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                    out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _,
                    out("st(6)") _, out("st(7)") _,
                );
            }
            last
        }
    };
}
held_by!(xmm_held, each_of_16!(load_xmm), each_of_16!(store_xmm));
held_by!(ymm_held, each_of_16!(load_ymm), each_of_16!(store_ymm));
// Compiled code has no AVX-512, so nothing of it is lost by these.
held_by!(
    zmm_held,
    concat!(each_of_32!(load_zmm), each_of_8!(load_mask)),
    concat!(each_of_32!(store_zmm), each_of_8!(store_mask))
);

/// What the registers are after so many calls, and what the last of them returned.
fn held(width: Width, given: &Registers, number: i64, args: [u64; 3], times: u64) -> (Registers, u64) {
    let mut found = Registers::zero();
    let held = match width {
        Width::Xmm => xmm_held,
        Width::Ymm => ymm_held,
        Width::Zmm => zmm_held,
    };
    let last = held(given, &mut found, number as u64, args, times);
    (found, last)
}

/// Two tasks on one CPU, each with patterns of its own, take turns; none sees the other's.
fn switches() -> Result<(), String> {
    let page = linux::shared_page().map_err(|e| e.to_string())?;
    let width = width();
    write_out(format!("vector registers: {width:?}\n").as_bytes());
    linux::set_affinity(&[0]).map_err(|e| e.to_string())?;
    let turns = |own: usize| -> Result<(), String> {
        let mut round = 0u64;
        // Until both have made so many rounds beside each other.
        while page[0].load(Ordering::SeqCst).min(page[1].load(Ordering::SeqCst)) < ROUNDS {
            let given = Registers::pattern(width, (round as u8) << 1 | own as u8);
            let (found, _) = held(width, &given, libc::SYS_sched_yield, [0; 3], YIELDS);
            if let Some(difference) = found.difference(&given) {
                page[own].store(u64::MAX, Ordering::SeqCst);
                return Err(format!("{width:?}, task {own}, round {round}: {difference}"));
            }
            round += 1;
            page[own].fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    };
    match linux::fork().map_err(|e| e.to_string())? {
        Fork::Child => linux::exit_now(u8::from(turns(1).inspect_err(|why| println!("{why}")).is_err())),
        Fork::Parent(pid) => {
            let own = turns(0);
            let other = linux::wait_for(pid).map_err(|e| e.to_string())?;
            own?;
            equal!(other, Ended::Exit(0));
            Ok(())
        }
    }
}

/// A handler that changes all registers, MXCSR too, and has found them in their initial state or the program's: it cannot tell which.
extern "C" fn spoil(_: libc::c_int) {
    let width = width();
    let _ = held(width, &Registers::pattern(width, 0xa7), libc::SYS_getpid, [0; 3], 1);
}

/// What a handler does to the registers is gone when it returns.
fn over_signal() -> Result<(), String> {
    linux::set_signal(libc::SIGUSR1, linux::Disposition::Call(spoil)).map_err(|e| e.to_string())?;
    let width = width();
    let given = Registers::pattern(width, 0x5c);
    let args = [linux::own_pid() as u64, libc::SIGUSR1 as u64, 0];
    let (found, last) = held(width, &given, libc::SYS_kill, args, 20);
    equal!(last, 0);
    found.difference(&given).map_or(Ok(()), Err)
}

/// The child has the parent's registers, and what it does to them stays its own.
fn over_fork() -> Result<(), String> {
    let width = width();
    let given = Registers::pattern(width, 0x31);
    let (found, pid) = held(width, &given, libc::SYS_fork, [0; 3], 1);
    if pid == 0 {
        let own = Registers::pattern(width, 0xce);
        let (after, _) = held(width, &own, libc::SYS_sched_yield, [0; 3], 10);
        linux::exit_now(u8::from(found.difference(&given).or(after.difference(&own)).is_some()));
    }
    let ended = linux::wait_for(pid as linux::Pid).map_err(|e| e.to_string())?;
    equal!(ended, Ended::Exit(0));
    found.difference(&given).map_or(Ok(()), Err)
}

/// A program starts with the initial state, whatever the one before it had.
fn new_program() -> Result<(), String> {
    let width = width();
    let given = Registers::pattern(width, 0x99);
    let path = std::ffi::CString::new(own_path()).map_err(|e| e.to_string())?;
    let word = std::ffi::CString::new(START_CHECK).map_err(|e| e.to_string())?;
    let words = [path.as_ptr(), word.as_ptr(), core::ptr::null()];
    let none: [*const libc::c_char; 1] = [core::ptr::null()];
    let ended = in_child(|| {
        let args = [path.as_ptr() as u64, words.as_ptr() as u64, none.as_ptr() as u64];
        let _ = held(width, &given, libc::SYS_execve, args, 1);
        9
    })?;
    equal!(ended, Ended::Exit(0));
    ensure!(call(libc::SYS_getpid, [0; 6]).is_ok());
    Ok(())
}

/// What the executed program does: looks at what its own start does not use, before it uses it. That is the upper halves of the wide
/// registers, those that only AVX-512 has, its masks, the x87 stack and both control words.
pub fn start_check() -> Outcome {
    let mut upper = [[0xffu8; 16]; 16];
    let mut environment = [0u32; 7];
    let mut mxcsr = 0u32;
    // SAFETY: (1) stores into the arrays only; (2) FNSTENV masks exceptions and changes nothing else.
    unsafe { asm!("fnstenv [{0}]", "stmxcsr [{1}]", in(reg) &mut environment, in(reg) &mut mxcsr) };
    macro_rules! store_upper {
        ($n:literal) => {
            concat!("vextractf128 [r14 + 16 * ", $n, "], ymm", $n, ", 1\n")
        };
    }
    if width() == Width::Xmm {
        upper = [[0; 16]; 16];
    } else {
        // SAFETY: (1) AVX is there; (2) stores into the array only.
        unsafe { asm!(each_of_16!(store_upper), in("r14") &mut upper) };
    }
    if width() == Width::Zmm {
        let mut all = Registers::zero();
        // SAFETY: (1) AVX-512 is there; (2) stores into the structure only.
        unsafe { asm!(each_of_32!(store_zmm), each_of_8!(store_mask), in("r14") &mut all) };
        let used_by_start = 16;
        all.vectors[..16].iter_mut().for_each(|vector| vector[..used_by_start].fill(0));
        if let Some(difference) = all.difference(&Registers::zero()) {
            return Err(Failure::new(format!("started with {difference}")));
        }
    }
    let (control, tags) = (environment[0] & 0xffff, environment[2] & 0xffff);
    // All exceptions masked, 64-bit precision; all registers empty.
    if upper != [[0; 16]; 16] || control != 0x37f || tags != 0xffff || mxcsr != 0x1f80 {
        return Err(Failure::new(format!(
            "started with FCW {control:#x}, tags {tags:#x}, MXCSR {mxcsr:#x}, upper halves {upper:x?}"
        )));
    }
    Ok(0)
}
