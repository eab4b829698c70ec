//! Who answers in place of a primary that cannot, where that is configured.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use hyper::{Response, body::Incoming, http::request::Parts};
use tokio::time::timeout;

use crate::clock;
use crate::dialect::{Asked, Purpose};
use crate::domain::{Endpoint, Facts, Name, PairId, Skip, Tie};
use crate::memory::Need;
use crate::telemetry::Role;
use crate::traffic::Routed;
use crate::upstream::{Line, Provider, Went};

use super::{
    Proxy,
    answer::{Own, full},
    serve::{Answer, Exchange, tee},
    tee::{Done, Ended, Keep, Taken},
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
    /// What another provider says in its place; and how the primary failed, if it was asked.
    Other(Name, Begun, Option<Taken>),
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
    ) -> Got {
        let others: Vec<&Name> = self.others(facts).collect();
        let ask = || self.ask_primary(own_line, whole.head.clone(), full(whole.body.clone()));
        let guard = self.upstream.provider(&self.primary).map(Provider::guard);
        let Some(guard) = guard.filter(|_| !others.is_empty()) else {
            return Got::Primary(ask().await);
        };
        let started = clock::instant();
        let (mut said, mut failed) = (None, None);
        if let Ok(probe) = guard.through(self.clock.now()) {
            let (primary, taken) = self.failure(ask().await, started);
            let went = if taken.is_some() { Went::Badly } else { Went::Well };
            self.tried(&self.primary, probe, Some(went));
            let Some(taken) = taken else { return Got::Primary(primary) };
            let now = self.clock.now();
            if guard.afford(now).is_err() {
                return Got::Primary(primary);
            }
            guard.retry(now);
            (said, failed) = (Some(primary), Some(taken));
        }
        // Looked at only now: a primary that answers is asked whatever the request says.
        let found = self.callers.detector.classes(whole.body);
        for name in others.into_iter().filter(|it| self.clears(it, &found)) {
            if let Some(begun) = self.ask_other_than_primary(name, whole).await {
                self.metrics.failover(name);
                return Got::Other(name.clone(), begun, failed);
            }
        }
        match said {
            Some(primary) => Got::Primary(primary),
            None => Got::Primary(ask().await),
        }
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
    fn failure(&self, primary: Primary, started: Instant) -> (Primary, Option<Taken>) {
        match primary {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let status = head.status.as_u16();
                let failed = head.status.is_server_error() && status != 529;
                let taken = failed.then(|| Taken::head_only(self.primary.clone(), &head, started));
                (Ok(Response::from_parts(head, body)), taken)
            }
            Err((own, ended @ (Ended::Broken | Ended::Timeout))) => {
                let taken = Taken::nothing(self.primary.clone(), started, ended);
                (Err((own, ended)), Some(taken))
            }
            Err((own, ended @ (Ended::Whole | Ended::Cut | Ended::Shed | Ended::Abandoned))) => {
                (Err((own, ended)), None)
            }
        }
    }

    /// Asks one of those behind the primary; none when it is not to be asked, or does not answer well.
    async fn ask_other_than_primary(&self, name: &Name, whole: Whole<'_>) -> Option<Begun> {
        let started = clock::instant();
        let guard = self.upstream.provider(name)?.guard();
        let probe = guard.pass(self.clock.now()).ok()?;
        let request = self.request_to(name, whole, Purpose::StandIn);
        let held = self.memory.hold(Need::Answer, None);
        let keep = Keep::UpTo(self.settings.capture_bytes_max, held);
        let begun = timeout(self.settings.upstream_timeout, self.begin(name, request, keep)).await;
        let failed = match begun {
            Ok(Ok(begun)) => {
                self.tried(name, probe, Some(Went::Well));
                return Some(begun);
            }
            Ok(Err(failed)) => failed,
            Err(_) => Taken::nothing(name.clone(), started, Ended::Timeout),
        };
        self.tried(name, probe, self.went(&failed));
        guard.retry(self.clock.now());
        self.seen(&failed);
        self.count(&failed.read(whole.endpoint).0, Role::Serve);
        None
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

    /// A request that no rollout governs, and that others may answer if the primary cannot.
    pub(super) async fn pass_whole(
        self: &Arc<Self>,
        own_line: Option<&Line>,
        whole: Whole<'_>,
        routed: &Routed,
    ) -> Result<Answer, Own> {
        let started = clock::instant();
        match self.ask_any(own_line, whole, &routed.facts).await {
            Got::Primary(primary) => self.passed(primary, started),
            Got::Other(name, begun, failed) => {
                if let Some(taken) = failed {
                    self.seen(&taken);
                    self.count(&taken.read(whole.endpoint).0, Role::Serve);
                }
                let _ = routed.failover.set(name.clone());
                Ok(self.from_other((name, begun), (whole.endpoint, started)))
            }
        }
    }
}
