//! After a restart: evidence from what was stored, the day's copies from what was kept.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::{JoinHandle, spawn_blocking};

use crate::analysis::{Answers, Chances, Ledger, News};
use crate::domain::{
    Cause, Event, Name, Note, Order, Rollout, Savings, Seen, State, Timestamp, Visit, Window,
};
use crate::store::{Checkpoint, Pairs, PairsError};
use crate::traffic::{Barometer, Copies, Fitness, Purse, Spent};

use super::{actor::Controller, managed::Managed, setup::Budgets};

/// How often the bets of a rollout are kept, in milliseconds: what is told in between is told
/// again after a restart.
const CHECKPOINT_MS: u64 = 10_000;

/// The bets of an attempt made anew, and what has to go on from there.
struct Rebuilt {
    ledger: Ledger,
    /// The place after which the bets of the visit began; none where that is noted.
    unnoted: Option<u64>,
    /// The last place that was given.
    seq: u64,
    counted: u64,
}

/// What of that which was told belongs to a visit of a stage.
struct Span {
    visit: Visit,
    /// Whether it is known by which shares its requests were drawn.
    drawn: bool,
    /// When the next visit began.
    end: Timestamp,
    /// What has a place up to here was told before it, or is in the bets already.
    after: u64,
    /// The last place before the next visit, if that is known.
    until: Option<u64>,
    /// What is later was told by a clock that has gone back since.
    now: Timestamp,
}

/// Enters the evidence kept of every running attempt in new bets, visit by visit of its stages.
///
/// It goes on from the last checkpoint; without one, all that is stored is played again under the
/// plan that holds. So a restart forgets no evidence; what the store lost (a second at most, and
/// what its limits removed) only makes proofs take longer.
///
/// Returns those whose providers are configured otherwise than when that was kept.
pub(super) async fn evidence(controller: &mut Controller) -> Vec<Name> {
    let (pairs, now) = (controller.pairs.clone(), controller.clock.now());
    let weather = controller.barometer.weather();
    if pairs.is_none() && controller.managed.values().any(|it| it.rollout.window().is_some()) {
        tracing::error!(
            "stored evidence cannot be had: stages that are open begin again, with no time and no \
             evidence; mend the store and start again (`crossfade serve --takeover`) to have it back"
        );
    }
    let identities = controller.managed.values().map(|it| controller.identity(it.rollout.plan()));
    let identities: Vec<u64> = identities.collect();
    let mut others = Vec::new();
    for (managed, identity) in controller.managed.values_mut().zip(identities) {
        managed.savings = savings(pairs.as_ref(), managed.rollout.name());
        managed.outdated = coverage(pairs.as_ref(), managed, now).filter(|it| *it != identity);
        if managed.outdated.is_some() {
            others.push(managed.rollout.name().clone());
        }
        if managed.rollout.guarded().is_none() {
            continue;
        }
        let answers = pairs.as_ref().and_then(|it| it.kept(&answers_key(managed.rollout.name())));
        managed.answers = answers.and_then(|it| Answers::decode(&it)).unwrap_or_default();
        let (rollout, pairs) = (managed.rollout.clone(), pairs.clone());
        match spawn_blocking(move || rebuilt(&rollout, pairs.as_ref(), now)).await {
            Ok(Rebuilt { ledger, unnoted, seq, .. }) => {
                managed.ledger = ledger;
                let begun = managed.begun.take().zip(unnoted);
                managed.begun =
                    begun.map(|(it, seq)| Note { order: Order { seq, ..it.order }, ..it });
                managed.told = Order { seq, at: now };
                controller.outbox.resume(seq);
            }
            Err(error) => tracing::error!(%error, "evidence could not be rebuilt; it begins anew"),
        }
        managed.tell_weather(&weather);
    }
    others
}

