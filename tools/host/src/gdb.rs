//! A client of QEMU's gdbstub: stops, steps, registers, memory, and QEMU's monitor. Used by `inject`.
//!
//! QEMU listens on a socket in the abstract namespace, so no file is left behind. All CPUs are stopped whenever a request is answered.
//! Source: GDB manual, "GDB Remote Serial Protocol"; QEMU manual, "GDB usage".

use crate::failure::Failure;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Safety net for one answer.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a wait looks up.
const LOOK: Duration = Duration::from_millis(30);

/// RFLAGS.RF.
const RF: u32 = 0x1_0000;

/// A name for a socket that nobody else has.
pub fn socket_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("quiesce-gdb-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// QEMU's arguments that let it listen at `name`.
pub fn arguments(name: &str) -> [String; 4] {
    let chardev = format!("socket,id=gdb,path={name},abstract=on,server=on,wait=off");
    ["-chardev".into(), chardev, "-gdb".into(), "chardev:gdb".into()]
}

/// General registers, RIP, RFLAGS, segments and their bases, CR2, as the stub orders them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registers {
    /// rax rbx rcx rdx rsi rdi rbp rsp r8 to r15.
    pub general: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS but RF, which says whether a breakpoint has been told already: the stub's own move it.
    pub flags: u32,
    /// cs ss ds es fs gs.
    pub segments: [u32; 6],
    /// FS, GS and the GS that SWAPGS would bring.
    pub bases: [u64; 3],
    /// CR2.
    pub cr2: u64,
}

impl Registers {
    /// RSP.
    pub fn rsp(&self) -> u64 {
        self.general[7]
    }

    /// Whether they are a program's.
    pub fn is_user(&self) -> bool {
        self.segments[0] & 3 == 3
    }

    fn parse(bytes: &[u8]) -> Option<Registers> {
        let mut rest = bytes;
        let mut take = |count: usize| {
            let (head, tail) = rest.split_at_checked(count)?;
            rest = tail;
            let mut word = [0; 8];
            word[..count].copy_from_slice(head);
            Some(u64::from_le_bytes(word))
        };
        let mut registers = Registers { general: [0; 16], rip: 0, flags: 0, segments: [0; 6], bases: [0; 3], cr2: 0 };
        for register in &mut registers.general {
            *register = take(8)?;
        }
        registers.rip = take(8)?;
        registers.flags = take(4)? as u32 & !RF;
        for segment in &mut registers.segments {
            *segment = take(4)? as u32;
        }
        for base in &mut registers.bases {
            *base = take(8)?;
        }
        take(8)?; // CR0
        registers.cr2 = take(8)?;
        Some(registers)
    }
}

/// What a wait for a stop brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// This CPU is at a breakpoint, or has made its step.
    Cpu(u32),
    /// Not yet.
    Running,
    /// QEMU has ended.
    Ended,
}

/// A connection.
pub struct Gdb {
    stream: UnixStream,
    read: Vec<u8>,
    /// The CPU that registers and memory are asked of.
    chosen: Option<u32>,
}

