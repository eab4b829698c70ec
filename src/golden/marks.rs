//! What an answer is worth by what was expected of it: rules, and nobody's opinion.

use serde_json::Value;

use crate::dialect::{Schemas, compare, rouge_l};
use crate::domain::{Check, Compared, Transcript};

use super::{Case, Expected};

/// What an answer is measured by. Each mark is 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Whether it is the label; their mean is the accuracy.
    Label,
    /// How much it is like the text: ROUGE-L.
    Text,
    /// Whether it is what is expected, word for word or as JSON.
    Exact,
    /// The part of the fields that it has right.
    Fields,
    /// Whether it calls the tools that are due, with equal arguments, and none where none is.
    ToolCalls,
    /// Whether it is valid by the schema.
    Schema,
}

impl Measure {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Label => "accuracy",
            Self::Text => "rouge_l",
            Self::Exact => "exact_match",
            Self::Fields => "fields",
            Self::ToolCalls => "tool_calls",
            Self::Schema => "schema",
        }
    }
}

/// An answer with its marks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marked {
    /// A mark for each measure that something is expected in.
    pub marks: Vec<(Measure, f64)>,
    /// The label that it is, in small letters; none where it is none of them.
    pub label: Option<String>,
}

impl Marked {
    /// The mark in one measure.
    pub fn mark(&self, measure: Measure) -> Option<f64> {
        self.marks.iter().find(|(it, _)| *it == measure).map(|(_, mark)| *mark)
    }

    /// The least of its marks: an answer is worth what the worst of it is. None without any.
    pub fn least(&self) -> Option<f64> {
        self.marks.iter().map(|(_, mark)| *mark).min_by(f64::total_cmp)
    }
}

/// Marks an answer to a case of which the labels are these; an answer that is none has 0 in all.
pub fn marked(
    case: &Case,
    labels: &[String],
    answer: Option<&Transcript>,
    known: &Schemas,
) -> Marked {
    let nothing = Transcript::default();
    let is_answer = answer.is_some_and(|it| it.refusal.is_none());
    let answer = answer.filter(|_| is_answer).unwrap_or(&nothing);
    let Expected { label, text, exact, fields, tool_calls, schema } = &case.expected;
    let by = Compared { labels: labels.to_vec(), fields: Vec::new() };
    let said = label.as_ref().and_then(|_| by.label(&answer.text));
    let mut marks = Vec::new();
    let mut mark = |measure, mark: Option<f64>| {
        let mark = mark.filter(|it| is_answer && it.is_finite());
        marks.push((measure, mark.unwrap_or(0.0)));
    };
    if let Some(label) = label {
        mark(Measure::Label, Some(whole(said.as_ref() == Some(&label.to_lowercase()))));
    }
    if let Some(text) = text {
        let likeness = rouge_l(text, &answer.text).map(|it| f64::from(it) / 10_000.0);
        mark(Measure::Text, likeness);
    }
    if let Some(exact) = exact {
        mark(Measure::Exact, Some(whole(says(exact, &answer.text, Vec::new()))));
    }
    if let Some(fields) = fields {
        mark(Measure::Fields, Some(part_right(fields, &answer.text)));
    }
    if let Some(calls) = tool_calls {
        let due = Transcript { tool_calls: calls.clone(), ..Transcript::default() };
        let same = compare(&due, answer, &by).kept(Check::ToolCallMatch);
        // Of none on both sides there is nothing to compare, and that is right.
        mark(Measure::ToolCalls, Some(whole(same.unwrap_or(true))));
    }
    if let Some(schema) = schema {
        mark(Measure::Schema, known.is_kept(schema, &answer.text).map(whole));
    }
    Marked { marks, label: said }
}

fn whole(right: bool) -> f64 {
    f64::from(u8::from(right))
}

/// Whether an answer says the same, or the same at these places.
fn says(expected: &str, answer: &str, fields: Vec<String>) -> bool {
    let [expected, answer] =
        [expected, answer].map(|it| Transcript { text: it.to_owned(), ..Transcript::default() });
    let by = Compared { labels: Vec::new(), fields };
    compare(&expected, &answer, &by).kept(Check::ExactMatch) == Some(true)
}

/// The part of the fields that an answer has right.
fn part_right(fields: &Value, answer: &str) -> f64 {
    let (places, expected) = (places(fields), fields.to_string());
    let right = places.iter().filter(|it| says(&expected, answer, vec![(*it).clone()])).count();
    let [right, all] = [right, places.len()].map(|it| u32::try_from(it).unwrap_or(u32::MAX));
    f64::from(right) / f64::from(all)
}

