//! Lines of `key=value` words, the format of the files in /sys/kernel/quiesce. Pure; called by the modules that know what a line means.

/// The words of one line; words without `=` count as keys with an empty value.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    line: &'a str,
}

impl<'a> Fields<'a> {
    /// The fields of `line`.
    pub fn new(line: &'a str) -> Self {
        Self { line }
    }

    /// The value behind `key=`, if the line has it. The first one wins.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.line.split_ascii_whitespace().find_map(|word| match word.split_once('=') {
            Some((name, value)) if name == key => Some(value),
            _ => None,
        })
    }

    /// The value behind `key=` as a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// The value behind `key=` as a number, or an error that names key and line.
    pub fn need(&self, key: &str) -> Result<u64, String> {
        self.number(key).ok_or_else(|| format!("no number {key}= in line {:?}", self.line))
    }

    /// The value behind `key=`, or an error that names key and line.
    pub fn need_text(&self, key: &str) -> Result<&'a str, String> {
        self.text(key).ok_or_else(|| format!("no {key}= in line {:?}", self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_key() {
        let fields = Fields::new("sender_cpu=3 cpu=1 comm=a=b flag x=");
        assert_eq!(fields.number("cpu"), Some(1));
        assert_eq!(fields.text("comm"), Some("a=b"));
        assert_eq!(fields.text("x"), Some(""));
        assert_eq!(fields.text("flag"), None);
    }

    #[test]
    fn errors_name_the_key() {
        let error = Fields::new("cpu=one").need("cpu").unwrap_err();
        assert!(error.contains("cpu=") && error.contains("cpu=one"), "{error}");
    }
}
