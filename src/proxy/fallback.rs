//! The candidate serves: where it may, and with the primary behind it.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::Request;
use tokio::time::timeout;

use crate::clock;
use crate::dialect::Purpose;
use crate::domain::{Lane, Name, Side, Skip};
use crate::telemetry::Role;
use crate::upstream::{Body, Line, Probe, Provider, Went, retry_after_ms};

use super::{
    Proxy,
    answer::Own,
    failover::Begun,
    mirror::well,
    serve::{Answer, Exchange, Use, tee},
    tee::{Ended, Keep, Taken},
};

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
        let admitted = self.admit_to(&exchange.lane, exchange.routed.route.serve);
        // Of what may not be moved or copied nothing was to be seen anyway.
        if exchange.routed.route.places.is_some() {
            exchange.live.kept().see(admitted.cause());
        }
        admitted
    }

    fn admit_to(&self, lane: &Lane, serve: Side) -> Admitted {
        let now = self.clock.now();
        let guard = |name| self.upstream.provider(name).map(Provider::guard);
        let (Some(candidate), Some(primary)) = (guard(&lane.candidate), guard(&lane.primary))
        else {
            return Admitted::Both;
        };
        let passed = match serve {
            // In shadow a candidate that fails hurts nobody: gates and tripwire are to see it.
            _ if lane.serve.is_none() => candidate.rested(now).map(|()| None),
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
            (Ended::Broken | Ended::Timeout, _) => Some(Went::Badly),
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
        let deadline = self.settings.first_byte_timeout;
        let request = self.request_to(&provider, exchange.whole(), Purpose::Serve);
        let keep = self.keep(exchange);
        let begun = tokio::select! {
            biased;
            () = exchange.live.closed() => None,
            begun = timeout(deadline, self.begin(&provider, request, keep)) => Some(begun),
        };
        let Some(begun) = begun else {
            // Sent back while it was being asked: the primary answers, and nobody is to blame.
            drop(answer_to);
            return self.serve_primary(own_line, exchange, (Use::Nothing, None)).await;
        };
        let failed = match begun {
            Ok(Ok((response, first))) => {
                let keep = self.keep(exchange);
                let _ = exchange.routed.answered.set(Side::Candidate);
                self.tried(&exchange.lane.candidate, probe, Some(Went::Well));
                let done = self.served(exchange, answer_to);
                return Ok((tee(response, first, &provider, (started, keep, done)), provider));
            }
            Ok(Err(failed)) => failed.with_time(started),
            Err(_) => Taken::nothing(provider, started, Ended::Timeout),
        };
        self.tried(&exchange.lane.candidate, probe, self.went(&failed));
        self.fall_back(own_line, exchange, (answer_to, failed)).await
    }

    /// The primary answers in place of a candidate that failed.
    async fn fall_back(
        self: &Arc<Self>,
        own_line: Option<&Line>,
        exchange: &Arc<Exchange>,
        (answer_to, failed): (Use, Taken),
    ) -> Result<Answer, Own> {
        self.metrics.fallback(&exchange.lane.rollout);
        if let Some(candidate) = self.upstream.provider(&exchange.lane.candidate) {
            candidate.guard().retry(self.clock.now());
        }
        let (call, _) = self.read(exchange, &failed);
        tracing::debug!(id = %exchange.id, outcome = call.outcome.as_str(), "the primary takes over");
        exchange.routed.ended(Side::Candidate, &call);
        let (candidate_well, solo) = (well(&call), !matches!(answer_to, Use::Pair(_)));
        match answer_to {
            Use::Pair(_) => self.served(exchange, answer_to)(failed),
            Use::Solo(lot) => {
                self.seen(&failed);
                self.count(&call, Role::Serve);
                self.solo(exchange, lot, call);
            }
            Use::Nothing => {
                self.seen(&failed);
                self.count(&call, Role::Serve);
            }
        }
        // This answer is seen because the candidate failed, so it says nothing.
        let answer = self.serve_primary(own_line, exchange, (Use::Nothing, None)).await;
        if solo {
            let primary_well = answer.as_ref().is_ok_and(|(it, _)| !it.status().is_server_error());
            let now = self.clock.now();
            exchange.live.watch(&self.board, now, Some(primary_well), candidate_well);
        }
        answer
    }

    /// Says how it went with a provider that was tried again; none says nothing.
    pub(super) fn tried(&self, provider: &Name, probe: Option<Probe>, went: Option<Went>) {
        let Some((probe, went)) = probe.zip(went) else { return };
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
    ) -> Result<Begun, Taken> {
        let started = clock::instant();
        let broken = || Taken::nothing(name.clone(), started, Ended::Broken);
        let request = request.ok_or_else(broken)?;
        let mut response = self.upstream.send(request).await.map_err(|_| broken())?;
        if !response.status().is_success() {
            return Err(self.collect(name, response, (started, keep)).await);
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
}