/// Where in JSON the values are: names with dots between. Lists are values. None where a name has a
/// dot, or there is no name.
pub(super) fn places(fields: &Value) -> Vec<String> {
    let Value::Object(members) = fields else { return Vec::new() };
    let mut all = Vec::new();
    for (name, value) in members {
        let inner = if value.is_object() { places(value) } else { vec![String::new()] };
        if name.contains('.') || inner.is_empty() {
            return Vec::new();
        }
        let joined = |it: String| if it.is_empty() { name.clone() } else { format!("{name}.{it}") };
        all.extend(inner.into_iter().map(joined));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ToolCall;
    use crate::golden::Set;

    /// The marks of an answer by what is expected.
    fn marks(expected: &str, answer: Option<&Transcript>) -> Vec<(&'static str, f64)> {
        let line =
            format!("{{\"id\":\"a\",\"model\":\"m\",\"messages\":[],\"expected\":{expected}}}");
        let set = Set::parse(&line).unwrap();
        let labels = ["spam".to_owned(), "ham".to_owned()];
        let marked = marked(&set.cases[0], &labels, answer, &Schemas::default());
        marked.marks.into_iter().map(|(measure, mark)| (measure.as_str(), mark)).collect()
    }

    fn of_text(expected: &str, text: &str) -> f64 {
        let answer = Transcript { text: text.to_owned(), ..Transcript::default() };
        let [(_, mark)] = marks(expected, Some(&answer))[..] else { panic!("{expected}") };
        mark
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
    }

    #[test]
    fn an_answer_is_marked_by_what_is_expected() {
        near(of_text(r#"{"label":"Spam"}"#, " SPAM."), 1.0);
        near(of_text(r#"{"label":"spam"}"#, "ham"), 0.0);
        near(of_text(r#"{"label":"spam"}"#, "It is spam."), 0.0);
        // Lin 2004: three words of four in order on both sides.
        near(of_text(r#"{"text":"police killed the gunman"}"#, "police kill the gunman"), 0.75);
        near(of_text(r#"{"exact":{"a":1,"b":[2]}}"#, r#"{"b":[2.0],"a":1}"#), 1.0);
        near(of_text(r#"{"exact":"42"}"#, " 42\n"), 1.0);
        near(of_text(r#"{"exact":"42"}"#, "41"), 0.0);
        let fields = r#"{"fields":{"order":{"id":7,"sum":"3.50"},"items":["a"],"paid":true}}"#;
        near(of_text(fields, r#"{"order":{"id":7,"sum":"3.5"},"items":["a"],"paid":true}"#), 0.75);
        near(of_text(fields, r#"{"order":{"id":7}}"#), 0.25);
        near(of_text(fields, "no JSON"), 0.0);
        let schema = r#"{"schema":{"type":"object","required":["a"]}}"#;
        near(of_text(schema, r#"{"a":1}"#), 1.0);
        near(of_text(schema, r#"{"b":1}"#), 0.0);
        near(of_text(schema, "no JSON"), 0.0);
        near(of_text(r#"{"schema":{}}"#, "no JSON"), 0.0);
    }

    #[test]
    fn tools_are_called_that_are_due_and_no_others() {
        let calls = |calls: &[(&str, &str)]| {
            let call = |(name, arguments): &(&str, &str)| ToolCall {
                id: "x".to_owned(),
                name: (*name).to_owned(),
                arguments: (*arguments).to_owned(),
            };
            Transcript { tool_calls: calls.iter().map(call).collect(), ..Transcript::default() }
        };
        let mark = |expected: &str, answer: &Transcript| marks(expected, Some(answer))[0].1;
        let due = r#"{"tool_calls":[{"name":"look","arguments":{"a":1,"b":"x"}},{"name":"see"}]}"#;
        near(mark(due, &calls(&[("see", "{}"), ("look", r#"{"b":"x","a":1.0}"#)])), 1.0);
        near(mark(due, &calls(&[("look", r#"{"b":"x","a":1.0}"#)])), 0.0);
        near(mark(r#"{"tool_calls":[]}"#, &calls(&[])), 1.0);
        near(mark(r#"{"tool_calls":[]}"#, &calls(&[("see", "{}")])), 0.0);
    }

    #[test]
    fn no_answer_is_worth_nothing_also_where_nothing_is_due() {
        let refused = Transcript { refusal: Some("no".to_owned()), ..Transcript::default() };
        for answer in [None, Some(&refused)] {
            let all = r#"{"tool_calls":[],"exact":"","label":"spam"}"#;
            let expected = [("accuracy", 0.0), ("exact_match", 0.0), ("tool_calls", 0.0)];
            assert_eq!(marks(all, answer), expected);
        }
        assert_eq!(marks("{}", None), []);
    }

    #[test]
    fn an_answer_is_worth_what_the_worst_of_it_is() {
        let marks = vec![(Measure::Label, 1.0), (Measure::Text, 0.25), (Measure::Schema, 0.5)];
        near(Marked { marks, label: None }.least().unwrap(), 0.25);
        assert_eq!(Marked::default().least(), None);
    }
}
