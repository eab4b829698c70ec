//! One recorded prompt: who answered what, and what a judge thought of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A prompt and what became of it. The fields are described in the module's page.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Its name, unique in a file.
    pub id: String,
    /// The model the others are compared with.
    pub primary: String,
    /// The conversation, as in a request.
    pub messages: Vec<Value>,
    /// The tools on offer, as in a request.
    #[serde(default)]
    pub tools: Vec<Value>,
    /// The answer of each model.
    pub outputs: BTreeMap<String, Output>,
    #[serde(default)]
    pub(super) judge: Judge,
    #[serde(default)]
    pub(super) verdict: BTreeMap<String, Checked>,
}

/// What one model answered.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Form")]
pub struct Output {
    /// Its text.
    pub content: Option<String>,
    /// The tools it called, in order.
    pub tool_calls: Vec<RecordedCall>,
    /// What the provider said instead of answering.
    pub error: Option<String>,
    /// Seconds the whole answer took.
    pub latency_s: Option<f64>,
    /// Input tokens.
    pub in_tokens: Option<u64>,
    /// Output tokens.
    pub out_tokens: Option<u64>,
}

/// A tool call as the model wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RecordedCall {
    /// The tool.
    pub name: String,
    /// Its arguments: JSON, if all is well.
    pub arguments: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Judge {
    #[serde(default)]
    pub(super) by_model: BTreeMap<String, Mark>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Mark {
    pref: Option<f64>,
    score: Option<f64>,
    correct: Option<bool>,
    #[serde(default)]
    scores: Vec<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Checked {
    valid: bool,
}

/// An output as it may be written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Object {
        content: Option<String>,
        #[serde(default)]
        tool_calls: Vec<RecordedCall>,
        error: Option<String>,
        latency_s: Option<f64>,
        in_tokens: Option<u64>,
        out_tokens: Option<u64>,
    },
}

impl Mark {
    /// The score of an answer by itself, 0 to 1.
    pub(super) fn score(score: f64) -> Self {
        Self { score: Some(score), ..Self::default() }
    }
}

impl From<Form> for Output {
    fn from(form: Form) -> Self {
        match form {
            Form::Text(text) => Self { content: Some(text), ..Self::default() },
            Form::Object { content, mut tool_calls, error, latency_s, in_tokens, out_tokens } => {
                for call in &mut tool_calls {
                    call.name = call.name.replace('.', "_");
                }
                Self { content, tool_calls, error, latency_s, in_tokens, out_tokens }
            }
        }
    }
}

impl Output {
    /// The text; empty when there is none.
    pub fn text(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }
}

impl Row {
    /// What a judge gave to the answers of two models, each 0 to 1; none where nobody judged.
    pub(super) fn scores(&self, one: &str, two: &str) -> Option<(f64, f64)> {
        if let (Some(first), Some(second)) = (self.score(one), self.score(two)) {
            return Some((first, second));
        }
        if one == self.primary {
            let better = self.judge.by_model.get(two)?.pref?;
            return Some((1.0 - better, better));
        }
        let better = self.judge.by_model.get(one)?.pref?;
        (two == self.primary).then_some((better, 1.0 - better))
    }

    /// What a judge gave to one answer by itself, 0 to 1.
    pub(super) fn score(&self, model: &str) -> Option<f64> {
        let valid = self.verdict.get(model).map(|it| correct(it.valid));
        let Some(mark) = self.judge.by_model.get(model) else { return valid };
        mark.score.or(mark.correct.map(correct)).or_else(|| mean_of_ten(&mark.scores)).or(valid)
    }
}

fn correct(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

fn mean_of_ten(scores: &[f64]) -> Option<f64> {
    let len = u32::try_from(scores.len()).ok().filter(|it| *it != 0)?;
    Some(scores.iter().sum::<f64>() / f64::from(len) / 10.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(judge: &Value) -> Row {
        serde_json::from_value(json!({
            "id": "r", "primary": "p", "messages": [], "outputs": {}, "judge": judge,
            "verdict": {"x": {"valid": true}, "y": {"valid": false, "error": "wrong count"}},
            "category": "ignored",
        }))
        .unwrap()
    }

    #[test]
    fn a_preference_is_split_between_candidate_and_primary() {
        let row = row(&json!({"by_model": {"c": {"pref": 0.75, "price": 1}}}));
        assert_eq!(row.scores("p", "c"), Some((0.25, 0.75)));
        assert_eq!(row.scores("c", "p"), Some((0.75, 0.25)));
        assert_eq!(row.scores("c", "d"), None);
        assert_eq!(row.scores("p", "d"), None);
    }

    #[test]
    fn a_mark_by_itself_is_taken_as_it_is() {
        let marks = json!({"p": {"correct": true}, "c": {"scores": [6, 9]}, "d": {"score": 0.3}});
        let row = row(&json!({"kind": "exact", "by_model": marks}));
        assert_eq!(row.scores("p", "c"), Some((1.0, 0.75)));
        assert_eq!(row.scores("d", "p"), Some((0.3, 1.0)));
        assert_eq!(row.scores("x", "y"), Some((1.0, 0.0)));
    }

    #[test]
    fn an_output_is_a_text_or_an_object() {
        let text: Output = serde_json::from_value(json!("Hello.")).unwrap();
        assert_eq!(text.text(), "Hello.");
        let call = json!({"tool_calls": [{"name": "a.b", "arguments": "{}"}], "latency_s": 0.4});
        let call: Output = serde_json::from_value(call).unwrap();
        assert_eq!((call.tool_calls[0].name.as_str(), call.latency_s), ("a_b", Some(0.4)));
    }
}
