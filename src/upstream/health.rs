//! Active health checks: providers that serve are asked for something small, beside all callers.
//!
//! Each check opens a connection of its own, because callers' warm ones hide a name or a
//! certificate that no longer works.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Url};
use tokio::time::{Instant, sleep_until};

use crate::clock::Clock;
use crate::config::Health;
use crate::domain::{Name, Splitmix};
use crate::tasks::{BoxError, Stop, describe, spawn};
use crate::telemetry::Metrics;

use super::{
    Provider, Resolver, Upstream, aside,
    breaker::{Standing, Went},
};

/// Longest a check takes; one that comes every second or more often has till the next.
const CHECK_MS_MAX: u64 = 5_000;
/// Checks come earlier or later by so much of their time, so that many programs do not come at once.
const JITTER_ONE_IN: u64 = 10;

/// Asks every provider that `serves` now, again and again, until told to stop.
///
/// # Errors
/// When there can be no client.
pub async fn watch(
    upstream: Upstream,
    serves: impl Fn(&Name) -> bool + Send + Sync,
    (metrics, clock): (Arc<Metrics>, Clock),
    mut stop: Stop,
) -> Result<(), BoxError> {
    let mut dice = Splitmix(clock.now().0);
    let mut due: Vec<(Instant, Name, u64, Client)> = Vec::new();
    for (name, provider) in upstream.providers() {
        let Some(Health { every_ms, .. }) = provider.health else { continue };
        let client = provider.checker()?;
        due.push((next(every_ms, &mut dice), name.clone(), every_ms, client));
    }
    loop {
        let Some((at, name, every_ms, client)) = due.iter_mut().min_by_key(|(at, ..)| *at) else {
            stop.wait().await;
            return Ok(());
        };
        tokio::select! {
            () = stop.wait() => return Ok(()),
            () = sleep_until(*at) => {}
        }
        *at = next(*every_ms, &mut dice);
        if serves(name) {
            let (upstream, client, name) = (upstream.clone(), client.clone(), name.clone());
            let metrics = Arc::clone(&metrics);
            // At most one for each provider: it ends before the next one begins.
            spawn("health check", async move {
                if let Some(provider) = upstream.provider(&name) {
                    provider.check(&name, &client, (&metrics, clock)).await;
                }
            });
        }
    }
}

/// When the next check is due.
fn next(every_ms: u64, dice: &mut Splitmix) -> Instant {
    let spread = every_ms / JITTER_ONE_IN;
    Instant::now() + Duration::from_millis(every_ms - spread + dice.roll() % (2 * spread + 1))
}

impl Provider {
    /// A client for its checks.
    fn checker(&self) -> reqwest::Result<Client> {
        let resolver = Resolver::new([(self.authority.host(), self.link_local)]);
        aside(resolver, &self.authorities).pool_max_idle_per_host(0).build()
    }

    async fn check(&self, name: &Name, client: &Client, (metrics, clock): (&Metrics, Clock)) {
        let Some(health) = &self.health else { return };
        let (went, problem) = match self.ask(client, health).await {
            Ok(went) => (went, None),
            Err(error) => (Some(Went::Badly), Some(describe(error.as_ref()))),
        };
        metrics.health(name, problem.as_deref());
        match went.and_then(|it| self.guard.check(clock.now(), it)) {
            Some(Standing::Open) => {
                metrics.breaker_opened(name);
                let problem = problem.unwrap_or_default();
                tracing::warn!(provider = %name, problem, "its breaker opened: health checks failed");
            }
            Some(Standing::Closed) => {
                tracing::info!(provider = %name, "its breaker closed: it answers health checks");
            }
            Some(Standing::HalfOpen) | None => {}
        }
    }

    /// Whether it answers at all: what it thinks of the request is another matter. That it refuses
    /// our key says nothing: callers may fare the same, or the key may be for them alone.
    async fn ask(&self, client: &Client, health: &Health) -> Result<Option<Went>, BoxError> {
        let Self { scheme, authority, path, .. } = self;
        let url = Url::parse(&format!("{scheme}://{authority}{path}{}", health.path))?;
        let wait = Duration::from_millis(CHECK_MS_MAX.min(health.every_ms / 2));
        let mut request = client.get(url).timeout(wait);
        if let Some((header, value)) = &self.credential {
            request = request.header(header, value);
        }
        let status = request.send().await?.status();
        if status.is_server_error() && status.as_u16() != 529 {
            return Err(format!("it answered with status {status}").into());
        }
        let refused = self.credential.is_some() && matches!(status.as_u16(), 401 | 403);
        Ok((!refused).then_some(Went::Well))
    }
}
