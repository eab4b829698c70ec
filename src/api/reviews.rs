//! Reviews: pairs drawn from the store, shown blind, and what people say of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::blind::Texts;
use crate::domain::{
    Choice, Desk, Late, Lease, Name, Pair, PairId, Progress, Review, Rollout, Score, Seen, Side,
    Timestamp, Window,
};
use crate::store::{PAGE_LEN_MAX, Pairs, PairsError};
use crate::traffic::{Agreed, Outbox};

/// How long the judge's word of a pair is waited for, in milliseconds: what comes later draws
/// nothing, so that what is drawn does not depend on when somebody looks.
const SETTLE_MS: u64 = 120_000;
/// How long after its request a pair may come to the store, in milliseconds.
const OVERLAP_MS: u64 = 900_000;
/// How often new pairs are looked for, in milliseconds.
const LOOK_EVERY_MS: u64 = 2_000;
/// Pages of pairs that are looked through at once.
const PAGES_MAX: usize = 20;
/// Pairs that are known to have no texts to show; of more, the oldest are looked at again.
const TEXTLESS_LEN_MAX: usize = 10_000;
/// Pairs for which people are compared with the judge.
const JUDGED_LEN_MAX: usize = 1_000;

/// The desks of all rollouts.
#[derive(Debug, Default)]
pub(super) struct Desks(Mutex<HashMap<Name, Drawn>>);

/// A desk, and how far the pairs of its rollout were looked through.
#[derive(Debug, Default)]
struct Drawn {
    desk: Desk,
    looked: Option<(Window, Timestamp)>,
    textless: BTreeSet<PairId>,
    /// What of the reviews is evidence, beside each judge.
    people: BTreeMap<String, Agreed>,
}

/// Who asks for a pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asks<'a> {
    pub(super) rollout: &'a Rollout,
    pub(super) reviewer: &'a str,
    pub(super) now: Timestamp,
}

/// What a reviewer is given.
#[derive(Debug)]
pub(super) struct Given {
    /// None where there is nothing to show.
    pub(super) shown: Option<(Lease, Texts)>,
    pub(super) waiting: u64,
}

/// What became of an answer.
#[derive(Debug)]
pub(super) enum Submitted {
    /// It is on disk; it may be changed until then.
    Kept(Timestamp),
    /// It is not taken, of this rollout.
    Refused(Name, Late),
    /// Somebody else has the lease.
    NotTheirs,
    /// There is no such lease.
    Unknown,
}

/// How far reviews have come.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) progress: Progress,
    /// The candidate's part of the wins.
    pub(super) wins: Option<f64>,
    /// With the judge that marked the newest of those pairs.
    pub(super) judge: Agreed,
}

impl Desks {
    /// Shows a reviewer the pair they have in hands, or the next.
    pub(super) fn lease(
        &self,
        asks: Asks<'_>,
        lease_ms: u64,
        store: &Pairs,
    ) -> Result<Given, PairsError> {
        let mut desks = self.known();
        let drawn = loaded(&mut desks, asks.rollout.name(), store)?;
        let Asks { rollout, reviewer, now } = asks;
        if let Some((review, lease)) = drawn.desk.held(reviewer, now)
            && let Some(texts) = texts(review.pair, store)?
        {
            let shown = Some((lease.clone(), texts));
            return Ok(Given { shown, waiting: drawn.waiting(asks) });
        }
        let Some(window) = under_way(rollout) else {
            return Ok(Given { shown: None, waiting: 0 });
        };
        drawn.look((rollout, &window), now, store)?;
        let within = (&window, rollout.since());
        let waiting: Vec<Review> = drawn.desk.waiting_for(reviewer, within, now).cloned().collect();
        for mut review in waiting {
            let Some(texts) = texts(review.pair, store)? else {
                drawn.leave_out(review.pair);
                continue;
            };
            let lease = Lease {
                id: Uuid::now_v7().as_u128(),
                reviewer: reviewer.to_owned(),
                until: Timestamp(now.0 + lease_ms),
                first: coin(),
                said: None,
                comment: String::new(),
            };
            review.give(lease.clone(), now);
            store.put_review(&review, now)?;
            drawn.desk.put(review);
            return Ok(Given { shown: Some((lease, texts)), waiting: drawn.waiting(asks) });
        }
        Ok(Given { shown: None, waiting: 0 })
    }

