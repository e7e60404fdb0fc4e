//! A 16550 serial port: COM1 is the console, COM2 carries the trace.
//!
//! Output polls the transmitter (any context, no lock: `console` serialises, and COM2 has one user). Input raises IRQ 4; `tty` reads it.
//! Set-up leaves the FIFO's content alone: what was typed before the kernel ran is not lost.
//! Source: PC16550D data sheet, "Registers".

use x86_64::instructions::port::Port;

/// I/O base of COM1.
pub const COM1: u16 = 0x3f8;
/// I/O base of COM2.
pub const COM2: u16 = 0x2f8;
/// ISA interrupt of COM1.
pub const COM1_IRQ: u8 = 4;

const LSR_DATA_READY: u8 = 1;
const LSR_THR_EMPTY: u8 = 1 << 5;
const LSR_IDLE: u8 = 1 << 6;

/// One port by its I/O base. Copying it is harmless: the hardware is the only state.
#[derive(Clone, Copy)]
pub struct SerialPort(u16);

impl SerialPort {
    /// The port at `base`; only COM1 and COM2 exist.
    pub const fn new(base: u16) -> Self {
        Self(base)
    }

    fn read(self, register: u16) -> u8 {
        // SAFETY: 1. the port range belongs to a 16550 (or to nothing, which reads as 0xff); 2. no memory is touched.
        unsafe { Port::new(self.0 + register).read() }
    }

    fn write(self, register: u16, value: u8) {
        // SAFETY: 1. the port range belongs to a 16550 (or to nothing); 2. no memory is touched.
        unsafe { Port::new(self.0 + register).write(value) }
    }

    /// Whether there is a UART: an absent one reads all ones.
    pub fn present(self) -> bool {
        self.read(5) != 0xff
    }

    /// Whether there is a UART, told by its scratch register, which keeps what is written.
    pub fn keeps_scratch(self) -> bool {
        [0x5a, 0xa5].into_iter().all(|value| {
            self.write(7, value);
            self.read(7) == value
        })
    }

    /// 115200 baud, 8n1, interrupts off. The FIFOs stay as they are: switching them on would clear what was typed before.
    pub fn init(self) {
        self.write(1, 0);
        self.write(3, 0x80);
        self.write(0, 1);
        self.write(1, 0);
        self.write(3, 0x03);
        self.write(4, 0x0b);
    }

    /// Switch the FIFOs on, emptied; gives the transmitter's room in bytes (1 if it has none).
    pub fn enable_fifo(self) -> usize {
        self.write(2, 0x07);
        if self.read(2) & 0xc0 == 0xc0 { 16 } else { 1 }
    }

    /// Send bytes through a FIFO of `room` bytes, waiting for room.
    pub fn put_all(self, bytes: &[u8], room: usize) {
        for chunk in bytes.chunks(room) {
            while self.read(5) & LSR_THR_EMPTY == 0 {
                core::hint::spin_loop();
            }
            chunk.iter().for_each(|&byte| self.write(0, byte));
        }
    }

    /// Let received bytes raise the interrupt.
    pub fn enable_receive_interrupt(self) {
        self.write(1, 0x01);
    }

    /// No interrupts; what was received stays in the FIFO.
    pub fn disable_interrupts(self) {
        self.write(1, 0);
    }

    /// Send one byte, waiting for room.
    pub fn put(self, byte: u8) {
        while self.read(5) & LSR_THR_EMPTY == 0 {
            core::hint::spin_loop();
        }
        self.write(0, byte);
    }

    /// The next received byte, if there is one.
    pub fn take(self) -> Option<u8> {
        (self.present() && self.read(5) & LSR_DATA_READY != 0).then(|| self.read(0))
    }

    /// Wait until the last byte has left the wire (before a power-off).
    pub fn drain(self) {
        if self.present() {
            while self.read(5) & LSR_IDLE == 0 {
                core::hint::spin_loop();
            }
        }
    }
}
