//! One rollout of a story: the real machine, bets and tripwire, and what was written of them.

use crate::analysis::{Ledger, Marks, News, Observation, Said, Sample, Ticket, Tripwire, UnderWay};
use crate::domain::{Event, Evidence, Input, Name, Plan, Refusal, Rollout, Timestamp};

use super::traffic::Seen;

/// What survives a restart, in its order.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// A step.
    Event(Event),
    /// A request.
    Seen(Seen),
    /// Evidence as the story says it.
    Told(Evidence),
}

/// One rollout and all that hangs on it.
#[derive(Clone, Debug)]
pub(super) struct Managed {
    pub(super) rollout: Rollout,
    pub(super) evidence: Evidence,
    ledger: Ledger,
    wire: Tripwire,
    tripped: bool,
    told: bool,
    /// When something was last heard of it: traffic, a step, or the start of the process.
    heard: Timestamp,
    /// Whether nothing of the visit was heard since the process started.
    unheard: bool,
    under_way: UnderWay,
    /// What hangs, and when it ends.
    hanging: Vec<(Timestamp, Ticket, Seen)>,
    written: Vec<(Timestamp, Entry)>,
}

impl Managed {
    /// A rollout that was just created.
    pub(super) fn new(name: Name, plan: Plan, at: Timestamp) -> Self {
        let mut managed = Self::blank(name, plan.clone(), at);
        managed.put(at, Entry::Event(Event::Created(Box::new(plan))));
        managed
    }

    fn blank(name: Name, plan: Plan, heard: Timestamp) -> Self {
        Self {
            ledger: Ledger::new(&plan),
            rollout: Rollout::new(name, plan),
            evidence: Evidence::default(),
            wire: Tripwire::new(),
            tripped: false,
            told: false,
            heard,
            unheard: false,
            under_way: UnderWay::default(),
            hanging: Vec::new(),
            written: Vec::new(),
        }
    }

    /// What should happen now.
    pub(super) fn decide(
        &self,
        now: Timestamp,
        input: &Input<'_>,
    ) -> Result<Option<Event>, Refusal> {
        self.rollout.decide(now, input, &self.evidence)
    }

