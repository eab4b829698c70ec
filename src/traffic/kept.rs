//! Requests that were kept from one side of a rollout for its callers' sake, and so are nobody's
//! evidence.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

impl Kept {
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
        many.then(|| {
            format!(
                "{kept} of {requests} requests were kept from a provider (open breaker, \
                 Retry-After, too many fallbacks), more than {KEPT_PERCENT_MAX}%: what is seen is \
                 of its good times alone"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
