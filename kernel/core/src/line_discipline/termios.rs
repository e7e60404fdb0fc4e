//! Terminal settings with Linux's numbers (asm-generic/termbits.h).
//!
//! Callers as in [`crate::line_discipline`], which exports all of this. Flags that nothing reads are not named here;
//! they are kept as given.

/// `c_iflag`: strip the eighth bit.
pub const ISTRIP: u32 = 0o40;
/// `c_iflag`: newline becomes carriage return.
pub const INLCR: u32 = 0o100;
/// `c_iflag`: drop carriage return.
pub const IGNCR: u32 = 0o200;
/// `c_iflag`: carriage return becomes newline.
pub const ICRNL: u32 = 0o400;
/// `c_iflag`: VSTOP and VSTART stop and start output.
pub const IXON: u32 = 0o2000;
/// `c_iflag`: any byte starts stopped output.
pub const IXANY: u32 = 0o4000;
/// `c_iflag`: ring the bell when input does not fit.
pub const IMAXBEL: u32 = 0o20000;
/// `c_iflag`: input is UTF-8, erase whole characters.
pub const IUTF8: u32 = 0o40000;
/// `c_oflag`: process output.
pub const OPOST: u32 = 0o1;
/// `c_oflag`: newline is sent as carriage return, newline.
pub const ONLCR: u32 = 0o4;
/// `c_oflag`: carriage return is sent as newline.
pub const OCRNL: u32 = 0o10;
/// `c_oflag`: no carriage return in column 0.
pub const ONOCR: u32 = 0o20;
/// `c_oflag`: newline moves to column 0 by itself.
pub const ONLRET: u32 = 0o40;
/// `c_lflag`: VINTR, VQUIT, VSUSP make signals.
pub const ISIG: u32 = 0o1;
/// `c_lflag`: input comes in lines that can be edited.
pub const ICANON: u32 = 0o2;
/// `c_lflag`: echo input.
pub const ECHO: u32 = 0o10;
/// `c_lflag`: VERASE wipes the character from the screen.
pub const ECHOE: u32 = 0o20;
/// `c_lflag`: VKILL is followed by a new line.
pub const ECHOK: u32 = 0o40;
/// `c_lflag`: echo newline even without ECHO.
pub const ECHONL: u32 = 0o100;
/// `c_lflag`: signals do not discard input.
pub const NOFLSH: u32 = 0o200;
/// `c_lflag`: background output makes SIGTTOU (the caller's business).
pub const TOSTOP: u32 = 0o400;
/// `c_lflag`: echo control characters as `^X`.
pub const ECHOCTL: u32 = 0o1000;
/// `c_lflag`: VKILL wipes the line from the screen.
pub const ECHOKE: u32 = 0o4000;
/// `c_lflag`: VWERASE, VREPRINT, VLNEXT, VEOL2 work.
pub const IEXTEN: u32 = 0o100000;

/// Index in `c_cc`: interrupt.
pub const VINTR: usize = 0;
/// Index in `c_cc`: quit.
pub const VQUIT: usize = 1;
/// Index in `c_cc`: erase a character.
pub const VERASE: usize = 2;
/// Index in `c_cc`: erase the line.
pub const VKILL: usize = 3;
/// Index in `c_cc`: end of file.
pub const VEOF: usize = 4;
/// Index in `c_cc`: time to wait, tenths of a second.
pub const VTIME: usize = 5;
/// Index in `c_cc`: bytes to wait for.
pub const VMIN: usize = 6;
/// Index in `c_cc`: start output.
pub const VSTART: usize = 8;
/// Index in `c_cc`: stop output.
pub const VSTOP: usize = 9;
/// Index in `c_cc`: suspend.
pub const VSUSP: usize = 10;
/// Index in `c_cc`: another end of line.
pub const VEOL: usize = 11;
/// Index in `c_cc`: show the line again.
pub const VREPRINT: usize = 12;
/// Index in `c_cc`: erase a word.
pub const VWERASE: usize = 14;
/// Index in `c_cc`: take the next byte as it is.
pub const VLNEXT: usize = 15;
/// Index in `c_cc`: yet another end of line.
pub const VEOL2: usize = 16;

/// The terminal's settings: Linux's `struct ktermios` without speeds, which TCGETS hands out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Termios {
    /// Input flags.
    pub iflag: u32,
    /// Output flags.
    pub oflag: u32,
    /// Control flags; kept, not used.
    pub cflag: u32,
    /// Local flags.
    pub lflag: u32,
    /// Line discipline number; kept, not used.
    pub line: u8,
    /// Special characters; 0 switches one off.
    pub cc: [u8; 19],
}

impl Termios {
    /// What Linux gives a new serial console: canonical, echo, signals; 115200 baud, 8 bits.
    pub const fn console() -> Self {
        let cc = [3, 0x1c, 0x7f, 0x15, 4, 0, 1, 0, 0x11, 0x13, 0x1a, 0, 0x12, 0x0f, 0x17, 0x16, 0, 0, 0];
        Self {
            iflag: ICRNL | IXON | IMAXBEL | IUTF8,
            oflag: OPOST | ONLCR,
            cflag: 0o10002 | 0o60 | 0o200 | 0o2000,
            lflag: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
            line: 0,
            cc,
        }
    }

    pub(super) const fn local(&self, flag: u32) -> bool {
        self.lflag & flag != 0
    }

    pub(super) const fn in_flag(&self, flag: u32) -> bool {
        self.iflag & flag != 0
    }

    pub(super) const fn is(&self, index: usize, byte: u8) -> bool {
        byte != 0 && self.cc[index] == byte
    }
}
