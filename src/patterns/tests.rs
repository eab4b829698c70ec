//! Escapes, nested documents and cut streams hide nothing, and JSON stays JSON.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "sk-proj-abcdefgh12345678";

fn patterns(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|it| Pattern::built_in(it).unwrap()).collect()
}

fn detector() -> Detector {
    let mrn = Pattern::new("mrn", r"\bMRN-\d{6}\b").unwrap();
    Detector::new(vec![
        ("pii".to_owned(), [patterns(&["email", "iban"]), vec![mrn]].concat()),
        ("pci".to_owned(), patterns(&["card"])),
    ])
}

fn redactor() -> Redactor {
    Redactor::new(patterns(&["email", "card", "secret"]), Keys::new(["known-to-us"]))
}

fn own() -> Keys {
    Keys::new(["own-key-1", "x"])
}

fn redacted(document: &str) -> String {
    String::from_utf8(redactor().document(document.as_bytes(), &own()).into_owned()).unwrap()
}

#[test]
fn classes_are_found_wherever_a_request_says_something() {
    for said in [
        r#"{"messages":[{"role":"system","content":"ask ann@example.com"}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"ann\u0040example.com"}]}]}"#,
        r#"{"messages":[{"tool_calls":[{"function":{"arguments":"{\"to\":\"ann@example.com\"}"}}]}]}"#,
        r#"{"tool_calls":[{"function":{"arguments":"{\"to\":\"ann\\u0040example.com\"}"}}]}"#,
        r#"{"arguments":"{\"raw\":\"{\\\"to\\\":\\\"ann\\\\u0040example.com\\\"}\"}"}"#,
        r#"{"ann@example.com":1}"#,
        r#"{"prompt":"DE89370400440532013000"}"#,
        r#"{"contents":[{"parts":[{"text":"about \u004dRN-123456."}]}]}"#,
    ] {
        assert_eq!(detector().classes(said.as_bytes()), ["pii"], "{said}");
    }
    for said in [
        r#"{"card":4111111111111111}"#,
        r#"{"arguments":"{\"card\":4111111111111111}"}"#,
        r#"{"content":"4111\u00201111 1111\u002d1111"}"#,
    ] {
        assert_eq!(detector().classes(said.as_bytes()), ["pci"], "{said}");
    }
    let both = r#"["4111111111111111", "ann@example.com"]"#;
    assert_eq!(detector().classes(both.as_bytes()), ["pii", "pci"]);
    let none = r#"{"model":"gpt-4o","content":"an order, 12345, of 2024-05-06","n":0.12345678901}"#;
    assert_eq!(detector().classes(none.as_bytes()), [""; 0]);
    assert_eq!(detector().classes(b"\xff\"ann@example.com"), ["pii"]);
}

#[test]
fn what_is_found_is_replaced_by_its_name_and_the_rest_stays() {
    for (before, after) in [
        (r#"{"a": "to ann@example.com, é\n"}"#, r#"{"a": "to [redacted:email], é\n"}"#),
        (r#"{"a":"é\nann\u0040example.com\n"}"#, r#"{"a":"é\n[redacted:email]\n"}"#),
        (r#"{"card" : 4111111111111111 }"#, r#"{"card" : "[redacted:card]" }"#),
        (r#"["known\u002dto-us","own-key-1"]"#, r#"["[redacted:key]","[redacted:key]"]"#),
        (r#"{"ann@example.com":["x"]}"#, r#"{"[redacted:email]":["x"]}"#),
        (
            r#"{"arguments":"{\"to\":\"hi\\nann\\u0040example.com\\n\"}"}"#,
            r#"{"arguments":"{\"to\":\"hi\\n[redacted:email]\\n\"}"}"#,
        ),
        (r#"{"cut":"off at ann@example.com"#, r#"{"cut":"off at [redacted:email]"#),
    ] {
        assert_eq!(redacted(before), after);
    }
    let plain = r#"{"a":"nothing \u0041 here","n":1.5}"#;
    assert!(matches!(redactor().document(plain.as_bytes(), &Keys::default()), Cow::Borrowed(_)));
    let none = Keys::default();
    assert_eq!(redactor().text("ann@example.com sk-x", &none), "[redacted:email] sk-x");
    // Overlapping finds are one.
    let both = format!("{SECRET}@example.com");
    assert_eq!(redactor().text(&both, &none), "[redacted:email]");
}

#[test]
fn what_is_known_is_never_shown() {
    assert!(!format!("{:?}", redactor()).contains("known-to-us"));
}

/// A text as JSON, each letter escaped or not as `dice` says.
fn written(text: &str, dice: &[bool]) -> String {
    let mut json = String::from('"');
    for (letter, escape) in text.chars().zip(dice.iter().cycle()) {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            _ if *escape || letter.is_control() => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    write!(json, "\\u{unit:04x}").unwrap();
                }
            }
            _ => json.push(letter),
        }
    }
    json + "\""
}

/// Every text of a document, and of the documents inside its texts.
fn all_texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            into.push(text.clone());
            if let Ok(inner) = serde_json::from_str::<Value>(text) {
                all_texts(&inner, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|it| all_texts(it, into)),
        Value::Object(map) => map.iter().for_each(|(name, it)| {
            into.push(name.clone());
            all_texts(it, into);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

proptest! {
    /// B-75: however a secret is escaped, and however deep its document lies in others.
    #[test]
    fn no_escape_and_no_depth_hides_a_secret_and_json_stays_json(
        before in r#"[ a-zé😀"\\\n{\[]{0,8}"#,
        after in r#"( [a-zé😀"\\\n}\]]{0,8})?"#,
        dice in prop::collection::vec(any::<bool>(), 1..40),
        depth in 0_usize..3,
        which in 0_usize..3,
    ) {
        let secret = [SECRET, "ann@example.com", "own-key-1"][which];
        let mut document = written(&format!("{before} {secret}{after}"), &dice);
        for _ in 0..depth {
            let inner = format!("{{\"say\":{document},\"n\":[1,\"x\"]}}");
            document = written(&inner, &dice);
        }
        let document = format!("{{\"keep\":\"\\u00e9 this\",\"text\":{document}}}");
        let result = redacted(&document);
        let value: Value = serde_json::from_str(&result).expect(&result);
        prop_assert_eq!(&value["keep"], &json!("é this"));
        let mut texts = Vec::new();
        all_texts(&value, &mut texts);
        prop_assert!(texts.iter().all(|it| !it.contains(secret)), "{} in {}", secret, result);
        prop_assert!(result.contains("[redacted:"));
        let mut inner = value["text"].clone();
        for _ in 0..depth {
            inner = serde_json::from_str(inner.as_str().unwrap()).expect(&result);
            prop_assert_eq!(&inner["n"], &json!([1, "x"]));
            inner = inner["say"].clone();
        }
        prop_assert!(inner.is_string());
        let found = Detector::new(vec![("all".to_owned(), redactor().patterns)]);
        prop_assert!(which == 2 || !found.classes(document.as_bytes()).is_empty());
    }

    #[test]
    fn any_bytes_can_be_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        detector().classes(&bytes);
        redactor().document(&bytes, &own());
    }
}
