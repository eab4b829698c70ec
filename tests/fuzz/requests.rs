//! Bodies of callers: what is read in them is what any reader of JSON sees, what is written anew
//! differs in nothing but the values asked for, and what was found in a text can be taken out.
#![no_main]

use std::sync::LazyLock;

use crossfade::{
    dialect::{Edits, Purpose, adapt, ask, at, conversation, opening},
    domain::{Endpoint, MessageRule, RequestRules},
    patterns::{Detector, Keys, Pattern, Redactor},
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const PATH: &str = "/v1beta/models/m:generateContent";
/// What may differ between a request and what it becomes for another provider.
const MAY_DIFFER: [&str; 7] = [
    "model",
    "store",
    "stream_options",
    "user",
    "safety_identifier",
    "metadata",
    "prompt_cache_key",
];
/// What the rules below change besides.
const RULED: [&str; 7] =
    ["max_tokens", "max_completion_tokens", "n", "messages", "input", "contents", "temperature"];

static RULES: LazyLock<RequestRules> = LazyLock::new(|| RequestRules {
    rename: vec![("max_tokens".to_owned(), "max_completion_tokens".to_owned())],
    drop: ["n", "user", "stream_options", "messages.name"].map(str::to_owned).to_vec(),
    clamp: vec![("temperature".to_owned(), 0.0..=1.0)],
    messages: vec![
        MessageRule::DeveloperIsSystem,
        MessageRule::ShortToolIds,
        MessageRule::NoForeignThinking,
        MessageRule::EmptyReasoning,
    ],
});

static EMAIL: LazyLock<(Detector, Redactor)> = LazyLock::new(|| {
    let email = || Pattern::built_in("email").expect("it is built in");
    let detector = Detector::new(vec![("mail".to_owned(), vec![email()])]);
    (detector, Redactor::new(vec![email()], Keys::default()))
});

fuzz_target!(|bytes: &[u8]| {
    let [body @ .., how] = bytes else { return };
    let endpoint = Endpoint::ALL[usize::from(how % 6)];
    conversation(endpoint, body, 4_096);
    opening(endpoint, body);
    at(body, ["metadata.user", "user"]);
    let json = serde_json::from_slice::<Value>(body).ok();
    let (detector, redactor) = &*EMAIL;
    let redacted = redactor.document(body, &Keys::new(["a-known-key"]));
    assert!(detector.classes(&redacted).is_empty(), "something was left");
    if json.is_some() {
        serde_json::from_slice::<Value>(&redacted).expect("JSON stays JSON");
    }
    let Ok(asked) = ask(endpoint, PATH, body) else { return };
    // Numbers too large and texts that are no UTF-16 are JSON by its grammar alone.
    let Some(Value::Object(before)) = json else { return };
    if endpoint != Endpoint::Gemini {
        let model = before.get("model").map_or("", |it| it.as_str().expect("a text"));
        assert_eq!(asked.model, model);
        assert_eq!(asked.stream, before.get("stream") == Some(&Value::Bool(true)));
    }
    for (purpose, rules) in [
        (Purpose::Copy, None),
        (Purpose::Serve, None),
        (Purpose::Copy, Some(&*RULES)),
        (Purpose::Serve, Some(&*RULES)),
    ] {
        let edits = Edits { model: Some("other"), purpose, rules };
        let (_, after) = adapt(endpoint, PATH, body, &asked, &edits).expect("it is what was read");
        ask(endpoint, PATH, &after).expect("every name stays once");
        let after: Map<String, Value> = serde_json::from_slice(&after).expect("JSON stays JSON");
        if endpoint != Endpoint::Gemini {
            assert_eq!(after.get("model").and_then(Value::as_str), Some("other"));
        }
        let same = |map: &Map<String, Value>| {
            let mut map = map.clone();
            let ruled = RULED.iter().filter(|_| rules.is_some());
            MAY_DIFFER.iter().chain(ruled).for_each(|it| drop(map.shift_remove(*it)));
            map
        };
        assert_eq!(same(&after), same(&before));
    }
});
