//! Host tests of leases: what blocks one, and that every entry is counted once, whoever tells of it.

#![cfg(not(loom))]

use kcore::cpu_set::CpuSet;
use kcore::interruption::Cause;
use kcore::lease::{
    Breach, Counts, EndCause, EntryKind, KINDS, Lease, Look, OnBreach, Request, Sender, State, Terms, Told, parse,
};
use kcore::lease_blocker::{Blocker, Facts, TaskFact, blockers};
use kcore::lease_page::Contents;
use kcore::tick::{Held, Scope, TickDep};
use proptest::prelude::*;

const LOG: Terms = Terms { on_breach: OnBreach::Log, own_too: false, once: false };

fn comm(name: &str) -> [u8; 16] {
    core::array::from_fn(|i| name.as_bytes().get(i).copied().unwrap_or(0))
}

fn only(cpu: u32) -> CpuSet {
    let mut set = CpuSet::new();
    assert!(set.insert(cpu));
    set
}

fn quiet() -> Facts<u32> {
    Facts {
        cpu: 1,
        is_nohz_full: true,
        is_tracked: true,
        is_changing: false,
        allowed: only(1),
        tasks: vec![],
        deps: vec![],
        ticks: false,
        timer_armed: false,
        lines: vec![],
        posted: 0,
        callbacks: false,
    }
}

fn text(facts: &Facts<u32>) -> Vec<String> {
    let site = |site: u32, out: &mut String| core::fmt::Write::write_fmt(out, format_args!(" site=a.rs:{site}"));
    let line = |b: &Blocker<u32>| {
        let mut out = String::new();
        b.format(&mut out, site).expect("a string takes all");
        out
    };
    blockers(facts).iter().map(line).collect()
}

#[test]
fn alone_on_a_quiet_cpu_nothing_blocks() {
    assert_eq!(blockers(&quiet()), []);
    // A task that may run here and is not here, and one that may not.
    let other = TaskFact {
        task: 3,
        comm: comm("sh"),
        may_run_here: true,
        may_run_elsewhere: true,
        is_here: false,
        timer_here: false,
    };
    let facts = Facts { tasks: vec![other, TaskFact { may_run_here: false, ..other }], ..quiet() };
    assert_eq!(blockers(&facts), []);
}

#[test]
fn every_reason_is_listed() {
    let task = TaskFact {
        task: 7,
        comm: comm("my spin"),
        may_run_here: true,
        may_run_elsewhere: false,
        is_here: true,
        timer_here: true,
    };
    let held = Held { since_ns: 5, site: 42, task: 7, comm: comm("spin") };
    let facts = Facts {
        is_nohz_full: false,
        is_tracked: false,
        is_changing: true,
        allowed: CpuSet::full(4),
        tasks: vec![task, TaskFact { task: 8, may_run_elsewhere: true, timer_here: false, ..task }],
        deps: vec![
            (TickDep::ClockUnstable, Scope::Global, None),
            (TickDep::Sched, Scope::Cpu, Some(held)),
            (TickDep::PosixTimer, Scope::Task, None),
        ],
        ticks: true,
        timer_armed: true,
        lines: vec![(4, "serial")],
        posted: 2,
        callbacks: true,
        ..quiet()
    };
    assert_eq!(
        text(&facts),
        [
            "by=isolation reason=not_in_nohz_full",
            "by=tracking reason=user_mode_not_tracked",
            "by=isolation reason=being_changed",
            "by=affinity cpus=0-3",
            "by=task reason=bound task=7 comm=my_spin",
            "by=timer task=7 comm=my_spin",
            "by=task reason=runnable task=8 comm=my_spin",
            "by=tick dep=clock_unstable scope=global",
            "by=tick dep=sched scope=cpu site=a.rs:42 task=7 comm=spin",
            "by=tick dep=posix_timer scope=task",
            "by=irq line=4 name=serial",
            "by=posted_work bits=0x2",
            "by=rcu reason=callbacks",
        ]
    );
    let unexplained = Facts { ticks: true, timer_armed: true, ..quiet() };
    assert_eq!(text(&unexplained), ["by=tick reason=on", "by=timer reason=armed"]);
}

#[test]
fn requests_are_read() {
    let begin = |on_breach, own_too, once| Some(Request::Begin(Terms { on_breach, own_too, once }));
    assert_eq!(parse("on\n"), begin(OnBreach::Log, false, false));
    assert_eq!(parse("on log once own"), begin(OnBreach::Log, true, true));
    assert_eq!(parse(" on  signal 64 once "), begin(OnBreach::Signal(64), false, true));
    assert_eq!(parse("on kill"), begin(OnBreach::Kill, false, false));
    assert_eq!(parse("on signal 9"), parse("on kill"));
    assert_eq!(parse("off\n"), Some(Request::End));
    for bad in ["", "On", "on signal", "on signal 0", "on signal 65", "on own own", "on once log", "off now", "on x"] {
        assert_eq!(parse(bad), None, "{bad:?}");
    }
}

