//! What stands between callers and one provider: its breaker, its wish to be left alone, and how
//! many of its calls may be asked again elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, UNIX_EPOCH},
};

use crate::config;
use crate::domain::{Skip, Timestamp};

use super::{
    breaker::{Breaker, Passed, Probe, Standing, Went},
    recent::Recent,
};

/// Longest a provider is left alone because it asks for it, in milliseconds.
const PAUSE_MS_MAX: u64 = 60_000;
/// One in how many requests for it in the last seconds may be asked again elsewhere, and how many
/// besides.
const RETRIED_ONE_IN: u64 = 10;
const RETRIED_FREE: u64 = 10;

/// What protects the callers of one provider.
#[derive(Debug)]
pub struct Guard {
    breaker: Option<Arc<Breaker>>,
    paused_until: AtomicU64,
    wanted: Recent,
    retried: Recent,
}

impl Guard {
    /// One that lets everybody pass; without terms it has no breaker.
    pub(super) fn new(terms: Option<config::Breaker>) -> Self {
        Self {
            breaker: terms.map(|it| Arc::new(Breaker::new(it))),
            paused_until: AtomicU64::new(0),
            wanted: Recent::default(),
            retried: Recent::default(),
        }
    }

    /// Lets a caller pass, or says why not. One that gets a probe tries whether the provider is
    /// well again, and has to say how that went.
    ///
    /// # Errors
    /// The reason.
    pub fn pass(&self, now: Timestamp) -> Result<Option<Probe>, Skip> {
        let probe = self.through(now)?;
        self.rested(now)?;
        if probe.is_none() {
            self.afford(now)?;
        }
        Ok(probe)
    }

    /// Lets a caller through the breaker alone: what a primary says of its load is its caller's to
    /// read.
    ///
    /// # Errors
    /// When it is not closed, or enough others try it already.
    pub fn through(&self, now: Timestamp) -> Result<Option<Probe>, Skip> {
        self.wanted.add(now);
        let passed = self.breaker.as_ref().map_or(Passed::Freely, |it| it.pass(now));
        match passed {
            Passed::Freely => Ok(None),
            Passed::Trying(probe) => Ok(Some(probe)),
            Passed::Not => Err(Skip::Breaker),
        }
    }

    /// Lets a copy try whether the provider is well again, if that is to be tried now.
    pub fn probe(&self, now: Timestamp) -> Option<Probe> {
        match self.breaker.as_ref()?.pass(now) {
            Passed::Trying(probe) => Some(probe),
            Passed::Freely | Passed::Not => None,
        }
    }

    /// Whether everybody may pass now, without doing so.
    ///
    /// # Errors
    /// The reason why not.
    pub fn look(&self, now: Timestamp) -> Result<(), Skip> {
        self.rested(now)?;
        self.closed()?;
        self.afford(now)
    }

    /// Whether its breaker is closed.
    ///
    /// # Errors
    /// When it is not.
    pub fn closed(&self) -> Result<(), Skip> {
        let closed = self.breaker.as_ref().is_none_or(|it| it.is_closed());
        if closed { Ok(()) } else { Err(Skip::Breaker) }
    }

    /// Whether it may be asked at all: it is not when it has asked to be left alone.
    ///
    /// # Errors
    /// When it has.
    pub fn rested(&self, now: Timestamp) -> Result<(), Skip> {
        if now.0 < self.paused_until.load(Relaxed) { Err(Skip::RetryAfter) } else { Ok(()) }
    }

    /// Leaves it alone for so long, but not longer than a minute.
    pub fn pause(&self, now: Timestamp, ms: u64) {
        self.paused_until.fetch_max(now.0 + ms.min(PAUSE_MS_MAX), Relaxed);
    }

    /// Takes a call that ended. True when the breaker opens by it.
    pub fn see(&self, now: Timestamp, went: Went) -> bool {
        self.breaker.as_ref().is_some_and(|it| it.see(now, went))
    }

    /// Takes a health check. Tells how the breaker stands if it opens or closes by it.
    pub(super) fn check(&self, now: Timestamp, went: Went) -> Option<Standing> {
        self.breaker.as_ref()?.check(now, went)
    }

