//! One QEMU: its command line, its start, its console stream and its end. Used by `run` and the scenarios.
//!
//! The console is a socket pair, so the end of our standard input is never seen by the guest, input waits until the
//! UART has room, and no file is left behind. The boot medium is an unnamed memory file. QEMU dies with the thread
//! that started it (PR_SET_PDEATHSIG), so nothing is left running even after SIGKILL.

use crate::accelerator::Chosen;
use crate::failure::Failure;
use crate::ovmf::{self, Ovmf};
use crate::settings::{Firmware, Settings, XAPIC_CPUS};
use crate::slot::{self, Slot};
use crate::tool;
use crate::tree::Tree;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// QEMU's exit status after the guest wrote 0x10 to the debug-exit port: a clean power-off.
const CLEAN: i32 = 33;
/// The same for 0x11: a panic, or a loader failure.
const PANIC: i32 = 35;

/// How a guest ended, by QEMU's exit status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The guest powered off.
    Clean,
    /// The guest said that it failed.
    Panic,
    /// QEMU ended without a word from the guest: a reset (triple fault), or QEMU's own quit.
    Reset,
    /// QEMU's own error status.
    QemuError(i32),
    /// QEMU was ended by this signal.
    Killed(i32),
}

impl End {
    /// Reads QEMU's exit status.
    pub fn of(status: ExitStatus) -> End {
        match (status.code(), status.signal()) {
            (Some(CLEAN), _) => End::Clean,
            (Some(PANIC), _) => End::Panic,
            (Some(0), _) => End::Reset,
            (Some(code), _) => End::QemuError(code),
            (None, signal) => End::Killed(signal.unwrap_or_default()),
        }
    }
}

/// A running QEMU.
pub struct Qemu {
    /// The process.
    pub child: Child,
    /// The guest's serial console: reads give its output, writes are typed into it.
    pub console: UnixStream,
    /// Held while QEMU runs.
    pub slot: Slot,
    /// What QEMU itself says goes to our standard error; dropped when QEMU has ended, it waits for the last of it.
    pub errors: Errors,
}

/// Passes on what QEMU says, but for the line that a signal of ours ended it.
pub struct Errors(Option<JoinHandle<()>>);

impl Errors {
    fn pass_on(child: &mut Child) -> Errors {
        let lines = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
        let ours = format!("terminating on signal {} from pid {} ", Signal::SIGTERM as i32, std::process::id());
        let pass = move |line: String| match line.contains(&ours) {
            true => {}
            false => eprintln!("{line}"),
        };
        Errors(lines.map(|lines| std::thread::spawn(move || lines.map_while(Result::ok).for_each(pass))))
    }
}

impl Drop for Errors {
    fn drop(&mut self) {
        let _ = self.0.take().map(JoinHandle::join); // it cannot have panicked
    }
}

/// What the guest boots from.
#[derive(Clone, Copy, Debug)]
pub enum Medium<'a> {
    /// The direct loader's boot archive.
    Archive(&'a [u8]),
    /// A CD with the real Limine.
    Disc(&'a [u8]),
    /// The same image as a hard disk.
    Disk(&'a [u8]),
    /// Another kernel's own image (Linux's bzImage) with its first file system, by the same firmware as `Archive`.
    Foreign {
        /// The kernel's file.
        kernel: &'a std::path::Path,
        /// The first file system.
        initrd: &'a [u8],
    },
}

impl<'a> Medium<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Medium::Archive(bytes) | Medium::Disc(bytes) | Medium::Disk(bytes) => bytes,
            Medium::Foreign { initrd, .. } => initrd,
        }
    }
}

/// Starts QEMU with `medium`, after waiting for a free slot.
pub fn start(
    tree: &Tree,
    settings: &Settings,
    accel: Chosen,
    medium: Medium<'_>,
    say: impl FnOnce(&str),
) -> Result<Qemu, Failure> {
    let slot = slot::take(|| say("waiting: two QEMUs run already"))?;
    let io = |what: &'static str| move |e: std::io::Error| Failure::Usage(format!("{what}: {e}"));
    let uefi = match (medium, settings.firmware) {
        (Medium::Disc(_) | Medium::Disk(_), Firmware::Uefi) => Some(ovmf::find()?),
        _ => None,
    };
    let file = memory_file(medium.bytes()).map_err(io("boot medium"))?;
    let (console, guest_side) = UnixStream::pair().map_err(io("console socket"))?;
    let mut arguments = arguments(settings, accel, guest_side.as_raw_fd());
    arguments.extend(boot_arguments(tree, settings, medium, uefi.as_ref(), file.as_raw_fd()));
    arguments.extend(settings.qemu_args.iter().cloned());
    let mut command = Command::new(QEMU);
    command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = spawn(&mut command, [file.as_raw_fd(), guest_side.as_raw_fd()]).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Failure::Usage(format!("{QEMU}: not found; `make setup` installs it")),
        _ => Failure::Usage(format!("{QEMU}: {e}")),
    })?;
    let errors = Errors::pass_on(&mut child);
    Ok(Qemu { child, console, slot, errors })
}

