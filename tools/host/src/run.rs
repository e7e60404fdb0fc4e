//! `host run`: what `tools/run-smp` and `make run-smp` do. Builds, boots, and connects the guest's serial console with
//! this process: guest output alone goes to stdout, our own lines go to stderr.

use crate::accelerator;
use crate::busybox;
use crate::failure::{self, Failure};
use crate::image;
use crate::interrupt;
use crate::iso;
use crate::limine;
use crate::qemu::{self, End, Medium};
use crate::settings::Settings;
use crate::symbolize;
use crate::terminal::{Keys, RawTerminal, Typed};
use crate::tree::Tree;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How long QEMU may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(3);
/// How much of the guest's last output is kept for the backtrace, in bytes.
const TAIL_LEN: usize = 256 * 1024;

/// The shell's prompt.
const PROMPT: &[u8] = b"quiesce# ";

/// Command-line options of `host run`: none, all settings come from the environment.
#[derive(clap::Args, Debug)]
pub struct Options {}

enum Event {
    Ended(std::io::Result<ExitStatus>),
    Signal(i32),
    CtrlAX,
    OutputLost(std::io::Error),
}

/// Runs one guest to its end.
pub fn main(tree: &Tree, _: &Options) -> Result<(), Failure> {
    let settings = Settings::from_environment()?;
    let say = |text: &str| eprintln!("run-smp: {text}");
    let limine = limine::choose(tree, &settings, say)?;
    if limine.is_some() {
        iso::find_xorriso("LOADER=limine")?;
    }
    let initrd = settings.initrd.as_deref().map(image::initrd_file).transpose()?;
    if qemu::version().is_none() {
        return Err(Failure::Usage(format!("{}: not found; `make setup` installs it", qemu::QEMU)));
    }
    let accel = accelerator::choose(settings.accel, settings.icount, say)?;
    tree.build(settings.profile)?;
    let initrd = match (initrd, &settings.root) {
        (Some(bytes), _) => bytes,
        (None, Some(dir)) => image::directory(tree, dir).map_err(|e| Failure::Usage(format!("ROOT={e}")))?,
        (None, None) if settings.busybox => busybox::root_file_system(tree, say)?,
        (None, None) => image::root_file_system(tree)?,
    };
    let (events, inbox) = mpsc::channel();
    let bytes = match &limine {
        Some(limine) => iso::disc(tree, limine, settings.profile, &initrd, &settings.cmdline)?,
        None => image::boot_archive(tree, settings.profile, &initrd)?,
    };
    let medium = if limine.is_some() { Medium::Disc(&bytes) } else { Medium::Archive(&bytes) };
    let (tail, end) = boot(tree, &settings, accel, medium, (events, inbox), say)?;
    if let Some(path) = &settings.trace {
        failure::room_left(path).map_err(|e| Failure::Bad(format!("TRACE={e}; the trace may be cut short")))?;
    }
    match end {
        End::Clean => Ok(()),
        bad => {
            let addresses = symbolize::epitaph(&tail);
            if !addresses.is_empty() {
                match symbolize::resolve(&tree.kernel(settings.profile), &tree.root, &addresses) {
                    Ok(text) if text.is_empty() => say("backtrace: no address lies in the kernel's text"),
                    Ok(text) => eprint!("run-smp: backtrace\n{text}"),
                    Err(e) => say(&format!("backtrace: {e}")),
                }
            }
            Err(Failure::Bad(describe(bad)))
        }
    }
}

fn describe(end: End) -> String {
    match end {
        End::Clean => "the guest powered off".into(),
        End::Panic => "the guest ended with a failure (see its last lines)".into(),
        End::Reset => "QEMU ended without a word from the guest (a triple fault resets it)".into(),
        End::QemuError(code) => format!("{} ended with status {code}", qemu::QEMU),
        End::Killed(signal) => format!("{} was ended by signal {signal}", qemu::QEMU),
    }
}

