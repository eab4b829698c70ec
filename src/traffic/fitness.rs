//! Whether the judge is fit to judge: how it answers, and how it does where the winner is known.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::Mutex,
};

use tokio::sync::watch;

use super::{
    Agreed, Calibrated, Tried,
    calibrated::{calibrated, distances, real},
    lock,
};
use crate::domain::Placed;

/// Marks of the rows of a calibration set.
type Marked = Vec<Option<[f64; 2]>>;

/// Answers that are remembered by whether they could be read, and how many there are before it is
/// asked how many could not.
const ANSWERS_LEN_MAX: usize = 200;
const ANSWERS_LEN_MIN: usize = 50;
/// Most of them that may be of another form than asked for, in percent: who reads out of so many
/// what can be read reads what was lucky, whatever is asked again.
const UNREADABLE_PERCENT_MAX: usize = 10;
/// Judges whose first marks are kept; of more, the oldest are let go.
const FIRST_LEN_MAX: usize = 16;
/// Which form [`Fitness::changed`] gives.
const FORMAT: u8 = 1;

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
    /// Whether the last answers could be read.
    read: VecDeque<bool>,
    /// Pairs asked in both orders, those with two winners, and what the first place added to marks.
    both: usize,
    flipped: usize,
    lead: f64,
    /// Pairs that a rule marked in its place.
    ruled: u64,
    /// The set on which it has to be tried before it is believed; none where it has not.
    set: Option<u64>,
    last: Option<Calibrated>,
    /// The first marks of each judge that was tried on the set, and whether there are new ones.
    first: Vec<(String, Marked)>,
    changed: bool,
    /// What people say of pairs that a judge marked, by who that was.
    people: BTreeMap<String, Agreed>,
    /// How often it was found unfit.
    failures: u64,
}

impl Default for Fitness {
    fn default() -> Self {
        let state = Mutex::default();
        Self { state, fit: watch::Sender::new(true), source: watch::Sender::default() }
    }
}

impl Fitness {
    /// One that is not believed before it was tried on a set, which is known by a number.
    pub fn untried(set: u64) -> Self {
        let fitness = Self::default();
        lock(&fitness.state).set = Some(set);
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
        let read = match reply {
            Reply::Read => true,
            Reply::Unreadable => false,
            Reply::TimedOut | Reply::Unreachable | Reply::Refused => return,
        };
        state.read.push_back(read);
        if ANSWERS_LEN_MAX < state.read.len() {
            state.read.pop_front();
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
        let marks: Marked = rows.iter().map(|it| it.marks).collect();
        let known = state.first.iter().any(|it| it.0 == source);
        if !known && marks.iter().any(Option::is_some) {
            state.remember(source, marks.clone());
        }
        let first = state.first.iter().find(|it| it.0 == source);
        let run =
            calibrated(source, rows, &first.map_or(Vec::new(), |it| distances(&it.1, &marks)));
        state.failures += u64::from(state.set.is_some() && run.is_bad());
        state.last = Some(run.clone());
        drop(state);
        self.update();
        run
    }

    /// Takes on how many pairs people and each judge agree.
    pub fn compare(&self, people: BTreeMap<String, Agreed>) {
        let source = self.source();
        let mut state = lock(&self.state);
        let before = state.disagreement(&source).is_some();
        state.people = people;
        state.failures += u64::from(!before && state.disagreement(&source).is_some());
    }

    /// How often it was found unfit: what it had said by then is not to be believed.
    pub fn failures(&self) -> u64 {
        lock(&self.state).failures
    }

    /// Goes on with the first marks that were kept before a restart; says whether it could. They
    /// stand in place of those that were given meanwhile, if they are of the same set.
    pub fn resume(&self, kept: &[u8]) -> bool {
        type Kept = (u8, u64, Vec<(String, Marked)>);
        let Ok((FORMAT, set, first)) = postcard::from_bytes::<Kept>(kept) else { return false };
        let mut state = lock(&self.state);
        if state.set == Some(set) {
            for (source, marks) in first {
                state.first.retain(|it| it.0 != source);
                state.remember(&source, marks);
            }
        }
        true
    }

    /// The first marks of each judge, to be kept, where there are new ones since it was asked last.
    pub fn changed(&self) -> Option<Vec<u8>> {
        let mut state = lock(&self.state);
        let set = state.set.filter(|_| std::mem::take(&mut state.changed))?;
        // Only a length that cannot be known makes this fail, and there is none.
        Some(postcard::to_allocvec(&(FORMAT, set, &state.first)).unwrap_or_default())
    }

    fn update(&self) {
        let fit = self.rests().is_none();
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

    /// Why it is not to be believed now, and what to do; none where it is.
    pub fn problem(&self) -> Option<String> {
        let rests = self.rests();
        let source = self.source();
        let state = lock(&self.state);
        rests.or_else(|| state.disagreement(&source)).or_else(|| state.babble())
    }

    /// Why it judges nothing now; none where it does, or was never to be tried.
    pub fn rests(&self) -> Option<String> {
        let source = self.source();
        let state = lock(&self.state);
        let run = match &state.last {
            _ if state.set.is_none() => return None,
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
        let source = self.source();
        let state = lock(&self.state);
        let people = state.people.get(&source).map(Agreed::text);
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
        if let Some(people) = people {
            let _ = write!(text, "; {people}");
        }
        if 0 < state.failures {
            let times = state.failures;
            let _ = write!(
                text,
                "; found unfit {times} times since we started, and what it said before counts no more"
            );
        }
        text
    }
}

impl State {
    fn remember(&mut self, source: &str, marks: Marked) {
        self.first.push((source.to_owned(), marks));
        if FIRST_LEN_MAX < self.first.len() {
            self.first.remove(0);
        }
        self.changed = true;
    }

    /// Why people speak against it, if they do.
    fn disagreement(&self, source: &str) -> Option<String> {
        self.people.get(source).and_then(Agreed::problem)
    }

    /// Why too little of what it says is of use, if so.
    fn babble(&self) -> Option<String> {
        let (all, unread) = (self.read.len(), self.read.iter().filter(|it| !**it).count());
        (ANSWERS_LEN_MIN <= all && all * UNREADABLE_PERCENT_MAX < 100 * unread).then(|| {
            format!(
                "{unread} of the judge's last {all} answers were not of the form asked for, more than \
                 {UNREADABLE_PERCENT_MAX}%: take a model that keeps to a JSON schema"
            )
        })
    }
}

fn failed(replies: &[u64]) -> String {
    let counted = Reply::ALL.iter().zip(replies).skip(1).filter(|(_, count)| 0 < **count);
    let words = counted.map(|(reply, count)| format!("{count} {}", reply.words()));
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "fitness_tests.rs"]
mod tests;
