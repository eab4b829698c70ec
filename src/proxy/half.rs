//! One side of a pair, read: as the judge is shown it, and as it is stored.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::domain::{Call, Outcome, Transcript};

use super::tee::Reading;

/// Most of a conversation and of an answer that the judge reads, in bytes.
pub(super) const JUDGED_LEN_MAX: usize = 24_000;

/// One side of a pair, read.
pub(super) struct Half {
    pub(super) call: Call,
    pub(super) reading: Reading,
}

/// An answer as the judge reads it; none where there is nothing to compare.
pub(super) fn judged(half: &Half) -> Option<String> {
    let comparable = match half.call.outcome {
        Outcome::Ok | Outcome::Refused => true,
        Outcome::ProviderError
        | Outcome::Throttled
        | Outcome::Timeout
        | Outcome::Truncated
        | Outcome::Incompatible
        | Outcome::Abandoned => false,
    };
    let transcript = half.reading.transcript.as_ref().filter(|_| comparable)?;
    let mut text = transcript.text.clone();
    if let Some(refusal) = &transcript.refusal {
        text.push_str(refusal);
    }
    for call in &transcript.tool_calls {
        // Writing to a string cannot fail.
        let _ = write!(text, "\ntool_call {} {}", call.name, call.arguments);
    }
    let end = text.floor_char_boundary(JUDGED_LEN_MAX);
    text.truncate(end);
    Some(text.trim().to_owned())
}

/// An answer as it is stored.
pub(super) fn stored(half: &Half) -> Bytes {
    let mut json = String::new();
    match &half.reading.transcript {
        Some(Transcript { text, tool_calls, refusal }) => {
            add(&mut json, "{\"text\":", Some(text));
            json.push_str(",\"tool_calls\":[");
            for (at, call) in tool_calls.iter().enumerate() {
                add(&mut json, if at == 0 { "{\"id\":" } else { ",{\"id\":" }, Some(&call.id));
                add(&mut json, ",\"name\":", Some(&call.name));
                add(&mut json, ",\"arguments\":", Some(&call.arguments));
                json.push('}');
            }
            add(&mut json, "],\"refusal\":", refusal.as_deref());
        }
        None => add(&mut json, "{\"trouble\":", half.reading.trouble.as_deref()),
    }
    json.push('}');
    json.into()
}

/// Adds a member to JSON.
fn add(json: &mut String, name: &str, text: Option<&str>) {
    json.push_str(name);
    let Some(mut rest) = text else { return json.push_str("null") };
    json.reserve(rest.len() + 2);
    json.push('"');
    while let Some((plain, letter, after)) = escaped(rest) {
        json.push_str(plain);
        // Writing to a string cannot fail.
        let _ = match letter {
            b'"' | b'\\' => write!(json, "\\{}", char::from(letter)),
            b'\n' => json.write_str("\\n"),
            b'\r' => json.write_str("\\r"),
            b'\t' => json.write_str("\\t"),
            _ => write!(json, "\\u{letter:04x}"),
        };
        rest = after;
    }
    json.push_str(rest);
    json.push('"');
}

/// The first letter of a text that JSON has to escape, and what stands before and after it.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "a branch for each letter costs nine times as much"
)]
fn escaped(text: &str) -> Option<(&str, u8, &str)> {
    // Few are, and without a branch the compiler makes one comparison of many letters.
    let is_escaped = |it: &u8| (*it < b' ') | (*it == b'"') | (*it == b'\\');
    let bytes = text.as_bytes();
    let (pieces, _) = bytes.as_chunks::<16>();
    let plain = |piece: &&[u8; 16]| !piece.iter().fold(false, |any, it| any | is_escaped(it));
    let from = 16 * pieces.iter().take_while(plain).count();
    let at = from + bytes[from..].iter().position(is_escaped)?;
    Some((&text[..at], bytes[at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::ToolCall;

    fn half(transcript: Option<Transcript>, trouble: Option<&str>) -> Half {
        let call = Call {
            provider: "a".parse().unwrap(),
            model: None,
            status: 200,
            outcome: Outcome::Ok,
            first_byte_ms: None,
            total_ms: 0,
            usage: None,
            finish_reason: None,
            cost_nano_usd: None,
            checks: crate::domain::Checks::default(),
            answer_chars: None,
            rouge_l_bps: None,
            estimated: false,
        };
        Half { call, reading: Reading { transcript, trouble: trouble.map(str::to_owned) } }
    }

    fn read(half: &Half) -> Value {
        serde_json::from_slice(&stored(half)).unwrap()
    }

    proptest! {
        #[test]
        fn whatever_was_said_reads_back(
            text in r#"[ -~\x00-\x1f\x7fé😀"\\]{0,100}"#,
            calls in prop::collection::vec(any::<[String; 3]>(), 0..3),
            refusal in any::<Option<String>>(),
        ) {
            let tool_calls: Vec<_> = calls
                .into_iter()
                .map(|[id, name, arguments]| ToolCall { id, name, arguments })
                .collect();
            let said = json!({
                "text": text,
                "tool_calls": tool_calls
                    .iter()
                    .map(|it| json!({"id": it.id, "name": it.name, "arguments": it.arguments}))
                    .collect::<Vec<_>>(),
                "refusal": refusal,
            });
            prop_assert_eq!(read(&half(Some(Transcript { text, tool_calls, refusal }), None)), said);
        }
    }

    #[test]
    fn of_what_was_no_answer_the_trouble_is_stored() {
        assert_eq!(read(&half(None, Some("a\tb\u{1}"))), json!({"trouble": "a\tb\u{1}"}));
        assert_eq!(read(&half(None, None)), json!({"trouble": null}));
    }
}
