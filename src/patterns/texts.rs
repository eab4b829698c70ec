//! The texts inside a JSON document, and a text as it reads once its escapes are undone.

use std::ops::Range;

use memchr::{memchr, memchr2};

/// A number of fewer digits is not looked at: nothing tells it from any other.
const NUMBER_LEN_MIN: usize = 8;

/// Where a text stands in a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Between two quotation marks, these left out. It may have escapes.
    Quoted(Range<usize>),
    /// Without any: a long number.
    Bare(Range<usize>),
}

/// The texts of a document: names, values and long numbers, in order.
///
/// What is no JSON has texts too: whatever looks like one.
pub(super) fn texts(document: &str) -> impl Iterator<Item = Place> {
    let bytes = document.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(byte) = bytes.get(at) {
            let start = at;
            if *byte == b'"' {
                let end = closing(bytes, start + 1);
                at = end + 1;
                return Some(Place::Quoted(start + 1..end));
            }
            at += bytes[at..].iter().take_while(|it| is_numeric(**it)).count().max(1);
            if NUMBER_LEN_MIN <= at - start {
                return Some(Place::Bare(start..at));
            }
        }
        None
    })
}

/// The quotation mark that ends a text, or the end of everything.
fn closing(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(next) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += next;
        if bytes[at] == b'"' {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

fn is_numeric(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

/// An escape, where it stands, and where what it stands for does once all are undone.
#[derive(Debug)]
struct Escape {
    source: Range<usize>,
    plain: Range<usize>,
    stands_for: char,
}

/// The escapes of a text, in order. A backslash that begins none of JSON's is an ordinary letter.
fn escapes(text: &str) -> impl Iterator<Item = Escape> {
    let (mut from, mut saved) = (0, 0);
    std::iter::from_fn(move || {
        loop {
            let start = from + text.get(from..)?.find('\\')?;
            let Some((stands_for, len)) = escape(&text[start..]) else {
                from = start + 1;
                continue;
            };
            from = start + len;
            let plain = start - saved..start - saved + stands_for.len_utf8();
            saved = from - plain.end;
            return Some(Escape { source: start..from, plain, stands_for });
        }
    })
}

/// What the escape at the beginning of a text stands for, and its length.
fn escape(text: &str) -> Option<(char, usize)> {
    let stands_for = match text.as_bytes().get(1)? {
        letter @ (b'"' | b'\\' | b'/') => char::from(*letter),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(text),
        _ => return None,
    };
    Some((stands_for, 2))
}

/// `\u0040`, or two of them for a letter beyond 16 bits. Half of such two is no letter.
fn unicode(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let hex = text.get(at..at + 6)?.strip_prefix("\\u")?;
        let plain = hex.bytes().all(|it| it.is_ascii_hexdigit());
        plain.then(|| u16::from_str_radix(hex, 16).ok())?
    };
    let first = unit(0)?;
    let both = [Some(first), unit(6)].into_iter().flatten();
    let letter = char::decode_utf16(both).next()?.unwrap_or(char::REPLACEMENT_CHARACTER);
    Some((letter, if letter.len_utf16() == 2 { 12 } else { 6 }))
}

/// A text with its escapes undone; none where it has none.
pub(super) fn unescaped(text: &str) -> Option<String> {
    memchr(b'\\', text.as_bytes()).is_some().then(|| {
        let (mut plain, mut from) = (String::with_capacity(text.len()), 0);
        for escape in escapes(text) {
            plain.push_str(&text[from..escape.source.start]);
            plain.push(escape.stands_for);
            from = escape.source.end;
        }
        plain.push_str(&text[from..]);
        plain
    })
}

/// Where ranges of the unescaped text stand in the text itself. They come in order, none is empty
/// and none overlaps the next.
pub(super) fn outward<'r>(text: &str, ranges: impl Iterator<Item = &'r mut Range<usize>>) {
    let mut walk = Walk { rest: escapes(text), ahead: None, last: None };
    for range in ranges {
        let at = |escape: Option<&Escape>, position: usize| match escape {
            Some(it) if position < it.plain.end => it.source.clone(),
            Some(it) => {
                let start = it.source.end + position - it.plain.end;
                start..start + 1
            }
            None => position..position + 1,
        };
        let start = at(walk.to(range.start, |it| it.plain.start), range.start).start;
        let end = at(walk.to(range.end - 1, |it| it.plain.start), range.end - 1).end;
        *range = start..end;
    }
}

/// Makes ranges larger that begin or end inside an escape, so that none is cut in two.
pub(super) fn snap<'r>(text: &str, ranges: impl Iterator<Item = &'r mut Range<usize>>) {
    let mut walk = Walk { rest: escapes(text), ahead: None, last: None };
    for range in ranges {
        let mut within = |position: usize| {
            let escape = walk.to(position, |it| it.source.start);
            escape.filter(|it| position < it.source.end).map(|it| it.source.clone())
        };
        let start = within(range.start).map_or(range.start, |it| it.start);
        let end = within(range.end - 1).map_or(range.end, |it| it.end);
        *range = start..end;
    }
}

