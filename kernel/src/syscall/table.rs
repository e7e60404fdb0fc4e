//! table
use crate::entry::syscall::TABLE_LEN;
pub type Handler = unsafe extern "C" fn(u64, u64, u64, u64, u64, u64) -> i64;
pub struct Table([Handler; TABLE_LEN]);
unsafe extern "C" fn enosys(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64) -> i64 {
    -38
}
pub static TABLE: Table = Table([enosys; TABLE_LEN]);
