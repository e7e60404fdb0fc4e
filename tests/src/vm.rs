//! A guest under test: boots in QEMU under TCG, by the direct loader unless said otherwise, is typed to, and is waited for. Used by the
//! scenarios only. What was built beforehand (`make build`) is booted; nothing is built here but the counting plugin.
//!
//! Waiting is for text or for the end. The one use of wall-clock time is a limit on the whole guest, after which the
//! scenario fails as timed out. A guest must stay with the thread that spawned it: QEMU is killed when that ends.

use crate::heard::{Heard, Unheard};
use host::accelerator::Chosen;
use host::failure::Failure;
use host::limine::Limine;
use host::plugin::{self, Report};
use host::qemu::{self, End, Medium, Qemu};
use host::settings::{Accel, Firmware, Loader, Settings};
use host::trace::conformance::{self, Findings};
use host::trace::stream::{self, Trace};
use host::tree::{Profile, Tree};
use host::{image, iso, symbolize};
use std::fmt;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Safety net for one guest, in seconds. Loaded hosts are slow; a scenario that needs more says so by `limit`.
const LIMIT_S: u64 = 300;
/// What the shell prints when it waits for a line.
pub const PROMPT: &str = "quiesce# ";

/// Why a scenario failed. Prints as plain lines, also through `Debug`, so that `?` in a test reads well.
pub struct Failed(pub String);

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Failed {
        Failed(failure.to_string())
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Failed {
        Failed(error.to_string())
    }
}

/// A guest that is not started yet.
#[must_use = "a Vm does nothing until `spawn`"]
pub struct Vm {
    settings: Settings,
    archive: Option<Vec<u8>>,
    initrd: Option<Vec<u8>>,
    limine: Option<(Limine, Drive)>,
    count: bool,
    losses: bool,
    limit: Duration,
}

/// How a guest sees the real Limine's image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drive {
    /// As a CD.
    Cd,
    /// As a hard disk; under BIOS Limine's installer has to be there.
    Disk,
}

impl Default for Vm {
    fn default() -> Vm {
        Vm::new()
    }
}

impl Vm {
    /// Four CPUs, 512 MiB, TCG with a thread for each CPU, the kernel's release build, or the debug build if the
    /// environment says `PROFILE=debug`.
    pub fn new() -> Vm {
        let profile = match std::env::var("PROFILE").as_deref() {
            Ok("debug") => Profile::Debug,
            _ => Profile::Release,
        };
        let settings = Settings { accel: Accel::Tcg, loader: Loader::Direct, profile, ..Settings::default() };
        Vm {
            settings,
            archive: None,
            initrd: None,
            limine: None,
            count: false,
            losses: false,
            limit: Duration::from_secs(LIMIT_S),
        }
    }

    /// Number of CPUs.
    pub fn smp(mut self, cpus: u32) -> Vm {
        self.settings.smp = cpus;
        self
    }

    /// Memory, in QEMU's syntax.
    pub fn mem(mut self, size: &str) -> Vm {
        self.settings.mem = size.into();
        self
    }

    /// Kernel parameters behind those of `limine.cfg`.
    pub fn cmdline(mut self, words: &str) -> Vm {
        self.settings.cmdline = words.into();
        self
    }

    /// A second serial port, whose output goes to this file. At the end of the guest it is replayed: a step that nothing explains
    /// fails the scenario, and so does a lost record.
    pub fn trace(mut self, file: &Path) -> Vm {
        self.settings.trace = Some(file.into());
        self
    }

    /// The scenario loses records of its trace on purpose: it fails if none is lost.
    pub fn expects_losses(mut self) -> Vm {
        self.losses = true;
        self
    }

    /// QEMU's CPU model.
    pub fn cpu(mut self, model: &str) -> Vm {
        self.settings.cpu = Some(model.into());
        self
    }

    /// Virtual time counts instructions; the CPUs run in turns, without x2APIC.
    pub fn icount(mut self) -> Vm {
        self.settings.icount = true;
        self
    }

    /// Loads the counting plugin, with `icount`. Ask `host::plugin::why_not` first, and skip if it gives a reason.
    pub fn count(mut self) -> Vm {
        self.count = true;
        self.icount()
    }

    /// A root file system in place of our own.
    pub fn initrd(mut self, cpio: Vec<u8>) -> Vm {
        self.initrd = Some(cpio);
        self
    }

    /// A whole boot archive in place of the usual one.
    pub fn archive(mut self, cpio: Vec<u8>) -> Vm {
        self.archive = Some(cpio);
        self
    }

