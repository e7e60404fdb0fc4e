//! System calls about processes: ids.

use super::table::Calls;
use crate::system_call;

/// Numbers and handlers.
pub const CALLS: Calls = &[(39, getpid)];

system_call! {
    /// getpid(2)
    getpid() { Ok(crate::sched::current().tid() as u64) }
}
