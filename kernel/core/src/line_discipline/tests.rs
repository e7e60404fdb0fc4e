//! Unit tests of the line discipline. Random ones are in tests/prop_line_discipline.rs.

use super::*;
use alloc::string::String;
use alloc::vec::Vec;

/// Types `bytes`; what is shown, and the events other than None.
fn type_in(tty: &mut LineDiscipline, bytes: &[u8]) -> (String, Vec<Event>) {
    let mut shown = Vec::new();
    let mut events = Vec::new();
    for &byte in bytes {
        let mut out = EchoBuffer::new();
        match tty.input(byte, &mut out) {
            Event::None => {}
            event => events.push(event),
        }
        shown.extend_from_slice(&out);
    }
    (String::from_utf8_lossy(&shown).into_owned(), events)
}

fn read(tty: &mut LineDiscipline, size: usize) -> Option<String> {
    let mut bytes = alloc::vec![0; size];
    tty.read(&mut bytes).map(|count| String::from_utf8_lossy(&bytes[..count]).into_owned())
}

fn raw(min: u8) -> Termios {
    let mut termios = Termios::console();
    termios.lflag &= !(ICANON | ECHO | ISIG);
    termios.cc[VMIN] = min;
    termios
}

#[test]
fn a_line_is_read_as_a_whole() {
    let mut tty = LineDiscipline::new();
    assert_eq!(type_in(&mut tty, b"ls -l"), ("ls -l".into(), alloc::vec![]));
    assert_eq!((read(&mut tty, 9), tty.is_readable()), (None, false));
    assert_eq!(type_in(&mut tty, b"\rnext"), ("\r\nnext".into(), alloc::vec![Event::LineReady]));
    assert_eq!(tty.readable_bytes(), 6);
    assert_eq!(read(&mut tty, 3).as_deref(), Some("ls "));
    assert_eq!(read(&mut tty, 99).as_deref(), Some("-l\n"));
    assert_eq!(read(&mut tty, 99), None);
    type_in(&mut tty, b"\n\n");
    assert_eq!(read(&mut tty, 99).as_deref(), Some("next\n"));
    assert_eq!(read(&mut tty, 99).as_deref(), Some("\n"));
}

#[test]
fn editing() {
    let mut tty = LineDiscipline::new();
    assert_eq!(type_in(&mut tty, b"ab\x7f").0, "ab\x08 \x08");
    assert_eq!(type_in(&mut tty, b"\x7f\x7f\x7f").0, "\x08 \x08");
    assert_eq!(type_in(&mut tty, b"\x01\x7f").0, "^A\x08 \x08\x08 \x08");
    assert_eq!(type_in(&mut tty, "é\x7f".as_bytes()).0, "é\x08 \x08");
    assert_eq!(type_in(&mut tty, b"a\t\x7f\x7f").0, "a\t\x08\x08\x08\x08\x08\x08\x08\x08 \x08");
    assert_eq!(type_in(&mut tty, b"one two  \x17").0, "one two  \x08 \x08\x08 \x08\x08 \x08\x08 \x08\x08 \x08");
    assert_eq!(type_in(&mut tty, b"\x15").0, "\x08 \x08\x08 \x08\x08 \x08\x08 \x08");
    assert_eq!(type_in(&mut tty, b"\x16").0, "^\x08");
    assert_eq!(type_in(&mut tty, b"\x03").0, "^C");
    assert_eq!(type_in(&mut tty, b"x\x12").0, "x^R\r\n^Cx");
    type_in(&mut tty, b"\n");
    assert_eq!(read(&mut tty, 99).as_deref(), Some("\x03x\n"));
    // Finished lines cannot be edited.
    type_in(&mut tty, b"kept\n\x7f\x15\x17");
    assert_eq!(read(&mut tty, 99).as_deref(), Some("kept\n"));
}

#[test]
#[cfg_attr(miri, ignore = "long input; the other tests run the same code on short input")]
fn a_long_line_is_killed_within_the_echo_buffer() {
    let mut tty = LineDiscipline::new();
    type_in(&mut tty, &[b'\t'; 500]);
    assert_eq!(type_in(&mut tty, b"\x15").0, "^U\r\n");
    type_in(&mut tty, b"\n");
    assert_eq!(read(&mut tty, 99).as_deref(), Some("\n"));
}

#[test]
fn end_of_file() {
    let mut tty = LineDiscipline::new();
    assert_eq!(type_in(&mut tty, b"\x04"), (String::new(), alloc::vec![Event::LineReady]));
    assert_eq!(read(&mut tty, 9).as_deref(), Some(""));
    assert_eq!(read(&mut tty, 9), None);
    type_in(&mut tty, b"abc\x04d\x04");
    // The end of file behind a read that is just full goes with it.
    assert_eq!(read(&mut tty, 3).as_deref(), Some("abc"));
    assert_eq!(read(&mut tty, 9).as_deref(), Some("d"));
    assert_eq!(read(&mut tty, 9), None);
}