    /// The real Limine in place of the direct loader.
    pub fn limine(mut self, limine: &Limine, firmware: Firmware, drive: Drive) -> Vm {
        self.settings.loader = Loader::Limine;
        self.settings.firmware = firmware;
        self.limine = Some((limine.clone(), drive));
        self
    }

    /// Further arguments for QEMU.
    pub fn qemu_args(mut self, words: &[&str]) -> Vm {
        self.settings.qemu_args.extend(words.iter().map(|w| w.to_string()));
        self
    }

    /// The safety net for the whole guest, in seconds of the host.
    pub fn limit(mut self, seconds: u64) -> Vm {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Starts the guest.
    pub fn spawn(mut self) -> Result<Running, Failed> {
        let tree = Tree::find(None)?;
        self.settings.check()?;
        let profile = self.settings.profile;
        let initrd = |given: Option<Vec<u8>>| given.map_or_else(|| image::root_file_system(&tree), Ok);
        let bytes = match (&self.limine, self.archive) {
            (Some((limine, drive)), _) => {
                let disc = iso::disc(&tree, limine, profile, &initrd(self.initrd)?, &self.settings.cmdline)?;
                match (drive, &limine.installer) {
                    (Drive::Disk, Some(installer)) => iso::installed(installer, disc)?,
                    _ => disc,
                }
            }
            (None, Some(archive)) => archive,
            (None, None) => image::boot_archive(&tree, profile, &initrd(self.initrd)?)?,
        };
        let medium = match &self.limine {
            None => Medium::Archive(&bytes),
            Some((_, Drive::Cd)) => Medium::Disc(&bytes),
            Some((_, Drive::Disk)) => Medium::Disk(&bytes),
        };
        let counts = match self.count {
            false => None,
            true => {
                let out = plugin::Counts::new()?;
                self.settings.qemu_args.extend(plugin::arguments(&plugin::build(&tree)?, &out.path()));
                Some(out)
            }
        };
        let Qemu { child, console, slot, errors } = qemu::start(&tree, &self.settings, Chosen::Tcg, medium, |_| {})?;
        let heard = Heard::listen(console.try_clone()?);
        let kernel = tree.kernel(self.settings.profile);
        let trace = self.settings.trace.clone().map(|path| (path, self.losses));
        let deadline = Instant::now() + self.limit;
        Ok(Running {
            child,
            console,
            _slot: slot,
            _errors: errors,
            heard,
            seen: 0,
            deadline,
            limit: self.limit,
            counts,
            trace,
            tree,
            kernel,
        })
    }
}

/// A running guest. Dropping it ends QEMU.
pub struct Running {
    child: Child,
    console: UnixStream,
    _slot: host::slot::Slot,
    _errors: qemu::Errors,
    heard: Arc<Heard>,
    seen: usize,
    deadline: Instant,
    limit: Duration,
    counts: Option<plugin::Counts>,
    trace: Option<(PathBuf, bool)>,
    tree: Tree,
    kernel: PathBuf,
}

/// How a guest ended, and all that it printed.
#[derive(Debug)]
pub struct Finished {
    /// True after a power-off by the guest.
    pub clean: bool,
    /// The end in detail.
    pub end: End,
    /// All serial output, without carriage returns.
    pub output: String,
    /// What the counting plugin reported; empty without it.
    pub counts: Report,
    /// The second serial port's trace, which follows the rules.
    pub trace: Option<(Trace, Findings)>,
}

impl Running {
    /// Waits until `text` appears in output not seen before, and returns that output up to and including it, without
    /// carriage returns.
    pub fn expect(&mut self, text: &str) -> Result<String, Failed> {
        let heard = self.heard.expect(&mut self.seen, text, self.deadline);
        heard.map_err(|why| match why {
            Unheard::Closed => self.failed(&format!("the guest ended before it printed {text:?}")),
            Unheard::TimedOut => {
                self.failed(&format!("timed out after {} s, waiting for {text:?}", self.limit.as_secs()))
            }
        })
    }

    /// Waits for the shell's prompt; returns what came before it.
    pub fn prompt(&mut self) -> Result<String, Failed> {
        let text = self.expect(PROMPT)?;
        Ok(text.trim_end_matches(PROMPT).to_string())
    }

    /// Types `text`; waits while the guest has no room for it.
    pub fn send(&mut self, text: &str) -> Result<(), Failed> {
        let left = self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.console.set_write_timeout(Some(left))?;
        self.console.write_all(text.as_bytes()).map_err(|e| self.failed(&format!("typing {text:?}: {e}")))
    }