fn bad(what: impl std::fmt::Display) -> Failure {
    Failure::Bad(format!("gdbstub: {what}"))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(digit).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Gdb {
    /// Connects to a QEMU that was started with [`arguments`], which stops it.
    pub fn connect(name: &str) -> Result<Gdb, Failure> {
        let address = SocketAddr::from_abstract_name(name).map_err(bad)?;
        let stream = UnixStream::connect_addr(&address).map_err(bad)?;
        stream.set_read_timeout(Some(LOOK)).map_err(bad)?;
        let mut gdb = Gdb { stream, read: Vec::new(), chosen: None };
        gdb.write(b"+")?;
        gdb.ask("QStartNoAckMode")?;
        gdb.ask("?")?;
        // A step takes interrupts and NMIs: that is what it is for here.
        gdb.ok("Qqemu.sstep=0x1")?;
        Ok(gdb)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).map_err(bad)
    }

    fn send(&mut self, text: &str) -> Result<(), Failure> {
        let sum = text.bytes().fold(0u8, u8::wrapping_add);
        self.write(format!("${text}#{sum:02x}").as_bytes())
    }

    /// The next packet; `None` if none came in the time between two looks.
    fn receive(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(start) = self.read.iter().position(|b| *b == b'$')
                && let Some(length) = self.read[start..].iter().position(|b| *b == b'#')
                && self.read.len() >= start + length + 3
            {
                let text = String::from_utf8_lossy(&self.read[start + 1..start + length]).into_owned();
                self.read.drain(..start + length + 3);
                return Ok(Some(text));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(bad("closed")),
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(bad(e)),
            }
        }
    }

    fn answer(&mut self, question: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.receive()? {
                Some(text) => return Ok(text),
                None if Instant::now() > deadline => return Err(bad(format!("no answer to {question}"))),
                None => {}
            }
        }
    }

    fn ask(&mut self, question: &str) -> Result<String, Failure> {
        self.send(question)?;
        self.answer(question)
    }

    fn ok(&mut self, question: &str) -> Result<(), Failure> {
        match self.ask(question)?.as_str() {
            "OK" => Ok(()),
            other => Err(bad(format!("{question}: {other:?}"))),
        }
    }

    fn choose(&mut self, cpu: u32) -> Result<(), Failure> {
        if self.chosen != Some(cpu) {
            self.ok(&format!("Hg{:x}", cpu + 1))?;
            self.chosen = Some(cpu);
        }
        Ok(())
    }

    /// The registers of CPU `cpu`.
    pub fn registers(&mut self, cpu: u32) -> Result<Registers, Failure> {
        self.choose(cpu)?;
        let text = self.ask("g")?;
        from_hex(&text).and_then(|bytes| Registers::parse(&bytes)).ok_or_else(|| bad(format!("registers: {text}")))
    }

    /// Sets one of the sixteen general registers, RIP (16) or RFLAGS (17).
    pub fn set_register(&mut self, cpu: u32, register: u32, value: u64) -> Result<(), Failure> {
        self.choose(cpu)?;
        let width = if register == 17 { 4 } else { 8 };
        self.ok(&format!("P{register:x}={}", to_hex(&value.to_le_bytes()[..width])))
    }

    /// `length` bytes as CPU `cpu` sees them; `None` where nothing is mapped.
    pub fn memory(&mut self, cpu: u32, at: u64, length: usize) -> Result<Option<Vec<u8>>, Failure> {
        self.choose(cpu)?;
        let text = self.ask(&format!("m{at:x},{length:x}"))?;
        Ok(if text.starts_with('E') { None } else { from_hex(&text) })
    }

    /// Writes memory as CPU `cpu` sees it.
    pub fn set_memory(&mut self, cpu: u32, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.choose(cpu)?;
        self.ok(&format!("M{at:x},{:x}:{}", bytes.len(), to_hex(bytes)))
    }

    /// A breakpoint, which changes no memory.
    pub fn set_breakpoint(&mut self, at: u64) -> Result<(), Failure> {
        self.ok(&format!("Z1,{at:x},1"))
    }

    /// Takes it away.
    pub fn clear_breakpoint(&mut self, at: u64) -> Result<(), Failure> {
        self.ok(&format!("z1,{at:x},1"))
    }

    /// A command of QEMU's monitor; what it says.
    pub fn monitor(&mut self, command: &str) -> Result<String, Failure> {
        self.send(&format!("qRcmd,{}", to_hex(command.as_bytes())))?;
        let mut said = String::new();
        loop {
            let text = self.answer(command)?;
            match text.strip_prefix('O').filter(|_| text != "OK").and_then(from_hex) {
                Some(bytes) => said.push_str(&String::from_utf8_lossy(&bytes)),
                None if text == "OK" => return Ok(said),
                None => return Err(bad(format!("{command}: {text}"))),
            }
        }
    }

    /// Lets all CPUs run.
    pub fn go_on(&mut self) -> Result<(), Failure> {
        self.send("vCont;c")
    }

    /// Lets CPU `cpu` alone run.
    pub fn go_on_alone(&mut self, cpu: u32) -> Result<(), Failure> {
        self.send(&format!("vCont;c:{:x}", cpu + 1))
    }

    /// Stops a machine that runs; the stop is still to come.
    pub fn interrupt(&mut self) -> Result<(), Failure> {
        self.write(&[3])
    }

    /// One step of CPU `cpu` alone: an NMI that is pending is taken, else one instruction is executed.
    pub fn step(&mut self, cpu: u32) -> Result<(), Failure> {
        self.send(&format!("vCont;s:{:x}", cpu + 1))?;
        self.stopped()
    }

    /// Waits for the next stop until the next look.
    pub fn poll(&mut self) -> Result<Stop, Failure> {
        let Some(text) = self.receive()? else { return Ok(Stop::Running) };
        if text.starts_with('W') || text.starts_with('X') {
            return Ok(Stop::Ended);
        }
        let thread = text.split(';').find_map(|word| word.rsplit_once("thread:")).map(|(_, number)| number);
        let number = thread.and_then(|number| u32::from_str_radix(number, 16).ok()).filter(|number| *number > 0);
        number.map(|number| Stop::Cpu(number - 1)).ok_or_else(|| bad(format!("stopped by {text:?}")))
    }

    /// Waits for the stop of a CPU that runs alone.
    pub fn stopped(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.poll()? {
                Stop::Cpu(_) => return Ok(()),
                Stop::Ended => return Err(bad("QEMU has ended")),
                Stop::Running if Instant::now() > deadline => return Err(bad("the CPU does not stop")),
                Stop::Running => {}
            }
        }
    }

    /// Lets the machine run and leaves it.
    pub fn detach(mut self) -> Result<(), Failure> {
        self.ok("D")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_text() {
        assert_eq!(from_hex("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("xx"), None);
        assert_eq!(to_hex(&[0, 255, 16]), "00ff10");
    }

    #[test]
    fn registers_stand_in_the_order_of_the_stub() {
        let mut bytes: Vec<u8> = (0..17u64).flat_map(u64::to_le_bytes).collect();
        bytes.extend((17..24u32).flat_map(u32::to_le_bytes));
        bytes.extend((24..29u64).flat_map(u64::to_le_bytes));
        let registers = Registers::parse(&bytes).unwrap();
        assert_eq!((registers.rsp(), registers.rip, registers.flags), (7, 16, 17));
        assert_eq!((registers.segments, registers.bases), ([18, 19, 20, 21, 22, 23], [24, 25, 26]));
        assert_eq!(registers.cr2, 28);
        assert_eq!(Registers::parse(&bytes[..100]), None);
    }
}