#[test]
fn signals() {
    let mut tty = LineDiscipline::new();
    type_in(&mut tty, b"line\nhalf");
    assert_eq!(type_in(&mut tty, b"\x03"), ("^C".into(), alloc::vec![Event::Signal(Signal::Int)]));
    assert_eq!(read(&mut tty, 9), None);
    assert_eq!(type_in(&mut tty, b"\x1c").1, [Event::Signal(Signal::Quit)]);
    assert_eq!(type_in(&mut tty, b"\x1a").1, [Event::Signal(Signal::Tstp)]);
    let mut termios = Termios::console();
    termios.lflag |= NOFLSH;
    tty.set_termios(termios);
    type_in(&mut tty, b"stays\x03\n");
    assert_eq!(read(&mut tty, 9).as_deref(), Some("stays\n"));
    termios.lflag &= !ISIG;
    tty.set_termios(termios);
    assert_eq!(type_in(&mut tty, b"\x03\n").1, [Event::LineReady]);
    assert_eq!(read(&mut tty, 9).as_deref(), Some("\x03\n"));
}

#[test]
fn raw_mode() {
    let mut tty = LineDiscipline::new();
    tty.set_termios(raw(1));
    assert_eq!(read(&mut tty, 9), None);
    assert_eq!(type_in(&mut tty, b"\x7f\x03"), (String::new(), alloc::vec![Event::LineReady; 2]));
    assert_eq!(read(&mut tty, 9).as_deref(), Some("\x7f\x03"));
    tty.set_termios(raw(3));
    type_in(&mut tty, b"ab");
    assert_eq!((read(&mut tty, 9), tty.is_readable()), (None, false));
    assert_eq!(read(&mut tty, 2).as_deref(), Some("ab"));
    tty.set_termios(raw(0));
    assert_eq!(read(&mut tty, 2).as_deref(), Some(""));
    let mut timed = raw(0);
    timed.cc[VTIME] = 1;
    tty.set_termios(timed);
    assert_eq!(read(&mut tty, 2), None);
}

#[test]
fn changing_the_mode_keeps_what_was_typed() {
    let mut tty = LineDiscipline::new();
    type_in(&mut tty, b"one\nhalf\x04more");
    tty.set_termios(raw(1));
    assert_eq!(read(&mut tty, 99).as_deref(), Some("one\nhalfmore"));
    type_in(&mut tty, b"rest");
    tty.set_termios(Termios::console());
    assert!(tty.is_readable());
    assert_eq!(read(&mut tty, 99).as_deref(), Some("rest"));
    assert_eq!(read(&mut tty, 99), None);
}

#[test]
#[cfg_attr(miri, ignore = "long input; the other tests run the same code on short input")]
fn too_much_input_is_counted_and_a_line_can_still_end() {
    let mut tty = LineDiscipline::new();
    let (_, events) = type_in(&mut tty, &[b'x'; INPUT_SIZE + 4]);
    assert_eq!((events.len(), tty.overflows()), (5, 5));
    assert!(events.iter().all(|&event| event == Event::Overflow));
    assert_eq!(type_in(&mut tty, b"x").0, "\x07");
    assert_eq!(type_in(&mut tty, b"\n").1, [Event::LineReady]);
    assert_eq!(type_in(&mut tty, b"\n").1, [Event::Overflow]);
    assert_eq!(read(&mut tty, 9999).map(|line| line.len()), Some(INPUT_SIZE));
    tty.set_termios(raw(1));
    let (_, events) = type_in(&mut tty, &[b'y'; INPUT_SIZE + 1]);
    assert_eq!(events.iter().filter(|&&event| event == Event::Overflow).count(), 1);
}

#[test]
fn output_that_the_program_holds() {
    let mut tty = LineDiscipline::new();
    tty.hold_output(true);
    assert!(tty.is_stopped());
    // Nothing that is typed starts it: ^Q, a signal, settings without IXON.
    type_in(&mut tty, b"\x11\x03");
    let mut without = *tty.termios();
    without.iflag &= !IXON;
    tty.set_termios(without);
    assert!(tty.is_stopped());
    tty.hold_output(false);
    assert!(!tty.is_stopped());
    // What was typed to stop it the program does not start; without IXON it starts by itself.
    tty.set_termios(Termios::console());
    type_in(&mut tty, b"\x13");
    tty.hold_output(false);
    assert!(tty.is_stopped());
    tty.set_termios(without);
    assert!(!tty.is_stopped());
}

#[test]
fn flow_control() {
    let mut tty = LineDiscipline::new();
    assert_eq!(type_in(&mut tty, b"\x13").1, [Event::StopOutput]);
    assert!(tty.is_stopped());
    assert_eq!(type_in(&mut tty, b"\x11").1, [Event::StartOutput]);
    assert!(!tty.is_stopped() && tty.readable_bytes() == 0);
}

#[test]
fn output_processing() {
    let mut tty = LineDiscipline::new();
    let mut out = EchoBuffer::new();
    assert_eq!(tty.output(b"a\nb\r\n", &mut out), 5);
    assert_eq!(&out[..], b"a\r\nb\r\r\n");
    let mut termios = Termios::console();
    termios.oflag = 0;
    tty.set_termios(termios);
    out.clear();
    tty.output(b"a\n", &mut out);
    assert_eq!(&out[..], b"a\n");
    termios.oflag = OPOST | OCRNL | ONOCR;
    tty.set_termios(termios);
    out.clear();
    tty.output(b"\r", &mut out);
    assert_eq!(&out[..], b"\n");
    termios.oflag = OPOST | ONOCR;
    tty.set_termios(termios);
    out.clear();
    tty.output(b"\r\ra", &mut out);
    assert_eq!(&out[..], b"\ra");
    out.clear();
    // What does not fit is left to the next call.
    assert_eq!(tty.output(&[b'z'; 2 * ECHO_SIZE], &mut out), ECHO_SIZE - 1);
}