    /// Types one line at the prompt and returns what the shell printed until its next prompt, without the echo.
    pub fn command(&mut self, line: &str) -> Result<String, Failed> {
        self.send(&format!("{line}\n"))?;
        let text = self.prompt()?;
        Ok(text.strip_prefix(line).map(|rest| rest.trim_start_matches('\n').to_string()).unwrap_or(text))
    }

    /// Types one line, which starts something in the background, and waits for the line with `text` that this prints and for the shell's
    /// next prompt, in whichever order they come; returns what came up to the later of the two. `text` is not in what is typed.
    pub fn background(&mut self, line: &str, text: &str) -> Result<String, Failed> {
        let first = self.seen;
        self.send(&format!("{line}\n"))?;
        self.expect(text)?;
        self.expect("\n")?;
        let said = std::mem::replace(&mut self.seen, first);
        self.expect(PROMPT)?;
        self.seen = self.seen.max(said);
        let output = self.heard.lock();
        Ok(String::from_utf8_lossy(&output.bytes[first..self.seen]).replace('\r', ""))
    }

    /// Types `poweroff` and waits for the end.
    pub fn power_off(mut self) -> Result<Finished, Failed> {
        self.send("poweroff\n")?;
        self.finish()
    }

    /// Waits for the guest's end.
    pub fn finish(mut self) -> Result<Finished, Failed> {
        if self.heard.end(self.deadline).is_err() {
            let text = format!("timed out after {} s, waiting for the guest's end", self.limit.as_secs());
            return Err(self.failed(&text));
        }
        let text = self.heard.text();
        let end = End::of(self.child.wait()?);
        let counts = match self.counts.take() {
            None => Report::default(),
            Some(counts) => plugin::parse(&counts.text()?)?,
        };
        let trace = match self.trace.take() {
            None => None,
            Some((path, losses)) => Some(replayed(&path, losses).map_err(|failed| self.failed(&failed.0))?),
        };
        Ok(Finished { clean: end == End::Clean, end, output: text, counts, trace })
    }

    /// Whether `text` came in output that was not waited for yet.
    pub fn has_said(&self, text: &str) -> bool {
        let output = self.heard.lock();
        output.bytes[self.seen..].windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// The ELF file of the kernel that it runs.
    pub fn kernel(&self) -> &Path {
        &self.kernel
    }

    /// The QEMU process, for scenarios that look at it from outside.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// A failure of the scenario: `what`, the guest's last lines, and where in the kernel it died if it did.
    pub fn failed(&self, what: &str) -> Failed {
        let text = self.heard.text();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(60)..].join("\n  | ");
        let mut message = format!("{what}\n  the guest's last lines:\n  | {last}");
        let addresses = symbolize::epitaph(text.as_bytes());
        if !addresses.is_empty()
            && let Ok(backtrace) = symbolize::resolve(&self.kernel, &self.tree.root, &addresses)
        {
            message.push_str(&format!("\n  backtrace:\n{backtrace}"));
        }
        Failed(message)
    }
}

/// The trace in this file, replayed against the rules of the context word. Fails for a step that nothing explains, for what did not arrive
/// whole, and for lost records unless there have to be some.
fn replayed(path: &Path, losses: bool) -> Result<(Trace, Findings), Failed> {
    let trace = stream::read(path)?;
    let findings = conformance::replay(&trace);
    let account = &trace.account;
    let broken = [account.missing_frames, account.bad_frames, account.bad_crcs, account.skipped_bytes];
    let lost = (account.all().lost_in_kernel, account.all().lost_on_line());
    let what = match () {
        () if !findings.faults.is_empty() => "the trace does not follow the rules",
        () if broken != [0; 4] || !trace.undecodable.is_empty() || lost.1 != 0 => "the trace did not arrive whole",
        () if !account.ended => "the trace has no end",
        () if lost.0 != 0 && !losses => "the trace has losses",
        () if lost.0 == 0 && losses => "the trace has no losses, and should",
        () => return Ok((trace, findings)),
    };
    Err(Failed(format!(
        "{what}: {} lost in the kernel, {} on the line; frames missing, bad, with a wrong checksum, bytes skipped: {broken:?}\n{}",
        lost.0,
        lost.1,
        findings.text()
    )))
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// Fails unless the guest powered off.
    pub fn assert_clean(&self) {
        assert!(self.clean, "the guest ended by {:?}, not by a power-off:\n{}", self.end, self.output);
    }
}
