//! What the proxy and the controller share: the published snapshot, live counters, what was seen.

mod agreed;
mod barometer;
mod calibrated;
mod conversations;
mod copies;
mod fitness;
mod kept;
mod outbox;
mod purse;
mod repeats;
mod surveyor;
mod trail;

pub use agreed::Agreed;
pub use barometer::Barometer;
pub use calibrated::{Calibrated, Tried};
pub use copies::Copies;
pub use fitness::{Fitness, Reply};
pub use kept::{Heard, Kept};
pub use outbox::Outbox;
pub use purse::{Pot, Purse, Reserved, Spent};
pub use surveyor::{Surveyor, usage};
pub use trail::{Counted, REQUESTS_LEN_MAX, Routed, Trace, Trail};

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::analysis::{Ticket, Tripwire, UnderWay};
use crate::clock;
use crate::domain::{Facts, Lane, Name, PairId, Route, Side, Snapshot, Timestamp, Window};
use crate::memory::{Fair, Held, Part};

use conversations::Conversations;
use repeats::Repeats;

/// A pair for the judge: the conversation and both answers as text.
#[derive(Debug)]
pub struct Job {
    /// The pair.
    pub pair: PairId,
    /// The evidence it belongs to.
    pub window: Window,
    /// The watched slice it is in; empty for none.
    pub watched: String,
    /// The conversation up to the answers.
    pub question: String,
    /// What the primary answered.
    pub primary: String,
    /// What the candidate answered.
    pub candidate: String,
    /// Whether the candidate gave that answer to several other questions lately, and the primary
    /// its own to none.
    pub is_repeated: bool,
    /// Whether the judge's reasons, which may repeat all of it, are kept with its score.
    pub reasons: Reasons,
    /// The memory that the texts take.
    pub held: Held,
    /// What pays for its score.
    pub purse: Arc<Purse>,
}

/// What becomes of the words of a judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasons {
    /// They are kept.
    Kept,
    /// They are not: the store is not cleared for what they are about.
    Withheld,
}

/// What a lane's traffic comes to while its window is open.
#[derive(Debug)]
pub struct Live {
    count: Arc<Count>,
    way: Arc<Way>,
    copies: Arc<Copies>,
}

/// Copies of one window: due, missing, and whether the cap kept the last one from being made; and
/// the requests that were kept from a side.
#[derive(Debug)]
struct Count {
    due: AtomicU64,
    missing: AtomicU64,
    capped: AtomicBool,
    unpriced: AtomicBool,
    kept: Kept,
    under_way: Mutex<UnderWay>,
}

/// The way to a candidate, open through all stages of an attempt.
#[derive(Debug)]
struct Way {
    tripped: AtomicBool,
    wire: Mutex<Tripwire>,
    closed: watch::Sender<bool>,
    part: Arc<Part>,
    conversations: Mutex<Conversations>,
    /// What was answered lately, by the primary and by the candidate.
    answers: [Mutex<Repeats>; 2],
}

/// All that the proxy obeys now, and where it counts.
#[derive(Debug, Default)]
pub struct Published {
    /// The rules.
    pub snapshot: Snapshot,
    /// The counters, one for each lane.
    pub live: Vec<Arc<Live>>,
}

/// The one place where the controller publishes and the proxy reads.
#[derive(Debug, Default)]
pub struct Board {
    current: ArcSwap<Published>,
    /// Rollouts that were sent back in the data path and are not yet in the journal.
    halted: Mutex<HashMap<Name, Instant>>,
    alarm: Notify,
}

/// A copy that is due: counted as missing, and told to the controller as lost, unless it ends as
/// a pair or is excused.
#[derive(Debug)]
pub struct Due {
    live: Option<Arc<Live>>,
    window: Window,
    outbox: Outbox,
    waited: Waited,
}

/// A call whose end is evidence, from its beginning until this is dropped.
#[derive(Debug)]
pub struct Waited {
    count: Arc<Count>,
    ticket: Ticket,
    begun: Instant,
    /// Whether its end was heard.
    heard: AtomicBool,
}

impl Live {
    /// Counters for an attempt that begins.
    pub fn new(copies: Arc<Copies>) -> Self {
        let way = Way {
            tripped: AtomicBool::new(false),
            wire: Mutex::new(Tripwire::new()),
            closed: watch::Sender::new(false),
            part: Arc::default(),
            conversations: Mutex::default(),
            answers: Default::default(),
        };
        Self::counting(Arc::new(way), copies, (0, 0), Kept::default())
    }

    /// Counters for the next window of the same attempt: what is under way goes on.
    #[must_use]
    pub fn next(&self) -> Self {
        let (way, copies) = (Arc::clone(&self.way), Arc::clone(&self.copies));
        Self::counting(way, copies, (0, 0), self.count.kept.next())
    }

    /// The same window under another cap: copies under way are counted in both.
    #[must_use]
    pub fn capped(&self, copies: Arc<Copies>) -> Self {
        self.count.capped.store(false, Ordering::Relaxed);
        Self { count: Arc::clone(&self.count), way: Arc::clone(&self.way), copies }
    }

