//! The candidate serves: where it may, and with the primary behind it.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use scopeguard::ScopeGuard;
use tokio::time::timeout;

use crate::clock;
use crate::dialect::{Prelude, Purpose};
use crate::domain::{Facts, Lane, Name, Side, Skip, Tie};
use crate::telemetry::Role;
use crate::traffic::Heard;
use crate::upstream::{Body, Line, Probe, Provider, Went, retry_after_ms};

use super::{
    Proxy,
    answer::Own,
    failover::Begun,
    mirror::well,
    redact::keys,
    serve::{Answer, Exchange, Use, tee},
    tee::{Ended, Keep, Taken},
    waiting::Limit,
};

/// Most that is read of an answer without finding its beginning, in bytes.
const PRELUDE_BYTES_MAX: usize = 64 << 10;

/// How long what an answer that failed says besides is waited for.
const WORDS_WAIT: Duration = Duration::from_millis(250);

/// Whether both sides of a request may be asked now.
#[derive(Debug)]
pub(super) enum Admitted {
    /// They may, as lots drew them.
    Both,
    /// The candidate answers to show whether it is well again.
    Trying(Probe),
    /// One may not, and the other one is not compared with it.
    Kept(Side, Skip),
}

impl Admitted {
    /// Why nothing of the request is evidence, if so.
    pub(super) fn skip(&self) -> Option<Skip> {
        match self {
            Self::Both => None,
            Self::Trying(_) => Some(Skip::Breaker),
            Self::Kept(_, skip) => Some(*skip),
        }
    }

    /// Who answers, where lots drew this side.
    pub(super) fn side(&self, drawn: Side) -> Side {
        match self {
            Self::Both | Self::Trying(_) | Self::Kept(Side::Primary, _) => drawn,
            Self::Kept(Side::Candidate, _) => Side::Primary,
        }
    }

    /// What has to be told how it went, if it is tried.
    pub(super) fn probe(self) -> Option<Probe> {
        match self {
            Self::Trying(probe) => Some(probe),
            Self::Both | Self::Kept(..) => None,
        }
    }

    fn cause(&self) -> Option<(Side, Skip)> {
        match self {
            Self::Both => None,
            Self::Trying(_) => Some((Side::Candidate, Skip::Breaker)),
            Self::Kept(side, skip) => Some((*side, *skip)),
        }
    }
}

impl Proxy {
    /// Whether both sides of a request may be asked now. While one may not, no request of the
    /// rollout is evidence, whichever side it was drawn for: what is left would be no lot's.
    pub(super) fn admit(&self, exchange: &Exchange) -> Admitted {
        let routed = &exchange.routed;
        let admitted = self.admit_to(&exchange.lane, &routed.facts, routed.route.serve);
        // Of what may not be moved or copied nothing was to be seen anyway.
        if routed.route.places.is_some() {
            exchange.live.kept().see(admitted.cause());
        }
        admitted
    }

    fn admit_to(&self, lane: &Lane, facts: &Facts, serve: Side) -> Admitted {
        let now = self.clock.now();
        let guard = |name| self.upstream.provider(name).map(Provider::guard);
        let (Some(candidate), Some(primary)) = (guard(&lane.candidate), guard(&lane.primary))
        else {
            return Admitted::Both;
        };
        let is_shadow = facts.tie != Tie::None || lane.shares(facts).serve.is_none();
        let passed = match serve {
            // Where it cannot serve, a candidate that fails hurts nobody: gates and tripwire are to
            // see it, and its breaker to be closed by copies.
            _ if is_shadow => candidate.rested(now).map(|()| None),
            Side::Candidate => candidate.pass(now),
            Side::Primary => candidate.look(now).map(|()| None),
        };
        let primary = if self.failover.is_empty() { Ok(()) } else { primary.closed() };
        match (passed, primary) {
            (Err(skip), _) => Admitted::Kept(Side::Candidate, skip),
            (Ok(Some(probe)), _) => Admitted::Trying(probe),
            (Ok(None), Err(skip)) => Admitted::Kept(Side::Primary, skip),
            (Ok(None), Ok(())) => Admitted::Both,
        }
    }

