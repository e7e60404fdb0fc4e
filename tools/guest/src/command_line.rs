//! The shell's language: one line of text becomes lists of pipelines. Pure; called by the shell alone.
//!
//! Words with quotes and backslashes, `$NAME ${NAME} $? $$ $!`, `|`, `&&`, `||`, `;`, `&`, redirections `< > >> N> N>> N>&M`, comments, `time`.
//! An expansion stays one word. There are no other shell constructs.

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as it stands.
    Text(String),
    /// The value of a variable, by name (`?`, `$` and `!` too).
    Variable(String),
}

/// A word, expanded when it is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// Its parts, in order.
    pub pieces: Vec<Piece>,
    /// Whether any part was quoted: then it stays a word even when it is empty.
    pub quoted: bool,
}

impl Word {
    /// The word's text, with `value` giving the variables.
    pub fn expand(&self, value: &dyn Fn(&str) -> String) -> String {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Variable(name) => value(name),
            })
            .collect()
    }

    fn push(&mut self, c: char) {
        match self.pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => self.pieces.push(Piece::Text(c.to_string())),
        }
    }
}

/// Where a redirection leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `< FILE`.
    Read(Word),
    /// `> FILE`.
    Write(Word),
    /// `>> FILE`.
    Append(Word),
    /// `>&N`.
    Same(i32),
}

/// One redirection of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The descriptor.
    pub fd: i32,
    /// Where it leads.
    pub target: Target,
}

/// A program with its words and redirections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Name and arguments.
    pub words: Vec<Word>,
    /// Redirections, in order.
    pub redirects: Vec<Redirect>,
}

/// When a pipeline is run, by how the one before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// In any case.
    Always,
    /// Behind `&&`: after status 0.
    AfterSuccess,
    /// Behind `||`: after another status.
    AfterFailure,
}

/// Commands joined by `|`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// When it is run.
    pub condition: Condition,
    /// The commands, at least one.
    pub commands: Vec<Command>,
    /// Whether its time is to be told.
    pub timed: bool,
    /// Whether nobody waits for it.
    pub background: bool,
    /// Its text, for messages.
    pub text: String,
}

