//! stdlib: files, directories and links.

use super::{Done, say};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// All of them, in a directory of their own.
pub fn all() -> Done {
    let _ = fs::create_dir("/tmp");
    let root = Path::new("/tmp/stdlib");
    let _ = fs::remove_dir_all(root); // of an earlier run
    fs::create_dir(root)?;
    std::env::set_current_dir(root)?;
    say(format_args!("current directory {}", std::env::current_dir()?.display()));
    contents()?;
    directories()?;
    links()?;
    errors();
    std::env::set_current_dir("/")?;
    fs::remove_dir_all(root)?;
    say(format_args!("left: {}", root.exists()));
    Ok(())
}

fn contents() -> Done {
    fs::write("a", "one\ntwo\nthree\n")?;
    say(format_args!("read {:?}", fs::read_to_string("a")?));
    OpenOptions::new().append(true).open("a")?.write_all(b"four")?;
    let mut file = OpenOptions::new().read(true).write(true).open("a")?;
    let end = file.seek(SeekFrom::End(-4))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    say(format_args!("at {end}: {text:?}"));
    file.seek(SeekFrom::Start(4))?;
    file.write_all(b"TWO")?;
    file.rewind()?;
    let lines: Vec<String> = BufReader::new(&file).lines().collect::<Result<_, _>>()?;
    say(format_args!("lines {lines:?}"));
    file.set_len(6)?;
    say(format_args!("cut to {}", file.metadata()?.len()));
    file.write_all_at(b"end", 10)?;
    say(format_args!("hole {:?}", fs::read("a")?));
    let mut three = [0; 3];
    file.read_exact_at(&mut three, 10)?;
    say(format_args!("at 10: {three:?}, position {}", file.stream_position()?));
    let mut copy = file.try_clone()?;
    copy.seek(SeekFrom::Start(3))?;
    say(format_args!("a copy's position is shared: {}", file.stream_position()?));
    file.sync_all()?;
    let mut big = BufWriter::new(File::create("big")?);
    for n in 0..40_000u32 {
        big.write_all(&n.to_le_bytes())?;
    }
    big.flush()?;
    drop(big);
    let bytes = fs::read("big")?;
    let sum: u64 = bytes.chunks_exact(4).map(|c| u64::from(u32::from_le_bytes([c[0], c[1], c[2], c[3]]))).sum();
    say(format_args!("big {} sum {sum}", bytes.len()));
    say(format_args!("copied {}", fs::copy("big", "big2")?));
    say(format_args!("new only: {:?}", File::create_new("big").map_err(|e| e.kind()).err()));
    fs::remove_file("big")?;
    fs::remove_file("big2")
}

fn directories() -> Done {
    fs::create_dir_all("d/e/f")?;
    for name in ["z", "m", "b"] {
        fs::write(Path::new("d").join(name), name)?;
    }
    let mut names = Vec::new();
    for entry in fs::read_dir("d")? {
        let entry = entry?;
        let kind = entry.file_type()?;
        names.push(format!("{}{}", entry.file_name().to_string_lossy(), if kind.is_dir() { "/" } else { "" }));
    }
    names.sort();
    say(format_args!("entries {names:?}"));
    for n in 0..300 {
        fs::write(format!("d/e/{n:03}"), [])?;
    }
    say(format_args!("many entries {}", fs::read_dir("d/e")?.count()));
    fs::rename("d/z", "d/e/y")?;
    fs::rename("d/m", "d/b")?;
    say(format_args!("renamed {:?} {:?}", fs::read_to_string("d/e/y")?, fs::read_to_string("d/b")?));
    fs::rename("d/e", "d/g")?;
    say(format_args!("moved {} {}", Path::new("d/g/f").is_dir(), Path::new("d/e").exists()));
    say(format_args!("not empty: {:?}", fs::remove_dir("d/g").map_err(|e| e.kind()).err()));
    fs::remove_dir_all("d")?;
    say(format_args!("gone {}", !Path::new("d").exists()));
    Ok(())
}

fn links() -> Done {
    fs::write("t", "target")?;
    symlink("t", "l")?;
    symlink("nowhere", "broken")?;
    say(format_args!("link {} {:?}", fs::read_link("l")?.display(), fs::read_to_string("l")?));
    let (through, itself) = (fs::metadata("l")?, fs::symlink_metadata("l")?);
    say(format_args!("kinds {} {} {}", through.is_file(), itself.is_symlink(), itself.len()));
    say(format_args!("broken {:?}", fs::metadata("broken").map_err(|e| e.kind()).err()));
    say(format_args!("canonical {}", fs::canonicalize("./l")?.display()));
    fs::hard_link("t", "h")?;
    let metadata = fs::metadata("h")?;
    say(format_args!("hard {} {}", metadata.nlink(), metadata.ino() == fs::metadata("t")?.ino()));
    fs::set_permissions("t", fs::Permissions::from_mode(0o640))?;
    let metadata = fs::metadata("h")?;
    let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
    say(format_args!("mode {mode:o} owner {uid} {gid} len {}", metadata.len()));
    say(format_args!("time is set: {}", metadata.modified()? >= std::time::UNIX_EPOCH));
    symlink("loop2", "loop1")?;
    symlink("loop1", "loop2")?;
    say(format_args!("loop {:?}", File::open("loop1").map_err(|e| e.raw_os_error()).err()));
    Ok(())
}

fn errors() {
    let error = |r: std::io::Result<()>| r.err().and_then(|e| e.raw_os_error());
    let open = |path: &str| error(File::open(path).map(drop));
    say(format_args!("missing {:?}", open("missing")));
    say(format_args!("below a file {:?}", open("a/b")));
    say(format_args!("empty {:?}", open("")));
    say(format_args!("too long {:?}", open(&"x".repeat(300))));
    say(format_args!("path too long {:?}", open(&"x/".repeat(3000))));
    say(format_args!("write a directory {:?}", error(fs::write(".", "x"))));
    say(format_args!("read a directory {:?}", error(fs::read(".").map(drop))));
    say(format_args!("list a file {:?}", error(fs::read_dir("a").map(drop))));
    say(format_args!("make again {:?}", error(fs::create_dir("/tmp/stdlib"))));
    say(format_args!("remove a directory as a file {:?}", error(fs::remove_file("/tmp/stdlib"))));
    say(format_args!("remove a file as a directory {:?}", error(fs::remove_dir("a"))));
    say(format_args!("remove missing {:?}", error(fs::remove_file("missing"))));
    say(format_args!("rename missing {:?}", error(fs::rename("missing", "x"))));
    say(format_args!("rename onto a directory {:?}", error(fs::rename("a", "/tmp/stdlib"))));
    say(format_args!("link again {:?}", error(symlink("a", "l"))));
    say(format_args!("no link {:?}", error(fs::read_link("a").map(drop))));
    let written = File::open("a").and_then(|mut f| f.write_all(b"x"));
    say(format_args!("write what is read only {:?}", error(written)));
    let sought = File::open("a").and_then(|mut f| f.seek(SeekFrom::Current(-1)).map(drop));
    say(format_args!("seek before the start {:?}", error(sought)));
}
