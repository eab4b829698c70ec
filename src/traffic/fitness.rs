//! Whether the judge is fit to judge: how it answers, and how it does where the winner is known.

use std::{fmt::Write as _, sync::Mutex};

use tokio::sync::watch;

use super::lock;
use crate::analysis::kappa;
use crate::domain::{Placed, Winner};

/// Cohen's kappa with the expected winners that a judge must reach: what Landis and Koch (1977,
/// Biometrics 33, 159-174) call substantial.
const KAPPA_MIN: f64 = 0.6;
/// How far its marks may move from those of its first run on the same rows, 0 to 1, on average.
const DRIFT_MAX: f64 = 0.1;
/// One in so many rows may be left without marks.
const UNREAD_ONE_IN: usize = 20;

/// How a call of the judge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// With marks that could be read.
    Read,
    /// It took too long.
    TimedOut,
    /// Nobody was there, or the connection broke.
    Unreachable,
    /// With an HTTP status that is no success.
    Refused,
    /// With something that is not of the form asked for.
    Unreadable,
}

impl Reply {
    /// Every one, those that failed last.
    pub const ALL: [Self; 5] =
        [Self::Read, Self::TimedOut, Self::Unreachable, Self::Refused, Self::Unreadable];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::TimedOut => "timed out",
            Self::Unreachable => "without a connection",
            Self::Refused => "refused by its status",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A row of the calibration set, and what the judge made of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tried {
    /// Which answer is the better one.
    pub expected: Winner,
    /// Its marks, 0 to 1; none where it gave none.
    pub marks: Option<[f64; 2]>,
}

/// What a run of the calibration set came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibrated {
    /// The judge that was asked.
    pub source: String,
    /// Rows, those with marks, and those of them with the expected winner.
    pub rows: usize,
    /// See `rows`.
    pub read: usize,
    /// See `rows`.
    pub agreed: usize,
    /// Agreement with the expected winners beyond chance, -1 to 1.
    pub kappa: f64,
    /// Mean distance of its marks from those of its first run since this process began, 0 to 1.
    pub drift: f64,
}

/// What is known of the judge; the judge tells it, and whoever believes its scores asks.
#[derive(Debug)]
pub struct Fitness {
    state: Mutex<State>,
    /// Whether it may judge.
    fit: watch::Sender<bool>,
    /// The judge that spoke last: the model that its answers name, and the wording.
    source: watch::Sender<String>,
}

#[derive(Debug, Default)]
struct State {
    replies: [u64; Reply::ALL.len()],
    /// Pairs asked in both orders, those with two winners, and what the first place added to marks.
    both: usize,
    flipped: usize,
    lead: f64,
    /// Pairs that a rule marked in its place.
    ruled: u64,
    /// Whether it has to be tried before it is believed.
    tried: bool,
    last: Option<Calibrated>,
    /// Who was first tried, and its marks.
    first: (String, Vec<Option<[f64; 2]>>),
}

impl Default for Fitness {
    fn default() -> Self {
        let state = Mutex::default();
        Self { state, fit: watch::Sender::new(true), source: watch::Sender::default() }
    }
}

impl Fitness {
    /// One that is not believed before it was tried.
    pub fn untried() -> Self {
        let fitness = Self::default();
        lock(&fitness.state).tried = true;
        fitness.fit.send_replace(false);
        fitness
    }

    /// Takes how a call ended.
    pub fn hear(&self, reply: Reply) {
        let place = Reply::ALL.iter().position(|it| *it == reply);
        let mut state = lock(&self.state);
        if let Some(count) = place.and_then(|it| state.replies.get_mut(it)) {
            *count += 1;
        }
    }

    /// Takes in which places a pair was shown.
    pub fn place(&self, placed: Option<Placed>) {
        match placed {
            Some(Placed::Both { lead, flipped }) => {
                let mut state = lock(&self.state);
                state.both += 1;
                state.flipped += usize::from(flipped);
                state.lead += lead;
            }
            Some(Placed::Once(_)) | None => {}
        }
    }

    /// Takes note of a pair that a rule marked in place of the judge.
    pub fn rule(&self) {
        lock(&self.state).ruled += 1;
    }

    /// Takes who gave marks: of another judge than was tried nothing is known.
    pub fn speak(&self, source: &str) {
        self.source.send_if_modified(|known| {
            let other = known != source;
            if other {
                source.clone_into(known);
            }
            other
        });
        self.update();
    }

    /// The judge that spoke last; empty before any did.
    pub fn source(&self) -> String {
        self.source.borrow().clone()
    }

    /// Takes a run of the calibration set by one judge; what it comes to.
    pub fn calibrate(&self, source: &str, rows: &[Tried]) -> Calibrated {
        let mut state = lock(&self.state);
        let marks: Vec<_> = rows.iter().map(|it| it.marks).collect();
        if state.first.0 != source && marks.iter().any(Option::is_some) {
            state.first = (source.to_owned(), marks.clone());
        }
        let run = calibrated(source, rows, &distances(&state.first.1, &marks));
        state.last = Some(run.clone());
        drop(state);
        self.update();
        run
    }