/// Goes from escape to escape, for positions that only grow.
struct Walk<I> {
    rest: I,
    ahead: Option<Escape>,
    last: Option<Escape>,
}

impl<I: Iterator<Item = Escape>> Walk<I> {
    /// The last escape that begins at or before a position.
    fn to(&mut self, position: usize, start: fn(&Escape) -> usize) -> Option<&Escape> {
        while let Some(next) = self.ahead.take().or_else(|| self.rest.next()) {
            if position < start(&next) {
                self.ahead = Some(next);
                break;
            }
            self.last = Some(next);
        }
        self.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(document: &str) -> Vec<&str> {
        let of = |place| match place {
            Place::Quoted(range) | Place::Bare(range) => &document[range],
        };
        texts(document).map(of).collect()
    }

    #[test]
    fn a_document_has_names_values_and_long_numbers() {
        let document = r#"{"a": [1, "b\"c", -12345678.5], "d": {"":"\\"}, "n": 1234567}"#;
        assert_eq!(shown(document), ["a", r#"b\"c"#, "-12345678.5", "d", "", r"\\", "n"]);
        assert_eq!(shown(r#"{"cut": "of"#), ["cut", "of"]);
        assert_eq!(shown(r#""ends\"#), [r"ends\"]);
        assert_eq!(shown("\"\\é\" 12"), ["\\é"]);
    }

    #[test]
    fn escapes_are_undone_as_json_has_them_and_others_stay() {
        let plain = |text: &str| unescaped(text).unwrap();
        assert_eq!(plain(r#"a\u0040b\/c\"\\\n"#), "a@b/c\"\\\n");
        assert_eq!(plain(r"\ud83d\ude00 \ud83d \ude00 \ud83dx"), "😀 \u{fffd} \u{fffd} \u{fffd}x");
        assert_eq!(plain(r"C:\x \u12 \u+123 \"), r"C:\x \u12 \u+123 \");
        assert_eq!(unescaped("none"), None);
    }

    #[test]
    fn ranges_go_outward_and_never_cut_an_escape() {
        let text = r"xé\u00e9\n\ud83d\ude00é.";
        let plain = unescaped(text).unwrap();
        assert_eq!(plain, "xéé\n😀é.");
        let of = |part: &str| {
            let start = plain.rfind(part).unwrap();
            let mut range = start..start + part.len();
            outward(text, [&mut range].into_iter());
            &text[range]
        };
        for (part, source) in [
            ("x", "x"),
            ("é\n", r"\u00e9\n"),
            ("\n", r"\n"),
            ("😀", r"\ud83d\ude00"),
            ("é.", "é."),
            ("xéé\n😀é.", text),
        ] {
            assert_eq!(of(part), source, "{part:?}");
        }
        let mut cut = [4..5, 9..14, 16..23];
        snap(r"\u0041bcd\nef\u0042\u0043", cut.iter_mut());
        assert_eq!(cut, [0..6, 9..19, 13..25]);
    }
}
