//! The cpio reader: archives read back, and broken ones end with one error or none, never a panic.
//! A failing case is printed with its seed by proptest.

use kcore::cpio::{Entry, entries, find};
use proptest::prelude::*;

type File = (String, u32, Vec<u8>);

fn header(out: &mut Vec<u8>, name: &str, mode: u32, data: &[u8], sum: bool) {
    let total = if sum { data.iter().map(|&byte| u32::from(byte)).sum() } else { 0 };
    out.extend_from_slice(if sum { b"070702" } else { b"070701" });
    let fields = [7, mode, 0, 0, 1, 99, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, total];
    for (index, field) in fields.into_iter().enumerate() {
        // Both cases of hex digits are in use.
        let text = if index % 2 == 0 { format!("{field:08x}") } else { format!("{field:08X}") };
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn archive(files: &[File], sum: bool, padding: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, mode, data) in files {
        header(&mut out, name, *mode, data, sum);
    }
    header(&mut out, "TRAILER!!!", 0, b"", false);
    out.resize(out.len() + padding * 4, 0);
    out
}

fn files() -> impl Strategy<Value = Vec<File>> {
    let file = ("[a-z/.é]{1,20}", prop::sample::select(vec![0o100644, 0o040755, 0o120777]), any::<Vec<u8>>());
    prop::collection::vec(file, 0..6)
}

/// Reads all that can be read; every promise about errors is checked.
fn read(bytes: &[u8]) -> Vec<Entry<'_>> {
    let mut reader = entries(bytes);
    let mut found = Vec::new();
    let mut ended = false;
    for item in reader.by_ref() {
        assert!(!ended, "goes on after a fatal error");
        match item {
            Ok(entry) => {
                let _ = entry.name();
                found.push(entry);
            }
            Err(error) => {
                assert!(error.offset <= bytes.len() && !error.to_string().is_empty());
                ended = error.what.is_fatal();
            }
        }
    }
    assert!(reader.offset() <= bytes.len() && reader.next().is_none());
    let _ = find(bytes, "init");
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn archives_read_back(a in files(), b in files(), sum in any::<bool>(), padding in 0..300usize) {
        let bytes = [archive(&a, sum, padding), archive(&b, !sum, padding)].concat();
        let found = read(&bytes);
        prop_assert_eq!(found.len(), a.len() + b.len());
        for (entry, (name, mode, data)) in found.iter().zip(a.iter().chain(&b)) {
            prop_assert_eq!((entry.path, entry.mode, entry.data), (name.as_str(), *mode, data.as_slice()));
            prop_assert_eq!((entry.ino, entry.nlink, entry.mtime), (7, 1, 99));
        }
        prop_assert!(found.iter().enumerate().all(|(at, entry)| entry.archive == u32::from(at >= a.len())));
    }

    #[test]
    fn a_cut_archive_is_an_error(a in files(), cut in any::<prop::sample::Index>()) {
        let bytes = archive(&a, false, 0);
        let cut = &bytes[..cut.index(bytes.len() - 3)];
        if !cut.is_empty() {
            prop_assert_eq!(entries(cut).filter(Result::is_err).count(), 1);
        }
        read(cut);
    }

    #[test]
    fn damage_does_not_panic(a in files(), hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = archive(&a, true, 1);
        for (at, value) in hits {
            let at = at.index(bytes.len());
            // Digits hit the lengths without breaking the number.
            bytes[at] = if value < 128 { b"0123456789abcdef"[usize::from(value) % 16] } else { value };
        }
        read(&bytes);
    }

    #[test]
    fn noise_does_not_panic(bytes in any::<Vec<u8>>()) {
        read(&bytes);
        read(&[b"070701", &bytes[..]].concat());
    }
}
