//! epoll: files that are watched together, and what `kcore::epoll` says of each.
//!
//! Process context. A wait asks each watched file, beginning behind the one reported last, and sleeps in the queues of all of them: so a
//! wait costs in proportion to the files watched, not to those ready, and watching costs those who make a file ready nothing. Files are
//! asked with no lock held. Watching does not keep a file open: what is closed is forgotten at the next look. Source: epoll(7).

use super::inode::{Kind, Stat, device_number};
use super::open_file::{File, OpenFile, flag, poll};
use super::waiting;
use crate::errno::{self, Errno};
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use kcore::epoll::Interest;

/// Epolls that may watch each other in a row (Linux's EP_MAX_NESTS).
const MAX_NESTS: u32 = 4;

/// One watched file under one descriptor number.
struct Watched {
    fd: i32,
    open: Weak<OpenFile>,
    interest: SpinLock<Interest, { rank::FILE }>,
}

/// The files watched together.
pub struct Epoll {
    watched: SpinLock<Vec<Arc<Watched>>, { rank::PROCESS_PART }>,
    /// Woken when the list or an interest changes; it counts the changes.
    changed: WaitQueue,
    /// Where the next look begins.
    next: AtomicUsize,
    /// How many epolls, at most, have ever been above this one.
    above: AtomicU32,
}

/// What is reported of one file: events, and the program's own value.
pub type Event = (u32, u64);

/// Serialises what is watched of epolls by epolls.
static NESTING: SpinLock<(), { rank::PROCESS }> = SpinLock::new(());

impl Watched {
    /// What `take` makes of the interest and the file's state.
    fn ask(&self, open: &OpenFile, take: fn(&mut Interest, u32, u64) -> u32) -> Option<Event> {
        // The generation first: a change between the two is reported once more, not once less.
        let generation = open.file.wait_queues().into_iter().flatten().map(WaitQueue::wakes).sum();
        let ready = open.file.poll(open.flags() & flag::ACCMODE);
        let mut interest = self.interest.lock();
        let found = take(&mut interest, ready, generation);
        (found != 0).then(|| (found, interest.data()))
    }
}

impl Epoll {
    /// One that watches nothing.
    pub fn new() -> Arc<Epoll> {
        let watched = SpinLock::new(Vec::new());
        let (next, above) = (AtomicUsize::new(0), AtomicU32::new(0));
        Arc::new(Epoll { watched, changed: WaitQueue::new(), next, above })
    }

    /// EPOLL_CTL_ADD. Errors: EEXIST, EPERM for what is always ready, ELOOP for epolls in a circle or too many in a row, EINVAL, ENOMEM.
    pub fn add(&self, fd: i32, open: &Arc<OpenFile>, events: u32, data: u64) -> Result<(), Errno> {
        let always_ready = |kind: &Kind| matches!(kind, Kind::Regular(_) | Kind::Directory(_) | Kind::Generated(_));
        if open.inode().is_some_and(|inode| always_ready(&inode.kind)) {
            return Err(errno::EPERM);
        }
        let interest = Interest::add(events, data).map_err(|_| errno::EINVAL)?;
        let nesting = open.file.as_epoll().map(|inner| (NESTING.lock(), inner));
        if let Some((_, inner)) = &nesting {
            let above = self.above.load(Ordering::Relaxed) + 1;
            if core::ptr::eq(*inner, self) || inner.reaches(self, above)? {
                return Err(errno::ELOOP);
            }
            inner.raise(above);
        }
        let new = Arc::new(Watched { fd, open: Arc::downgrade(open), interest: SpinLock::new(interest) });
        let mut watched = self.watched.lock();
        if find(&watched, fd, open).is_some() {
            return Err(errno::EEXIST);
        }
        watched.try_reserve(1).map_err(|_| errno::ENOMEM)?;
        watched.push(new);
        drop(watched);
        self.changed.wake_all();
        Ok(())
    }

    /// EPOLL_CTL_MOD. ENOENT, EINVAL.
    pub fn modify(&self, fd: i32, open: &Arc<OpenFile>, events: u32, data: u64) -> Result<(), Errno> {
        let watched = self.watched.lock();
        let at = find(&watched, fd, open).ok_or(errno::ENOENT)?;
        let changed = watched[at].interest.lock().modify(events, data);
        drop(watched);
        changed.map_err(|_| errno::EINVAL)?;
        self.changed.wake_all();
        Ok(())
    }

