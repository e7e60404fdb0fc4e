//! missing: what programs asked for that the kernel does not have, from /sys/kernel/quiesce/missing.

use crate::entry::{Args, Failure, Outcome};
use crate::fields::Fields;
use crate::{kernel_file, output};

/// `missing`: absent system calls and operations that programs asked for, the most wanted first. `missing -a`: all absent calls, by name.
pub fn main(args: &Args) -> Outcome {
    match args.rest() {
        [] => {}
        [word] if word == "-a" => {
            output::write_out(rows(&kernel_file::read_quiesce("absent")?).as_bytes());
            return Ok(0);
        }
        _ => return Err(Failure::usage("takes nothing, or -a for all calls that are not there, asked for or not")),
    }
    let text = kernel_file::read_quiesce("missing")?;
    output::write_out(table(&text).map_err(|error| Failure::new(format!("missing: {error}")))?.as_bytes());
    Ok(0)
}

/// The names of `NUMBER NAME` lines, in rows for a terminal.
fn rows(text: &str) -> String {
    const WIDTH: usize = 79;
    let mut out = String::new();
    let mut used = 0;
    for name in text.lines().filter_map(|line| line.split_whitespace().nth(1)) {
        let gap = if used == 0 {
            ""
        } else if used + 1 + name.len() > WIDTH {
            "\n"
        } else {
            " "
        };
        used = if gap == " " { used + 1 + name.len() } else { name.len() };
        out.push_str(gap);
        out.push_str(name);
    }
    out + "\n"
}

fn table(text: &str) -> Result<String, String> {
    let mut rows = Vec::new();
    let mut others = String::new();
    for line in text.lines() {
        let fields = Fields::new(line);
        let count = fields.need("count")?;
        if line.starts_with("others ") {
            others = format!("{count:>8} for which there was no room\n");
            continue;
        }
        let (call, number, program) = (fields.need_text("call")?, fields.need("number")?, fields.need_text("program")?);
        let what = match fields.need_text("operation") {
            Ok(operation) => format!("{call} {operation}"),
            Err(_) if call == "?" => format!("number {number}"),
            Err(_) => call.to_string(),
        };
        rows.push((count, what, program.to_string()));
    }
    if rows.is_empty() {
        return Ok("nothing is missing: every call that programs made is there\n".to_string());
    }
    rows.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let mut out = format!("{:>8} {:<28} program\n", "times", "call");
    for (count, what, program) in rows {
        out.push_str(&format!("{count:>8} {what:<28} {program}\n"));
    }
    Ok(out + &others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fill_their_rows() {
        let text: String = (0..40).map(|n| format!("{n} name{n}\n")).collect();
        let got = rows(&text);
        assert!(got.lines().count() > 2 && got.lines().all(|l| l.len() <= 79 && !l.ends_with(' ')), "{got}");
        let names: Vec<String> = (0..40).map(|n| format!("name{n}")).collect();
        assert_eq!(got.split_whitespace().collect::<Vec<_>>(), names);
    }

    #[test]
    fn the_most_wanted_come_first() {
        let text = "call=epoll_create1 number=291 count=3 program=bash\ncall=? number=500 count=7 program=x\n\
            call=prctl number=157 operation=0x2a count=3 program=a\nothers count=2\n";
        let got = table(text).unwrap();
        let words: Vec<Vec<&str>> = got.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(words[1], ["7", "number", "500", "x"]);
        assert_eq!(words[2], ["3", "epoll_create1", "bash"]);
        assert_eq!(words[3], ["3", "prctl", "0x2a", "a"]);
        assert_eq!(words[4][0], "2");
        assert!(table("").unwrap().starts_with("nothing is missing"));
        assert!(table("nonsense\n").is_err());
    }
}
