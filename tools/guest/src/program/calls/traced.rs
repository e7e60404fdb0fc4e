//! A child under ptrace(2), for the checks of it.

use super::{call, equal};
use crate::linux::{self, Ended, Fork};
use libc::SYS_ptrace;

/// __WALL
pub const WALL: u64 = 0x4000_0000;

/// Numbers of requests.
#[allow(missing_docs, reason = "the names say it; the list is Linux's")]
pub mod request {
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

/// Words of user_regs_struct.
#[allow(missing_docs, reason = "register names")]
pub mod regs {
    pub const R15: usize = 0;
    pub const R12: usize = 3;
    pub const RBX: usize = 5;
    pub const RAX: usize = 10;
    pub const RDI: usize = 14;
    pub const ORIG_RAX: usize = 15;
    pub const RIP: usize = 16;
    pub const CS: usize = 17;
    pub const RFLAGS: usize = 18;
    pub const RSP: usize = 19;
    pub const SS: usize = 20;
    pub const FS_BASE: usize = 21;
    pub const GS_BASE: usize = 22;
}

/// What a wait says of a seized thread that stopped by `signal`: signal and event.
pub const fn stop_code(signal: u64) -> u64 {
    signal | 128 << 8
}

/// The child.
pub struct Traced {
    /// Its pid.
    pub pid: u64,
}

impl Traced {
    /// A child that is traced, stopped by SIGSTOP, and runs `child` when it goes on.
    pub fn start(child: impl FnOnce() -> u8) -> Result<Traced, String> {
        let t = Self::untraced(|| {
            if call(SYS_ptrace, [request::TRACEME, 0, 0, 0, 0, 0]).is_err()
                || linux::kill(linux::own_pid(), libc::SIGSTOP).is_err()
            {
                return 111;
            }
            child()
        })?;
        equal!(t.stopped()?, libc::SIGSTOP as u64);
        Ok(t)
    }

    /// A child that runs `child`.
    pub fn untraced(child: impl FnOnce() -> u8) -> Result<Traced, String> {
        match linux::fork().map_err(|e| e.to_string())? {
            Fork::Child => linux::exit_now(child()),
            Fork::Parent(pid) => Ok(Traced { pid: pid as u64 }),
        }
    }

    /// One request about it.
    pub fn ask(&self, number: u64, address: u64, data: u64) -> Result<u64, i32> {
        call(SYS_ptrace, [number, self.pid, address, data, 0, 0])
    }

    /// Waits until it stops: signal and event.
    pub fn stopped(&self) -> Result<u64, String> {
        stopped(self.pid)
    }

    /// Its registers.
    pub fn registers(&self) -> Result<[u64; 27], String> {
        let mut words = [0; 27];
        self.ask(request::GETREGS, 0, words.as_mut_ptr() as u64).map_err(|e| format!("registers: error {e}"))?;
        Ok(words)
    }

    /// Waits until it has ended.
    pub fn ended(&self) -> Result<Ended, String> {
        linux::wait_for(self.pid as linux::Pid).map_err(|e| format!("wait for {}: {e}", self.pid))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // Nothing is left behind by a check that failed.
        let _ = linux::kill(self.pid as linux::Pid, libc::SIGKILL);
    }
}

/// Waits until thread `pid` stops: signal and event.
pub fn stopped(pid: u64) -> Result<u64, String> {
    let mut status = 0u32;
    let found = call(libc::SYS_wait4, [pid, (&raw mut status) as u64, WALL, 0, 0, 0]);
    if found != Ok(pid) || status & 0xff != 0x7f {
        return Err(format!("wait for {pid}: {found:?}, status {status:#x}"));
    }
    Ok(u64::from(status >> 8))
}
