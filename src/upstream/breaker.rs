//! The breaker: keeps callers from a provider that fails, until it is seen to be well again.
//!
//! It is about the line to a provider, not about what is said on it: gates and the tripwire judge
//! answers, and they are to come first. So it waits until failures in a row have lasted longer than
//! what the tripwire needs to send a candidate back.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use crate::config;
use crate::domain::Timestamp;

use super::recent::Recent;

/// Callers that try it at a time after a cool-down, and that it has to answer to be closed.
const PROBES: u64 = 3;
/// How long failures in a row have to come: the tripwire needs half a second.
const ROW_MS_MIN: u64 = 1_000;
/// Health checks in a row that fail and open it, where no call goes well between them.
const CHECKS: u64 = 3;
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

/// A caller that tries whether a provider is well again. Dropped, it has seen nothing.
#[derive(Debug)]
pub struct Probe {
    breaker: Arc<Breaker>,
    turn: u64,
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
        Passed::Trying(Probe { breaker: Arc::clone(self), turn: state.turn })
    }

    /// Takes a call that ended. True when it opens by it.
    pub(super) fn see(&self, now: Timestamp, went: Went) -> bool {
        if !self.is_closed() {
            return false;
        }
        self.calls.add(now);
        match went {
            Went::Well => {
                // Mostly nothing is written here, so that nobody's cache has to follow.
                if !self.well.load(Relaxed) {
                    self.well.store(true, Relaxed);
                }
                false
            }
            Went::Badly => self.fail(now),
        }
    }

    /// Takes a health check. One that fails opens it after a few, and keeps it open; one that goes
    /// well closes nothing, because callers ask for more than a list of models.
    pub(super) fn check(&self, now: Timestamp, went: Went) -> bool {
        let mut state = self.state();
        if went == Went::Well {
            state.checks = 0;
            return false;
        }
        self.begin_row(&mut state);
        state.checks += 1;
        match state.phase {
            Phase::Closed if state.checks < CHECKS => false,
            Phase::Closed => {
                self.open(&mut state, now);
                true
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => {
                self.keep_open(&mut state, now);
                false
            }
        }
    }

    fn fail(&self, now: Timestamp) -> bool {
        self.failed.add(now);
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
    pub fn ended(self, now: Timestamp, went: Went) -> bool {
        let mut state = self.breaker.state();
        let Phase::HalfOpen { trying, answered } = state.phase else { return false };
        if state.turn != self.turn {
            return false;
        }
        match went {
            Went::Badly => self.breaker.keep_open(&mut state, now),
            Went::Well if PROBES <= answered + 1 => {
                self.breaker.close(&mut state);
                return true;
            }
            Went::Well => state.phase = Phase::HalfOpen { trying, answered: answered + 1 },
        }
        false
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let mut state = self.breaker.state();
        if let Phase::HalfOpen { trying, answered } = state.phase
            && self.turn == state.turn
        {
            state.phase = Phase::HalfOpen { trying: trying.saturating_sub(1), answered };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: config::Breaker = config::Breaker {
        failed: crate::domain::Share::ALL,
        calls_min: 1_000,
        in_a_row: 3,
        cool_down_ms: 5_000,
    };

    fn at(ms: u64) -> Timestamp {
        Timestamp(1_700_000_000_000 + ms)
    }

    fn breaker(terms: config::Breaker) -> Arc<Breaker> {
        Arc::new(Breaker::new(terms))
    }

    fn opened() -> Arc<Breaker> {
        let breaker = breaker(TERMS);
        let opened = [0, 500, 1_000].map(|ms| breaker.see(at(ms), Went::Badly));
        assert_eq!(opened, [false, false, true]);
        breaker
    }

    fn probe(breaker: &Arc<Breaker>, ms: u64) -> Option<Probe> {
        match breaker.pass(at(ms)) {
            Passed::Trying(probe) => Some(probe),
            Passed::Freely | Passed::Not => None,
        }
    }

    #[test]
    fn failures_in_a_row_open_it_once_they_last_longer_than_the_tripwire_needs() {
        let burst = breaker(TERMS);
        assert!(!(0..100).any(|ms| burst.see(at(ms), Went::Badly)), "a connection that was lost");
        assert!(burst.see(at(1_000), Went::Badly));
        assert_eq!((burst.standing(), burst.opened()), (Standing::Open, 1));

        let broken = breaker(TERMS);
        for ms in 0..1_000 {
            assert!(!broken.see(at(ms * 700), Went::Badly));
            let went = if ms % 2 == 1 { Went::Well } else { Went::Badly };
            assert!(!broken.see(at(ms * 700 + 1), went), "what goes well ends the row");
        }
    }

    #[test]
    fn a_part_of_enough_calls_opens_it_and_old_calls_do_not_count() {
        let terms = config::Breaker::default();
        let half = breaker(terms);
        let opens = (0..40).position(|it: u64| {
            half.see(at(it), if it.is_multiple_of(2) { Went::Well } else { Went::Badly })
        });
        assert_eq!(opens, Some(19), "with its twentieth call");
        let old = breaker(terms);
        (0..19).for_each(|ms| assert!(!old.see(at(ms), Went::Badly)));
        assert!(!old.see(at(31_000), Went::Well) && !old.see(at(31_001), Went::Badly));
        let calm = breaker(terms);
        // As the worst of the recorded providers in good health.
        let mut dice = crate::domain::Splitmix(7);
        assert!((0..100_000).all(|it: u64| {
            let went = if dice.roll() % 1_000 < 73 { Went::Badly } else { Went::Well };
            !calm.see(at(it * 100), went)
        }));
    }

    #[test]
    fn after_the_cool_down_three_may_try_it_and_three_answers_close_it() {
        let breaker = opened();
        assert!(probe(&breaker, 5_999).is_none());
        let mut probes: Vec<Probe> = (0..5).filter_map(|_| probe(&breaker, 6_000)).collect();
        assert_eq!((probes.len(), breaker.standing()), (3, Standing::HalfOpen));
        let answered: Vec<bool> =
            probes.drain(..).map(|it| it.ended(at(6_100), Went::Well)).collect();
        assert_eq!(answered, [false, false, true]);
        assert_eq!(breaker.standing(), Standing::Closed);
        assert!(matches!(breaker.pass(at(6_100)), Passed::Freely));
        // What was counted before says nothing any more.
        assert!(!breaker.see(at(6_200), Went::Badly) && !breaker.see(at(7_400), Went::Badly));
    }

    #[test]
    fn one_that_fails_keeps_it_open_and_one_that_leaves_gives_its_place_back() {
        let breaker = opened();
        let probes: Vec<_> = (0..3).filter_map(|_| probe(&breaker, 6_000)).collect();
        assert!(probe(&breaker, 6_000).is_none());
        drop(probes);
        let (first, second) = (probe(&breaker, 6_000).unwrap(), probe(&breaker, 6_000).unwrap());
        assert!(!first.ended(at(6_500), Went::Badly));
        assert_eq!((breaker.standing(), breaker.opened()), (Standing::Open, 1));
        assert!(!second.ended(at(6_600), Went::Well), "what was tried before says nothing");
        assert!(probe(&breaker, 11_499).is_none() && probe(&breaker, 11_500).is_some());
    }

    #[test]
    fn health_checks_open_it_where_no_call_goes_well_and_never_close_it() {
        let silent = breaker(TERMS);
        let opened = [0, 1, 2].map(|it| silent.check(at(it * 30_000), Went::Badly));
        assert_eq!(opened, [false, false, true]);
        silent.check(at(60_001), Went::Well);
        assert_eq!(silent.standing(), Standing::Open);
        silent.check(at(64_000), Went::Badly);
        assert!(probe(&silent, 68_999).is_none() && probe(&silent, 69_000).is_some());

        let served = breaker(TERMS);
        for minute in 0..10 {
            assert!(!served.check(at(minute * 60_000), Went::Badly));
            assert!(!served.see(at(minute * 60_000 + 1), Went::Well));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        See(Went),
        Check(Went),
        Pass,
        End(Went),
        Leave,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let went = || prop_oneof![Just(Went::Well), Just(Went::Badly)];
        let step = prop_oneof![
            (0_u64..4_000).prop_map(Step::Wait),
            went().prop_map(Step::See),
            Just(Step::See(Went::Badly)),
            went().prop_map(Step::Check),
            Just(Step::Pass),
            went().prop_map(Step::End),
            Just(Step::Leave),
        ];
        prop::collection::vec(step, 1..400)
    }

    proptest! {
        /// Whatever comes: never more than three try it, nobody passes before the cool-down is
        /// over, and it closes by answers alone.
        #[test]
        fn whatever_comes_few_try_it_and_answers_alone_close_it(steps in steps()) {
            let breaker = breaker(TERMS);
            let (mut now, mut probes, mut shut_at) = (0, Vec::new(), None);
            for step in steps {
                let before = breaker.standing();
                match step {
                    Step::Wait(ms) => now += ms,
                    Step::See(went) => _ = breaker.see(at(now), went),
                    Step::Check(went) => _ = breaker.check(at(now), went),
                    Step::Pass => match breaker.pass(at(now)) {
                        Passed::Freely => prop_assert_eq!(before, Standing::Closed),
                        Passed::Trying(probe) => {
                            prop_assert!(shut_at.is_none_or(|it| it + 5_000 <= now));
                            probes.push(probe);
                        }
                        Passed::Not => prop_assert_ne!(before, Standing::Closed),
                    },
                    Step::End(went) => {
                        let closes = probes.pop().is_some_and(|it: Probe| it.ended(at(now), went));
                        prop_assert!(!closes || went == Went::Well);
                    }
                    Step::Leave => drop(probes.pop()),
                }
                let after = breaker.standing();
                if after == Standing::Open && before != Standing::Open {
                    shut_at = Some(now);
                }
                if after == Standing::Closed && before != Standing::Closed {
                    prop_assert!(before == Standing::HalfOpen);
                }
                let state = breaker.state();
                if let Phase::HalfOpen { trying, answered } = state.phase {
                    prop_assert!(trying + answered <= PROBES, "{trying} and {answered}");
                }
            }
            drop(probes);
            let state = breaker.state();
            if let Phase::HalfOpen { trying, .. } = state.phase {
                prop_assert_eq!(trying, 0);
            }
        }
    }

    #[test]
    fn many_threads_at_once_get_three_places() {
        let breaker = opened();
        let got: usize = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..100).filter_map(|_| probe(&breaker, 9_000)).collect()))
                .collect();
            let all: Vec<Vec<Probe>> = all.into_iter().map(|it| it.join().unwrap()).collect();
            all.iter().map(Vec::len).sum()
        });
        assert_eq!(got, 3);
    }
}
