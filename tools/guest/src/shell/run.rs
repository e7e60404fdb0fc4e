//! Running a pipeline: forks, pipes, redirections, groups, waiting. Called by the shell's main loop.

use super::{FOREGROUND, Shell, builtin};
use crate::command_line::{Command, Pipeline, Redirect, Target};
use crate::duration;
use crate::linux::{self, Ended, Fork, Pid};
use crate::output::{complain, describe, write_out};
use crate::shell::jobs::Job;
use crate::signal_name;
use std::sync::atomic::Ordering;

impl Shell {
    /// Runs one pipeline and returns its status; 0 for one in the background.
    pub(super) fn run_pipeline(&mut self, pipeline: &Pipeline) -> u8 {
        let start_ns = linux::monotonic_ns();
        let (status, used) = match self.run_inside(pipeline) {
            Some(status) => (status, linux::UsedTime::default()),
            None => match self.start(pipeline) {
                Ok(job) if pipeline.background => {
                    self.last_background = job.processes.last().map_or(0, |(pid, _)| *pid);
                    let number = self.jobs.add(job);
                    if self.interactive {
                        write_out(format!("[{number}] {}\n", self.last_background).as_bytes());
                    }
                    return 0;
                }
                Ok(mut job) => (self.finish(&mut job), job.used),
                Err(error) => {
                    complain("sh", &error);
                    (1, linux::UsedTime::default())
                }
            },
        };
        if pipeline.timed {
            let real_ns = linux::monotonic_ns().saturating_sub(start_ns);
            let times = [real_ns, used.user_us * 1_000, used.system_us * 1_000].map(duration::seconds);
            complain("time", &format!("real {} s, user {} s, system {} s", times[0], times[1], times[2]));
        }
        status
    }

    /// Runs a single built-in command or an assignment in the shell itself; `None` when it is not one.
    fn run_inside(&mut self, pipeline: &Pipeline) -> Option<u8> {
        let [command] = pipeline.commands.as_slice() else { return None };
        if pipeline.background {
            return None;
        }
        let words = self.expand(command);
        if let [word] = words.as_slice()
            && let Some((name, value)) = assignment(word)
        {
            // SAFETY: (1) the shell has one thread.
            unsafe { std::env::set_var(name, value) };
            return Some(0);
        }
        let inside = words.first().is_none_or(|name| builtin::is_builtin(name));
        if !inside {
            return None;
        }
        let mut saved = Vec::new();
        for redirect in &command.redirects {
            // Not open before: it is closed afterwards.
            saved.push((redirect.fd, linux::duplicate_high(redirect.fd).ok()));
        }
        let status = match self.redirect(&command.redirects) {
            Ok(()) => self.run_builtin(&words),
            Err(error) => {
                complain("sh", &error);
                1
            }
        };
        for (fd, copy) in saved.into_iter().rev() {
            match copy {
                Some(copy) => {
                    let _ = linux::duplicate_onto(copy, fd);
                    linux::close(copy);
                }
                None => linux::close(fd),
            }
        }
        Some(status)
    }

    /// The words of a command after expansion; unquoted ones that are empty are dropped.
    fn expand(&self, command: &Command) -> Vec<String> {
        let value = |name: &str| self.value(name);
        let words = command.words.iter().map(|word| (word.quoted, word.expand(&value)));
        words.filter(|(quoted, text)| *quoted || !text.is_empty()).map(|(_, text)| text).collect()
    }

    /// Starts all commands of the pipeline.
    fn start(&mut self, pipeline: &Pipeline) -> Result<Job, String> {
        let mut job = Job {
            number: 0,
            group: 0,
            processes: Vec::new(),
            text: pipeline.text.clone(),
            used: linux::UsedTime::default(),
        };
        let mut input: Option<i32> = None;
        let mut failure = None;
        for (index, command) in pipeline.commands.iter().enumerate() {
            let mut pipe = None;
            if index + 1 < pipeline.commands.len() {
                match linux::pipe() {
                    Ok(ends) => pipe = Some(ends),
                    Err(error) => {
                        failure = Some(format!("pipe: {}", describe(&error)));
                        break;
                    }
                }
            }
            match linux::fork() {
                Ok(Fork::Child) => {
                    let status = self.run_child(command, job.group, pipeline.background, input, pipe);
                    linux::exit_now(status)
                }
                Ok(Fork::Parent(pid)) => self.adopt(&mut job, pid, pipeline.background),
                Err(error) => failure = Some(format!("fork: {}", describe(&error))),
            }
            if let Some(fd) = input.take() {
                linux::close(fd);
            }
            if let Some((read, write)) = pipe {
                linux::close(write);
                input = Some(read);
            }
            if failure.is_some() {
                break;
            }
        }
        if let Some(fd) = input {
            linux::close(fd);
        }
        match failure {
            Some(failure) if job.processes.is_empty() => Err(failure),
            Some(failure) => {
                complain("sh", &failure);
                Ok(job)
            }
            None => Ok(job),
        }
    }

