//! ptrace(2): what a traced thread does next, as its tracer's requests, its own system calls and signals decide it.
//!
//! Called by `process::ptrace` of the kernel under its lock. Holds no registers and knows no threads: a `Tracee` is the state of one
//! traced thread, a `Stop` says why it stands still, and `Stop::code` what wait4(2) tells of it.
//! Source: ptrace(2); Linux include/uapi/linux/ptrace.h for the numbers.

#[cfg(test)]
mod tests;

/// SIGTRAP
pub const SIGTRAP: u32 = 5;
/// SIGSTOP
pub const SIGSTOP: u32 = 19;
/// Highest signal number.
const SIGNAL_MAX: u64 = 64;

/// Bits of PTRACE_SETOPTIONS.
#[allow(missing_docs, reason = "the names say it; the list is Linux's")]
pub mod option {
    pub const SYSGOOD: u32 = 1;
    pub const FORK: u32 = 2;
    pub const VFORK: u32 = 4;
    pub const CLONE: u32 = 8;
    pub const EXEC: u32 = 0x10;
    pub const VFORK_DONE: u32 = 0x20;
    pub const EXIT: u32 = 0x40;
    pub const SECCOMP: u32 = 0x80;
    pub const EXITKILL: u32 = 1 << 20;
    pub const ALL: u32 = 0xff | EXITKILL;
}

/// PTRACE_EVENT_*.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Event {
    /// A child process was made.
    Fork = 1,
    /// By vfork.
    Vfork = 2,
    /// A thread, or a child with another exit signal than SIGCHLD.
    Clone = 3,
    /// Another program was loaded.
    Exec = 4,
    /// The vfork child has let go.
    VforkDone = 5,
    /// The thread is about to end.
    Exit = 6,
}

impl Event {
    /// The option that asks for it.
    pub const fn option(self) -> u32 {
        1 << self as u32
    }
}

/// PTRACE_EVENT_STOP.
const EVENT_STOP: u32 = 128;

/// Why a traced thread stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Before this signal is delivered.
    Signal(u32),
    /// A SIGTRAP of ptrace itself: a step over a system call, or execve without the option for its event.
    Trap,
    /// Before a system call.
    CallEntry,
    /// After it.
    CallExit,
    /// What an option asked for.
    Event(Event),
    /// Job control stopped it by this signal, and it was attached, not seized.
    Group(u32),
    /// A seized thread: job control's signal, or SIGTRAP after PTRACE_INTERRUPT, SIGCONT and at a child's start.
    Seized(u32),
}

impl Stop {
    /// The wait status, shifted down by 8: signal and event.
    pub const fn code(self, options: u32) -> u32 {
        match self {
            Stop::Signal(signal) | Stop::Group(signal) => signal,
            Stop::Trap => SIGTRAP,
            Stop::CallEntry | Stop::CallExit if options & option::SYSGOOD != 0 => SIGTRAP | 0x80,
            Stop::CallEntry | Stop::CallExit => SIGTRAP,
            Stop::Event(event) => SIGTRAP | (event as u32) << 8,
            Stop::Seized(signal) => signal | EVENT_STOP << 8,
        }
    }

    /// si_code of PTRACE_GETSIGINFO, for stops that are no signal's. `None`: there is no siginfo, which is EINVAL.
    pub const fn info_code(self, options: u32) -> Option<i32> {
        match self {
            Stop::Group(_) => None,
            Stop::Signal(_) => Some(0),
            _ => Some(self.code(options) as i32),
        }
    }
}

/// How a stopped thread goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Go {
    /// PTRACE_CONT
    Continue,
    /// PTRACE_SYSCALL
    Syscall,
    /// PTRACE_SINGLESTEP
    Step,
    /// PTRACE_SYSEMU
    Emulate,
    /// PTRACE_SYSEMU_SINGLESTEP
    EmulateStep,
}

impl Go {
    /// Whether it stops after one instruction.
    pub const fn steps(self) -> bool {
        matches!(self, Go::Step | Go::EmulateStep)
    }

    const fn emulates(self) -> bool {
        matches!(self, Go::Emulate | Go::EmulateStep)
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// ESRCH: the thread is not stopped for its tracer.
    NotStopped,
    /// EIO: this request does not go with this thread, or the signal is none.
    Io,
    /// EINVAL: an option that there is not.
    Invalid,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Runs,
    Stopped(Stop),
    /// PTRACE_LISTEN: it stands still, but takes no requests.
    Listens,
}

/// What is to be done with a system call that begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallBegins {
    /// Stop first.
    pub stop: bool,
    /// Do not run it.
    pub emulated: bool,
}

/// One traced thread.
#[derive(Clone, Debug)]
pub struct Tracee {
    seized: bool,
    options: u32,
    phase: Phase,
    go: Go,
    /// The stop has been waited for.
    reported: bool,
    /// The signal to go on with.
    signal: u32,
    message: u64,
    /// The job-control stop that its process is in; 0: none.
    stopped_by: u32,
    /// It has not taken that stop yet.
    group_due: bool,
    /// A seized thread is to stop when it can.
    trap_due: bool,
}

impl Tracee {
    /// A thread that runs. `options` are checked (`check_options`).
    pub const fn new(seized: bool, options: u32) -> Self {
        Self {
            seized,
            options,
            phase: Phase::Runs,
            go: Go::Continue,
            reported: false,
            signal: 0,
            message: 0,
            stopped_by: 0,
            group_due: false,
            trap_due: false,
        }
    }

