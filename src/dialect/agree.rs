//! Whether two answers say the same, by rules and not by opinion.

use serde_json::Value;

use crate::domain::{Agreement, ToolCall, Transcript};

/// Compares two answers by their text, refusal and tool calls in order; ids do not count.
pub fn agreement(primary: Option<&Transcript>, candidate: Option<&Transcript>) -> Agreement {
    let (Some(primary), Some(candidate)) = (primary, candidate) else {
        return Agreement::Unknown;
    };
    if primary.refusal != candidate.refusal {
        return Agreement::Different;
    }
    if same(primary, candidate, |one, other| one == other) {
        Agreement::Exact
    } else if same(primary, candidate, same_json) {
        Agreement::SameJson
    } else {
        Agreement::Different
    }
}

fn same(one: &Transcript, other: &Transcript, same_text: fn(&str, &str) -> bool) -> bool {
    let same_call = |(one, other): (&ToolCall, &ToolCall)| {
        one.name == other.name && same_text(arguments(one), arguments(other))
    };
    one.tool_calls.len() == other.tool_calls.len()
        && same_text(&one.text, &other.text)
        && one.tool_calls.iter().zip(&other.tool_calls).all(same_call)
}

/// The arguments; none at all are an empty object.
pub(super) fn arguments(call: &ToolCall) -> &str {
    let text = call.arguments.trim();
    if text.is_empty() { "{}" } else { text }
}

/// Whether two texts are the same letter by letter or as JSON.
pub(super) fn same_json(one: &str, other: &str) -> bool {
    let read = |text| serde_json::from_str::<Value>(text).ok();
    one == other || read(one).zip(read(other)).is_some_and(|(one, other)| same_value(&one, &other))
}

/// Whether two values are the same: the order of keys aside, and 1 is 1.0.
pub(super) fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64().is_some_and(|it| Some(it) == other.as_f64())
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, it)| same_value(one, it))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(name, one): (&String, &Value)| {
                other.get(name).is_some_and(|it| same_value(one, it))
            };
            one.len() == other.len() && one.iter().all(same)
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &str) -> Transcript {
        Transcript { text: text.to_owned(), ..Transcript::default() }
    }

    fn calls(calls: &[(&str, &str, &str)]) -> Transcript {
        let call = |(id, name, arguments): &(&str, &str, &str)| ToolCall {
            id: (*id).to_owned(),
            name: (*name).to_owned(),
            arguments: (*arguments).to_owned(),
        };
        Transcript { tool_calls: calls.iter().map(call).collect(), ..Transcript::default() }
    }

    fn compare(one: &Transcript, other: &Transcript) -> Agreement {
        let forth = agreement(Some(one), Some(other));
        assert_eq!(forth, agreement(Some(other), Some(one)));
        forth
    }

    #[test]
    fn texts_agree_by_letter_or_as_json() {
        assert_eq!(compare(&says("Yes"), &says("Yes")), Agreement::Exact);
        assert_eq!(compare(&says("Yes"), &says("yes")), Agreement::Different);
        let (one, other) = (says(r#"{"a":1,"b":[2]}"#), says("{\"b\": [2],\n \"a\": 1}"));
        assert_eq!(compare(&one, &other), Agreement::SameJson);
        assert_eq!(compare(&says("[1,2]"), &says("[2,1]")), Agreement::Different);
        assert_eq!(compare(&says("{\"a\":[1]}"), &says("{\"a\":[1.0]}")), Agreement::SameJson);
        assert_eq!(compare(&says("{\"a\":1}"), &says("{\"b\":1}")), Agreement::Different);
        assert_eq!(compare(&says("[null]"), &says("[null,null]")), Agreement::Different);
    }

    /// M7
    #[test]
    fn calls_agree_by_name_and_arguments_in_order() {
        let one = calls(&[("a", "f", r#"{"x":1,"y":2}"#), ("b", "g", "")]);
        let same = calls(&[("c", "f", r#"{"x":1,"y":2}"#), ("", "g", "{}")]);
        assert_eq!(compare(&one, &same), Agreement::Exact);
        let json = calls(&[("", "f", r#"{"y": 2, "x": 1}"#), ("", "g", "{ }")]);
        assert_eq!(compare(&one, &json), Agreement::SameJson);
        let other = calls(&[("", "f", r#"{"x":1,"y":3}"#), ("", "g", "")]);
        assert_eq!(compare(&one, &other), Agreement::Different);
        assert_eq!(compare(&one, &calls(&[("", "f", "{}")])), Agreement::Different);
        let broken = calls(&[("", "f", "{")]);
        assert_eq!(compare(&broken, &broken), Agreement::Exact);
    }

    #[test]
    fn a_refusal_is_no_answer_and_nothing_compares_to_nothing() {
        let refused = Transcript { refusal: Some("No".to_owned()), ..says("") };
        assert_eq!(compare(&refused, &says("")), Agreement::Different);
        assert_eq!(agreement(None, Some(&refused)), Agreement::Unknown);
        assert_eq!(agreement(None, None), Agreement::Unknown);
    }
}
