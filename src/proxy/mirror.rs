//! Asking the other side: a bounded copy of a request, and the pair that comes of it.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use hyper::{header::HeaderValue, http::request::Parts};
use tokio::{
    sync::{mpsc::error::TrySendError, oneshot},
    time::timeout,
};

use crate::clock;
use crate::dialect::{self, Asked, Purpose};
use crate::domain::{
    Call, Endpoint, Lot, Outcome, Pair, PairId, Seen, Share, Side, Skip, Told, Window,
};
use crate::memory::{Full, Held, Need, Seat};
use crate::patterns::Keys;
use crate::store::{Bodies, Offered};
use crate::tasks::{self, Place};
use crate::telemetry::{Loss, Role};
use crate::traffic::{
    Counted, Due, Job, Live, Published, Reasons, Reserved, Routed, Trace, provider,
};
use crate::upstream::Provider;

use super::{
    Proxy,
    answer::full,
    checks::{compare_halves, is_repeated},
    half::{Half, JUDGED_LEN_MAX, judged, stored},
    headers,
    redact::{keys, shown_path},
    serve::{Exchange, Use},
    tee::{Done, Ended, Keep, Taken},
};

/// What a copy takes until its answer is here; given back when dropped.
pub(super) struct Room(
    #[expect(dead_code, reason = "held for its drop")] Place,
    #[expect(dead_code, reason = "held for its drop")] Seat,
    #[expect(dead_code, reason = "held for its drop")] Held,
);

/// The answer that the caller gets, as a copy waits for it.
pub(super) enum Served {
    /// It has ended.
    Here(Box<Taken>),
    /// Its caller left before it began.
    Gone,
    /// It outlasts every limit.
    Late,
    /// Nobody waits any more: the rollout went back, or the program ends.
    Closed,
}

impl Proxy {
    /// Begins to ask `side` too, if the day and the pool have room. Returns where the answer
    /// that the caller gets is awaited.
    pub(super) fn mirror(
        self: &Arc<Self>,
        exchange: &Arc<Exchange>,
        side: Side,
    ) -> Result<oneshot::Sender<Taken>, Skip> {
        let (room, under_way) = self.room(exchange).inspect_err(|_| exchange.live.miss())?;
        let window = exchange.lane.window.as_ref().ok_or(Skip::NoRollout)?;
        // What is set aside for copies under way is not spent: those that wait for it are missing.
        let reserved = self.afford(exchange, side).inspect_err(|_| exchange.live.miss())?;
        let Some(due) = exchange.live.due(self.clock.now(), window, &self.outbox) else {
            reserved.settle(Some(0));
            return Err(Skip::DailyCap);
        };
        let (sender, served) = oneshot::channel();
        let (proxy, exchange) = (Arc::clone(self), Arc::clone(exchange));
        tasks::spawn("mirror", async move {
            proxy.copy((&exchange, side), served, (room, due, reserved)).await;
            drop(under_way);
        });
        Ok(sender)
    }

    /// A request that no rollout governs now, or whose rollout has no memory left for it.
    pub(super) fn ungoverned(&self, crowded: Option<&Arc<Live>>, routed: Routed) -> Arc<Routed> {
        let skip = match crowded {
            None => Skip::NoRollout,
            Some(live) => {
                if routed.route.mirror.is_ok() {
                    live.miss();
                }
                Skip::Memory
            }
        };
        self.metrics.skip(skip);
        let routed = Arc::new(routed);
        self.trail.add(Trace::Routed(Arc::clone(&routed)));
        routed
    }

    /// A request that there was no memory to read. Whose it was and whether a copy was due its head
    /// says, as far as it does.
    pub(super) fn unread(&self, id: PairId, head: &Parts, endpoint: Endpoint, board: &Published) {
        let facts = self.callers.facts(id, head, (endpoint, &Asked::default(), &[]));
        let route = board.snapshot.route(&facts);
        let live = route.lane.and_then(|it| board.live.get(it));
        if let Some(live) = live.filter(|it| it.is_open() && route.mirror.is_ok()) {
            live.miss();
        }
    }

