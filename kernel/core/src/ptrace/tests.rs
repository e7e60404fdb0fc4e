//! Tests of `ptrace`.

use super::*;

const TSTP: u32 = 20;

#[test]
fn codes_are_those_of_the_manual_page() {
    assert_eq!(Stop::Signal(11).code(0), 11);
    assert_eq!(Stop::CallEntry.code(0), SIGTRAP);
    assert_eq!(Stop::CallExit.code(option::SYSGOOD), SIGTRAP | 0x80);
    assert_eq!(Stop::Event(Event::Exec).code(option::SYSGOOD), SIGTRAP | 4 << 8);
    assert_eq!(Stop::Seized(SIGTRAP).code(0), SIGTRAP | 128 << 8);
    assert_eq!(Stop::Group(SIGSTOP).code(0), SIGSTOP);
    assert_eq!(Stop::Group(SIGSTOP).info_code(0), None);
    assert_eq!(Stop::Event(Event::Exit).info_code(0), Some(0x605));
}

#[test]
fn each_event_has_the_option_of_its_name() {
    use option as o;
    let pairs = [
        (Event::Fork, o::FORK),
        (Event::Vfork, o::VFORK),
        (Event::Clone, o::CLONE),
        (Event::Exec, o::EXEC),
        (Event::VforkDone, o::VFORK_DONE),
        (Event::Exit, o::EXIT),
    ];
    for (event, option) in pairs {
        assert_eq!(event.option(), option);
        assert!(Tracee::new(false, option).wants(event));
        assert!(!Tracee::new(false, o::ALL & !option).wants(event));
    }
}

#[test]
fn options_that_do_not_exist_are_refused_and_change_nothing() {
    let mut t = Tracee::new(false, option::EXEC);
    assert_eq!(t.set_options(1 << 9), Err(Refused::Invalid));
    assert_eq!(t.set_options(1 << 32), Err(Refused::Invalid));
    assert_eq!(t.options(), option::EXEC);
    assert_eq!(t.set_options(option::ALL as u64), Ok(()));
}

#[test]
fn a_stop_is_reported_once_and_requests_want_one() {
    let mut t = Tracee::new(false, 0);
    assert_eq!(t.go_on(Go::Continue, 0), Err(Refused::NotStopped));
    assert_eq!(t.report(false), None);
    t.begin(Stop::Signal(10), 0);
    assert_eq!(t.report(true), Some(10));
    assert_eq!(t.report(false), Some(10));
    assert_eq!(t.report(false), None);
    assert_eq!(t.go_on(Go::Continue, 65), Err(Refused::Io));
    assert_eq!(t.stop(), Ok(Stop::Signal(10)));
    assert_eq!(t.go_on(Go::Step, 12), Ok(()));
    assert!(!t.stands());
    assert_eq!((t.take_signal(), t.take_signal()), (12, 0));
    assert!(t.go().steps());
}

#[test]
fn a_resumed_stop_that_nobody_waited_for_is_forgotten() {
    let mut t = Tracee::new(false, 0);
    t.begin(Stop::Signal(10), 0);
    t.go_on(Go::Continue, 0).unwrap();
    assert_eq!(t.report(false), None);
}

#[test]
fn system_calls_stop_as_the_last_request_said() {
    let mut t = Tracee::new(false, 0);
    let mut go = |go| {
        t.begin(Stop::Trap, 0);
        t.go_on(go, 0).unwrap();
        (t.call_begins(), t.call_ends())
    };
    let begins = |stop, emulated| CallBegins { stop, emulated };
    assert_eq!(go(Go::Continue), (begins(false, false), None));
    assert_eq!(go(Go::Syscall), (begins(true, false), Some(Stop::CallExit)));
    assert_eq!(go(Go::Step), (begins(false, false), Some(Stop::Trap)));
    assert_eq!(go(Go::Emulate), (begins(true, true), None));
    assert_eq!(go(Go::EmulateStep), (begins(true, true), None));
}