    /// What a tick of the controller looks at: the worst first.
    pub(super) fn input(&self, now: Timestamp) -> Input<'static> {
        if self.tripped {
            return Input::Tripped;
        }
        if self.rollout.is_idle(now, self.heard) { Input::Idle } else { Input::Tick }
    }

    /// Writes an entry and makes it so.
    pub(super) fn put(&mut self, at: Timestamp, entry: Entry) {
        self.absorb(at, &entry);
        self.write(at, entry);
    }

    /// Writes an entry without making it so.
    pub(super) fn write(&mut self, at: Timestamp, entry: Entry) {
        self.written.push((at, entry));
    }

    /// Makes an entry so without writing it.
    pub(super) fn absorb(&mut self, at: Timestamp, entry: &Entry) {
        match entry {
            Entry::Event(event) => self.step(at, event),
            Entry::Told(evidence) => {
                (self.evidence, self.told) = (evidence.clone(), true);
                (self.heard, self.unheard) = (self.heard.max(at), false);
            }
            Entry::Seen(seen) => {
                if self.rollout.guarded().is_some() {
                    self.see(at, seen);
                }
            }
        }
    }

    fn step(&mut self, at: Timestamp, event: &Event) {
        let attempt = self.rollout.attempt();
        self.rollout.apply(at, event);
        self.heard = self.heard.max(at);
        if self.rollout.attempt() != attempt {
            self.ledger = Ledger::new(self.rollout.plan());
            (self.wire, self.tripped) = (Tripwire::new(), false);
        }
        self.ledger.follow(&self.rollout, at, event);
        match event {
            Event::StageEntered { .. } | Event::Loosened(_) | Event::Succeeded(_) => {
                (self.evidence, self.told) = (Evidence::default(), false);
                // What ends late is of an earlier visit, and counts nowhere.
                (self.under_way, self.hanging) = (UnderWay::default(), Vec::new());
                self.unheard = false;
            }
            Event::Created(_)
            | Event::Revised(_)
            | Event::ApprovalRequested
            | Event::Paused(_)
            | Event::Resumed
            | Event::Overdue
            | Event::Baked
            | Event::RolledBack(_)
            | Event::Deleted
            | Event::Stopped
            | Event::Lifted
            | Event::Flagged(_)
            | Event::Unflagged(_) => {}
        }
    }

    fn see(&mut self, at: Timestamp, seen: &Seen) {
        if !matches!(seen, Seen::Noise(_)) {
            (self.heard, self.unheard) = (self.heard.max(at), false);
        }
        // What was told when that ended which the sides of a request took so long for.
        let made = |seen: &Observation| Timestamp(at.0.saturating_sub(seen.lasted_ms()));
        let mut hear = |made, said| self.ledger.hear(&News { at, made, said });
        match seen {
            Seen::Noise(seen) => hear(made(seen), Said::Noise(seen.clone())),
            Seen::Lost => hear(at, Said::CopyLost),
            Seen::Known(seen, score, scored) => {
                let well = |it: Sample| it.outcome.counts().then_some(!it.outcome.failed());
                let [primary, candidate] =
                    [seen.primary, seen.candidate].map(|it| it.and_then(well));
                self.tripped |= self.wire.see(at, primary, candidate);
                let (made, watched) = (made(seen), || seen.watched.clone());
                hear(made, Said::Request(seen.clone()));
                if let Some([primary, candidate]) = *score {
                    let marks = Marks::unplaced(primary, candidate);
                    hear(made, Said::Score { watched: watched(), marks });
                }
                if let Some(scored) = *scored {
                    hear(made, Said::Opinion { watched: watched(), scored });
                }
            }
        }
    }

    /// A call was answered that took so long.
    pub(super) fn answer(&mut self, at: Timestamp, took_ms: u64) {
        let ticket = self.under_way.begin(at);
        self.under_way.hear(ticket, took_ms);
    }

    /// A call begins that ends then, with this.
    pub(super) fn hang(&mut self, at: Timestamp, end: Timestamp, seen: Seen) {
        let ticket = self.under_way.begin(at);
        self.hanging.push((end, ticket, seen));
    }

    /// Takes what has ended of that which hung.
    pub(super) fn settle(&mut self, now: Timestamp) {
        let (ended, hanging): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.hanging).into_iter().partition(|(end, ..)| *end <= now);
        self.hanging = hanging;
        for (end, ticket, seen) in ended {
            self.under_way.hear(ticket, end.millis_since(ticket.0));
            self.put(end, Entry::Seen(seen));
        }
    }

    /// Whether the bets or the tripwire have seen enough to go back.
    pub(super) fn is_alarmed(&self) -> bool {
        self.tripped || self.ledger.is_broken()
    }

    /// Lets the wire trip.
    pub(super) fn trip(&mut self) {
        self.tripped = true;
    }

    /// Brings the evidence up to date with the bets, unless the story says it.
    pub(super) fn weigh(&mut self, now: Timestamp) {
        if self.rollout.guarded().is_none() {
            return;
        }
        if !self.told {
            self.evidence = self.ledger.evidence();
            self.evidence.unsettled = self.under_way.problem(now);
        }
        if self.unheard {
            let unheard = "nothing of it was heard since the program started";
            self.evidence.unsettled = Some(unheard.to_owned());
        }
    }

    /// Builds everything again from what was written until it `ended`, and what it knew of the time
    /// in the stage. Says so where that stands elsewhere.
    pub(super) fn restart(&mut self, ended: Timestamp, now: Timestamp) -> Option<String> {
        let written = std::mem::take(&mut self.written);
        let plan = written.iter().find_map(|(_, it)| match it {
            Entry::Event(Event::Created(plan)) => Some((**plan).clone()),
            Entry::Event(_) | Entry::Seen(_) | Entry::Told(_) => None,
        });
        let plan = plan.unwrap_or_else(|| self.rollout.plan().clone());
        let mut again = Self::blank(self.rollout.name().clone(), plan, now);
        for (at, entry) in &written {
            again.absorb(*at, entry);
        }
        again.written = written;
        let dwelt_ms = self.rollout.dwelt_ms(ended);
        again.rollout = Rollout::restore(again.rollout.save().dwelt(now, dwelt_ms));
        (again.under_way, again.hanging) = (UnderWay::default(), Vec::new());
        again.weigh(now);
        self.weigh(ended);
        let (before, after) = (self.stand(), again.stand());
        again.unheard = again.rollout.guarded().is_some();
        *self = again;
        (before != after).then(|| format!("stood at {before}, and stands at {after}"))
    }

    /// All that decides what happens next.
    fn stand(&self) -> String {
        let it = &self.rollout;
        let place = it.stage().map_or("-", |it| &it.name);
        let (attempt, revision) = (it.attempt(), it.revision());
        // What was under way is known to nobody after a restart.
        let heard = Evidence { unsettled: None, ..self.evidence.clone() };
        let evidence = it.guarded().map(|_| heard);
        format!(
            "{} {place}, attempt {attempt}, revision {revision}, {evidence:?}",
            it.state().as_str(),
        )
    }
}
