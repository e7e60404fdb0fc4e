//! ls: what is in a directory.

use crate::entry::{Args, Failure, Outcome};
use crate::output::{Output, complain, describe};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// `ls [-l] [-a] [PATH…]`, one name a line. Goes on after a path that cannot be read, and ends with 1.
pub fn main(args: &Args) -> Outcome {
    let (mut long, mut all) = (false, false);
    let mut paths = Vec::new();
    for word in args.rest() {
        match word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            None => paths.push(word.as_str()),
            Some(letters) => {
                for letter in letters.chars() {
                    match letter {
                        'l' => long = true,
                        'a' => all = true,
                        '1' => {}
                        _ => {
                            return Err(Failure::usage(format!(
                                "unknown option -{letter} (usage: ls [-l] [-a] [PATH…])"
                            )));
                        }
                    }
                }
            }
        }
    }
    if paths.is_empty() {
        paths.push(".");
    }
    let mut out = Output::new();
    let mut status = 0;
    let many = paths.len() > 1;
    for path in paths {
        if let Err(error) = list(path, long, all, many, &mut out) {
            out.flush();
            complain(args.name(), &format!("{path}: {}", describe(&error)));
            status = 1;
        }
    }
    Ok(status)
}

fn list(path: &str, long: bool, all: bool, many: bool, out: &mut Output) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
            show(path, path, long, out);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if many {
        out.line(format_args!("{path}:"));
    }
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| all || !name.starts_with('.'));
    names.sort();
    for name in names {
        show(&name, &format!("{}/{name}", path.trim_end_matches('/')), long, out);
    }
    Ok(())
}

fn show(name: &str, path: &str, long: bool, out: &mut Output) {
    if !long {
        return out.line(name);
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) => {
            let target = if meta.is_symlink() { std::fs::read_link(path).ok() } else { None };
            let arrow = target.map_or(String::new(), |target| format!(" -> {}", target.display()));
            out.line(format_args!(
                "{} {:3} {:4} {:4} {:>9} {name}{arrow}",
                mode(meta.mode()),
                meta.nlink(),
                meta.uid(),
                meta.gid(),
                size(&meta)
            ));
        }
        Err(error) => out.line(format_args!("?????????? {name} ({})", describe(&error))),
    }
}

/// `drwxr-xr-x`.
fn mode(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '-',
    };
    let bit = |shift: u32, letter| if mode >> shift & 1 == 1 { letter } else { '-' };
    let bits = (0..9).rev().map(|shift| bit(shift, ['x', 'w', 'r'][shift as usize % 3]));
    std::iter::once(kind).chain(bits).collect()
}

/// Size in bytes, or major and minor number of a device.
fn size(meta: &Metadata) -> String {
    if matches!(meta.mode() & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK) {
        format!("{}, {}", libc::major(meta.rdev()), libc::minor(meta.rdev()))
    } else {
        meta.len().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(mode(libc::S_IFDIR | 0o755), "drwxr-xr-x");
        assert_eq!(mode(libc::S_IFREG | 0o640), "-rw-r-----");
        assert_eq!(mode(libc::S_IFCHR | 0o001), "c--------x");
    }
}
