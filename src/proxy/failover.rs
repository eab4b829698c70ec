//! Who answers in place of a primary that cannot, where that is configured.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{Response, body::Incoming, http::request::Parts};
use scopeguard::ScopeGuard;
use tokio::time;

use crate::clock;
use crate::dialect::{Asked, Purpose};
use crate::domain::{Endpoint, Facts, Name, PairId, Skip, Tie};
use crate::memory::{Held, Need};
use crate::telemetry::Role;
use crate::traffic::Routed;
use crate::upstream::{Line, Provider, Went};

use super::{
    Proxy,
    answer::{Own, full},
    serve::{Answer, Exchange, tee},
    tee::{Done, Ended, Keep, Taken},
    waiting::{Known, Limit, Waiting, late, waiting},
};

/// A request whole in memory, as any provider may be asked it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<'a> {
    pub(super) id: PairId,
    pub(super) endpoint: Endpoint,
    pub(super) head: &'a Parts,
    pub(super) body: &'a Bytes,
    pub(super) asked: &'a Asked,
}

/// An answer that has begun: its head, and what was read ahead of its body.
pub(super) type Begun = (Response<Incoming>, Option<Bytes>);

/// The primary's answer, or why there is none.
pub(super) type Primary = Result<Response<Incoming>, (Own, Ended)>;

/// What a request came to that is the primary's.
pub(super) enum Got {
    /// What the primary says, good or not.
    Primary(Primary),
    /// What another provider says in its place.
    Other(Name, Begun),
}

impl Exchange {
    /// The request, as any provider may be asked it.
    pub(super) fn whole(&self) -> Whole<'_> {
        let Self { id, endpoint, head, body, asked, .. } = self;
        Whole { id: *id, endpoint: *endpoint, head, body, asked }
    }
}

impl Proxy {
    /// Asks the primary; where it fails before its answer begins, or has failed so often that it is
    /// not asked, those that may answer in its place. Where none of them does, the caller gets what
    /// the primary says.
    pub(super) async fn ask_any(
        &self,
        own_line: Option<&Line>,
        whole: Whole<'_>,
        facts: &Facts,
        known: &mut Known,
    ) -> Got {
        let others: Vec<&Name> = self.others(facts).collect();
        let ask = |wait: Duration| {
            let request = (whole.head.clone(), full(whole.body.clone()));
            let until = time::Instant::now() + wait;
            self.ask_primary(own_line, request, late(own_line, move || until))
        };
        let guard = self.upstream.provider(&self.primary).map(Provider::guard);
        let Some(guard) = guard.filter(|_| !self.failover.is_empty()) else {
            *known = Known::asked();
            return Got::Primary(ask(self.settings.upstream_timeout).await);
        };
        let through = guard.through(self.clock.now());
        let mut said = None;
        // What nobody else may answer is asked whatever was seen, and closes the breaker too.
        if through.is_ok() || others.is_empty() {
            let started = clock::instant();
            *known = Known::Asked(started);
            let limit = match &others[..] {
                [] => Limit { wait: self.settings.upstream_timeout, over: Ended::Timeout },
                _ => self.limit(whole),
            };
            let (primary, taken) = self.failure(ask(limit.wait).await, started, limit);
            let went = taken.as_ref().map_or(Some(Went::Well), |it| self.went(it));
            self.tried(&self.primary, through.ok().flatten(), went);
            let now = self.clock.now();
            let Some(taken) = taken.filter(|_| !others.is_empty() && guard.afford(now).is_ok())
            else {
                return Got::Primary(primary);
            };
            self.retried(&taken);
            (said, *known) = (Some(primary), Known::Failed(taken));
        }
        // Looked at only now: a primary that answers is asked whatever the request says.
        let found = self.callers.detector.classes(whole.body);
        for name in others.into_iter().filter(|it| self.clears(it, &found)) {
            if let Some(begun) = self.ask_other_than_primary(name, whole).await {
                self.metrics.failover(name);
                return Got::Other(name.clone(), begun);
            }
        }
        if let Some(primary) = said {
            return Got::Primary(primary);
        }
        *known = Known::asked();
        Got::Primary(ask(self.settings.upstream_timeout).await)
    }

