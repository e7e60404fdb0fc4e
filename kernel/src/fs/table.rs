//! A process's file descriptors.
//!
//! Process context. Threads of a process (CLONE_FILES) share one table; fork copies it. Files are dropped outside the lock: closing the
//! last reference may wake others.

use super::open_file::OpenFile;
use crate::errno::{self, Errno};
use crate::mm::failure;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Descriptors are below this (Linux's default RLIMIT_NOFILE).
pub const MAX_FILES: usize = 1024;

#[derive(Clone)]
struct Slot {
    file: Arc<OpenFile>,
    close_on_exec: bool,
}

/// The table. Dropping it closes all.
pub struct FileTable(SpinLock<Vec<Option<Slot>>, { rank::PROCESS_PART }>);

impl FileTable {
    /// Nothing open.
    pub fn new() -> Arc<FileTable> {
        Arc::new(FileTable(SpinLock::new(Vec::new())))
    }

    /// A copy for a forked process: the same open-file descriptions. `None` without memory.
    pub fn clone_table(&self) -> Option<Arc<FileTable>> {
        let mut slots = Vec::new();
        let table = self.0.lock();
        if failure::strikes() || slots.try_reserve_exact(table.len()).is_err() {
            return None;
        }
        slots.extend_from_slice(&table);
        drop(table);
        Some(Arc::new(FileTable(SpinLock::new(slots))))
    }

    /// The open file `fd`.
    #[inline]
    pub fn file(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        match self.0.lock().get(fd as u32 as usize) {
            Some(Some(slot)) => Ok(slot.file.clone()),
            _ => Err(errno::EBADF),
        }
    }

    /// Give `file` the lowest free number from `from` on.
    pub fn install_from(&self, file: Arc<OpenFile>, close_on_exec: bool, from: usize) -> Result<i32, Errno> {
        let mut slots = self.0.lock();
        let free = (from..slots.len()).find(|&i| slots[i].is_none()).unwrap_or(slots.len().max(from));
        if free >= MAX_FILES {
            drop(slots);
            return Err(errno::EMFILE);
        }
        if free >= slots.len() {
            slots.resize_with(free + 1, || None);
        }
        slots[free] = Some(Slot { file, close_on_exec });
        Ok(free as i32)
    }

    /// Give `file` the lowest free number.
    pub fn install(&self, file: Arc<OpenFile>, close_on_exec: bool) -> Result<i32, Errno> {
        self.install_from(file, close_on_exec, 0)
    }

    /// Put `file` at `fd`; what was there is closed.
    pub fn install_at(&self, fd: i32, file: Arc<OpenFile>, close_on_exec: bool) -> Result<i32, Errno> {
        let at = fd as u32 as usize;
        if at >= MAX_FILES {
            return Err(errno::EBADF);
        }
        let mut slots = self.0.lock();
        if at >= slots.len() {
            slots.resize_with(at + 1, || None);
        }
        let old = slots[at].replace(Slot { file, close_on_exec });
        drop(slots);
        drop(old);
        Ok(fd)
    }

    /// close(2).
    pub fn close(&self, fd: i32) -> Result<(), Errno> {
        let old = self.0.lock().get_mut(fd as u32 as usize).and_then(Option::take);
        old.map(drop).ok_or(errno::EBADF)
    }

    /// close_range(2).
    pub fn close_range(&self, first: usize, last: usize, only_mark: bool) {
        let end = self.0.lock().len().min(last.saturating_add(1));
        for fd in first..end {
            if !only_mark {
                let _ = self.close(fd as i32);
            } else {
                let _ = self.set_close_on_exec(fd as i32, true);
            }
        }
    }

    /// exec: close what is marked.
    pub fn close_on_exec(&self) {
        let mut closed = Vec::new();
        let mut slots = self.0.lock();
        for slot in slots.iter_mut() {
            if slot.as_ref().is_some_and(|s| s.close_on_exec) {
                closed.push(slot.take());
            }
        }
        drop(slots);
    }

    /// F_GETFD.
    pub fn is_close_on_exec(&self, fd: i32) -> Result<bool, Errno> {
        match self.0.lock().get(fd as u32 as usize) {
            Some(Some(slot)) => Ok(slot.close_on_exec),
            _ => Err(errno::EBADF),
        }
    }

    /// F_SETFD.
    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<(), Errno> {
        match self.0.lock().get_mut(fd as u32 as usize) {
            Some(Some(slot)) => {
                slot.close_on_exec = on;
                Ok(())
            }
            _ => Err(errno::EBADF),
        }
    }

    /// The numbers that are open.
    pub fn open_numbers(&self) -> Vec<u32> {
        let slots = self.0.lock();
        slots.iter().enumerate().filter(|(_, s)| s.is_some()).map(|(i, _)| i as u32).collect()
    }
}