    /// Parent side of a fork: the child joins the job's group (the child does the same; whoever is first wins).
    fn adopt(&self, job: &mut Job, pid: Pid, background: bool) {
        if job.group == 0 {
            job.group = pid;
        }
        job.processes.push((pid, None));
        if self.interactive {
            let _ = linux::set_process_group(pid, job.group);
            if self.has_terminal && !background {
                let _ = linux::set_terminal_group(0, job.group);
            }
        }
    }

    /// Child side of a fork: group, signals, descriptors, then the program or the built-in command. Returns the status to end with.
    fn run_child(
        &mut self,
        command: &Command,
        group: Pid,
        background: bool,
        input: Option<i32>,
        pipe: Option<(i32, i32)>,
    ) -> u8 {
        if self.interactive {
            let _ = linux::set_process_group(0, group);
            if self.has_terminal && !background {
                let _ = linux::set_terminal_group(0, linux::process_group());
            }
            super::default_signals();
        }
        self.interactive = false;
        let mut wired = Ok(());
        if let Some(fd) = input {
            wired = linux::duplicate_onto(fd, 0);
        } else if background && let Ok(fd) = linux::open("/dev/null", libc::O_RDONLY, 0) {
            // Nobody in the background reads the shell's input away.
            wired = linux::duplicate_onto(fd, 0);
        }
        if let Some((_, write)) = pipe {
            wired = wired.and_then(|()| linux::duplicate_onto(write, 1));
        }
        if let Err(error) = wired {
            complain("sh", &describe(&error));
            return 1;
        }
        let words = self.expand(command);
        if let Err(error) = self.redirect(&command.redirects) {
            complain("sh", &error);
            return 1;
        }
        let Some(name) = words.first() else { return 0 };
        if builtin::is_builtin(name) {
            return self.run_builtin(&words);
        }
        exec(&words)
    }

    /// Makes the redirections in order.
    fn redirect(&self, redirects: &[Redirect]) -> Result<(), String> {
        for redirect in redirects {
            let (word, flags) = match &redirect.target {
                Target::Read(word) => (word, libc::O_RDONLY),
                Target::Write(word) => (word, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC),
                Target::Append(word) => (word, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND),
                Target::Same(fd) => {
                    linux::duplicate_onto(*fd, redirect.fd).map_err(|error| format!("{fd}: {}", describe(&error)))?;
                    continue;
                }
            };
            let path = word.expand(&|name| self.value(name));
            let named = |error: std::io::Error| format!("{path}: {}", describe(&error));
            let fd = linux::open(&path, flags, 0o644).map_err(named)?;
            linux::duplicate_onto(fd, redirect.fd).map_err(named)?;
            if fd != redirect.fd {
                linux::close(fd);
            }
        }
        Ok(())
    }

    /// Waits for the foreground job, takes the terminal back, tells what killed it.
    fn finish(&mut self, job: &mut Job) -> u8 {
        if self.interactive {
            // With groups of the terminal the kernel sends Ctrl-C to the job itself; without, the shell does.
            let group = if self.has_terminal { 0 } else { job.group };
            FOREGROUND.store(group, Ordering::SeqCst);
        }
        self.jobs.wait_foreground(job);
        FOREGROUND.store(0, Ordering::SeqCst);
        if self.has_terminal {
            let _ = linux::set_terminal_group(0, linux::process_group());
        }
        let Some(ended) = job.ended() else { return 127 };
        match ended {
            Ended::Signal(libc::SIGINT) if self.interactive => {
                super::INTERRUPTED.store(true, Ordering::SeqCst);
                write_out(b"\n");
            }
            Ended::Signal(libc::SIGINT | libc::SIGPIPE) | Ended::Exit(_) => {}
            Ended::Signal(signal) => complain("sh", &format!("{}: killed by {}", job.text, signal_name::name(signal))),
        }
        ended.status()
    }
}

/// Becomes the program `words[0]`; returns, if that fails, the status to end with.
pub(super) fn exec(words: &[String]) -> u8 {
    let Some(name) = words.first() else { return 0 };
    let error = linux::exec_search(words);
    if error.raw_os_error() == Some(libc::ENOENT) && !name.contains('/') {
        complain("sh", &format!("{name}: command not found (try: help)"));
        return 127;
    }
    complain("sh", &format!("{name}: {}", describe(&error)));
    if error.raw_os_error() == Some(libc::ENOENT) { 127 } else { 126 }
}

/// `NAME=VALUE`, if the word is that.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let good =
        name.bytes().enumerate().all(|(at, b)| b == b'_' || b.is_ascii_alphabetic() || (at > 0 && b.is_ascii_digit()));
    (good && !name.is_empty()).then_some((name, value))
}
