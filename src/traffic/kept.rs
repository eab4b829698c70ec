//! Requests that were kept from one side of a rollout for its callers' sake, and so are nobody's
//! evidence.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::domain::{Side, Skip};

/// Requests before their part is judged, and the part of them, in percent, that may be kept.
const REQUESTS_MIN: u64 = 20;
const KEPT_PERCENT_MAX: u64 = 5;

/// Which requests of a window were kept from a side, and whether the last one was.
#[derive(Debug, Default)]
pub struct Kept {
    requests: AtomicU64,
    held: AtomicU64,
    /// Why the last one was, as the place of its cause among all, from 1; 0 when it was not.
    last: AtomicU64,
    /// The primary's through all stages of an attempt.
    primary: Arc<Callers>,
    candidate: Callers,
}

/// What the caller of a request heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An answer, or that there is none.
    Something,
    /// Nothing: it gave up, or we did for it, before an answer began.
    Nothing,
}

/// Requests that a side was to answer, and those whose callers heard nothing of it.
#[derive(Debug, Default)]
struct Callers {
    all: AtomicU64,
    in_vain: AtomicU64,
}

/// Every cause, and what it means for the evidence.
const CAUSES: [((Side, Skip), &str); 4] = [
    (
        (Side::Candidate, Skip::Breaker),
        "the breaker of the candidate is open, because too many of its calls failed: it is asked \
         again after its cool-down, and until it answers nothing counts",
    ),
    (
        (Side::Candidate, Skip::RetryAfter),
        "the candidate has asked to be left alone for a while (429 or 529 with Retry-After): until \
         then nothing counts",
    ),
    (
        (Side::Candidate, Skip::RetryBudget),
        "more than one in ten calls of the candidate had to be asked again of the primary: it is \
         asked less, and nothing counts meanwhile",
    ),
    (
        (Side::Primary, Skip::Breaker),
        "the breaker of the primary is open, because too many of its calls failed: until it \
         answers again nothing counts",
    ),
];

impl Callers {
    fn hear(&self, heard: Heard) {
        self.all.fetch_add(1, Relaxed);
        if heard == Heard::Nothing {
            self.in_vain.fetch_add(1, Relaxed);
        }
    }

    fn counts(&self) -> (u64, u64) {
        (self.in_vain.load(Relaxed), self.all.load(Relaxed))
    }
}

impl Kept {
    /// Those of the next window of the same attempt.
    #[must_use]
    pub fn next(&self) -> Self {
        Self { primary: Arc::clone(&self.primary), ..Self::default() }
    }

    /// Takes what a caller heard of the side that was to answer.
    pub fn hear(&self, side: Side, heard: Heard) {
        match side {
            Side::Primary => self.primary.hear(heard),
            Side::Candidate => self.candidate.hear(heard),
        }
    }

    /// Callers leave every provider. Where they leave one side alone, what is seen of it is of its
    /// good moments.
    fn in_vain(&self) -> Option<String> {
        let ((left, all), (others, of)) = (self.candidate.counts(), self.primary.counts());
        // Left of the candidate's, beyond the part that leaves the primary, against what may be.
        let usual = of.max(1);
        let beyond = (left * 100 * usual).saturating_sub(others * 100 * all);
        let many = REQUESTS_MIN <= all && all * usual * KEPT_PERCENT_MAX < beyond;
        many.then(|| {
            format!(
                "{left} of {all} callers of the candidate gave up before an answer began, and \
                 {others} of {of} of the primary: what is seen is of its good times alone"
            )
        })
    }

    /// Takes a request of the window: none where both sides could be asked.
    pub fn see(&self, kept: Option<(Side, Skip)>) {
        self.requests.fetch_add(1, Relaxed);
        let place = CAUSES.iter().position(|(it, _)| Some(*it) == kept).map_or(0, |it| it + 1);
        let last = u64::try_from(place).unwrap_or(0);
        if last != 0 {
            self.held.fetch_add(1, Relaxed);
        }
        // Mostly it stays as it is, and nobody's cache has to follow.
        if self.last.load(Relaxed) != last {
            self.last.store(last, Relaxed);
        }
    }

    /// Why the evidence of the window cannot be trusted, if so: what is seen of a side is not what
    /// callers would have got of it.
    pub fn problem(&self) -> Option<String> {
        let last = usize::try_from(self.last.load(Relaxed)).unwrap_or(0);
        if let Some((_, told)) = last.checked_sub(1).and_then(|it| CAUSES.get(it)) {
            return Some((*told).to_owned());
        }
        let (kept, requests) = (self.held.load(Relaxed), self.requests.load(Relaxed));
        let many = REQUESTS_MIN <= requests && requests * KEPT_PERCENT_MAX < kept * 100;
        let held = many.then(|| {
            format!(
                "{kept} of {requests} requests were kept from a provider (open breaker, \
                 Retry-After, too many fallbacks), more than {KEPT_PERCENT_MAX}%: what is seen is \
                 of its good times alone"
            )
        });
        held.or_else(|| self.in_vain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_doubted_where_callers_leave_the_candidate_and_not_the_primary() {
        let hear = |kept: &Kept, side, (in_vain, all)| {
            (0..in_vain).for_each(|_| kept.hear(side, Heard::Nothing));
            (in_vain..all).for_each(|_| kept.hear(side, Heard::Something));
        };
        for (candidate, primary, doubted) in [
            ((19, 19), (0, 0), false),
            ((2, 20), (0, 0), true),
            ((5, 100), (0, 100), false),
            ((6, 100), (0, 100), true),
            ((30, 100), (300, 1_000), false),
            ((36, 100), (300, 1_000), true),
            ((0, 0), (300, 1_000), false),
            ((0, 1_000), (300, 1_000), false),
        ] {
            let shadow = Kept::default();
            hear(&shadow, Side::Primary, primary);
            // What callers of the primary did is known in the next stage too.
            let kept = shadow.next();
            hear(&kept, Side::Candidate, candidate);
            assert_eq!(kept.problem().is_some(), doubted, "{candidate:?} {primary:?}");
            assert_eq!(kept.next().problem(), None);
        }
    }

    #[test]
    fn evidence_is_doubted_while_a_side_is_left_out_and_when_it_was_too_often() {
        let kept = Kept::default();
        (0..100).for_each(|_| kept.see(None));
        assert_eq!(kept.problem(), None);
        for (cause, told) in CAUSES {
            kept.see(Some(cause));
            assert_eq!(kept.problem().as_deref(), Some(told));
            assert!(told.contains(cause.0.as_str()), "{told}");
        }
        kept.see(None);
        assert_eq!(kept.problem(), None, "4 of 105");
        (0..2).for_each(|_| kept.see(Some(CAUSES[0].0)));
        kept.see(None);
        assert!(kept.problem().unwrap().starts_with("6 of 108 requests were kept"));
    }
}
