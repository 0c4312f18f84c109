//! Names and texts within SQL. All that does not stand in our own source goes through one of these
//! two functions, so that a name from a file stays a name.

#[cfg(test)]
pub(super) mod tokens;

/// A name of a database, table or column, whatever characters it is made of.
#[must_use]
pub fn identifier(name: &str) -> String {
    quoted(name, '`')
}

/// A text as a value.
#[must_use]
pub fn literal(text: &str) -> String {
    quoted(text, '\'')
}

/// Within quotes ClickHouse gives a meaning to two characters only, the quote and the backslash;
/// doubled they are themselves.
fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for character in text.chars() {
        if character == quote || character == '\\' {
            out.push(character);
        }
        out.push(character);
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        tokens::{Token, hostile, tokens},
        *,
    };

    proptest! {
        #[test]
        fn any_text_stays_one_name_and_one_value(text in prop_oneof![any::<String>(), hostile()]) {
            let name = Token::Identifier(text.clone());
            prop_assert_eq!(tokens(&identifier(&text)), vec![name]);
            prop_assert_eq!(tokens(&literal(&text)), vec![Token::Literal(text)]);
        }
    }
}
