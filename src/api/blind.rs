//! What a reviewer sees of a pair: the question and two answers, without a trace of who gave them.

use serde::Deserialize;

use super::proto::{ReviewedAnswer, ReviewedToolCall};
use crate::dialect;
use crate::domain::{Endpoint, Pair, Side};
use crate::store::Bodies;

/// Most bytes of a question that are shown.
const QUESTION_LEN_MAX: usize = 64 << 10;

/// The texts of a pair.
#[derive(Debug)]
pub(super) struct Texts {
    /// The turns and tools of the request: not the model it asks for.
    pub(super) question: String,
    primary: ReviewedAnswer,
    candidate: ReviewedAnswer,
}

/// An answer as the store keeps it. The ids of tool calls are left out: each provider makes them
/// in its own way.
#[derive(Deserialize)]
struct Answer {
    text: String,
    tool_calls: Vec<Call>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    name: String,
    arguments: String,
}

impl Texts {
    /// The texts of a pair; none where they were not kept, or not to their end.
    pub(super) fn read(pair: &Pair, bodies: &Bodies) -> Option<Self> {
        if bodies.is_empty() || bodies.is_cut() {
            return None;
        }
        let question =
            dialect::conversation(endpoint(&pair.path)?, &bodies.request, QUESTION_LEN_MAX);
        let (primary, candidate) = (answer(&bodies.primary)?, answer(&bodies.candidate)?);
        (!question.is_empty()).then_some(Self { question, primary, candidate })
    }

    /// The answers, that of this side first.
    pub(super) fn answers(self, first: Side) -> (String, [ReviewedAnswer; 2]) {
        let answers = match first {
            Side::Primary => [self.primary, self.candidate],
            Side::Candidate => [self.candidate, self.primary],
        };
        (self.question, answers)
    }
}

fn endpoint(path: &str) -> Option<Endpoint> {
    // What stands before it is the caller's.
    let own = path.rfind("/v1").map_or(path, |at| &path[at..]);
    dialect::endpoint("POST", path).or_else(|| dialect::endpoint("POST", own))
}

fn answer(kept: &[u8]) -> Option<ReviewedAnswer> {
    let Answer { text, tool_calls, refusal } = serde_json::from_slice(kept).ok()?;
    let refusal = refusal.unwrap_or_default();
    if text.is_empty() && tool_calls.is_empty() && refusal.is_empty() {
        return None;
    }
    let tool_calls = tool_calls
        .into_iter()
        .map(|Call { name, arguments }| ReviewedToolCall { name, arguments })
        .collect();
    Some(ReviewedAnswer { text, tool_calls, refusal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    fn bodies(primary: &str, candidate: &str) -> Bodies {
        let request =
            r#"{"model":"big-model","messages":[{"role":"user","content":"Where is it?"}]}"#;
        let [request, primary, candidate] =
            [request, primary, candidate].map(|it| bytes::Bytes::copy_from_slice(it.as_bytes()));
        Bodies { request, primary, candidate }
    }

    const CALL: &str = r#"{"text":"","tool_calls":[{"id":"toolu_01A","name":"find","arguments":"{\"id\":7}"}],"refusal":null}"#;
    const TEXT: &str = r#"{"text":"There.","tool_calls":[],"refusal":null}"#;

    #[test]
    fn what_is_shown_has_no_model_and_no_ids_of_calls() {
        let pair = samples::pair("chat", 1_000, 1);
        for first in [Side::Primary, Side::Candidate] {
            let texts = Texts::read(&pair, &bodies(CALL, TEXT)).unwrap();
            let (question, answers) = texts.answers(first);
            assert_eq!(question, "user: Where is it?");
            let calls = answers.iter().position(|it| !it.tool_calls.is_empty()).unwrap();
            assert_eq!(calls == 0, first == Side::Primary);
            let said = format!("{answers:?}");
            assert!(!said.contains("toolu") && said.contains("find") && said.contains("There."));
        }
    }

    #[test]
    fn what_was_not_kept_or_not_to_its_end_is_not_shown() {
        let mut pair = samples::pair("chat", 1_000, 1);
        let shown = |pair: &Pair, bodies: &Bodies| Texts::read(pair, bodies).is_some();
        assert!(shown(&pair, &bodies(TEXT, TEXT)));
        assert!(!shown(&pair, &Bodies::default()));
        assert!(!shown(&pair, &bodies(TEXT, r#"{"trouble":"500"}"#)));
        assert!(!shown(&pair, &bodies(TEXT, r#"{"text":"","tool_calls":[],"refusal":null}"#)));
        pair.path = "/team/v1/chat/completions".to_owned();
        assert!(shown(&pair, &bodies(TEXT, TEXT)), "a caller's own way to it");
        pair.path = "/v1/audio".to_owned();
        assert!(!shown(&pair, &bodies(TEXT, TEXT)));
    }
}
