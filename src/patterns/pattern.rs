//! A pattern: a name, and what it finds in a text.

use std::ops::Range;

use regex::{Match, Regex, RegexBuilder};

/// Most memory of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Most places where a pattern without check digits is found in one text. Searching goes on from
/// each, so that a bad one would cost the square of the text; from the last one on, all of it
/// counts as found.
const FOUND_MAX: usize = 1_000;

/// How much of a text, from its beginning, is a number with a right check digit.
type Checked = fn(&str) -> Option<usize>;

/// The patterns that there are without being configured: each with its expression. Where numbers
/// have a check digit, that finds whole rows of groups, and one of the groups begins such a number.
#[rustfmt::skip]
const BUILT_IN: [(&str, &str, Option<Checked>); 4] = [
    ("email", r"[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}", None),
    ("card", r"(?-u:\b)[0-9]{3,19}(?:[ -][0-9]{3,19})*(?-u:\b)", Some(card)),
    ("iban", r"(?-u:\b)[A-Z]{2}[0-9]{2}[A-Z0-9]*(?: [A-Z0-9]+)*(?-u:\b)", Some(iban)),
    ("secret", SECRET, None),
];

/// Keys by the form that those who give them out chose for them, bearer tokens, JWTs, PEM.
const SECRET: &str = concat!(
    r"(?-u:\b)(?:sk-[A-Za-z0-9_-]{16,}|xai-[A-Za-z0-9]{20,}|(?:gsk|hf)_[A-Za-z0-9]{20,}",
    r"|AIza[A-Za-z0-9_-]{35}|A[KS]IA[A-Z0-9]{16}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
    r"|gh[opsur]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}",
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|(?i:bearer)[ \t]+[A-Za-z0-9._~+/-]{20,}=*",
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})",
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]|-[^-])*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
);

/// A name, and what it finds. Finding takes time in proportion to the text.
#[derive(Clone, Debug)]
pub struct Pattern {
    name: String,
    regex: Regex,
    checked: Option<Checked>,
}

/// Why a pattern cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// It does not follow the syntax.
    #[error("is not a regular expression")]
    Syntax,
    /// Compiled, it needs more memory than it may.
    #[error("needs too much memory")]
    TooLarge,
    /// It is found in a text without a letter.
    #[error("matches the empty text, and so everything")]
    Empty,
}

impl Pattern {
    /// The names of those that need no configuration.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _, _)| *name)
    }

    /// The one of that name that needs no configuration.
    pub fn built_in(name: &str) -> Option<Self> {
        let (name, regex, checked) = BUILT_IN.iter().find(|(it, _, _)| *it == name)?;
        Some(Self { name: (*name).to_owned(), regex: compiled(regex).ok()?, checked: *checked })
    }

    /// A pattern of one's own, in the syntax of the `regex` crate.
    ///
    /// # Errors
    /// When the text is none that can be used.
    pub fn new(name: &str, regex: &str) -> Result<Self, BadPattern> {
        let regex = compiled(regex)?;
        if regex.is_match("") {
            return Err(BadPattern::Empty);
        }
        Ok(Self { name: name.to_owned(), regex, checked: None })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is found in a text.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.all(text).next().is_some()
    }

    /// Where it is found in a text.
    pub(super) fn all<'t>(
        &self,
        text: &'t str,
    ) -> impl Iterator<Item = Range<usize>> + use<'_, 't> {
        let numbers = self.checked.map(|checked| {
            self.regex.find_iter(text).flat_map(move |groups| numbers(groups, checked))
        });
        let places = self.checked.is_none().then(|| self.places(text));
        numbers.into_iter().flatten().chain(places.into_iter().flatten())
    }

    fn places<'t>(&self, text: &'t str) -> impl Iterator<Item = Range<usize>> + use<'_, 't> {
        let (mut from, mut left) = (0, FOUND_MAX);
        std::iter::from_fn(move || {
            let mut found = self.first(text, from)?;
            left -= 1;
            if left == 0 {
                found.end = text.len();
            }
            from = found.end;
            Some(found)
        })
    }

    fn first(&self, text: &str, from: usize) -> Option<Range<usize>> {
        let mut from = from;
        while from < text.len() {
            let found = self.regex.find_at(text, from)?;
            if !found.is_empty() {
                return Some(found.range());
            }
            from = text.ceil_char_boundary(found.end() + 1);
        }
        None
    }
}

