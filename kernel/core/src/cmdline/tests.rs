//! Unit tests of the command line. Random ones are in tests/prop_cmdline.rs.

use super::*;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;

fn set(list: &str) -> CpuSet {
    crate::cpu_set::parse_list(list, 512).unwrap()
}

fn said(params: &BootParams<'_>) -> Vec<String> {
    params.complaints.iter().map(ToString::to_string).collect()
}

fn words<'a>(list: &[Param<'a>]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn words_and_quotes_as_linux() {
    let all: Vec<_> = params("  a b=c d=\"e f\" \"g=h i\" \"j k\" l=m\"n o\"p q= =r \"s\tt").collect();
    let expected = [
        ("a", None),
        ("b", Some("c")),
        ("d", Some("e f")),
        ("g", Some("h i")),
        ("j k", None),
        ("l", Some("m\"n o\"p")),
        ("q", Some("")),
        ("=r", None),
        ("s\tt", None),
    ];
    assert_eq!(all, expected.map(|(name, value)| Param { name, value }));
}

#[test]
fn what_changes_nothing_is_said() {
    let params = resolve("rcu_nocbs=1-2 ftrace=function", 4, 0);
    let expected = [
        "rcu_nocbs=1-2: changes nothing, RCU callbacks of all CPUs run on housekeeping CPUs in any case",
        "ftrace=function: no such tracer, ignored; trace_event= chooses what is traced",
    ];
    assert_eq!(said(&params), expected);
    assert!(said(&resolve("ftrace=nop rcu_nocbs", 4, 0)).is_empty());
}

#[test]
fn defaults() {
    let params = resolve("", 4, 0);
    assert_eq!(params.housekeeping, set("0-3"));
    assert_eq!(params.irq_affinity, set("0-3"));
    assert!(params.nohz_full.is_empty() && params.isolated().is_empty() && params.rcu_nocbs.is_empty());
    assert_eq!((params.hz, params.loglevel, params.panic_timeout, params.init), (250, 7, 0, None));
    assert_eq!(params.cpus_to_start(4), 4);
    assert!(params.defer && params.complaints.is_empty());
}

#[test]
fn nohz_full_implies_the_rest() {
    let params = resolve("nohz_full=1-3", 4, 0);
    assert_eq!(params.nohz_full, set("1-3"));
    assert_eq!(params.rcu_nocbs, set("1-3"));
    assert_eq!(params.housekeeping, set("0"));
    assert_eq!(params.irq_affinity, set("0"));
    assert_eq!(params.isolated(), set("1-3"));
    assert!(params.isolated_domain.is_empty() && params.complaints.is_empty());
}

#[test]
fn the_boot_cpu_stays() {
    let params = resolve("nohz_full=0-2", 4, 0);
    assert_eq!((params.nohz_full, params.housekeeping), (set("1-2"), set("0,3")));
    assert_eq!(said(&params), ["nohz_full: boot CPU 0 kept as housekeeping CPU"]);
    let params = resolve("isolcpus=all", 4, 2);
    assert_eq!((params.isolated_domain, params.housekeeping), (set("0-1,3"), set("2")));
    assert_eq!(said(&params), ["isolcpus: no housekeeping CPU left, boot CPU 2 kept as housekeeping CPU"]);
    // Neither alone takes all CPUs, both together do.
    let params = resolve("nohz_full=0,1 isolcpus=2-3", 4, 0);
    assert_eq!((params.housekeeping, params.isolated()), (set("0"), set("1-3")));
    assert_eq!(params.complaints[0].what, What::BootCpuKept { cpu: 0, all: true });
}

