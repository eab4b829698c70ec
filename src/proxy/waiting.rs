//! Waiting for an answer to begin on behalf of a caller: how long, and what it means that the caller
//! leaves meanwhile.

use std::{
    future::poll_fn,
    time::{Duration, Instant},
};

use hyper::{header::HeaderName, http::request::Parts};
use scopeguard::ScopeGuard;
use tokio::time;

use crate::clock::{self, Alarm};
use crate::domain::Name;
use crate::upstream::{Line, UNHEARD};

use super::{
    Proxy,
    failover::Whole,
    headers,
    tee::{Done, Ended, Taken},
};

/// Headers in which callers say how many seconds they wait for an answer: ours, and those of the
/// SDKs of providers.
static DEADLINES: [HeaderName; 3] = [
    HeaderName::from_static("x-crossfade-deadline"),
    HeaderName::from_static("x-stainless-read-timeout"),
    HeaderName::from_static("x-stainless-timeout"),
];
/// Longest that a caller is believed to wait.
const DEADLINE_MAX: Duration = Duration::from_hours(24);

/// How long a provider that has another one behind it may take to the first byte of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) wait: Duration,
    /// What it means that it took longer.
    pub(super) over: Ended,
}

/// When the caller of a request will have left: it says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(time::Instant);

impl Deadline {
    /// Remembers what a request says that comes in now.
    pub(super) fn enter(head: &mut Parts) {
        let said = DEADLINES.iter().find_map(|it| headers::text(&head.headers, it).parse().ok());
        let wait = said.and_then(|it| Duration::try_from_secs_f64(it).ok());
        if let Some(wait) = wait.filter(|it| Duration::ZERO < *it && *it <= DEADLINE_MAX) {
            head.extensions.insert(Self(time::Instant::now() + wait));
        }
    }

    fn left(self) -> Duration {
        self.0.saturating_duration_since(time::Instant::now())
    }
}

impl Proxy {
    /// The first byte of a stream comes soon, that of another answer when it is complete. Whoever
    /// is behind has to have time too: at most half of what is left of the caller's is waited for,
    /// and a provider that had less time than any copy has is not to blame.
    pub(super) fn limit(&self, whole: Whole<'_>) -> Limit {
        let settings = &self.settings;
        let ours = if whole.asked.stream {
            settings.first_byte_timeout
        } else {
            settings.upstream_timeout
        };
        let half = whole.head.extensions.get::<Deadline>().map(|it| it.left() / 2);
        match half.filter(|it| *it < ours) {
            None => Limit { wait: ours, over: Ended::Timeout },
            Some(wait) if settings.copy_timeout <= wait => Limit { wait, over: Ended::Timeout },
            Some(wait) if UNHEARD <= wait => Limit { wait, over: Ended::Unheard },
            Some(wait) => Limit { wait, over: Ended::Abandoned },
        }
    }
}

/// What is known of the primary while it, or another in its place, is waited for.
#[derive(Debug)]
pub(super) enum Known {
    /// It was not asked.
    Nothing,
    /// It has not answered since.
    Asked(Instant),
    /// It has failed.
    Failed(Taken),
}

/// The primary, or another in its place, while its answer has not begun.
pub(super) struct Waiting {
    primary: Name,
    pub(super) known: Known,
    pub(super) done: Done,
}

/// Resolves when a time has come that may be put off meanwhile.
pub(super) async fn late(own_line: Option<&Line>, at: impl Fn() -> time::Instant) {
    let mut alarm = Alarm::default();
    poll_fn(|context| match own_line {
        Some(line) => line.poll_until(at(), context),
        None => alarm.poll(at(), context),
    })
    .await;
}

/// Tells `done` how it went with the primary if the caller leaves before the waiting is over.
pub(super) fn waiting(primary: Name, done: Done) -> ScopeGuard<Waiting, fn(Waiting)> {
    let left: fn(Waiting) = Waiting::left;
    scopeguard::guard(Waiting { primary, known: Known::Nothing, done }, left)
}

impl Known {
    /// It is asked now.
    pub(super) fn asked() -> Self {
        Self::Asked(clock::instant())
    }
}

impl Waiting {
    fn left(self) {
        let Self { primary, known, done } = self;
        match known {
            Known::Nothing => {}
            Known::Asked(at) => done(Taken::nothing(primary, at, Ended::unbegun(at.elapsed()))),
            Known::Failed(taken) => done(taken),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn callers_say_in_seconds_how_long_they_wait() {
        let left = |headers: &[(&'static str, &'static str)]| {
            let mut request = Request::new(());
            *request.headers_mut() = headers::tests::headers(headers);
            let (mut head, ()) = request.into_parts();
            Deadline::enter(&mut head);
            head.extensions.get::<Deadline>().map(|it| it.left().as_millis())
        };
        assert_eq!(left(&[("x-stainless-read-timeout", "600.0")]), Some(600_000));
        assert_eq!(left(&[("x-stainless-timeout", "600")]), Some(600_000));
        let both = [("x-stainless-timeout", "600"), ("x-crossfade-deadline", "0.25")];
        assert_eq!(left(&both), Some(250));
        for said in ["", "0", "-1", "None", "NaN", "inf", "1e300", "86401"] {
            assert_eq!(left(&[("x-crossfade-deadline", said.to_owned().leak())]), None, "{said}");
        }
    }
}
