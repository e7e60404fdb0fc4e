//! `host trace demo` (`make trace`): boots a load with an isolated CPU left alone, then interrupted, and writes its trace as
//! it came, as text and as a page.

use super::{conformance, spans, stream, summary, text, timeline};
use crate::accelerator::Chosen;
use crate::failure::{self, Failure};
use crate::image;
use crate::qemu::{self, End, Medium, Qemu};
use crate::settings::{Accel, Settings};
use crate::tree::{Profile, Tree};
use std::io::{Read, Write};
use std::process::Child;
use std::time::{Duration, Instant};

/// Safety net.
const LIMIT: Duration = Duration::from_secs(120);
/// What the kernel is booted with.
const CMDLINE: &str = "nohz_full=1-3 trace_event=irq,ipi,tick,timer,sched,context";
/// What is typed, each at a prompt: a task alone on CPU 1, silence, one interrupt, a second task on it for a while.
const LINES: [&str; 6] =
    ["run -c 1 spin &", "noise -c 1 -s 1", "noise -c 1 -s 1 --inject-ipi", "run -c 1 sleep 0.2", "why 1", "poweroff"];
/// What the shell prints when it waits for a line.
const PROMPT: &[u8] = b"quiesce# ";

/// Builds, runs the load, writes `target/trace/` and says what is in it.
pub fn main(tree: &Tree) -> Result<(), Failure> {
    tree.build(Profile::Release)?;
    let archive = image::boot_archive(tree, Profile::Release, &image::root_file_system(tree)?)?;
    let folder = tree.target.join("trace");
    let [raw, plain, page] = ["demo.trace", "demo.txt", "demo.html"].map(|name| folder.join(name));
    failure::write(&raw, b"")?;
    let settings =
        Settings { accel: Accel::Tcg, cmdline: CMDLINE.into(), trace: Some(raw.clone()), ..Settings::default() };
    run(tree, &settings, &archive)?;
    let trace = stream::read(&raw)?;
    if trace.account.frames == 0 {
        return Err(Failure::Bad(format!("{}: the kernel wrote no frame", raw.display())));
    }
    let spans = spans::spans(&trace);
    failure::write(&plain, text(&trace, &spans).as_bytes())?;
    failure::write(&page, timeline::write(&trace, &spans).as_bytes())?;
    print!("{}\n{}", summary::table(&trace, &spans), summary::account(&trace));
    let findings = conformance::replay(&trace);
    print!("{}", findings.text());
    for (what, path) in [("as it came", &raw), ("text", &plain), ("time line", &page)] {
        println!("{what:12} {}", path.display());
    }
    if findings.faults.is_empty() { Ok(()) } else { Err(Failure::Bad("the trace breaks the rules above".into())) }
}

/// Types the lines and waits for the end.
fn run(tree: &Tree, settings: &Settings, archive: &[u8]) -> Result<(), Failure> {
    let say = |text: &str| eprintln!("trace: {text}");
    let Qemu { child, mut console, slot } = qemu::start(tree, settings, Chosen::Tcg, Medium::Archive(archive), say)?;
    let mut guest = Guest(child);
    let deadline = Instant::now() + LIMIT;
    let io = |e: std::io::Error| Failure::Bad(format!("console: {e}"));
    let mut lines = LINES.iter();
    let (mut log, mut buffer, mut seen) = (Vec::new(), [0u8; 16 * 1024], 0);
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        console.set_read_timeout(Some(left)).map_err(io)?;
        match console.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => log.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => {
                eprint!("{}", String::from_utf8_lossy(&log));
                return Err(Failure::TimedOut(format!("no end after {} s", LIMIT.as_secs())));
            }
        }
        if let Some(at) = log[seen..].windows(PROMPT.len()).position(|window| window == PROMPT) {
            seen += at + PROMPT.len();
            if let Some(line) = lines.next() {
                console.write_all(format!("{line}\n").as_bytes()).map_err(io)?;
            }
        }
    }
    let end = End::of(guest.0.wait().map_err(io)?);
    drop(slot);
    if end == End::Clean {
        return Ok(());
    }
    eprint!("{}", String::from_utf8_lossy(&log));
    Err(Failure::Bad(format!("the guest ended by {end:?}")))
}

/// Ends QEMU on every way out.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended already
        let _ = self.0.wait();
    }
}
