//! ptrace(2): the requests. Who may make them and what they change is `process::ptrace`'s.
//!
//! User memory of the tracer is read before the lock of `process::ptrace` is taken, and written after it.
//! Source: ptrace(2); Linux include/uapi/linux/ptrace.h, elf.h (note types).

use super::process_memory::space_of;
use super::table::Calls;
use crate::arch::page_table::USER_END;
use crate::errno::{EFAULT, EINVAL, EIO, EPERM, ESRCH, Errno, SysResult};
use crate::isolation::watchpoint;
use crate::mm::user_copy;
use crate::process::ptrace::{self, with_stopped};
use crate::process::ptrace_registers::{self, LEGACY, Registers, WORDS};
use crate::process::signal::{self, Info, sig};
use crate::process::{Thread, signal_frame, tree};
use crate::sched::task;
use crate::system_call;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use kcore::debug_register;
use kcore::ptrace::{Go, Stop};

/// Number and handler.
pub const CALLS: Calls = &[(101, ptrace)];

/// Numbers of requests.
#[allow(missing_docs, reason = "the names say it; the list is Linux's")]
mod request {
    pub const TRACEME: u64 = 0;
    pub const PEEKTEXT: u64 = 1;
    pub const PEEKDATA: u64 = 2;
    pub const PEEKUSER: u64 = 3;
    pub const POKETEXT: u64 = 4;
    pub const POKEDATA: u64 = 5;
    pub const POKEUSER: u64 = 6;
    pub const CONT: u64 = 7;
    pub const KILL: u64 = 8;
    pub const SINGLESTEP: u64 = 9;
    pub const GETREGS: u64 = 12;
    pub const SETREGS: u64 = 13;
    pub const GETFPREGS: u64 = 14;
    pub const SETFPREGS: u64 = 15;
    pub const ATTACH: u64 = 16;
    pub const DETACH: u64 = 17;
    pub const SYSCALL: u64 = 24;
    pub const ARCH_PRCTL: u64 = 30;
    pub const SYSEMU: u64 = 31;
    pub const SYSEMU_SINGLESTEP: u64 = 32;
    pub const SETOPTIONS: u64 = 0x4200;
    pub const GETEVENTMSG: u64 = 0x4201;
    pub const GETSIGINFO: u64 = 0x4202;
    pub const SETSIGINFO: u64 = 0x4203;
    pub const GETREGSET: u64 = 0x4204;
    pub const SETREGSET: u64 = 0x4205;
    pub const SEIZE: u64 = 0x4206;
    pub const INTERRUPT: u64 = 0x4207;
    pub const LISTEN: u64 = 0x4208;
    pub const GETSIGMASK: u64 = 0x420a;
    pub const SETSIGMASK: u64 = 0x420b;
    pub const GET_SYSCALL_INFO: u64 = 0x420e;
}

/// Note types of register sets.
mod note {
    pub const PRSTATUS: u64 = 1;
    pub const PRFPREG: u64 = 2;
    pub const X86_XSTATE: u64 = 0x202;
}

/// struct user: its size, and where the debug registers are in it.
const USER_BYTES: u64 = 928;
const DEBUG_REGISTERS: u64 = 848;
/// Bits of DR6 that read as one, or are clear when what they say is so.
const STATUS_ONES: u64 = 0xffff_0ff0;
const REGISTER_BYTES: usize = WORDS * 8;

system_call! {
    /// ptrace(2)
    ptrace(number, pid, address, data) {
        if number == request::TRACEME {
            ptrace::trace_me()?;
            return Ok(0);
        }
        let thread = tree::find_thread(pid as u32).ok_or(ESRCH)?;
        match number {
            request::ATTACH => ptrace::attach(&thread, None)?,
            request::SEIZE if address != 0 => return Err(EIO),
            request::SEIZE => ptrace::attach(&thread, Some(data))?,
            request::INTERRUPT => ptrace::interrupt(&thread)?,
            request::KILL => {
                ptrace::may_kill(&thread)?;
                signal::send_to_thread(&thread, Info::from_user(sig::KILL));
            }
            _ => return of_stopped(number, &thread, address, data),
        }
        Ok(0)
    }
}