fn granted(terms: Terms, counts: &Counts) -> Lease {
    let mut lease = Lease::new();
    assert!(lease.request(1, 12, terms));
    assert!(!lease.request(1, 13, terms), "one at a time");
    assert!(lease.grant(100, counts) && !lease.grant(101, counts));
    // The way back from the request.
    assert_eq!(lease.account(101, counts, &[], Look::ONLY, |_| panic!("no breach")), Default::default());
    lease
}

fn counts(entries: &[(EntryKind, u64)]) -> Counts {
    let mut all = [0; KINDS];
    entries.iter().for_each(|(kind, n)| all[kind.code() as usize] += n);
    all
}

const IPI: EntryKind = EntryKind::Interrupt(Cause::CallFunction);
const NMI: EntryKind = EntryKind::Interrupt(Cause::Nmi);

#[test]
fn a_life() {
    let mut lease = granted(LOG, &counts(&[(IPI, 5)]));
    assert_eq!((lease.state(), lease.holder()), (State::Granted, Some(12)));
    // Its own entries break nothing.
    let own = counts(&[(IPI, 5), (EntryKind::SystemCall, 2), (EntryKind::Exception, 1)]);
    assert_eq!(lease.account(110, &own, &[], Look::ONLY, |_| panic!("no breach")), Default::default());
    assert_eq!((lease.contents().entries, lease.contents().own_entries), (3, 3));
    let sender = Some(Sender { cpu: 0, task: 9, comm: comm("noise"), site: 77 });
    let mut log = vec![];
    // What arrives during a call of its own does not either, and is not told.
    let during = counts(&[(IPI, 7), (NMI, 1), (EntryKind::SystemCall, 3), (EntryKind::Exception, 1)]);
    let told = [Told { cause: Cause::CallFunction, tsc: 114, sender: None }];
    assert_eq!(lease.account(115, &during, &told, Look::ONLY, |_| panic!("no breach")), Default::default());
    assert_eq!((lease.contents().entries, lease.contents().own_entries), (7, 4));
    let told = [Told { cause: Cause::CallFunction, tsc: 118, sender }];
    let more = counts(&[(IPI, 8), (NMI, 1), (EntryKind::SystemCall, 3), (EntryKind::Exception, 1)]);
    assert_eq!(lease.account(120, &more, &told, Look::ONLY, |b| log.push(*b)), Default::default());
    let breach = Breach { lease: 1, number: 1, tsc: 118, kind: IPI, sender };
    assert_eq!(log, [breach]);
    assert_eq!(Breach::decode(&breach.encode()), Some(breach));
    let page = lease.contents();
    assert_eq!((page.state, page.breaches, page.entries, page.own_entries), (State::Breached, 1, 8, 4));
    assert_eq!(page.last.map(|l| (l.tsc, l.kind, l.sender)), Some((118, IPI, Some((0, 9, comm("noise"))))));
    assert!(lease.end(130, EndCause::Exit) && !lease.end(131, EndCause::Asked));
    let page = lease.contents();
    assert_eq!((page.state, page.end, page.ended_tsc), (State::Ended, Some(EndCause::Exit), 130));
    assert_eq!(lease.account(140, &counts(&[(IPI, 9)]), &[], Look::ONLY, |_| panic!("it is over")), Default::default());
    // The next one has the next number and starts at zero; one that is refused has none.
    assert!(lease.request(1, 13, LOG));
    lease.refuse();
    assert_eq!((lease.state(), lease.holder(), lease.contents().number), (State::Free, None, 1));
    assert!(lease.request(1, 13, LOG));
    assert!(lease.grant(150, &counts(&[(IPI, 9)])));
    let page = lease.contents();
    assert_eq!((page.number, page.breaches, page.entries, page.ended_tsc), (2, 0, 0, 0));
}

