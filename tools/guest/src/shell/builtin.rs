//! Commands inside the shell: those that change the shell, know its jobs, or are used all the time. Called by the shell's run.

use super::{Shell, take_interrupt};
use crate::output::{Output, complain, describe};
use crate::{linux, signal_name};

const BUILTINS: [(&str, &str); 9] = [
    ("cd", "cd [DIR]              change the directory (default /)"),
    ("echo", "echo [-n] [WORD…]     write the words"),
    ("exec", "exec PROGRAM [WORD…] become the program"),
    ("exit", "exit [STATUS]         end the shell; init then powers off"),
    ("help", "help                  this text"),
    ("jobs", "jobs                  what runs in the background"),
    ("kill", "kill [-SIG] PID|%N…   send a signal (default TERM)"),
    ("pwd", "pwd                   the current directory"),
    ("wait", "wait [%N]             wait for jobs in the background"),
];

/// Whether the shell runs `name` itself.
pub fn is_builtin(name: &str) -> bool {
    BUILTINS.iter().any(|(builtin, _)| *builtin == name)
}

impl Shell {
    /// Runs the built-in command `words[0]` and returns its status; 0 when there are no words.
    pub(super) fn run_builtin(&mut self, words: &[String]) -> u8 {
        let Some((name, rest)) = words.split_first() else { return 0 };
        let done = match name.as_str() {
            "cd" => change_directory(rest),
            "echo" => echo(rest),
            "exec" => return self.exec(rest),
            "exit" => self.exit(rest),
            "help" => {
                help();
                Ok(0)
            }
            "jobs" => {
                self.list_jobs();
                Ok(0)
            }
            "kill" => self.kill(rest),
            "pwd" => match std::env::current_dir() {
                Ok(dir) => say(&format!("{}\n", dir.display())),
                Err(error) => Err(describe(&error)),
            },
            _ => self.wait(rest),
        };
        done.unwrap_or_else(|error| {
            complain(name, &error);
            1
        })
    }

    /// Returns only where that fails, which ends a shell that nobody types to.
    fn exec(&mut self, words: &[String]) -> u8 {
        if words.is_empty() {
            complain("exec", "usage: exec PROGRAM [WORD…]");
            return 2;
        }
        if self.interactive {
            super::default_signals();
        }
        let status = super::run::exec(words);
        if self.interactive {
            super::own_signals();
        } else {
            self.ending = true;
        }
        status
    }

    fn exit(&mut self, rest: &[String]) -> Result<u8, String> {
        let status = match rest.first() {
            None => self.status,
            Some(text) => text.parse().map_err(|_| format!("not a status (0 to 255): {text:?}"))?,
        };
        self.ending = true;
        Ok(status)
    }

    fn list_jobs(&mut self) {
        self.jobs.reap();
        let mut out = Output::new();
        for job in self.jobs.all().iter().filter(|job| job.ended().is_none()) {
            let pids: Vec<_> = job.processes.iter().map(|(pid, _)| pid.to_string()).collect();
            out.line(format_args!("[{}] running {}    {}", job.number, pids.join(" "), job.text));
        }
        out.flush();
        self.jobs.tell_ended();
    }

    fn kill(&mut self, rest: &[String]) -> Result<u8, String> {
        let (signal, targets) = match rest.first().and_then(|word| word.strip_prefix('-')) {
            None => (libc::SIGTERM, rest),
            Some(text) => (signal_name::number(text).ok_or_else(|| format!("no signal {text:?}"))?, &rest[1..]),
        };
        if targets.is_empty() {
            return Err("usage: kill [-SIGNAL] PID|%JOB…".to_string());
        }
        for target in targets {
            let pids = match target.strip_prefix('%') {
                Some(number) => {
                    let job = number.parse().ok().and_then(|number| self.jobs.find(number));
                    let job = job.ok_or_else(|| format!("no job {target}"))?;
                    let left = job.processes.iter().filter(|(_, ended)| ended.is_none());
                    left.map(|(pid, _)| *pid).collect()
                }
                None => vec![target.parse().map_err(|_| format!("not a process number: {target:?}"))?],
            };
            for pid in pids {
                linux::kill(pid, signal).map_err(|error| format!("{target}: {}", describe(&error)))?;
            }
        }
        Ok(0)
    }

    fn wait(&mut self, rest: &[String]) -> Result<u8, String> {
        let only = match rest.first() {
            None => None,
            Some(word) => {
                let number = word.trim_start_matches('%').parse().ok();
                Some(number.filter(|n| self.jobs.find(*n).is_some()).ok_or_else(|| format!("no job {word}"))?)
            }
        };
        let mut status = 0;
        loop {
            let mut running = false;
            for job in self.jobs.all().iter().filter(|job| only.is_none_or(|number| number == job.number)) {
                match job.ended() {
                    None => running = true,
                    Some(ended) if only.is_some() => status = ended.status(),
                    Some(_) => {}
                }
            }
            if !running {
                break;
            }
            if !self.jobs.wait_any() && take_interrupt() {
                status = 130;
                break;
            }
        }
        if self.interactive {
            self.jobs.tell_ended();
        }
        Ok(status)
    }
}

fn change_directory(rest: &[String]) -> Result<u8, String> {
    let dir = rest.first().map_or("/", String::as_str);
    std::env::set_current_dir(dir).map_err(|error| format!("{dir}: {}", describe(&error)))?;
    Ok(0)
}

/// Writes to the command's standard output. The shell goes on whatever comes of it.
fn say(text: &str) -> Result<u8, String> {
    linux::write_all(1, text.as_bytes()).map(|()| 0).map_err(|error| describe(&error))
}

fn echo(words: &[String]) -> Result<u8, String> {
    let newline = words.first().is_none_or(|word| word != "-n");
    let text = words[usize::from(!newline)..].join(" ");
    say(&if newline { text + "\n" } else { text })
}

fn help() {
    let mut out = Output::new();
    out.line("built-in commands:");
    for (_, line) in BUILTINS {
        out.line(format_args!("  {line}"));
    }
    out.line("  A | B   A && B   A || B   A; B   A &   < FILE   > FILE   >> FILE   2>&1   $?   time A   NAME=VALUE");
    if let Ok(entries) = std::fs::read_dir("/bin") {
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name != "sh" && name != "box");
        names.sort();
        out.line("programs in /bin:");
        let mut line = String::new();
        for name in names {
            if line.len() + name.len() > 74 {
                out.line(format_args!(" {line}"));
                line.clear();
            }
            line.push(' ');
            line.push_str(&name);
        }
        out.line(format_args!(" {line}"));
    }
    out.line("first steps: cpus · why 1 · run -c 1 spin & · noise -c 1 -s 10 · log -f · poweroff");
}
