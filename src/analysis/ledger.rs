//! The ledger: all bets of one attempt, their money, and what they have shown.

use serde::{Deserialize, Serialize};

use crate::domain::{Event, Gate, Lot, Metric, Plan, Rollout, Share, Stage, Timestamp, Weather};

use super::{
    Observation, Sample,
    bet::Wealth,
    chances::Chances,
    footing::Footing,
    gate::{Stream, Terms},
    instrument::Instrument,
    lots::Lots,
    money::Money,
    opinion::Scored,
    pace::Pace,
    score::{Marks, Score},
    tally::Tally,
};

/// While guarding, counters and proofs of safety start afresh so often.
const GUARD_WINDOW_MS: u64 = 86_400_000;
/// Stakes are planned anew so often, in the observations' own time.
const PLAN_MS: u64 = 1_000;
/// No watched slice.
const NONE: &str = "";

/// All bets of one attempt of a rollout.
///
/// Feed it with [`hear`](Self::hear), ask
/// [`is_broken`](Self::is_broken) after each, and read [`evidence`](Self::evidence) when it is
/// to be shown. Nothing but observations and their time moves it.
///
/// Every gate is bet on over all traffic and in each watched slice, whose bets get what is in
/// it alone. Harm may be proven by any of them; what must be proven safe is all traffic.
///
/// Over the whole attempt a candidate that is no worse is called a breach with a chance of
/// at most `risk.harm_bps`; in each stage a gate is called proven though its margin is
/// not kept with a chance of at most `risk.safe_bps`. While guarding, the chance of a false
/// alarm is at most `risk.harm_bps` in any 7 days.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(super) stages: Vec<Stage>,
    /// The watched slices.
    pub(super) watched: Vec<String>,
    /// What the plan gates anywhere, one for each instrument.
    pub(super) measured: Vec<Measured>,
    /// The share of pairs that are judged.
    judged: Share,
    pub(super) terms: Terms,
    pub(super) state: State,
}

/// What an instrument measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) metric: Metric,
    /// The place of the watched slice it looks at; none for all traffic.
    pub(super) watched: Option<usize>,
}

impl Measured {
    /// Whether it gets what is in the watched slice of this place, or in none.
    pub(super) fn takes(self, place: Option<usize>) -> bool {
        self.watched.is_none() || self.watched == place
    }
}

/// What observations change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) instruments: Vec<Instrument>,
    /// The same for the primary's noise; none before any was heard in the stage.
    pub(super) noise: Vec<Instrument>,
    pub(super) money: Money,
    pub(super) lots: Lots,
    pub(super) stage: Option<usize>,
    pub(super) chances: Chances,
    /// After success.
    pub(super) guarding: bool,
    /// The time of the last observation, and since when the counters count.
    pub(super) now_ms: u64,
    pub(super) since_ms: u64,
    /// Before this nothing counts in the stage.
    pub(super) counts_from_ms: u64,
    /// Since then.
    pub(super) tally: Tally,
    pub(super) pace: Pace,
    /// Of the whole attempt: an outage does not end where a stage does.
    pub(super) footing: Footing,
}

impl Ledger {
    /// The empty ledger of an attempt at a plan.
    pub fn new(plan: &Plan) -> Self {
        let watched = plan.watched.as_ref().map_or_else(Vec::new, |it| it.values.clone());
        let measured = measured(plan);
        let bets = u64::try_from(measured.len()).unwrap_or(u64::MAX);
        let terms = Terms::of(plan.risk, bets);
        let state = State {
            instruments: measured.iter().map(|it| Instrument::new(it.metric, terms)).collect(),
            noise: Vec::new(),
            money: Money::new(plan.stages.len()),
            lots: Lots::new(),
            stage: None,
            chances: Chances::PAIRS,
            guarding: false,
            now_ms: 0,
            since_ms: 0,
            counts_from_ms: 0,
            tally: Tally::default(),
            pace: Pace::default(),
            footing: Footing::default(),
        };
        let (stages, judged) = (plan.stages.clone(), plan.judge_share);
        Self { stages, watched, measured, judged, terms, state }
    }

