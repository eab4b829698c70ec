//! A golden set drawn from stored pairs: so many of each kind of request, taken by lot.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::{Exit, Problem, commands::Drawn, ladder, look::full, out::Out};
use crate::api::{Client, proto};
use crate::domain::{Compared, hash};
use proto::call::Outcome;

/// Pairs that are drawn from: the newest.
const PAIRS_MAX: usize = 10_000;
/// Pairs asked for at a time.
const PAGE_LEN: i32 = 1_000;

/// Prints a case a line: of each feature, segment, watched slice and path so many.
pub(super) async fn draw(
    client: &mut Client,
    out: &mut Out,
    name: &str,
    drawn: &Drawn,
) -> Result<Exit, Problem> {
    let labels = labels(client, name).await?;
    let each = usize::from(drawn.golden.unwrap_or_default());
    let data: Vec<&String> = drawn.data.iter().filter(|it| *it != "none").collect();
    let (mut cases, mut asked) = (0_usize, HashSet::new());
    let kinds = kinds(client, name).await?;
    for (kind, names) in &kinds {
        let mut left = each;
        for name in names {
            if left == 0 {
                break;
            }
            let request = proto::GetPairRequest { name: name.clone() };
            let pair = client.get_pair(request).await?;
            let Some(mut case) = case(&pair, &labels) else { continue };
            // The same question once.
            if !asked.insert(case["request"].to_string()) {
                continue;
            }
            case["task"] = json!(kind);
            case["data"] = json!(data);
            out.line(&case.to_string())?;
            (left, cases) = (left - 1, cases + 1);
        }
    }
    out.note(&format!(
        "{cases} cases of {} kinds; what is expected is what the primary said: look it over",
        kinds.len()
    ))?;
    Ok(Exit::Done)
}

/// The labels that a rollout compares answers by.
async fn labels(client: &mut Client, name: &str) -> Result<Compared, Problem> {
    if name == "-" {
        return Ok(Compared::default());
    }
    let request = proto::GetRolloutRequest { name: full(name) };
    let compare = client.get_rollout(request).await?.compare.unwrap_or_default();
    Ok(Compared { labels: compare.labels, fields: Vec::new() })
}

/// The names of pairs whose primary answered, by what kind of request it was; within a kind in the
/// order of a lot that comes out the same each time.
async fn kinds(client: &mut Client, name: &str) -> Result<BTreeMap<String, Vec<String>>, Problem> {
    let mut request =
        proto::ListPairsRequest { parent: full(name), page_size: PAGE_LEN, ..Default::default() };
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    while count < PAIRS_MAX {
        let page = client.list_pairs(request.clone()).await?;
        count += page.pairs.len();
        for pair in page.pairs {
            let primary = pair.primary.as_ref().map(proto::Call::outcome);
            if primary == Some(Outcome::Ok) {
                kinds.entry(kind(&pair)).or_default().push(pair.name);
            }
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    for names in kinds.values_mut() {
        names.sort_by_key(|name| hash("golden-draw", name));
    }
    Ok(kinds)
}

fn kind(pair: &proto::Pair) -> String {
    let path = pair.path.rsplit('/').next().unwrap_or_default();
    let marks = [&pair.feature, &pair.segment, &pair.slice].map(String::as_str);
    let named: Vec<&str> = marks.into_iter().filter(|it| !it.is_empty()).collect();
    if named.is_empty() { path.to_owned() } else { format!("{} {path}", named.join("/")) }
}

/// A case of a pair; none where its texts were not kept, or its primary said nothing.
fn case(pair: &proto::Pair, by: &Compared) -> Option<Value> {
    let bodies = pair.bodies.as_ref()?;
    let request: Value = serde_json::from_slice(&bodies.request).ok()?;
    let said: Value = serde_json::from_slice(&bodies.primary).ok()?;
    let expected = expected(&said, by)?;
    let id = ladder::short(&pair.name);
    Some(json!({
        "id": id, "task": "", "data": [], "path": pair.path, "request": request,
        "expected": expected,
    }))
}

/// What is expected by what the primary said: the tools it called, its label, its JSON, else to be
/// like its text.
fn expected(said: &Value, by: &Compared) -> Option<Value> {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| json!(text));
    let calls = said["tool_calls"].as_array().filter(|it| !it.is_empty());
    if let Some(calls) = calls {
        let call = |it: &Value| {
            let arguments = it["arguments"].as_str().filter(|it| !it.trim().is_empty());
            json!({"name": it["name"], "arguments": read(arguments.unwrap_or("{}"))})
        };
        return Some(json!({"tool_calls": calls.iter().map(call).collect::<Vec<_>>()}));
    }
    let text = said["text"].as_str().filter(|it| !it.trim().is_empty())?;
    if let Some(label) = by.label(text) {
        return Some(json!({ "label": label }));
    }
    let value = read(text);
    let is_json = value.is_object() || value.is_array();
    Some(if is_json { json!({ "exact": value }) } else { json!({ "text": text }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_primary_said_is_expected_in_the_form_it_has() {
        let by = Compared { labels: vec!["Spam".to_owned()], fields: Vec::new() };
        let of = |said: Value| expected(&said, &by).map_or_else(String::new, |it| it.to_string());
        let text = |text: &str| of(json!({"text": text, "tool_calls": [], "refusal": null}));
        assert_eq!(text(" spam."), r#"{"label":"spam"}"#);
        assert_eq!(text(r#"{"a": 1}"#), r#"{"exact":{"a":1}}"#);
        assert_eq!(text("42 it is"), r#"{"text":"42 it is"}"#);
        assert_eq!(text(" "), "");
        let calls = json!({"text": "", "tool_calls": [
            {"id": "1", "name": "look", "arguments": "{\"a\":1}"},
            {"id": "2", "name": "see", "arguments": ""},
        ]});
        let expected =
            r#"{"tool_calls":[{"name":"look","arguments":{"a":1}},{"name":"see","arguments":{}}]}"#;
        assert_eq!(of(calls), expected);
        assert_eq!(of(json!({"trouble": "status 500"})), "");
    }

    #[test]
    fn a_kind_is_told_by_what_its_requests_are_marked_with() {
        let pair = |feature: &str, slice: &str| proto::Pair {
            path: "/v1/chat/completions".to_owned(),
            feature: feature.to_owned(),
            slice: slice.to_owned(),
            ..proto::Pair::default()
        };
        assert_eq!(kind(&pair("", "")), "completions");
        assert_eq!(kind(&pair("chat", "tools")), "chat/tools completions");
    }
}