fn rebuilt(rollout: &Rollout, pairs: Option<&Pairs>, now: Timestamp) -> Rebuilt {
    let ledger = Ledger::new(rollout.plan());
    let mut rebuilt = Rebuilt { ledger, unnoted: None, seq: 0, counted: 0 };
    let visits = rollout.visits();
    let begun = pairs.map(|it| begun(rollout, it)).unwrap_or_default();
    let kept = pairs.and_then(|it| rebuilt.resume(rollout, it, now));
    for (index, visit) in visits.iter().enumerate().skip(kept.unwrap_or(0)) {
        if kept != Some(index) {
            rebuilt.enter(rollout, index, *visit);
        }
        let end = visits.get(index + 1).map_or(Timestamp(u64::MAX), |it| it.from);
        let after = begun.get(&visit.from).copied().unwrap_or(0);
        let after = if kept == Some(index) { after.max(rebuilt.seq) } else { after };
        let mut first = None;
        if let Some(pairs) = pairs {
            let drawn = drawn(rollout, index, *visit).is_some();
            let until = begun.get(&end).copied();
            let span = Span { visit: *visit, drawn, end, after, until, now };
            first = rebuilt.feed(rollout, &span, pairs);
        }
        let before = first.map_or(rebuilt.seq, |it| it.saturating_sub(1));
        // The note may be older than what is kept; a checkpoint knows better than what is left.
        let noted = begun.contains_key(&visit.from) || kept == Some(index);
        rebuilt.unnoted = (!noted).then_some(before);
    }
    let (counted, checkpoint) = (rebuilt.counted, kept.is_some());
    let rollout = rollout.name();
    tracing::info!(%rollout, checkpoint, counted, "evidence rebuilt from what was stored");
    rebuilt
}

/// The chances in a visit, if it is known by which shares its requests were drawn: those of the
/// last one are those of the plan, by which more will be drawn.
fn drawn(rollout: &Rollout, index: usize, visit: Visit) -> Option<Chances> {
    let last = rollout.plan().stages.get(visit.stage).filter(|_| is_last(rollout, index));
    let kept = || visit.shares.map(|(serve, mirror)| Chances::by(serve, mirror));
    last.map(Chances::of).or_else(kept)
}

fn is_last(rollout: &Rollout, index: usize) -> bool {
    index + 1 == rollout.visits().len()
}

/// The place after which each visit began, by its time, where that was noted.
fn begun(rollout: &Rollout, pairs: &Pairs) -> BTreeMap<Timestamp, u64> {
    let mut begun = BTreeMap::new();
    let mut stages: Vec<usize> = rollout.visits().iter().map(|it| it.stage).collect();
    stages.sort_unstable();
    stages.dedup();
    for stage in stages {
        let window = window(rollout, stage);
        let read = pairs.begun(&window, &mut |order| {
            begun.insert(order.at, order.seq);
        });
        if let Err(error) = read {
            tracing::error!(rollout = %window.rollout, stage, %error, "stored notes cannot be read");
        }
    }
    begun
}

fn window(rollout: &Rollout, stage: usize) -> Window {
    let stage = u32::try_from(stage).unwrap_or(u32::MAX);
    Window { rollout: rollout.name().clone(), attempt: rollout.attempt(), stage }
}

impl Rebuilt {
    /// Takes the bets of the last checkpoint, if it is of a visit in this attempt: which.
    fn resume(&mut self, rollout: &Rollout, pairs: &Pairs, now: Timestamp) -> Option<usize> {
        let kept = Checkpoint::load(pairs, rollout.name())?;
        if kept.attempt != rollout.attempt() {
            return None;
        }
        let visit = rollout.visits().iter().rposition(|it| it.from == kept.visit)?;
        if !self.ledger.decode(now, &kept.bets) {
            tracing::warn!(rollout = %rollout.name(), "the checkpoint does not fit the plan");
            return None;
        }
        self.seq = kept.told.seq;
        Some(visit)
    }

    fn enter(&mut self, rollout: &Rollout, index: usize, visit: Visit) {
        if rollout.state() == State::Succeeded && is_last(rollout, index) {
            self.ledger.follow(rollout, visit.from, &Event::Succeeded(Cause::GatesPassed));
        } else {
            let chances = drawn(rollout, index, visit).unwrap_or_default();
            if !visit.times && self.ledger.is_in(visit.stage) {
                self.ledger.renew(visit.from, chances);
            } else {
                self.ledger.enter(visit.stage, visit.from, chances);
            }
        }
    }