    /// The child of a traced thread, traced alike. `true` beside it: it is sent SIGSTOP; a seized one stops by itself.
    pub const fn child_of(parent: &Tracee) -> (Self, bool) {
        let mut child = Self::new(parent.seized, parent.options);
        child.trap_due = parent.seized;
        (child, !parent.seized)
    }

    /// Whether these options exist.
    pub const fn check_options(options: u64) -> Result<u32, Refused> {
        if options & !(option::ALL as u64) != 0 { Err(Refused::Invalid) } else { Ok(options as u32) }
    }

    /// PTRACE_SETOPTIONS.
    pub fn set_options(&mut self, options: u64) -> Result<(), Refused> {
        self.options = Self::check_options(options)?;
        Ok(())
    }

    /// The options.
    pub const fn options(&self) -> u32 {
        self.options
    }

    /// Whether `event` was asked for.
    pub const fn wants(&self, event: Event) -> bool {
        self.options & event.option() != 0
    }

    /// Whether it was seized.
    pub const fn is_seized(&self) -> bool {
        self.seized
    }

    /// Why it is stopped, for requests that want it stopped.
    pub const fn stop(&self) -> Result<Stop, Refused> {
        match self.phase {
            Phase::Stopped(stop) => Ok(stop),
            _ => Err(Refused::NotStopped),
        }
    }

    /// Whether it stands still, also for no request.
    pub const fn stands(&self) -> bool {
        !matches!(self.phase, Phase::Runs)
    }

    /// How it went on last.
    pub const fn go(&self) -> Go {
        self.go
    }

    /// PTRACE_GETEVENTMSG.
    pub const fn message(&self) -> u64 {
        match self.phase {
            Phase::Stopped(Stop::CallEntry) => 1,
            Phase::Stopped(Stop::CallExit) => 2,
            _ => self.message,
        }
    }

    /// The thread stops.
    pub fn begin(&mut self, stop: Stop, message: u64) {
        self.phase = Phase::Stopped(stop);
        self.reported = false;
        self.signal = 0;
        self.message = message;
    }

    /// What wait4(2) has to tell: signal and event. It does so once, unless `keep`.
    pub fn report(&mut self, keep: bool) -> Option<u32> {
        let Phase::Stopped(stop) = self.phase else { return None };
        if self.reported {
            return None;
        }
        self.reported = !keep;
        Some(stop.code(self.options))
    }

    /// A request lets it go on, with `signal` (0: none).
    pub fn go_on(&mut self, go: Go, signal: u64) -> Result<(), Refused> {
        self.stop()?;
        if signal > SIGNAL_MAX {
            return Err(Refused::Io);
        }
        self.go = go;
        self.signal = signal as u32;
        self.phase = Phase::Runs;
        Ok(())
    }

    /// PTRACE_LISTEN. True: it stops anew at once.
    pub fn listen(&mut self) -> Result<bool, Refused> {
        match (self.stop()?, self.seized) {
            (Stop::Seized(_), true) => {
                let again = self.trap_due;
                self.phase = if again { Phase::Runs } else { Phase::Listens };
                self.go = Go::Continue;
                Ok(again)
            }
            _ => Err(Refused::Io),
        }
    }

    /// PTRACE_INTERRUPT. True: it stands still and is to be woken.
    pub fn interrupt(&mut self) -> Result<bool, Refused> {
        if !self.seized {
            return Err(Refused::Io);
        }
        self.trap_due = true;
        Ok(self.leave_listening())
    }

    /// Its process is stopped by `signal`.
    pub fn group_stop(&mut self, signal: u32) {
        self.stopped_by = signal;
        self.group_due = true;
    }

    /// Its process goes on by SIGCONT. True: it stands still and is to be woken.
    pub fn group_continue(&mut self) -> bool {
        self.stopped_by = 0;
        self.group_due = false;
        self.trap_due |= self.seized;
        self.leave_listening()
    }

    fn leave_listening(&mut self) -> bool {
        let listened = self.phase == Phase::Listens;
        if listened {
            self.phase = Phase::Runs;
        }
        listened
    }

    /// The stop that is due before it goes back to user mode. Taken by this.
    pub fn take_due(&mut self) -> Option<Stop> {
        let (group, trap) = (self.group_due, self.trap_due);
        (self.group_due, self.trap_due) = (false, false);
        match (group, trap) {
            (false, false) => None,
            (true, _) if !self.seized => Some(Stop::Group(self.stopped_by)),
            _ if self.stopped_by != 0 => Some(Stop::Seized(self.stopped_by)),
            _ => Some(Stop::Seized(SIGTRAP)),
        }
    }

    /// The signal that its tracer let it go on with; 0: none. Taken by this.
    pub fn take_signal(&mut self) -> u32 {
        core::mem::take(&mut self.signal)
    }

    /// A system call begins.
    pub const fn call_begins(&self) -> CallBegins {
        let emulated = self.go.emulates();
        CallBegins { stop: emulated || matches!(self.go, Go::Syscall), emulated }
    }

    /// A system call has ended, or was not run: what it stops for then.
    pub const fn call_ends(&self) -> Option<Stop> {
        match self.go {
            Go::Syscall => Some(Stop::CallExit),
            Go::Step => Some(Stop::Trap),
            _ => None,
        }
    }
}

/// The event of a clone(2) with these flags, if it is one that an option may ask for. `untraced`: CLONE_UNTRACED.
pub const fn clone_event(exit_signal: u32, vfork: bool, untraced: bool) -> Option<Event> {
    const SIGCHLD: u32 = 17;
    match (untraced, vfork) {
        (true, _) => None,
        (false, true) => Some(Event::Vfork),
        (false, false) if exit_signal == SIGCHLD => Some(Event::Fork),
        (false, false) => Some(Event::Clone),
    }
}
