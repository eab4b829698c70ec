//! Whether an answer says and does what another one does, by rules and not by opinion.

use std::collections::HashMap;

use serde_json::Value;

use super::agree::{arguments, same_json, same_value};
use crate::domain::{Check, Checks, Compared, ToolCall, Transcript, words};

/// Words of an answer that are compared, from its beginning.
const WORDS_MAX: usize = 1_024;
/// Numbers that have a bit for each of them.
const LIMBS: usize = WORDS_MAX / 64;

/// What the other answer keeps to of what the primary's is.
pub fn compare(primary: &Transcript, other: &Transcript, by: &Compared) -> Checks {
    Checks::default()
        .with(Check::ToolCallMatch, tool_calls_match(&primary.tool_calls, &other.tool_calls))
        .with(Check::ExactMatch, texts_match(primary, other, &by.fields))
        .with(
            Check::LabelMatch,
            by.label(&primary.text).map(|it| by.label(&other.text) == Some(it)),
        )
}

/// Whether the same tools are called with the same arguments; none where no answer calls any.
/// Calls of one tool count in their order, those of different ones may come in any.
fn tool_calls_match(primary: &[ToolCall], other: &[ToolCall]) -> Option<bool> {
    if primary.is_empty() && other.is_empty() {
        return None;
    }
    let of = |calls: &[ToolCall]| {
        let mut calls: Vec<ToolCall> = calls.to_vec();
        // It keeps the order of what is equal.
        calls.sort_by(|one, other| one.name.cmp(&other.name));
        calls
    };
    let same = |(one, other): (&ToolCall, &ToolCall)| {
        one.name == other.name && same_json(arguments(one), arguments(other))
    };
    let counts = primary.len() == other.len();
    Some(counts && of(primary).iter().zip(&of(other)).all(same))
}

/// Whether the texts say the same, or the same in these fields; none where the primary's has none.
fn texts_match(primary: &Transcript, other: &Transcript, fields: &[String]) -> Option<bool> {
    let [one, two] = [primary.text.trim(), other.text.trim()];
    if one.is_empty() {
        return None;
    }
    if fields.is_empty() {
        return Some(same_json(one, two));
    }
    let read = |text| serde_json::from_str::<Value>(text).ok();
    let one = read(one)?;
    if !fields.iter().any(|it| at(&one, it).is_some()) {
        return None;
    }
    let Some(two) = read(two) else { return Some(false) };
    Some(fields.iter().all(|it| match (at(&one, it), at(&two, it)) {
        (Some(one), Some(two)) => same_value(one, two),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }))
}

