//! Which answers no judge is asked of: those that say nothing, and those given to everybody.
//!
//! An answer made for the judge wins whatever was asked (a constant one won 84 % of an LLM judge's
//! comparisons), so what a candidate says to several questions is never shown to it. To leave such
//! pairs out would hide a candidate's worst answers; so a rule gives them the lowest mark. It speaks
//! against the candidate alone: where the primary repeats itself too, or says the same, the task is one
//! where answers repeat, and the judge is asked.

use std::{
    collections::{VecDeque, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use crate::domain::{Score, Side};
use crate::traffic::Job;

/// Answers of each side that are remembered, of all rollouts together.
const ANSWERS_LEN_MAX: usize = 4_096;
/// Other questions that an answer was given to before it counts as repeated.
const OTHERS_MIN: usize = 3;

/// Why no judge is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The candidate said nothing.
    Empty,
    /// The candidate said it to several other questions lately.
    Repeated,
}

impl Rule {
    /// The name in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Repeated => "repeated",
        }
    }

    /// The source of a score by it.
    pub(super) fn source(self) -> String {
        format!("{}{}", Score::RULE, self.as_str())
    }

    /// Why, for people.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Empty => "the candidate's answer is empty; no judge was asked",
            Self::Repeated => {
                "the candidate gave this answer to several other questions lately; no judge was asked"
            }
        }
    }
}

/// What was answered lately.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    primary: Recent,
    candidate: Recent,
}

/// Hashes of answers, each with that of its question, oldest first.
#[derive(Debug, Default)]
struct Recent(VecDeque<(u64, u64)>);

impl Distinct {
    /// Takes a pair; why the judge is not to be asked of it, if so.
    pub(super) fn see(&mut self, job: &Job) -> Option<Rule> {
        let question = hash(job, None, &job.question);
        let key = |side, text: &str| hash(job, Some(side), &plain(text));
        let ours = self.primary.see(key(Side::Primary, &job.primary), question);
        let theirs = self.candidate.see(key(Side::Candidate, &job.candidate), question);
        let same = plain(&job.primary) == plain(&job.candidate);
        if job.candidate.trim().is_empty() {
            return (!same).then_some(Rule::Empty);
        }
        (OTHERS_MIN <= theirs && ours == 0 && !same).then_some(Rule::Repeated)
    }
}

impl Recent {
    /// Takes an answer; how many other questions it was given to lately, as far as that matters.
    fn see(&mut self, answer: u64, question: u64) -> usize {
        let mut others: Vec<u64> = Vec::with_capacity(OTHERS_MIN);
        for (_, other) in self.0.iter().filter(|it| it.0 == answer && it.1 != question) {
            if !others.contains(other) {
                others.push(*other);
            }
            if others.len() == OTHERS_MIN {
                break;
            }
        }
        if self.0.len() == ANSWERS_LEN_MAX {
            self.0.pop_front();
        }
        self.0.push_back((answer, question));
        others.len()
    }
}

/// An answer without what it may differ in from itself: case, spacing and signs.
fn plain(text: &str) -> String {
    let plain: String =
        text.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    if plain.is_empty() { text.trim().to_owned() } else { plain }
}

fn hash(job: &Job, side: Option<Side>, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&job.window.rollout, side, text).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{PairId, Window};
    use crate::memory::{Memory, Need};
    use crate::traffic::Reasons;

    fn job(question: &str, primary: &str, candidate: &str) -> Job {
        Job {
            pair: PairId(1),
            window: Window { rollout: "chat".parse().unwrap(), attempt: 1, stage: 0 },
            watched: String::new(),
            question: question.to_owned(),
            primary: primary.to_owned(),
            candidate: candidate.to_owned(),
            reasons: Reasons::Kept,
            held: Memory::new(1 << 20).hold(Need::Judge, None),
            purse: std::sync::Arc::default(),
        }
    }

    /// What comes of the last of these pairs.
    fn last(pairs: &[(&str, &str, &str)]) -> Option<Rule> {
        let mut distinct = Distinct::default();
        pairs.iter().map(|(q, p, c)| distinct.see(&job(q, p, c))).last().unwrap()
    }

    #[test]
    fn an_answer_given_to_several_other_questions_is_not_judged() {
        let pairs =
            [("1", "a", "Sure!"), ("2", "b", "sure"), ("3", "c", " Sure. "), ("4", "d", "Sure")];
        assert_eq!(last(&pairs[..3]), None, "twice may be chance");
        assert_eq!(last(&pairs), Some(Rule::Repeated));
        let again = [("1", "a", "x"), ("1", "b", "x"), ("1", "c", "x"), ("1", "d", "x")];
        assert_eq!(last(&again), None, "it was asked the same");
    }

    #[test]
    fn where_the_primary_repeats_itself_too_or_says_the_same_the_judge_is_asked() {
        let labels =
            [("1", "yes", "Yes"), ("2", "no", "Yes"), ("3", "yes", "Yes"), ("4", "no", "yes")];
        assert_eq!(last(&labels), None);
        assert_eq!(
            last(&[("1", "a", "x"), ("2", "b", "x"), ("3", "c", "x"), ("4", "x", "x")]),
            None
        );
        // A primary that repeats itself is never marked down for it: that would help the candidate.
        assert_eq!(
            last(&[("1", "x", "a"), ("2", "x", "b"), ("3", "x", "c"), ("4", "x", "d")]),
            None
        );
    }

    #[test]
    fn an_answer_that_says_nothing_is_not_judged_unless_neither_says_anything() {
        assert_eq!(last(&[("1", "a", " \n")]), Some(Rule::Empty));
        assert_eq!(last(&[("1", "", "")]), None);
        assert_eq!(last(&[("1", "", "a")]), None);
        assert_eq!(last(&[("1", "a", "✓")]), None);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut recent = Recent::default();
        for answer in 0..10_000 {
            assert_eq!(recent.see(answer, answer), 0);
        }
        assert_eq!(recent.0.len(), ANSWERS_LEN_MAX);
    }

    /// Of thirteen recorded models none is found but the one that says the same to everybody, and
    /// one that was told to write a line or two.
    #[test]
    fn of_recorded_models_only_those_made_for_the_judge_are_found() {
        let data = std::env::var_os("CROSSFADE_DATA").unwrap_or_else(|| "../shared/data".into());
        let path = std::path::Path::new(&data).join("pairs/alpaca.jsonl");
        let Ok(rows) = std::fs::read_to_string(&path) else {
            return println!("SKIPPED: no {}; set CROSSFADE_DATA", path.display());
        };
        let rows: Vec<serde_json::Value> =
            rows.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
        let text = |it: &serde_json::Value| it.as_str().unwrap_or_default().to_owned();
        for (model, _) in rows[0]["outputs"].as_object().unwrap() {
            let mut distinct = Distinct::default();
            let found = rows.iter().filter_map(|row| {
                let primary = text(&row["outputs"][row["primary"].as_str()?]);
                let question = text(&row["messages"][0]["content"]);
                distinct.see(&job(&question, &primary, &text(&row["outputs"][model.as_str()])))
            });
            let found = found.filter(|it| *it == Rule::Repeated).count();
            let wanted = match model.as_str() {
                // The primary said nothing twice, so the judge is asked the second time.
                "NullModel" => 400..=rows.len(),
                "gpt4_gamed" => 1..=40,
                _ => 0..=0,
            };
            assert!(wanted.contains(&found), "{model}: {found}");
        }
    }
}