    /// Enters what was told in a visit of a stage; the first place of it.
    fn feed(&mut self, rollout: &Rollout, span: &Span, pairs: &Pairs) -> Option<u64> {
        let (window, mut first) = (window(rollout, span.visit.stage), None);
        let read = pairs.of_window(&window, &mut |seen: Seen| {
            self.seq = self.seq.max(seen.order().seq);
            let news = News::of(&seen);
            let holds = span.holds(seen.order(), &news);
            let news = if span.drawn { Some(news) } else { news.undrawn() };
            if let Some(news) = news.filter(|_| holds) {
                self.ledger.hear(&news);
                self.counted += u64::from(!news.is_begin());
                first = first.or(Some(seen.order().seq));
            }
        });
        if let Err(error) = read {
            let (rollout, stage) = (&window.rollout, span.visit.stage);
            tracing::error!(%rollout, stage, %error, "stored pairs of a stage cannot be read");
        }
        first
    }
}

impl Span {
    /// Whether it was told in the visit, of something that was asked in it.
    fn holds(&self, order: Order, news: &News) -> bool {
        let made = news.made;
        if news.is_begin() {
            return order.at == self.visit.from;
        }
        let before_next = match self.until {
            Some(until) => order.seq <= until,
            None => made < self.end,
        };
        // What was kept before places were kept has none, and is in every checkpoint.
        let after = self.after < order.seq || (order.seq == 0 && self.after == 0);
        self.visit.from <= made && after && before_next && order.at <= self.now
    }
}

/// What a restart must not forget of a rollout's traffic: the day and its copies, then the window
/// (attempt, stage) with the copies that were due and missing in it, then when its visit began and
/// how many milliseconds it lasted, and the identity of its providers; 0 was kept by who knew none.
type Counts = [u64; 9];

fn key(rollout: &Name) -> String {
    format!("traffic/{rollout}")
}

fn kept(pairs: Option<&Pairs>, rollout: &Name) -> Option<Counts> {
    numbers(pairs, &key(rollout))
}

/// Numbers that were kept; those that were not are 0.
fn numbers<const N: usize>(pairs: Option<&Pairs>, key: &str) -> Option<[u64; N]> {
    let kept = pairs?.kept(key)?;
    let kept = kept.chunks_exact(8).filter_map(|it| it.try_into().ok().map(u64::from_be_bytes));
    let mut numbers = [0; N];
    for (number, kept) in numbers.iter_mut().zip(kept) {
        *number = kept;
    }
    Some(numbers)
}

/// The day's copies and what was spent, as last kept. The cap is that of the plan.
pub(super) fn copies(
    pairs: Option<&Pairs>,
    rollout: &Name,
    budgets: &Budgets,
    now: Timestamp,
) -> Copies {
    let made = kept(pairs, rollout).map_or((0, 0), |counts| (counts[0], counts[1]));
    let [day, today, total] = numbers(pairs, &spend_key(rollout)).unwrap_or_default();
    let budget = budgets.own.get(rollout).copied().unwrap_or_default();
    let purse = Purse::new(budget, Arc::clone(&budgets.all), now, Spent { day, today, total });
    Copies::new(0, made).paid_from(Arc::new(purse))
}

/// Where is kept what a rollout spent: the day, what was spent on it, and in all.
fn spend_key(rollout: &Name) -> String {
    format!("spend/{rollout}")
}

/// Where is kept what a rollout's requests cost, in the order of [`Savings`].
fn savings_key(rollout: &Name) -> String {
    format!("savings/{rollout}")
}

fn savings(pairs: Option<&Pairs>, rollout: &Name) -> Savings {
    let [served, priced, served_nano_usd, pairs, primary_nano_usd, candidate_nano_usd] =
        numbers(pairs, &savings_key(rollout)).unwrap_or_default();
    Savings { served, priced, served_nano_usd, pairs, primary_nano_usd, candidate_nano_usd }
}