    /// Follows a step that the machine has taken. A new attempt begins with a new ledger.
    pub fn follow(&mut self, rollout: &Rollout, at: Timestamp, event: &Event) {
        let stage = rollout.stage_index();
        let chances = || rollout.stage().map_or_else(Chances::default, Chances::of);
        match event {
            Event::StageEntered { .. } => self.enter(stage, at, chances()),
            Event::Succeeded(_) => self.guard(at, chances()),
            Event::Revised(plan) => self.revise(plan, stage, at),
            Event::Loosened(plan) => {
                self.revise(plan, stage, at);
                self.enter(stage, at, chances());
            }
            Event::Created(_)
            | Event::ApprovalRequested
            | Event::Paused(_)
            | Event::Resumed
            | Event::Overdue
            | Event::Baked
            | Event::RolledBack(_)
            | Event::Deleted
            | Event::Stopped
            | Event::Lifted
            | Event::Flagged(_)
            | Event::Unflagged(_) => {}
        }
    }

    /// Begins a stage of the plan, counted from 0: the proof of safety and the counters
    /// start fresh, the proof of harm goes on with more money. A stage that is not in the
    /// plan has no gates.
    pub fn enter(&mut self, stage: usize, at: Timestamp, chances: Chances) {
        (self.state.stage, self.state.guarding, self.state.chances) = (Some(stage), false, chances);
        let money = self.state.money.enter(at);
        self.fund(money);
        self.begin(at);
        self.delay();
    }

    /// Takes another plan in its stage, counted from 0. Where that stage's gates or shares are
    /// others, the proof of safety and the counters start fresh; the money and the proof of harm
    /// go on.
    pub fn revise(&mut self, plan: &Plan, stage: usize, at: Timestamp) {
        self.pass(at);
        let before = self.stages.get(stage).cloned();
        self.stages.clone_from(&plan.stages);
        self.judged = plan.judge_share;
        let Some(now) = self.stages.get(stage).filter(|_| self.state.stage == Some(stage)) else {
            return;
        };
        if before.is_none_or(|it| it.is_seen_otherwise(now)) {
            self.renew(at, Chances::of(now));
        }
    }

    /// Whether that is its stage, counted from 0.
    pub fn is_in(&self, stage: usize) -> bool {
        self.state.stage == Some(stage)
    }

    /// Goes on in its stage with other gates or shares.
    pub fn renew(&mut self, at: Timestamp, chances: Chances) {
        self.pass(at);
        self.state.chances = chances;
        self.begin(at);
        self.delay();
    }

    /// Guards after success with the gates of the last stage, forgetting all wealth.
    ///
    /// A long good time makes a bettor poor and so slow to see a new fault, hence money
    /// flows in evenly without end (an e-detector: Shin, Ramdas & Rinaldo 2023): the chance
    /// of a false alarm is at most `risk.harm_bps` in any 7 days, and an alarm needs about
    /// two nats more. Counters and the proof of safety start afresh every day. An attempt
    /// does not come back from here.
    pub fn guard(&mut self, at: Timestamp, chances: Chances) {
        // A ladder may be ended early, from a stage with other chances.
        (self.state.guarding, self.state.chances) = (true, chances);
        self.state.stage = self.stages.len().checked_sub(1);
        let measure = self.state.footing.measure();
        for instrument in &mut self.state.instruments {
            instrument.tend(|it| {
                it.forget();
                it.judge(measure);
            });
        }
        let money = self.state.money.guard(at);
        self.fund(money);
        self.begin(at);
    }

    /// Takes the weather that the primary is known to have, in place of what was known before.
    pub fn tell_weather(&mut self, weather: &[Weather]) {
        for (measured, instrument) in self.measured.iter().zip(&mut self.state.instruments) {
            let known = weather.iter().find(|it| it.metric == measured.metric);
            instrument.tell_weather(known.map_or(0, |it| it.variance_permille));
        }
    }

    /// Whether what was asked then is left out, because the stage had only just begun: by when
    /// it was asked and not by when it ended, else the slowest would be let in alone.
    pub fn is_early(&self, made: Timestamp) -> bool {
        made.0 < self.state.counts_from_ms
    }

    /// Takes note of a request that was left out for that.
    pub(super) fn leave_out(&mut self, at: Timestamp) {
        self.pass(at);
        self.state.tally.early += 1;
    }

