//! The system call table: number to handler, put together at compile time from the groups' lists.
//!
//! A handler has the C ABI and takes six arguments; `system_call!` writes that for it. Handlers run in process context with
//! interrupts on, on the task's kernel stack; one that is done may leave them off (`IrqOff::stay_off`). Numbers are Linux's (arch/x86/entry/syscalls/syscall_64.tbl).

use crate::entry::syscall::{TABLE_LEN, absent_call};

/// One handler.
pub type Handler = unsafe extern "C" fn(u64, u64, u64, u64, u64, u64) -> i64;
/// A group's list: number and handler.
pub type Calls = &'static [(usize, Handler)];

/// Numbers up to `TABLE_LEN`; the entry path refuses those above.
#[repr(transparent)]
pub struct Table([Handler; TABLE_LEN]);

impl Table {
    /// The handler of `number`, if that is in the table.
    pub fn handler(&self, number: u64) -> Option<&Handler> {
        self.0.get(usize::try_from(number).ok()?)
    }

    /// The numbers below `TABLE_LEN` without a call.
    pub fn absent(&self) -> impl Iterator<Item = usize> {
        let is_absent = |handler: &Handler| core::ptr::fn_addr_eq(*handler, absent_call_entry());
        self.0.iter().enumerate().filter(move |(_, handler)| is_absent(handler)).map(|(number, _)| number)
    }
}

const GROUPS: &[Calls] = &[
    super::file::FILE_CALLS,
    super::clock_set::CALLS,
    super::cpu::CALLS,
    super::frame_call::CALLS,
    super::interval_timer::CALLS,
    super::memory::CALLS,
    super::memory_policy::CALLS,
    super::process::CALLS,
    super::process_memory::CALLS,
    super::pid_file::CALLS,
    super::posix_timer::CALLS,
    super::ptrace::CALLS,
    super::scheduling_attribute::CALLS,
    super::signal::CALLS,
    super::socket::CALLS,
    super::socket_message::CALLS,
    super::system::CALLS,
    super::time::CALLS,
];

/// What the entry path calls by number.
pub static TABLE: Table = Table(build());

const fn build() -> [Handler; TABLE_LEN] {
    let mut table: [Handler; TABLE_LEN] = [absent_call_entry(); TABLE_LEN];
    let mut group = 0;
    while group < GROUPS.len() {
        let mut i = 0;
        while i < GROUPS[group].len() {
            let (number, handler) = GROUPS[group][i];
            table[number] = handler;
            i += 1;
        }
        group += 1;
    }
    table
}

/// A result as RAX has it: the value, or the error as a negative number.
#[inline(always)]
pub fn into_rax(result: crate::errno::SysResult) -> i64 {
    match result {
        Ok(v) => v as i64,
        Err(e) => {
            // What has interrupted the call says so before it makes exit work of it: no restart code goes without.
            if e.0 >= crate::errno::ERESTARTSYS.0 {
                crate::process::signal::look_again();
            }
            -(e.0 as i64)
        }
    }
}

/// A number below `TABLE_LEN` without a call.
pub extern "C" fn absent(number: u64) -> i64 {
    crate::process::missing::note_call(number);
    -(crate::errno::ENOSYS.0 as i64)
}

/// `entry::syscall::absent_call` as a table entry: it looks at RAX alone.
const fn absent_call_entry() -> Handler {
    // SAFETY: both are C-ABI function pointers, and the function ends as one of the C ABI does.
    unsafe { core::mem::transmute::<unsafe extern "C" fn(), Handler>(absent_call) }
}

/// A handler with up to six arguments, all u64. The body gives `SysResult` and may use `?` and `return`.
/// `system_call! { /// doc  name(a, b) { body } }`
#[macro_export]
macro_rules! system_call {
    ($(#[$m:meta])* $n:ident() $b:block) => { $crate::system_call!(@ $(#[$m])* $n [_a, _b, _c, _d, _e, _f] $b); };
    ($(#[$m:meta])* $n:ident($a:ident) $b:block) => { $crate::system_call!(@ $(#[$m])* $n [$a, _b, _c, _d, _e, _f] $b); };
    ($(#[$m:meta])* $n:ident($a:ident, $b2:ident) $b:block) => {
        $crate::system_call!(@ $(#[$m])* $n [$a, $b2, _c, _d, _e, _f] $b);
    };
    ($(#[$m:meta])* $n:ident($a:ident, $b2:ident, $c:ident) $b:block) => {
        $crate::system_call!(@ $(#[$m])* $n [$a, $b2, $c, _d, _e, _f] $b);
    };
    ($(#[$m:meta])* $n:ident($a:ident, $b2:ident, $c:ident, $d:ident) $b:block) => {
        $crate::system_call!(@ $(#[$m])* $n [$a, $b2, $c, $d, _e, _f] $b);
    };
    ($(#[$m:meta])* $n:ident($a:ident, $b2:ident, $c:ident, $d:ident, $e:ident) $b:block) => {
        $crate::system_call!(@ $(#[$m])* $n [$a, $b2, $c, $d, $e, _f] $b);
    };
    ($(#[$m:meta])* $n:ident($a:ident, $b2:ident, $c:ident, $d:ident, $e:ident, $f:ident) $b:block) => {
        $crate::system_call!(@ $(#[$m])* $n [$a, $b2, $c, $d, $e, $f] $b);
    };
    (@ $(#[$m:meta])* $n:ident [$a:ident, $b2:ident, $c:ident, $d:ident, $e:ident, $f:ident] $b:block) => {
        $(#[$m])*
        pub extern "C" fn $n($a: u64, $b2: u64, $c: u64, $d: u64, $e: u64, $f: u64) -> i64 {
            let body = || -> $crate::errno::SysResult { $b };
            $crate::syscall::table::into_rax(body())
        }
    };
}
