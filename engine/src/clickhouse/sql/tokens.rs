//! SQL taken apart as ClickHouse does it, to see whether a name broke out of its quotes.

use std::{iter::Peekable, str::Chars};

use proptest::prelude::*;

/// What SQL is made of, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::clickhouse) enum Token {
    /// A name in backticks or double quotes, without them.
    Identifier(String),
    /// A text in quotes, without them.
    Literal(String),
    /// A bare word or number.
    Word(String),
    /// A comment, which no statement of ours has.
    Comment,
    /// Anything else that is no space.
    Mark(char),
    /// A quote that nothing closes.
    Unclosed,
}

/// The tokens of `sql`.
pub(in crate::clickhouse) fn tokens(sql: &str) -> Vec<Token> {
    let mut rest = sql.chars().peekable();
    let mut found = Vec::new();
    while let Some(first) = rest.next() {
        let after = rest.peek().copied();
        found.push(match first {
            '\'' => within(first, &mut rest).map_or(Token::Unclosed, Token::Literal),
            '`' | '"' => within(first, &mut rest).map_or(Token::Unclosed, Token::Identifier),
            '#' => Token::Comment,
            '-' if after == Some('-') => Token::Comment,
            '/' if after == Some('*') => Token::Comment,
            space if space.is_whitespace() => continue,
            first if is_word(first) => {
                let mut word = String::from(first);
                while let Some(next) = rest.next_if(|next| is_word(*next)) {
                    word.push(next);
                }
                Token::Word(word)
            }
            mark => Token::Mark(mark),
        });
    }
    found
}

/// The text up to the closing quote, which a backslash or a second quote keeps from closing.
fn within(quote: char, rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut text = String::new();
    loop {
        match rest.next()? {
            '\\' => text.push(unescaped(rest.next()?)),
            next if next == quote => match rest.next_if_eq(&quote) {
                Some(_) => text.push(quote),
                None => return Some(text),
            },
            next => text.push(next),
        }
    }
}

fn unescaped(letter: char) -> char {
    match letter {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        '0' => '\0',
        'b' => '\u{8}',
        'f' => '\u{c}',
        other => other,
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_' || letter == '$'
}

/// Texts made of what means something to SQL.
pub(in crate::clickhouse) fn hostile() -> impl Strategy<Value = String> {
    let pieces = [
        "'",
        "`",
        "\"",
        "\\",
        ";",
        "--",
        "/*",
        "*/",
        "#",
        " ",
        "\n",
        "\0",
        "(",
        ")",
        ",",
        "{",
        "}",
        "x",
        "n",
        "DROP TABLE epochs",
        "{x:Identifier}",
        "\u{2019}",
        "\u{ff07}",
        "$$",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..12)
        .prop_map(|pieces| pieces.concat())
}