/// Requests that want the thread stopped.
fn of_stopped(number: u64, thread: &Arc<Thread>, address: u64, data: u64) -> SysResult {
    // Before anything is said of the request itself.
    with_stopped(thread, |_, _| Ok(()))?;
    match number {
        request::PEEKTEXT | request::PEEKDATA => {
            let mut word = [0u8; 8];
            let space = space_of(thread.tid.load(Ordering::Relaxed))?;
            if space.read_foreign(address, &mut word, true) < word.len() {
                return Err(EIO);
            }
            user_copy::write(data, &word)?;
        }
        request::POKETEXT | request::POKEDATA => {
            let space = space_of(thread.tid.load(Ordering::Relaxed))?;
            if space.write_foreign(address, &data.to_le_bytes(), true) < 8 {
                return Err(EIO);
            }
        }
        request::PEEKUSER => {
            let value = peek_user(thread, address)?;
            user_copy::write(data, &value)?;
        }
        request::POKEUSER => poke_user(thread, address, data)?,
        request::ARCH_PRCTL => arch_prctl(thread, data, address)?,
        request::CONT => ptrace::go_on(thread, Go::Continue, data)?,
        request::SYSCALL => ptrace::go_on(thread, Go::Syscall, data)?,
        request::SINGLESTEP => ptrace::go_on(thread, Go::Step, data)?,
        request::SYSEMU => ptrace::go_on(thread, Go::Emulate, data)?,
        request::SYSEMU_SINGLESTEP => ptrace::go_on(thread, Go::EmulateStep, data)?,
        request::DETACH => ptrace::detach(thread, data)?,
        request::LISTEN => ptrace::listen(thread)?,
        request::GETREGS => user_copy::write(data, &with_stopped(thread, |_, r| Ok(r.words()))?)?,
        request::SETREGS => {
            let words: [u64; WORDS] = user_copy::read(data)?;
            set_words(thread, &words)?;
        }
        request::GETFPREGS => user_copy::write_bytes(data, &with_stopped(thread, |_, r| r.area())?[..LEGACY])?,
        request::SETFPREGS => {
            let bytes: [u8; LEGACY] = user_copy::read(data)?;
            with_stopped(thread, |_, r| r.set_area(&bytes))?;
        }
        request::GETREGSET | request::SETREGSET => {
            let [base, len]: [u64; 2] = user_copy::read(data)?;
            let done = register_set(thread, number == request::SETREGSET, address, base, len)?;
            user_copy::write(data + 8, &done)?;
        }
        request::SETOPTIONS => with_stopped(thread, |state, _| Ok(state.set_options(data)?))?,
        request::GETEVENTMSG => user_copy::write(data, &with_stopped(thread, |state, _| Ok(state.message()))?)?,
        request::GETSIGINFO => {
            let info = with_stopped(thread, |_, r| r.info.ok_or(EINVAL))?;
            let mut words = [0u64; 16];
            signal_frame::fill_info(&mut words, &info);
            user_copy::write(data, &words)?;
        }
        request::SETSIGINFO => {
            let words: [u64; 16] = user_copy::read(data)?;
            with_stopped(thread, |_, r| {
                r.info.as_ref().ok_or(EINVAL)?;
                r.info = Some(signal_frame::info_of(&words));
                Ok(())
            })?;
        }
        request::GETSIGMASK | request::SETSIGMASK if address != 8 => return Err(EINVAL),
        request::GETSIGMASK => {
            let set = with_stopped(thread, |_, _| Ok(thread.blocked.load(Ordering::SeqCst)))?;
            user_copy::write(data, &set)?;
        }
        request::SETSIGMASK => {
            let set: u64 = user_copy::read(data)?;
            let set = set & !(signal::bit(sig::KILL) | signal::bit(sig::STOP));
            with_stopped(thread, |_, _| {
                thread.blocked.store(set, Ordering::SeqCst);
                Ok(())
            })?;
            signal::notify(thread);
        }
        request::GET_SYSCALL_INFO => {
            let info = with_stopped(thread, |state, r| Ok(syscall_info(state.stop()?, r)))?;
            user_copy::write_bytes(data, &info[..info.len().min(address as usize)])?;
            return Ok(info.len() as u64);
        }
        _ => return Err(EIO),
    }
    Ok(0)
}

/// struct ptrace_syscall_info, as long as it is for this kind of stop.
fn syscall_info(stop: Stop, registers: &Registers) -> Vec<u8> {
    const ARCH_X86_64: u64 = 0xc000_003e;
    let kind: u64 = match stop {
        Stop::CallEntry => 1,
        Stop::CallExit => 2,
        _ => 0,
    };
    let (ip, sp) = registers.place();
    let mut out = Vec::new();
    let mut put = |word: u64| out.extend_from_slice(&word.to_le_bytes());
    put(kind | ARCH_X86_64 << 32);
    put(ip);
    put(sp);
    match stop {
        Stop::CallEntry => registers.call().iter().for_each(|&word| put(word)),
        Stop::CallExit => {
            let result = registers.result();
            put(result as u64);
            out.push((-4095..0).contains(&result) as u8);
        }
        _ => {}
    }
    out
}