    /// Takes an answer; it is on disk when this returns. `names` are all rollouts.
    pub(super) fn submit(
        &self,
        (lease, reviewer): (u128, &str),
        (choice, comment): (impl Fn(Side) -> Choice, &str),
        now: Timestamp,
        (names, store): (&[Name], &Pairs),
    ) -> Result<Submitted, PairsError> {
        let mut desks = self.known();
        for name in names {
            let drawn = loaded(&mut desks, name, store)?;
            let Some((_, known)) = drawn.desk.find(lease) else { continue };
            if known.reviewer != reviewer {
                return Ok(Submitted::NotTheirs);
            }
            let (until, choice) = (known.until, choice(known.first));
            match drawn.desk.said(lease, (choice, comment), now) {
                Some(Ok(review)) => {
                    store.put_review(&review, now)?;
                    drawn.desk.put(review);
                    return Ok(Submitted::Kept(until));
                }
                Some(Err(late)) => return Ok(Submitted::Refused(name.clone(), late)),
                None => {}
            }
        }
        Ok(Submitted::Unknown)
    }

    /// Hands what can be changed no more to the evidence. What finds no room waits for its turn.
    ///
    /// Its place is on disk after it was handed over: where the program ends in between it is
    /// handed over again, and bets take the first word on a pair alone.
    pub(super) fn settle(
        &self,
        names: &[Name],
        (outbox, now): (&Outbox, Timestamp),
        store: &Pairs,
    ) -> Result<(), PairsError> {
        let mut desks = self.known();
        for name in names {
            let drawn = loaded(&mut desks, name, store)?;
            for review in drawn.desk.due(now) {
                let mut seen = Seen::Review(Box::new(review.clone()));
                let Some(order) = outbox.offer(seen.clone()) else { return Ok(()) };
                seen.place(order);
                if let Seen::Review(review) = seen {
                    store.put_review(&review, now)?;
                    drawn.compare(&review, store)?;
                    drawn.desk.put(*review);
                }
            }
        }
        Ok(())
    }

    /// How far people and each judge agree, by all that is evidence.
    pub(super) fn people(&self) -> BTreeMap<String, Agreed> {
        let mut people: BTreeMap<String, Agreed> = BTreeMap::new();
        for (source, agreed) in self.known().values().flat_map(|it| &it.people) {
            people.entry(source.clone()).or_default().join(agreed);
        }
        people
    }

    /// How far the reviews of a rollout have come.
    pub(super) fn standing(&self, asks: Asks<'_>, store: &Pairs) -> Result<Standing, PairsError> {
        let mut desks = self.known();
        let Asks { rollout, reviewer, now } = asks;
        let drawn = loaded(&mut desks, rollout.name(), store)?;
        let window = under_way(rollout);
        if let Some(window) = &window {
            drawn.look((rollout, window), now, store)?;
        }
        let since = window.as_ref().map(|it| (it, rollout.since()));
        let progress = drawn.desk.progress(reviewer, since, now);
        let (mut judge, mut wins, mut count) = (Agreed::default(), 0.0, 0_u32);
        let mut source = None;
        for (at, (review, people)) in drawn.desk.winners().enumerate() {
            (wins, count) = (wins + people.win(), count + 1);
            if JUDGED_LEN_MAX <= at {
                continue;
            }
            for score in store.scores(review.pair)?.iter().filter(|it| is_judges(it)) {
                if *source.get_or_insert_with(|| score.source.clone()) == score.source {
                    judge.add(review, people, [score.primary, score.candidate]);
                }
            }
        }
        let wins = (0 < count).then(|| wins / f64::from(count));
        Ok(Standing { progress, wins, judge })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Name, Drawn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The desk of a rollout, with what earlier processes have shown.
fn loaded<'a>(
    desks: &'a mut HashMap<Name, Drawn>,
    rollout: &Name,
    store: &Pairs,
) -> Result<&'a mut Drawn, PairsError> {
    if !desks.contains_key(rollout) {
        let reviews = store.reviews(rollout)?;
        let mut drawn = Drawn::default();
        for review in reviews.iter().rev().take(JUDGED_LEN_MAX) {
            drawn.compare(review, store)?;
        }
        drawn.desk = Desk::new(reviews);
        desks.insert(rollout.clone(), drawn);
    }
    Ok(desks.entry(rollout.clone()).or_default())
}

