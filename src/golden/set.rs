//! A golden set: from lines of JSON to cases that can be asked.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::dialect::{self, Asked, Schemas};
use crate::domain::{Endpoint, Skip, ToolCall, golden_digest};

/// Most cases of a set.
const CASES_MAX: usize = 10_000;
/// Longest name of a case and of a task, in bytes.
const NAME_LEN_MAX: usize = 128;
/// Where a case is asked that says nothing else.
const CHAT: &str = "/v1/chat/completions";

/// A golden set.
#[derive(Clone, Debug)]
pub struct Set {
    /// The number of its text.
    pub digest: u64,
    /// Its cases, in the order of the file; never empty, and each has another name.
    pub cases: Vec<Case>,
}

/// One question of which the answer is known.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// What kind of task it is; empty when unmarked.
    pub task: String,
    /// Data classes it carries; none where it does not say.
    pub data: Option<Vec<String>>,
    /// Where it is asked: a path, and what kind of request that is.
    pub path: String,
    /// The kind.
    pub endpoint: Endpoint,
    /// The body of the request.
    pub body: Bytes,
    /// What the body asks for.
    pub asked: Asked,
    /// What is expected of its answer.
    pub expected: Expected,
}

/// What is expected of an answer; nothing where only a judge can say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// The label that it is.
    pub label: Option<String>,
    /// A text that it should be like.
    pub text: Option<String>,
    /// What it is word for word, or as JSON.
    pub exact: Option<String>,
    /// JSON that has to be in it.
    pub fields: Option<Value>,
    /// The tools that it calls; none where none is due.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The JSON Schema that it is valid by.
    pub schema: Option<String>,
}

/// Why a text is no golden set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// It has no lines, or too many.
    #[error("it has {0} cases; a golden set has 1 to {CASES_MAX}")]
    Size(usize),
    /// A line is no case.
    #[error("line {line}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        #[source]
        fault: LineFault,
    },
}