/// Copies due and missing in the window that is open, as last kept: what could not be trusted
/// before a restart cannot be trusted after it. So with the time spent in the stage, of which
/// nothing has passed since; a visit of which nothing is known, as it is new or the store cannot be
/// used, begins again. Returns the identity of its providers then.
fn coverage(pairs: Option<&Pairs>, managed: &mut Managed, now: Timestamp) -> Option<u64> {
    let window = managed.rollout.window()?;
    let here = [u64::from(window.attempt), u64::from(window.stage)];
    let (mut dwelt_ms, mut identity) = (0, None);
    if let Some(counts) = kept(pairs, &window.rollout)
        && let [_, _, attempt, stage, due, missing, since, ms, of] = counts
        && [attempt, stage] == here
    {
        identity = Some(of).filter(|it| *it != 0);
        if since == managed.rollout.since().0 {
            managed.live = Arc::new(managed.live.resumed((due, missing)));
        }
        // Another plan of the stage is another visit of it, and its time goes on.
        let visits = managed.rollout.timed_since().0..=managed.rollout.since().0;
        if visits.contains(&since) {
            dwelt_ms = ms;
        }
    }
    managed.wake(now, dwelt_ms);
    identity
}

/// Where it is kept as which models the sides of a rollout answer.
fn answers_key(rollout: &Name) -> String {
    format!("answers/{rollout}")
}

/// Where the climate of a primary is kept.
fn climate_key(primary: &Name) -> String {
    format!("climate/{primary}")
}

/// The primary's climate goes on where it stood.
pub(super) async fn climate(pairs: Option<Pairs>, barometer: &Barometer) {
    let Some(pairs) = pairs else { return };
    let key = climate_key(barometer.primary());
    // A read that fails is as good as none: it is logged, and the climate begins anew.
    let kept = spawn_blocking(move || pairs.kept(&key)).await.ok().flatten();
    if let Some(kept) = kept
        && !barometer.resume(&kept)
    {
        tracing::warn!("the primary's climate that was kept cannot be read; it begins anew");
    }
}

/// Where the first marks of each judge are kept.
const JUDGE_KEY: &str = "judge";

/// How far a judge has drifted is told from its first marks, also over a restart.
pub(super) async fn judge(pairs: Option<Pairs>, fitness: &Fitness) {
    let Some(pairs) = pairs else { return };
    // A read that fails is as good as none: it is logged, and the next marks are the first.
    let kept = spawn_blocking(move || pairs.kept(JUDGE_KEY)).await.ok().flatten();
    if let Some(kept) = kept
        && !fitness.resume(&kept)
    {
        tracing::warn!("the judge's first marks that were kept cannot be read; they begin anew");
    }
}

/// The bets of a rollout as they are now, where it is time to keep them.
fn checkpoint(managed: &mut Managed, now: Timestamp) -> Option<Checkpoint> {
    managed.rollout.guarded()?;
    let window = managed.rollout.window()?;
    if now.millis_since(managed.checkpointed) < CHECKPOINT_MS {
        return None;
    }
    managed.checkpointed = now;
    Some(Checkpoint {
        rollout: window.rollout,
        attempt: window.attempt,
        visit: managed.rollout.since(),
        told: managed.told,
        bets: managed.ledger.encode(),
    })
}

/// Removes all that is kept of a rollout but its pairs.
fn forget(pairs: &Pairs, rollout: &Name) -> Result<(), PairsError> {
    Checkpoint::forget(pairs, rollout)?;
    let of = [key, spend_key, savings_key, answers_key];
    of.iter().try_for_each(|it| pairs.unkeep(&it(rollout)))
}

