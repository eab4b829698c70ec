//! What became of the last requests: why each went where it went, and how its calls ended.

use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::lock;
use crate::domain::{Call, Facts, Key, Lane, Name, PairId, Route, Side, Skip, Timestamp};

/// Requests remembered; of more, the oldest are forgotten. A slot takes 64 bytes, and a request
/// that was routed a piece of memory besides, with its marks and the names of its models.
pub const REQUESTS_LEN_MAX: usize = 65_536;

/// Most of the name of a model that is remembered, in bytes: a caller may ask for any.
const MODEL_LEN_MAX: usize = 200;

/// The last requests, in a ring. Remembering one costs a counter, the time and a lock that nobody
/// else wants; one that was routed takes one piece of memory besides.
#[derive(Debug)]
pub struct Trail {
    slots: Box<[Mutex<Option<Trace>>]>,
    next: AtomicUsize,
}

/// One request.
#[derive(Clone, Debug)]
pub enum Trace {
    /// It was passed on without a look at what it asks.
    Passed {
        /// Its id.
        id: PairId,
        /// When it came.
        at: Timestamp,
        /// Why no rollout looked at it.
        why: Skip,
    },
    /// It was routed.
    Routed(Arc<Routed>),
}

/// A request that was routed, and what became of it, as far as it is known.
#[derive(Debug)]
pub struct Routed {
    /// Its id.
    pub id: PairId,
    /// When it came.
    pub at: Timestamp,
    /// What the route was made of. The text of its key is left out.
    pub facts: Facts,
    /// Where it went.
    pub route: Route,
    /// The rollout that governed it, if any did.
    pub lane: Option<Arc<Lane>>,
    /// Whether the other side was asked too, or why not.
    pub copy: OnceLock<Result<(), Skip>>,
    /// Whether the primary was asked a second time, or why not; unset where no lot drew that.
    pub again: OnceLock<Result<(), Skip>>,
    /// Whose answer the caller got.
    pub answered: OnceLock<Side>,
    /// Who answered in place of the primary, where it could not.
    pub failover: OnceLock<Name>,
    /// How it counted.
    pub counted: OnceLock<Counted>,
    /// The primary's call.
    pub primary: OnceLock<Call>,
    /// The candidate's call.
    pub candidate: OnceLock<Call>,
}

/// How a request counted as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Both sides, as a pair.
    Pair,
    /// One side alone.
    Solo,
    /// It would have, but there was no room.
    Lost,
}

impl Default for Trail {
    fn default() -> Self {
        let slots = (0..REQUESTS_LEN_MAX).map(|_| Mutex::default()).collect();
        Self { slots, next: AtomicUsize::new(0) }
    }
}

impl Trail {
    /// Remembers a request.
    pub fn add(&self, trace: Trace) {
        let at = self.next.fetch_add(1, Relaxed) % REQUESTS_LEN_MAX;
        if let Some(slot) = self.slots.get(at) {
            *lock(slot) = Some(trace);
        }
    }

    /// The request of an id, if it is remembered. Looks at every slot by itself, so that no
    /// request has to wait for more than the copying of one.
    pub fn find(&self, id: PairId) -> Option<Trace> {
        self.slots.iter().find_map(|it| lock(it).as_ref().filter(|it| it.id() == id).cloned())
    }
}

impl Trace {
    fn id(&self) -> PairId {
        match self {
            Self::Passed { id, .. } => *id,
            Self::Routed(it) => it.id,
        }
    }
}

impl Routed {
    /// A request at the moment it is routed.
    pub fn new(id: PairId, at: Timestamp, facts: Facts, route: Route) -> Self {
        // Who somebody is, is nobody's affair here; what kind of key it was is enough.
        let key = match &facts.key {
            Key::Conversation(_) => Key::Conversation(String::new()),
            Key::User(_) => Key::User(String::new()),
            Key::Request(_) => Key::Request(String::new()),
        };
        let model = facts.model[..facts.model.floor_char_boundary(MODEL_LEN_MAX)].to_owned();
        Self {
            id,
            at,
            facts: Facts { key, model, ..facts },
            route,
            lane: None,
            copy: OnceLock::new(),
            again: OnceLock::new(),
            answered: OnceLock::new(),
            failover: OnceLock::new(),
            counted: OnceLock::new(),
            primary: OnceLock::new(),
            candidate: OnceLock::new(),
        }
    }

    /// The same request under the rollout that governs it.
    #[must_use]
    pub fn governed(self, lane: Arc<Lane>) -> Self {
        Self { lane: Some(lane), ..self }
    }

    /// The side whose answer the caller gets; none where another provider takes its place, or
    /// nobody answers yet.
    pub fn own_answer(&self) -> Option<Side> {
        self.answered.get().copied().filter(|_| self.failover.get().is_none())
    }

    /// Why it was kept from one of the sides, whatever lots drew, if so.
    pub fn kept(&self) -> Option<Skip> {
        let skip = self.copy.get()?.err()?;
        matches!(skip, Skip::Breaker | Skip::RetryAfter | Skip::RetryBudget).then_some(skip)
    }

    /// Remembers how a call of it ended; the first word counts.
    pub fn ended(&self, side: Side, call: &Call) {
        let call = call.clone();
        let _ = match side {
            Side::Primary => self.primary.set(call),
            Side::Candidate => self.candidate.set(call),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_as_small_as_it_says() {
        assert!(size_of::<Mutex<Option<Trace>>>() <= 64);
    }

    #[test]
    fn the_last_requests_are_remembered_and_the_oldest_forgotten() {
        let trail = Trail::default();
        let len = u128::try_from(REQUESTS_LEN_MAX).unwrap();
        for id in 0..=len {
            let why = Skip::Endpoint;
            trail.add(Trace::Passed { id: PairId(id), at: Timestamp::default(), why });
        }
        assert!(trail.find(PairId(0)).is_none() && trail.find(PairId(len + 1)).is_none());
        assert!(trail.find(PairId(1)).is_some() && trail.find(PairId(len)).is_some());
    }
}
