//! Where an insert's statement ends and its data begins.
//!
//! ClickHouse sends both in one text: `INSERT INTO t (a) FORMAT CSV` or `... VALUES`, then data in
//! any bytes. The library takes them apart: the statement without FORMAT, the format, the data.
//! The lexer here knows ClickHouse's quotes and comments, which is all that finding the end takes.

/// A statement as the engine is to be given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// A statement that carries all it needs.
    Plain,
    /// An insert whose data follows.
    Insert(Insert),
}

/// An insert taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Insert {
    /// The statement up to, without, FORMAT or VALUES.
    pub(crate) head: String,
    /// The data's format; `Values` after VALUES or where nothing is said.
    pub(crate) format: String,
    /// Where in the text the data begins.
    pub(crate) data_at: usize,
}

/// Takes `text` apart. It may be cut off in the data and hold any bytes there, not before.
pub(crate) fn split(text: &[u8]) -> Statement {
    let mut lexer = Lexer { text, at: 0 };
    let Some(first) = lexer.next_word_at_depth_0() else {
        return Statement::Plain;
    };
    if !lexer.is(first, "insert") {
        return Statement::Plain;
    }
    while let Some(word) = lexer.next_word_at_depth_0() {
        if lexer.is(word, "select") || lexer.is(word, "with") || lexer.is(word, "watch") {
            return Statement::Plain;
        }
        if lexer.is(word, "values") {
            return insert(text, word.start, "Values".to_owned(), word.end);
        }
        if lexer.is(word, "format")
            && let Some(name) = lexer.next_word_at_depth_0()
        {
            let format = String::from_utf8_lossy(&text[name.start..name.end]).into_owned();
            return insert(text, word.start, format, after_separator(text, name.end));
        }
    }
    insert(text, text.len(), "Values".to_owned(), text.len())
}

/// Whether `sql` is a SELECT, with or without a WITH clause or parentheses before it.
pub(crate) fn is_select(sql: &str) -> bool {
    let unwrapped =
        sql.trim_start_matches(|character: char| character == '(' || character.is_whitespace());
    let mut lexer = Lexer { text: unwrapped.as_bytes(), at: 0 };
    let first = lexer.next_word_at_depth_0();
    first.is_some_and(|word| lexer.is(word, "select") || lexer.is(word, "with"))
}

/// The format that `sql` names in a FORMAT clause of its own.
pub(crate) fn format_of(sql: &str) -> Option<String> {
    let mut lexer = Lexer { text: sql.as_bytes(), at: 0 };
    let mut found = None;
    while let Some(word) = lexer.next_word_at_depth_0() {
        if lexer.is(word, "format") {
            found = lexer.next_word_at_depth_0().map(|name| sql[name.start..name.end].to_owned());
        }
    }
    found
}

fn insert(text: &[u8], head_end: usize, format: String, data_at: usize) -> Statement {
    let head = String::from_utf8_lossy(&text[..head_end])
        .trim_end_matches([';', ' ', '\n', '\r', '\t'])
        .to_owned();
    Statement::Insert(Insert { head, format, data_at })
}

/// ClickHouse skips spaces, a semicolon and one line's end between the format and the data.
fn after_separator(text: &[u8], mut at: usize) -> usize {
    let skip_spaces = |mut at: usize| {
        while matches!(text.get(at), Some(b' ' | b'\t' | b'\r')) {
            at += 1;
        }
        at
    };
    at = skip_spaces(at);
    if text.get(at) == Some(&b';') {
        at = skip_spaces(at + 1);
    }
    if text.get(at) == Some(&b'\n') { at + 1 } else { at }
}

#[derive(Clone, Copy)]
struct Word {
    start: usize,
    end: usize,
}

struct Lexer<'text> {
    text: &'text [u8],
    at: usize,
}

