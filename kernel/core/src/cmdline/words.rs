//! Splits a command line into words as Linux does (lib/cmdline.c describes it: next_arg).
//!
//! Callers as in [`crate::cmdline`], which exports all of this. Invariant: everything is a piece of the line.

use core::fmt;

/// One word of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// The name: all before the first `=`.
    pub name: &'a str,
    /// What is after the `=`, without quotes around it; `None` if there is no `=`.
    pub value: Option<&'a str>,
}

impl Param<'_> {
    /// True if the names are equal, `-` and `_` being the same, as in Linux.
    pub fn is(&self, name: &str) -> bool {
        same_name(self.name, name)
    }
}

impl fmt::Display for Param<'_> {
    /// `name=value` or `name`, as init gets it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.value.map_or(Ok(()), |value| write!(f, "={value}"))
    }
}

/// The words of a command line; made by [`params`].
#[derive(Clone, Debug)]
pub struct Params<'a> {
    rest: &'a str,
}

/// The words of `line`. Blanks separate; within quotes they do not. Quotes around a value (`a="b c"`) or a whole
/// word (`"a=b c"`) are removed, others stay.
pub const fn params(line: &str) -> Params<'_> {
    Params { rest: line }
}

impl<'a> Params<'a> {
    /// What is not yet read.
    pub const fn rest(&self) -> &'a str {
        self.rest
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        let line = self.rest.trim_start_matches(is_blank);
        if line.is_empty() {
            self.rest = "";
            return None;
        }
        let mut in_quotes = false;
        let end = line.find(|c| {
            in_quotes ^= c == '"';
            !in_quotes && is_blank(c)
        });
        let (word, rest) = line.split_at(end.unwrap_or(line.len()));
        self.rest = rest;
        let word = match word.strip_prefix('"') {
            Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
            None => word,
        };
        // An `=` in the first place belongs to the name.
        let equals = word.char_indices().skip(1).find(|&(_, c)| c == '=').map(|(at, _)| at);
        Some(match equals {
            None => Param { name: word, value: None },
            Some(at) => {
                let value = &word[at + 1..];
                let value = match value.strip_prefix('"') {
                    Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
                    None => value,
                };
                Param { name: &word[..at], value: Some(value) }
            }
        })
    }
}

fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\u{b}' || c == '\0'
}

fn same_name(a: &str, b: &str) -> bool {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    a.len() == b.len() && a.bytes().map(plain).eq(b.bytes().map(plain))
}
