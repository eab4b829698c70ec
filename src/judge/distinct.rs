//! Which answers no judge is asked of: those that say nothing, and those given to everybody.
//!
//! An answer made for the judge wins whatever was asked (a constant one won 84 % of an LLM judge's
//! comparisons), so what a candidate says to several questions is never shown to it. To leave such
//! pairs out would hide a candidate's worst answers; so a rule gives them the lowest mark. It speaks
//! against the candidate alone: where the primary repeats itself too, or says the same, the task is one
//! where answers repeat, and the judge is asked.

use crate::domain::Score;
use crate::traffic::Job;

/// Why no judge is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The candidate said nothing.
    Empty,
    /// The candidate said it to several other questions lately.
    Repeated,
}

impl Rule {
    /// Why the judge is not to be asked of a pair, if so.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let rule = if job.candidate.trim().is_empty() {
            Self::Empty
        } else if job.is_repeated {
            Self::Repeated
        } else {
            return None;
        };
        (plain(&job.primary) != plain(&job.candidate)).then_some(rule)
    }

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

/// An answer without what it may differ in from itself: case, spacing and signs.
fn plain(text: &str) -> String {
    let plain: String =
        text.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    if plain.is_empty() { text.trim().to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{PairId, Window};
    use crate::memory::{Memory, Need};
    use crate::traffic::Reasons;

    fn job(primary: &str, candidate: &str) -> Job {
        Job {
            pair: PairId(1),
            window: Window { rollout: "chat".parse().unwrap(), attempt: 1, stage: 0 },
            watched: String::new(),
            question: String::new(),
            primary: primary.to_owned(),
            candidate: candidate.to_owned(),
            is_repeated: false,
            reasons: Reasons::Kept,
            held: Memory::new(1 << 20).hold(Need::Judge, None),
            purse: std::sync::Arc::default(),
        }
    }

    #[test]
    fn an_answer_that_others_got_too_is_not_judged_unless_the_primary_says_the_same() {
        let rule = |primary, candidate, is_repeated| {
            Rule::of(&Job { is_repeated, ..job(primary, candidate) })
        };
        assert_eq!(rule("a", "Sure!", true), Some(Rule::Repeated));
        assert_eq!(rule("sure", "Sure!", true), None);
        assert_eq!(rule("a", "Sure!", false), None);
    }

    #[test]
    fn an_answer_that_says_nothing_is_not_judged_unless_neither_says_anything() {
        let rule = |primary, candidate| Rule::of(&job(primary, candidate));
        assert_eq!(rule("a", " \n"), Some(Rule::Empty));
        assert_eq!(rule("", ""), None);
        assert_eq!(rule("", "a"), None);
        assert_eq!(rule("a", "✓"), None);
    }
}