    /// Who may answer a request in place of the primary: nobody what is bound to it, or may not run
    /// twice, and only those that are cleared for its data.
    fn others<'a>(&'a self, facts: &'a Facts) -> impl Iterator<Item = &'a Name> {
        let free = facts.tie == Tie::None
            && matches!(facts.barred, None | Some(Skip::Retry | Skip::Multiple));
        self.failover.iter().filter(move |it| free && self.clears(it, &facts.data))
    }

    fn clears(&self, name: &Name, data: &[String]) -> bool {
        self.upstream.provider(name).is_some_and(|it| it.is_cleared(data))
    }

    /// How the primary failed, if it did: what it says to its caller is no failure of it.
    fn failure(
        &self,
        primary: Primary,
        started: Instant,
        limit: Limit,
    ) -> (Primary, Option<Taken>) {
        let (own, ended) = match primary {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let status = head.status.as_u16();
                let failed = head.status.is_server_error() && status != 529;
                let taken = failed.then(|| Taken::head_only(self.primary.clone(), &head, started));
                return (Ok(Response::from_parts(head, body)), taken);
            }
            Err((own, Ended::Timeout)) => (own, limit.over),
            Err((own, Ended::Broken)) => (own, Ended::Broken),
            // The caller's own body broke off.
            Err(said) => return (Err(said), None),
        };
        let taken = Taken::nothing(self.primary.clone(), started, ended);
        (Err((own, ended)), Some(taken))
    }

    /// Asks one of those behind the primary; none when it is not to be asked, or does not answer well.
    async fn ask_other_than_primary(&self, name: &Name, whole: Whole<'_>) -> Option<Begun> {
        let started = clock::instant();
        let guard = self.upstream.provider(name)?.guard();
        let probe = guard.pass(self.clock.now()).ok()?;
        let request = self.request_to(name, whole, Purpose::StandIn);
        let held = self.memory.hold(Need::Answer, None);
        let keep = Keep::UpTo(self.settings.capture_bytes_max, held);
        let told = |taken: Taken| {
            self.seen(&taken);
            self.count(&taken.read(whole.endpoint).0, Role::Serve);
        };
        // A caller who leaves leaves behind what was seen of it.
        let waiting = scopeguard::guard((), |()| {
            told(Taken::nothing(name.clone(), started, Ended::unbegun(started.elapsed())));
        });
        let limit = self.limit(whole);
        let begun = self.begin(name, request, keep, limit).await;
        ScopeGuard::into_inner(waiting);
        match begun {
            Ok(begun) => {
                self.tried(name, probe, Some(Went::Well));
                Some(begun)
            }
            Err(failed) => {
                self.tried(name, probe, self.went(&failed));
                self.retried(&failed);
                told(failed);
                None
            }
        }
    }

    /// The answer of another provider on its way to the caller.
    pub(super) fn from_other(
        self: &Arc<Self>,
        (name, (response, first)): (Name, Begun),
        (endpoint, started): (Endpoint, Instant),
    ) -> Answer {
        let proxy = Arc::clone(self);
        let done: Done = Box::new(move |taken: Taken| {
            proxy.seen(&taken);
            proxy.count(&taken.read(endpoint).0, Role::Serve);
        });
        (tee(response, first, &name, (started, Keep::Nothing, done)), name)
    }

    /// A request that no rollout governs, which others may answer if the primary cannot.
    pub(super) async fn pass_whole(
        self: &Arc<Self>,
        own_line: Option<&Line>,
        whole: Whole<'_>,
        routed: &Routed,
        held: Held,
    ) -> Result<Answer, Own> {
        let started = clock::instant();
        let (keep, done) = self.looked_at(self.look(whole, &routed.facts, held));
        let mut waiting = waiting(self.primary.clone(), done);
        let got = self.ask_any(own_line, whole, &routed.facts, &mut waiting.known).await;
        let Waiting { known, done, .. } = ScopeGuard::into_inner(waiting);
        match got {
            Got::Primary(primary) => self.passed(primary, started, (keep, done)),
            Got::Other(name, begun) => {
                if let Known::Failed(taken) = known {
                    done(taken);
                }
                let _ = routed.failover.set(name.clone());
                Ok(self.from_other((name, begun), (whole.endpoint, started)))
            }
        }
    }
}
