//! Scenario: Bochs, whose CPU has what QEMU's TCG lacks: TSC-deadline mode, an invariant TSC and AVX-512. Boots by GRUB (multiboot2).
//!
//! Bochs is an interpreter and slow: two CPUs, one boot. Its exit code says nothing, so the serial text is what counts.

use host::tree::Tree;
use scenarios::{Failed, Outcome, skip};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Safety net for the run.
const LIMIT: Duration = Duration::from_secs(300);
/// The kernel's last line.
const END: &str = "reboot: Power down";
/// Where Debian's packages put the firmware.
const BIOS: &str = "/usr/share/bochs/BIOS-bochs-latest";
const VGA_BIOS: &str = "/usr/share/vgabios/vgabios.bin";
/// What init's shell is to do (at most 32 words): a CPU with a tick, a sleep beside a spinning task, a CPU without tick, all
/// registers of tasks that take turns.
const COMMANDS: &str = "noise -c 0 -s 0.1 --json ';' run -c 1 spin '&' sleep 0.05 ';' why 1 ';' kill %1 ';' noise -c 1 -s 0.1 --json ';' calls vector_";

/// A scratch directory that goes with the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is under the build directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A run of Bochs on a terminal of its own, ended with its holder, and its serial line.
struct Bochs {
    process: Child,
    serial: Receiver<Vec<u8>>,
}

impl Bochs {
    /// Ends it, and gives what `script` had to say: it needs a pseudo-terminal, for one.
    fn complaint(&mut self) -> String {
        let mut said = String::new();
        let _ = self.process.kill(); // it may have ended
        if let Some(mut stderr) = self.process.stderr.take() {
            let _ = stderr.read_to_string(&mut said); // what was read up to an error is what there is
        }
        said
    }
}

impl Drop for Bochs {
    fn drop(&mut self) {
        // Its terminal closes with `script`, and Bochs takes that as its end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn missing() -> Option<&'static str> {
    let found = |name: &str| std::env::split_paths(&std::env::var_os("PATH")?).find(|dir| dir.join(name).is_file());
    if let Some(program) =
        ["bochs", "script", "grub-mkrescue", "xorriso", "mformat"].into_iter().find(|p| found(p).is_none())
    {
        return Some(program);
    }
    [BIOS, VGA_BIOS, "/usr/lib/grub/i386-pc"].into_iter().find(|file| !Path::new(file).exists())
}

fn disc(tree: &Tree, scratch: &Path) -> Outcome {
    let boot = scratch.join("stage/boot");
    std::fs::create_dir_all(boot.join("grub"))?;
    std::fs::copy(tree.loader(), boot.join("loader"))?;
    std::fs::copy(tree.target.join("image/quiesce.cpio"), boot.join("quiesce.cpio"))?;
    let entry = format!("multiboot2 /boot/loader nohz_full=1 -- {COMMANDS}\nmodule2 /boot/quiesce.cpio\nboot\n");
    std::fs::write(boot.join("grub/grub.cfg"), format!("set timeout=0\nmenuentry quiesce {{\n{entry}}}\n"))?;
    let made = Command::new("grub-mkrescue")
        .arg("-o")
        .args([scratch.join("quiesce.iso"), scratch.join("stage")])
        .stdin(Stdio::null())
        .output()?;
    if made.status.success() { Ok(()) } else { Err(Failed(String::from_utf8_lossy(&made.stderr).into_owned())) }
}

fn start(scratch: &Path) -> Result<Bochs, Failed> {
    let configuration = format!(
        "plugin_ctrl: unmapped=1, biosdev=1, extfpuirq=1, serial=1\n\
         display_library: term\n\
         megs: 256\n\
         romimage: file={BIOS}\n\
         vgaromimage: file={VGA_BIOS}\n\
         cpu: model=tigerlake, count=2, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-slave: type=cdrom, path=quiesce.iso, status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, mode=file, dev=SERIAL\n\
         log: bochs.log\n\
         panic: action=fatal\n\
         error: action=ignore\n\
         info: action=ignore\n\
         clock: sync=none\n"
    );
    let (read, write) = nix::unistd::pipe().map_err(|e| Failed(format!("pipe: {e}")))?;
    // The descriptor is inherited on the way to Bochs, so the path means the pipe there too.
    let configuration = configuration.replace("SERIAL", &format!("/proc/self/fd/{}", write.as_raw_fd()));
    std::fs::write(scratch.join("bochsrc"), configuration)?;
    std::fs::write(scratch.join("continue"), "c\n")?;
    let process = Command::new("script")
        .args(["-qec", "exec bochs -q -f bochsrc -rc continue", "/dev/null"])
        .current_dir(scratch)
        .env("TERM", "vt100")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(write); // the pipe ends with Bochs
    let (sender, serial) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut pipe, mut buffer) = (File::from(read), [0; 4096]);
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break; // the scenario is over
            }
        }
    });
    Ok(Bochs { process, serial })
}

/// The serial text up to the kernel's last line.
fn run(scratch: &Path) -> Result<String, Failed> {
    let mut bochs = start(scratch)?;
    let (begin, mut text) = (Instant::now(), String::new());
    while !text.contains(END) {
        match bochs.serial.recv_timeout(LIMIT.saturating_sub(begin.elapsed())) {
            Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes).replace('\r', "")),
            Err(why) => return Err(Failed(format!("Bochs: {why} before \"{END}\": {}\n{text}", bochs.complaint()))),
        }
    }
    Ok(text)
}

#[test]
fn tsc_deadline_mode_ticks_sleeps_and_stays_quiet_and_avx_512_is_each_tasks_own() -> Outcome {
    if let Some(missing) = missing() {
        return skip(&format!("no Bochs run: {missing} is missing"));
    }
    let tree = Tree::find(None)?;
    let scratch = Scratch(tree.target.join(format!("bochs-{}", std::process::id())));
    disc(&tree, &scratch.0)?;
    let text = run(&scratch.0)?;
    let line = |wanted: &str| {
        text.lines().find(|line| line.contains(wanted)).unwrap_or_else(|| panic!("no {wanted:?} in:\n{text}"))
    };
    line("TSC is invariant: trusted");
    line("its timer in TSC-deadline mode");
    line("2 of 2 CPUs up");
    let ticking = line("{\"cpu\": 0");
    assert!(ticking.contains("\"timer\": "), "no tick on CPU 0: {ticking}");
    assert!(line("tick ").starts_with("tick OFF"), "{text}");
    let quiet = line("{\"cpu\": 1");
    assert!(quiet.contains("\"entries\": 0,") && quiet.contains("\"interruptions\": {}"), "{quiet}");
    // No task sees the registers of another, nor loses its own, in the widest form that there is.
    line("vector registers: Zmm");
    line("calls: 4 of 4 passed");
    Ok(())
}
