//! As which models the sides of a rollout answer, and when one of them changed for good.

use serde::{Deserialize, Serialize};

use crate::domain::{Call, Seen, Side, Timestamp, Told};

/// Which form [`Answers::fresh`] gives.
const FORMAT: u8 = 1;
/// So many answers in a row by one model are what a side answers as. Models that answer by turns,
/// behind an alias or because callers ask for several, do not come so often in a row.
const ROW_MIN: u32 = 200;
/// Models of a side in an attempt that each begin a stage anew, once.
const MODELS_LEN_MAX: usize = 4;

/// The models that both sides say they answer as, in an attempt.
///
/// What one model has answered is no evidence of another, though both stand behind one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    attempt: u32,
    primary: Models,
    candidate: Models,
    /// Why what was seen in the stage is of no use, until it has begun anew.
    changed: Option<String>,
    /// Whether something is not kept yet.
    #[serde(skip)]
    fresh: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Models {
    /// What the side answers as.
    now: Option<String>,
    /// What it has ever answered as in the attempt.
    known: Vec<String>,
    #[serde(skip)]
    row: Row,
}

/// The last answers, all of one model: how many, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    model: String,
    len: u32,
    since: Timestamp,
}

impl Answers {
    /// Takes what was told of an attempt. Says so when a side answers as another model than before.
    pub fn see(&mut self, attempt: u32, seen: &Seen) -> Option<String> {
        if self.attempt != attempt {
            let [primary, candidate] = [&self.primary, &self.candidate].map(Models::again);
            *self = Self { attempt, primary, candidate, changed: None, fresh: true };
        }
        let mut told = None;
        for (side, call) in sides(seen).into_iter().flatten() {
            let models = match side {
                Side::Primary => &mut self.primary,
                Side::Candidate => &mut self.candidate,
            };
            let Some(model) = call.model.as_deref() else { continue };
            let Some(change) = models.see(seen.order().at, model) else { continue };
            self.fresh = true;
            let Some(before) = change.before else { continue };
            let (side, since) = (side.as_str(), moment(models.row.since));
            let text =
                format!("the {side} answers as {model:?} since {since}, before as {before:?}");
            if change.first {
                self.changed = Some(text.clone());
            }
            told = Some(text);
        }
        told
    }

    /// Why the stage has to begin anew, if it has.
    pub fn changed(&self) -> Option<&str> {
        self.changed.as_deref()
    }

    /// The stage has begun anew, or there is none to begin.
    pub fn settle(&mut self) {
        self.fresh |= self.changed.take().is_some();
    }

    /// All of it but the rows, to be kept outside, if it is not kept yet.
    pub fn fresh(&mut self) -> Option<Vec<u8>> {
        let fresh = std::mem::take(&mut self.fresh);
        // Only a length that cannot be known makes this fail, and there is none.
        fresh.then(|| postcard::to_allocvec(&(FORMAT, &*self)).unwrap_or_default())
    }

    /// What was kept; none when it is damaged or of another format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, answers) = postcard::from_bytes::<(u8, Self)>(bytes).ok()?;
        (format == FORMAT).then_some(answers)
    }
}

/// A side answers as another model.
struct Change {
    /// As which before; none at first sight.
    before: Option<String>,
    /// Whether it does so for the first time in the attempt.
    first: bool,
}

impl Models {
    /// The same side in the next attempt.
    fn again(&self) -> Self {
        Self { now: self.now.clone(), known: self.now.iter().cloned().collect(), ..Self::default() }
    }

    fn see(&mut self, at: Timestamp, model: &str) -> Option<Change> {
        if self.row.model != model {
            self.row = Row { model: model.to_owned(), len: 0, since: at };
        }
        self.row.len = self.row.len.saturating_add(1);
        if self.row.len != ROW_MIN || self.now.as_deref() == Some(model) {
            return None;
        }
        let before = self.now.replace(model.to_owned());
        let first = self.known.len() < MODELS_LEN_MAX && !self.known.iter().any(|it| it == model);
        if first {
            self.known.push(model.to_owned());
        }
        Some(Change { before, first })
    }
}