    /// How an answer to this exchange is kept.
    pub(super) fn keep(&self, exchange: &Exchange) -> Keep {
        let held = self.memory.hold(Need::Answer, Some(&exchange.fair));
        Keep::UpTo(self.settings.capture_bytes_max, held)
    }

    /// Room for a copy, and a place among those under way to the end of both answers; or why there
    /// is none. It is looked for before anything is known of either answer, and each rollout has its
    /// part of it.
    pub(super) fn room(&self, exchange: &Exchange) -> Result<(Room, Place), Skip> {
        let seat = exchange.fair.try_seat(self.pool.len_max()).ok_or(Skip::Busy)?;
        let place = self.pool.try_enter().ok_or(Skip::Busy)?;
        // What sticks together is shed together.
        let key = exchange.routed.route.lot.and_then(Lot::key);
        let key = key.map_or_else(|| exchange.id.to_string(), |hash| hash.to_string());
        if !self.memory.admits_copy(&exchange.fair, &key) {
            return Err(Skip::Memory);
        }
        // The request is written anew for the candidate.
        let mut held = self.memory.hold(Need::Copy, Some(&exchange.fair));
        held.try_grow(exchange.body.len()).map_err(|Full| Skip::Memory)?;
        let under_way = self.under_way.try_enter().ok_or(Skip::Busy)?;
        Ok((Room(place, seat, held), under_way))
    }

    /// Asks a side, gives the room back, and waits for the answer that the caller gets.
    pub(super) async fn meet(
        &self,
        exchange: &Exchange,
        side: Side,
        room: Room,
        served: oneshot::Receiver<Taken>,
    ) -> (Taken, Served) {
        let started = clock::instant();
        let other = tokio::select! {
            biased;
            () = exchange.live.closed() => {
                let name = provider(&exchange.lane, side).clone();
                return (Taken::nothing(name, started, Ended::Abandoned), Served::Closed);
            }
            other = self.ask_other(exchange, side) => other,
        };
        // Waiting for a slow caller takes no place from another copy: there is one wait for each
        // request being answered, and those are limited themselves.
        drop(room);
        let served = tokio::select! {
            biased;
            () = exchange.live.closed() => Served::Closed,
            served = timeout(self.settings.upstream_timeout, served) => match served {
                Ok(Ok(served)) => Served::Here(Box::new(served)),
                Ok(Err(_)) => Served::Gone,
                Err(_) => Served::Late,
            },
        };
        (other, served)
    }

    async fn copy(
        &self,
        (exchange, side): (&Exchange, Side),
        served: oneshot::Receiver<Taken>,
        (room, due, reserved): (Room, Due, Reserved),
    ) {
        let (other, served) = self.meet(exchange, side, room, served).await;
        let keys = keys(exchange);
        // Read together, because what is read of an answer may be larger than what came of it.
        let copy = self.half(exchange, &other, &keys).await;
        self.count(&copy.call, Role::Mirror);
        self.paid(exchange, reserved, &copy.call);
        let served = match served {
            Served::Here(served) => served,
            Served::Closed => return self.give_up(due),
            // It leaves its copy without a pair, and that counts.
            Served::Late => return,
            Served::Gone => {
                self.metrics.loss(Loss::CallerGone);
                return due.excuse();
            }
        };
        let lost = self.lost(&served, &other);
        let served = self.half(exchange, &served, &keys).await;
        self.count(&served.call, Role::Serve);
        self.look_at(exchange, &served.call, served.reading.transcript.as_ref());
        let lost = lost.or_else(|| coding(&served.call, &copy.call));
        let halves = match side {
            Side::Candidate => (served, copy),
            Side::Primary => (copy, served),
        };
        match lost {
            None => self.pair((exchange, &keys), side.other(), halves, due),
            Some(Loss::CallerGone) => {
                // Nobody would have left the copy, so the two are not compared; that callers get
                // nothing counts all the same.
                let (primary, candidate) = (well(&halves.0.call), well(&halves.1.call));
                exchange.live.watch(&self.board, self.clock.now(), primary, candidate);
                self.metrics.loss(Loss::CallerGone);
                due.excuse();
            }
            // How it went is not known, and it counts as missing.
            Some(cause) => self.metrics.loss(cause),
        }
    }

