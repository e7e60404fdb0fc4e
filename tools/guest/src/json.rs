//! JSON text: strings with their escapes, objects and lists from ready parts. Pure; called by the programs' --json.

/// A JSON string with quotes.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An object on one line; the values are JSON texts already.
pub fn object<K: AsRef<str>>(members: impl IntoIterator<Item = (K, String)>) -> String {
    let members: Vec<_> =
        members.into_iter().map(|(key, value)| format!("{}: {value}", string(key.as_ref()))).collect();
    format!("{{{}}}", members.join(", "))
}

/// A list on one line; the values are JSON texts already.
pub fn list(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        assert_eq!(string("a\"b\\c\n\u{1}é"), "\"a\\\"b\\\\c\\n\\u0001é\"");
    }

    #[test]
    fn objects_and_lists_nest() {
        let inner = object([("timer", "3".to_string())]);
        assert_eq!(object([("n", list(["1".into(), inner]))]), "{\"n\": [1, {\"timer\": 3}]}");
    }
}