#[test]
fn lists_are_corrected_aloud() {
    let params = resolve("nohz_full=2-9 isolcpus=x-3 rcu_nocbs=1", 4, 0);
    assert_eq!((params.nohz_full, params.rcu_nocbs), (set("2-3"), set("1-3")));
    assert!(params.isolated_domain.is_empty());
    assert_eq!(
        said(&params),
        [
            "nohz_full=2-9: CPU 9 does not exist, the last one is 3; CPUs that do not exist left out",
            "isolcpus=x-3: unknown flag x-3 skipped",
            "isolcpus=x-3: names no CPU",
            "rcu_nocbs=1: changes nothing, RCU callbacks of all CPUs run on housekeeping CPUs in any case",
        ]
    );
    assert_eq!(
        said(&resolve("nohz_full=1--2", 4, 0)),
        ["nohz_full=1--2: CPU number expected at character 3, found '-'; parameter ignored"]
    );
    assert_eq!(
        said(&resolve("nohz_full= irqaffinity", 4, 0)),
        ["nohz_full=: names no CPU", "irqaffinity: names no CPU"]
    );
}

#[test]
fn isolcpus_flags() {
    let all = set("2-3");
    let none = CpuSet::new();
    for (line, nohz, domain, irq) in [
        ("isolcpus=2-3", none, all, none),
        ("isolcpus=domain,2-3", none, all, none),
        ("isolcpus=nohz,2,3", all, none, none),
        ("isolcpus=managed_irq,2-N", none, none, all),
        ("isolcpus=nohz,domain,managed_irq,2-3", all, all, all),
        ("isolcpus=nohz,turbo,N,2", all, none, none),
    ] {
        let params = resolve(line, 4, 0);
        assert_eq!(params.nohz_full, nohz, "{line}");
        assert_eq!(params.isolated_domain, domain, "{line}");
        assert_eq!(params.isolated_managed_irq, irq, "{line}");
        assert_eq!(params.rcu_nocbs, nohz, "{line}");
        let unknown = line.contains("turbo");
        assert_eq!(params.complaints.len(), usize::from(unknown), "{line}");
    }
}

#[test]
fn irqaffinity_has_the_boot_cpu() {
    let params = resolve("irqaffinity=2 nohz_full=2", 4, 0);
    assert_eq!(params.irq_affinity, set("0,2"));
    assert_eq!(
        said(&params),
        ["irqaffinity=2: boot CPU 0 added", "irqaffinity=2: CPU 2 is isolated and will get interrupts as asked"]
    );
    assert_eq!(resolve("isolcpus=managed_irq,3", 4, 0).irq_affinity, set("0-2"));
}

#[test]
fn numbers_with_limits() {
    for (line, hz, complaints) in [
        ("hz=1000", 1000, 0),
        ("hz=0x64", 100, 0),
        ("hz=10", 10, 0),
        ("hz=10000", 10000, 0),
        ("hz=0", 250, 1),
        ("hz=9", 250, 1),
        ("hz=10001", 250, 1),
        ("hz=", 250, 1),
        ("hz", 250, 1),
        ("hz=+-5", 250, 1),
        ("hz=99999999999999999999", 250, 1),
    ] {
        let params = resolve(line, 1, 0);
        assert_eq!((params.hz, params.complaints.len()), (hz, complaints), "{line}");
    }
    assert_eq!(said(&resolve("hz=0", 1, 0)), ["hz=0: not a number from 10 to 10000, using 250"]);
    assert_eq!(resolve("panic=-1", 1, 0).panic_timeout, -1);
    assert_eq!(resolve("maxcpus=2", 4, 0).cpus_to_start(4), 2);
    assert_eq!(resolve("maxcpus=0", 4, 0).cpus_to_start(4), 1);
    assert_eq!(resolve("maxcpus=9", 4, 0).cpus_to_start(4), 4);
    assert_eq!(resolve("maxcpus=3 nosmp", 4, 0).cpus_to_start(4), 1);
    assert_eq!(resolve("quiet loglevel=6", 4, 0).loglevel, 6);
    assert_eq!(resolve("loglevel=6 quiet", 4, 0).loglevel, QUIET_LOGLEVEL);
    assert_eq!(said(&resolve("quiet loglevel=x", 4, 0)), ["loglevel=x: not a number from 0 to 15, using 4"]);
}

