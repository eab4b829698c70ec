//! Feedback: what somebody thinks of the answer a caller got, on its way to the evidence.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tonic::Status;

use super::{errors, proto, request::word};
use crate::controller::Views;
use crate::domain::{Lot, Metric, Name, Note, Pair, PairId, Rollout, Seen, Side, Told, Window};
use crate::telemetry::Metrics;
use crate::traffic::{Outbox, Trace};

/// Scores remembered, so that one that is said again is not counted again.
pub(super) const GIVEN_LEN_MAX: usize = 65_536;
/// Millionths in one.
const MILLION: f64 = 1e6;

/// A score as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) request: PairId,
    score_millionths: u32,
    /// Empty for none.
    key: String,
}

/// Whose answer a caller got.
#[derive(Debug)]
pub(super) struct Answered {
    provider: Option<Name>,
    /// What it is evidence of, or why it is none.
    counts: Result<Counts, &'static str>,
}

#[derive(Debug)]
struct Counts {
    window: Window,
    lot: Lot,
    side: Side,
    watched: String,
}

/// The scores that were given lately.
#[derive(Debug, Default)]
pub(super) struct Scores(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// With what was answered, which the same key is answered again; none where an earlier process
    /// did.
    by_key: Recent<String, (Given, Option<proto::SubmitFeedbackResponse>)>,
    by_request: Recent<PairId, ()>,
    /// Where what earlier processes were told is known too.
    recalled: HashSet<Window>,
}

/// The newest entries of a table.
#[derive(Debug)]
struct Recent<K, V> {
    held: HashMap<K, V>,
    order: VecDeque<K>,
}

impl Given {
    /// Reads a request.
    pub(super) fn read(asked: proto::SubmitFeedbackRequest) -> Result<Self, Status> {
        let field = "served_request_id";
        let request: PairId = asked
            .served_request_id
            .trim()
            .parse()
            .map_err(|error| errors::argument(field, &format!("{error}")))?;
        if !(0.0..=1.0).contains(&asked.score) {
            return Err(errors::argument("score", "score is 0 (bad) to 1 (good)"));
        }
        let score_millionths = format!("{:.0}", asked.score * MILLION).parse().unwrap_or(0);
        word("signal", asked.signal)?;
        let key = word("request_id", asked.request_id)?;
        Ok(Self { request, score_millionths, key })
    }

    /// One that was told before, by the note of it.
    pub(super) fn noted(note: Note) -> Option<Self> {
        let Told::Feedback { request, score_millionths, key, .. } = note.told else { return None };
        Some(Self { request, score_millionths, key })
    }
}

impl Answered {
    /// By what is remembered of a request.
    pub(super) fn remembered(trace: &Trace) -> Self {
        let none = |provider, why| Self { provider, counts: Err(why) };
        let Trace::Routed(routed) = trace else {
            return none(None, "no rollout governed the request");
        };
        let Some(lane) = &routed.lane else {
            return none(routed.failover.get().cloned(), "no rollout governed the request");
        };
        if let Some(name) = routed.failover.get() {
            return none(Some(name.clone()), "another provider answered in place of the primary");
        }
        let answered = routed.own_answer();
        let side = answered.unwrap_or(Side::Primary);
        let provider = match side {
            Side::Primary => &lane.primary,
            Side::Candidate => &lane.candidate,
        };
        // What was kept from a side is left out on both.
        let drawn = answered == Some(routed.route.serve) && routed.kept().is_none();
        let lot = routed.route.lot.filter(|_| drawn);
        let counts = lot.zip(lane.window.clone()).map(|(lot, window)| {
            let watched = lane.watched(&routed.facts).to_owned();
            Counts { window, lot, side, watched }
        });
        Self { provider: Some(provider.clone()), counts: counts.ok_or(NOT_DRAWN) }
    }

    /// By the pair that it became.
    pub(super) fn paired(pair: &Pair) -> Self {
        let provider = pair.answered.map(|it| match it {
            Side::Primary => pair.primary.provider.clone(),
            Side::Candidate => pair.candidate.provider.clone(),
        });
        let side = pair.served;
        let lot = pair.lot.filter(|_| pair.answered == Some(side));
        let counts = lot.map(|lot| {
            let (window, watched) = (pair.window.clone(), pair.watched.clone());
            Counts { window, lot, side, watched }
        });
        Self { provider, counts: counts.ok_or(NOT_DRAWN) }
    }