/// Why a line is no case.
#[derive(Debug, thiserror::Error)]
pub enum LineFault {
    /// It is not JSON of that form.
    #[error("it is not a case: {0}")]
    Form(serde_json::Error),
    /// Another line has the same name.
    #[error("the id `{0}` is used twice")]
    Twice(String),
    /// A name is empty or too long.
    #[error("`id` has 1 to {NAME_LEN_MAX} bytes, `task` has no more")]
    Name,
    /// There is nothing to ask.
    #[error("it needs either `messages` and `model`, or `request`")]
    NoRequest,
    /// It cannot be asked of a provider that is not the caller's own.
    #[error("its request cannot be put to two providers: {}", .0.as_str())]
    Unfit(Skip),
    /// There is nothing to compare its answer by.
    #[error("`{0}` cannot be expected: {1}")]
    Expected(&'static str, &'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineJson {
    id: String,
    #[serde(default)]
    task: String,
    data: Option<Vec<String>>,
    model: Option<String>,
    messages: Option<Value>,
    tools: Option<Value>,
    path: Option<String>,
    request: Option<Value>,
    #[serde(default)]
    expected: ExpectedJson,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedJson {
    label: Option<String>,
    text: Option<String>,
    exact: Option<Value>,
    fields: Option<Value>,
    tool_calls: Option<Vec<ToolCallJson>>,
    schema: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolCallJson {
    name: String,
    #[serde(default)]
    arguments: Value,
}

impl Set {
    /// Reads a set: a case a line, empty lines aside.
    ///
    /// # Errors
    /// The first line that is no case, or that there are none or too many.
    pub fn parse(text: &str) -> Result<Self, SetError> {
        let lines = || text.lines().enumerate().filter(|(_, it)| !it.trim().is_empty());
        let count = lines().count();
        if count == 0 || CASES_MAX < count {
            return Err(SetError::Size(count));
        }
        let (mut cases, mut names) = (Vec::with_capacity(count), HashSet::new());
        for (index, line) in lines() {
            let case = Case::parse(line).and_then(|case| {
                let is_new = names.insert(case.id.clone());
                if is_new { Ok(case) } else { Err(LineFault::Twice(case.id)) }
            });
            cases.push(case.map_err(|fault| SetError::Line { line: index + 1, fault })?);
        }
        Ok(Self { digest: golden_digest(text), cases })
    }

    /// Every label that is expected of answers to a task, in small letters: those they can be.
    pub fn labels(&self, task: &str) -> Vec<String> {
        let of = self.cases.iter().filter(|it| it.task == task);
        let mut labels: Vec<String> =
            of.filter_map(|it| it.expected.label.as_ref()).map(|it| it.to_lowercase()).collect();
        labels.sort();
        labels.dedup();
        labels
    }
}

impl Case {
    fn parse(line: &str) -> Result<Self, LineFault> {
        let line: LineJson = serde_json::from_str(line).map_err(LineFault::Form)?;
        if line.id.is_empty() || NAME_LEN_MAX < line.id.len() || NAME_LEN_MAX < line.task.len() {
            return Err(LineFault::Name);
        }
        let path = line.path.unwrap_or_else(|| CHAT.to_owned());
        let body = match (line.request, line.messages, line.model) {
            (Some(request), None, None) => request,
            (None, Some(messages), Some(model)) => {
                let mut body = json!({ "model": model, "messages": messages });
                if let Some(tools) = line.tools.filter(|it| it != &json!([])) {
                    body["tools"] = tools;
                }
                body
            }
            _ => return Err(LineFault::NoRequest),
        };
        let body = Bytes::from(body.to_string());
        let endpoint = dialect::endpoint("POST", &path).ok_or(LineFault::Unfit(Skip::Endpoint))?;
        let asked = dialect::ask(endpoint, &path, &body).map_err(LineFault::Unfit)?;
        if let Some(skip) =
            asked.barred.or((endpoint == Endpoint::Embeddings).then_some(Skip::Endpoint))
        {
            return Err(LineFault::Unfit(skip));
        }
        let expected = line.expected.checked()?;
        let (id, task, data) = (line.id, line.task, line.data);
        Ok(Self { id, task, data, path, endpoint, body, asked, expected })
    }
}

impl Expected {
    /// Whether nothing is.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl ExpectedJson {
    fn checked(self) -> Result<Expected, LineFault> {
        let label =
            self.label.map(|it| it.trim_matches(|it: char| !it.is_alphanumeric()).to_owned());
        if label.as_deref() == Some("") {
            return Err(LineFault::Expected("label", "it has no letter and no digit"));
        }
        if self.text.as_ref().is_some_and(|it| it.trim().is_empty()) {
            return Err(LineFault::Expected("text", "it is empty"));
        }
        if self.fields.as_ref().is_some_and(|it| super::marks::places(it).is_empty()) {
            let why = "it is an object with something in it, and no name in it has a dot";
            return Err(LineFault::Expected("fields", why));
        }
        let schema = self.schema.map(|it| it.to_string());
        let unusable = |it: &String| Schemas::default().is_kept(it, "null").is_none();
        if schema.as_ref().is_some_and(unusable) {
            return Err(LineFault::Expected("schema", "it is no JSON Schema that can be used"));
        }
        let call = |it: ToolCallJson| ToolCall {
            id: String::new(),
            name: it.name,
            arguments: written(it.arguments),
        };
        Ok(Expected {
            label,
            text: self.text,
            exact: self.exact.map(written),
            fields: self.fields,
            tool_calls: self.tool_calls.map(|it| it.into_iter().map(call).collect()),
            schema,
        })
    }
}

/// A text as it is, anything else as JSON; nothing for nothing.
fn written(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(line: &str) -> String {
        match Set::parse(line) {
            Err(SetError::Line { fault, .. }) => fault.to_string(),
            other => format!("{other:?}"),
        }
    }

    const ASKS: &str = r#""model":"m","messages":[{"role":"user","content":"Hi"}]"#;

    #[test]
    fn a_line_is_a_request_in_short_or_whole_and_what_is_expected() {
        let whole = r#"{"id":"b","path":"/v1/messages","request":{"model":"m","max_tokens":9,"messages":[]},"expected":{"exact":{"a":1},"tool_calls":[{"name":"look","arguments":{"x":1}},{"name":"see","arguments":"{}"}]}}"#;
        let text = format!(
            "{{\"id\":\"a\",\"task\":\"t\",{ASKS},\"tools\":[],\"expected\":{{\"label\":\" Spam.\"}}}}\n\n{whole}\n"
        );
        let set = Set::parse(&text).unwrap();
        let [short, whole] = &set.cases[..] else { panic!("{set:?}") };
        assert_eq!(short.body, format!("{{{ASKS}}}"));
        assert_eq!((short.endpoint, short.asked.model.as_str()), (Endpoint::Chat, "m"));
        assert_eq!(short.expected.label.as_deref(), Some("Spam"));
        assert_eq!((set.labels("t"), set.labels("u")), (vec!["spam".to_owned()], vec![]));
        assert_eq!(
            (whole.endpoint, whole.expected.exact.as_deref()),
            (Endpoint::Messages, Some(r#"{"a":1}"#))
        );
        let calls = whole.expected.tool_calls.as_ref().unwrap();
        assert_eq!([&calls[0].arguments, &calls[1].arguments], [r#"{"x":1}"#, "{}"]);
        assert_ne!(set.digest, Set::parse(text.trim()).unwrap().digest);
    }

    #[test]
    fn the_shipped_set_has_one_of_each_kind() {
        let set = Set::parse(include_str!("../../config/golden.jsonl")).unwrap();
        let tasks: Vec<&str> = set.cases.iter().map(|it| it.task.as_str()).collect();
        assert_eq!(tasks, ["classify", "classify", "tools", "extract", "answer"]);
        assert!(set.cases.iter().all(|it| !it.expected.is_nothing()));
    }

    #[test]
    fn what_is_no_case_is_told_with_its_line() {
        let case = |more: &str| format!("{{\"id\":\"a\",{ASKS}{more}}}");
        assert!(fault(&case(",\"expectd\":{}")).contains("unknown field `expectd`"));
        assert!(fault(&case(",\"expected\":{\"lable\":\"x\"}")).contains("unknown field `lable`"));
        assert!(fault(&case(",\"expected\":{\"label\":\"...\"}")).contains("no letter"));
        assert!(fault(&case(",\"expected\":{\"text\":\" \"}")).contains("empty"));
        for fields in ["{}", "7", "{\"a.b\":1}"] {
            let more = format!(",\"expected\":{{\"fields\":{fields}}}");
            assert!(fault(&case(&more)).contains("`fields` cannot be expected"), "{fields}");
        }
        assert!(
            fault(&case(",\"expected\":{\"schema\":{\"type\":\"nonsense\"}}"))
                .contains("no JSON Schema")
        );
        assert!(fault(&case(",\"request\":{}")).contains("either `messages`"));
        assert!(fault("{\"id\":\"a\",\"messages\":[]}").contains("either `messages`"));
        assert!(fault("{\"id\":\"\",\"request\":{}}").contains("1 to 128 bytes"));
        assert!(
            fault("{\"id\":\"a\",\"path\":\"/v1/embeddings\",\"request\":{\"model\":\"m\"}}")
                .contains("endpoint")
        );
        assert!(
            fault("{\"id\":\"a\",\"request\":{\"model\":\"m\",\"n\":2}}").contains("two providers")
        );
        let twice = [case(""), String::new(), case("")].join("\n");
        match Set::parse(&twice) {
            Err(SetError::Line { line: 3, fault: LineFault::Twice(id) }) => assert_eq!(id, "a"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(Set::parse(" \n"), Err(SetError::Size(0))));
    }
}