    /// Why two calls of a request are no pair, if so: of one it is not known how it would have
    /// ended.
    pub(super) fn lost(&self, served: &Taken, copy: &Taken) -> Option<Loss> {
        let as_long = u128::from(served.total_ms) >= self.settings.copy_timeout.as_millis();
        if served.ended.is_left() {
            Some(Loss::CallerGone)
        } else if [served, copy].iter().any(|it| it.ended == Ended::Shed) {
            Some(Loss::Memory)
        } else if copy.ended == Ended::Abandoned || copy.ended == Ended::Timeout && as_long {
            Some(Loss::Late)
        } else {
            None
        }
    }

    /// What an answer comes to, also where nobody tells its tokens: its cost, and what it keeps to of
    /// what was asked.
    pub(super) async fn half(&self, exchange: &Exchange, taken: &Taken, keys: &Keys) -> Half {
        let (mut call, mut reading) = taken.read(exchange.endpoint);
        let asked = (exchange.endpoint, &exchange.body);
        self.estimate(asked, &mut call, &mut reading.transcript).await;
        self.price(exchange, &mut call, keys);
        let mut check = || {
            // Of an answer that is not here to its end nobody can say what it keeps to.
            let whole = reading.transcript.as_ref().filter(|_| taken.ended == Ended::Whole);
            self.check_answer(exchange, &mut call, whole);
        };
        if exchange.asked.has_schemas {
            self.checker.in_turn(check).await;
        } else {
            check();
        }
        Half { call, reading }
    }

    /// A copy whose rollout went back is nobody's concern. One that outlasts the program may be
    /// one that hangs: it is lost, and its loss is told.
    fn give_up(&self, due: Due) {
        if self.ends.load(Ordering::Relaxed) { due.lose() } else { due.excuse() }
    }

    async fn ask_other(&self, exchange: &Exchange, side: Side) -> Taken {
        let started = clock::instant();
        let name = provider(&exchange.lane, side);
        let request = match side {
            Side::Primary => {
                self.primary_request(exchange.head.clone(), full(exchange.body.clone()))
            }
            Side::Candidate => self.request_to(name, exchange.whole(), Purpose::Copy),
        };
        let Some(mut request) = request else {
            return Taken::nothing(name.clone(), started, Ended::Broken);
        };
        request.headers_mut().insert(headers::COPY_MARK, HeaderValue::from_static("1"));
        let guard = self.upstream.provider(name).map(Provider::guard);
        let probe = guard.and_then(|it| it.probe(self.clock.now()));
        let time = self.settings.copy_timeout;
        let mut taken = match timeout(time, self.upstream.send(request)).await {
            Ok(Ok(response)) => {
                self.collect(name, response, (started, self.keep(exchange)), time).await
            }
            Ok(Err(_)) => Taken::nothing(name.clone(), started, Ended::Broken),
            Err(_) => Taken::nothing(name.clone(), started, Ended::Timeout),
        };
        if taken.ended == Ended::Silent {
            taken.ended = Ended::Timeout;
        }
        self.seen(&taken);
        self.tried(name, probe, self.went(&taken));
        taken
    }

