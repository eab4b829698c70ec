//! How a conversation begins: what stays the same in each of its turns.

use serde_json::value::RawValue;

use super::fields::Fields;
use crate::domain::Endpoint;

/// Messages that are looked at for the first one of a user.
const OPENING_LEN_MAX: usize = 16;

/// The instructions and the messages up to the first one of a user, as they stand in the body; none
/// where a request is no turn of a conversation.
///
/// Each turn sends them again, so they tell conversations apart that have no name, as long as no
/// two begin alike.
pub fn opening(endpoint: Endpoint, body: &[u8]) -> Option<String> {
    let fields = Fields::parse(body)?;
    let (instructions, messages) = match endpoint {
        Endpoint::Chat => (None, "messages"),
        Endpoint::Messages => (fields.get("system"), "messages"),
        Endpoint::Responses => (fields.get("instructions"), "input"),
        Endpoint::Gemini => {
            let snake = || fields.get("system_instruction");
            (fields.get("systemInstruction").or_else(snake), "contents")
        }
        Endpoint::Completions | Endpoint::Embeddings => return None,
    };
    let messages: Vec<&RawValue> = fields.read(messages)?;
    let mut opening = instructions.unwrap_or_default().to_owned();
    for message in messages.into_iter().take(OPENING_LEN_MAX) {
        opening.push_str(message.get());
        if is_users(message) {
            return Some(opening);
        }
    }
    None
}

fn is_users(message: &RawValue) -> bool {
    let fields = Fields::parse(message.get().as_bytes());
    fields.and_then(|it| it.text("role")).is_none_or(|it| it == "user")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_of_a_conversation_has_the_same_opening() {
        let of = |messages: &str| {
            opening(
                Endpoint::Chat,
                format!(r#"{{"model":"m","messages":[{messages}]}}"#).as_bytes(),
            )
        };
        let first = r#"{"role":"system","content":"a"},{"role":"user","content":"b"}"#;
        let next = r#"{"role":"assistant","content":"c"},{"role":"user","content":"d"}"#;
        let turns = [of(first), of(&format!("{first},{next}"))];
        assert!(turns[0].is_some() && turns[0] == turns[1]);
        assert_ne!(of(next), turns[0]);
        assert_eq!(of(r#"{"role":"system","content":"a"}"#), None);
    }

    #[test]
    fn instructions_are_part_of_it_in_every_dialect() {
        let messages = br#"{"system":"a","messages":[{"role":"user","content":"b"}]}"#;
        let text = opening(Endpoint::Messages, messages).unwrap();
        assert_eq!(text, r#""a"{"role":"user","content":"b"}"#);
        let responses = br#"{"instructions":"a","input":[{"role":"user","content":"b"}]}"#;
        assert!(opening(Endpoint::Responses, responses).unwrap().starts_with("\"a\""));
        let gemini = br#"{"system_instruction":{"a":1},"contents":[{"parts":[]}]}"#;
        assert!(opening(Endpoint::Gemini, gemini).unwrap().starts_with(r#"{"a":1}"#));
        assert_eq!(opening(Endpoint::Completions, br#"{"prompt":"a"}"#), None);
        assert_eq!(opening(Endpoint::Responses, br#"{"input":"a"}"#), None);
    }
}
