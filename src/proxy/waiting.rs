//! Waiting for an answer to begin on behalf of a caller: how long, and what it means that the caller
//! leaves meanwhile.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::http::request::Parts;
use scopeguard::ScopeGuard;
use tokio::time;

use crate::clock;
use crate::domain::{Name, Timestamp};

use super::{
    Proxy,
    failover::Whole,
    headers,
    tee::{Done, Ended, Taken},
};

/// Headers in which callers say how many seconds they wait for an answer: ours, and those of the
/// SDKs of providers.
const DEADLINES: [&str; 3] =
    ["x-crossfade-deadline", "x-stainless-read-timeout", "x-stainless-timeout"];
/// Longest that a caller is believed to wait.
const DEADLINE_MAX: Duration = Duration::from_hours(24);

/// A provider that has another one behind it has time for so many answers as the primary's slowest.
const SLOWEST_TIMES: u32 = 4;
/// Whole answers of the primary from which on it is known how long they take.
const ANSWERS_MIN: u64 = 20;
/// How long whole answers are remembered at least; twice as long at most.
const REMEMBERED_MS: u64 = 30 * 60_000;

/// How long a provider that has another one behind it may take to the first byte of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// In all.
    pub(super) wait: Duration,
    /// With nothing to be heard of it.
    pub(super) silence: Duration,
    /// From when on a copy would have failed too.
    late: Duration,
}

impl Limit {
    /// Of one with nobody behind it.
    pub(super) fn alone(wait: Duration) -> Self {
        Self { wait, silence: wait, late: wait }
    }

    /// What it means that it was given up after so long.
    pub(super) fn over(self, waited: Duration) -> Ended {
        if self.late <= waited { Ended::Timeout } else { Ended::unbegun(waited) }
    }
}

/// The slowest whole answers of the primary, of this half-hour and of the one before.
#[derive(Debug, Default)]
pub struct Slowest(Mutex<[HalfHour; 2]>);

#[derive(Clone, Copy, Debug, Default)]
struct HalfHour {
    number: u64,
    answers: u64,
    slowest_ms: u32,
}

impl Slowest {
    /// Takes an answer whose body took so long to begin, in milliseconds.
    pub(super) fn see(&self, now: Timestamp, ms: u32) {
        let number = now.0 / REMEMBERED_MS;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all[0].number != number {
            *all = [HalfHour { number, ..HalfHour::default() }, all[0]];
        }
        all[0].answers += 1;
        all[0].slowest_ms = all[0].slowest_ms.max(ms);
    }

    /// How long the slowest took lately, where there were enough.
    fn lately(&self, now: Timestamp) -> Option<Duration> {
        let number = now.0 / REMEMBERED_MS;
        let all = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = || all.iter().filter(|it| number <= it.number + 1);
        let known = ANSWERS_MIN <= recent().map(|it| it.answers).sum();
        let slowest = recent().map(|it| it.slowest_ms).max().filter(|_| known)?;
        Some(Duration::from_millis(slowest.into()))
    }
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
    /// The first byte of a stream comes soon, that of another answer when it is complete: silence
    /// is too long when the primary's answers take much less. Whoever is behind has to have time
    /// too: at most half of what is left of the caller's is waited for. A provider that had less
    /// time than any copy has is to blame as if its caller had left.
    pub(super) fn limit(&self, whole: Whole<'_>) -> Limit {
        let settings = &self.settings;
        let (ours, silence) = if whole.asked.stream {
            (settings.first_byte_timeout, settings.first_byte_timeout)
        } else {
            (settings.upstream_timeout, self.whole_silence())
        };
        let half = whole.head.extensions.get::<Deadline>().map(|it| it.left() / 2);
        let wait = half.map_or(ours, |it| it.min(ours));
        Limit { wait, silence: silence.min(wait), late: ours.min(settings.copy_timeout) }
    }

    /// How long nothing may be heard of an answer that is no stream. Where it is not known how long
    /// the primary's take, as long as a copy may take.
    fn whole_silence(&self) -> Duration {
        let settings = &self.settings;
        let slowest = self.slowest.lately(self.clock.now());
        slowest.map_or(settings.copy_timeout, |it| {
            (it * SLOWEST_TIMES).max(settings.first_byte_timeout)
        })
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

    #[test]
    fn the_slowest_of_enough_answers_is_remembered_for_half_an_hour_or_a_bit_longer() {
        let (slowest, at) = (Slowest::default(), |it: u64| Timestamp(REMEMBERED_MS * 1_000 + it));
        let lately = |ms| slowest.lately(at(ms)).map(|it| it.as_millis());
        (1..20).for_each(|ms| slowest.see(at(0), ms));
        assert_eq!(lately(0), None, "too few");
        slowest.see(at(1), 7);
        assert_eq!(lately(1), Some(19));
        (0..20).for_each(|_| slowest.see(at(REMEMBERED_MS), 5));
        assert_eq!(lately(2 * REMEMBERED_MS - 1), Some(19));
        assert_eq!(lately(2 * REMEMBERED_MS), Some(5));
        assert_eq!(lately(3 * REMEMBERED_MS), None);
        slowest.see(at(9 * REMEMBERED_MS), 3);
        assert_eq!(lately(9 * REMEMBERED_MS), None, "the old ones say nothing");
    }

    #[test]
    fn whoever_had_less_time_than_a_copy_is_to_blame_as_if_its_caller_had_left() {
        let seconds = Duration::from_secs;
        let limit = Limit { wait: seconds(600), silence: seconds(30), late: seconds(120) };
        let over = [1, 3, 10, 119, 120].map(|it| limit.over(seconds(it)));
        let left = [Ended::Abandoned, Ended::Unheard, Ended::Silent, Ended::Silent];
        assert_eq!((&over[..4], over[4]), (&left[..], Ended::Timeout));
        assert_eq!(Limit::alone(seconds(2)).over(seconds(2)), Ended::Timeout);
    }

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
