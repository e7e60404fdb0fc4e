//! dmesg: the kernel's log, from /dev/kmsg or /proc/kmsg.

use crate::entry::{Args, Failure, Outcome};
use crate::kernel_file::{self, Read};
use crate::output::write_out;

/// `dmesg`: all that the kernel has held, without waiting for more.
pub fn main(args: &Args) -> Outcome {
    if let Some(word) = args.rest().first() {
        return Err(Failure::usage(format!("takes no argument, got {word:?}")));
    }
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let file = kernel_file::open("/dev/kmsg", flags)
        .or_else(|first| kernel_file::open("/proc/kmsg", flags).map_err(|_| first))?;
    loop {
        match file.read_some()? {
            Read::Text(text) => write_out(text.lines().filter_map(line).collect::<String>().as_bytes()),
            Read::Lost => {}
            Read::End | Read::Nothing => return Ok(0),
        }
    }
}

/// A line for people: of /dev/kmsg `6,12,345678,-;text`, of /proc/kmsg `<6>text`. Continuation lines, which begin with a blank, hold
/// keys for programs and are left out. Format: Linux, Documentation/ABI/testing/dev-kmsg.
fn line(raw: &str) -> Option<String> {
    if raw.starts_with(' ') {
        return None;
    }
    if let Some((head, text)) = raw.split_once(';')
        && let Some(time_us) = head.split(',').nth(2).and_then(|field| field.parse::<u64>().ok())
    {
        return Some(format!("[{:5}.{:06}] {text}\n", time_us / 1_000_000, time_us % 1_000_000));
    }
    let bare = raw.strip_prefix('<').and_then(|rest| rest.split_once('>')).map_or(raw, |(_, text)| text);
    Some(format!("{bare}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats() {
        assert_eq!(line("6,12,1234567,-;up; and running").as_deref(), Some("[    1.234567] up; and running\n"));
        assert_eq!(line("<6>[    0.1] text").as_deref(), Some("[    0.1] text\n"));
        assert_eq!(line("plain; text").as_deref(), Some("plain; text\n"));
        assert_eq!(line(" SUBSYSTEM=x"), None);
    }
}
