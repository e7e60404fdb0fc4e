//! At most two QEMUs at once on one machine for one user: two names of sockets, which are no files. Taken by `qemu`; a slot is free
//! again when its holder ends, however it ends.

use crate::failure::Failure;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

const SLOTS: usize = 2;
const RETRY: Duration = Duration::from_millis(50);

/// A held slot; dropping it frees it.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held for its name")] UnixListener);

/// Waits for a free slot. `on_wait` is called once if there is none at first.
pub fn take(on_wait: impl FnOnce()) -> Result<Slot, Failure> {
    let user = nix::unistd::geteuid();
    let mut on_wait = Some(on_wait);
    loop {
        for number in 0..SLOTS {
            let name = format!("quiesce-qemu-{user}-{number}");
            let bound = SocketAddr::from_abstract_name(&name).and_then(|address| UnixListener::bind_addr(&address));
            match bound {
                Ok(socket) => return Ok(Slot(socket)),
                Err(e) if e.kind() == ErrorKind::AddrInUse => {}
                Err(e) => return Err(Failure::Usage(format!("socket @{name}: {e}"))),
            }
        }
        if let Some(say) = on_wait.take() {
            say();
        }
        std::thread::sleep(RETRY);
    }
}
