//! What has been sent to a socket and not received: messages in order, with what comes beside their bytes.
//!
//! Under the socket's lock.

use super::passing::Passed;
use super::{Address, CAPACITY};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Who sent something: struct ucred.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Credentials {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Credentials {
    /// The running process's.
    pub fn own() -> Credentials {
        Credentials { pid: crate::fs::current::pid() as u32, uid: 0, gid: 0 }
    }
}

/// What comes beside the bytes of a message.
#[derive(Clone)]
pub struct Extra {
    /// Open files (SCM_RIGHTS).
    pub files: Passed,
    /// The sender.
    pub credentials: Credentials,
    /// Its address.
    pub from: Option<Arc<Address>>,
}

impl Extra {
    /// No files, from the running process.
    pub fn none() -> Extra {
        Extra { files: Passed::default(), credentials: Credentials::own(), from: None }
    }

    /// What comes beside more bytes of the same message: no files.
    pub fn rest(&self) -> Extra {
        Extra { files: Passed::default(), credentials: self.credentials, from: self.from.clone() }
    }
}

/// One message.
pub struct Message {
    pub bytes: Vec<u8>,
    /// How much of it has been received, of a stream.
    pub start: usize,
    pub extra: Extra,
}

/// The messages.
#[derive(Default)]
pub struct Inbox {
    messages: VecDeque<Message>,
    bytes: usize,
}

/// Bytes that a message counts for beside its own: empty ones are not for nothing.
const OVERHEAD: usize = 256;

impl Inbox {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes in all messages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the first message.
    pub fn first_len(&self) -> usize {
        self.messages.front().map_or(0, |m| m.bytes.len() - m.start)
    }

    fn used(&self) -> usize {
        self.bytes + self.messages.len() * OVERHEAD
    }

    /// Whether a writer is told that it may write.
    pub fn has_room(&self) -> bool {
        self.used() * 4 <= CAPACITY
    }

    /// Whether a message of `len` bytes fits now.
    pub fn fits(&self, len: usize) -> bool {
        self.is_empty() || self.used() + OVERHEAD + len <= CAPACITY
    }

    pub fn push(&mut self, message: Message) {
        self.bytes += message.bytes.len() - message.start;
        self.messages.push_back(message);
    }

    /// Put back what of the first message could not be given.
    pub fn put_back(&mut self, message: Message) {
        self.bytes += message.bytes.len() - message.start;
        self.messages.push_front(message);
    }

    /// Make the bytes of `message` part of the last one, if that is of the same sender, has no files, and stays within `most` bytes.
    pub fn append(&mut self, message: &Message, most: usize) -> bool {
        let Some(last) = self.messages.back_mut() else { return false };
        let alike = last.extra.files.is_empty() && last.extra.credentials == message.extra.credentials;
        let fits = last.bytes.len() + message.bytes.len() <= most;
        if !alike || !fits || last.bytes.try_reserve(message.bytes.len()).is_err() {
            return false;
        }
        last.bytes.extend_from_slice(&message.bytes);
        self.bytes += message.bytes.len();
        true
    }

    /// Message `at`.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Message> {
        self.messages.get_mut(at)
    }

    /// `n` bytes of the first message have been received.
    pub fn consume(&mut self, n: usize) {
        self.bytes -= n;
        if let Some(first) = self.messages.front_mut() {
            first.start += n;
        }
    }

    /// Take out the first message.
    pub fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.bytes.len() - message.start;
        Some(message)
    }

    /// Nobody will receive anything: what files there were on their way.
    pub fn take_files(&mut self) -> Vec<Passed> {
        let messages = core::mem::take(self).messages;
        messages.into_iter().map(|m| m.extra.files).filter(|files| !files.is_empty()).collect()
    }

    /// The files on their way here, of each message.
    pub fn passed(&self) -> impl Iterator<Item = &Passed> {
        self.messages.iter().map(|m| &m.extra.files)
    }
}
