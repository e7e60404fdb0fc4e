//! The programs on kernel files of the test's making.

mod image;

use image::Image;

const CPUS: &str = "cpu=0 state=kernel since_ns=100 now_ns=2000 tick=on isolated=0 tracked=0 entries=50 interrupts=20 task=3 comm=cpus\n\
    cpu=1 state=user since_ns=1000 now_ns=5000002000 tick=off isolated=1 tracked=1 entries=12 interrupts=3 task=7 comm=spin\n";

fn image() -> Image {
    let image = Image::new();
    let khz = 1_000_000.to_string();
    image
        .file("/sys/kernel/quiesce/cpus", CPUS)
        .file("/sys/kernel/quiesce/tsc_khz", &khz)
        .file("/sys/devices/system/cpu/online", "0\n");
    image
}

#[track_caller]
fn fails(image: &Image, words: &[&str], status: i32, err: &str) {
    let got = image.run(words);
    assert_eq!((got.status, got.out.as_str(), got.err.as_str()), (Some(status), "", err), "{words:?}");
}

#[test]
fn cpus_shows_and_filters() {
    let image = image();
    let got = image.run(&["cpus"]);
    let firsts: Vec<_> = got.out.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(firsts, ["CPU", "0", "1"]);
    let got = image.run(&["cpus", "1"]);
    assert_eq!(
        got.out.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" "),
        "1 user 5.00 s off yes yes 12 3 spin/7"
    );
    assert!(image.run(&["cpus", "--json"]).out.starts_with("[{\"cpu\": 0, \"state\": \"kernel\""));
    fails(&image, &["cpus", "0-2"], 1, "cpus: no CPU 2 (there are 0-1)\n");
    fails(&image, &["cpus", "-x"], 2, "cpus: unknown option -x (usage: cpus [--json] [LIST])\n");
    image.file("/sys/kernel/quiesce/cpus", "cpu=0\n");
    assert!(image.run(&["cpus"]).err.contains("state="));
}

#[test]
fn why_explains_and_names_what_is_wrong() {
    let image = image();
    image.file(
        "/sys/kernel/quiesce/cpu0/why",
        "cpu=0 tick=on since_ns=1 now_ns=9\nheld dep=housekeeping scope=global site=a.rs:1 since_ns=1\n",
    );
    let got = image.run(&["why", "0"]);
    assert!(got.out.starts_with("tick ON, held by housekeeping, scope global, set by a.rs:1"), "{}", got.out);
    fails(&image, &["why", "4"], 1, "why: no CPU 4 (online: 0)\n");
    fails(&image, &["why", "one"], 2, "why: not a CPU number: \"one\"\n");
    fails(&image, &["why"], 2, "why: usage: why CPU\n");
}

#[test]
fn log_is_made_readable() {
    let image = image();
    image.file(
        "/sys/kernel/quiesce/log",
        "time_ns=1500000 cpu=1 cause=timer duration_ns=900 total=1\nlost=2\nodd line\n",
    );
    let got = image.run(&["log"]);
    assert_eq!((got.status, got.out.as_str()), (Some(0), "[    0.001500] cpu1 timer, 900 ns\n(2 lost)\nodd line\n"));
    fails(&image, &["log", "-x"], 2, "log: unknown argument -x (usage: log [-f])\n");
}

#[test]
fn trace_shows_records_and_figures() {
    let image = image();
    let lines = "           spin-7       [000] d.u.     1.000010: irq_entry: vector=236 name=timer\n\
                            spin-7       [000] d...     1.000012: irq_exit: vector=236 name=timer\n";
    image
        .file("/sys/kernel/tracing/trace", "# tracer: nop\n")
        .file("/sys/kernel/tracing/set_event", "")
        .file("/sys/kernel/tracing/tracing_on", "1\n")
        .file("/sys/kernel/tracing/per_cpu/cpu0/trace", lines);
    let got = image.run(&["trace", "show", "-c", "0"]);
    assert!(got.out.starts_with(lines), "{}", got.out);
    let last: Vec<_> = got.out.lines().last().unwrap().split_whitespace().take(5).collect();
    assert_eq!(last, ["0", "irq", "timer", "1", "2.00"], "{}", got.out);
    assert!(image.run(&["trace", "show"]).out.contains("no records: trace_event="));
    assert_eq!(image.run(&["trace", "off"]).status, Some(0));
    fails(&image, &["trace", "show", "-c", "2"], 1, "trace: no CPU 2 (online: 0)\n");
    fails(&image, &["trace", "show", "-c", "x"], 2, "trace: not a CPU number: \"x\"\n");
    let usage = "usage: trace show [-c CPU] | trace -f [-c CPU] | trace on|off [EVENT…]";
    fails(&image, &["trace", "maybe"], 2, &format!("trace: unknown argument maybe ({usage})\n"));
    fails(&image, &["trace"], 2, &format!("trace: {usage}\n"));
}