    /// Takes what one request said, at the time when all of it was known. Time does not go back.
    pub(super) fn observe(&mut self, at: Timestamp, seen: &Observation) {
        let at = self.pass(at);
        let Some(stream) = self.admit(at, seen) else { return };
        for (measured, instrument) in self.taking(&seen.watched) {
            instrument.observe(measured.metric, stream, (seen.primary, seen.candidate));
        }
        if let Some(primary) = seen.primary {
            self.judge(&primary);
        }
    }

    /// Takes what a call of the primary says of it as a measure.
    fn judge(&mut self, primary: &Sample) {
        let State { footing, instruments, .. } = &mut self.state;
        let before = footing.measure();
        footing.see(primary.outcome.failed());
        let now = footing.measure();
        if now != before {
            for instrument in instruments {
                instrument.tend(|it| it.judge(now));
            }
        }
    }

    /// Takes how a pair of this stage and in this watched slice was marked; what is not from 0 to 1
    /// counts as lost.
    pub(super) fn score(&mut self, at: Timestamp, watched: &str, marks: &Marks) {
        self.pass(at);
        for (_, instrument) in self.taking(watched) {
            instrument.judge(|it| it.observe(marks));
        }
    }

    /// Takes a score that the answer of a request in this watched slice was given.
    pub(super) fn opinion(&mut self, at: Timestamp, watched: &str, scored: Scored) {
        self.pass(at);
        for (_, instrument) in self.taking(watched) {
            if let Instrument::Opinion(it) = instrument {
                it.observe(scored);
            }
        }
    }

    /// Takes note of a judgement that was due in this stage and could not be had.
    pub(super) fn score_lost(&mut self) {
        for (_, instrument) in self.taking(NONE) {
            instrument.judge(Score::lose);
        }
    }

    /// Takes note of a candidate call that was made and whose outcome was lost. It may have
    /// been a failure: lost failures must never add up to a proof of safety, which is one over
    /// all traffic.
    pub(super) fn copy_lost(&mut self, at: Timestamp) {
        self.pass(at);
        self.state.tally.copies_lost += 1;
        let judged = part(self.judged);
        for (_, instrument) in self.taking(NONE) {
            instrument.lose(judged);
        }
    }

    /// Whether some gate of the stage is proven broken, over all traffic or in a watched slice.
    pub fn is_broken(&self) -> bool {
        let gated = |it: &Measured| self.gates().iter().any(|gate| gate.metric() == it.metric);
        let mut all = self.measured.iter().zip(&self.state.instruments);
        !self.state.tally.has_lost_too_many()
            && all.any(|(measured, it)| {
                it.is_breached() && gated(measured) && self.is_believed(measured.metric)
            })
    }

    /// Whether what is told of a metric can be believed, in any slice.
    pub(super) fn is_believed(&self, metric: Metric) -> bool {
        self.instrument(metric, None).is_none_or(Instrument::is_believed)
    }

    /// What gets that which is in this watched slice, or in none.
    pub(super) fn taking(
        &mut self,
        watched: &str,
    ) -> impl Iterator<Item = (Measured, &mut Instrument)> {
        let place = self.place(watched);
        let all = self.measured.iter().copied().zip(&mut self.state.instruments);
        all.filter(move |(measured, _)| measured.takes(place))
    }

    /// The place of a watched slice among them; none for none.
    pub(super) fn place(&self, watched: &str) -> Option<usize> {
        self.watched.iter().position(|it| it == watched)
    }

    /// Lets time pass, and plans anew when it is time to. Returns the time it is now.
    pub(super) fn pass(&mut self, at: Timestamp) -> Timestamp {
        let state = &mut self.state;
        let before = state.now_ms;
        state.now_ms = before.max(at.0);
        let now = Timestamp(state.now_ms);
        if before / PLAN_MS == now.0 / PLAN_MS {
            return now;
        }
        let money = state.money.due(now);
        for instrument in &mut state.instruments {
            let guarding = state.guarding;
            instrument.tend(|it| if guarding { it.fund(money) } else { it.keep(money) });
        }
        let window = self.state.since_ms + GUARD_WINDOW_MS;
        if self.state.guarding && window <= now.0 {
            self.begin(now);
        } else {
            self.widen();
            self.state.instruments.iter_mut().for_each(|it| it.plan(now));
        }
        now
    }