enum Token {
    Word(Word),
    Operator(&'static str),
    Redirect(i32, &'static str),
}

/// The pipelines of `line`, in order. The error is one line without the shell's name.
pub fn parse(line: &str) -> Result<Vec<Pipeline>, String> {
    let mut scanner = Scanner { line, at: 0 };
    let mut pipelines = Vec::new();
    let mut condition = Condition::Always;
    loop {
        let (pipeline, operator) = scanner.pipeline(condition)?;
        let empty = pipeline.is_none();
        if empty && (condition != Condition::Always || !matches!(operator, "" | ";")) {
            let near = if operator.is_empty() { "the end of the line" } else { operator };
            return Err(format!("syntax error near {near}"));
        }
        pipelines.extend(pipeline);
        condition = match operator {
            "&&" => Condition::AfterSuccess,
            "||" => Condition::AfterFailure,
            "" => return Ok(pipelines),
            _ => Condition::Always,
        };
    }
}

struct Scanner<'a> {
    line: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn left(&self) -> &str {
        &self.line[self.at..]
    }

    /// One pipeline, if there is one, and the operator behind it (empty at the end).
    fn pipeline(&mut self, condition: Condition) -> Result<(Option<Pipeline>, &'static str), String> {
        let start = self.at;
        let mut end = start;
        let mut commands = vec![Command::default()];
        let mut timed = false;
        let operator = loop {
            let Some(token) = self.token()? else { break "" };
            let count = commands.len();
            let command = &mut commands[count - 1];
            match token {
                Token::Word(word) => {
                    let plain = !word.quoted && word.pieces == [Piece::Text("time".to_string())];
                    if plain && count == 1 && command.words.is_empty() && !timed {
                        timed = true;
                    } else {
                        command.words.push(word);
                    }
                }
                Token::Redirect(fd, operator) => {
                    let Some(Token::Word(word)) = self.token()? else {
                        return Err(format!("no file behind {operator}"));
                    };
                    command.redirects.push(redirect(fd, operator, word)?);
                }
                Token::Operator("|") => {
                    if command.words.is_empty() {
                        return Err("syntax error near |".to_string());
                    }
                    commands.push(Command::default());
                }
                Token::Operator(operator) => break operator,
            }
            end = self.at;
        };
        let last_empty = commands.last().is_none_or(|command| command.words.is_empty() && command.redirects.is_empty());
        if commands.len() > 1 && last_empty {
            return Err("nothing behind |".to_string());
        }
        if last_empty && !timed {
            return Ok((None, operator));
        }
        let text = self.line[start..end].trim().to_string();
        Ok((Some(Pipeline { condition, commands, timed, background: operator == "&", text }), operator))
    }

    fn token(&mut self) -> Result<Option<Token>, String> {
        let blank = self.left().len() - self.left().trim_start().len();
        self.at += blank;
        let left = self.left();
        if left.is_empty() || left.starts_with('#') {
            self.at = self.line.len();
            return Ok(None);
        }
        for operator in ["&&", "||", "|", "&", ";"] {
            if left.starts_with(operator) {
                self.at += operator.len();
                return Ok(Some(Token::Operator(operator)));
            }
        }
        let digits = left.bytes().take_while(u8::is_ascii_digit).count();
        for operator in [">>", ">&", ">", "<"] {
            if digits <= 1 && left[digits..].starts_with(operator) {
                let usual = if operator == "<" { 0 } else { 1 };
                let fd = left[..digits].parse().unwrap_or(usual);
                self.at += digits + operator.len();
                return Ok(Some(Token::Redirect(fd, operator)));
            }
        }
        self.word().map(|word| Some(Token::Word(word)))
    }

    fn word(&mut self) -> Result<Word, String> {
        let mut word = Word::default();
        while let Some(c) = self.left().chars().next() {
            match c {
                c if c.is_whitespace() || "|&;<>".contains(c) => break,
                '\'' => {
                    let Some(end) = self.left()[1..].find('\'') else { return Err("unterminated '".to_string()) };
                    self.left()[1..=end].to_string().chars().for_each(|c| word.push(c));
                    word.quoted = true;
                    self.at += end + 2;
                }
                '"' => {
                    self.at += 1;
                    word.quoted = true;
                    self.double_quoted(&mut word)?;
                }
                '\\' => {
                    self.at += 1;
                    word.quoted = true;
                    match self.left().chars().next() {
                        Some(next) => {
                            self.at += next.len_utf8();
                            word.push(next);
                        }
                        None => word.push('\\'),
                    }
                }
                '$' => self.variable(&mut word)?,
                c => {
                    self.at += c.len_utf8();
                    word.push(c);
                }
            }
        }
        Ok(word)
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), String> {
        while let Some(c) = self.left().chars().next() {
            match c {
                '"' => {
                    self.at += 1;
                    return Ok(());
                }
                '$' => self.variable(word)?,
                '\\' if self.left()[1..].starts_with(['"', '\\', '$']) => {
                    word.push(char::from(self.left().as_bytes()[1]));
                    self.at += 2;
                }
                c => {
                    self.at += c.len_utf8();
                    word.push(c);
                }
            }
        }
        Err("unterminated \"".to_string())
    }

    fn variable(&mut self, word: &mut Word) -> Result<(), String> {
        let rest = &self.left()[1..];
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let (name, taken) = match rest.bytes().next() {
            Some(b'?' | b'$' | b'!') => (&rest[..1], 1),
            Some(b'{') => match rest.find('}') {
                Some(end) if end > 1 && rest[1..end].bytes().all(|b| is_name(&b) || b"?$!".contains(&b)) => {
                    (&rest[1..end], end + 1)
                }
                _ => return Err("bad ${…}".to_string()),
            },
            _ => {
                let length = rest.bytes().take_while(is_name).count();
                (&rest[..length], length)
            }
        };
        if name.is_empty() {
            word.push('$');
        } else {
            word.pieces.push(Piece::Variable(name.to_string()));
        }
        self.at += 1 + taken;
        Ok(())
    }
}

fn redirect(fd: i32, operator: &'static str, word: Word) -> Result<Redirect, String> {
    let target = match operator {
        "<" => Target::Read(word),
        ">" => Target::Write(word),
        ">>" => Target::Append(word),
        _ => match word.expand(&|_| String::new()).parse() {
            Ok(other @ 0..=9) => Target::Same(other),
            _ => return Err("no descriptor behind >&".to_string()),
        },
    };
    Ok(Redirect { fd, target })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> String {
        format!("<{name}>")
    }

    fn words(line: &str) -> Vec<Vec<Vec<String>>> {
        let words = |c: &Command| c.words.iter().map(|w| w.expand(&value)).collect();
        parse(line).unwrap().iter().map(|p| p.commands.iter().map(words).collect()).collect()
    }

    #[test]
    fn words_quotes_and_variables() {
        assert_eq!(words("echo a'b c'\"d $x\\\"\" \\# e# #f")[0][0], ["echo", "ab cd <x>\"", "#", "e#"]);
        assert_eq!(words("echo $? ${a_1}z $$ $ '$x' \"\"")[0][0], ["echo", "<?>", "<a_1>z", "<$>", "$", "$x", ""]);
    }

    #[test]
    fn pipes_lists_and_background() {
        let got = parse("a|b && c || d; e & f").unwrap();
        assert_eq!(got.len(), 5);
        assert_eq!(got[0].commands.len(), 2);
        let conditions: Vec<_> = got.iter().map(|p| p.condition).collect();
        use Condition::{AfterFailure, AfterSuccess, Always};
        assert_eq!(conditions, [Always, AfterSuccess, AfterFailure, Always, Always]);
        assert_eq!(got.iter().map(|p| p.background).collect::<Vec<_>>(), [false, false, false, true, false]);
        assert_eq!(got[0].text, "a|b");
        assert_eq!(got[3].text, "e");
    }

    #[test]
    fn redirections() {
        let got = parse("a <in 2>err >> out2 2>&1 x2>y").unwrap();
        let command = &got[0].commands[0];
        assert_eq!(command.words.len(), 2);
        let fds: Vec<_> = command.redirects.iter().map(|r| r.fd).collect();
        assert_eq!(fds, [0, 2, 1, 2, 1]);
        assert_eq!(command.redirects[3].target, Target::Same(1));
        assert!(matches!(command.redirects[2].target, Target::Append(_)));
    }

    #[test]
    fn empty_lines_and_time() {
        assert!(parse("").unwrap().is_empty());
        assert!(parse("  # nothing").unwrap().is_empty());
        assert!(parse(";;").unwrap().is_empty());
        let timed = &parse("time run x").unwrap()[0];
        assert!(timed.timed && timed.commands[0].words.len() == 2);
    }

    #[test]
    fn nonsense_is_one_clear_line() {
        for (line, part) in [
            ("a |", "|"),
            ("| a", "|"),
            ("a && ", "end of the line"),
            ("&", "&"),
            ("echo 'x", "'"),
            ("echo \"x", "\""),
            ("a >", ">"),
            ("a > | b", ">"),
            ("a 2>&x", ">&"),
            ("echo ${", "${"),
            ("|| a", "||"),
            ("a && ; b", ";"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(part) && !error.contains('\n'), "{line:?}: {error}");
        }
    }
}
