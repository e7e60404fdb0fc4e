//! hazard_kernel_memory: every way by which a program might see, change or run what is the kernel's.
//!
//! What went wrong: addresses of the kernel in files of /proc (Linux's kptr_restrict and its many later repairs); SGDT and SIDT, which tell
//! any program where the tables lie where UMIP is not on; system calls that trusted a pointer (CVE-2018-1000199's kin, CVE-2010-4258);
//! mappings at the top of the address space. Here the five instructions that UMIP stops end the program by SIGSEGV. Linux answers them with made-up
//! values, for the sake of Wine; a kernel that runs nothing of that kind has no use for an emulator of instructions in its fault path.

use super::hazard::{Attempts, in_child};
use crate::entry::{Args, Outcome};
use crate::linux::{self, Ended};
use std::arch::asm;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the kernel has there: its text and what follows, the direct map with its first pages and the initrd, the area of mappings, the devices, the end.
const KERNEL: [u64; 9] = [
    0xffff_ffff_8000_0000,
    0xffff_ffff_8000_1000,
    0xffff_ffff_8020_0000,
    0xffff_8000_0000_0000,
    0xffff_8000_0010_0000,
    0xffff_c900_0000_0000,
    0xffff_e000_0000_0000,
    0xffff_ffff_ffff_f000,
    u64::MAX - 7,
];
/// Bytes of a file that are looked at.
const MOST: u64 = 1 << 20;
/// What waits for something to read, or measures for a long time, or is memory of the program itself, or tells where programs have faulted, which
/// is what this one has just done at the kernel's addresses.
const NOT_READ: [&str; 7] = ["kmsg", "trace_pipe", "rcu_fanout", "mem", "torture", "auxv", "trace"];

const SEGV: &[Ended] = &[Ended::Signal(libc::SIGSEGV)];

macro_rules! child {
    ($($code:literal),+ $(; $register:tt = $value:expr)*) => {
        in_child(|| {
            // SAFETY: (1) the instruction faults, or the child ends here.
            unsafe { asm!($($code),+ $(, in($register) $value)*, lateout("rax") _, lateout("rcx") _, lateout("rdx") _) };
            0
        })
    };
}

/// What a system call says of it: an error, or nothing went there.
fn refused(number: i64, args: [u64; 6]) -> bool {
    // SAFETY: (1) no argument is an address of this program's but the buffers that callers name.
    unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) == -1 }
}

fn instructions(attempts: &mut Attempts) {
    for at in KERNEL {
        attempts.ends(&format!("read {at:#x}"), child!("mov rcx, [rax]"; "rax" = at), SEGV);
        attempts.ends(&format!("write {at:#x}"), child!("mov [rax], rcx"; "rax" = at), SEGV);
        attempts.ends(&format!("run {at:#x}"), child!("jmp rax"; "rax" = at), SEGV);
        attempts.ends(&format!("prefetch {at:#x}"), child!("prefetcht0 [rax]"; "rax" = at), &[Ended::Exit(0)]);
    }
    // What UMIP stops; in each form.
    attempts.ends("sgdt", child!("sub rsp, 16", "sgdt [rsp]", "add rsp, 16"), SEGV);
    attempts.ends("sidt", child!("sub rsp, 16", "sidt [rsp]", "add rsp, 16"), SEGV);
    attempts.ends("sldt", child!("sldt rax"), SEGV);
    attempts.ends("sldt to memory", child!("push 0", "sldt [rsp]", "pop rax"), SEGV);
    attempts.ends("str", child!("str rax"), SEGV);
    attempts.ends("str to memory", child!("push 0", "str [rsp]", "pop rax"), SEGV);
    attempts.ends("smsw", child!("smsw rax"), SEGV);
    attempts.ends("smsw to memory", child!("push 0", "smsw [rsp]", "pop rax"), SEGV);
    attempts.ends("rdpmc", child!("xor ecx, ecx", "rdpmc"), SEGV);
}