#[test]
fn what_comes_before_user_mode_breaks_nothing() {
    let mut lease = Lease::new();
    assert!(!lease.grant(100, &counts(&[])), "nobody asked");
    lease.refuse();
    assert!(
        lease.request(1, 12, Terms { own_too: true, on_breach: OnBreach::Kill, ..LOG })
            && lease.grant(100, &counts(&[]))
    );
    let way_out = |first, last| Look::WayOut { first, last };
    let quiet = |lease: &mut Lease, n, look| {
        let told = [Told { cause: Cause::CallFunction, tsc: 1, sender: None }];
        let all = counts(&[(IPI, n), (EntryKind::Exception, n)]);
        assert_eq!(lease.account(101, &all, &told, look, |_| panic!("no breach")), Default::default());
        lease.contents().entries
    };
    // In the call that asked for it, and while work is done on its way out: that is the request, and no entry.
    assert_eq!(quiet(&mut lease, 1, way_out(true, false)), 0);
    assert_eq!(quiet(&mut lease, 2, way_out(false, false)), 0);
    assert_eq!(quiet(&mut lease, 3, way_out(false, true)), 0);
    // From user mode: a breach, once, whatever else is to be done. What comes while that is done is counted and breaks nothing.
    let all = counts(&[(IPI, 4), (EntryKind::Exception, 3)]);
    assert_eq!(lease.account(110, &all, &[], way_out(true, false), |_| {}).react, Some(OnBreach::Kill));
    assert_eq!((lease.contents().entries, lease.contents().breaches), (1, 1));
    assert_eq!(quiet(&mut lease, 5, way_out(false, false)), 4);
    assert_eq!(quiet(&mut lease, 6, way_out(false, true)), 6);
    let all = counts(&[(IPI, 7), (EntryKind::Exception, 6)]);
    assert_eq!(lease.account(120, &all, &[], Look::ONLY, |_| {}).react, Some(OnBreach::Kill));
    assert_eq!(lease.contents().breaches, 2);
}

#[test]
fn terms_decide_what_a_breach_does() {
    for (on_breach, react) in [
        (OnBreach::Log, None),
        (OnBreach::Kill, Some(OnBreach::Kill)),
        (OnBreach::Signal(10), Some(OnBreach::Signal(10))),
    ] {
        for once in [false, true] {
            let mut lease = granted(Terms { on_breach, once, ..LOG }, &counts(&[]));
            let step = lease.account(200, &counts(&[(IPI, 1)]), &[], Look::ONLY, |_| {});
            assert_eq!((step.react, step.ended), (react, once));
            assert_eq!(lease.contents().end, once.then_some(EndCause::Breach));
        }
    }
    let mut lease = granted(Terms { own_too: true, on_breach: OnBreach::Kill, once: false }, &counts(&[]));
    let step = lease.account(200, &counts(&[(EntryKind::SystemCall, 1)]), &[], Look::ONLY, |_| {});
    assert_eq!((step.react, lease.contents().breaches), (Some(OnBreach::Kill), 1));
}

#[test]
fn what_an_nmi_saw_is_acted_on_at_the_next_entry() {
    let mut lease = granted(Terms { on_breach: OnBreach::Kill, ..LOG }, &counts(&[]));
    let one = counts(&[(NMI, 1)]);
    assert_eq!(lease.account(200, &one, &[], Look::Nmi, |_| {}), Default::default());
    assert_eq!(lease.contents().breaches, 1, "but the page says it at once");
    let later = counts(&[(NMI, 1), (EntryKind::SystemCall, 1)]);
    assert_eq!(lease.account(210, &later, &[], Look::ONLY, |_| panic!("no new one")).react, Some(OnBreach::Kill));
    assert_eq!(lease.account(220, &later, &[], Look::ONLY, |_| {}).react, None, "once");
}

fn step() -> impl Strategy<Value = (Vec<(u8, u64)>, Vec<u8>)> {
    (
        prop::collection::vec((0..KINDS as u8, 0u64..4), 0..4),
        prop::collection::vec(0..Cause::INTERRUPTS.len() as u8, 0..4),
    )
}

proptest! {
    #[test]
    fn each_entry_is_counted_once(steps in prop::collection::vec(step(), 1..20), own_too in any::<bool>()) {
        let mut all = [0u64; KINDS];
        let mut lease = granted(Terms { own_too, ..LOG }, &all);
        let (mut entries, mut own, mut breaches, mut last_number) = (0, 0, 0, 0);
        for (now, (more, told)) in steps.into_iter().enumerate() {
            let (mut new_own, mut new_others) = (0, 0);
            for (code, n) in more {
                all[code as usize] += n;
                *(if code as usize >= KINDS - 2 { &mut new_own } else { &mut new_others }) += n;
            }
            entries += new_own + new_others;
            own += new_own;
            breaches += if new_own == 0 { new_others } else if own_too { new_own } else { 0 };
            // The log may know more, less or other things than the counters.
            let told: Vec<_> =
                told.iter().map(|&c| Told { cause: Cause::INTERRUPTS[c as usize], tsc: 1, sender: None }).collect();
            let mut numbers = vec![];
            lease.account(now as u64, &all, &told, Look::ONLY, |b| numbers.push(b.number));
            prop_assert!(numbers.is_sorted() && numbers.first().is_none_or(|&n| n > last_number));
            last_number = numbers.last().copied().unwrap_or(last_number);
            let page = lease.contents();
            prop_assert_eq!(page.breaches, breaches);
            prop_assert_eq!((page.entries, page.own_entries, last_number), (entries, own, page.breaches));
            prop_assert_eq!(page.state == State::Breached, page.breaches > 0);
            prop_assert_eq!(Contents::decode(&page.encode()), Some(page));
        }
    }
}
