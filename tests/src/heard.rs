//! A stream's bytes as they arrive, collected by a thread of their own and waited for. Used by everything here that listens.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

/// What came so far, and who waits for more.
#[derive(Default)]
pub struct Heard {
    state: Mutex<Output>,
    changed: Condvar,
}

/// What came so far.
#[derive(Default)]
pub struct Output {
    /// Every byte.
    pub bytes: Vec<u8>,
    /// True if no more will come.
    pub closed: bool,
}

/// Why a text was not heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unheard {
    /// The stream ended.
    Closed,
    /// Time is up.
    TimedOut,
}

impl Heard {
    /// Listens to `stream` from now on.
    pub fn listen(mut stream: impl Read + Send + 'static) -> Arc<Heard> {
        let heard = Arc::new(Heard::default());
        let shared = heard.clone();
        std::thread::spawn(move || {
            let mut buffer = [0u8; 16 * 1024];
            loop {
                // An error ends a terminal whose other side is closed.
                let count = stream.read(&mut buffer).unwrap_or(0);
                let mut output = shared.lock();
                output.bytes.extend_from_slice(&buffer[..count]);
                output.closed = count == 0;
                shared.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        heard
    }

    /// What came so far.
    pub fn lock(&self) -> MutexGuard<'_, Output> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until `look` finds what it looks for.
    pub fn wait<T>(&self, deadline: Instant, mut look: impl FnMut(&Output) -> Option<T>) -> Result<T, Unheard> {
        let mut output = self.lock();
        loop {
            if let Some(found) = look(&output) {
                return Ok(found);
            }
            if output.closed {
                return Err(Unheard::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Unheard::TimedOut);
            }
            output = self.changed.wait_timeout(output, left).unwrap_or_else(|p| p.into_inner()).0;
        }
    }

    /// Waits until `text` comes behind `seen`, which then stands behind it; returns what came up to there, without carriage returns.
    pub fn expect(&self, seen: &mut usize, text: &str, deadline: Instant) -> Result<String, Unheard> {
        self.wait(deadline, |output| {
            let fresh = &output.bytes[*seen..];
            let end = fresh.windows(text.len()).position(|window| window == text.as_bytes())? + text.len();
            *seen += end;
            Some(plain(&fresh[..end]))
        })
    }

    /// Waits for the end of the stream.
    pub fn end(&self, deadline: Instant) -> Result<(), Unheard> {
        self.wait(deadline, |output| output.closed.then_some(()))
    }

    /// All that came so far, without carriage returns.
    pub fn text(&self) -> String {
        plain(&self.lock().bytes)
    }
}

fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}
