//! The breaker: keeps callers from a provider that fails, until it is seen to be well again.
//!
//! It is about the line to a provider, not about what is said on it: gates and the tripwire judge
//! answers, and they are to come first. So it waits until failures in a row have lasted longer than
//! what the tripwire needs to send a candidate back.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::clock::{instant, millis};
use crate::config;
use crate::domain::Timestamp;

use super::recent::Recent;

/// Callers that try it at a time after a cool-down, and that it has to answer to be closed.
const PROBES: u64 = 3;
/// How long failures in a row have to come: the tripwire needs half a second.
const ROW_MS_MIN: u64 = 1_000;
/// Health checks in a row that fail and open it, where no call goes well between them.
const CHECKS: u64 = 3;
/// Longest silence that says nothing: a caller who leaves later was waiting for an answer.
pub const UNHEARD: Duration = Duration::from_secs(3);
/// What `gate` is while everybody may pass, and while somebody must look who may.
const CLOSED: u64 = 0;
const LOOK: u64 = 1;

/// How a call went, as far as that is its provider's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    /// It was answered.
    Well,
    /// It was not.
    Badly,
    /// Its caller gave up before it said anything, after [`UNHEARD`]. That may be the caller's
    /// doing, so it counts only in a row, where nothing goes well between.
    Unheard,
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everybody may pass.
    Closed,
    /// Nobody may.
    Open,
    /// A few callers try whether it is well again.
    HalfOpen,
}

/// Who may pass.
#[derive(Debug)]
pub(super) enum Passed {
    /// Everybody.
    Freely,
    /// This one, to try it.
    Trying(Probe),
    /// Nobody.
    Not,
}

/// The breaker of one provider. While it is closed, passing costs one look at a number, and a call
/// that went well one more count; only a failure takes the lock.
#[derive(Debug)]
pub(super) struct Breaker {
    terms: config::Breaker,
    /// Until when nobody passes, in milliseconds; or [`CLOSED`], or [`LOOK`].
    gate: AtomicU64,
    calls: Recent,
    failed: Recent,
    /// Whether a call went well since the last failure.
    well: AtomicBool,
    opened: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Failures in a row, and when the first of them came.
    row: Option<(u64, Timestamp)>,
    /// Health checks in a row that failed.
    checks: u64,
    /// Which opening it is: what was tried before it says nothing any more.
    turn: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Closed,
    Open {
        until: Timestamp,
    },
    HalfOpen {
        /// Callers that try it now, and that were answered.
        trying: u64,
        answered: u64,
    },
}

/// A caller that tries whether a provider is well again. Dropped at once it has seen nothing;
/// dropped after [`UNHEARD`] its caller has left unheard, and it is not.
#[derive(Debug)]
pub struct Probe {
    breaker: Arc<Breaker>,
    turn: u64,
    /// Since when it waits, by both clocks; none when how it went is known.
    since: Option<(Timestamp, Instant)>,
}