    /// EPOLL_CTL_DEL. ENOENT.
    pub fn remove(&self, fd: i32, open: &Arc<OpenFile>) -> Result<(), Errno> {
        let mut watched = self.watched.lock();
        let at = find(&watched, fd, open).ok_or(errno::ENOENT)?;
        let gone = watched.remove(at);
        drop(watched);
        drop(gone);
        Ok(())
    }

    /// Wait until something is to be reported, or until `deadline_tsc`; at most `most` events. A signal is EINTR.
    pub fn wait(&self, most: usize, deadline_tsc: Option<u64>) -> Result<Vec<Event>, Errno> {
        enum Why {
            Found(Vec<Event>),
            Changed,
        }
        loop {
            let changes = self.changed.wakes();
            let mut files = Vec::new();
            self.all_files(&mut files);
            let queues = files.iter().flat_map(|file| file.wait_queues()).flatten();
            let queues: Vec<&WaitQueue> = queues.chain([&self.changed]).collect();
            let ready = || {
                let found = self.report(most);
                if !found.is_empty() {
                    return Some(Why::Found(found));
                }
                (self.changed.wakes() != changes).then_some(Why::Changed)
            };
            match waiting::wait_any(&queues, deadline_tsc, ready) {
                Ok(Some(Why::Found(found))) => return Ok(found),
                Ok(Some(Why::Changed)) => {}
                Ok(None) => return Ok(Vec::new()),
                Err(_) => return Err(errno::EINTR),
            }
        }
    }

    /// Up to `most` events that are due.
    fn report(&self, most: usize) -> Vec<Event> {
        let watched = self.still_open();
        let count = watched.len();
        let first = self.next.load(Ordering::Relaxed) % count.max(1);
        let mut found = Vec::new();
        for (turn, (one, open)) in watched.iter().cycle().skip(first).take(count).enumerate() {
            if let Some(event) = one.ask(open, Interest::take) {
                found.push(event);
                if found.len() == most {
                    self.next.store(first + turn + 1, Ordering::Relaxed);
                    break;
                }
            }
        }
        found
    }

    /// What is watched and open; the rest is forgotten.
    fn still_open(&self) -> Vec<(Arc<Watched>, Arc<OpenFile>)> {
        let mut open = Vec::new();
        let mut closed = Vec::new();
        let mut watched = self.watched.lock();
        watched.retain(|one| match one.open.upgrade() {
            Some(file) => {
                open.push((one.clone(), file));
                true
            }
            None => {
                closed.push(one.clone());
                false
            }
        });
        drop(watched);
        open
    }

    /// The files whose queues say when a look is worth while, those of watched epolls too.
    fn all_files(&self, files: &mut Vec<Arc<dyn File>>) {
        for (_, open) in self.still_open() {
            if let Some(inner) = open.file.as_epoll() {
                inner.all_files(files);
            }
            files.push(open.file.clone());
        }
    }

    /// Whether `other` is watched from here on downward. ELOOP if more than `MAX_NESTS` would be in a row, with `above` of them above this one.
    fn reaches(&self, other: &Epoll, above: u32) -> Result<bool, Errno> {
        if above > MAX_NESTS {
            return Err(errno::ELOOP);
        }
        for (_, open) in self.still_open() {
            if let Some(inner) = open.file.as_epoll()
                && (core::ptr::eq(inner, other) || inner.reaches(other, above + 1)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn raise(&self, above: u32) {
        self.above.fetch_max(above, Ordering::Relaxed);
        for (_, open) in self.still_open() {
            if let Some(inner) = open.file.as_epoll() {
                inner.raise(above + 1);
            }
        }
    }
}

fn find(watched: &[Arc<Watched>], fd: i32, open: &Arc<OpenFile>) -> Option<usize> {
    watched.iter().position(|one| one.fd == fd && core::ptr::eq(one.open.as_ptr(), Arc::as_ptr(open)))
}

impl File for Epoll {
    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        let due = |interest: &mut Interest, ready, generation| interest.due(ready, generation);
        let ready = self.still_open().iter().any(|(one, open)| one.ask(open, due).is_some());
        if ready { poll::IN | poll::RDNORM } else { 0 }
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.changed), None]
    }

    fn watched_files(&self, files: &mut Vec<Arc<dyn File>>) {
        self.all_files(files);
    }

    fn as_epoll(&self) -> Option<&Epoll> {
        Some(self)
    }

    fn stat(&self) -> Stat {
        Stat { dev: device_number::ANONYMOUS, ino: 1, mode: 0o600, nlink: 1, ..Stat::default() }
    }
}