/// The value at a place: names of members or indexes of items, with dots between.
fn at<'a>(value: &'a Value, place: &str) -> Option<&'a Value> {
    place.split('.').try_fold(value, |value, name| match value {
        Value::Object(members) => members.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// ROUGE-L of a text against another: how much of both is their longest common subsequence of
/// words, in basis points; none where the other has no words. Of long texts the first 1,024 words
/// count.
///
/// The harmonic mean of its parts of both texts (Lin 2004, with β = 1).
pub fn rouge_l(reference: &str, text: &str) -> Option<u16> {
    let reference: Vec<String> = words(reference).take(WORDS_MAX).collect();
    if reference.is_empty() {
        return None;
    }
    // A bit for each word of the text; those that are not yet in the subsequence are set
    // (Hyyrö 2004, bit-parallel LCS-length computation revisited).
    let mut places: HashMap<String, [u64; LIMBS]> = HashMap::new();
    let mut len = 0;
    for (place, word) in words(text).take(WORDS_MAX).enumerate() {
        places.entry(word).or_insert([0; LIMBS])[place / 64] |= 1 << (place % 64);
        len = place + 1;
    }
    let mut left = [u64::MAX; LIMBS];
    for here in reference.iter().filter_map(|it| places.get(it)) {
        let mut carry = 0;
        for (left, here) in left.iter_mut().zip(here) {
            let (sum, over) = left.overflowing_add(*left & here);
            let (sum, again) = sum.overflowing_add(carry);
            carry = u64::from(over || again);
            *left = sum | *left & !here;
        }
    }
    let common: u32 = left.iter().map(|it| it.count_zeros()).sum();
    let common = usize::try_from(common).unwrap_or(usize::MAX);
    u16::try_from(2 * 10_000 * common / (reference.len() + len)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Splitmix;

    fn says(text: &str) -> Transcript {
        Transcript { text: text.to_owned(), ..Transcript::default() }
    }

    fn calls(calls: &[(&str, &str)]) -> Transcript {
        let call = |(name, arguments): &(&str, &str)| ToolCall {
            id: String::new(),
            name: (*name).to_owned(),
            arguments: (*arguments).to_owned(),
        };
        Transcript { tool_calls: calls.iter().map(call).collect(), ..Transcript::default() }
    }

    fn kept(check: Check, one: &Transcript, other: &Transcript, by: &Compared) -> Option<bool> {
        compare(one, other, by).kept(check)
    }

    #[test]
    fn tools_are_called_alike_in_any_order_but_one_tool_in_its_own() {
        let same = |one: &[(&str, &str)], other: &[(&str, &str)]| {
            kept(Check::ToolCallMatch, &calls(one), &calls(other), &Compared::default())
        };
        let (oslo, rome) = (("look", r#"{"city":"Oslo","n":1}"#), ("look", r#"{"city":"Rome"}"#));
        let other = ("find", "");
        assert_eq!(same(&[oslo], &[("look", "{\"n\": 1.0, \"city\": \"Oslo\"}")]), Some(true));
        assert_eq!(same(&[oslo, other], &[("find", "{}"), oslo]), Some(true));
        assert_eq!(same(&[oslo, other, rome], &[oslo, rome, other]), Some(true));
        assert_eq!(same(&[oslo, rome], &[rome, oslo]), Some(false));
        assert_eq!(same(&[oslo], &[rome]), Some(false));
        assert_eq!(same(&[oslo], &[("find", oslo.1)]), Some(false));
        assert_eq!(same(&[oslo], &[oslo, oslo]), Some(false));
        assert_eq!(same(&[oslo], &[]), Some(false));
        assert_eq!(same(&[], &[oslo]), Some(false));
        assert_eq!(same(&[], &[]), None);
        assert_eq!(same(&[("look", "{\"city\"")], &[("look", "{\"city\"")]), Some(true));
        assert_eq!(same(&[("look", "{\"city\"")], &[oslo]), Some(false));
    }

    #[test]
    fn texts_match_as_they_are_as_json_or_in_what_counts() {
        let same = |fields: &[&str], one: &str, other: &str| {
            let fields = fields.iter().map(|it| (*it).to_owned()).collect();
            let by = Compared { fields, ..Compared::default() };
            kept(Check::ExactMatch, &says(one), &says(other), &by)
        };
        assert_eq!(same(&[], "Yes", " Yes\n"), Some(true));
        assert_eq!(same(&[], "Yes", "yes"), Some(false));
        assert_eq!(same(&[], r#"{"a":1,"b":2}"#, r#"{"b": 2, "a": 1.0}"#), Some(true));
        assert_eq!(same(&[], "", ""), None);
        assert_eq!(same(&[], "Yes", ""), Some(false));
        let fields = ["order.id", "items.0"];
        let json = r#"{"order":{"id":7,"note":"x"},"items":["a","b"]}"#;
        assert_eq!(same(&fields, json, r#"{"items":["a"],"order":{"id":7}}"#), Some(true));
        assert_eq!(same(&fields, json, r#"{"items":["b"],"order":{"id":7}}"#), Some(false));
        assert_eq!(same(&fields, json, r#"{"order":{"id":7}}"#), Some(false));
        assert_eq!(same(&fields, json, "no JSON"), Some(false));
        assert_eq!(same(&fields, "no JSON", json), None);
        assert_eq!(same(&fields, "{}", json), None);
        assert_eq!(same(&fields, r#"{"order":{"id":1}}"#, r#"{"order":{"id":1}}"#), Some(true));
    }

    #[test]
    fn labels_match_where_the_primary_gives_one() {
        let labels = ["spam", "ham"].map(str::to_owned).into();
        let by = Compared { labels, ..Compared::default() };
        let same = |one: &str, other: &str| kept(Check::LabelMatch, &says(one), &says(other), &by);
        assert_eq!(same("spam", "Spam."), Some(true));
        assert_eq!(same("spam", "ham"), Some(false));
        assert_eq!(same("spam", "It is spam, I think."), Some(false));
        assert_eq!(same("It is spam, I think.", "spam"), None);
        assert_eq!(
            kept(Check::LabelMatch, &says("spam"), &says("spam"), &Compared::default()),
            None
        );
    }

    #[test]
    fn likeness_is_the_longest_common_subsequence_of_words() {
        let near = |one: &str, other: &str, expected: u16| {
            assert_eq!(rouge_l(one, other), Some(expected), "{one} / {other}");
        };
        // Lin 2004: police killed the gunman.
        near("police killed the gunman", "police kill the gunman", 7_500);
        near("police killed the gunman", "the gunman kill police", 5_000);
        near("Police, killed: the GUNMAN!", "police killed the gunman", 10_000);
        near("one two three", "", 0);
        near("one two three", "four", 0);
        near("a b c d", "a b", 6_666);
        assert_eq!(rouge_l("", "one"), None);
        assert_eq!(rouge_l("…", "one"), None);
        let long = "word ".repeat(100_000);
        near(&long, &long, 10_000);
        // The same as by the table of all beginnings, also over more than 64 words.
        let mut dice = Splitmix(7);
        for len in [1, 63, 64, 65, 300] {
            let mut made =
                || -> Vec<String> { (0..len).map(|_| format!("w{}", dice.roll() % 20)).collect() };
            let (one, other) = (made(), made());
            let mut row = vec![0_usize; len + 1];
            for word in &one {
                let before = row.clone();
                for (place, it) in other.iter().enumerate() {
                    let more = before[place + 1].max(row[place]);
                    row[place + 1] = if word == it { before[place] + 1 } else { more };
                }
            }
            let expected = u16::try_from(10_000 * row[len] / len).unwrap();
            near(&one.join(" "), &other.join(" "), expected);
        }
    }
}