    /// Takes note of how a call ended for whoever is to be sent to its provider next.
    pub(super) fn seen(&self, taken: &Taken) {
        let Some(provider) = self.upstream.provider(&taken.provider) else { return };
        let (now, guard) = (self.clock.now(), provider.guard());
        // What the primary says of its load is about its caller's quota, and that caller's to read.
        let wait_ms = retry_after_ms(&taken.retry_after, now);
        if let Some(ms) = wait_ms.filter(|_| taken.provider != self.primary) {
            guard.pause(now, ms);
        }
        let Some(went) = self.went(taken) else { return };
        if guard.see(now, went) {
            self.metrics.breaker_opened(&taken.provider);
            tracing::warn!(provider = %taken.provider, "its breaker opened: too many calls failed");
        }
    }

    /// How a call went, as far as that is its provider's doing; the primary may refuse a credential
    /// because it is its caller's.
    pub(super) fn went(&self, taken: &Taken) -> Option<Went> {
        match (taken.ended, taken.status) {
            (Ended::Abandoned, _) | (Ended::Whole | Ended::Cut | Ended::Shed, 429 | 529) => None,
            (Ended::Unheard, _) => Some(Went::Unheard),
            (Ended::Broken | Ended::Timeout | Ended::Silent, _) => Some(Went::Badly),
            (Ended::Whole | Ended::Cut | Ended::Shed, 500..) => Some(Went::Badly),
            (Ended::Whole | Ended::Cut | Ended::Shed, 401 | 403) => {
                (taken.provider != self.primary).then_some(Went::Badly)
            }
            (Ended::Whole | Ended::Cut | Ended::Shed, _) => Some(Went::Well),
        }
    }

    /// The candidate answers, or the primary if the candidate fails before its first byte.
    pub(super) async fn serve_candidate(
        self: &Arc<Self>,
        own_line: Option<&Line>,
        exchange: &Arc<Exchange>,
        (answer_to, probe): (Use, Option<Probe>),
    ) -> Result<Answer, Own> {
        let started = clock::instant();
        let provider = exchange.lane.candidate.clone();
        let limit = self.limit(exchange.whole());
        let request = self.request_to(&provider, exchange.whole(), Purpose::Serve);
        let keep = self.keep(exchange);
        // A caller who leaves takes all this along, and what was seen until then is still told.
        let waiting = scopeguard::guard((answer_to, probe), |(answer_to, probe)| {
            drop(probe);
            let left = Ended::unbegun(started.elapsed());
            self.served(exchange, answer_to)(Taken::nothing(provider.clone(), started, left));
        });
        let begun = tokio::select! {
            biased;
            () = exchange.live.closed() => None,
            begun = self.begin(&provider, request, keep, limit) => Some(begun),
        };
        let (answer_to, probe) = ScopeGuard::into_inner(waiting);
        match begun {
            None => {
                // Sent back while it was being asked: the primary answers, and nobody is to blame.
                drop((answer_to, probe));
                self.metrics.fallback(&exchange.lane.rollout);
                let left = Taken::nothing(provider, started, Ended::Abandoned);
                self.count(&left.read(exchange.endpoint).0, Role::Serve);
                self.serve_primary(own_line, exchange, (Use::Nothing, None)).await
            }
            Some(Ok((response, first))) => {
                let keep = self.keep(exchange);
                let _ = exchange.routed.answered.set(Side::Candidate);
                self.tried(&provider, probe, Some(Went::Well));
                let done = self.served(exchange, answer_to);
                Ok((tee(response, first, &provider, (started, keep, done)), provider))
            }
            Some(Err(failed)) => {
                let failed = failed.with_time(started);
                self.tried(&provider, probe, self.went(&failed));
                self.fall_back(own_line, exchange, (answer_to, failed)).await
            }
        }
    }