fn set_words(thread: &Thread, words: &[u64]) -> Result<(), Errno> {
    with_stopped(thread, |_, r| words.iter().enumerate().try_for_each(|(i, &word)| r.set_word(i, word)))
}

/// PTRACE_GETREGSET and SETREGSET of note type `kind`: how many bytes were moved.
fn register_set(thread: &Thread, set: bool, kind: u64, base: u64, len: u64) -> Result<u64, Errno> {
    let whole = match kind {
        note::PRSTATUS => REGISTER_BYTES,
        note::PRFPREG => LEGACY,
        note::X86_XSTATE if crate::arch::fpu::has_xsave() => crate::arch::fpu::area_size(),
        note::X86_XSTATE => return Err(crate::errno::ENODEV),
        _ => return Err(EINVAL),
    };
    // Sets are moved in whole registers, the floating-point sets in words of eight.
    if !len.is_multiple_of(8) {
        return Err(EINVAL);
    }
    let n = whole.min(usize::try_from(len).unwrap_or(whole));
    if !set {
        let bytes = with_stopped(thread, |_, r| match kind {
            note::PRSTATUS => Ok(r.words().iter().flat_map(|word| word.to_le_bytes()).collect()),
            _ => r.area(),
        })?;
        user_copy::write_bytes(base, &bytes[..n])?;
        return Ok(n as u64);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(n).map_err(|_| crate::errno::ENOMEM)?;
    bytes.resize(n, 0);
    user_copy::read_bytes(base, &mut bytes)?;
    match kind {
        note::PRSTATUS => {
            let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
            set_words(thread, &words)?;
        }
        note::X86_XSTATE if n < whole => return Err(EFAULT),
        _ => with_stopped(thread, |_, r| r.set_area(&bytes))?,
    }
    Ok(n as u64)
}

fn debug_register(address: u64) -> Option<usize> {
    (DEBUG_REGISTERS..DEBUG_REGISTERS + 64).contains(&address).then(|| ((address - DEBUG_REGISTERS) / 8) as usize)
}

fn user_offset(address: u64) -> Result<u64, Errno> {
    if address.is_multiple_of(8) && address < USER_BYTES { Ok(address) } else { Err(EIO) }
}

/// arch_prctl(2) for the traced thread: `code` with `address` as there. gdbserver finds a thread's block of thread-local storage by it.
fn arch_prctl(thread: &Thread, code: u64, address: u64) -> Result<(), Errno> {
    let word = match code {
        0x1001 | 0x1004 => ptrace_registers::GS_BASE, // ARCH_SET_GS, ARCH_GET_GS
        0x1002 | 0x1003 => ptrace_registers::FS_BASE, // ARCH_SET_FS, ARCH_GET_FS
        _ => return Err(EINVAL),
    };
    if code <= 0x1002 {
        return with_stopped(thread, |_, r| r.set_word(word, address).map_err(|_| EPERM));
    }
    let value = with_stopped(thread, |_, r| Ok(r.words()[word]))?;
    Ok(user_copy::write(address, &value)?)
}

fn peek_user(thread: &Thread, address: u64) -> Result<u64, Errno> {
    let address = user_offset(address)?;
    with_stopped(thread, |_, r| {
        let word = (address / 8) as usize;
        if word < WORDS {
            return Ok(r.words()[word]);
        }
        let Some(index) = debug_register(address) else { return Ok(0) };
        let value = task::with(thread.task, |t| match index {
            0..=3 => t.breakpoints.addresses()[index],
            6 => t.breakpoints.status() ^ STATUS_ONES,
            7 => t.breakpoints.control(),
            _ => 0,
        });
        Ok(value.unwrap_or(0))
    })
}

fn poke_user(thread: &Thread, address: u64, value: u64) -> Result<(), Errno> {
    let address = user_offset(address)?;
    let word = (address / 8) as usize;
    if word < WORDS {
        return with_stopped(thread, |_, r| r.set_word(word, value));
    }
    let index = debug_register(address).ok_or(EIO)?;
    let set = |t: &task::Task| {
        let (mut addresses, mut control) = (t.breakpoints.addresses(), t.breakpoints.control());
        match index {
            0..=3 if value >= USER_END => return Err(EINVAL),
            0..=3 => addresses[index] = value,
            6 => {
                t.breakpoints.set_status(value ^ STATUS_ONES);
                return Ok(());
            }
            7 => control = value,
            _ => return Err(EIO),
        }
        let control = debug_register::check(control, &addresses, USER_END).map_err(|_| EINVAL)?;
        watchpoint::set_of_task(t, &addresses, control)
    };
    with_stopped(thread, |_, _| task::with(thread.task, set).unwrap_or(Err(ESRCH)))
}
