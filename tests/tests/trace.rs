//! Scenario: the latency trace on the console (tp_printk) and on the second serial port (TRACE=file) tells the same: one known
//! timer and one known IPI are in both exactly once, with cause, sender and duration; a traced CPU that runs alone is not
//! disturbed; every record is delivered or counted as lost; and the records replay by the rules of the context word.

use host::trace::stream::{Trace, What};
use kcore::interruption::Cause;
use kcore::trace_event::{Data, Record};
use scenarios::trace_file::TraceFile;
use scenarios::{Failed, Finished, Outcome, Vm};

/// What the guest sent, which follows the rules of the context word and arrived whole (`Vm::trace`). Fails if fewer than `least`
/// transitions were looked at.
fn trace_of(end: &mut Finished, least: u64) -> Result<Trace, Failed> {
    let (trace, findings) = end.trace.take().ok_or_else(|| Failed("no trace".into()))?;
    print!("{}", findings.text());
    assert!(findings.checked >= least, "{}", findings.text());
    Ok(trace)
}

/// The records of CPU `cpu` that `wanted` picks, with their lines.
fn records(trace: &Trace, cpu: u32, wanted: impl Fn(&Data) -> bool) -> Vec<(&Record, String)> {
    let all = trace.records_in_order().filter(|(entry, record)| entry.cpu == cpu && wanted(&record.data));
    all.map(|(entry, record)| (record, trace.line(entry))).collect()
}

#[test]
fn one_timer_and_one_ipi_in_text_and_stream() -> Outcome {
    let file = TraceFile::new("known");
    let words = "nohz_full=1-3 trace_event=irq:irq_entry,irq:irq_exit,ipi,timer tp_printk trace_buf_size=1M";
    let mut guest = Vm::new().cmdline(words).trace(file.path()).spawn()?;
    guest.prompt()?;
    guest.command("echo 1 > /sys/kernel/quiesce/inject_ipi")?;
    // The one timer of CPU 2: it sleeps there once.
    guest.command("run -c 2 sleep 0.05")?;
    let mut end = guest.power_off()?;
    end.assert_clean();
    let trace = trace_of(&mut end, 0)?;

    let sent = records(&trace, 0, |d| matches!(d, Data::IpiSend { target_cpu: 1, cause: Cause::CallFunction, .. }));
    let got = records(&trace, 1, |d| matches!(d, Data::IpiEntry { cause: Cause::CallFunction, .. }));
    let done = records(&trace, 1, |d| matches!(d, Data::IpiExit { cause: Cause::CallFunction, .. }));
    assert_eq!((sent.len(), got.len(), done.len()), (1, 1, 1), "{sent:?}\n{got:?}\n{done:?}");
    let Data::IpiEntry { sender: Some((0, sender)), .. } = got[0].0.data else { panic!("no sender: {}", got[0].1) };
    assert_eq!(sender, sent[0].0.task);
    assert!(got[0].1.contains("sender_comm=") && !got[0].1.contains("<...>"), "{}", got[0].1);
    assert!(got[0].1.contains("callsite=kernel/src/"), "{}", got[0].1);
    let Data::IpiExit { duration_ticks, .. } = done[0].0.data else { unreachable!() };
    assert!(duration_ticks > 0 && duration_ticks <= done[0].0.tsc - sent[0].0.tsc);
    let logged: Vec<_> =
        trace.entries.iter().filter(|e| e.cpu == 1 && matches!(e.what, What::Interruption(_))).collect();
    assert_eq!(logged.len(), 1, "interruptions of CPU 1: {logged:?}");

    let armed = records(&trace, 2, |d| matches!(d, Data::TimerArm { .. }));
    let expired = records(&trace, 2, |d| matches!(d, Data::TimerExpireEntry { .. }));
    assert_eq!((armed.len(), expired.len()), (1, 1), "{armed:?}\n{expired:?}");
    let (Data::TimerArm { timer, deadline_tsc, .. }, Data::TimerExpireEntry { timer: same, deadline_tsc: due, .. }) =
        (armed[0].0.data, expired[0].0.data)
    else {
        unreachable!()
    };
    assert_eq!((timer, deadline_tsc), (same, due));
    assert!(expired[0].0.tsc >= deadline_tsc);
    assert!(armed[0].1.contains("sleep-"), "{}", armed[0].1);

    // The console has each of these lines once, byte by byte as the decoder writes it.
    for (_, line) in [&sent[0], &got[0], &done[0], &armed[0], &expired[0]] {
        assert_eq!(end.output.matches(&format!("{line}\n")).count(), 1, "{line:?} is not once in:\n{}", end.output);
    }
    Ok(())
}

#[test]
fn a_traced_cpu_is_left_alone() -> Outcome {
    let file = TraceFile::new("alone");
    let words = "nohz_full=1-3 trace_event=irq,ipi,tick,timer,sched,context,syscalls,rcu trace_buf_size=2M";
    let mut guest = Vm::new().cmdline(words).trace(file.path()).spawn()?;
    guest.prompt()?;
    let report = guest.command("noise -c 1 -s 1")?;
    assert!(report.contains("entries: 0"), "CPU 1 was disturbed while traced:\n{report}");
    let mut end = guest.power_off()?;
    end.assert_clean();
    trace_of(&mut end, 100)?;
    Ok(())
}

#[test]
fn what_a_full_ring_loses_is_counted_to_the_end() -> Outcome {
    let file = TraceFile::new("full");
    let words = "nohz_full=1-3 trace_event=syscalls,context,irq tp_printk";
    let mut guest = Vm::new().cmdline(words).trace(file.path()).expects_losses().spawn()?;
    guest.prompt()?;
    guest.command("run -c 1 cat /proc/interrupts /proc/stat /proc/meminfo /proc/cpuinfo")?;
    guest.command("run -c 1 calls")?;
    let tracing = "/sys/kernel/tracing";
    let stats = guest.command(&format!("echo 0 > {tracing}/tracing_on; cat {tracing}/per_cpu/cpu1/stats"))?;
    let figure = |name: &str| -> u64 {
        let line = stats.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {stats}"));
        line.trim().parse().unwrap_or_else(|e| panic!("{name}{line}: {e}"))
    };
    let pushed = figure("entries:") + figure("overrun:") + figure("read events:") + figure("dropped events:");
    let mut end = guest.power_off()?;
    end.assert_clean();
    let trace = trace_of(&mut end, 100)?;
    let Some((_, one)) = trace.account.cpus().find(|&(cpu, _)| cpu == 1) else { panic!("nothing of CPU 1") };
    assert!(one.lost_in_kernel > 0, "nothing was lost: {one:?}");
    assert_eq!(pushed, one.received + one.lost_in_kernel, "pushed = delivered + lost: {one:?}\n{stats}");
    let told: u64 = end
        .output
        .split("CPU:1 [LOST ")
        .skip(1)
        .filter_map(|rest| rest.split_once(" EVENTS]")?.0.parse::<u64>().ok())
        .sum();
    assert_eq!(told, one.lost_in_kernel, "the console's [LOST n EVENTS] add up to the same");
    Ok(())
}
