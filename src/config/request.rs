//! What a request must look like for a provider that it was not written for.

use std::ops::RangeInclusive;

use crate::domain::{MessageRule, RequestRules};

use super::{form::Form, leave::FIELD, table::Table};

/// The name of a member at the top of a body.
const MEMBER: Form<()> = Form {
    name: "a name at the top of a body",
    remedy: "write it like \"max_tokens\": letters, digits, `_` and `-`",
    read: |text| {
        let plain = |it: u8| it.is_ascii_alphanumeric() || it == b'_' || it == b'-';
        (!text.is_empty() && text.bytes().all(plain)).then_some(())
    },
};

/// What decides how a request is answered: we set it, or the caller waits for what it says.
const OURS: [&str; 2] = ["model", "stream"];
/// What we put into copies by its name.
const SET: [&str; 2] = ["store", "stream_options"];

/// The rules of a provider; none where there are none.
pub(super) fn rules(provider: &Table<'_>) -> Option<RequestRules> {
    let table = provider.table("request")?;
    let rename = rename(&table);
    let drop = drop(&table, &rename);
    let clamp = clamp(&table, &rename);
    let word = |key, word, rule| table.word(key, &[(word, rule)]);
    let messages = [
        word("developer", "system", MessageRule::DeveloperIsSystem),
        word("tool_ids", "alnum9", MessageRule::ShortToolIds),
        table.word(
            "thinking",
            &[("strip", MessageRule::NoForeignThinking), ("strip-all", MessageRule::NoThinking)],
        ),
        word("reasoning_content", "empty", MessageRule::EmptyReasoning),
    ];
    table.close();
    let messages = messages.into_iter().flatten().collect();
    let rules = RequestRules { rename, drop, clamp, messages };
    (rules != RequestRules::default()).then_some(rules)
}

fn rename(table: &Table<'_>) -> Vec<(String, String)> {
    let names = table.pairs("rename");
    let fault = |old: &str, problem: &str, remedy: &str| {
        table.fault("rename", &format!("of `{old}` {problem}"), remedy);
    };
    for (old, new) in &names {
        if [old, new].iter().any(|it| (MEMBER.read)(it).is_none()) {
            fault(old, &format!("has what is not {}", MEMBER.name), MEMBER.remedy);
        } else if let Some(it) = [old, new].into_iter().find(|it| ours(it) || is_set(it)) {
            let remedy = "use `model_map` for models; the others are called alike everywhere";
            fault(old, &format!("touches `{it}`, which is set here"), remedy);
        } else if names.iter().any(|(other, _)| other == new) {
            fault(old, &format!("leads to `{new}`, which is renamed too"), "write the last name");
        }
    }
    names
}

fn drop(table: &Table<'_>, rename: &[(String, String)]) -> Vec<String> {
    const KEY: &str = "drop";
    let mut places = Vec::new();
    for (text, spot) in table.texts(KEY).unwrap_or_default() {
        let fault = |problem: &str, remedy: &str| {
            table.fault_at(Some(&spot), KEY, problem, remedy);
        };
        if (FIELD.read)(text).is_none() {
            fault("has an item that is not a place in a body", FIELD.remedy);
        } else if ours(text) {
            fault("has what decides how callers are answered", "leave it out; see `model_map`");
        } else if let Some(new) = renamed(text, rename) {
            fault("has what is renamed", &format!("write `{new}`, as it is called there"));
        }
        places.push(text.to_owned());
    }
    places
}

fn clamp(table: &Table<'_>, rename: &[(String, String)]) -> Vec<(String, RangeInclusive<f64>)> {
    const KEY: &str = "clamp";
    let ranges = table.ranges(KEY);
    for (place, _) in &ranges {
        if (FIELD.read)(place).is_none() {
            table.fault(KEY, "has a name that is not a place in a body", FIELD.remedy);
        } else if let Some(new) = renamed(place, rename) {
            let remedy = format!("write `{new}`, as it is called there");
            table.fault(KEY, &format!("has `{place}`, which is renamed"), remedy);
        }
    }
    ranges
}

