//! respawn: forks, executes, and waits for the end, many times; or makes a crowd of orphans at once, or entries in tables that are mostly empty;
//! and what of the kernel's memory did not come back.

use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, Fork};
use crate::output::{describe, write_out};
use crate::program::{busy, fuzz};

const USAGE: &str = "usage: respawn TIMES | respawn orphans COUNT | respawn tables COUNT";
/// Rounds before memory is looked at: what the kernel keeps for the next one (stacks, room of lists, pages of files) is there then.
const WARM_UP: u32 = 100;

/// Something so many times.
type Round = fn(u32) -> Result<(), Failure>;

/// `respawn TIMES`, `respawn orphans COUNT`, `respawn tables COUNT`: fails if more tasks, page frames or bytes of the kernel's heap are in use than before.
pub fn main(args: &Args) -> Outcome {
    let number = |word: &str| word.parse::<u32>().map_err(|e| Failure::usage(format!("{e} ({USAGE})")));
    let (what, warm_up, count, round): (_, _, _, Round) = match args.rest() {
        [times] => ("times fork, execve, exit", WARM_UP, number(times)?, respawn),
        [word, count] if word == "orphans" => ("orphans at once", 1, number(count)?, orphans),
        [word, count] if word == "tables" => ("entries in tables", 0, number(count)?, tables),
        _ => return Err(Failure::usage(USAGE)),
    };
    if warm_up != 0 {
        round(warm_up)?
    } else {
        orphans(1)?;
        fuzz::memory::start_threads()?;
    }
    let before = fuzz::memory::in_use()?;
    round(count)?;
    let [tasks, frames, heap_bytes, _] = fuzz::memory::left_over(&before)?;
    let left = format!(
        "tasks {} to {tasks}, frames {} to {frames}, bytes of the heap {} to {heap_bytes}",
        before[0], before[1], before[2]
    );
    write_out(format!("respawn: {count} {what}: nothing left over: {left}\n").as_bytes());
    Ok(0)
}

fn respawn(times: u32) -> Result<(), Failure> {
    (0..times).try_for_each(|_| busy::exec_true()).map_err(Failure::new)
}

/// Children of a child that ends before them; they end, all together, when init has them.
fn orphans(count: u32) -> Result<(), Failure> {
    let fail = |e: std::io::Error| Failure::new(format!("orphans: {}", describe(&e)));
    let (reader, writer) = linux::pipe().map_err(fail)?;
    let parent = match linux::fork().map_err(fail)? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            linux::close(writer);
            for _ in 0..count {
                match linux::fork() {
                    Ok(Fork::Parent(_)) => {}
                    // The end of what nobody writes.
                    Ok(Fork::Child) => linux::exit_now(linux::read(reader, &mut [0]).map_or(1, |_| 0)),
                    Err(_) => linux::exit_now(1),
                }
            }
            linux::exit_now(0)
        }
    };
    linux::close(reader);
    let ended = linux::wait_for(parent).map_err(fail)?;
    linux::close(writer);
    if ended.status() == 0 { Ok(()) } else { Err(Failure::new(format!("the orphans' parent ended with {ended:?}"))) }
}

/// A name of a socket that the kernel chooses; a timer by the time of day; a wait for a lock that a child holds.
fn tables(count: u32) -> Result<(), Failure> {
    let fail = || Failure::new(format!("tables: {}", describe(&std::io::Error::last_os_error())));
    let page = linux::shared_page().map_err(|e| Failure::new(format!("shared memory: {}", describe(&e))))?;
    let word = page[0].as_ptr();
    for _ in 0..count {
        // SAFETY: (1) plain integers, for which zero is a value; (2) valid structures, and a descriptor of its own.
        unsafe {
            let mut address: libc::sockaddr_un = std::mem::zeroed();
            address.sun_family = libc::AF_UNIX as u16;
            let file = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
            if file < 0 || libc::bind(file, (&raw const address).cast(), 2) != 0 || libc::close(file) != 0 {
                return Err(fail());
            }
            let mut never: libc::itimerspec = std::mem::zeroed();
            never.it_value.tv_sec = 1 << 32;
            let timer = libc::timerfd_create(libc::CLOCK_REALTIME, 0);
            let set = libc::timerfd_settime(timer, libc::TFD_TIMER_ABSTIME, &raw const never, std::ptr::null_mut());
            if timer < 0 || set != 0 || libc::close(timer) != 0 {
                return Err(fail());
            }
        }
        let (reader, writer) = linux::pipe().map_err(|_| fail())?;
        let holder = match linux::fork().map_err(|_| fail())? {
            Fork::Parent(pid) => pid,
            Fork::Child => {
                linux::close(writer);
                linux::exit_now(linux::read(reader, &mut [0]).map_or(1, |_| 0))
            }
        };
        linux::close(reader);
        // Long ago: who has to wait is known, and then at once no more.
        let past = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        // SAFETY: (1) the shared page is mapped until the end, and its word is the holder's number.
        let waited = unsafe {
            word.cast::<u32>().write_volatile(holder as u32);
            libc::syscall(libc::SYS_futex, word, libc::FUTEX_LOCK_PI, 0, &raw const past)
        };
        let timed_out = waited == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT);
        linux::close(writer);
        let ended = linux::wait_for(holder).map_err(|_| fail())?;
        if !timed_out || ended.status() != 0 {
            return Err(Failure::new(format!("tables: the wait gave {waited}, the holder ended with {ended:?}")));
        }
    }
    // SAFETY: (1) a mapping of its own, which nothing uses any more.
    unsafe { libc::munmap(std::ptr::from_ref(page).cast_mut().cast(), size_of::<linux::SharedPage>()) };
    Ok(())
}