    /// Counts a call of it that is asked again elsewhere.
    pub fn retry(&self, now: Timestamp) {
        self.retried.add(now);
    }

    /// How its breaker stands; none without one.
    pub fn standing(&self) -> Option<Standing> {
        self.breaker.as_ref().map(|it| it.standing())
    }

    /// How often its breaker has opened.
    pub fn opened(&self) -> u64 {
        self.breaker.as_ref().map_or(0, |it| it.opened())
    }

    /// Whether one more of its calls may be asked again elsewhere.
    ///
    /// # Errors
    /// When too many were.
    pub fn afford(&self, now: Timestamp) -> Result<(), Skip> {
        let retried = self.retried.sum(now);
        // Without a breaker callers are sent there whatever comes of it.
        let room = self.breaker.is_none()
            || retried < RETRIED_FREE
            || retried < RETRIED_FREE + self.wanted.sum(now) / RETRIED_ONE_IN;
        if room { Ok(()) } else { Err(Skip::RetryBudget) }
    }
}

/// The milliseconds that a `Retry-After` asks for: seconds and parts of them, or the time to come
/// back. What `retry-after-ms` says ends in `ms`.
pub fn retry_after_ms(text: &str, now: Timestamp) -> Option<u64> {
    let (number, unit_ms) = text.strip_suffix("ms").map_or((text, 1_000.0), |it| (it, 1.0));
    if let Some(wait) = number.parse().ok().filter(|it: &f64| it.is_sign_positive()) {
        let wait = Duration::try_from_secs_f64(wait * unit_ms / 1_000.0).ok()?;
        return u64::try_from(wait.as_millis()).ok();
    }
    let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(u64::try_from(at.as_millis()).ok()?.saturating_sub(now.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(784_111_777_000);

    fn later(ms: u64) -> Timestamp {
        Timestamp(NOW.0 + ms)
    }

    #[test]
    fn a_provider_is_left_alone_as_long_as_it_asks_and_a_minute_at_most() {
        let guard = Guard::new(None);
        assert!(matches!(guard.pass(NOW), Ok(None)));
        guard.pause(NOW, 5_000);
        guard.pause(NOW, 1_000);
        assert_eq!(guard.look(later(4_999)), Err(Skip::RetryAfter));
        assert_eq!(guard.look(later(5_000)), Ok(()));
        guard.pause(NOW, u64::from(u32::MAX) * 1_000);
        assert_eq!(guard.look(later(59_999)), Err(Skip::RetryAfter));
        assert_eq!(guard.look(later(60_000)), Ok(()));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after_ms("20", NOW), Some(20_000));
        assert_eq!(retry_after_ms("1.5", NOW), Some(1_500));
        assert_eq!(retry_after_ms("250ms", NOW), Some(250));
        assert_eq!(retry_after_ms("0.5ms", NOW), Some(0));
        assert_eq!(retry_after_ms("Sun, 06 Nov 1994 08:49:47 GMT", NOW), Some(10_000));
        assert_eq!(retry_after_ms("Sun, 06 Nov 1994 08:49:27 GMT", NOW), Some(0));
        for text in ["", "-1", "-1ms", "soon", "NaN", "inf", "1e300", "ms"] {
            assert_eq!(retry_after_ms(text, NOW), None, "{text}");
        }
    }

    /// B-17
    #[test]
    fn one_call_in_ten_may_be_asked_again_and_ten_besides() {
        let guard = Guard::new(Some(config::Breaker::default()));
        let mut retried = 0;
        for call in 0..1_000 {
            // Every second one fails.
            if guard.pass(later(call)).is_ok() && call % 2 == 0 {
                guard.retry(later(call));
                retried += 1;
            }
        }
        // What is not asked is not retried either.
        assert!((90..=110).contains(&retried), "{retried}");
        (0..20).for_each(|_| guard.retry(later(1_000)));
        assert_eq!(guard.look(later(1_000)), Err(Skip::RetryBudget));
        assert_eq!(guard.look(later(40_000)), Ok(()));
    }
}
