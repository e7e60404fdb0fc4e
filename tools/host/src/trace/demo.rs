//! `host trace demo` (`make trace`): boots a load with an isolated CPU left alone, then interrupted, and writes its trace as
//! it came, as text and as a page.

use super::{conformance, spans, stream, summary, text, timeline};
use crate::failure::{self, Failure};
use crate::image;
use crate::measured;
use crate::qemu::{End, Medium};
use crate::settings::{Accel, Settings};
use crate::tree::{Profile, Tree};
use std::time::Duration;

/// Safety net.
const LIMIT: Duration = Duration::from_secs(120);
/// What the kernel is booted with.
const CMDLINE: &str = "nohz_full=1-3 trace_event=irq,ipi,tick,timer,sched,context";
/// What is typed, each at a prompt: a task alone on CPU 1, silence, one interrupt, a second task on it for a while.
const LINES: [&str; 6] =
    ["run -c 1 spin &", "noise -c 1 -s 1", "noise -c 1 -s 1 --inject-ipi", "run -c 1 sleep 0.2", "why 1", "poweroff"];

/// Builds, runs the load, writes `target/trace/` and says what is in it.
pub fn main(tree: &Tree) -> Result<(), Failure> {
    tree.build(Profile::Release)?;
    let archive = image::boot_archive(tree, Profile::Release, &image::root_file_system(tree)?)?;
    let folder = tree.target.join("trace");
    let [raw, plain, page] = ["demo.trace", "demo.txt", "demo.html"].map(|name| folder.join(name));
    failure::write(&raw, b"")?;
    let settings =
        Settings { accel: Accel::Tcg, cmdline: CMDLINE.into(), trace: Some(raw.clone()), ..Settings::default() };
    let (end, log) = measured::typed(tree, &settings, Medium::Archive(&archive), LIMIT, "trace", &LINES)?;
    if end != End::Clean {
        eprint!("{log}");
        return Err(Failure::Bad(format!("the guest ended by {end:?}")));
    }
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
