//! Files: the tree in memory, what is mounted in it, open files and descriptors.
//!
//! Called by system calls and by process creation (tables, working directories, programs to run).

pub mod current;
pub mod device;
pub mod epoll;
pub mod event_counter;
mod expanded;
pub mod generated;
mod gzip;
pub mod initrd;
pub mod inode;
mod kmsg;
pub mod mount;
pub mod open_file;
pub mod pid_file;
pub mod pipe;
pub mod place;
pub mod proc;
pub mod signal_file;
pub mod sys;
pub mod table;
pub mod timer_file;
pub mod tree;
pub mod unix_socket;
pub mod user_buffer;
pub mod waiting;
pub mod work_dir;
mod zstd;

pub use open_file::OpenFile;
pub use table::FileTable;
pub use work_dir::WorkDir;

use crate::errno::{self, Errno};
use crate::mm::address_space::Mapped;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use inode::{Inode, Kind};
use open_file::flag;
use place::Place;

static ROOT: spin::Once<Arc<Place>> = spin::Once::new();

/// The root directory.
pub fn root() -> Arc<Place> {
    let new = || Place { inode: Inode::new_directory(0o755), name: (*b"").into(), parent: None, mount: mount::OF_ROOT };
    ROOT.call_once(|| Arc::new(new())).clone()
}

/// Make the tree: the archive's files, and /dev, /proc, /sys in place. Then start the console's thread. Once.
pub fn init(initrd: Option<&'static [u8]>) {
    let root = root();
    match initrd {
        // SAFETY: 1. the loader says so of modules: whole pages of their own, in the direct map; 2. `init` is called once, and its caller
        // does not look at the archive again.
        Some(archive) => unsafe { initrd::unpack(&root, archive) },
        None => crate::warning!("initrd: none was given"),
    }
    provide(&root, b"dev", "devtmpfs");
    provide(&root, b"proc", "proc");
    provide(&root, b"sys", "sysfs");
    mount_on(place::resolve(&root, b"/dev/pts", true), "devpts");
    crate::tty::console::start();
}

/// Mount `kind` on the directory `name` of the root, which is made if it is not there.
fn provide(root: &Arc<Place>, name: &[u8], kind: &'static str) {
    let _ = tree::insert(&root.inode, name, Inode::new_directory(0o755));
    mount_on(root.child(name), kind);
}

fn mount_on(place: Result<Arc<Place>, Errno>, kind: &'static str) {
    if let Err(e) = place.and_then(|place| mount::mount(&place, kind.as_bytes())) {
        crate::warning!("cannot mount {kind}: error {}", e.0);
    }
}

/// /dev/console for reading and writing.
pub fn open_console() -> Arc<OpenFile> {
    let place = place::resolve(&root(), b"/dev/console", true).ok();
    OpenFile::new(crate::tty::console::open(), flag::RDWR, place)
}

/// A program that runs: while it is there, its file is not opened for writing.
pub struct Running(Arc<Place>);

impl Running {
    /// Its file.
    pub fn place(&self) -> &Arc<Place> {
        &self.0
    }

    /// Absolute path of its file.
    pub fn path(&self) -> Vec<u8> {
        self.0.path()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.inode.runners.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The program at `place`: its pages, and that it runs. EACCES if it is no file or not executable, ETXTBSY while it is open for writing.
pub fn lookup_exec(place: &Arc<Place>) -> Result<(Mapped, Running), Errno> {
    let executable = place.inode.mode.load(Ordering::Relaxed) & 0o111 != 0;
    match &place.inode.kind {
        Kind::Regular(pages) if executable => {
            // Who opens it for writing at the same moment may not see this: the program then runs as it is in memory.
            place.inode.runners.fetch_add(1, Ordering::SeqCst);
            let running = Running(place.clone());
            if place.inode.writers.load(Ordering::SeqCst) > 0 {
                return Err(errno::ETXTBSY);
            }
            let mapped = Mapped { pages: pages.clone(), writable: false, name: Arc::new(place.name_for_maps()) };
            Ok((mapped, running))
        }
        _ => Err(errno::EACCES),
    }
}