#[test]
fn the_last_one_counts_and_that_is_said() {
    let params = resolve("trace_event=irq,ipi nohz-full=1 trace-event= nohz_full=2 -- hz=1 nohz_full=3", 4, 0);
    assert_eq!((params.nohz_full, params.trace_events.len()), (set("2"), 0));
    assert_eq!(
        said(&params),
        [
            "trace_event=irq,ipi: given more than once, the last one counts",
            "nohz-full=1: given more than once, the last one counts"
        ]
    );
    assert_eq!(resolve("trace_event=irq,,sched:sched_switch", 4, 0).trace_events, ["irq", "sched:sched_switch"]);
}

#[test]
fn what_init_gets() {
    let line = "single TERM=vt100 KEY=\"a b\" mod.param=1 mod.flag x=1.5 TERM=linux -- -v \"A=b c\" nohz_full=1 --";
    let params = resolve(line, 4, 0);
    assert_eq!(words(&params.init_args), ["single", "-v", "A=b c", "nohz_full=1", "--"]);
    assert_eq!(words(&params.init_env), ["TERM=linux", "KEY=a b", "x=1.5"]);
    assert!(params.nohz_full.is_empty() && params.complaints.is_empty());
    let params = resolve("early init=/bin/sh late", 4, 0);
    assert_eq!((params.init, words(&params.init_args)), (Some("/bin/sh"), vec![String::from("late")]));
    assert_eq!(params.complaints[0].what, What::WordsBeforeInit);
    assert_eq!(said(&resolve("init=", 4, 0)), ["init=: needs a value, ignored"]);
}

#[test]
fn ignored_words_are_said_once() {
    let params = resolve("console=ttyS0 root=/dev/sda rw quiesce.magic=1 quiesce.defer=off", 4, 0);
    assert_eq!(
        said(&params),
        ["root=/dev/sda: has no meaning here, ignored", "quiesce.magic=1: unknown parameter, ignored"]
    );
    assert!(!params.defer && params.init_args.is_empty() && params.init_env.is_empty());
    assert_eq!(said(&resolve("quiesce.defer=maybe", 4, 0)), ["quiesce.defer=maybe: neither on nor off, using on"]);
}

#[test]
#[cfg_attr(miri, ignore = "long input; the other tests run the same code on short input")]
fn limits_hold() {
    let many = "w ".repeat(MAX_INIT_WORDS + 5);
    let params = resolve(&many, 4, 0);
    assert_eq!((params.init_args.len(), params.complaints.len()), (MAX_INIT_WORDS, 1));
    let many = "hz=0 ".repeat(MAX_COMPLAINTS + 5);
    let params = resolve(&many, 4, 0);
    assert_eq!((params.complaints.len(), params.complaints_lost), (MAX_COMPLAINTS, 5));
    let long = format!("{}€ nosmp", "x".repeat(MAX_LINE - 1));
    let params = resolve(&long, 4, 0);
    assert!(!params.nosmp && params.complaints[0].what == What::TooMany(MAX_LINE));
    assert!(said(&resolve(&format!("hz={}\u{7}", "\n".repeat(3)), 4, 0))[0].starts_with("hz=: "));
}

#[test]
fn silly_machines() {
    assert_eq!(resolve("nohz_full=all", 0, 0).housekeeping, set("0"));
    assert!(!resolve("nohz_full=all isolcpus=all", u32::MAX, u32::MAX).housekeeping.is_empty());
}

#[test]
fn the_watchdog_and_failing_allocations() {
    let params = resolve("quiet", 4, 0);
    assert_eq!((params.watchdog_threshold_s, params.fail_alloc), (10, 0));
    assert_eq!(resolve("watchdog_thresh=3 fail_alloc=77", 4, 0).watchdog_threshold_s, 3);
    assert_eq!(resolve("watchdog_thresh=3 fail_alloc=77", 4, 0).fail_alloc, 77);
    assert_eq!(resolve("nowatchdog", 4, 0).watchdog_threshold_s, 0);
    assert!(params.random_layout && !resolve("norandmaps", 4, 0).random_layout);
    let params = resolve("watchdog_thresh=61 fail_alloc=-1", 4, 0);
    assert_eq!((params.watchdog_threshold_s, params.fail_alloc, params.complaints.len()), (10, 0, 2));
}
