//! Taking what was seen of the traffic into the evidence, and the steps it asks for.

use crate::analysis::News;
use crate::domain::{Metric, Name, Note, Seen, Told};
use crate::store::Offered;
use crate::telemetry::Loss;

use super::{actor::Controller, book::Ready, handle::Requester};

impl Controller {
    /// Takes what was told. A breach is acted on at once, so that what a rollback shows is what
    /// proved it and nothing more.
    pub(super) fn take(&mut self, seen: Seen) {
        let name = seen.window().rollout.clone();
        let Some(managed) = self.managed.get_mut(&name) else { return };
        let (order, news) = (seen.order(), News::of(&seen));
        managed.told = managed.told.max(order);
        managed.savings.see(&seen);
        // Late news of an earlier stage or visit is kept in the store and counts no more.
        let current = managed.is_current(seen.window()) && managed.rollout.since() <= news.made;
        if let (Seen::Pair(pair), Some(judge), true) = (&seen, &self.strict_judge, current) {
            managed.judging.meet(judge, pair);
        }
        let before = managed.ledger.is_broken();
        if current {
            if !news.is_aside() {
                managed.hear(order.at);
            }
            managed.ledger.hear(&news);
            if let Some(text) = managed.answers.see(managed.rollout.attempt(), &seen) {
                tracing::warn!(rollout = %name, "{text}");
            }
        }
        // A breach that could not be believed, for lost coverage, waits for the next tick: to weigh
        // it again with every observation would cost a thousand of them.
        let broken = !before && managed.ledger.is_broken();
        // The first steps of a process are taken before there is a recorder.
        if managed.begun.is_some() {
            self.note_begun(&name);
        }
        if let Seen::Note(note) = seen {
            if note.told == Told::JudgeFailed {
                self.told_of_judge(&name, current);
            }
            if current {
                self.note(*note);
            }
        }
        if broken {
            self.weigh(&name);
        }
    }

    /// Tells the evidence that the judge was found unfit since it last heard of it: with a place
    /// of its own, so that a restart and a backtest forget the same.
    pub(super) fn tell_of_judge(&mut self) {
        let failures = self.fitness.failures();
        for managed in self.managed.values_mut().filter(|it| it.judging.telling < failures) {
            let judged = managed.rollout.guarded().is_some()
                && managed.rollout.plan().gated(Metric::is_judged).is_some();
            match managed.rollout.window().filter(|_| judged) {
                Some(window) => {
                    if self.outbox.offer(Seen::note(&window, Told::JudgeFailed)).is_none() {
                        return;
                    }
                }
                None => managed.judging.told = failures,
            }
            managed.judging.telling = failures;
        }
    }

    /// The evidence was told, or of a stage that was left meanwhile: then it is told again.
    fn told_of_judge(&mut self, name: &Name, current: bool) {
        let Some(judging) = self.managed.get_mut(name).map(|it| &mut it.judging) else { return };
        if current {
            judging.told = judging.telling;
        } else {
            judging.telling = judging.told;
        }
    }

    /// Keeps the note that the bets of a visit have just begun.
    pub(super) fn note_begun(&mut self, name: &Name) {
        let managed = self.managed.get_mut(name).filter(|_| self.recorder.get().is_some());
        if let Some(begun) = managed.and_then(|it| it.begun.take()) {
            self.note(begun);
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

    /// Begins the stage of a rollout anew, of which a side answers as another model now.
    pub(super) fn follow_models(&mut self, name: &Name) {
        let changed = self.managed.get(name).and_then(|it| it.answers.changed());
        let Some(comment) = changed.map(str::to_owned).filter(|_| self.book.ready() == Ready::Yes)
        else {
            return;
        };
        let by = Requester { comment, ..Requester::controller() };
        match self.renewal(name) {
            Ok(Some(event)) => self.carry_out(name, event, &by, None),
            Ok(None) | Err(_) => {
                if let Some(managed) = self.managed.get_mut(name) {
                    managed.answers.settle();
                }
            }
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

#[cfg(test)]
#[path = "take_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "unfit_tests.rs"]
mod unfit_tests;
