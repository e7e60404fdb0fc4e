//! The line discipline: no bytes panic, raw input comes out as it went in, and edited lines are what an editor of
//! strings makes of them. A failing case is printed with its seed by proptest.

use kcore::line_discipline::{
    ECHO, ECHO_SIZE, EchoBuffer, Event, ICANON, INPUT_SIZE, ISIG, LineDiscipline, Termios, VMIN, VTIME,
};
use proptest::prelude::*;

fn type_in(tty: &mut LineDiscipline, bytes: &[u8]) -> Vec<Event> {
    let mut out = EchoBuffer::new();
    let input = |&byte: &u8| {
        out.clear();
        tty.input(byte, &mut out)
    };
    bytes.iter().map(input).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lines_are_what_an_editor_makes(keys in prop::collection::vec(prop_oneof![
        8 => b'a'..=b'e', 2 => Just(0x7f), 1 => Just(0x15), 1 => Just(b'\r'), 1 => Just(0x04), 1 => Just(0x03), 1 => Just(b'\t'),
    ], 0..200), size in 1..20usize) {
        let mut tty = LineDiscipline::new();
        let mut expected: Vec<Vec<u8>> = Vec::new();
        let mut line = Vec::new();
        for &key in &keys {
            match key {
                0x7f => drop(line.pop()),
                0x15 => line.clear(),
                0x03 => {
                    line.clear();
                    expected.clear();
                }
                b'\r' => {
                    line.push(b'\n');
                    expected.push(std::mem::take(&mut line));
                }
                // An empty line without its end is the end of file.
                0x04 => expected.push(std::mem::take(&mut line)),
                key => line.push(key),
            }
        }
        type_in(&mut tty, &keys);
        let mut bytes = vec![0; size];
        for line in &expected {
            let mut got = Vec::new();
            loop {
                let count = tty.read(&mut bytes).expect("a line is there");
                got.extend_from_slice(&bytes[..count]);
                if count == 0 || got.len() == line.len() {
                    break;
                }
            }
            prop_assert_eq!(&got, line);
        }
        prop_assert_eq!((tty.read(&mut bytes), tty.is_readable()), (None, false));
    }

    #[test]
    fn raw_bytes_come_out_as_they_went_in(chunks in prop::collection::vec((any::<Vec<u8>>(), 1..300usize), 1..12)) {
        let mut tty = LineDiscipline::new();
        let mut raw = Termios::console();
        raw.lflag &= !(ICANON | ECHO | ISIG);
        raw.iflag = 0;
        tty.set_termios(raw);
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for (bytes, size) in &chunks {
            prop_assert!(type_in(&mut tty, bytes).iter().all(|&event| event == Event::LineReady));
            sent.extend_from_slice(bytes);
            let mut buffer = vec![0; *size];
            if let Some(count) = tty.read(&mut buffer) {
                got.extend_from_slice(&buffer[..count]);
            }
            prop_assert_eq!(tty.readable_bytes(), sent.len() - got.len());
        }
        let mut buffer = vec![0; INPUT_SIZE];
        got.extend_from_slice(tty.read(&mut buffer).map_or(&[][..], |count| &buffer[..count]));
        prop_assert_eq!(got, sent);
        prop_assert_eq!(tty.overflows(), 0);
    }

    #[test]
    fn nothing_panics(steps in prop::collection::vec(
        (any::<Vec<u8>>(), any::<[u32; 3]>(), any::<[u8; 19]>(), 0..5000usize, any::<bool>()), 1..20)) {
        let mut tty = LineDiscipline::new();
        for (bytes, [iflag, oflag, lflag], cc, size, change) in steps {
            if change {
                tty.set_termios(Termios { iflag, oflag, lflag, cc, ..Termios::console() });
            }
            let repeated = bytes.repeat(size / 100);
            type_in(&mut tty, &repeated);
            prop_assert!(tty.readable_bytes() <= INPUT_SIZE);
            let mut out = EchoBuffer::new();
            let taken = tty.output(&bytes, &mut out);
            prop_assert!(taken == bytes.len() || out.len() > ECHO_SIZE - 2);
            let readable = tty.is_readable();
            let mut buffer = vec![0; size];
            let read = tty.read(&mut buffer);
            prop_assert!(read.is_none_or(|count| count <= size));
            let waits = tty.termios().cc[VMIN] > 0 || tty.termios().cc[VTIME] > 0;
            prop_assert!(read.is_some() || !readable || waits);
        }
    }
}