    /// The evidence it belongs to, if it is any.
    pub(super) fn window(&self) -> Option<&Window> {
        self.counts.as_ref().ok().map(|it| &it.window)
    }

    /// Why it is no evidence of the rollouts as they stand, if so.
    pub(super) fn late(&self, request: PairId, views: &Views) -> Option<&'static str> {
        let counts = self.counts.as_ref().ok()?;
        let rollouts = views.rollouts.iter().map(|it| &it.rollout);
        let rollout = rollouts.into_iter().find(|it| *it.name() == counts.window.rollout)?;
        counts.late(request, rollout)
    }

    /// What is said of it, with this reason against it if it has none of its own.
    fn told(&self, against: Option<&'static str>) -> proto::SubmitFeedbackResponse {
        proto::SubmitFeedbackResponse {
            provider: self
                .provider
                .as_ref()
                .map_or_else(String::new, |it| format!("providers/{it}")),
            not_counted: self.counts.as_ref().err().copied().or(against).unwrap_or_default().into(),
        }
    }
}

const NOT_DRAWN: &str =
    "no lot drew who answered, so what is thought of it says nothing of who answers better";

const ENDED: &str = "its rollout is not under way, so nothing is asked for evidence";
const EARLIER: &str =
    "it was answered in an earlier stage or attempt of its rollout, whose evidence is closed";
const NO_GATE: &str = "no gate of its stage is on `feedback`";
const SAID_BEFORE: &str = "a score of the same request came before; the first stands";

impl Scores {
    /// Whether what earlier processes were told of a window is known.
    pub(super) fn recalls(&self, window: &Window) -> bool {
        self.known().recalled.contains(window)
    }