    /// The primary answers in place of a candidate that failed.
    async fn fall_back(
        self: &Arc<Self>,
        own_line: Option<&Line>,
        exchange: &Arc<Exchange>,
        (answer_to, failed): (Use, Taken),
    ) -> Result<Answer, Own> {
        self.metrics.fallback(&exchange.lane.rollout);
        self.retried(&failed);
        let call = self.read_unchecked(exchange, &failed, &keys(exchange));
        tracing::debug!(id = %exchange.id, outcome = call.outcome.as_str(), "the primary takes over");
        exchange.routed.ended(Side::Candidate, &call);
        let (candidate_well, solo) = (well(&call), !matches!(answer_to, Use::Pair(_)));
        match answer_to {
            Use::Pair(_) => self.served(exchange, answer_to)(failed),
            Use::Solo(lot) => {
                self.seen(&failed);
                self.heard(exchange, &failed);
                self.count(&call, Role::Serve);
                self.solo(exchange, lot, call);
            }
            Use::Nothing => {
                self.seen(&failed);
                self.count(&call, Role::Serve);
            }
        }
        // A caller who leaves now leaves the candidate's failure behind.
        let watch = |primary_well: Option<bool>| {
            if solo {
                let now = self.clock.now();
                exchange.live.watch(&self.board, now, primary_well, candidate_well);
            }
        };
        let watching = scopeguard::guard(None, watch);
        // This answer is seen because the candidate failed, so it says nothing.
        let answer = self.serve_primary(own_line, exchange, (Use::Nothing, None)).await;
        let primary_well = answer.as_ref().is_ok_and(|(it, _)| !it.status().is_server_error());
        ScopeGuard::into_inner(watching);
        watch(Some(primary_well));
        answer
    }

    /// Counts a call that is asked again elsewhere, where the provider is the reason: what it
    /// thinks of the request is its caller's mistake, or a matter of the two providers.
    pub(super) fn retried(&self, failed: &Taken) {
        if let Some(provider) = self.upstream.provider(&failed.provider)
            && self.went(failed) != Some(Went::Well)
        {
            provider.guard().retry(self.clock.now());
        }
    }

    /// Takes note of whether a caller waited in vain for the side that was to answer.
    pub(super) fn heard(&self, exchange: &Exchange, taken: &Taken) {
        let side = if taken.provider == self.primary { Side::Primary } else { Side::Candidate };
        let heard = if taken.is_in_vain() { Heard::Nothing } else { Heard::Something };
        exchange.live.kept().hear(side, heard);
    }

    /// Says how it went with a provider that was tried again; none says nothing.
    pub(super) fn tried(&self, provider: &Name, probe: Option<Probe>, went: Option<Went>) {
        let Some(probe) = probe else { return };
        let Some(went) = went else { return probe.left() };
        if probe.ended(self.clock.now(), went) {
            tracing::info!(%provider, "its breaker closed: it answers again");
        }
    }

    /// Asks a provider that serves, and waits until its answer has begun well.
    pub(super) async fn begin(
        &self,
        name: &Name,
        request: Option<Request<Body>>,
        keep: Keep,
        limit: Limit,
    ) -> Result<Begun, Taken> {
        let started = clock::instant();
        match timeout(limit.wait, self.begun(name, request, keep)).await {
            Ok(begun) => begun,
            Err(_) => Err(Taken::nothing(name.clone(), started, limit.over)),
        }
    }

    async fn begun(
        &self,
        name: &Name,
        request: Option<Request<Body>>,
        keep: Keep,
    ) -> Result<Begun, Taken> {
        let started = clock::instant();
        let broken = || Taken::nothing(name.clone(), started, Ended::Broken);
        let request = request.ok_or_else(broken)?;
        let mut response = self.upstream.send(request).await.map_err(|_| broken())?;
        if !response.status().is_success() {
            // Its head says that it failed: what else it says is of use, and not waited for.
            let (head, body) = response.into_parts();
            let said = Taken::head_only(name.clone(), &head, started);
            let (response, time) =
                (Response::from_parts(head, body), started.elapsed() + WORDS_WAIT);
            let taken = self.collect(name, response, (started, keep), time).await;
            let is_here =
                matches!(taken.ended, Ended::Whole | Ended::Cut | Ended::Shed | Ended::Broken);
            return Err(if is_here { taken } else { said });
        }
        let (mut prelude, mut first) = (Prelude::default(), BytesMut::new());
        loop {
            let chunk = match response.body_mut().frame().await {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(_)) | None => return Err(broken()),
            };
            let begins = prelude.ends(&chunk);
            if begins && first.is_empty() {
                return Ok((response, Some(chunk)));
            }
            first.extend_from_slice(&chunk);
            if begins || PRELUDE_BYTES_MAX < first.len() {
                return Ok((response, Some(first.freeze())));
            }
        }
    }
}