impl Breaker {
    /// A closed one.
    pub(super) fn new(terms: config::Breaker) -> Self {
        Self {
            terms,
            gate: AtomicU64::new(CLOSED),
            calls: Recent::default(),
            failed: Recent::default(),
            well: AtomicBool::new(true),
            opened: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Whether everybody may pass.
    pub(super) fn is_closed(&self) -> bool {
        self.gate.load(Relaxed) == CLOSED
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        match self.state().phase {
            Phase::Closed => Standing::Closed,
            Phase::Open { .. } => Standing::Open,
            Phase::HalfOpen { .. } => Standing::HalfOpen,
        }
    }

    /// How often it has opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Lets a caller pass, or not.
    pub(super) fn pass(self: &Arc<Self>, now: Timestamp) -> Passed {
        let gate = self.gate.load(Relaxed);
        if gate == CLOSED {
            return Passed::Freely;
        }
        if now.0 < gate {
            return Passed::Not;
        }
        let mut state = self.state();
        let (trying, answered) = match state.phase {
            Phase::Closed => return Passed::Freely,
            Phase::Open { until } if now < until => return Passed::Not,
            Phase::Open { .. } => (0, 0),
            Phase::HalfOpen { trying, answered } => (trying, answered),
        };
        if PROBES <= trying + answered {
            return Passed::Not;
        }
        state.phase = Phase::HalfOpen { trying: trying + 1, answered };
        self.gate.store(LOOK, Relaxed);
        let since = Some((now, instant()));
        Passed::Trying(Probe { breaker: Arc::clone(self), turn: state.turn, since })
    }

    /// Takes a call that ended. True when it opens by it.
    pub(super) fn see(&self, now: Timestamp, went: Went) -> bool {
        if !self.is_closed() {
            return false;
        }
        match went {
            Went::Well => {
                self.calls.add(now);
                // Mostly nothing is written here, so that nobody's cache has to follow.
                if !self.well.load(Relaxed) {
                    self.well.store(true, Relaxed);
                }
                false
            }
            Went::Badly => {
                self.calls.add(now);
                self.failed.add(now);
                self.fail(now)
            }
            Went::Unheard => self.fail(now),
        }
    }

    /// Takes a health check. One that fails opens it after a few, and keeps it open. One that goes
    /// well after the cool-down is as good as a caller who is answered, while there is none to try
    /// it: callers ask for more than a list of models. Tells how it stands if it opens or closes by it.
    pub(super) fn check(&self, now: Timestamp, went: Went) -> Option<Standing> {
        let mut state = self.state();
        if went == Went::Well {
            state.checks = 0;
            return self.find_well(&mut state, now).then_some(Standing::Closed);
        }
        self.begin_row(&mut state);
        state.checks += 1;
        match state.phase {
            Phase::Closed if state.checks < CHECKS => None,
            Phase::Closed => {
                self.open(&mut state, now);
                Some(Standing::Open)
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => {
                self.keep_open(&mut state, now);
                None
            }
        }
    }

    /// True when it closes by it.
    fn find_well(&self, state: &mut State, now: Timestamp) -> bool {
        let answered = match state.phase {
            Phase::Open { until } if until <= now => 1,
            Phase::HalfOpen { trying: 0, answered } => answered + 1,
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen { .. } => return false,
        };
        if PROBES <= answered {
            self.close(state);
            return true;
        }
        state.phase = Phase::HalfOpen { trying: 0, answered };
        self.gate.store(LOOK, Relaxed);
        false
    }

    fn fail(&self, now: Timestamp) -> bool {
        let mut state = self.state();
        if state.phase != Phase::Closed {
            return false;
        }
        self.begin_row(&mut state);
        let (len, since) = state.row.map_or((1, now), |(len, since)| (len + 1, since));
        state.row = Some((len, since));
        let row = self.terms.in_a_row <= len && ROW_MS_MIN <= now.millis_since(since);
        let (calls, failed) = (self.calls.sum(now), self.failed.sum(now));
        let part = u64::from(self.terms.failed.basis_points());
        let many = self.terms.calls_min <= calls && calls * part <= failed * 10_000;
        if row || many {
            self.open(&mut state, now);
        }
        row || many
    }

    /// Begins to count in a row anew, if a call went well since.
    fn begin_row(&self, state: &mut State) {
        if self.well.swap(false, Relaxed) {
            (state.row, state.checks) = (None, 0);
        }
    }

    fn open(&self, state: &mut State, now: Timestamp) {
        self.opened.fetch_add(1, Relaxed);
        self.keep_open(state, now);
    }

    fn keep_open(&self, state: &mut State, now: Timestamp) {
        let until = Timestamp(now.0 + self.terms.cool_down_ms);
        state.phase = Phase::Open { until };
        state.turn += 1;
        self.gate.store(until.0.max(LOOK), Relaxed);
    }

    fn close(&self, state: &mut State) {
        self.calls.clear();
        self.failed.clear();
        self.well.store(true, Relaxed);
        *state = State { turn: state.turn, ..State::default() };
        self.gate.store(CLOSED, Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probe {
    /// Says how it went. True when the provider is well again.
    pub fn ended(mut self, now: Timestamp, went: Went) -> bool {
        self.since = None;
        let mut state = self.breaker.state();
        let Phase::HalfOpen { trying, answered } = state.phase else { return false };
        if state.turn != self.turn {
            return false;
        }
        match went {
            Went::Badly | Went::Unheard => self.breaker.keep_open(&mut state, now),
            Went::Well if PROBES <= answered + 1 => {
                self.breaker.close(&mut state);
                return true;
            }
            Went::Well => state.phase = Phase::HalfOpen { trying, answered: answered + 1 },
        }
        false
    }

    /// Ends it with nothing seen: what it was told is not about how the provider is.
    pub fn left(mut self) {
        self.since = None;
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let mut state = self.breaker.state();
        let Phase::HalfOpen { trying, answered } = state.phase else { return };
        if self.turn != state.turn {
            return;
        }
        match self.since.map(|(at, since)| (at, since.elapsed())) {
            Some((at, waited)) if UNHEARD <= waited => {
                self.breaker.keep_open(&mut state, Timestamp(at.0 + millis(waited)));
            }
            Some(_) | None => {
                state.phase = Phase::HalfOpen { trying: trying.saturating_sub(1), answered };
            }
        }
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