/// Keeps the bets and counts of every rollout, and the primary's climate when it has changed, on a thread
/// of its own: the index may wait for its disk.
///
/// What may be spent until the next time is kept before it is spent: a crash forgets one call of it
/// at most.
pub(super) fn keep(controller: &mut Controller, next: Next) -> Option<JoinHandle<()>> {
    let now = controller.clock.now();
    let promises = promises(controller, next, now);
    let Some(pairs) = controller.pairs.clone() else {
        // What cannot be kept is forgotten, and is said to be; copies are made all the same.
        for it in &promises {
            it.purse.assure(it.spent);
        }
        return None;
    };
    let checkpoints = controller.managed.values_mut().filter_map(|it| checkpoint(it, now));
    let checkpoints: Vec<Checkpoint> = checkpoints.collect();
    let answers = controller.managed.iter_mut();
    let answers = answers.filter_map(|(name, it)| Some((answers_key(name), it.answers.fresh()?)));
    let answers: Vec<_> = answers.collect();
    let (managed, barometer) = (&controller.managed, &controller.barometer);
    let counts = |it: &Managed| {
        let now_of = || controller.identity(it.rollout.plan());
        let identity = it.outdated.unwrap_or_else(now_of);
        let ((day, made), (due, missing)) = (it.live.copies().made(), it.live.coverage());
        let window = it.rollout.window();
        let (attempt, stage) = window.map_or((0, 0), |it| (it.attempt, it.stage));
        let (since, dwelt_ms) = (it.rollout.since().0, it.rollout.dwelt_ms(now));
        let counts: Counts =
            [day, made, attempt.into(), stage.into(), due, missing, since, dwelt_ms, identity];
        (key(it.rollout.name()), counts.map(u64::to_be_bytes).concat())
    };
    let saved = |it: &Managed| {
        let Savings {
            served,
            priced,
            served_nano_usd,
            pairs,
            primary_nano_usd,
            candidate_nano_usd,
        } = it.savings;
        let costs = [served_nano_usd, pairs, primary_nano_usd, candidate_nano_usd];
        let numbers = [served, priced].into_iter().chain(costs).map(u64::to_be_bytes);
        (savings_key(it.rollout.name()), numbers.collect::<Vec<_>>().concat())
    };
    let mut kept: Vec<(String, Vec<u8>)> = managed.values().map(counts).collect();
    let mut gone = std::mem::take(&mut controller.gone);
    gone.retain(|it| !managed.contains_key(it));
    kept.extend(answers);
    kept.extend(managed.values().map(saved));
    kept.extend(promises.iter().map(Promise::kept));
    kept.extend(controller.fitness.changed().map(|it| (JUDGE_KEY.to_owned(), it)));
    kept.extend(barometer.changed().map(|it| (climate_key(barometer.primary()), it)));
    Some(spawn_blocking(move || {
        for name in gone {
            if let Err(error) = forget(&pairs, &name) {
                tracing::warn!(rollout = %name, %error, "what was kept of a deleted rollout stays");
            }
        }
        for checkpoint in checkpoints {
            if let Err(error) = checkpoint.save(&pairs) {
                let rollout = checkpoint.rollout;
                tracing::warn!(%rollout, %error, "no checkpoint is kept: a restart bets on all stored pairs again");
            }
        }
        let mut all = true;
        for (key, value) in kept {
            if let Err(error) = pairs.keep(&key, &value) {
                tracing::warn!(key, %error, "what a restart must not forget is not kept");
                all = false;
            }
        }
        if all {
            assure(&pairs, &promises);
        }
    }))
}

/// Whether what is kept will be kept again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Soon,
    Never,
}

/// What a rollout spends at most until the next time it is kept.
struct Promise {
    key: String,
    spent: Spent,
    purse: Arc<Purse>,
}

impl Promise {
    fn kept(&self) -> (String, Vec<u8>) {
        let Spent { day, today, total } = self.spent;
        (self.key.clone(), [day, today, total].map(u64::to_be_bytes).concat())
    }
}

fn promises(controller: &Controller, next: Next, now: Timestamp) -> Vec<Promise> {
    let promise = |it: &Managed| {
        let purse = Arc::clone(it.live.copies().purse());
        let spent = match next {
            Next::Soon => purse.ahead(now),
            Next::Never => purse.close(now),
        };
        Promise { key: spend_key(it.rollout.name()), spent, purse }
    };
    controller.managed.values().map(promise).collect()
}

/// Lets be spent what is on disk.
fn assure(pairs: &Pairs, promises: &[Promise]) {
    if promises.iter().all(|it| it.purse.is_assured(it.spent)) {
        return;
    }
    match pairs.flush() {
        Ok(()) => {
            for it in promises {
                it.purse.assure(it.spent);
            }
        }
        Err(error) => tracing::warn!(%error, "what may be spent is not kept, so nothing is"),
    }
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "rebuild_order_tests.rs"]
mod order_tests;