fn compiled(regex: &str) -> Result<Regex, BadPattern> {
    let built = RegexBuilder::new(regex).size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => BadPattern::TooLarge,
        _ => BadPattern::Syntax,
    })
}

/// The numbers with a right check digit among groups in a row, each of one group or of several.
/// Every group is looked at once, however many numbers there are.
fn numbers(groups: Match<'_>, checked: Checked) -> impl Iterator<Item = Range<usize>> {
    let (text, offset) = (groups.as_str(), groups.start());
    let mut next = Some(0);
    std::iter::from_fn(move || {
        while let Some(start) = next {
            let len = checked(&text[start..]);
            let end = start + len.unwrap_or(0);
            next = text[end..].find(is_gap).map(|gap| end + gap + 1);
            if len.is_some() {
                return Some(offset + start..offset + end);
            }
        }
        None
    })
}

fn is_gap(letter: char) -> bool {
    letter == ' ' || letter == '-'
}

/// Most digits of a payment card.
const CARD_LEN_MAX: usize = 19;

/// A payment card: of a network's range and length, with a right check digit by Luhn's rule
/// (ISO/IEC 7812-1). In groups, it begins with one of four.
fn card(text: &str) -> Option<usize> {
    let first = text.find(is_gap).unwrap_or(text.len());
    let head: u32 = text.get(..4)?.parse().ok()?;
    let grouped = first == 4;
    let (mut longest, mut len, mut sums) = (None, 0, [0, 0]);
    for (at, letter) in text.char_indices() {
        if let Some(digit) = letter.to_digit(10) {
            // Every other digit is doubled, counted from the last one, which is not known yet.
            let doubled = if digit < 5 { 2 * digit } else { 2 * digit - 9 };
            sums[len % 2] += doubled;
            sums[1 - len % 2] += digit;
            len += 1;
        } else if !grouped {
            break;
        }
        if CARD_LEN_MAX < len {
            break;
        }
        let end = at + letter.len_utf8();
        let ends = text[end..].chars().next().is_none_or(is_gap);
        if ends && is_card(head, len) && sums[len % 2] % 10 == 0 {
            longest = Some(end);
        }
    }
    longest
}

/// Whether cards that begin with these four digits have so many.
fn is_card(head: u32, len: usize) -> bool {
    let long = matches!(head, 6_011 | 6_200..=6_299 | 6_440..=6_599);
    match len {
        13 => (4_000..5_000).contains(&head),
        14 => matches!(head, 3_000..=3_059 | 3_600..=3_699 | 3_800..=3_999),
        15 => matches!(head, 3_400..=3_499 | 3_700..=3_799),
        16 => long || matches!(head, 2_221..=2_720 | 3_528..=3_589 | 4_000..=4_999 | 5_100..=5_599),
        17 | 18 => long,
        19 => long || (4_000..5_000).contains(&head),
        _ => false,
    }
}

/// An account number with a right check sum (ISO 13616, ISO/IEC 7064).
fn iban(text: &str) -> Option<usize> {
    let head = text.get(..4)?;
    if !matches!(head.as_bytes(), [b'A'..=b'Z', b'A'..=b'Z', b'0'..=b'9', b'0'..=b'9']) {
        return None;
    }
    let (mut longest, mut len, mut sum) = (None, 4, 0);
    for (at, letter) in text.bytes().enumerate().skip(4) {
        if letter == b' ' {
            continue;
        }
        (len, sum) = (len + 1, added(sum, letter));
        if IBAN_LEN_MAX < len {
            break;
        }
        let ends = text.as_bytes().get(at + 1).is_none_or(|it| *it == b' ');
        if ends && IBAN_LEN_MIN <= len && head.bytes().fold(sum, added) % 97 == 1 {
            longest = Some(at + 1);
        }
    }
    longest
}

/// Letters and digits of the shortest account number, Norway's.
const IBAN_LEN_MIN: usize = 15;
/// The same of the longest there may be.
const IBAN_LEN_MAX: usize = 34;

