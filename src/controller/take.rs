//! Taking what was seen of the traffic into the evidence, and the steps it asks for.

use crate::analysis::{Ledger, Observation, Scored};
use crate::domain::{Name, Note, Seen, Timestamp, Told};
use crate::store::Offered;
use crate::telemetry::Loss;

use super::{actor::Controller, handle::Requester};

impl Controller {
    /// Takes what was told. A breach is acted on at once, so that what a rollback shows is what
    /// proved it and nothing more.
    pub(super) fn take(&mut self, seen: Seen) {
        let name = seen.window().rollout.clone();
        let Some(managed) = self.managed.get_mut(&name) else { return };
        let begun = managed.begun_before(seen.order().seq);
        managed.told = managed.told.max(seen.order());
        // Late news of an earlier stage or visit is kept in the store and counts no more.
        let current = managed.is_current(seen.window()) && managed.rollout.since() <= made(&seen);
        let before = managed.ledger.is_broken();
        if current {
            if !is_aside(&seen) {
                managed.hear(seen.order().at);
            }
            observe(&mut managed.ledger, &seen);
        }
        // A breach that could not be believed, for lost coverage, waits for the next tick: to weigh
        // it again with every observation would cost a thousand of them.
        let broken = !before && managed.ledger.is_broken();
        if let Some(begun) = begun {
            self.note(begun);
        }
        if let Seen::Note(note) = seen
            && current
        {
            self.note(*note);
        }
        if broken {
            self.weigh(&name);
        }
    }

    /// Keeps a note for after a restart.
    fn note(&self, note: Note) {
        if let Some(recorder) = self.recorder.get()
            && recorder.offer_note(note) == Offered::Dropped
        {
            self.metrics.loss(Loss::RecorderFull);
        }
    }

    /// Takes the step of a rollout that its evidence, time or silence asks for, if any.
    pub(super) fn weigh(&mut self, name: &Name) {
        let now = self.clock.now();
        if let Some(event) = self.due(name, now) {
            self.carry_out(name, event, &Requester::controller(), None);
        }
    }
}

/// When what was told was made, as far as that is known: it belongs to the visit of that time.
pub(super) fn made(seen: &Seen) -> Timestamp {
    match seen {
        Seen::Pair(pair) => pair.at,
        Seen::Score(score) => score.pair.at(),
        Seen::Note(note) => match &note.told {
            Told::Solo { call, .. } => {
                Timestamp(note.order.at.0.saturating_sub(u64::from(call.total_ms)))
            }
            Told::Noise { served, again, .. } => {
                let total_ms = served.total_ms.max(again.total_ms);
                Timestamp(note.order.at.0.saturating_sub(u64::from(total_ms)))
            }
            Told::Feedback { request, .. } => request.at(),
            Told::CopyLost | Told::ScoreLost | Told::Entered(_) | Told::Guarded => note.order.at,
        },
    }
}

/// Whether it is no sign that the candidate is asked now: it is of the primary alone, or what
/// somebody thinks of an answer of some time ago.
fn is_aside(seen: &Seen) -> bool {
    match seen {
        Seen::Note(note) => matches!(note.told, Told::Noise { .. } | Told::Feedback { .. }),
        Seen::Pair(_) | Seen::Score(_) => false,
    }
}

/// Enters what was told in the bets.
pub(super) fn observe(ledger: &mut Ledger, seen: &Seen) {
    let at = seen.order().at;
    if ledger.is_early(made(seen)) {
        match seen {
            Seen::Pair(_) => return ledger.leave_out(at),
            Seen::Score(_) => return,
            Seen::Note(note) => match &note.told {
                Told::Solo { .. } => return ledger.leave_out(at),
                Told::Noise { .. } | Told::Feedback { .. } | Told::CopyLost | Told::ScoreLost => {
                    return;
                }
                Told::Entered(_) | Told::Guarded => {}
            },
        }
    }
    match seen {
        Seen::Pair(pair) => ledger.observe(at, &Observation::of(pair)),
        Seen::Score(it) => ledger.score(at, &it.watched, it.primary, it.candidate),
        Seen::Note(note) => match &note.told {
            Told::Solo { lot, side, call, watched } => {
                ledger.observe(at, &Observation::solo(*lot, *side, call, watched));
            }
            Told::Noise { served, again, watched } => {
                ledger.observe_noise(at, &Observation::noise(served, again, watched));
            }
            Told::Feedback { watched, .. } => {
                if let Some(scored) = Scored::of(&note.told) {
                    ledger.opinion(at, watched, scored);
                }
            }
            Told::CopyLost => ledger.copy_lost(at),
            Told::ScoreLost => ledger.score_lost(),
            // That it began the journal says too, and it is what counts.
            Told::Entered(weather) => ledger.tell_weather(weather),
            Told::Guarded => {}
        },
    }
}