    /// Two calls of one request: to the bets, the store and the judge, none of which is waited for.
    fn pair(
        &self,
        (exchange, keys): (&Exchange, &Keys),
        served: Side,
        (mut primary, mut candidate): (Half, Half),
        due: Due,
    ) {
        let Some(window) = exchange.lane.window.clone() else { return due.excuse() };
        let (now, live) = (self.clock.now(), &exchange.live);
        live.watch(&self.board, now, well(&primary.call), well(&candidate.call));
        compare_halves(exchange, &mut primary, &mut candidate);
        exchange.routed.ended(Side::Primary, &primary.call);
        exchange.routed.ended(Side::Candidate, &candidate.call);
        let (ours, theirs) = (&primary.reading.transcript, &candidate.reading.transcript);
        let cleared = self.cleared(exchange, [&primary, &candidate]);
        let mut pair = Pair {
            id: exchange.id,
            at: exchange.at,
            window,
            served,
            answered: exchange.routed.own_answer(),
            path: shown_path(exchange, cleared),
            feature: exchange.routed.facts.feature.clone(),
            segment: exchange.routed.facts.segment.clone(),
            watched: exchange.watched(),
            judgeable: cleared.judge,
            agreement: dialect::agreement(ours.as_ref(), theirs.as_ref()),
            primary: primary.call.clone(),
            candidate: candidate.call.clone(),
            lot: exchange.routed.route.lot,
            order: None,
        };
        self.redact_texts([&mut pair.path, &mut pair.feature, &mut pair.segment], keys);
        // All that looks into texts is done before anything is told: it is told whole or not at all.
        let (mut bodies, mut job) = (Bodies::default(), None);
        if cleared.judge || cleared.store {
            let answers = [&mut primary.reading, &mut candidate.reading];
            let request = self.redact(exchange, answers, keys);
            let reasons = if cleared.store { Reasons::Kept } else { Reasons::Withheld };
            job = self.to_judge(exchange, &pair, (&request, reasons), (&primary, &candidate));
            if cleared.store {
                let (primary, candidate) = (stored(&primary), stored(&candidate));
                bodies = Bodies { request, primary, candidate };
            }
        }
        pair.order = self.outbox.offer(Seen::Pair(Box::new(pair.clone())));
        let counted = if pair.order.is_some() { Counted::Pair } else { Counted::Lost };
        let _ = exchange.routed.counted.set(counted);
        if pair.order.is_none() {
            // What never counted is not kept either, so that a restart counts the same.
            return self.metrics.loss(Loss::ControllerFull);
        }
        due.paired();
        if let Some(job) = job {
            self.judge(&pair.window, job);
        }
        if let Some(recorder) = self.recorder.get()
            && recorder.offer(pair, bodies) == Offered::Dropped
        {
            self.metrics.loss(Loss::RecorderFull);
        }
    }

    /// One call of a request whose other side a lot left out: to the bets.
    pub(super) fn solo(&self, exchange: &Exchange, lot: Lot, call: Call) {
        let Some(window) = exchange.lane.window.as_ref() else { return };
        if call.outcome == Outcome::Abandoned {
            return self.metrics.loss(Loss::CallerGone);
        }
        let side = side(exchange, &call);
        let told = Told::Solo { lot, side, call: Box::new(call), watched: exchange.watched() };
        let counted = if self.outbox.offer(Seen::note(window, told)).is_some() {
            if let Some(waited) = exchange.holding.solo.get() {
                waited.hear();
            }
            Counted::Solo
        } else {
            self.metrics.loss(Loss::ControllerFull);
            Counted::Lost
        };
        let _ = exchange.routed.counted.set(counted);
    }

    /// What a failure comes to for which a caller waits: nothing is checked or estimated of it.
    pub(super) fn read_unchecked(&self, exchange: &Exchange, taken: &Taken, keys: &Keys) -> Call {
        let (mut call, _) = taken.read(exchange.endpoint);
        self.price(exchange, &mut call, keys);
        call
    }

    /// Adds what a call cost, and takes out what may not be kept.
    fn price(&self, exchange: &Exchange, call: &mut Call, keys: &Keys) {
        call.cost_nano_usd = self.cost_nano_usd(exchange, side(exchange, call), call);
        self.redact_call(call, keys);
    }

    /// What the judge is asked of a pair: a share of those it may see, with two answers. An error
    /// where there is no memory for it.
    fn to_judge(
        &self,
        exchange: &Exchange,
        pair: &Pair,
        (request, reasons): (&Bytes, Reasons),
        (primary, candidate): (&Half, &Half),
    ) -> Option<Result<Job, Full>> {
        if !self.is_judged(exchange) || !pair.judgeable || !includes(exchange.lane.judge, pair) {
            return None;
        }
        let (ours, theirs) = (judged(primary)?, judged(candidate)?);
        let question = dialect::conversation(exchange.endpoint, request, JUDGED_LEN_MAX);
        let mut held = self.memory.hold(Need::Judge, Some(&exchange.fair));
        let room = held.try_grow(question.len() + ours.len() + theirs.len());
        Some(room.map(|()| Job {
            pair: pair.id,
            window: pair.window.clone(),
            watched: pair.watched.clone(),
            question,
            primary: ours,
            candidate: theirs,
            is_repeated: is_repeated(candidate) && !is_repeated(primary),
            reasons,
            held,
            purse: Arc::clone(exchange.live.copies().purse()),
        }))
    }