/// A number with the value of one more letter behind it, where need be modulo 97.
fn added(sum: u64, letter: u8) -> u64 {
    let sum = match letter {
        b'0'..=b'9' => sum * 10 + u64::from(letter - b'0'),
        _ => sum * 100 + u64::from(letter.saturating_sub(b'A')) + 10,
    };
    if sum < 1 << 50 { sum } else { sum % 97 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str, found: &[&str]) {
        let pattern = Pattern::built_in(name).unwrap();
        let all: Vec<&str> = pattern.all(text).map(|it| &text[it]).collect();
        assert_eq!(all, found, "{name} in {text}");
        assert_eq!(pattern.is_in(text), !found.is_empty(), "{name} in {text}");
    }

    #[test]
    fn addresses_are_found_and_what_only_looks_so_is_not() {
        check(
            "email",
            "write to ann.lee+x@mail.example.co.uk, or bob@x.io.",
            &["ann.lee+x@mail.example.co.uk", "bob@x.io"],
        );
        check("email", "a@b, @decorator, pkg@1.2.3, a @ b.c, user@localhost", &[]);
    }

    #[test]
    fn cards_are_found_by_range_length_and_check_digit() {
        for card in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "3782 822463 10005",
            "30569309025904",
            "6011111111111117",
            "3530111333300000",
            "6205500000000000004",
            "4222222222222",
        ] {
            check("card", card, &[card]);
            check("card", &format!("my card ({card}), expires 12 2031"), &[card]);
            check("card", &format!("{card} 1234 5678"), &[card]);
            check("card", &format!("4000 {card}"), &[card]);
        }
        for other in [
            "4111111111111112",
            "94111111111111111",
            "41111111111111110",
            "1718900000000",
            "1234567812345670",
            "x4111111111111111",
            "4111  1111  1111  1111",
            "0xdeadbeef41111111",
        ] {
            check("card", other, &[]);
        }
    }

    #[test]
    fn account_numbers_are_found_by_their_check_sum() {
        check("iban", "to DE89 3704 0044 0532 0130 00 EUR 12", &["DE89 3704 0044 0532 0130 00"]);
        check("iban", "GB82WEST12345698765432 NOTE MORE", &["GB82WEST12345698765432"]);
        check("iban", "NO93 8601 1117 947", &["NO93 8601 1117 947"]);
        check("iban", "DE88370400440532013000, AB12CDEF34567890", &[]);
        let two = "DE89370400440532013000 NO9386011117947";
        check("iban", two, &["DE89370400440532013000", "NO9386011117947"]);
    }

    #[test]
    fn keys_are_found_by_their_forms() {
        for key in [
            "sk-proj-abcdefgh12345678ABCD",
            "sk-ant-api03-AAAABBBBCCCCDDDD",
            "AKIAIOSFODNN7EXAMPLE",
            "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
            "AIzaSyA1234567890abcdefghijklmnopqrstuv",
            "bearer abcdefghijklmnop12345==",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
            "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: x\nAAAA\n-----END RSA PRIVATE KEY-----",
        ] {
            check("secret", &format!("it is {key}, so"), &[key]);
        }
        check("secret", "task-management-systems-and-more, the bearer of this, sk-short", &[]);
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_refused() {
        let bad = |regex| Pattern::new("x", regex).unwrap_err();
        assert_eq!(bad("(a"), BadPattern::Syntax);
        assert_eq!(bad(r"(?:\w{500}){500}"), BadPattern::TooLarge);
        assert_eq!(bad("a*"), BadPattern::Empty);
        assert_eq!(bad(r"(?=a)"), BadPattern::Syntax);
        // What is empty inside other texts alone is never found.
        assert!(!Pattern::new("x", r"\b").unwrap().is_in("a text"));
    }

    #[test]
    fn numbers_in_a_row_are_all_found_and_what_stands_between_them_stays() {
        let pattern = Pattern::built_in("card").unwrap();
        let row = "4111111111111111 17 4111 1111 1111 1111 ";
        let text = row.repeat(FOUND_MAX);
        let mut found = pattern.all(&text);
        for at in (0..text.len()).step_by(row.len()) {
            assert_eq!(found.next(), Some(at..at + 16));
            assert_eq!(found.next(), Some(at + 20..at + 39));
        }
        assert_eq!(found.next(), None);
    }

    #[test]
    fn from_the_last_of_many_finds_on_all_counts_as_found() {
        let pattern = Pattern::new("x", "x").unwrap();
        let text = "x ".repeat(2 * FOUND_MAX);
        let found: Vec<_> = pattern.all(&text).collect();
        assert_eq!(found.len(), FOUND_MAX);
        assert_eq!(*found.last().unwrap(), 2 * (FOUND_MAX - 1)..text.len());
    }
}
