//! The shell's jobs: which processes belong to which pipeline, and which have ended. Called by the shell's other files.

use crate::linux::{self, Ended, Pid, UsedTime, Wait};
use crate::output::write_out;
use crate::signal_name;

/// One pipeline that was started.
#[derive(Debug)]
pub struct Job {
    /// Its number in `[1]`; 0 for the foreground job.
    pub number: u32,
    /// Its process group, or its first process where there are no groups.
    pub group: Pid,
    /// Its processes; with how they ended.
    pub processes: Vec<(Pid, Option<Ended>)>,
    /// Its text.
    pub text: String,
    /// Times of the ended processes.
    pub used: UsedTime,
}

impl Job {
    /// How the last process of the pipeline ended, when all have ended.
    pub fn ended(&self) -> Option<Ended> {
        if self.processes.iter().any(|(_, ended)| ended.is_none()) {
            return None;
        }
        self.processes.last().and_then(|(_, ended)| *ended)
    }

    fn note(&mut self, pid: Pid, how: Ended, used: UsedTime) -> bool {
        let Some(process) = self.processes.iter_mut().find(|(p, ended)| *p == pid && ended.is_none()) else {
            return false;
        };
        process.1 = Some(how);
        self.used.user_us += used.user_us;
        self.used.system_us += used.system_us;
        true
    }
}

/// All jobs that have not been told as done.
#[derive(Debug, Default)]
pub struct Jobs {
    jobs: Vec<Job>,
}

impl Jobs {
    /// Takes a background job and returns its number.
    pub fn add(&mut self, mut job: Job) -> u32 {
        let number = self.jobs.iter().map(|job| job.number).max().unwrap_or(0) + 1;
        job.number = number;
        self.jobs.push(job);
        number
    }

    /// The jobs, oldest first.
    pub fn all(&self) -> &[Job] {
        &self.jobs
    }

    /// The job with this number.
    pub fn find(&self, number: u32) -> Option<&Job> {
        self.jobs.iter().find(|job| job.number == number)
    }

    /// Collects background processes that have ended, without waiting.
    pub fn reap(&mut self) {
        while let Ok(Some((pid, how, used))) = linux::wait(-1, Wait::Poll) {
            self.note(pid, how, used);
        }
    }

    /// Writes `[1] done` and the like for jobs that have ended, and forgets them.
    pub fn tell_ended(&mut self) {
        self.jobs.retain(|job| match job.ended() {
            None => true,
            Some(how) => {
                let how = match how {
                    Ended::Exit(0) => "done".to_string(),
                    Ended::Exit(status) => format!("exit {status}"),
                    Ended::Signal(signal) => format!("killed by {}", signal_name::name(signal)),
                };
                write_out(format!("[{}] {how}    {}\n", job.number, job.text).as_bytes());
                false
            }
        });
    }

    /// Waits until `job` has ended, noting others that end meanwhile.
    pub fn wait_foreground(&mut self, job: &mut Job) {
        while job.ended().is_none() {
            match linux::wait(-1, Wait::Block) {
                Ok(Some((pid, how, used))) => {
                    if !job.note(pid, how, used) {
                        self.note(pid, how, used);
                    }
                }
                Ok(None) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // No children: somebody else collected them. Their status is unknown, which counts as failure.
                Err(_) => job.processes.iter_mut().for_each(|(_, ended)| *ended = ended.or(Some(Ended::Exit(127)))),
            }
        }
    }

    /// Waits until a background process has ended; false when a signal came in first or there is none left.
    pub fn wait_any(&mut self) -> bool {
        match linux::wait(-1, Wait::Block) {
            Ok(Some((pid, how, used))) => {
                self.note(pid, how, used);
                true
            }
            Ok(None) => true,
            Err(error) => {
                if error.raw_os_error() == Some(libc::ECHILD) {
                    self.jobs
                        .iter_mut()
                        .flat_map(|job| &mut job.processes)
                        .for_each(|(_, ended)| *ended = ended.or(Some(Ended::Exit(127))));
                }
                false
            }
        }
    }

    fn note(&mut self, pid: Pid, how: Ended, used: UsedTime) {
        self.jobs.iter_mut().any(|job| job.note(pid, how, used));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(pids: &[Pid]) -> Job {
        let processes = pids.iter().map(|pid| (*pid, None)).collect();
        Job { number: 0, group: pids[0], processes, text: "x".into(), used: UsedTime::default() }
    }

    #[test]
    fn a_pipeline_ends_with_its_last_process_when_all_have_ended() {
        let mut one = job(&[10, 11]);
        assert!(one.note(11, Ended::Exit(3), UsedTime { user_us: 5, system_us: 1 }));
        assert_eq!(one.ended(), None);
        assert!(!one.note(12, Ended::Exit(0), UsedTime::default()));
        assert!(one.note(10, Ended::Exit(0), UsedTime { user_us: 2, system_us: 0 }));
        assert_eq!(one.ended(), Some(Ended::Exit(3)));
        assert_eq!(one.used, UsedTime { user_us: 7, system_us: 1 });
    }

    #[test]
    fn numbers_go_on_from_the_highest() {
        let mut jobs = Jobs::default();
        assert_eq!(jobs.add(job(&[10])), 1);
        assert_eq!(jobs.add(job(&[11])), 2);
        jobs.note(10, Ended::Exit(0), UsedTime::default());
        jobs.jobs.retain(|job| job.ended().is_none());
        assert_eq!(jobs.add(job(&[12])), 3);
        assert!(jobs.find(1).is_none() && jobs.find(2).is_some());
    }
}
