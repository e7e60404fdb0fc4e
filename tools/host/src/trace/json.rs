//! A trace as JSON: one object a line for each entry, then one with figures and losses. Pure.

use super::spans::{Span, summaries};
use super::stream::{Entry, Trace, What, comm_text};
use kcore::trace_event::{Data, Flags, Names, Record};
use std::fmt::Write;

/// `text` as a JSON string; `<` too is escaped, so that it may stand in a page.
pub fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 || c == '<' || c == '\u{2028}' || c == '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", c as u32); // a String takes everything
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An object in the making.
struct Object(String);

impl Object {
    fn new() -> Object {
        Object("{".into())
    }

    fn raw(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Object {
        let comma = if self.0.len() > 1 { ", " } else { "" };
        let _ = write!(self.0, "{comma}{}: {value}", string(key)); // a String takes everything
        self
    }

    fn text(&mut self, key: &str, value: &str) -> &mut Object {
        self.raw(key, string(value))
    }

    fn end(&mut self) -> String {
        std::mem::take(&mut self.0) + "}"
    }
}

/// The whole trace.
pub fn write(trace: &Trace, spans: &[Span]) -> String {
    let mut out = String::new();
    for entry in &trace.entries {
        out.push_str(&line(trace, entry));
        out.push('\n');
    }
    for (cpu, cause, s) in summaries(trace, spans) {
        let mut object = Object::new();
        object.text("type", "summary").raw("cpu", cpu).text("cause", &cause).raw("count", s.count);
        object.raw("min_ns", s.min).raw("avg_ns", s.avg).raw("p99_ns", s.p99).raw("max_ns", s.max);
        out.push_str(&(object.end() + "\n"));
    }
    let (account, all) = (&trace.account, trace.account.all());
    let mut object = Object::new();
    object.text("type", "account").raw("received", all.received).raw("delivered", all.delivered);
    object.raw("lost_in_kernel", all.lost_in_kernel).raw("lost_on_line", all.lost_on_line());
    object.raw("frames", account.frames).raw("missing_frames", account.missing_frames);
    object.raw("bad_crcs", account.bad_crcs).raw("skipped_bytes", account.skipped_bytes);
    object.raw("undecodable", trace.undecodable.len()).raw("boots", trace.boots()).raw("ended", account.ended);
    out + &object.end() + "\n"
}

fn line(trace: &Trace, entry: &Entry) -> String {
    let clock = trace.clock(entry.boot);
    let mut object = Object::new();
    match &entry.what {
        What::Lost(in_kernel, on_line) => {
            object.text("type", "lost").raw("cpu", entry.cpu);
            object.raw("in_kernel", in_kernel).raw("on_line", on_line);
        }
        What::Record(record) => {
            let flag = |flag| record.flags.contains(flag);
            object.text("type", "event").raw("time_ns", clock.time_ns(record.tsc)).raw("cpu", entry.cpu);
            object.raw("task", record.task).text("comm", &comm(trace, entry, record.task));
            object.raw("irqs_off", flag(Flags::IRQS_OFF)).raw("in_nmi", flag(Flags::IN_NMI));
            object.raw("from_user", flag(Flags::FROM_USER)).text("event", record.data.event().name());
            data(trace, entry, record, &mut object);
        }
        What::Interruption(i) => {
            object.text("type", "interruption").raw("time_ns", clock.time_ns(i.start_tsc)).raw("cpu", i.cpu);
            object.text("cause", i.cause.name());
            if let Some(cpu) = i.sender_cpu {
                object.raw("sender_cpu", cpu).raw("sender_task", i.sender_task);
                object.text("sender_comm", &comm_text(&i.sender_comm));
            }
            site(trace, entry, "site", i.site, &mut object);
            object.raw("duration_ns", clock.ns(i.end_tsc.wrapping_sub(i.start_tsc))).raw("total", i.total);
        }
    }
    object.end()
}

fn comm(trace: &Trace, entry: &Entry, task: u32) -> String {
    match trace.names(entry).comm(task) {
        _ if task == 0 => "<idle>".into(),
        Some(comm) => comm_text(&comm),
        None => "<...>".into(),
    }
}

fn site(trace: &Trace, entry: &Entry, key: &str, address: u64, object: &mut Object) {
    match trace.names(entry).site(address) {
        Some(site) => drop(object.text(key, &format!("{}:{}", site.file, site.line))),
        None if address != 0 => drop(object.text(key, &format!("{address:#x}"))),
        None => {}
    }
}

fn data(trace: &Trace, entry: &Entry, record: &Record, object: &mut Object) {
    let clock = trace.clock(entry.boot);
    let hex = |value: u64| format!("{value:#x}");
    match record.data {
        Data::IrqEntry { vector, cause } | Data::IrqExit { vector, cause } => {
            object.raw("vector", vector).text("name", cause.name());
        }
        Data::NmiEntry { word } | Data::NmiExit { word } | Data::IdleEnter { word } | Data::IdleExit { word } => {
            object.text("word", &hex(word));
        }
        Data::ExceptionEntry { vector, address, error_code } => {
            object.raw("vector", vector).text("address", &hex(address)).raw("error_code", error_code);
        }
        Data::ExceptionExit { vector } => drop(object.raw("vector", vector)),
        Data::UserExit { by, word } | Data::UserEnter { by, word } => {
            object.text("by", by.name()).text("word", &hex(word));
        }
        Data::TickStop { prevented_by } => {
            object.raw("success", prevented_by.is_none());
            dependency(prevented_by, object);
        }
        Data::TickRestart { dep, site: at, set_by_task } => {
            dependency(dep, object);
            site(trace, entry, "site", at, object);
            object.raw("set_by_task", set_by_task);
        }
        Data::IpiSend { target_cpu, cause, site: at } => {
            object.raw("target_cpu", target_cpu).text("cause", cause.name());
            site(trace, entry, "callsite", at, object);
        }
        Data::IpiEntry { cause, sender, site: at } => {
            object.text("cause", cause.name());
            if let Some((cpu, task)) = sender {
                let comm = comm(trace, entry, task);
                object.raw("sender_cpu", cpu).raw("sender_task", task).text("sender_comm", &comm);
            }
            site(trace, entry, "callsite", at, object);
        }
        Data::IpiExit { cause, duration_ticks } => {
            object.text("cause", cause.name()).raw("duration_ns", clock.ns(duration_ticks));
        }
        Data::TimerArm { timer, deadline_tsc, function } | Data::TimerExpireEntry { timer, deadline_tsc, function } => {
            object.text("timer", &hex(timer)).raw("deadline_ns", clock.time_ns(deadline_tsc));
            site(trace, entry, "function", function, object);
        }
        Data::TimerCancel { timer } | Data::TimerExpireExit { timer } => drop(object.text("timer", &hex(timer))),
        Data::SchedSwitch { prev_comm, prev_state, next } => {
            object.text("prev_comm", &comm_text(&prev_comm)).text("prev_state", &(prev_state as char).to_string());
            object.raw("next", next.id).text("next_comm", &comm_text(&next.comm));
        }
        Data::SchedWakeup { task, target_cpu } => {
            object.raw("woken", task.id).text("woken_comm", &comm_text(&task.comm)).raw("target_cpu", target_cpu);
        }
        Data::SysEnter { number, args } => {
            let args: Vec<String> = args.iter().map(|arg| string(&hex(*arg))).collect();
            object.raw("number", number as i64).raw("args", format!("[{}]", args.join(", ")));
        }
        Data::SysExit { number, result } => drop(object.raw("number", number as i64).raw("result", result)),
        Data::RcuGracePeriod { sequence, end, expedited } => {
            object.raw("sequence", sequence).raw("end", end).raw("expedited", expedited);
        }
        Data::WorkPosted { target_cpu, bits, word, site: at } => {
            object.raw("target_cpu", target_cpu).raw("work", bits).text("word", &hex(word));
            site(trace, entry, "callsite", at, object);
        }
        Data::WorkRan { bits, word } => drop(object.raw("work", bits).text("word", &hex(word))),
    }
}

fn dependency(dep: Option<(kcore::tick::TickDep, kcore::tick::Scope)>, object: &mut Object) {
    if let Some((dep, scope)) = dep {
        object.text("dependency", dep.name()).text("scope", scope.name());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{spans, stream};
    use super::*;

    #[test]
    fn each_line_is_an_object() {
        let trace = stream::decode(&stream::tests::small().concat());
        let text = write(&trace, &spans::spans(&trace));
        assert!(text.lines().all(|line| line.starts_with("{\"type\": ") && line.ends_with('}')), "{text}");
        let ipi = text.lines().find(|line| line.contains("ipi_entry")).unwrap();
        assert!(
            ipi.contains(
                "\"sender_cpu\": 0, \"sender_task\": 9, \"sender_comm\": \"noise\", \"callsite\": \"kernel/src/a.rs:5\""
            ),
            "{ipi}"
        );
        assert!(text.ends_with("\"undecodable\": 0, \"boots\": 1, \"ended\": true}\n"), "{text}");
        assert_eq!(string("a\"\\\n<"), "\"a\\\"\\\\\\u000a\\u003c\"");
    }
}