/// Each call that takes an address, with one of the kernel's: refused, and nothing of it comes out.
fn calls(attempts: &mut Attempts) -> Result<(), std::io::Error> {
    let (from, to) = linux::pipe()?;
    let (from, to) = (from as u64, to as u64);
    let zero = linux::open("/dev/zero", libc::O_RDWR, 0)? as u64;
    let memory = linux::open("/proc/self/mem", libc::O_RDWR, 0)? as u64;
    let own = linux::own_pid() as u64;
    let mut word = 0u64;
    let here = (&raw mut word) as u64;
    for at in KERNEL {
        let page = at & !4095;
        let local = [here, 8];
        let remote = [at, 8];
        let (local, remote) = ((&raw const local) as u64, (&raw const remote) as u64);
        for (name, number, args) in [
            ("write", libc::SYS_write, [to, at, 8, 0, 0, 0]),
            ("read", libc::SYS_read, [zero, at, 8, 0, 0, 0]),
            ("readv", libc::SYS_readv, [zero, at, 1, 0, 0, 0]),
            ("process_vm_readv", libc::SYS_process_vm_readv, [own, local, 1, remote, 1, 0]),
            ("process_vm_writev", libc::SYS_process_vm_writev, [own, local, 1, remote, 1, 0]),
            ("/proc/self/mem, read", libc::SYS_pread64, [memory, here, 8, at, 0, 0]),
            ("/proc/self/mem, write", libc::SYS_pwrite64, [memory, here, 8, at, 0, 0]),
            ("stat", libc::SYS_stat, [c"/".as_ptr() as u64, at, 0, 0, 0, 0]),
            ("open", libc::SYS_open, [at, 0, 0, 0, 0, 0]),
            ("futex", libc::SYS_futex, [at & !3, 0, 0, 0, 0, 0]),
            ("clock_gettime", libc::SYS_clock_gettime, [0, at, 0, 0, 0, 0]),
            ("rt_sigprocmask", libc::SYS_rt_sigprocmask, [0, 0, at, 8, 0, 0]),
            ("mmap", libc::SYS_mmap, [page, 4096, 3, 0x32, u64::MAX, 0]),
            ("munmap", libc::SYS_munmap, [page, 4096, 0, 0, 0, 0]),
            ("mprotect", libc::SYS_mprotect, [page, 4096, 7, 0, 0, 0]),
            ("madvise", libc::SYS_madvise, [page, 4096, 4, 0, 0, 0]),
            ("mincore", libc::SYS_mincore, [page, 4096, here, 0, 0, 0]),
            ("mremap", libc::SYS_mremap, [page, 4096, 8192, 1, 0, 0]),
            ("FS base", libc::SYS_arch_prctl, [0x1002, at, 0, 0, 0, 0]),
            ("GS base", libc::SYS_arch_prctl, [0x1001, at, 0, 0, 0, 0]),
        ] {
            attempts.holds(&format!("{name} of {at:#x}"), refused(number, args));
        }
    }
    attempts.holds("nothing was written to the program", word == 0);
    [from, to, zero, memory].into_iter().for_each(|fd| linux::close(fd as i32));
    Ok(())
}

/// The kernel's half but for its last page, in which small negative numbers lie.
const HALF: Range<u64> = 0xffff_8000_0000_0000..0xffff_ffff_ffff_f000;

/// The first address of the kernel's half in `text`: 16 digits from ffff8 on, but not all of them f, which is -1; or a decimal number.
fn kernel_address(text: &str) -> Option<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).map(|word| word.strip_prefix("0x").unwrap_or(word));
    words.into_iter().find(|word| {
        let decimal = word.parse().is_ok_and(|number| HALF.contains(&number));
        decimal
            || word.len() == 16
                && word.bytes().all(|b| b.is_ascii_hexdigit())
                && word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("ffff"))
                && !matches!(word.as_bytes()[4], b'0'..=b'7')
                && !word.bytes().all(|b| b.eq_ignore_ascii_case(&b'f'))
    })
}

/// Every file below `directory` that can be read tells no address of the kernel's. Of processes: this one, the first, and one of the kernel's.
fn files(attempts: &mut Attempts, directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let process = name.parse::<u32>().is_ok_and(|pid| directory == Path::new("/proc") && pid > 2);
        let Ok(kind) = std::fs::symlink_metadata(&path).map(|m| m.file_type()) else { continue };
        if process || NOT_READ.contains(&name.as_str()) || name == "fd" || name == "task" {
            continue;
        }
        if kind.is_symlink() {
            let target = std::fs::read_link(&path).unwrap_or_default();
            attempts.holds(&format!("{}", path.display()), kernel_address(&target.to_string_lossy()).is_none());
        } else if kind.is_dir() {
            files(attempts, &path);
        } else if let Ok(file) = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path) {
            let mut bytes = Vec::new();
            let _ = file.take(MOST).read_to_end(&mut bytes);
            let text = String::from_utf8_lossy(&bytes);
            let told = kernel_address(&text);
            attempts.holds(&format!("{}: {}", path.display(), told.unwrap_or_default()), told.is_none());
        }
    }
}

/// `hazard_kernel_memory`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_kernel_memory");
    instructions(&mut attempts);
    let called = calls(&mut attempts);
    attempts.holds(&format!("descriptors: {called:?}"), called.is_ok());
    for directory in ["/proc", "/proc/self", "/sys"] {
        files(&mut attempts, Path::new(directory));
    }
    attempts.end()
}

#[cfg(test)]
mod tests {
    use super::kernel_address;

    #[test]
    fn addresses_are_found_among_other_words() {
        for text in ["at ffffffff80101234:", "0xffff800000100000", "x=FFFFC00000000000 y", "(a) 18446744071562072116 0"]
        {
            assert!(kernel_address(text).is_some(), "{text}");
        }
        for text in [
            "7fffffffe000",
            "ffffffffffffffff",
            "18446744073709551615",
            "140737488347136",
            "0000000000000000",
            "ffff",
            "ffff000000000001",
            "ffffffff8010123g",
        ] {
            assert_eq!(kernel_address(text), None, "{text}");
        }
    }
}