/// The window whose pairs are shown: that of the stage, while it counts.
fn under_way(rollout: &Rollout) -> Option<Window> {
    rollout.guarded().and_then(|_| rollout.window())
}

/// The texts of a pair; none where there is nothing that can be shown.
fn texts(pair: PairId, store: &Pairs) -> Result<Option<Texts>, PairsError> {
    let (Some((pair, _)), Some(bodies)) = (store.get(pair)?, store.bodies(pair)?) else {
        return Ok(None);
    };
    Ok(Texts::read(&pair, &bodies))
}

/// What a judge says of a pair, by its scores.
fn judged(scores: &[Score]) -> Option<&Score> {
    scores.iter().find(|it| is_judges(it))
}

fn is_judges(score: &Score) -> bool {
    !score.source.starts_with(Score::RULE)
}

/// A side by chance, of which nothing that is shown tells.
fn coin() -> Side {
    if Uuid::now_v7().as_u128().is_multiple_of(2) { Side::Primary } else { Side::Candidate }
}

impl Drawn {
    fn waiting(&self, Asks { rollout, reviewer, now }: Asks<'_>) -> u64 {
        let window = under_way(rollout);
        let since = window.as_ref().map(|it| (it, rollout.since()));
        self.desk.progress(reviewer, since, now).waiting
    }

    /// Sets what people say of a pair beside what each judge says, where it is evidence.
    fn compare(&mut self, review: &Review, store: &Pairs) -> Result<(), PairsError> {
        let Some(winner) = review.winner() else { return Ok(()) };
        for score in store.scores(review.pair)?.iter().filter(|it| is_judges(it)) {
            let agreed = self.people.entry(score.source.clone()).or_default();
            agreed.add(review, winner, [score.primary, score.candidate]);
        }
        Ok(())
    }

    /// Draws from the pairs that have come since it was last looked.
    fn look(
        &mut self,
        (rollout, window): (&Rollout, &Window),
        now: Timestamp,
        store: &Pairs,
    ) -> Result<(), PairsError> {
        let looked = self.looked.as_ref().filter(|(it, _)| it == window).map(|it| it.1);
        if looked.is_some_and(|it| now.millis_since(it) < LOOK_EVERY_MS) {
            return Ok(());
        }
        let overlap = Timestamp(looked.map_or(0, |it| it.0.saturating_sub(OVERLAP_MS)));
        let full = self.desk.full_from().map_or(Timestamp(0), PairId::at);
        let (from, mut before) = (overlap.max(rollout.since()).max(full), None);
        for _ in 0..PAGES_MAX {
            let page = store.newest_in(window, before, PAGE_LEN_MAX)?;
            for pair in page.iter().filter(|it| from <= it.at) {
                self.consider(pair, (rollout, now), store)?;
            }
            before = page.last().filter(|it| from <= it.at).map(|it| it.id);
            if before.is_none() {
                break;
            }
        }
        self.looked = Some((window.clone(), now));
        Ok(())
    }

    fn consider(
        &mut self,
        pair: &Pair,
        (rollout, now): (&Rollout, Timestamp),
        store: &Pairs,
    ) -> Result<(), PairsError> {
        let plan = rollout.plan();
        let known = self.desk.has(pair.id) || self.textless.contains(&pair.id);
        if known || !Review::may_draw(plan.review, pair) {
            return Ok(());
        }
        let scores = store.scores(pair.id)?;
        let settled = Timestamp(pair.order.map_or(pair.at, |it| it.at).0 + SETTLE_MS);
        let word = judged(&scores).filter(|it| it.at <= settled);
        let awaited = pair.judgeable && !plan.judge_share.is_none() && word.is_none();
        if awaited && now <= settled {
            return Ok(());
        }
        let Some(review) = Review::draw(plan.review, pair, word) else { return Ok(()) };
        let bodies = store.bodies(pair.id)?;
        if bodies.is_some_and(|it| Texts::read(pair, &it).is_some()) {
            self.desk.draw(review);
        } else {
            self.leave_out(pair.id);
        }
        Ok(())
    }

    /// Takes note of a pair that cannot be shown.
    fn leave_out(&mut self, pair: PairId) {
        self.desk.forget(pair);
        self.textless.insert(pair);
        if TEXTLESS_LEN_MAX < self.textless.len() {
            self.textless.pop_first();
        }
    }
}