/// What a place is called where the request goes, if it is called otherwise.
fn renamed<'a>(place: &str, rename: &'a [(String, String)]) -> Option<&'a str> {
    let name = place.split_once('.').map_or(place, |(name, _)| name);
    rename.iter().find(|(old, _)| old == name).map(|(_, new)| new.as_str())
}

fn ours(name: &str) -> bool {
    OURS.contains(&name)
}

fn is_set(name: &str) -> bool {
    SET.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{faults, parse};

    fn with(lines: &str) -> String {
        format!("[provider.a]\nbase_url = 'http://127.0.0.1:1'\n[provider.a.request]\n{lines}\n")
    }

    fn read(lines: &str) -> Option<RequestRules> {
        parse(&with(lines)).unwrap().providers[0].rules.clone()
    }

    #[test]
    fn rules_are_read_and_none_are_none() {
        assert_eq!(read(""), None);
        assert_eq!(parse(&with("")).unwrap().providers[0].rules, None);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let expected = RequestRules {
            rename: vec![pair("max_tokens", "max_completion_tokens")],
            drop: vec!["logprobs".to_owned(), "messages.name".to_owned()],
            clamp: vec![("generationConfig.topK".to_owned(), 1.0..=40.0)],
            messages: vec![
                MessageRule::DeveloperIsSystem,
                MessageRule::ShortToolIds,
                MessageRule::NoForeignThinking,
                MessageRule::EmptyReasoning,
            ],
        };
        let lines = "rename = { max_tokens = 'max_completion_tokens' }\n\
                     drop = ['logprobs', 'messages.name']\n\
                     clamp = { 'generationConfig.topK' = [1, 40.0] }\n\
                     developer = 'system'\ntool_ids = 'alnum9'\nthinking = 'strip'\n\
                     reasoning_content = 'empty'";
        assert_eq!(read(lines), Some(expected));
        let all = read("thinking = 'strip-all'").unwrap();
        assert_eq!(all.messages, [MessageRule::NoThinking]);
    }

    #[test]
    fn a_rule_that_cannot_hold_is_a_fault() {
        for (line, told) in [
            ("rename = { a = 'b.c' }", "`rename` in [provider.a.request] of `a` has what is not"),
            ("rename = { a = 'model' }", "of `a` touches `model`, which is set here"),
            ("rename = { store = 'keep' }", "of `store` touches `store`"),
            ("rename = { a = 'b', b = 'c' }", "of `a` leads to `b`, which is renamed too"),
            ("rename = { a = 'a' }", "of `a` leads to `a`, which is renamed too"),
            ("rename = 'a'", "`rename` in [provider.a.request] is a string"),
            ("drop = ['stream']", "has what decides how callers are answered"),
            ("drop = ['a..b']", "has an item that is not a place in a body"),
            ("rename = { a = 'b' }\ndrop = ['a']", "write `b`, as it is called there"),
            ("rename = { a = 'b' }\nclamp = { 'a.c' = [0, 1] }", "has `a.c`, which is renamed"),
            ("clamp = { t = [1, 0] }", "`t` in [provider.a.request.clamp] is not a range"),
            ("clamp = { t = [0] }", "write the least and the most like [0.0, 1.0]"),
            ("clamp = { t = [0, nan] }", "is not a range of numbers"),
            ("clamp = { t = 'x' }", "is not a range of numbers"),
            ("developer = 'user'", "it is one of `system`"),
            ("thinking = 'stripp'", "did you mean `strip`?"),
            ("tool_id = 'alnum9'", "did you mean `tool_ids`?"),
        ] {
            let faults = faults(&with(line));
            assert!(faults.contains(told), "{line}: {faults}");
        }
    }
}