    /// Takes note of what earlier processes were told of a window, oldest first.
    pub(super) fn recall(&self, window: Window, told: impl IntoIterator<Item = Given>) {
        let mut known = self.known();
        for given in told {
            if !given.key.is_empty() && !known.by_key.held.contains_key(&given.key) {
                known.by_key.add(given.key.clone(), (given.clone(), None));
            }
            if !known.by_request.held.contains_key(&given.request) {
                known.by_request.add(given.request, ());
            }
        }
        known.recalled.insert(window);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a score to the evidence, unless it was handed over before. Of one that comes too
    /// late that is told; whether it does is for the controller to decide.
    pub(super) fn give(
        &self,
        given: Given,
        (answered, late): (&Answered, Option<&'static str>),
        (outbox, metrics): (&Outbox, &Metrics),
    ) -> Result<proto::SubmitFeedbackResponse, Status> {
        let mut known = self.known();
        match known.by_key.held.get(&given.key) {
            Some((before, told)) if *before == given => {
                // What was kept counted, but where nothing was to count it.
                let first = || answered.told(late.filter(|it| *it == NO_GATE));
                return Ok(told.clone().unwrap_or_else(first));
            }
            Some(_) => {
                let problem = "request_id was used for another score; use a new one";
                return Err(errors::argument("request_id", problem));
            }
            None => {}
        }
        let again = known.by_request.held.contains_key(&given.request);
        let told = answered.told(late.or(again.then_some(SAID_BEFORE)));
        if !again {
            if let Ok(counts) = &answered.counts
                && outbox.offer(counts.seen(&given)).is_none()
            {
                return Err(errors::busy());
            }
            known.by_request.add(given.request, ());
            if let Some(provider) = &answered.provider {
                metrics.feedback(provider, f64::from(given.score_millionths) / MILLION);
            }
        }
        if !given.key.is_empty() {
            known.by_key.add(given.key.clone(), (given, Some(told.clone())));
        }
        Ok(told)
    }
}

impl Counts {
    fn late(&self, request: PairId, rollout: &Rollout) -> Option<&'static str> {
        let Some(stage) = rollout.guarded() else { return Some(ENDED) };
        if rollout.window().as_ref() != Some(&self.window) || request.at() < rollout.since() {
            return Some(EARLIER);
        }
        let gated = stage.gates.iter().any(|it| it.metric() == Metric::Feedback);
        (!gated).then_some(NO_GATE)
    }

    fn seen(&self, given: &Given) -> Seen {
        let Given { request, score_millionths, key } = given.clone();
        let (lot, side, watched) = (self.lot, self.side, self.watched.clone());
        let told = Told::Feedback { request, lot, side, score_millionths, watched, key };
        Seen::note(&self.window, told)
    }
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { held: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// Adds what is not there yet; of too many, the oldest is forgotten.
    fn add(&mut self, key: K, value: V) {
        if GIVEN_LEN_MAX <= self.order.len()
            && let Some(oldest) = self.order.pop_front()
        {
            self.held.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.held.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::rig::{self, Rig};
    use crate::domain::{Command, Gate, Margin, Outcome, Role};
    use crate::store::{samples, sim::Sim};

    fn given(id: u128, signal: &str, score: f64, key: &str) -> Result<Given, Status> {
        Given::read(proto::SubmitFeedbackRequest {
            served_request_id: PairId(id).to_string(),
            score,
            signal: signal.to_owned(),
            comment: String::new(),
            request_id: key.to_owned(),
        })
    }

    fn counts() -> Counts {
        let window = Window { rollout: rig::name("chat"), attempt: 1, stage: 0 };
        Counts { window, lot: Lot::Once, side: Side::Candidate, watched: String::new() }
    }

    fn answered() -> Answered {
        Answered { provider: Some(rig::name("cheap")), counts: Ok(counts()) }
    }

    #[test]
    fn the_first_score_of_a_request_is_handed_over_and_another_told_not_to_count() {
        let mut setup = rig::setup(Err(String::new()));
        let scores = Scores::default();
        let mut give = |it: Result<Given, Status>| {
            let told =
                scores.give(it.unwrap(), (&answered(), None), (&setup.outbox, &setup.metrics));
            let taken = std::iter::from_fn(|| setup.seen.try_recv().ok());
            let scores = taken.filter_map(|it| {
                let Seen::Note(note) = it else { return None };
                let Told::Feedback { score_millionths, .. } = note.told else { return None };
                Some(score_millionths)
            });
            (told.map(|it| it.not_counted).ok(), scores.collect::<Vec<_>>())
        };
        let (counted, again) = (Some(String::new()), Some(SAID_BEFORE.to_owned()));
        assert_eq!(give(given(1, "thumb", 0.25, "a")), (counted.clone(), vec![250_000]));
        assert_eq!(give(given(1, "thumb", 0.25, "a")), (counted.clone(), vec![]), "a retry");
        assert_eq!(give(given(1, "thumb", 0.25, "")), (again.clone(), vec![]), "the same again");
        assert_eq!(give(given(1, "thumb", 1.0, "")), (again.clone(), vec![]), "the first stands");
        assert_eq!(give(given(2, "thumb", 0.25, "a")), (None, vec![]), "another key is needed");
        assert_eq!(give(given(1, "refund", 0.0, "")), (again, vec![]), "whatever the signal");
        assert_eq!(give(given(2, "thumb", 1.0, "")), (counted, vec![1_000_000]));
    }

    #[tokio::test]
    async fn what_comes_too_late_or_where_no_gate_asks_is_told_not_to_count() {
        let rig = Rig::new(Sim::default()).await;
        let mut plan = rig::plan("chat");
        for (at, stage) in plan.stages.iter_mut().enumerate() {
            let gated = at == 1;
            let gate = Gate { margin: Margin::default_of(Metric::Feedback), role: Role::Guard };
            stage.gates.extend(gated.then_some(gate));
        }
        rig.handle.create(rig::name("chat"), plan, rig::by("")).await.unwrap();
        let late = |attempt, stage, id| {
            let counts =
                Counts { window: Window { attempt, stage, ..counts().window }, ..counts() };
            let answered = Answered { provider: None, counts: Ok(counts) };
            answered.late(id, &rig.handle.views())
        };
        let (long_ago, now) = (PairId(1), PairId(u128::MAX));
        assert_eq!(late(1, 0, now), Some(ENDED), "it never began");
        rig.run("chat", Command::Start).await.unwrap();
        assert_eq!(late(1, 0, now), Some(NO_GATE));
        rig.run("chat", rig::advance()).await.unwrap();
        assert_eq!(late(1, 1, now), None);
        assert_eq!(late(1, 1, long_ago), Some(EARLIER), "an earlier visit");
        assert_eq!(late(1, 0, now), Some(EARLIER), "an earlier stage");
        rig.run("chat", Command::Rollback).await.unwrap();
        assert_eq!(late(1, 1, now), Some(ENDED));
        rig.run("chat", Command::Start).await.unwrap();
        assert_eq!(late(1, 0, now), Some(EARLIER), "an earlier attempt");
        assert_eq!(late(2, 0, now), Some(NO_GATE));
    }

    #[test]
    fn what_is_no_score_is_refused_and_what_was_not_drawn_does_not_count() {
        for score in [-0.1, 1.1, f64::NAN] {
            assert_eq!(given(1, "", score, "").unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        let passed = Trace::Passed {
            id: PairId(1),
            at: crate::domain::Timestamp(0),
            why: crate::domain::Skip::NoRollout,
        };
        let told = Answered::remembered(&passed).told(None);
        assert!(told.provider.is_empty() && told.not_counted.contains("no rollout"), "{told:?}");
    }

    /// Whose side a stored answer counts for, where lots drew `served` and `answered` answered.
    fn stored(served: Side, answered: Option<Side>, candidate: Outcome) -> Option<Side> {
        let mut pair = samples::pair("chat", 1_000, 1);
        (pair.served, pair.answered, pair.candidate.outcome) = (served, answered, candidate);
        Answered::paired(&pair).counts.ok().map(|it| it.side)
    }

    #[test]
    fn a_stored_answer_counts_where_the_side_that_was_drawn_gave_it() {
        let (primary, candidate) = (Side::Primary, Side::Candidate);
        for outcome in [Outcome::Ok, Outcome::Timeout, Outcome::ProviderError] {
            for side in [primary, candidate] {
                assert_eq!(stored(side, Some(side), outcome), Some(side), "{outcome:?}");
                assert_eq!(stored(side, Some(side.other()), outcome), None, "a fallback");
                assert_eq!(stored(side, None, outcome), None, "a failover");
            }
        }
    }

    #[test]
    fn what_an_earlier_process_was_told_is_known_by_its_key_and_its_request() {
        let mut setup = rig::setup(Err(String::new()));
        let scores = Scores::default();
        let window = counts().window;
        assert!(!scores.recalls(&window));
        let told = [given(1, "", 0.25, "a"), given(2, "", 1.0, "")].map(Result::unwrap);
        let notes = told.iter().map(|it| {
            let Seen::Note(note) = counts().seen(it) else { panic!("a score is a note") };
            Given::noted(*note).unwrap()
        });
        scores.recall(window.clone(), notes);
        assert!(scores.recalls(&window));
        let mut give = |it: Result<Given, Status>, late| {
            let told =
                scores.give(it.unwrap(), (&answered(), late), (&setup.outbox, &setup.metrics));
            let handed = std::iter::from_fn(|| setup.seen.try_recv().ok()).count();
            (told.map(|it| it.not_counted).ok(), handed)
        };
        let (counted, again) = (Some(String::new()), Some(SAID_BEFORE.to_owned()));
        for late in [None, Some(ENDED), Some(EARLIER)] {
            assert_eq!(give(given(1, "", 0.25, "a"), late), (counted.clone(), 0), "a retry");
        }
        let ungated = Some(NO_GATE.to_owned());
        assert_eq!(give(given(1, "", 0.25, "a"), Some(NO_GATE)), (ungated, 0), "a retry");
        assert_eq!(give(given(1, "", 0.5, "a"), None), (None, 0), "another key is needed");
        assert_eq!(give(given(1, "", 0.25, "b"), None), (again.clone(), 0), "the first stands");
        assert_eq!(give(given(2, "", 1.0, ""), None), (again, 0));
        assert_eq!(give(given(3, "", 1.0, ""), None), (counted, 1));
    }

    #[test]
    fn of_too_many_scores_the_oldest_is_forgotten() {
        let mut recent = Recent::default();
        (0..=GIVEN_LEN_MAX).for_each(|it| recent.add(it, ()));
        assert!(!recent.held.contains_key(&0) && recent.held.contains_key(&1));
        assert_eq!(recent.held.len(), GIVEN_LEN_MAX);
    }
}