    /// The same window with copies due and missing that were counted before a restart.
    #[must_use]
    pub fn resumed(&self, coverage: (u64, u64)) -> Self {
        let (way, copies) = (Arc::clone(&self.way), Arc::clone(&self.copies));
        Self::counting(way, copies, coverage, Kept::default())
    }

    fn counting(
        way: Arc<Way>,
        copies: Arc<Copies>,
        (due, missing): (u64, u64),
        kept: Kept,
    ) -> Self {
        let (due, missing) = (AtomicU64::new(due), AtomicU64::new(missing));
        let (capped, unpriced) = (AtomicBool::new(false), AtomicBool::new(false));
        let under_way = Mutex::default();
        let count = Arc::new(Count { due, missing, capped, unpriced, kept, under_way });
        Self { count, way, copies }
    }

    /// Counts a copy that was due and cannot even begin.
    pub fn miss(&self) {
        self.count.due.fetch_add(1, Ordering::Relaxed);
        self.count.missing.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a copy that is due, if the daily cap allows it. It is told as lost by the outbox if
    /// it is.
    pub fn due(self: &Arc<Self>, now: Timestamp, window: &Window, outbox: &Outbox) -> Option<Due> {
        if !self.copies.take(now) {
            self.count.capped.store(true, Ordering::Relaxed);
            return None;
        }
        self.count.capped.store(false, Ordering::Relaxed);
        self.count.due.fetch_add(1, Ordering::Relaxed);
        let (live, outbox) = (Some(Arc::clone(self)), outbox.clone());
        Some(Due { live, window: window.clone(), outbox, waited: self.wait(now) })
    }

    /// Takes note that a call has begun whose end is evidence.
    pub fn wait(&self, now: Timestamp) -> Waited {
        let ticket = lock(&self.count.under_way).begin(now);
        let count = Arc::clone(&self.count);
        Waited { count, ticket, begun: clock::instant(), heard: AtomicBool::new(false) }
    }

    /// Why what was heard in the window is not all, if too much of it is still under way.
    pub fn under_way(&self, now: Timestamp) -> Option<String> {
        lock(&self.count.under_way).problem(now)
    }

    /// Copies that were due, and those of them that never became a pair.
    pub fn coverage(&self) -> (u64, u64) {
        (self.count.due.load(Ordering::Relaxed), self.count.missing.load(Ordering::Relaxed))
    }

    /// Whether the day has no room for a copy like one that may be due now.
    pub fn is_full(&self, now: Timestamp) -> bool {
        let full = self.copies.is_full(now);
        self.count.capped.store(full, Ordering::Relaxed);
        full
    }

    /// Whether the last copy that was due met the cap of the day that it is now.
    pub fn is_capped(&self, now: Timestamp) -> bool {
        self.count.capped.load(Ordering::Relaxed) && self.copies.made().0 == now.day()
    }

    /// Why no copies are made now, if so.
    pub fn unpaid(&self, now: Timestamp) -> Option<String> {
        const UNPRICED: &str = "there is a budget, and a model that is asked for has no price: \
                                give it one (`crossfade prices`)";
        let unpriced = self.count.unpriced.load(Ordering::Relaxed).then(|| UNPRICED.to_owned());
        self.copies.purse().problem(now).or(unpriced)
    }

    /// Takes note of what copies like the last one that was due may cost, if that is known.
    pub fn price(&self, most_nano_usd: Option<u64>) {
        self.count.unpriced.store(most_nano_usd.is_none(), Ordering::Relaxed);
    }

    /// The requests of the window that were kept from a side.
    pub fn kept(&self) -> &Kept {
        &self.count.kept
    }

    /// The day's copies.
    pub fn copies(&self) -> &Arc<Copies> {
        &self.copies
    }

    /// The route of a request, where one of a conversation under way keeps its side: the candidate
    /// serves none of them that it did not serve before.
    pub fn keep(&self, lane: &Lane, facts: &Facts, route: Route, now: Timestamp) -> Route {
        // Where no lots were drawn nobody is moved.
        let Some(key) = facts.conversation().filter(|_| route.places.is_some()) else {
            return route;
        };
        let serve = lane.shares(facts).serve;
        let began = lock(&self.way.conversations).see(key, serve, now);
        route.kept(lane, facts, began)
    }

    /// Takes an answer of a side to a question. Whether the same, or nearly the same, was lately
    /// given to several others.
    pub fn is_repeated(&self, side: Side, question: u64, answer: &str) -> bool {
        let [primary, candidate] = &self.way.answers;
        let given = if side == Side::Primary { primary } else { candidate };
        lock(given).see(question, answer)
    }

    /// Its part of what all rollouts share, where so many share it.
    pub fn fair(&self, rollouts: usize) -> Fair {
        Fair::new(Arc::clone(&self.way.part), rollouts)
    }

    /// Whether the candidate may be asked: the window is open and the tripwire silent.
    pub fn is_open(&self) -> bool {
        !*self.way.closed.borrow() && !self.is_tripped()
    }

    /// Whether the tripwire went off.
    pub fn is_tripped(&self) -> bool {
        self.way.tripped.load(Ordering::Acquire)
    }

    /// Closes the window: copies that wait or run are given up.
    pub fn close(&self) {
        self.way.closed.send_replace(true);
    }

    /// Resolves when the window is closed.
    pub async fn closed(&self) {
        let _ = self.way.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Tells the tripwire how a request went on each side that was asked (answered well or not).
    /// When it goes off, no request reaches the candidate any more, from here on.
    pub fn watch(
        &self,
        board: &Board,
        now: Timestamp,
        primary: Option<bool>,
        candidate: Option<bool>,
    ) {
        let alarm = lock(&self.way.wire).see(now, primary, candidate);
        if alarm && !self.way.tripped.swap(true, Ordering::AcqRel) {
            self.close();
            board.alarm.notify_one();
        }
    }
}

impl Due {
    /// The copy became a pair.
    pub fn paired(mut self) {
        self.live = None;
        self.waited.hear();
    }

    /// The copy was given up while it was under way: it is no missing pair, but its outcome is
    /// lost, and may have been a failure.
    pub fn lose(mut self) {
        if let Some(live) = self.live.take() {
            live.count.due.fetch_sub(1, Ordering::Relaxed);
            self.outbox.copy_lost(&self.window);
        }
    }

    /// The copy cannot become a pair through nobody's fault: the caller left, the window closed.
    pub fn excuse(mut self) {
        if let Some(live) = self.live.take() {
            live.count.due.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Waited {
    /// Its end was heard.
    pub fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        let mut under_way = lock(&self.count.under_way);
        if self.heard.load(Ordering::Relaxed) {
            under_way.hear(self.ticket, clock::elapsed_ms(self.begun).into());
        } else {
            under_way.forget(self.ticket);
        }
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            live.count.missing.fetch_add(1, Ordering::Relaxed);
            self.outbox.copy_lost(&self.window);
        }
    }
}

impl Board {
    /// What holds now.
    pub fn load(&self) -> Arc<Published> {
        self.current.load_full()
    }

    /// Replaces what holds. Rollouts that move nothing any more are closed: what is on its way to
    /// their candidate is given up.
    pub fn publish(&self, lanes: Vec<(Arc<Lane>, Arc<Live>)>) {
        let halted = lock(&self.halted);
        let lanes: Vec<_> = lanes
            .into_iter()
            .map(|(lane, live)| {
                if halted.contains_key(&lane.rollout) { (still(&lane), live) } else { (lane, live) }
            })
            .collect();
        self.swap(lanes);
    }

    /// Sends a rollout's traffic to the primary at once, whatever the controller is doing.
    ///
    /// Holds until [`Self::release`], also for what is published in between.
    pub fn halt(&self, rollout: &Name) {
        let mut halted = lock(&self.halted);
        halted.entry(rollout.clone()).or_insert_with(clock::instant);
        let now = self.load();
        let stop = |lane: &Arc<Lane>| {
            if lane.rollout == *rollout { still(lane) } else { Arc::clone(lane) }
        };
        let lanes = now.snapshot.lanes.iter().map(stop).zip(now.live.iter().map(Arc::clone));
        self.swap(lanes.collect());
    }

    /// Rollouts that were halted so long ago that whoever asked has given up waiting.
    pub fn halted_for(&self, time: Duration) -> Vec<Name> {
        let halted = lock(&self.halted);
        halted.iter().filter(|(_, at)| time <= at.elapsed()).map(|(name, _)| name.clone()).collect()
    }

    /// Ends a halt, once the controller has taken the rollout back itself.
    pub fn release(&self, rollout: &Name) {
        lock(&self.halted).remove(rollout);
    }

    /// Resolves when a tripwire went off.
    pub async fn alarm(&self) {
        self.alarm.notified().await;
    }

    fn swap(&self, lanes: Vec<(Arc<Lane>, Arc<Live>)>) {
        let (lanes, live): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
        let next = Arc::new(Published { snapshot: Snapshot { lanes }, live });
        let before = self.current.swap(Arc::clone(&next));
        for (lane, live) in before.snapshot.lanes.iter().zip(&before.live) {
            let goes_on =
                |other: &Arc<Lane>| other.rollout == lane.rollout && other.window.is_some();
            if lane.window.is_some() && !next.snapshot.lanes.iter().any(goes_on) {
                live.close();
            }
        }
    }
}

/// The lane with no traffic moving.
fn still(lane: &Arc<Lane>) -> Arc<Lane> {
    Arc::new(Lane { window: None, ..(**lane).clone() })
}

/// Which provider a lane asks on a side.
pub fn provider(lane: &Lane, side: Side) -> &Name {
    match side {
        Side::Primary => &lane.primary,
        Side::Candidate => &lane.candidate,
    }
}

/// A poisoned lock still guards plain numbers, which stay usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