    fn update(&self) {
        let fit = self.problem().is_none();
        self.fit.send_if_modified(|known| std::mem::replace(known, fit) != fit);
    }

    /// Resolves while it may judge.
    pub async fn is_fit(&self) {
        let _ = self.fit.subscribe().wait_for(|fit| *fit).await;
    }

    /// Resolves when another judge speaks than this one.
    pub async fn is_other(&self, source: &str) {
        let _ = self.source.subscribe().wait_for(|it| it != source && !it.is_empty()).await;
    }

    /// Why it is not to be believed now, and what to do; none where it is, or was never to be tried.
    pub fn problem(&self) -> Option<String> {
        let state = lock(&self.state);
        let source = self.source.borrow().clone();
        let run = match &state.last {
            _ if !state.tried => return None,
            None => return Some("the judge is being tried on its calibration set".to_owned()),
            Some(run) if !source.is_empty() && source != run.source => {
                return Some(format!("`{source}` judges now, and has to be tried first"));
            }
            Some(run) => run,
        };
        run.problem(&failed(&state.replies))
    }

    /// How calls failed, as far as they did: `3 timed out, 1 unreadable`.
    pub fn failed(&self) -> String {
        failed(&lock(&self.state).replies)
    }

    /// All of it in one line for people.
    pub fn text(&self) -> String {
        let state = lock(&self.state);
        let source = self.source.borrow().clone();
        let mut text = if source.is_empty() { "the judge".to_owned() } else { source };
        // Writing to a string cannot fail.
        let _ = write!(text, ": {} answers read", state.replies[0]);
        let failed = failed(&state.replies);
        if !failed.is_empty() {
            let _ = write!(text, ", {failed}");
        }
        if 0 < state.both {
            let lead = state.lead / real(state.both);
            let _ = write!(
                text,
                "; {} of {} pairs had another winner in each order, the first place added {lead:+.3}",
                state.flipped, state.both
            );
        }
        if 0 < state.ruled {
            let _ = write!(text, "; {} pairs with empty or repeated answers", state.ruled);
        }
        if let Some(run) = &state.last {
            let _ = write!(text, "; {}", run.text());
        }
        text
    }
}

impl Calibrated {
    /// Whether as many rows were marked as it takes to tell.
    pub fn is_whole(&self) -> bool {
        self.rows * (UNREAD_ONE_IN - 1) <= self.read * UNREAD_ONE_IN
    }

    fn problem(&self, failed: &str) -> Option<String> {
        let Self { rows, read, .. } = self;
        if !self.is_whole() {
            let why = if failed.is_empty() { "it changed meanwhile" } else { failed };
            return Some(format!(
                "the judge marked {read} of the {rows} rows of its calibration set ({why}); it is \
                 tried again soon"
            ));
        }
        let so = "it judges nothing until it does better: take another model or wording, or mend the set";
        if self.kappa < KAPPA_MIN {
            return Some(format!("{}, at least {KAPPA_MIN} is needed; {so}", self.text()));
        }
        (DRIFT_MAX < self.drift).then(|| {
            format!("{}, at most {DRIFT_MAX} is borne; {so}, or start anew with it", self.text())
        })
    }

    fn text(&self) -> String {
        format!(
            "on its calibration set the judge finds the expected winner in {} of {} rows, kappa {:.2}, \
             with marks {:.2} from its first ones",
            self.agreed, self.rows, self.kappa, self.drift
        )
    }
}

fn failed(replies: &[u64]) -> String {
    let counted = Reply::ALL.iter().zip(replies).skip(1).filter(|(_, count)| 0 < **count);
    let words = counted.map(|(reply, count)| format!("{count} {}", reply.words()));
    words.collect::<Vec<_>>().join(", ")
}

/// How far marks are from the first ones, where there are both.
fn distances(first: &[Option<[f64; 2]>], now: &[Option<[f64; 2]>]) -> Vec<f64> {
    let both =
        first.iter().zip(now).filter_map(|(first, now)| Some((*first.as_ref()?, *now.as_ref()?)));
    both.flat_map(|(first, now)| [(now[0] - first[0]).abs(), (now[1] - first[1]).abs()]).collect()
}

fn calibrated(source: &str, rows: &[Tried], distances: &[f64]) -> Calibrated {
    let class = |it: Winner| match it {
        Winner::First => 0,
        Winner::Second => 1,
        Winner::Tie => 2,
    };
    let mut table = [[0; 3]; 3];
    let read: Vec<(Winner, Winner)> = rows
        .iter()
        .filter_map(|it| Some((it.expected, it.marks.map(|[a, b]| Winner::of(a, b))?)))
        .collect();
    for (expected, found) in &read {
        table[class(*expected)][class(*found)] += 1;
    }
    Calibrated {
        source: source.to_owned(),
        rows: rows.len(),
        read: read.len(),
        agreed: read.iter().filter(|(expected, found)| expected == found).count(),
        // Where it is not defined nothing was told apart.
        kappa: kappa(&table).unwrap_or(0.0),
        drift: if distances.is_empty() {
            0.0
        } else {
            distances.iter().sum::<f64>() / real(distances.len())
        },
    }
}

fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten rows, each side better in five; so many of them are marked the other way.
    fn rows(wrong: usize) -> Vec<Tried> {
        let row = |place: usize| {
            let (expected, right) = match place % 2 {
                0 => (Winner::First, [0.9, 0.4]),
                _ => (Winner::Second, [0.4, 0.9]),
            };
            let marks = if place < wrong { [right[1], right[0]] } else { right };
            Tried { expected, marks: Some(marks) }
        };
        (0..10).map(row).collect()
    }

    #[test]
    fn one_who_is_never_to_be_tried_is_believed() {
        let fitness = Fitness::default();
        assert_eq!(fitness.problem(), None);
        fitness.calibrate("judge:m@r", &rows(10));
        assert_eq!(fitness.problem(), None);
    }

    #[test]
    fn one_who_does_not_find_the_expected_winners_judges_nothing() {
        let fitness = Fitness::untried();
        assert!(fitness.problem().unwrap().contains("is being tried"));
        let run = fitness.calibrate("judge:m@r", &rows(2));
        assert_eq!((run.agreed, format!("{:.2}", run.kappa)), (8, "0.60".to_owned()));
        assert!(fitness.problem().is_none_or(|it| it.contains("kappa 0.60")));
        fitness.calibrate("judge:m@r", &rows(3));
        let problem = fitness.problem().unwrap();
        assert!(problem.contains("7 of 10 rows, kappa 0.40") && problem.contains("take another"));
        assert!(!*fitness.fit.borrow());
        fitness.calibrate("judge:m@r", &rows(1));
        assert!(fitness.problem().is_none_or(|it| it.contains("from its first ones")));
    }

    #[test]
    fn of_another_judge_nothing_is_known_before_it_was_tried_too() {
        let fitness = Fitness::untried();
        fitness.calibrate("judge:m@r", &rows(0));
        fitness.speak("judge:m@r");
        assert_eq!((fitness.problem(), *fitness.fit.borrow()), (None, true));
        fitness.speak("judge:m-2@r");
        assert!(fitness.problem().unwrap().starts_with("`judge:m-2@r` judges now"));
        assert!(!*fitness.fit.borrow());
        fitness.calibrate("judge:m-2@r", &rows(0));
        assert_eq!((fitness.problem(), *fitness.fit.borrow()), (None, true));
    }

    #[test]
    fn marks_that_drift_and_rows_without_marks_are_told() {
        let fitness = Fitness::untried();
        let moved = |by: f64| {
            let moved = |it: Tried| Tried { marks: it.marks.map(|[a, b]| [a - by, b - by]), ..it };
            rows(0).into_iter().map(moved).collect::<Vec<_>>()
        };
        fitness.calibrate("judge:m@r", &moved(0.0));
        let run = fitness.calibrate("judge:m@r", &moved(0.05));
        assert!((run.drift - 0.05).abs() < 1e-9 && fitness.problem().is_none());
        fitness.calibrate("judge:m@r", &moved(0.2));
        assert!(fitness.problem().unwrap().contains("marks 0.20 from its first ones"));
        // Another version has first marks of its own.
        let run = fitness.calibrate("judge:m-2@r", &moved(0.2));
        assert_eq!((run.drift, fitness.problem()), (0.0, None));
        let mut half = rows(0);
        half[..5].iter_mut().for_each(|it| it.marks = None);
        fitness.hear(Reply::TimedOut);
        assert!(!fitness.calibrate("judge:m-2@r", &half).is_whole());
        let problem = fitness.problem().unwrap();
        assert!(problem.contains("marked 5 of the 10 rows") && problem.contains("1 timed out"));
        // One who says nothing at all is still measured by what it said first.
        let silent: Vec<_> = half.iter().map(|it| Tried { marks: None, ..*it }).collect();
        fitness.calibrate("judge:m-3@r", &silent);
        assert!(fitness.calibrate("judge:m-2@r", &moved(0.2)).drift < 1e-9);
        assert!(0.1 < fitness.calibrate("judge:m-2@r", &moved(0.0)).drift);
        fitness.calibrate("judge:m-2@r", &moved(0.2));
        assert_eq!(fitness.problem(), None);
    }

    #[test]
    fn what_is_known_of_it_stands_in_one_line() {
        let fitness = Fitness::default();
        assert_eq!(fitness.text(), "the judge: 0 answers read");
        for reply in [Reply::Read, Reply::Read, Reply::Unreadable] {
            fitness.hear(reply);
        }
        fitness.speak("judge:m@r");
        fitness.place(Some(Placed::Both { lead: 0.5, flipped: true }));
        fitness.place(None);
        fitness.rule();
        let text = "judge:m@r: 2 answers read, 1 unreadable; 1 of 1 pairs had another winner in each \
                    order, the first place added +0.500; 1 pairs with empty or repeated answers";
        assert_eq!(fitness.text(), text);
    }
}