    /// How a request counts, if it does.
    fn admit(&mut self, at: Timestamp, seen: &Observation) -> Option<Stream> {
        let state = &mut self.state;
        let sides = [seen.primary, seen.candidate];
        state.tally.see(sides);
        let pair = sides.iter().all(Option::is_some);
        let first = |lot: Lot| lot.key().is_none_or(|key| state.lots.is_first(at, key));
        let drawn = seen.lot.is_some_and(first);
        let stream = match seen.lot.filter(|_| drawn) {
            None => Stream::Paired,
            Some(Lot::Once | Lot::Sticky(_)) => Stream::Drawn,
            Some(Lot::Uncopied(_)) => Stream::Uncopied,
        };
        if drawn {
            state.lots.count(stream, seen.primary.is_some(), seen.candidate.is_some());
        } else if !pair {
            state.tally.leave_out(seen.lot);
            return None;
        }
        if stream == Stream::Uncopied && !state.chances.uncopied().compares() {
            // Who alone is ever seen is compared with nobody.
            state.tally.leave_out(None);
            return None;
        }
        if !sides.iter().flatten().all(|it: &Sample| it.outcome.counts()) {
            return None;
        }
        *(if pair { &mut state.tally.pairs } else { &mut state.tally.solos }) += 1;
        state.pace.count(at);
        Some(stream)
    }

    /// Leaves out what comes in the first moments of the stage.
    fn delay(&mut self) {
        let delay_ms = self.stage().map(|it| it.delay_ms).filter(|it| 0 < *it);
        self.state.counts_from_ms = delay_ms.map_or(0, |it| self.state.now_ms + it);
    }

    /// Starts the proof of safety and the counters afresh, for the gates of the stage.
    fn begin(&mut self, at: Timestamp) {
        let gates = self.gates().to_vec();
        let serve = self.stage().map_or(Share::ALL, |it| it.serve);
        let state = &mut self.state;
        state.noise.clear();
        state.now_ms = state.now_ms.max(at.0);
        if state.tally.has_lost_too_many() {
            // What could not be believed proves nothing later either.
            state.instruments.iter_mut().for_each(|it| it.tend(Wealth::forgive));
        }
        (state.since_ms, state.tally) = (state.now_ms, Tally::default());
        state.pace = Pace::default();
        state.lots.enter(state.chances);
        let now = Timestamp(state.now_ms);
        for (measured, instrument) in self.measured.iter().zip(&mut state.instruments) {
            let gate = gates.iter().find(|it| it.metric() == measured.metric);
            instrument.enter(now, gate.map(|it| it.margin.served(serve)), state.chances);
        }
    }

    pub(super) fn stage(&self) -> Option<&Stage> {
        self.state.stage.and_then(|it| self.stages.get(it))
    }

    pub(super) fn gates(&self) -> &[Gate] {
        self.stage().map_or(&[], |it| &it.gates)
    }

    /// What measures a metric in the watched slice of this place, or over all traffic.
    pub(super) fn instrument(&self, metric: Metric, watched: Option<usize>) -> Option<&Instrument> {
        let wanted = Measured { metric, watched };
        let place = self.measured.iter().position(|it| *it == wanted)?;
        self.state.instruments.get(place)
    }

    fn fund(&mut self, money: f64) {
        for instrument in &mut self.state.instruments {
            instrument.tend(|it| it.fund(money));
        }
    }
}

/// A share as a part of one.
pub(super) fn part(share: Share) -> f64 {
    f64::from(share.basis_points()) / 10_000.0
}

/// The metrics that some stage gates, over all traffic and in each watched slice.
fn measured(plan: &Plan) -> Vec<Measured> {
    let slices = plan.watched.as_ref().map_or(0, |it| it.values.len());
    let metrics = || Metric::ALL.into_iter().filter(|it| plan.gates(*it));
    let places = std::iter::once(None).chain((0..slices).map(Some));
    places.flat_map(|watched| metrics().map(move |metric| Measured { metric, watched })).collect()
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
pub(super) mod tests;

#[cfg(test)]
#[path = "lost_tests.rs"]
mod lost_tests;

#[cfg(test)]
#[path = "stage_tests.rs"]
mod stage_tests;

#[cfg(test)]
#[path = "watched_tests.rs"]
mod watched_tests;
