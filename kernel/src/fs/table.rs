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
use core::sync::atomic::{self, Ordering};

/// Descriptors are below this (Linux's default RLIMIT_NOFILE).
pub const MAX_FILES: usize = 1024;

#[derive(Clone, Default)]
enum Slot {
    #[default]
    Free,
    /// Somebody will open it, or give it back: not open yet, and nobody else's.
    Reserved,
    Open {
        file: Arc<OpenFile>,
        close_on_exec: bool,
    },
}

impl Slot {
    /// What is open here, taken out.
    fn take(&mut self) -> Option<Arc<OpenFile>> {
        if let Slot::Reserved = self {
            return None;
        }
        match core::mem::take(self) {
            Slot::Open { file, .. } => Some(file),
            _ => None,
        }
    }
}

/// The lowest free slot from `from` on, which is then there. EMFILE.
fn free_slot(slots: &mut Vec<Slot>, from: usize) -> Result<usize, Errno> {
    let free = (from..slots.len()).find(|&i| matches!(slots[i], Slot::Free)).unwrap_or(slots.len().max(from));
    if free >= MAX_FILES {
        return Err(errno::EMFILE);
    }
    if free >= slots.len() {
        slots.resize_with(free + 1, Slot::default);
    }
    Ok(free)
}

/// The table. Dropping it closes all.
pub struct FileTable(SpinLock<Vec<Slot>, { rank::PROCESS_PART }>);

/// A number that the program may be told before there is a file. Dropped unfilled, it is free again.
pub struct Reserved<'a> {
    /// None once it is filled.
    table: Option<&'a FileTable>,
    fd: i32,
}

impl Reserved<'_> {
    /// The number.
    pub fn number(&self) -> i32 {
        self.fd
    }

    /// `file` is open by this number from now on.
    pub fn fill(mut self, file: Arc<OpenFile>, close_on_exec: bool) {
        if let Some(table) = self.table.take() {
            table.0.lock()[self.fd as usize] = Slot::Open { file, close_on_exec };
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(table) = self.table {
            table.0.lock()[self.fd as usize] = Slot::Free;
        }
    }
}

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
        slots.extend(table.iter().map(|slot| if let Slot::Reserved = slot { Slot::Free } else { slot.clone() }));
        drop(table);
        Some(Arc::new(FileTable(SpinLock::new(slots))))
    }

    /// The open file `fd`.
    #[inline]
    pub fn file(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        match self.0.lock().get(fd as u32 as usize) {
            Some(Slot::Open { file, .. }) => Ok(file.clone()),
            _ => Err(errno::EBADF),
        }
    }

    /// Whether more than the running thread, whose table this is, may use it. Besides its own reference there is its process's, by which others only look
    /// (`Process::files`).
    #[inline(always)]
    pub fn is_shared(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 2
    }

    /// `file` for the running thread, whose table this is, and for the length of one call, where no other thread uses the table: then nobody else changes
    /// it, and neither its lock nor a count of the file is needed (Linux's fdget). `None`: another one does.
    ///
    /// # Safety
    /// 1. The table is the running thread's (`Thread::files`); 2. the thread opens, closes and moves no descriptor as long as it has what is returned.
    #[inline(always)]
    pub unsafe fn file_of_one_user(self: &Arc<Self>, fd: i32) -> Option<Result<&OpenFile, Errno>> {
        if self.is_shared() {
            return None;
        }
        // What a thread that has gone since had changed is there.
        atomic::fence(Ordering::Acquire);
        // SAFETY: 1. the running thread alone changes the table, and does not for now (the caller's conditions): every other user has a reference of its own, and whoever
        // takes one by the process only looks; 2. a second thread can come only by a call of this one.
        Some(match unsafe { self.0.unlocked() }.get(fd as u32 as usize) {
            Some(Slot::Open { file, .. }) => Ok(file),
            _ => Err(errno::EBADF),
        })
    }

    /// Give `file` the lowest free number from `from` on.
    pub fn install_from(&self, file: Arc<OpenFile>, close_on_exec: bool, from: usize) -> Result<i32, Errno> {
        let mut slots = self.0.lock();
        match free_slot(&mut slots, from) {
            Ok(free) => {
                slots[free] = Slot::Open { file, close_on_exec };
                Ok(free as i32)
            }
            Err(e) => {
                drop(slots);
                Err(e)
            }
        }
    }

    /// The lowest free number, to be filled later. EMFILE.
    pub fn reserve(&self) -> Result<Reserved<'_>, Errno> {
        let mut slots = self.0.lock();
        let free = free_slot(&mut slots, 0)?;
        slots[free] = Slot::Reserved;
        drop(slots);
        Ok(Reserved { table: Some(self), fd: free as i32 })
    }

    /// Give `file` the lowest free number.
    pub fn install(&self, file: Arc<OpenFile>, close_on_exec: bool) -> Result<i32, Errno> {
        self.install_from(file, close_on_exec, 0)
    }

    /// Put `file` at `fd`; what was there is closed. EBADF, and EBUSY where a number is about to be opened.
    pub fn install_at(&self, fd: i32, file: Arc<OpenFile>, close_on_exec: bool) -> Result<i32, Errno> {
        let at = fd as u32 as usize;
        if at >= MAX_FILES {
            return Err(errno::EBADF);
        }
        let mut slots = self.0.lock();
        if at >= slots.len() {
            slots.resize_with(at + 1, Slot::default);
        }
        if matches!(slots[at], Slot::Reserved) {
            drop(slots);
            return Err(errno::EBUSY);
        }
        let old = core::mem::replace(&mut slots[at], Slot::Open { file, close_on_exec });
        drop(slots);
        drop(old);
        Ok(fd)
    }

    /// close(2).
    pub fn close(&self, fd: i32) -> Result<(), Errno> {
        let old = self.0.lock().get_mut(fd as u32 as usize).and_then(Slot::take);
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
            if let Slot::Open { close_on_exec: true, .. } = slot {
                closed.push(slot.take());
            }
        }
        drop(slots);
    }

    /// F_GETFD.
    pub fn is_close_on_exec(&self, fd: i32) -> Result<bool, Errno> {
        match self.0.lock().get(fd as u32 as usize) {
            Some(Slot::Open { close_on_exec, .. }) => Ok(*close_on_exec),
            _ => Err(errno::EBADF),
        }
    }

    /// F_SETFD.
    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<(), Errno> {
        match self.0.lock().get_mut(fd as u32 as usize) {
            Some(Slot::Open { close_on_exec, .. }) => {
                *close_on_exec = on;
                Ok(())
            }
            _ => Err(errno::EBADF),
        }
    }

    /// The numbers that are open.
    pub fn open_numbers(&self) -> Vec<u32> {
        let slots = self.0.lock();
        slots.iter().enumerate().filter(|(_, s)| matches!(s, Slot::Open { .. })).map(|(i, _)| i as u32).collect()
    }
}