impl Lexer<'_> {
    fn is(&self, word: Word, keyword: &str) -> bool {
        self.text[word.start..word.end].eq_ignore_ascii_case(keyword.as_bytes())
    }

    /// The next bare word outside parentheses, quotes and comments.
    fn next_word_at_depth_0(&mut self) -> Option<Word> {
        let mut depth = 0usize;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'\'' | b'"' | b'`' => self.skip_quoted(byte),
                b'-' if self.text[self.at..].starts_with(b"--") => self.skip_line(),
                b'#' => self.skip_line(),
                b'/' if self.text[self.at..].starts_with(b"/*") => self.skip_comment(),
                b'(' | b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                }
                b')' | b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                _ if is_word(byte) => {
                    let word = self.word();
                    if depth == 0 {
                        return Some(word);
                    }
                }
                _ => self.at += 1,
            }
        }
        None
    }

    fn word(&mut self) -> Word {
        let start = self.at;
        while self.text.get(self.at).is_some_and(|&byte| is_word(byte)) {
            self.at += 1;
        }
        Word { start, end: self.at }
    }

    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(&byte) = self.text.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == quote {
                return;
            }
        }
    }

    fn skip_line(&mut self) {
        while self.text.get(self.at).is_some_and(|&byte| byte != b'\n') {
            self.at += 1;
        }
    }

    fn skip_comment(&mut self) {
        let end = self.text[self.at + 2..].windows(2).position(|two| two == b"*/");
        self.at = end.map_or(self.text.len(), |end| self.at + 2 + end + 2);
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_apart(text: &str) -> Option<(String, String, String)> {
        match split(text.as_bytes()) {
            Statement::Plain => None,
            Statement::Insert(insert) => {
                Some((insert.head, insert.format, text[insert.data_at..].to_owned()))
            }
        }
    }

    fn parts(head: &str, format: &str, data: &str) -> Option<(String, String, String)> {
        Some((head.to_owned(), format.to_owned(), data.to_owned()))
    }

    #[test]
    fn an_insert_is_taken_apart() {
        let cases = [
            (
                "INSERT INTO t (a, b) FORMAT CSV\n1,2\n",
                parts("INSERT INTO t (a, b)", "CSV", "1,2\n"),
            ),
            (
                "insert into t format JSONEachRow {\"a\":1}",
                parts("insert into t", "JSONEachRow", "{\"a\":1}"),
            ),
            ("INSERT INTO t VALUES (1),(2)", parts("INSERT INTO t", "Values", " (1),(2)")),
            ("INSERT INTO t(a)", parts("INSERT INTO t(a)", "Values", "")),
            (
                "/* FORMAT x */ INSERT INTO `format` -- values\n(a) FORMAT TSV\n\tx",
                parts("/* FORMAT x */ INSERT INTO `format` -- values\n(a)", "TSV", "\tx"),
            ),
            (
                "INSERT INTO t SETTINGS a='values' FORMAT Native",
                parts("INSERT INTO t SETTINGS a='values'", "Native", ""),
            ),
            (
                "INSERT INTO t (a, values) FORMAT TSV\n\n1",
                parts("INSERT INTO t (a, values)", "TSV", "\n1"),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(taken_apart(text), expected, "{text}");
        }
    }

    #[test]
    fn what_carries_its_own_rows_is_plain() {
        for text in [
            "INSERT INTO t SELECT 1 FORMAT CSV",
            "INSERT INTO t WITH 1 AS x SELECT x",
            "SELECT 1",
            "",
            "-- INSERT INTO t VALUES",
        ] {
            assert_eq!(taken_apart(text), None, "{text}");
        }
    }

    #[test]
    fn data_of_any_bytes_is_not_looked_at() {
        let text = b"INSERT INTO t FORMAT RowBinary\n\xff\x00'\"/*";
        let Statement::Insert(insert) = split(text) else { panic!("an insert") };
        assert_eq!(&text[insert.data_at..], b"\xff\x00'\"/*");
    }
}