/// Starts QEMU and serves its console until it ends. Returns the end of the output, and how it ended.
fn boot(
    tree: &Tree,
    settings: &Settings,
    accel: accelerator::Chosen,
    medium: Medium<'_>,
    (events, inbox): (Sender<Event>, Receiver<Event>),
    say: impl Fn(&str) + Copy,
) -> Result<(Vec<u8>, End), Failure> {
    let qemu::Qemu { mut child, console, slot, errors } = qemu::start(tree, settings, accel, medium, say)?;
    let signals = events.clone();
    let taken = interrupt::take(move |number| {
        let _ = signals.send(Event::Signal(number)); // nobody listens any more when the guest has ended
    });
    let deadline = settings.timeout.map(|limit| Instant::now() + limit);
    let pid = Pid::from_raw(child.id() as i32);
    let input = || console.try_clone().map_err(|e| Failure::Usage(format!("console: {e}")));
    let (terminal, input) = match RawTerminal::enter().and_then(|terminal| Ok((terminal, input()?))) {
        Ok(ready) => ready,
        Err(failure) => {
            // Who reads its errors reads until it has ended.
            let _ = child.kill();
            let _ = child.wait();
            return Err(failure);
        }
    };
    if terminal.is_some() {
        say("Ctrl-C goes to the guest; Ctrl-A X ends QEMU");
    }
    let on_terminal = terminal.is_some();
    let to_guest = events.clone();
    let (kernel_runs, release) = mpsc::channel();
    // Firmware and loader would swallow a pipe's bytes; a person may want to talk to them.
    let held = matches!(medium, Medium::Disc(_) | Medium::Disk(_)) && !on_terminal;
    std::thread::spawn(move || {
        if held && release.recv().is_err() {
            return; // QEMU has ended
        }
        copy_input(input, on_terminal, &to_guest);
    });
    let (finished, tail) = mpsc::channel();
    let from_guest = events.clone();
    std::thread::spawn(move || finished.send(copy_output(console, kernel_runs, &from_guest)));
    std::thread::spawn(move || events.send(Event::Ended(child.wait())));

    let mut why: Option<Failure> = None;
    let mut kill_at: Option<Instant> = None;
    let status = loop {
        let next = [deadline.filter(|_| why.is_none()), kill_at].into_iter().flatten().min();
        let event = match next {
            Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let reason = match event {
            Ok(Event::Ended(status)) => break status.map_err(|e| Failure::Usage(format!("{}: {e}", qemu::QEMU)))?,
            Ok(Event::Signal(number)) => Failure::Bad(format!("ended by signal {number}")),
            Ok(Event::CtrlAX) => Failure::Bad("ended by Ctrl-A X".into()),
            Ok(Event::OutputLost(e)) => Failure::Bad(format!("standard output: {e}")),
            Err(_) if why.is_some() => {
                let _ = kill(pid, Signal::SIGKILL); // it may have ended meanwhile
                kill_at = None;
                continue;
            }
            Err(_) => {
                let limit = settings.timeout.unwrap_or_default();
                Failure::TimedOut(format!("TIMEOUT={} passed", limit.as_secs_f64()))
            }
        };
        if why.is_none() {
            let _ = kill(pid, Signal::SIGTERM); // it may have ended meanwhile
            why = Some(reason);
            kill_at = Some(Instant::now() + GRACE);
        }
    };
    drop((slot, errors));
    // All output is in the socket now; only a reader of ours that does not read can delay this.
    let tail = tail.recv_timeout(GRACE).unwrap_or_default();
    drop(terminal);
    // Last: from here on a signal ends the command at once.
    drop(taken);
    match why {
        Some(failure) => Err(failure),
        None => Ok((tail, End::of(status))),
    }
}

/// Copies standard input to the guest. Its end is not passed on.
fn copy_input(mut guest: UnixStream, on_terminal: bool, events: &Sender<Event>) {
    let mut keys = Keys::default();
    let mut buffer = [0u8; 4096];
    let mut stdin = std::io::stdin().lock();
    loop {
        let count = match stdin.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let typed = match on_terminal {
            true => keys.take(&buffer[..count]),
            false => Typed::Send(buffer[..count].to_vec()),
        };
        let Typed::Send(bytes) = typed else {
            let _ = events.send(Event::CtrlAX);
            return;
        };
        if guest.write_all(&bytes).is_err() {
            return; // QEMU has ended
        }
    }
}

/// Copies the guest's output to standard output and returns its last part. `kernel_runs` gets one word when the kernel
/// has the serial port.
fn copy_output(mut guest: UnixStream, kernel_runs: Sender<()>, events: &Sender<Event>) -> Vec<u8> {
    let mut kernel_runs = Some(kernel_runs);
    let mut tail = Vec::new();
    let mut buffer = [0u8; 16 * 1024];
    let mut stdout = std::io::stdout().lock();
    let mut lost = false;
    loop {
        let count = match guest.read(&mut buffer) {
            Ok(0) => return tail,
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return tail,
        };
        if !lost && let Err(e) = stdout.write_all(&buffer[..count]).and_then(|()| stdout.flush()) {
            lost = true;
            let _ = events.send(Event::OutputLost(e));
        }
        tail.extend_from_slice(&buffer[..count]);
        if kernel_runs.is_some() && is_kernel_output(&tail) {
            // Nobody waits unless the input is held.
            let _ = kernel_runs.take().map(|waiting| waiting.send(()));
        }
        if tail.len() > 2 * TAIL_LEN {
            tail.drain(..tail.len() - TAIL_LEN);
        }
    }
}

/// True if `output` holds a line of the kernel's log (`[    0.012345] `), or the shell's prompt where `quiet` keeps
/// the log silent.
fn is_kernel_output(output: &[u8]) -> bool {
    const STAMP: &[u8] = b"[ssssS.dddddd] "; // s: blank or digit; S, d: digit
    let matches = |window: &[u8]| {
        std::iter::zip(window, STAMP).all(|(byte, pattern)| match pattern {
            b's' => *byte == b' ' || byte.is_ascii_digit(),
            b'S' | b'd' => byte.is_ascii_digit(),
            exact => byte == exact,
        })
    };
    output.windows(STAMP.len()).any(matches) || output.windows(PROMPT.len()).any(|window| window == PROMPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_from_firmware_and_loader() {
        assert!(is_kernel_output(b"\x1b[2J\x1b[01;01H[    0.053613] Quiesce"));
        assert!(is_kernel_output(b"[12345.053613] x"));
        assert!(is_kernel_output(b"\r\nquiesce# "));
        assert!(!is_kernel_output(b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: loading Boot0001 [ 0.05] limine: Loading"));
        assert!(!is_kernel_output(b""));
    }
}
