//! One request, from its first byte to the answer's head. Reads top to bottom.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue},
    http::request::Parts,
};
use tokio::{sync::oneshot, time::timeout};

use crate::clock;
use crate::dialect::{self, Asked, Edits, Purpose};
use crate::domain::{Call, Endpoint, Lane, Lot, Name, PairId, Side, Skip, Timestamp};
use crate::tasks::{BoxError, describe};
use crate::telemetry::Role;
use crate::traffic::{Live, Routed, Trace};
use crate::upstream::{Body, Line};

use super::{
    Proxy,
    answer::{Own, full},
    headers,
    id::pair_id,
    mirror::well,
    request::{self, Gathered},
    tee::{Done, Ended, Keep, Taken, Taking, Tee},
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
type Answer = (Response<Body>, Name);

impl Proxy {
    /// Answers one request. Never fails: what goes wrong is an answer too.
    pub(super) async fn answer(
        self: Arc<Self>,
        line: &Line,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let id = pair_id(self.clock.now());
        // Requests of one HTTP/2 caller come at the same time.
        let own_line = Some(line).filter(|_| request.version() != Version::HTTP_2);
        let result = self.dispatch(id, own_line, request).await;
        let (mut response, provider) = match result {
            Ok((response, provider)) => (response, Some(provider)),
            Err(own) => (own.response(), None),
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
        let (head, body) = request.into_parts();
        self.check(&head, &body)?;
        let board = self.board.load();
        if board.snapshot.is_idle() {
            self.remember_passed(id, Skip::NoRollout);
            return self
                .pass(own_line, head, request::limited(body, self.settings.body_bytes_max))
                .await;
        }
        // 1 facts
        let settings = &self.settings;
        let endpoint = match request::endpoint(&head) {
            Ok(endpoint) => endpoint,
            Err(skip) => {
                self.skipped(id, skip);
                return self
                    .pass(own_line, head, request::limited(body, settings.body_bytes_max))
                    .await;
            }
        };
        let gathered =
            request::gather(body, settings.copy_bytes_max, settings.body_bytes_max).await?;
        let body = match gathered {
            Gathered::Whole(body) => body,
            Gathered::Long(body) => {
                self.skipped(id, Skip::Size);
                return self.pass(own_line, head, body).await;
            }
        };
        let asked = match dialect::ask(endpoint, path_and_query(&head.uri), &body) {
            Ok(asked) => asked,
            Err(skip) => {
                self.skipped(id, skip);
                return self.pass(own_line, head, full(body)).await;
            }
        };
        let facts = self.callers.facts(id, &head, &asked);
        // 2 route
        let route = board.snapshot.route(&facts);
        let governed =
            route.lane.and_then(|it| Some((board.snapshot.lanes.get(it)?, board.live.get(it)?)));
        let at = self.clock.now();
        let routed = Routed::new(id, at, facts, route);
        let Some((lane, live)) = governed.filter(|(_, live)| live.is_open()) else {
            self.metrics.skip(Skip::NoRollout);
            self.trail.add(Trace::Routed(Arc::new(routed)));
            return self.pass(own_line, head, full(body)).await;
        };
        let (lane, live) = (Arc::clone(lane), Arc::clone(live));
        let routed = Arc::new(routed.governed(Arc::clone(&lane)));
        self.trail.add(Trace::Routed(Arc::clone(&routed)));
        let exchange =
            Arc::new(Exchange { id, at, endpoint, head, body, asked, lane, live, routed });
        // 6 mirror: started first, so that both sides are asked at the same time
        let answer_to = self.used(&exchange);
        // 3 serve
        match exchange.routed.route.serve {
            Side::Primary => self.serve_primary(own_line, &exchange, answer_to).await,
            Side::Candidate => self.serve_candidate(own_line, &exchange, answer_to).await,
        }
    }

    /// What the answer will be used for. A copy that was due and does not start takes its request
    /// out on both sides: what is left of such requests would not be what a lot drew.
    fn used(self: &Arc<Self>, exchange: &Arc<Exchange>) -> Use {
        let route = &exchange.routed.route;
        let started = route.mirror.and_then(|()| self.mirror(exchange, route.serve.other()));
        let _ = exchange.routed.copy.set(started.as_ref().map(drop).map_err(|skip| *skip));
        let skip = match started {
            Ok(waits) => return Use::Pair(waits),
            Err(skip) => skip,
        };
        self.metrics.skip(skip);
        match (route.mirror, route.lot) {
            (Err(Skip::Share), Some(lot)) => Use::Solo(lot),
            (Err(_) | Ok(()), _) => Use::Nothing,
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
    }

    /// What is refused before anything is looked at.
    fn check(&self, head: &Parts, body: &Incoming) -> Result<(), Own> {
        let plain = head.uri.authority().is_none() && head.uri.path().starts_with('/');
        if head.method == Method::CONNECT || head.method == Method::TRACE || !plain {
            return Err(Own::NotServed);
        }
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
        body: Body,
    ) -> Result<Answer, Own> {
        let started = clock::instant();
        let response = match self.ask_primary(own_line, head, body).await {
            Ok(response) => response,
            Err((own, ended)) => {
                let taken = Taken::nothing(self.primary.clone(), started, ended);
                self.count(&taken.read(Endpoint::Chat).0, Role::Serve);
                return Err(own);
            }
        };
        let proxy = Arc::clone(self);
        let done: Done = Box::new(move |taken: Taken| {
            proxy.count(&taken.read(Endpoint::Chat).0, Role::Serve);
        });
        let provider = self.primary.clone();
        Ok((tee(response, None, &provider, (started, Keep::Nothing, done)), provider))
    }

    /// The primary answers.
    async fn serve_primary(
        self: &Arc<Self>,
        own_line: Option<&Line>,
        exchange: &Arc<Exchange>,
        answer_to: Use,
    ) -> Result<Answer, Own> {
        let started = clock::instant();
        let provider = self.primary.clone();
        let _ = exchange.routed.answered.set(Side::Primary);
        match self.ask_primary(own_line, exchange.head.clone(), full(exchange.body.clone())).await {
            Ok(response) => {
                let keep = match &answer_to {
                    Use::Pair(_) | Use::Solo(_) => Keep::UpTo(self.settings.capture_bytes_max),
                    Use::Nothing => Keep::Nothing,
                };
                let done = self.served(exchange, answer_to);
                Ok((tee(response, None, &provider, (started, keep, done)), provider))
            }
            Err((own, ended)) => {
                self.served(exchange, answer_to)(Taken::nothing(provider, started, ended));
                Err(own)
            }
        }
    }

    /// The candidate answers, or the primary if the candidate fails before its first byte.
    async fn serve_candidate(
        self: &Arc<Self>,
        own_line: Option<&Line>,
        exchange: &Arc<Exchange>,
        answer_to: Use,
    ) -> Result<Answer, Own> {
        let started = clock::instant();
        let provider = exchange.lane.candidate.clone();
        let deadline = self.settings.first_byte_timeout;
        let begun = tokio::select! {
            biased;
            () = exchange.live.closed() => None,
            begun = timeout(deadline, self.begin_candidate(exchange)) => Some(begun),
        };
        let Some(begun) = begun else {
            // Sent back while it was being asked: the primary answers, and nobody is to blame.
            drop(answer_to);
            return self.serve_primary(own_line, exchange, Use::Nothing).await;
        };
        let failed = match begun {
            Ok(Ok((response, first))) => {
                let keep = Keep::UpTo(self.settings.capture_bytes_max);
                let _ = exchange.routed.answered.set(Side::Candidate);
                let done = self.served(exchange, answer_to);
                return Ok((tee(response, first, &provider, (started, keep, done)), provider));
            }
            Ok(Err(failed)) => failed.with_time(started),
            Err(_) => Taken::nothing(provider, started, Ended::Timeout),
        };
        self.metrics.fallback(&exchange.lane.rollout);
        let (call, _) = self.read(exchange, &failed);
        tracing::debug!(id = %exchange.id, outcome = call.outcome.as_str(), "the primary takes over");
        exchange.routed.ended(Side::Candidate, &call);
        let (candidate_well, solo) = (well(&call), !matches!(answer_to, Use::Pair(_)));
        match answer_to {
            Use::Pair(_) => self.served(exchange, answer_to)(failed),
            Use::Solo(lot) => {
                self.count(&call, Role::Serve);
                self.solo(exchange, lot, call);
            }
            Use::Nothing => self.count(&call, Role::Serve),
        }
        // This answer is seen because the candidate failed, so it says nothing.
        let answer = self.serve_primary(own_line, exchange, Use::Nothing).await;
        if solo {
            let primary_well = answer.as_ref().is_ok_and(|(it, _)| !it.status().is_server_error());
            let now = self.clock.now();
            exchange.live.watch(&self.board, now, Some(primary_well), candidate_well);
        }
        answer
    }

    /// Asks the candidate and waits until its answer has begun well.
    async fn begin_candidate(
        &self,
        exchange: &Exchange,
    ) -> Result<(Response<Incoming>, Option<Bytes>), Taken> {
        let started = clock::instant();
        let name = &exchange.lane.candidate;
        let broken = || Taken::nothing(name.clone(), started, Ended::Broken);
        let request = self.candidate_request(exchange, Purpose::Serve).ok_or_else(broken)?;
        let mut response = self.upstream.send(request).await.map_err(|_| broken())?;
        if !response.status().is_success() {
            return Err(self.collect(name, response, started).await);
        }
        // Bounded by the caller's deadline; empty frames are rare and end with the body.
        loop {
            match response.body_mut().frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) if !chunk.is_empty() => return Ok((response, Some(chunk))),
                    Ok(_) | Err(_) => {}
                },
                Some(Err(_)) | None => return Err(broken()),
            }
        }
    }

    /// Reads an answer to its end, within the limits of what is kept.
    pub(super) async fn collect(
        &self,
        provider: &Name,
        response: Response<Incoming>,
        started: Instant,
    ) -> Taken {
        let (sender, receiver) = oneshot::channel();
        let done: Done = Box::new(move |taken| drop(sender.send(taken)));
        let keep = Keep::UpTo(self.settings.capture_bytes_max);
        let (head, body) = response.into_parts();
        let taking = Taking::new(provider.clone(), &head, started, keep, done);
        let mut tee = Tee::new(None, body, taking);
        while let Some(Ok(_)) = tee.frame().await {}
        drop(tee);
        let nothing = || Taken::nothing(provider.clone(), started, Ended::Broken);
        receiver.await.unwrap_or_else(|_| nothing())
    }

    async fn ask_primary(
        &self,
        own_line: Option<&Line>,
        head: Parts,
        body: Body,
    ) -> Result<Response<Incoming>, (Own, Ended)> {
        let Some(request) = self.primary_request(head, body) else {
            return Err((Own::Defect, Ended::Abandoned));
        };
        let sent = async {
            match own_line {
                Some(line) => self.upstream.send_along(line, request).await,
                None => self.upstream.send(request).await,
            }
        };
        match timeout(self.settings.upstream_timeout, sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if request::is_too_large(&error) => {
                Err((Own::BodyTooLarge, Ended::Abandoned))
            }
            Ok(Err(error)) if is_callers_fault(&error) => Err((Own::BodyBroken, Ended::Abandoned)),
            Ok(Err(error)) => {
                tracing::warn!(error = %describe(error.as_ref()), "the primary could not be asked");
                Err((Own::PrimaryUnreachable, Ended::Broken))
            }
            Err(_) => Err((Own::PrimaryTimeout, Ended::Timeout)),
        }
    }

    /// The request as the primary gets it: the caller's own.
    pub(super) fn primary_request(&self, mut head: Parts, body: Body) -> Option<Request<Body>> {
        let primary = self.upstream.provider(&self.primary)?;
        let uri = primary.uri(path_and_query(&head.uri)).ok()?;
        headers::to_primary(&mut head.headers);
        if !headers::has_credential(&head.headers) {
            primary.authorize(&mut head.headers);
        }
        Some(build(head.method, uri, head.headers, body))
    }

    /// The request as the candidate gets it: its own model and credential, nothing of the caller's.
    pub(super) fn candidate_request(
        &self,
        exchange: &Exchange,
        purpose: Purpose,
    ) -> Option<Request<Body>> {
        let provider = self.upstream.provider(&exchange.lane.candidate)?;
        let model = provider.model(&exchange.asked.model);
        let edits = Edits { model, purpose };
        let path = path_and_query(&exchange.head.uri);
        let adapted =
            dialect::adapt(exchange.endpoint, path, &exchange.body, &exchange.asked, &edits);
        let (path, body) = adapted.ok()?;
        let mut headers = headers::to_candidate(&exchange.head.headers);
        provider.authorize(&mut headers);
        if purpose == Purpose::Copy {
            headers.insert(headers::COPY_MARK, HeaderValue::from_static("1"));
        }
        let uri = provider.uri(&path).ok()?;
        Some(build(exchange.head.method.clone(), uri, headers, full(Bytes::from(body))))
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
fn tee(
    response: Response<Incoming>,
    first: Option<Bytes>,
    provider: &Name,
    (started, keep, done): (Instant, Keep, Done),
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    headers::end_to_end(&mut head.headers);
    // A body of known length announces it itself; a HEAD or 304 answer has only the header.
    if body.size_hint().exact().is_some_and(|it| 0 < it) {
        head.headers.remove(CONTENT_LENGTH);
    }
    let taking = Taking::new(provider.clone(), &head, started, keep, done);
    head.version = Version::HTTP_11;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        head.status = StatusCode::BAD_GATEWAY;
    }
    Response::from_parts(head, BodyExt::boxed(Tee::new(first, body, taking)))
}

pub(super) fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |it| it.as_str())
}

/// Whether sending failed because the caller's own body broke off.
fn is_callers_fault(error: &BoxError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(it) = cause {
        if it.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user) {
            return true;
        }
        cause = it.source();
    }
    false
}
