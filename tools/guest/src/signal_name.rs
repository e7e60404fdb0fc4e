//! Names of signals, as `kill` takes them and as the shell tells them. Pure. Numbers: Linux, arch/x86/include/uapi/asm/signal.h.

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// `SIGINT` for 2; `signal 40` for those without a name.
pub fn name(signal: i32) -> String {
    match usize::try_from(signal - 1).ok().and_then(|index| NAMES.get(index)) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}

/// The number of `9`, `KILL`, `SIGKILL` or `kill`.
pub fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.iter().position(|name| *name == bare).map(|index| index as i32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_libc() {
        for (signal, text) in
            [(libc::SIGINT, "SIGINT"), (libc::SIGKILL, "SIGKILL"), (libc::SIGCHLD, "SIGCHLD"), (libc::SIGSYS, "SIGSYS")]
        {
            assert_eq!(name(signal), text);
            assert_eq!(number(text), Some(signal));
        }
        assert_eq!(number("term"), Some(15));
        assert_eq!(number("65"), None);
        assert_eq!(number("NONSENSE"), None);
        assert_eq!(name(40), "signal 40");
        assert_eq!(name(0), "signal 0");
    }
}
