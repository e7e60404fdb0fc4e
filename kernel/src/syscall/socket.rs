//! System calls about sockets: pairs of connected streams within the machine. There is no network.
//!
//! Source: socketpair(2), shutdown(2), unix(7).

use super::file::file;
use super::table::Calls;
use crate::errno::{EAFNOSUPPORT, EINVAL, ENOSYS, ENOTSOCK, EPROTONOSUPPORT};
use crate::fs::current;
use crate::fs::open_file::{OpenFile, flag};
use crate::fs::socket_pair;
use crate::mm::user_copy;
use crate::process::missing;
use crate::system_call;

/// Numbers and handlers.
pub const CALLS: Calls = &[(48, shutdown), (53, socketpair)];

const SOCKETPAIR: u32 = 53;
const UNIX: u64 = 1;
const STREAM: u32 = 1;
/// The highest type there is (SOCK_PACKET).
const LAST_TYPE: u32 = 10;

system_call! {
    /// socketpair(2): AF_UNIX, SOCK_STREAM.
    socketpair(domain, kind, protocol, at) {
        let (kind, flags) = (kind as u32 & 0xf, kind as u32 & !0xf);
        if flags & !(flag::CLOEXEC | flag::NONBLOCK) != 0 {
            return Err(EINVAL);
        }
        if domain != UNIX {
            return Err(EAFNOSUPPORT);
        }
        if kind == 0 || kind > LAST_TYPE {
            return Err(EINVAL);
        }
        if protocol > UNIX {
            return Err(EPROTONOSUPPORT);
        }
        if kind != STREAM {
            missing::note_operation(SOCKETPAIR, kind.into());
            return Err(ENOSYS);
        }
        let open = socket_pair::new_pair().map(|end| OpenFile::new(end, flag::RDWR | flags & flag::NONBLOCK, None));
        let files = current::files();
        let [one, other] = open.map(|open| files.install(open, flags & flag::CLOEXEC != 0));
        let written = match (one, other) {
            (Ok(a), Ok(b)) => user_copy::write(at, &[a as u32, b as u32]).map_err(Into::into),
            (Err(e), _) | (_, Err(e)) => Err(e),
        };
        if written.is_err() {
            for fd in [one, other].into_iter().flatten() {
                let _ = files.close(fd);
            }
        }
        written.map(|()| 0)
    }
}
system_call! {
    /// shutdown(2)
    shutdown(fd, how) {
        file(fd)?.file.socket().ok_or(ENOTSOCK)?.shut_down(how)?;
        Ok(0)
    }
}
