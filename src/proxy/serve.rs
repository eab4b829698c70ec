//! One request, from its first byte to the answer's head. Reads top to bottom.

use std::{
    pin::pin,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue},
    http::request::Parts,
};
use scopeguard::ScopeGuard;
use tokio::{sync::oneshot, time::timeout};

use crate::clock;
use crate::dialect::{self, Asked, Edits, Purpose};
use crate::domain::{Call, Endpoint, Lane, Lot, Name, PairId, Side, Skip, Timestamp};
use crate::memory::{Fair, Held, Need};
use crate::tasks::{caught, describe};
use crate::telemetry::{Loss, Role};
use crate::traffic::{Live, Routed, Trace, Waited};
use crate::upstream::{Body, Invalid, Line};

use super::{
    Proxy,
    answer::{Own, full},
    callers::has_credential,
    failover::{Got, Primary, Whole},
    fallback::Admitted,
    headers,
    id::pair_id,
    noise::{Again, heard_by},
    patience::Paced,
    presence::Busy,
    request::{self, Gathered},
    spend::alone,
    strict,
    tee::{Done, Ended, Keep, Taken, Taking, Tee},
    upload::{self, Moved},
    waiting::{Deadline, Known, Waiting, waiting},
};

/// Says which request an answer belongs to, and so which pair.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-crossfade-request-id");
/// Says who answered.
const PROVIDER: HeaderName = HeaderName::from_static("x-crossfade-provider");

/// A request that a rollout governs, whole in memory.
pub(super) struct Exchange {
    pub(super) id: PairId,
    pub(super) at: Timestamp,
    pub(super) endpoint: Endpoint,
    pub(super) head: Parts,
    pub(super) body: Bytes,
    pub(super) asked: Asked,
    pub(super) lane: Arc<Lane>,
    pub(super) live: Arc<Live>,
    pub(super) routed: Arc<Routed>,
    pub(super) fair: Fair,
    pub(super) holding: Holding,
}

/// What a request holds until all of it is done.
pub(super) struct Holding {
    #[expect(dead_code, reason = "held for its drop")]
    memory: Held,
    /// A call whose other side a lot left out, while it is under way.
    pub(super) solo: OnceLock<Waited>,
}

impl Exchange {
    /// The watched slice it is in; empty for none.
    pub(super) fn watched(&self) -> String {
        self.lane.watched(&self.routed.facts).to_owned()
    }
}

/// What the answer that the caller gets says, once it has ended.
pub(super) enum Use {
    /// It is half of a pair; the other half waits for it here.
    Pair(oneshot::Sender<Taken>),
    /// It is all that is seen of its request, as this lot drew.
    Solo(Lot),
    /// Nothing: it was seen for another reason than a lot, or its request was taken out.
    Nothing,
}

/// An answer on its way, and who gave it.
pub(super) type Answer = (Response<Body>, Name);

