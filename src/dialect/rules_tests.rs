//! What each rule changes, and that nothing else does.

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::{Edits, Purpose, adapt, ask};
use crate::domain::{Endpoint, MessageRule, RequestRules};

fn at_the_top() -> RequestRules {
    let texts = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect();
    RequestRules {
        rename: vec![("max_tokens".to_owned(), "max_completion_tokens".to_owned())],
        drop: texts(&["logprobs", "user", "stream_options", "store", "messages.name"]),
        clamp: vec![("temperature".to_owned(), 0.0..=1.0), ("config.top".to_owned(), 1.0..=40.0)],
        messages: Vec::new(),
    }
}

fn messages(rules: &[MessageRule]) -> RequestRules {
    RequestRules { messages: rules.to_vec(), ..RequestRules::default() }
}

fn obeyed(endpoint: Endpoint, purpose: Purpose, rules: &RequestRules, body: &str) -> String {
    let path = "/v1beta/models/m:generateContent";
    let asked = ask(endpoint, path, body.as_bytes()).expect(body);
    let edits = Edits { model: None, purpose, rules: Some(rules) };
    let (_, body) = adapt(endpoint, path, body.as_bytes(), &asked, &edits).unwrap();
    String::from_utf8(body).unwrap()
}

#[track_caller]
fn check(endpoint: Endpoint, rules: &RequestRules, rows: &[(&str, &str)]) {
    for purpose in [Purpose::Serve, Purpose::StandIn, Purpose::Copy] {
        for (body, expected) in rows {
            assert_eq!(obeyed(endpoint, purpose, rules, body), *expected, "{purpose:?} {body}");
        }
    }
}