    /// Offers a pair to the judge.
    fn judge(&self, window: &Window, job: Result<Job, Full>) {
        // Where the judge has ended nobody is asked any more, and no score is due.
        let lost = match (job, &self.judge) {
            (Ok(job), Some(judge)) => {
                matches!(judge.jobs.try_send(job), Err(TrySendError::Full(_)))
            }
            (Ok(_), None) => false,
            (Err(Full), _) => true,
        };
        if lost {
            self.metrics.loss(Loss::JudgeFull);
            // A full queue here only makes the judge look better covered than it is.
            let _ = self.outbox.offer(Seen::note(window, Told::ScoreLost));
        }
    }

    /// What is done with the answer the caller got, once it has ended.
    pub(super) fn served(self: &Arc<Self>, exchange: &Arc<Exchange>, answer_to: Use) -> Done {
        let (proxy, exchange) = (Arc::clone(self), Arc::clone(exchange));
        Box::new(move |taken| {
            proxy.seen(&taken);
            if !matches!(answer_to, Use::Nothing) {
                proxy.heard(&exchange, &taken);
            }
            let (taken, lot) = match answer_to {
                // The copy that waits for this answer reads it itself, if it is still there.
                Use::Pair(waits) => match waits.send(taken) {
                    Ok(()) => return,
                    Err(taken) => (taken, None),
                },
                Use::Solo(lot) => (taken, Some(lot)),
                Use::Nothing => (taken, None),
            };
            tasks::spawn("read", async move {
                let Half { call, reading } = proxy.half(&exchange, &taken, &keys(&exchange)).await;
                proxy.count(&call, Role::Serve);
                proxy.look_at(&exchange, &call, reading.transcript.as_ref());
                let side = side(&exchange, &call);
                exchange.routed.ended(side, &call);
                if side == Side::Candidate {
                    let well = well(&call);
                    exchange.live.watch(&proxy.board, proxy.clock.now(), None, well);
                }
                match lot {
                    Some(_) if is_unknown(&taken, &call) => {
                        let shed = taken.ended == Ended::Shed;
                        proxy.metrics.loss(if shed { Loss::Memory } else { Loss::Coding });
                        let _ = exchange.routed.counted.set(Counted::Lost);
                    }
                    // In shadow nobody can leave the candidate.
                    Some(_) if taken.ended.is_left() && exchange.lane.serve.is_none() => {
                        proxy.metrics.loss(Loss::CallerGone);
                    }
                    Some(lot) => proxy.solo(&exchange, lot, call),
                    None => {}
                }
            });
        })
    }
}

/// Whose call it was.
pub(super) fn side(exchange: &Exchange, call: &Call) -> Side {
    if call.provider == exchange.lane.candidate { Side::Candidate } else { Side::Primary }
}

/// Why two calls are no pair that both came to their end, if so: nobody can read one of them.
pub(super) fn coding(served: &Call, other: &Call) -> Option<Loss> {
    let unread = [served, other].iter().any(|it| it.outcome == Outcome::Abandoned);
    unread.then_some(Loss::Coding)
}

/// Whether nobody can say how a call went, though its caller stayed.
fn is_unknown(taken: &Taken, call: &Call) -> bool {
    call.outcome == Outcome::Abandoned && !taken.ended.is_left()
}

/// Whether a call went well; none when it says nothing about its provider.
pub(super) fn well(call: &Call) -> Option<bool> {
    call.outcome.counts().then_some(!call.outcome.failed())
}

fn includes(share: Share, pair: &Pair) -> bool {
    share.includes("judge", &pair.id.to_string())
}