impl Proxy {
    /// Answers one request. Never fails: what goes wrong is an answer too.
    pub(super) async fn answer(
        self: Arc<Self>,
        line: &Line,
        request: Request<Incoming>,
        busy: &Busy,
    ) -> Response<Body> {
        let id = pair_id(self.clock.now());
        // Requests of one HTTP/2 caller come at the same time.
        let version = request.version();
        let own_line = Some(line).filter(|_| version != Version::HTTP_2);
        // It is large, and stays where it is made.
        let dispatched = pin!(self.dispatch(id, own_line, request));
        let result = if busy.is_refused() {
            Err(Own::Busy)
        } else {
            caught("answer", dispatched).await.unwrap_or(Err(Own::Defect))
        };
        let (mut response, provider) = match result {
            Ok((response, provider)) => (response, Some(provider)),
            Err(own) => (own.response(version), None),
        };
        if self.settings.headers == super::Headers::Added {
            let added = response.headers_mut();
            if let Ok(value) = HeaderValue::try_from(id.to_string()) {
                added.insert(REQUEST_ID, value);
            }
            let provider = provider.and_then(|it| HeaderValue::from_str(it.as_str()).ok());
            if let Some(value) = provider {
                added.insert(PROVIDER, value);
            }
        }
        if own_line.is_some() && self.drains.load(Ordering::Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn dispatch(
        self: &Arc<Self>,
        id: PairId,
        own_line: Option<&Line>,
        request: Request<Incoming>,
    ) -> Result<Answer, Own> {
        let (mut head, body) = request.into_parts();
        self.check(&head, &body)?;
        Deadline::enter(&mut head);
        self.callers.enter(&mut head);
        let body = Paced::new(body, self.settings.body_timeout);
        let board = self.board.load();
        if board.snapshot.is_idle() && self.failover.is_empty() && !self.surveyor.draws(id) {
            self.remember_passed(id, Skip::NoRollout);
            let body = request::limited(body, self.settings.body_bytes_max);
            return self.pass(own_line, head, upload::watched(body)).await;
        }
        // 1 facts
        let settings = &self.settings;
        let endpoint = match request::endpoint(&head) {
            Ok(endpoint) => endpoint,
            Err(skip) => {
                self.skipped(id, skip);
                let body = request::limited(body, settings.body_bytes_max);
                return self.pass(own_line, head, upload::watched(body)).await;
            }
        };
        let lens_max = (settings.copy_bytes_max, settings.body_bytes_max);
        let holding = self.memory.hold(Need::Request, None);
        let (body, mut holding) = match request::gather(body, lens_max, holding).await? {
            Gathered::Whole(body, holding) => (body, holding),
            Gathered::Long(body, skip) => {
                if skip == Skip::Memory {
                    self.unread(id, &head, endpoint, &board);
                }
                self.skipped(id, skip);
                return self.pass(own_line, head, upload::watched(body)).await;
            }
        };
        let asked = match dialect::ask(endpoint, path_and_query(&head.uri), &body) {
            Ok(asked) => asked.naming_user_at(&self.callers.fields.user, &body),
            Err(skip) => {
                self.skipped(id, skip);
                return self.pass(own_line, head, upload::watched(full(body))).await;
            }
        };
        let facts = self.callers.facts(id, &head, (endpoint, &asked, &body));
        // 2 route: by what holds now, for a body may have taken long to come
        let board = self.board.load();
        let (facts, route) = self.callers.route(&board.snapshot, facts, &body);
        let governed =
            route.lane.and_then(|it| Some((board.snapshot.lanes.get(it)?, board.live.get(it)?)));
        let at = self.clock.now();
        let open = governed.filter(|(_, live)| live.is_open());
        let route = match open {
            Some((lane, live)) => live.keep(lane, &facts, route, at),
            None => route,
        };
        let routed = Routed::new(id, at, facts, route);
        let fair = open.map(|(_, live)| live.fair(board.snapshot.moving()));
        let fair = fair.filter(|it| holding.give_to(it).is_ok());
        let (Some((lane, live)), Some(fair)) = (open, fair) else {
            let routed = self.ungoverned(open.map(|(_, live)| live), routed);
            if self.failover.is_empty() && !self.surveyor.draws(id) {
                return self.pass(own_line, head, upload::watched(full(body))).await;
            }
            let whole = Whole { id, endpoint, head: &head, body: &body, asked: &asked };
            return self.pass_whole(own_line, whole, &routed, holding).await;
        };
        let (lane, live) = (Arc::clone(lane), Arc::clone(live));
        let routed = Arc::new(routed.governed(Arc::clone(&lane)));
        self.trail.add(Trace::Routed(Arc::clone(&routed)));
        let holding = Holding { memory: holding, solo: OnceLock::new() };
        let exchange =
            Exchange { id, at, endpoint, head, body, asked, lane, live, routed, fair, holding };
        self.serve(own_line, &Arc::new(exchange)).await
    }

    async fn serve(
        self: &Arc<Self>,
        own_line: Option<&Line>,
        exchange: &Arc<Exchange>,
    ) -> Result<Answer, Own> {
        // 6 mirror: started first, so that both sides are asked at the same time
        let admitted = self.admit(exchange);
        let answer_to = self.used(exchange, &admitted);
        // 3 serve
        match admitted.side(exchange.routed.route.serve) {
            Side::Primary => {
                let again = self.again(exchange, &answer_to);
                self.serve_primary(own_line, exchange, (answer_to, again)).await
            }
            Side::Candidate => {
                self.serve_candidate(own_line, exchange, (answer_to, admitted.probe())).await
            }
        }
    }

    /// What the answer will be used for. A copy that was due and does not start takes its request
    /// out on both sides: what is left of such requests would not be what a lot drew.
    fn used(self: &Arc<Self>, exchange: &Arc<Exchange>, admitted: &Admitted) -> Use {
        let route = &exchange.routed.route;
        let uncopied = self.uncopied(exchange);
        let started = match (route.mirror, admitted.skip(), uncopied) {
            (Ok(()) | Err(Skip::Share), Some(skip), _) | (Ok(()), None, Some(skip)) => Err(skip),
            (mirror, ..) => mirror.and_then(|()| self.mirror(exchange, route.serve.other())),
        };
        let _ = exchange.routed.copy.set(started.as_ref().map(drop).map_err(|skip| *skip));
        let skip = match started {
            Ok(waits) => return Use::Pair(waits),
            Err(skip) => skip,
        };
        self.metrics.skip(skip);
        match alone(exchange, skip, uncopied) {
            Some(lot) if self.memory.has_room(Need::Solo) => {
                let _ = exchange.holding.solo.set(exchange.live.wait(self.clock.now()));
                Use::Solo(lot)
            }
            Some(_) => {
                self.metrics.loss(Loss::Memory);
                Use::Nothing
            }
            None => Use::Nothing,
        }
    }

    fn skipped(&self, id: PairId, why: Skip) {
        self.metrics.skip(why);
        self.remember_passed(id, why);
    }

    fn remember_passed(&self, id: PairId, why: Skip) {
        self.trail.add(Trace::Passed { id, at: self.clock.now(), why });
    }

    /// Counts a call that has ended.
    pub(super) fn count(&self, call: &Call, role: Role) {
        self.metrics.call(call, role);
        self.barometer.see(call);
        if role == Role::Serve {
            self.barometer.answered();
        }
    }

    /// What is refused before anything is looked at.
    fn check(&self, head: &Parts, body: &Incoming) -> Result<(), Own> {
        strict::check(head)?;
        let length = body.size_hint().lower();
        if u64::try_from(self.settings.body_bytes_max).is_ok_and(|it| it < length) {
            return Err(Own::BodyTooLarge);
        }
        Ok(())
    }

    /// The primary alone, with nothing kept.
    async fn pass(
        self: &Arc<Self>,
        own_line: Option<&Line>,
        head: Parts,
        (body, moved): (Body, Moved),
    ) -> Result<Answer, Own> {
        let started = clock::instant();
        let late = moved.stands(self.settings.upstream_timeout, own_line);
        let mut waiting = waiting(self.primary.clone(), self.counted());
        waiting.known = Known::Asked(started);
        let primary = self.ask_primary(own_line, (head, body), late).await;
        let done = ScopeGuard::into_inner(waiting).done;
        self.passed(primary, started, (Keep::Nothing, done))
    }

    /// What is done with an answer of which nothing is kept.
    pub(super) fn counted(self: &Arc<Self>) -> Done {
        let proxy = Arc::clone(self);
        Box::new(move |taken: Taken| {
            if !proxy.failover.is_empty() {
                proxy.seen(&taken);
            }
            proxy.count(&taken.read(Endpoint::Chat).0, Role::Serve);
        })
    }

    /// The primary's answer on its way to a caller of no rollout.
    pub(super) fn passed(
        &self,
        primary: Primary,
        started: Instant,
        (keep, done): (Keep, Done),
    ) -> Result<Answer, Own> {
        let provider = self.primary.clone();
        match primary {
            Ok(response) => Ok((tee(response, None, &provider, (started, keep, done)), provider)),
            Err((own, ended)) => {
                done(Taken::nothing(provider, started, ended));
                Err(own)
            }
        }
    }

    /// The primary answers.
    pub(super) async fn serve_primary(
        self: &Arc<Self>,
        own_line: Option<&Line>,
        exchange: &Arc<Exchange>,
        (answer_to, again): (Use, Again),
    ) -> Result<Answer, Own> {
        let started = clock::instant();
        let provider = self.primary.clone();
        let _ = exchange.routed.answered.set(Side::Primary);
        let keeps = !matches!(answer_to, Use::Nothing) || self.surveyor.draws(exchange.id);
        let done = heard_by(again, self.served(exchange, answer_to));
        let mut waiting = waiting(provider.clone(), done);
        let (whole, facts) = (exchange.whole(), &exchange.routed.facts);
        let got = self.ask_any(own_line, whole, facts, &mut waiting.known).await;
        let Waiting { known, done, .. } = ScopeGuard::into_inner(waiting);
        match got {
            Got::Primary(Ok(response)) => {
                let keep = if keeps { self.keep(exchange) } else { Keep::Nothing };
                Ok((tee(response, None, &provider, (started, keep, done)), provider))
            }
            Got::Primary(Err((own, ended))) => {
                done(Taken::nothing(provider, started, ended));
                Err(own)
            }
            Got::Other(name, begun) => {
                // Before its pair is told of, which says whose answer it was.
                let _ = exchange.routed.failover.set(name.clone());
                if let Known::Failed(failed) = known {
                    done(failed);
                }
                Ok(self.from_other((name, begun), (exchange.endpoint, started)))
            }
        }
    }

    /// Reads an answer to its end, within the limits of what is kept and of the time it may take.
    pub(super) async fn collect(
        &self,
        provider: &Name,
        response: Response<Incoming>,
        (started, keep): (Instant, Keep),
        time: Duration,
    ) -> Taken {
        let (sender, receiver) = oneshot::channel();
        let done: Done = Box::new(move |taken| drop(sender.send(taken)));
        let (head, body) = response.into_parts();
        let taking = Taking::new(provider.clone(), &head, started, keep, done);
        let mut tee = Tee::new(None, body, taking).within(time);
        // Nobody waits for an answer without end, so we do not either.
        let mut left = self.settings.body_bytes_max;
        let read = async {
            while let Some(Ok(frame)) = tee.frame().await {
                let len = frame.data_ref().map_or(0, Bytes::len);
                let Some(rest) = left.checked_sub(len) else { return tee.finish(Ended::Broken) };
                left = rest;
            }
        };
        let _ = timeout(time.saturating_sub(started.elapsed()), read).await;
        // What is cut off here says whether it stood still.
        drop(tee);
        let nothing = || Taken::nothing(provider.clone(), started, Ended::Broken);
        receiver.await.unwrap_or_else(|_| nothing())
    }

    /// Asks the primary, until it is late.
    pub(super) async fn ask_primary(
        &self,
        own_line: Option<&Line>,
        (head, body): (Parts, Body),
        late: impl Future<Output = ()>,
    ) -> Primary {
        let Some(request) = self.primary_request(head, body) else {
            return Err((Own::Defect, Ended::Abandoned));
        };
        // What is large stays where it is made.
        let sending = pin!(async {
            match own_line {
                Some(line) => self.upstream.send_along(line, request).await,
                None => self.upstream.send(request).await,
            }
        });
        let sent = tokio::select! {
            biased;
            sent = sending => sent,
            () = late => return Err((Own::PrimaryTimeout, Ended::Timeout)),
        };
        sent.map_err(|error| {
            if let Some(own) = request::fault(&error) {
                return (own, Ended::Abandoned);
            }
            tracing::warn!(error = %describe(error.as_ref()), "the primary could not be asked");
            let invalid = Invalid::of(&error).map(Own::PrimaryInvalid);
            (invalid.unwrap_or(Own::PrimaryUnreachable), Ended::Broken)
        })
    }

    /// The request as the primary gets it: the caller's own.
    pub(super) fn primary_request(&self, mut head: Parts, body: Body) -> Option<Request<Body>> {
        let primary = self.upstream.provider(&self.primary)?;
        let uri = primary.uri(head.uri.path_and_query()?).ok()?;
        let has_credential = has_credential(&head);
        let has_length = head.headers.contains_key(CONTENT_LENGTH);
        headers::to_primary(&mut head.headers);
        if !has_credential {
            primary.authorize(&mut head.headers);
        }
        // Servers may insist on a length, also of nothing; of all else it is told by who sends it.
        let may_have = [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
        if (has_length || may_have) && body.is_end_stream() {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Some(build(head.method, uri, head.headers, body))
    }

    /// The request as another provider gets it: its own model and credential, and nothing that says
    /// who the caller is.
    pub(super) fn request_to(
        &self,
        name: &Name,
        whole: Whole<'_>,
        purpose: Purpose,
    ) -> Option<Request<Body>> {
        let provider = self.upstream.provider(name)?;
        let Whole { id, endpoint, head, body, asked } = whole;
        let model = provider.model(&asked.model);
        let edits = Edits { model, purpose, rules: provider.rules() };
        let path = path_and_query(&head.uri);
        let (path, body) = dialect::adapt(endpoint, path, body, asked, &edits).ok()?;
        let mut headers = headers::to_candidate(&head.headers, id);
        provider.authorize(&mut headers);
        let uri = provider.uri(&path.parse().ok()?).ok()?;
        Some(build(head.method.clone(), uri, headers, full(Bytes::from(body))))
    }
}

fn build(method: Method, uri: Uri, headers: HeaderMap, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// The answer as the caller gets it: its bytes untouched, a copy kept on the side.
pub(super) fn tee(
    response: Response<Incoming>,
    first: Option<Bytes>,
    provider: &Name,
    (started, keep, done): (Instant, Keep, Done),
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    headers::end_to_end(&mut head.headers);
    // A body of known length announces it itself; a HEAD or 304 answer has only the header.
    let has_body = body.size_hint().exact().is_some_and(|it| 0 < it);
    if has_body || head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
    }
    let taking = Taking::new(provider.clone(), &head, started, keep, done);
    head.version = Version::HTTP_11;
    Response::from_parts(head, BodyExt::boxed(Tee::new(first, body, taking)))
}

pub(super) fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |it| it.as_str())
}
