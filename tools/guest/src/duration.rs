//! Times for people: a moment since boot, a length with a fitting unit. Pure.

/// A moment or a length in seconds with six digits, `12.345678`.
pub fn seconds(ns: u64) -> String {
    format!("{}.{:06}", ns / 1_000_000_000, ns % 1_000_000_000 / 1_000)
}

/// A length with three or four significant digits and its unit: `812 ns`, `3.14 us`, `20.5 ms`, `12.3 s`, `2 h 05 min`.
pub fn human(ns: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000, "us"), (1_000_000, "ms"), (1_000_000_000, "s")];
    if ns < 1_000 {
        return format!("{ns} ns");
    }
    if ns >= 600_000_000_000 {
        let minutes = ns / 60_000_000_000;
        return if minutes < 60 {
            format!("{minutes} min")
        } else {
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        };
    }
    let (unit_ns, name) = UNITS.into_iter().rev().find(|(unit_ns, _)| ns >= *unit_ns).unwrap_or(UNITS[0]);
    let whole = ns / unit_ns;
    let rest = ns % unit_ns;
    if whole < 10 {
        format!("{whole}.{:02} {name}", rest * 100 / unit_ns)
    } else if whole < 100 {
        format!("{whole}.{} {name}", rest * 10 / unit_ns)
    } else {
        format!("{whole} {name}")
    }
}

/// A length that a person gave in seconds, `10` or `0.5`, in nanoseconds; at most a year. The error names the text.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("not a time in seconds: {text:?}");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) || part.len() > 9 || whole.len() > 9 {
        return Err(bad());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let nanos: u64 = format!("{part:0<9}").parse().map_err(|_| bad())?;
    if whole > 366 * 86_400 {
        return Err(format!("longer than a year: {text:?} seconds"));
    }
    Ok(whole * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(seconds(12_345_678_901), "12.345678");
        assert_eq!(seconds(0), "0.000000");
    }

    #[test]
    fn lengths_keep_their_meaning() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (20_560_000, "20.5 ms"),
            (123_456_000, "123 ms"),
            (12_345_678_901, "12.3 s"),
            (599_000_000_000, "599 s"),
            (600_000_000_000, "10 min"),
            (7_500_000_000_000, "2 h 05 min"),
        ] {
            assert_eq!(human(ns), text);
        }
    }

    #[test]
    fn seconds_are_read() {
        assert_eq!(parse_seconds("10"), Ok(10_000_000_000));
        assert_eq!(parse_seconds("0.5"), Ok(500_000_000));
        assert_eq!(parse_seconds(".25"), Ok(250_000_000));
        for bad in ["", ".", "-1", "1s", "1.2.3", "1e3", "0.0000000001", "99999999999", "40000000"] {
            assert!(parse_seconds(bad).is_err(), "{bad:?} was taken");
        }
    }
}