#[test]
fn run_names_what_is_wrong() {
    let image = image();
    assert_eq!(image.run(&["run", "-c", "0", "echo", "here"]).out, "here\n");
    fails(&image, &["run", "-c", "0", "nonsense"], 127, "run: nonsense: No such file or directory\n");
    fails(&image, &["run", "-c", "3", "true"], 1, "run: no CPU 3 (online: 0)\n");
    fails(&image, &["run", "-c", "x", "true"], 2, "run: not a CPU number: \"x\"\n");
    fails(&image, &["run", "-c", "0", "-f", "0", "true"], 2, "run: not a FIFO priority (1 to 99): \"0\"\n");
    assert_eq!(image.run(&["run", "true"]).status, Some(2));
}

#[test]
fn noise_counts_what_the_kernel_counts() {
    let image = image();
    image
        .file("/sys/kernel/quiesce/cpu0/entries", "syscall 12\nexception 3\nnmi 0\ntimer 5\n")
        .file("/sys/kernel/quiesce/log", "");
    let got = image.run(&["noise", "-c", "0", "-s", "0.01"]);
    assert_eq!(got.status, Some(0), "{}", got.err);
    assert!(got.out.starts_with("kernel entries: 0\ncpu 0 (not isolated), "), "{}", got.out);
    let got = image.run(&["noise", "-c", "0", "-s", "0.01", "--json"]);
    assert!(
        got.out.starts_with("{\"cpu\": 0, \"seconds\": 0.01, \"entries\": 0, \"interruptions\": {}, \"senders\": []"),
        "{}",
        got.out
    );
    assert_eq!(got.out.lines().count(), 1);
    fails(&image, &["noise", "-c", "1"], 1, "noise: no CPU 1 (online: 0)\n");
    fails(&image, &["noise", "-c", "0", "-s", "x"], 2, "noise: not a time in seconds: \"x\"\n");
    image.file("/sys/kernel/quiesce/cpu0/entries", "nonsense\n");
    fails(&image, &["noise", "-c", "0"], 1, "noise: cpu0/entries: not a cause with its count: \"nonsense\"\n");
}

#[test]
fn spin_ends_and_refuses() {
    let image = image();
    assert_eq!(image.run(&["spin", "0.001"]).status, Some(0));
    fails(&image, &["spin", "now"], 2, "spin: not a time in seconds: \"now\"\n");
}

#[test]
fn bench_measures_calls() {
    let image = image();
    let got = image.run(&["bench", "only=syscall", "cpu=0", "iters=10"]);
    assert_eq!(got.status, Some(0), "{}", got.err);
    for name in ["calib.rdtsc_pair ", "syscall_getppid.min ", "syscall_getppid.med ", "syscall_bad10000.max "] {
        assert!(got.out.lines().any(|line| line.starts_with(&format!("metric {name}"))), "{name}: {}", got.out);
    }
    assert!(got.out.ends_with("bench done\n") && !got.out.contains("sched_yield"), "{}", got.out);
    assert_eq!(image.run(&["bench", "only=nonsense"]).status, Some(2));
    assert_eq!(image.run(&["bench", "cpu=x"]).status, Some(2));
}

#[test]
fn busy_does_every_kind_of_work() {
    let image = image();
    for file in ["meminfo", "stat", "interrupts"] {
        image.file(&format!("/proc/{file}"), "x\n");
    }
    let got = image.run(&["busy", "0.000000001"]);
    assert_eq!(got.status, Some(0), "{}", got.err);
    assert_eq!(got.out, "busy: 6 operations: forks 1, execs 1, sleeps 1, pipes 1, reads 1, maps 1\n");
}

#[test]
fn the_small_programs() {
    let image = image();
    let listed = image.run(&["box", "--list"]).out;
    assert!(listed.lines().eq(guest::applet::APPLETS.iter().map(|(name, _)| *name)));
    assert_eq!(image.run(&["box", "echo", "-n", "x"]).out, "x");
    image
        .file("/proc/meminfo", "MemTotal: 10 kB\nMemFree: 4 kB\n")
        .file("/proc/uptime", "61.50 1.00\n")
        .file("/dir/b", "")
        .file("/dir/a", "");
    assert!(image.run(&["free"]).out.contains(" 10 "));
    assert_eq!(image.run(&["uptime"]).out, "up 61.5 s\n");
    assert_eq!(image.run(&["ls", "dir"]).out, "a\nb\n");
    fails(&image, &["cat", "dir"], 1, "cat: dir: Is a directory\n");
    fails(&image, &["sleep"], 2, "sleep: usage: sleep SECONDS\n");
    fails(&image, &["poweroff", "now"], 2, "poweroff: takes no argument, got \"now\"\n");
    fails(&image, &["uname", "-q"], 2, "uname: unknown option -q (usage: uname [-asnrvm])\n");
    assert_eq!(image.run(&["false"]).status, Some(1));
}