#[test]
fn members_at_the_top_are_renamed_left_out_and_kept_in_their_range() {
    check(
        Endpoint::Chat,
        &at_the_top(),
        &[
            (r#"{ "max_tokens" : 5 , "a":1 }"#, r#"{ "max_completion_tokens" : 5 , "a":1 }"#),
            (r#"{"max_t\u006fkens":5}"#, r#"{"max_completion_tokens":5}"#),
            (r#"{"max_tokens":5,"max_completion_tokens":6}"#, r#"{"max_completion_tokens":6}"#),
            (r#"{"max_completion_tokens":6,"max_tokens":5}"#, r#"{"max_completion_tokens":6}"#),
            (r#"{"max_tokens":5,"max_completion_tokens":null}"#, r#"{"max_completion_tokens":5}"#),
            (r#"{"max_tokens":null,"max_completion_tokens":6}"#, r#"{"max_completion_tokens":6}"#),
            (r#"{"logprobs":true}"#, "{}"),
            (r#"{ "logprobs":true , "user":"x" }"#, "{  }"),
            (r#"{"logprobs":true, "a":1, "user":"x"}"#, r#"{"a":1}"#),
            (r#"{"a":1, "logprobs":true, "user":"x", "b":[2]}"#, r#"{"a":1, "b":[2]}"#),
            (r#"{"stream":true,"stream_options":{"x":1}}"#, r#"{"stream":true}"#),
            (r#"{"stream":true}"#, r#"{"stream":true}"#),
            (
                r#"{"temperature":1.7,"config":{"top":0}}"#,
                r#"{"temperature":1,"config":{"top":1}}"#,
            ),
            (r#"{"temperature": -1}"#, r#"{"temperature": 0}"#),
            (r#"{"temperature":0.70}"#, r#"{"temperature":0.70}"#),
            (r#"{"temperature":"2"}"#, r#"{"temperature":"2"}"#),
            (
                r#"{"temperature":null,"config":[2,{"top":99}]}"#,
                r#"{"temperature":null,"config":[2,{"top":40}]}"#,
            ),
            (
                r#"{"messages":[{"name":"n","role":"a"},{"role":"b" ,"name":"n"},{"name":"n"},7]}"#,
                r#"{"messages":[{"role":"a"},{"role":"b"},{},7]}"#,
            ),
            (r#"{"messages":"name"}"#, r#"{"messages":"name"}"#),
        ],
    );
}

#[test]
fn a_copy_of_a_response_is_not_stored_though_a_rule_leaves_store_out() {
    let of = |purpose, body| obeyed(Endpoint::Responses, purpose, &at_the_top(), body);
    for body in [r#"{"store":false}"#, r#"{"store":true}"#, "{}"] {
        assert_eq!(of(Purpose::Copy, body), r#"{"store":false}"#);
        assert_eq!(of(Purpose::Serve, body), "{}");
    }
    let all_gone = RequestRules { drop: vec!["a".to_owned()], ..RequestRules::default() };
    let copy = obeyed(Endpoint::Responses, Purpose::Copy, &all_gone, r#"{"a":1}"#);
    assert_eq!(copy, r#"{"store":false}"#);
}

#[test]
fn usage_is_asked_for_in_options_of_which_something_is_left_out() {
    let drop = vec!["stream_options.x".to_owned()];
    let rules = RequestRules { drop, ..RequestRules::default() };
    let body = r#"{"stream":true,"stream_options":{"x":1}}"#;
    assert_eq!(
        obeyed(Endpoint::Chat, Purpose::Copy, &rules, body),
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#
    );
}

#[test]
fn developers_are_systems_where_the_role_is_known() {
    let rules = messages(&[MessageRule::DeveloperIsSystem]);
    let body = r#"{"messages":[{ "role" : "developer","content":"developer"},{"role":"user"}]}"#;
    let system = r#"{"messages":[{ "role" : "system","content":"developer"},{"role":"user"}]}"#;
    check(Endpoint::Chat, &rules, &[(body, system)]);
    check(Endpoint::Messages, &rules, &[(body, body)]);
    let input = r#"{"store":false,"input":[{"role":"developer"},"x"]}"#;
    check(Endpoint::Responses, &rules, &[(input, &input.replace("developer", "system"))]);
    let text = r#"{"store":false,"input":"developer"}"#;
    check(Endpoint::Responses, &rules, &[(text, text)]);
}

#[test]
fn the_same_id_is_the_same_one_in_calls_and_results() {
    let rules = messages(&[MessageRule::ShortToolIds]);
    // As another program finds it: were it to change, turns would not agree any more.
    let id = "3euPMWI7y";
    let chat = r#"{"messages":[{"id":"m-1","tool_calls":[{"id":"call_ab-1","type":"function"},
        {"id":"abcDEF123"}]},{"tool_call_id":"call_ab-1"},{"tool_call_id":"abcDEF123"},
        {"tool_call_id":7}]}"#;
    check(Endpoint::Chat, &rules, &[(chat, &chat.replace("call_ab-1", id))]);
    let claude = r#"{"messages":[{"content":[{"type":"tool_use","id":"call_ab-1"}]},
        {"content":[{"type":"tool_result","tool_use_id":"call_ab-1"}]},{"content":"call_ab-1"}]}"#;
    let expected = claude.replace("id\":\"call_ab-1", &format!("id\":\"{id}"));
    check(Endpoint::Messages, &rules, &[(claude, &expected)]);
    let input =
        r#"{"store":false,"input":[{"type":"function_call","call_id":"call_ab-1","id":"fc_1"}]}"#;
    check(Endpoint::Responses, &rules, &[(input, &input.replace("call_ab-1", id))]);
}

/// Messages with thinking, and what is left of them.
#[rustfmt::skip]
const THOUGHTS: [(Endpoint, &str, &str); 8] = [
    (
        Endpoint::Messages,
        concat!(
            r#"{"role":"user","content":"q"}, {"role":"assistant","content":["#,
            r#"{"type":"thinking","thinking":"h","signature":"s"}, {"type":"text","text":"a"}, "#,
            r#"{"type":"redacted_thinking","data":"d"}]}"#,
        ),
        concat!(
            r#"{"role":"user","content":"q"}, {"role":"assistant","content":["#,
            r#"{"type":"text","text":"a"}]}"#,
        ),
    ),
    (
        Endpoint::Messages,
        concat!(
            r#"{"role":"user","content":[{"type":"thinking"}]}, {"role":"assistant","content":["#,
            r#"{"type":"thinking"},{"type":"redacted_thinking"}]}, "#,
            r#"{"role":"assistant","content":[]}"#,
        ),
        r#"{"role":"user","content":[{"type":"thinking"}]}, {"role":"assistant","content":[]}"#,
    ),
    (
        Endpoint::Chat,
        concat!(
            r#"{"role":"assistant","reasoning":"r","content":"a","reasoning_details":[{}]},"#,
            r#"{"role":"assistant","reasoning_content":"r","content":null},"#,
            r#"{"role":"assistant","content":""}"#,
        ),
        r#"{"role":"assistant","content":"a"},{"role":"assistant","content":""}"#,
    ),
    (
        Endpoint::Chat,
        concat!(
            r#"{"role":"assistant","content":[{"type":"thinking"}],"tool_calls":[{"id":"1","#,
            r#""extra_content":{"google":{}}}]},"#,
            r#"{"role":"assistant","content":[{"type":"thinking"}]}"#,
        ),
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}"#,
    ),
    (Endpoint::Chat, r#"{"role":"user","reasoning":"r"}"#, r#"{"role":"user","reasoning":"r"}"#),
    (
        Endpoint::Responses,
        r#"{"type":"reasoning","encrypted_content":"e"},{"type":"function_call"}"#,
        r#"{"type":"function_call"}"#,
    ),
    (
        Endpoint::Gemini,
        concat!(
            r#"{"role":"model","parts":[{"text":"h","thought":true},{"functionCall":{},"#,
            r#""thoughtSignature":"s"}]},{"role":"model","parts":[{"thought":true}]}"#,
        ),
        r#"{"role":"model","parts":[{"functionCall":{}}]}"#,
    ),
    (Endpoint::Completions, r#"{"type":"reasoning"}"#, r#"{"type":"reasoning"}"#),
];

/// WIRE 38, 49
#[test]
fn thinking_of_others_is_left_out_and_a_candidates_own_is_not() {
    let foreign = messages(&[MessageRule::NoForeignThinking]);
    let all = messages(&[MessageRule::NoThinking]);
    for (endpoint, thought, rest) in THOUGHTS {
        let name = match endpoint {
            Endpoint::Responses => r#""store":false,"input""#,
            Endpoint::Gemini => r#""contents""#,
            Endpoint::Chat | Endpoint::Messages | Endpoint::Completions | Endpoint::Embeddings => {
                r#""messages""#
            }
        };
        let [body, rest] = [thought, rest].map(|it| format!("{{{name}:[{it}]}}"));
        check(endpoint, &all, &[(&body, &rest)]);
        assert_eq!(obeyed(endpoint, Purpose::Copy, &foreign, &body), rest);
        assert_eq!(obeyed(endpoint, Purpose::StandIn, &foreign, &body), rest);
        assert_eq!(obeyed(endpoint, Purpose::Serve, &foreign, &body), body);
    }
}

#[test]
fn what_calls_tools_has_reasoning_if_only_an_empty_one() {
    let calls = |more: &str| {
        let calls = r#""tool_calls":[{"id":"1"}]"#;
        format!(r#"{{"messages":[{{{more}"role":"assistant",{calls}}}]}}"#)
    };
    let (empty, null, own) = (
        calls(r#""reasoning_content":"","#),
        calls(r#""reasoning_content":null,"#),
        calls(r#""reasoning_content":"r","#),
    );
    let rule = messages(&[MessageRule::EmptyReasoning]);
    check(Endpoint::Chat, &rule, &[(&calls(""), &empty), (&null, &empty), (&own, &own)]);
    let plain =
        r#"{"messages":[{"role":"assistant","tool_calls":[ ]},{"role":"user","tool_calls":[1]}]}"#;
    check(Endpoint::Chat, &rule, &[(plain, plain)]);
    let both = messages(&[MessageRule::NoForeignThinking, MessageRule::EmptyReasoning]);
    assert_eq!(obeyed(Endpoint::Chat, Purpose::Copy, &both, &own), empty);
    assert_eq!(obeyed(Endpoint::Chat, Purpose::Serve, &both, &own), own);
}

/// A member at the top as it may stand in a body.
fn member() -> impl Strategy<Value = (&'static str, &'static str)> {
    let names = vec!["a", "b", "logprobs", "user", "max_tokens", "max_completion_tokens", "x.y"];
    let values = vec![
        "null",
        "1",
        " 2.50",
        "\t-7e2 ",
        r#""a\",{\u00e9""#,
        "[ ]",
        r#"[{"logprobs":1},[]]"#,
        r#"{ "max_tokens" : {"user":[null]} }"#,
        "true",
    ];
    (select(names), select(values))
}

proptest! {
    /// The expected bytes are put together from the members that stay, without looking at ranges.
    #[test]
    fn what_no_rule_names_stays_byte_for_byte(
        members in prop::collection::vec(member(), 0..8),
        ends in select(vec![("{", "}"), ("{ ", "\n}"), (" {\n", " } ")]),
        comma in select(vec![",", " , ", ",\n  "]),
    ) {
        let mut unique: Vec<(&str, &str)> = Vec::new();
        for (name, value) in members {
            if unique.iter().all(|(it, _)| *it != name) {
                unique.push((name, value));
            }
        }
        let write = |members: &[(&str, &str)]| {
            let member = |it: &(&str, &str)| format!("\"{}\":{}", it.0, it.1.trim_end());
            let members: Vec<String> = members.iter().map(member).collect();
            format!("{}{}{}", ends.0, members.join(comma), ends.1)
        };
        let body = write(&unique);
        let rules = RequestRules {
            drop: vec!["logprobs".to_owned(), "user".to_owned()],
            clamp: vec![("b".to_owned(), 0.0..=2.0)],
            ..at_the_top()
        };
        let value = |name: &str| unique.iter().find(|(it, _)| *it == name).map(|it| it.1);
        let (old, new) = (value("max_tokens"), value("max_completion_tokens"));
        let old_goes = new.is_some_and(|it| it != "null") || new.is_some() && old == Some("null");
        let stay = unique.iter().filter_map(|&(name, value)| match (name, value.trim()) {
            ("logprobs" | "user", _) => None,
            ("max_tokens", _) if old_goes => None,
            ("max_completion_tokens", _) if old.is_some() && !old_goes => None,
            ("max_tokens", _) => Some(("max_completion_tokens", value)),
            ("b", "2.50") => Some((name, " 2")),
            ("b", "-7e2") => Some((name, "\t0")),
            _ => Some((name, value)),
        });
        let expected = write(&stay.collect::<Vec<_>>());
        prop_assert_eq!(obeyed(Endpoint::Chat, Purpose::Serve, &rules, &body), expected);
    }

    /// Bodies of any shape, made of names that rules look for.
    #[test]
    fn any_body_stays_json_and_a_second_time_changes_nothing(
        value in shape(),
        endpoint in select(vec![
            Endpoint::Chat, Endpoint::Responses, Endpoint::Messages, Endpoint::Gemini,
        ]),
        purpose in select(vec![Purpose::Copy, Purpose::Serve, Purpose::StandIn]),
    ) {
        let body = json!({
            "messages": value, "input": value, "contents": value, "config": value,
            "temperature": value, "max_tokens": 1, "stream": true, "stream_options": {},
        });
        let mut rules = at_the_top();
        rules.drop.push("messages.content.text".to_owned());
        rules.messages = vec![
            MessageRule::DeveloperIsSystem,
            MessageRule::ShortToolIds,
            MessageRule::NoThinking,
            MessageRule::EmptyReasoning,
        ];
        let once = obeyed(endpoint, purpose, &rules, &body.to_string());
        let parsed: Value = serde_json::from_str(&once).expect(&once);
        prop_assert!(parsed.get("max_tokens").is_none());
        prop_assert_eq!(&obeyed(endpoint, purpose, &rules, &once), &once);
        let idle = RequestRules {
            rename: vec![("zz".to_owned(), "yy".to_owned())],
            drop: vec!["zz".to_owned(), "messages.zz.content".to_owned()],
            clamp: vec![("zz".to_owned(), 0.0..=0.0)],
            messages: Vec::new(),
        };
        let body = serde_json::to_string_pretty(&body).unwrap();
        prop_assert_eq!(obeyed(endpoint, Purpose::Serve, &idle, &body), body);
    }
}

fn shape() -> impl Strategy<Value = Value> {
    let texts = vec![
        "developer",
        "assistant",
        "model",
        "user",
        "thinking",
        "reasoning",
        "tool_use",
        "call_1",
        "abcDEF123",
        "",
        "\"]},{",
    ];
    let leaf = prop_oneof![
        select(texts).prop_map(Value::from),
        select(vec![Value::Null, json!(true), json!(7), json!(-1.5)]),
    ];
    let names = vec![
        "role",
        "type",
        "id",
        "tool_calls",
        "tool_call_id",
        "tool_use_id",
        "call_id",
        "content",
        "parts",
        "thought",
        "reasoning",
        "reasoning_content",
        "thoughtSignature",
        "name",
        "top",
        "text",
        "extra_content",
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        let member = (select(names.clone()), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            prop::collection::vec(member, 0..6).prop_map(|members| {
                members.into_iter().map(|(name, it)| (name.to_owned(), it)).collect()
            }),
        ]
    })
}
