//! Unit tests of the cpio reader. Random ones are in tests/prop_cpio.rs.

use super::*;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// Appends an entry with numbers that tell the fields apart.
fn add(archive: &mut Vec<u8>, magic: &str, name: &[u8], mode: u32, data: &[u8], sum: u32) {
    let fields = [1, mode, 3, 4, 5, 6, data.len() as u32, 8, 9, 10, 11, name.len() as u32 + 1, sum];
    archive.extend_from_slice(magic.as_bytes());
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name);
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(data);
    pad(archive);
}

fn sample() -> Vec<u8> {
    let mut archive = Vec::new();
    add(&mut archive, "070701", b".", 0o040755, b"", 0);
    add(&mut archive, "070701", b"./init", 0o100755, b"hello", 0);
    add(&mut archive, "070701", b"sh", 0o120777, b"bin/sh", 0);
    add(&mut archive, "070701", TRAILER.as_bytes(), 0, b"", 0);
    archive
}

fn errors(archive: &[u8]) -> Vec<CpioError> {
    entries(archive).filter_map(Result::err).collect()
}

#[test]
fn reads_every_field() {
    let archive = sample();
    let all: Vec<Entry<'_>> = entries(&archive).map(Result::unwrap).collect();
    assert_eq!(all.len(), 3);
    assert!(all[0].is_dir() && all[1].is_file() && all[2].is_symlink());
    assert_eq!(all.iter().map(Entry::name).collect::<Vec<_>>(), ["", "init", "sh"]);
    let expected = Entry {
        path: "./init",
        mode: 0o100755,
        ino: 1,
        uid: 3,
        gid: 4,
        nlink: 5,
        mtime: 6,
        devmajor: 8,
        devminor: 9,
        rdevmajor: 10,
        rdevminor: 11,
        data: b"hello",
        archive: 0,
        offset: 112,
    };
    assert_eq!(all[1], expected);
    assert_eq!(find(&archive, "/init").unwrap().unwrap().data, b"hello");
    assert_eq!(find(&archive, "sh"), Ok(None));
}

#[test]
fn concatenated_archives() {
    let mut archive = sample();
    archive.resize(archive.len().next_multiple_of(512), 0);
    add(&mut archive, "070702", b"init", 0o100755, b"bye", u32::from(b'b') + u32::from(b'y') + u32::from(b'e'));
    add(&mut archive, "070702", TRAILER.as_bytes(), 0, b"", 0);
    archive.extend_from_slice(&[0; 77]);
    let all: Vec<_> = entries(&archive).map(Result::unwrap).collect();
    assert_eq!((all.len(), all[3].archive, all[3].data), (4, 1, &b"bye"[..]));
    assert_eq!(find(&archive, "init").unwrap().unwrap().data, b"bye");
    assert_eq!(entries(&[]).count() + entries(&[0; 9]).count(), 0);
}

#[test]
fn errors_have_offsets() {
    let archive = sample();
    let error = |offset, what| alloc::vec![CpioError { offset, what }];
    assert_eq!(errors(&archive[..50]), error(0, CpioErrorKind::TruncatedHeader));
    assert_eq!(errors(&archive[..3]), error(0, CpioErrorKind::TruncatedHeader));
    assert_eq!(errors(&archive[..112 + 112]), error(112 + 110, CpioErrorKind::TruncatedName));
    assert_eq!(errors(&archive[..112 + 122]), error(112 + 120, CpioErrorKind::TruncatedData(5)));
    assert_eq!(errors(&archive[..112]), error(112, CpioErrorKind::NoTrailer));
    assert_eq!(errors(b"\x1f\x8b\x08"), error(0, CpioErrorKind::NotNewc));
    let mut bad = archive.clone();
    bad[112 + 6 + 8] = b'g';
    assert_eq!(errors(&bad), error(112 + 14, CpioErrorKind::BadNumber));
    let mut bad = archive.clone();
    bad[112 + 94..112 + 102].copy_from_slice(b"00000000");
    assert_eq!(errors(&bad), error(112, CpioErrorKind::BadNameLength(0)));
    bad[112 + 94..112 + 102].copy_from_slice(b"ffffffff");
    assert_eq!(errors(&bad), error(112, CpioErrorKind::BadNameLength(u32::MAX)));
    let mut bad = archive.clone();
    bad[112 + 54..112 + 62].copy_from_slice(b"ffffffff");
    assert_eq!(errors(&bad), error(112 + 120, CpioErrorKind::TruncatedData(u32::MAX)));
    let mut bad = archive.clone();
    bad[112 + 112] = 0;
    assert_eq!(errors(&bad), error(112 + 110, CpioErrorKind::NameNotTerminated));
    let text = errors(&bad)[0].to_string();
    assert_eq!(text, "cpio archive: name at offset 222 has no NUL at its end, or one before it");
    assert_eq!(find(&bad, "init").unwrap_err().to_string(), text);
}

#[test]
fn junk_after_an_archive_is_found() {
    let mut archive = sample();
    let end = archive.len();
    archive.extend_from_slice(&[0, 0, 0, 0, 0x1f, 0x8b]);
    let mut reader = entries(&archive);
    assert_eq!(reader.by_ref().filter(Result::is_ok).count(), 3);
    assert_eq!(reader.offset(), end + 4);
    assert_eq!(errors(&archive), [CpioError { offset: end + 4, what: CpioErrorKind::NotNewc }]);
}

#[test]
fn one_bad_entry_does_not_end_the_archive() {
    let mut archive = Vec::new();
    add(&mut archive, "070702", b"sum", 0o100644, b"data", 1);
    add(&mut archive, "070701", b"\xff", 0o100644, b"data", 0);
    add(&mut archive, "070701", b"good", 0o100644, b"data", 0);
    add(&mut archive, "070701", TRAILER.as_bytes(), 0, b"", 0);
    let what: Vec<_> = errors(&archive).iter().map(|error| error.what).collect();
    assert_eq!(what, [CpioErrorKind::BadSum, CpioErrorKind::NameNotUtf8]);
    assert_eq!(entries(&archive).filter_map(Result::ok).map(|entry| entry.path).collect::<Vec<_>>(), ["good"]);
    assert!(find(&archive, "good").unwrap().is_some());
}

#[test]
fn nuls_behind_the_name_are_padding() {
    let mut archive = Vec::new();
    add(&mut archive, "070701", b"init\0\0\0\0\0\0\0", 0o100755, b"hello", 0);
    add(&mut archive, "070701", TRAILER.as_bytes(), 0, b"", 0);
    let all: Vec<_> = entries(&archive).map(Result::unwrap).collect();
    assert_eq!((all.len(), all[0].path, all[0].data), (1, "init", &b"hello"[..]));
}
