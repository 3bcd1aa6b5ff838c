//! Java's `.properties` format (`java.util.Properties.load`), with the place of every key and value kept.
//!
//! Comments begin with `#` or `!`; a key ends at the first unescaped `=`, `:` or blank; a line that ends in an odd
//! number of backslashes goes on in the next; `\t \n \r \f \uXXXX` are escapes and any other backslash is dropped.

use std::ops::Range;

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The key, unescaped.
    pub key: String,
    /// The value, unescaped.
    pub value: String,
    /// The line it begins on, from 1.
    pub line: usize,
    /// That line as it stands in the file.
    pub text: String,
    /// Where the key stands in `text`, in characters.
    pub key_span: Range<usize>,
    /// Where the value begins in `text`, in characters; a value that goes on in the next line ends with this one.
    pub value_span: Range<usize>,
}

/// An escape that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\\u must be followed by four hexadecimal digits")]
pub struct BadEscape {
    /// The line, from 1.
    pub line: usize,
    /// That line as it stands in the file.
    pub text: String,
}

/// Reads a whole file's text.
pub fn parse(text: &str) -> (Vec<Property>, Vec<BadEscape>) {
    let mut properties = Vec::new();
    let mut errors = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let start = first.trim_start_matches(is_blank);
        if start.is_empty() || start.starts_with(['#', '!']) {
            continue;
        }
        let mut logical: Vec<char> = first.chars().collect();
        while ends_open(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.extend(next.trim_start_matches(is_blank).chars());
        }
        match property(&logical, index + 1, first) {
            Ok(property) => properties.push(property),
            Err(error) => errors.push(error),
        }
    }
    (properties, errors)
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

/// Whether the line ends in an odd number of backslashes.
fn ends_open(line: &[char]) -> bool {
    line.iter().rev().take_while(|character| **character == '\\').count() % 2 == 1
}

fn property(line: &[char], number: usize, text: &str) -> Result<Property, BadEscape> {
    let skip_blanks = |mut position: usize| {
        while line.get(position).is_some_and(|character| is_blank(*character)) {
            position += 1;
        }
        position
    };
    let key_start = skip_blanks(0);
    let mut key_end = key_start;
    while let Some(character) = line.get(key_end) {
        if *character == '\\' {
            key_end += 2;
        } else if matches!(character, '=' | ':') || is_blank(*character) {
            break;
        } else {
            key_end += 1;
        }
    }
    let key_end = key_end.min(line.len());
    let mut value_start = skip_blanks(key_end);
    if matches!(line.get(value_start), Some('=' | ':')) {
        value_start = skip_blanks(value_start + 1);
    }
    let shown = text.chars().count();
    let bad = || BadEscape { line: number, text: text.to_owned() };
    Ok(Property {
        key: unescape(&line[key_start..key_end]).ok_or_else(bad)?,
        value: unescape(&line[value_start..]).ok_or_else(bad)?,
        line: number,
        text: text.to_owned(),
        key_span: key_start..key_end.min(shown),
        value_span: value_start.min(shown)..line.len().min(shown),
    })
}

fn unescape(raw: &[char]) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(raw.len());
    let push = |units: &mut Vec<u16>, character: char| {
        units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
    };
    let mut characters = raw.iter().copied();
    while let Some(character) = characters.next() {
        if character != '\\' {
            push(&mut units, character);
            continue;
        }
        match characters.next() {
            Some('t') => push(&mut units, '\t'),
            Some('n') => push(&mut units, '\n'),
            Some('r') => push(&mut units, '\r'),
            Some('f') => push(&mut units, '\u{c}'),
            Some('u') => {
                let digits: String = characters.by_ref().take(4).collect();
                let legal = digits.len() == 4 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
                units.push(u16::from_str_radix(&digits, 16).ok().filter(|_| legal)?);
            }
            Some(other) => push(&mut units, other),
            None => {}
        }
    }
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let (properties, errors) = parse(text);
        assert_eq!(errors, []);
        properties.into_iter().map(|property| (property.key, property.value)).collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn equals_colon_and_blank_all_separate() {
        let expected = vec![pair("a", "1"), pair("b", "2"), pair("c", "3"), pair("d", "4 5 "), pair("e", "")];
        assert_eq!(pairs("a=1\nb : 2\n  c 3\r\nd\t=\t4 5 \ne"), expected);
    }

    #[test]
    fn comments_and_blank_lines_are_skipped() {
        assert_eq!(pairs("# a=1\n\n  ! b=2\nc=3 # not a comment\n"), vec![pair("c", "3 # not a comment")]);
    }

    #[test]
    fn a_backslash_at_the_end_continues_the_line() {
        assert_eq!(pairs("list=a,\\\n    b,\\\n  c\nnext=1"), vec![pair("list", "a,b,c"), pair("next", "1")]);
        assert_eq!(pairs("path=c\\\\\nnext=1"), vec![pair("path", "c\\"), pair("next", "1")]);
        assert_eq!(pairs("# comment \\\na=1"), vec![pair("a", "1")]);
    }

    #[test]
    fn escapes_are_those_of_java() {
        assert_eq!(pairs(r"a\=b\:c\ d=x\ty\u00e9\q"), vec![pair("a=b:c d", "x\ty\u{e9}q")]);
        assert_eq!(pairs(r"smile=\ud83d\ude00"), vec![pair("smile", "\u{1f600}")]);
        let (properties, errors) = parse("ok=1\nbad=\\u12g4\n");
        assert_eq!(properties.len(), 1);
        assert_eq!(errors, [BadEscape { line: 2, text: "bad=\\u12g4".to_owned() }]);
    }

    #[test]
    fn places_are_kept() {
        let (properties, _) = parse("# first\n  node.id = 7\nlist=a,\\\n b\n");
        assert_eq!(properties[0].line, 2);
        assert_eq!((properties[0].key_span.clone(), properties[0].value_span.clone()), (2..9, 12..13));
        assert_eq!((properties[1].line, properties[1].text.as_str()), (3, "list=a,\\"));
        assert_eq!(properties[1].value_span, 5..8);
    }
}