/// Starts `command` as a process that dies with this thread, is not reached by Ctrl-C, and has the descriptors `passed`, which are open here.
pub fn spawn<const N: usize>(command: &mut Command, passed: [RawFd; N]) -> std::io::Result<Child> {
    let parent = nix::unistd::getpid();
    command.process_group(0);
    // SAFETY: 1. the closure runs in the child between fork and exec and makes async-signal-safe system calls only
    // (fcntl, prctl, getppid); 2. it allocates nothing; 3. the descriptors stay open until `spawn` has returned.
    unsafe {
        command.pre_exec(move || {
            for fd in passed {
                keep_across_exec(fd)?;
            }
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() != parent {
                return Err(std::io::ErrorKind::Interrupted.into()); // the parent died before the request above
            }
            Ok(())
        });
    }
    command.spawn()
}

fn keep_across_exec(fd: RawFd) -> std::io::Result<()> {
    // SAFETY: 1. called by the child only, on descriptors that `start` holds open in the parent.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// A file without a name that holds `bytes`.
pub fn memory_file(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let fd = memfd_create(c"quiesce-medium", MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// QEMU's arguments for the machine. `console` is a descriptor that QEMU inherits.
fn arguments(settings: &Settings, accel: Chosen, console: RawFd) -> Vec<String> {
    let many = settings.smp > XAPIC_CPUS;
    let machine = if many && accel == Chosen::Kvm { "q35,kernel-irqchip=split" } else { "q35" };
    let model = match (accel, &settings.cpu) {
        (_, Some(model)) => model.clone(),
        (Chosen::Tcg, None) => "max".into(),
        (Chosen::Kvm, None) => "host".into(),
    };
    let no_x2apic = model.split(',').any(|w| matches!(w, "-x2apic" | "x2apic=off"));
    let model = if settings.icount && !no_x2apic { format!("{model},-x2apic") } else { model };
    let accel = match accel {
        Chosen::Kvm => "kvm",
        Chosen::Tcg if settings.icount => "tcg,thread=single",
        Chosen::Tcg => "tcg,thread=multi",
    };
    let mut words: Vec<String> = Vec::new();
    let mut add = |list: &[&str]| words.extend(list.iter().map(|w| w.to_string()));
    add(&["-M", machine, "-nodefaults", "-display", "none", "-vga", "none", "-no-reboot"]);
    add(&["-accel", accel, "-cpu", &model, "-smp", &settings.smp.to_string(), "-m", &settings.mem]);
    if settings.icount {
        add(&["-icount", "shift=0,sleep=off", "-rtc", "base=2024-01-01,clock=vm", "-seed", "1"]);
    }
    if many {
        add(&["-device", "intel-iommu,intremap=on,eim=on"]);
    }
    add(&["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    add(&["-chardev", &format!("socket,id=console,fd={console}"), "-serial", "chardev:console"]);
    if let Some(path) = &settings.trace {
        let path = path.display().to_string().replace(',', ",,");
        add(&["-chardev", &format!("file,id=trace,path={path}"), "-serial", "chardev:trace"]);
    }
    words
}

/// QEMU's arguments for firmware and `medium`, whose bytes are in `file`, a descriptor that QEMU inherits.
fn boot_arguments(
    tree: &Tree,
    settings: &Settings,
    medium: Medium<'_>,
    uefi: Option<&Ovmf>,
    file: RawFd,
) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut add = |list: &[&str]| words.extend(list.iter().map(|w| w.to_string()));
    if let Some(Ovmf { code, variables }) = uefi {
        add(&["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={}", code.display())]);
        // snapshot=on: writes go to an unnamed file of QEMU's.
        add(&["-drive", &format!("if=pflash,unit=1,format=raw,snapshot=on,file={}", variables.display())]);
    }
    let file = format!("/proc/self/fd/{file}");
    match medium {
        Medium::Archive(_) | Medium::Foreign { .. } => {
            let loader = match medium {
                Medium::Foreign { kernel, .. } => kernel.to_path_buf(),
                _ => tree.loader(),
            };
            add(&["-bios", "qboot.rom", "-kernel", &loader.display().to_string()]);
            add(&["-initrd", &file, "-append", &settings.cmdline]);
        }
        Medium::Disc(_) => {
            add(&["-drive", &format!("if=ide,media=cdrom,format=raw,readonly=on,file={file}"), "-boot", "d"]);
        }
        Medium::Disk(_) => add(&["-drive", &format!("if=virtio,format=raw,snapshot=on,file={file}"), "-boot", "c"]),
    }
    words
}

/// QEMU's version as (major, minor), or None if it is missing or says nothing that can be read.
pub fn version() -> Option<(u32, u32)> {
    let output = tool::output(Command::new(QEMU).arg("--version")).ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split("version ").nth(1)?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(settings: &Settings, accel: Chosen) -> String {
        arguments(settings, accel, 8).join(" ")
    }

    #[test]
    fn icount_turns_x2apic_off() {
        let mut settings = Settings { icount: true, ..Settings::default() };
        let words = line(&settings, Chosen::Tcg);
        assert!(words.contains("-accel tcg,thread=single -cpu max,-x2apic "), "{words}");
        assert!(words.contains("-icount shift=0,sleep=off -rtc base=2024-01-01,clock=vm -seed 1"), "{words}");
        settings.cpu = Some("qemu64,-x2apic".into());
        assert!(line(&settings, Chosen::Tcg).contains("-cpu qemu64,-x2apic "));
    }

    #[test]
    fn many_cpus_get_an_interrupt_remapper() {
        let settings = Settings { smp: 256, ..Settings::default() };
        assert!(line(&settings, Chosen::Tcg).contains("-device intel-iommu,intremap=on,eim=on"));
        assert!(line(&settings, Chosen::Kvm).contains("kernel-irqchip=split"));
        assert!(!line(&Settings::default(), Chosen::Tcg).contains("iommu"));
    }

    #[test]
    fn each_medium_has_its_own_way_in() {
        let tree = Tree { root: "/r".into(), target: "/t".into() };
        let settings = Settings { cmdline: "quiet".into(), ..Settings::default() };
        let ovmf = Ovmf { code: "/f/code".into(), variables: "/f/vars".into() };
        let words = |medium, uefi| boot_arguments(&tree, &settings, medium, uefi, 7).join(" ");
        let direct = words(Medium::Archive(&[]), None);
        assert!(direct.contains("-initrd /proc/self/fd/7 -append quiet"), "{direct}");
        let foreign = words(Medium::Foreign { kernel: std::path::Path::new("/l/vmlinuz"), initrd: &[] }, None);
        assert!(foreign.contains("-kernel /l/vmlinuz -initrd /proc/self/fd/7 -append quiet"), "{foreign}");
        let disc = words(Medium::Disc(&[]), None);
        assert!(disc.contains("media=cdrom") && disc.ends_with("file=/proc/self/fd/7 -boot d"), "{disc}");
        assert!(!disc.contains("-kernel") && !disc.contains("quiet"), "the command line is on the disc: {disc}");
        let disk = words(Medium::Disk(&[]), Some(&ovmf));
        assert!(disk.contains("readonly=on,file=/f/code -drive if=pflash,unit=1"), "{disk}");
        assert!(disk.contains("snapshot=on,file=/f/vars") && !disk.contains("cdrom"), "{disk}");
    }

    #[test]
    fn versions() {
        assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10)"), Some((10, 0)));
        assert_eq!(parse_version("QEMU emulator version 7.2.17"), Some((7, 2)));
        assert_eq!(parse_version("bash: not found"), None);
    }

    #[test]
    fn ends() {
        let end = |raw: i32| End::of(ExitStatus::from_raw(raw));
        assert_eq!(end(33 << 8), End::Clean);
        assert_eq!(end(35 << 8), End::Panic);
        assert_eq!(end(0), End::Reset);
        assert_eq!(end(1 << 8), End::QemuError(1));
        assert_eq!(end(9), End::Killed(9));
    }
}