#[test]
fn the_message_tells_the_two_stops_of_a_call_apart() {
    let mut t = Tracee::new(false, 0);
    t.begin(Stop::CallEntry, 77);
    assert_eq!(t.message(), 1);
    t.begin(Stop::CallExit, 77);
    assert_eq!(t.message(), 2);
    t.begin(Stop::Event(Event::Fork), 77);
    assert_eq!(t.message(), 77);
}

#[test]
fn only_seized_threads_are_interrupted_and_listen() {
    let mut t = Tracee::new(false, 0);
    assert_eq!(t.interrupt(), Err(Refused::Io));
    t.begin(Stop::Group(SIGSTOP), 0);
    assert_eq!(t.listen(), Err(Refused::Io));

    let mut t = Tracee::new(true, 0);
    assert_eq!(t.interrupt(), Ok(false));
    assert_eq!(t.take_due(), Some(Stop::Seized(SIGTRAP)));
    assert_eq!(t.take_due(), None);
    t.begin(Stop::Signal(10), 0);
    assert_eq!(t.listen(), Err(Refused::Io));
}

#[test]
fn a_listening_thread_takes_no_request_until_it_stops_anew() {
    let mut t = Tracee::new(true, 0);
    t.group_stop(TSTP);
    assert_eq!(t.take_due(), Some(Stop::Seized(TSTP)));
    t.begin(Stop::Seized(TSTP), 0);
    assert_eq!(t.report(false), Some(TSTP | 128 << 8));
    assert_eq!(t.listen(), Ok(false));
    assert!(t.stands());
    assert_eq!(t.go_on(Go::Continue, 0), Err(Refused::NotStopped));
    assert_eq!(t.report(false), None);
    assert!(t.group_continue());
    assert!(!t.stands());
    assert_eq!(t.take_due(), Some(Stop::Seized(SIGTRAP)));

    // An interrupt while its process is still stopped says by what.
    let mut t = Tracee::new(true, 0);
    t.group_stop(TSTP);
    t.take_due();
    t.begin(Stop::Seized(TSTP), 0);
    t.listen().unwrap();
    assert_eq!(t.interrupt(), Ok(true));
    assert_eq!(t.take_due(), Some(Stop::Seized(TSTP)));
}

#[test]
fn a_continuation_before_listen_is_not_lost() {
    let mut t = Tracee::new(true, 0);
    t.begin(Stop::Seized(TSTP), 0);
    assert!(!t.group_continue());
    assert_eq!(t.listen(), Ok(true));
    assert_eq!(t.take_due(), Some(Stop::Seized(SIGTRAP)));
}

#[test]
fn an_attached_thread_takes_a_job_control_stop_once_and_a_continuation_takes_it_out() {
    let mut t = Tracee::new(false, 0);
    t.group_stop(SIGSTOP);
    assert_eq!(t.take_due(), Some(Stop::Group(SIGSTOP)));
    assert_eq!(t.take_due(), None);
    t.group_stop(SIGSTOP);
    assert!(!t.group_continue());
    assert_eq!(t.take_due(), None);
}

#[test]
fn children_are_traced_as_their_parent() {
    let (child, sent) = Tracee::child_of(&Tracee::new(false, option::FORK));
    assert!(sent && child.options() == option::FORK && !child.is_seized());
    let (mut child, sent) = Tracee::child_of(&Tracee::new(true, option::CLONE));
    assert!(!sent && child.is_seized());
    assert_eq!(child.take_due(), Some(Stop::Seized(SIGTRAP)));
}

#[test]
fn clone_is_three_events() {
    assert_eq!(clone_event(17, false, false), Some(Event::Fork));
    assert_eq!(clone_event(17, true, false), Some(Event::Vfork));
    assert_eq!(clone_event(0, false, false), Some(Event::Clone));
    assert_eq!(clone_event(17, false, true), None);
}