/// The calls that are told of, each with its side.
fn sides(seen: &Seen) -> [Option<(Side, &Call)>; 2] {
    match seen {
        Seen::Pair(pair) => {
            [Some((Side::Primary, &pair.primary)), Some((Side::Candidate, &pair.candidate))]
        }
        Seen::Note(note) => match &note.told {
            Told::Solo { side, call, .. } => [Some((*side, call)), None],
            Told::Noise { .. }
            | Told::Feedback { .. }
            | Told::CopyLost
            | Told::ScoreLost
            | Told::JudgeFailed
            | Told::Entered(_)
            | Told::Guarded => [None, None],
        },
        Seen::Score(_) | Seen::Review(_) => [None, None],
    }
}

fn moment(at: Timestamp) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at.0);
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Checks, Lot, Order, Outcome, Window};

    /// Tells of so many answers of the candidate by this model: what was said of it.
    fn tell(answers: &mut Answers, attempt: u32, model: &str, count: u32) -> Vec<String> {
        let call = |seq| {
            let call = Call {
                provider: "cheap".parse().unwrap(),
                model: Some(model.to_owned()),
                status: 200,
                outcome: Outcome::Ok,
                first_byte_ms: None,
                total_ms: 1,
                usage: None,
                finish_reason: None,
                cost_nano_usd: None,
                checks: Checks::default(),
                answer_chars: None,
                rouge_l_bps: None,
                estimated: false,
            };
            let told = Told::Solo {
                lot: Lot::Once,
                side: Side::Candidate,
                call: Box::new(call),
                watched: String::new(),
            };
            let window = Window { rollout: "a".parse().unwrap(), attempt, stage: 0 };
            let mut seen = Seen::note(&window, told);
            seen.place(Order { seq, at: Timestamp(1_000 * seq) });
            seen
        };
        (1..=u64::from(count)).filter_map(|seq| answers.see(attempt, &call(seq))).collect()
    }

    #[test]
    fn a_model_that_takes_the_place_of_another_is_told_and_begins_the_stage_anew_once() {
        let mut answers = Answers::default();
        assert!(tell(&mut answers, 1, "x-1", 3 * ROW_MIN).is_empty(), "first sight");
        assert!(
            tell(&mut answers, 1, "x-2", ROW_MIN - 1).is_empty() && answers.changed().is_none()
        );
        let told = tell(&mut answers, 1, "x-2", 1);
        let text = "the candidate answers as \"x-2\" since 1970-01-01T00:00:01Z, before as \"x-1\"";
        assert_eq!((told.as_slice(), answers.changed()), (&[text.to_owned()][..], Some(text)));
        answers.settle();
        // Back and forth is told, and begins nothing anew.
        for model in ["x-1", "x-2", "x-1"] {
            assert_eq!(tell(&mut answers, 1, model, 2 * ROW_MIN).len(), 1);
            assert_eq!(answers.changed(), None);
        }
        // In another attempt it is another matter, but what has not changed is no news.
        assert!(tell(&mut answers, 2, "x-1", ROW_MIN).is_empty());
        assert_eq!(tell(&mut answers, 2, "x-2", ROW_MIN).len(), 1);
        assert!(answers.changed().is_some());
    }

    #[test]
    fn models_that_answer_by_turns_are_no_change() {
        let mut answers = Answers::default();
        tell(&mut answers, 1, "x-1", ROW_MIN);
        for _ in 0..100 {
            assert!(tell(&mut answers, 1, "x-2", ROW_MIN - 1).is_empty());
            assert!(tell(&mut answers, 1, "x-1", 1).is_empty());
        }
    }

    #[test]
    fn no_more_than_a_few_models_begin_a_stage_anew() {
        let mut answers = Answers::default();
        let mut anew = 0;
        for number in 0..3 * MODELS_LEN_MAX {
            tell(&mut answers, 1, &format!("x-{number}"), ROW_MIN);
            anew += usize::from(answers.changed().is_some());
            answers.settle();
        }
        assert_eq!(anew, MODELS_LEN_MAX - 1, "all but the first sight");
    }

    #[test]
    fn what_is_kept_is_known_after_a_restart_and_kept_once() {
        let mut answers = Answers::default();
        tell(&mut answers, 1, "x-1", ROW_MIN);
        let kept = answers.fresh().unwrap();
        assert_eq!(answers.fresh(), None);
        let mut again = Answers::decode(&kept).unwrap();
        assert_eq!(tell(&mut again, 1, "x-2", ROW_MIN).len(), 1);
        let kept = again.fresh().unwrap();
        assert_eq!(Answers::decode(&kept).unwrap().changed(), again.changed());
        again.settle();
        assert!(again.fresh().is_some());
        assert_eq!(Answers::decode(&kept[1..]), None);
    }
}
