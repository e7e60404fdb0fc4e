//! CPU lists in Linux's syntax: `0`, `1-3`, `0,2-4`, `0-31:2/8` (of each 8, the first 2). Pure; called by every program that takes or reads CPU numbers.

use crate::linux::CPU_LIMIT;

/// The CPUs of `text`, ascending, each once. An empty text is an empty list. The error names the part that is wrong.
pub fn parse(text: &str) -> Result<Vec<u32>, String> {
    let text = text.trim();
    let mut cpus = Vec::new();
    if text.is_empty() {
        return Ok(cpus);
    }
    for part in text.split(',') {
        let (range, stride) = match part.split_once(':') {
            None => (part, None),
            Some((range, stride)) => (range, Some(stride)),
        };
        let (first, last) = match range.split_once('-') {
            None => (number(range, text)?, number(range, text)?),
            Some((first, last)) => (number(first, text)?, number(last, text)?),
        };
        if last < first {
            return Err(format!("CPU list {text:?}: {part:?} runs backwards"));
        }
        let (used, group) = match stride {
            None => (1, 1),
            Some(stride) => match stride.split_once('/').map(|(u, g)| (u.parse::<u32>(), g.parse::<u32>())) {
                Some((Ok(used), Ok(group))) if used > 0 && used <= group => (used, group),
                _ => return Err(format!("CPU list {text:?}: bad stride in {part:?}")),
            },
        };
        cpus.extend((first..=last).filter(|cpu| (cpu - first) % group < used));
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// One CPU number; the error names the text.
pub fn parse_cpu(text: &str) -> Result<u32, String> {
    number(text, text)
}

/// The list in its shortest form, `1-3,5`.
pub fn format(cpus: &[u32]) -> String {
    let mut text = String::new();
    let mut index = 0;
    while index < cpus.len() {
        let mut end = index;
        while end + 1 < cpus.len() && cpus[end + 1] == cpus[end] + 1 {
            end += 1;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&cpus[index].to_string());
        if end > index {
            text.push('-');
            text.push_str(&cpus[end].to_string());
        }
        index = end + 1;
    }
    text
}

fn number(text: &str, whole: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(cpu) if (cpu as usize) < CPU_LIMIT && text.bytes().all(|b| b.is_ascii_digit()) => Ok(cpu),
        Ok(_) if text.bytes().all(|b| b.is_ascii_digit()) => Err(format!("CPU {text} is beyond {}", CPU_LIMIT - 1)),
        _ if text == whole => Err(format!("not a CPU number: {text:?}")),
        _ => Err(format!("not a CPU number: {text:?} in {whole:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_every_form() {
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("0\n").unwrap(), [0]);
        assert_eq!(parse("1-3,7,2").unwrap(), [1, 2, 3, 7]);
        assert_eq!(parse("0-15:2/8").unwrap(), [0, 1, 8, 9]);
    }

    #[test]
    fn nonsense_is_named() {
        for bad in ["x", "1-", "-1", "3-1", "1,,2", "1 2", "0-3:5/4", "0-3:0/4", "0-3:2", "+1", "5000", "99999999999"] {
            assert!(parse(bad).is_err(), "{bad:?} was taken");
        }
        assert!(parse("1,zwei").unwrap_err().contains("zwei"));
        assert!(parse_cpu("5000").unwrap_err().contains("5000"));
    }

    #[test]
    fn short_form_comes_back() {
        for list in ["", "0", "0-3", "0,2-4,9", "1-254"] {
            assert_eq!(format(&parse(list).unwrap()), list);
        }
    }
}
