//! eventfd(2): a counter that reads wait for and writes add to.

use super::inode::{Stat, device_number};
use super::open_file::{File, How, poll};
use super::user_buffer::UserBuffer;
use crate::errno::{self, Errno};
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::Arc;

const MAX: u64 = u64::MAX - 1;

/// The counter.
pub struct EventCounter {
    value: SpinLock<u64, { rank::FILE }>,
    semaphore: bool,
    readable: WaitQueue,
    writable: WaitQueue,
}

impl EventCounter {
    /// One that starts at `initial`. `semaphore`: reads take one at a time.
    pub fn new(initial: u64, semaphore: bool) -> Arc<EventCounter> {
        let (readable, writable) = (WaitQueue::new(), WaitQueue::new());
        Arc::new(EventCounter { value: SpinLock::new(initial), semaphore, readable, writable })
    }

    fn take(&self) -> Option<u64> {
        let mut value = self.value.lock();
        match *value {
            0 => None,
            _ if self.semaphore => {
                *value -= 1;
                Some(1)
            }
            all => {
                *value = 0;
                Some(all)
            }
        }
    }

    fn add(&self, n: u64) -> Option<()> {
        let mut value = self.value.lock();
        *value = value.checked_add(n).filter(|&v| v <= MAX)?;
        Some(())
    }
}

impl File for EventCounter {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        if to.left() < 8 {
            return Err(errno::EINVAL);
        }
        let value = match self.take() {
            Some(value) => value,
            None if how.nonblock() => return Err(errno::EAGAIN),
            None => self.readable.wait(true, || self.take())?,
        };
        self.writable.wake_all();
        to.put(&value.to_le_bytes())
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let mut bytes = [0; 8];
        if from.left() < 8 {
            return Err(errno::EINVAL);
        }
        from.take(&mut bytes)?;
        let n = u64::from_le_bytes(bytes);
        if n == u64::MAX {
            return Err(errno::EINVAL);
        }
        match self.add(n) {
            Some(()) => {}
            None if how.nonblock() => return Err(errno::EAGAIN),
            None => self.writable.wait(true, || self.add(n))?,
        }
        self.readable.wake_all();
        Ok(8)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        let value = *self.value.lock();
        let readable = if value > 0 { poll::IN | poll::RDNORM } else { 0 };
        readable | if value < MAX { poll::OUT | poll::WRNORM } else { 0 }
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.readable), Some(&self.writable)]
    }

    fn stat(&self) -> Stat {
        Stat { dev: device_number::ANONYMOUS, ino: 1, mode: 0o600, nlink: 1, ..Stat::default() }
    }
}
