//! What the controller is asked to do: create, revise, start and all other commands.

use crate::domain::{
    Command, Event, Input, Metric, Name, Plan, PlanFault, Refusal, State, Timestamp,
};

use super::{
    actor::Controller,
    handle::{Rejected, Requester, View},
    managed::{Managed, Replayed},
    setup::{Judged, Start, Wanted},
};

/// What the configuration is called in the log.
const CONFIG: &str = "config";
/// Rollouts at the same time.
const ROLLOUTS_LEN_MAX: usize = 256;

impl Controller {
    /// Creates, revises and starts what the configuration asks for.
    pub(super) async fn want(&mut self, wanted: Vec<Wanted>) {
        let by = || Requester { actor: CONFIG.to_owned(), ..Requester::default() };
        for Wanted { name, plan, start } in wanted {
            let known = self.managed.get(&name).map(|it| it.rollout.plan() == &plan);
            let known = known.map(|same| same || self.was_wanted(&name, &plan));
            let done = match known {
                None => self.create(name.clone(), plan, &by()).await.map(drop),
                Some(true) => Ok(()),
                Some(false) => {
                    let revise = Command::Revise(Box::new(plan));
                    self.obey(&name, &revise, &by()).await.map(drop)
                }
            };
            let fresh = self.managed.get(&name).is_some_and(|it| it.rollout.attempt() == 0);
            let done = match (done, start) {
                (Ok(()), Start::Once) if fresh => {
                    self.obey(&name, &Command::Start, &by()).await.map(drop)
                }
                (done, Start::Once | Start::WhenAsked) => done,
            };
            if let Err(error) = done {
                tracing::error!(rollout = %name, %error, "the configuration of this rollout is not in force");
            }
        }
    }

    /// Whether the configuration asked for this plan the last time it asked for one: what
    /// somebody changed since is not undone by a restart.
    fn was_wanted(&self, name: &Name, plan: &Plan) -> bool {
        let mut by_config =
            self.records.iter().rev().filter(|it| it.rollout == *name && it.actor == CONFIG);
        by_config.find_map(|it| it.event.plan()) == Some(plan)
    }

    pub(super) async fn create(
        &mut self,
        name: Name,
        plan: Plan,
        by: &Requester,
    ) -> Result<View, Rejected> {
        if let Some(managed) = self.managed.get(&name) {
            let same =
                managed.rollout.plan() == &plan && managed.requests.contains_key(&by.request_id);
            return if same { self.view(&name) } else { Err(Rejected::Exists(name)) };
        }
        let faults = self.plan_faults(&plan);
        if !faults.is_empty() {
            return Err(Rejected::Plan(faults));
        }
        if ROLLOUTS_LEN_MAX <= self.managed.len() {
            let why = format!("there are {ROLLOUTS_LEN_MAX} rollouts already");
            return Err(Rejected::Unavailable(why));
        }
        let event = Event::Created(Box::new(plan.clone()));
        let record = self.record(&name, event, by, (State::Pending, State::Pending));
        let record = self.book.commit(record).await.map_err(Rejected::Unavailable)?;
        let mut managed = Managed::new(name.clone(), plan, record.at, (0, 0));
        managed.apply(&record);
        self.managed.insert(name.clone(), managed);
        self.keep(record, State::Pending);
        self.view(&name)
    }

    fn plan_faults(&self, plan: &Plan) -> Vec<PlanFault> {
        let mut faults = plan.faults();
        let mut fault = |field: &str, problem: String| {
            faults.push(PlanFault { field: field.to_owned(), problem });
        };
        if plan.primary != self.primary {
            fault("primary", format!("is `{}`, but `{}` serves here", plan.primary, self.primary));
        }
        if !self.providers.contains_key(&plan.candidate) {
            fault("candidate", format!("provider `{}` is not configured", plan.candidate));
        }
        let needs_judge =
            plan.stages.iter().flat_map(|it| &it.gates).any(|it| it.metric() == Metric::JudgeScore);
        if needs_judge && self.judge == Judged::No {
            fault("stages", "has a judge_score gate, but no [judge] is configured".to_owned());
        }
        faults
    }

    pub(super) async fn obey(
        &mut self,
        name: &Name,
        command: &Command,
        by: &Requester,
    ) -> Result<View, Rejected> {
        let now = self.clock.now();
        let Some(managed) = self.managed.get_mut(name) else {
            return Err(Rejected::Unknown(name.clone()));
        };
        // A rollback is done again rather than taken for an old one: it may be asked of a new attempt.
        match managed.replayed(&by.request_id, command) {
            Some(_) if *command == Command::Rollback => {}
            Some(Replayed::Same) => return self.view(name),
            Some(Replayed::Other) => {
                return Err(Rejected::ReusedRequestId(by.request_id.clone()));
            }
            None => {}
        }
        self.fall_first(name, now, command).await;
        let Some(managed) = self.managed.get_mut(name) else {
            return Err(Rejected::Unknown(name.clone()));
        };
        let at = managed.rollout.revision();
        if let Some(seen) = by.revision.filter(|it| *it != at && *command != Command::Rollback) {
            return Err(Rejected::Stale { rollout: name.clone(), seen, now: at });
        }
        let event = managed.rollout.decide(now, &Input::Command(command), &managed.evidence);
        let refused =
            |refusal| Rejected::Refused { rollout: name.clone(), refusal: Box::new(refusal) };
        let event = event.map_err(refused)?;
        match command {
            Command::Start | Command::Supersede => self.make_room(name, command, by).await?,
            Command::Revise(plan) => {
                let faults = self.plan_faults(plan);
                if !faults.is_empty() {
                    return Err(Rejected::Plan(faults));
                }
            }
            Command::Advance { .. }
            | Command::Jump { .. }
            | Command::Complete { .. }
            | Command::Pause
            | Command::Resume
            | Command::Approve { .. }
            | Command::Rollback => {}
        }
        if let Some(event) = event {
            self.carry_out(name, event, by).await.map_err(Rejected::Unavailable)?;
        }
        self.view(name)
    }

    /// What goes back goes first, whatever was asked at the same time.
    async fn fall_first(&mut self, name: &Name, now: Timestamp, command: &Command) {
        let due = self.due(name, now).filter(|_| *command != Command::Rollback);
        let Some(event @ Event::RolledBack(_)) = due else { return };
        // A step back has no error: it is noted where it cannot be written yet.
        let _ = self.carry_out(name, event, &Requester::controller()).await;
    }

    /// Refuses a start while everything is stopped or another rollout governs the same
    /// requests; one that supersedes sends those back first.
    async fn make_room(
        &mut self,
        name: &Name,
        command: &Command,
        by: &Requester,
    ) -> Result<(), Rejected> {
        if let Some(stop) = &self.stopped {
            let refusal = Box::new(Refusal::Stopped { actor: stop.actor.clone() });
            return Err(Rejected::Refused { rollout: name.clone(), refusal });
        }
        let others = self.overlapping(name);
        if let (Some(other), Command::Start) = (others.first(), command) {
            return Err(Rejected::Overlap { rollout: name.clone(), other: other.clone() });
        }
        // Nothing is sent back for a start that cannot be written.
        if let Some(problem) = self.book.problem() {
            return Err(Rejected::Unavailable(problem));
        }
        let by = Requester {
            actor: by.actor.clone(),
            comment: format!("superseded by `{name}`"),
            ..Requester::default()
        };
        for other in others {
            self.send_back(&other, &Input::Superseded, &by).await;
        }
        Ok(())
    }

    /// Sends a rollout back for a reason that is not its own.
    pub(super) async fn send_back(&mut self, name: &Name, why: &Input<'_>, by: &Requester) {
        let now = self.clock.now();
        let Some(managed) = self.managed.get(name) else { return };
        let event = managed.rollout.decide(now, why, &managed.evidence);
        if let Ok(Some(event)) = event {
            // A step back has no error: it is noted where it cannot be written yet.
            let _ = self.carry_out(name, event, by).await;
        }
    }

    /// The rollouts that move some of the same requests now.
    fn overlapping(&self, name: &Name) -> Vec<Name> {
        let Some(starting) = self.managed.get(name) else { return Vec::new() };
        let slice = &starting.rollout.plan().slice;
        let others = self.managed.values().filter(|it| {
            it.rollout.name() != name
                && it.rollout.stage().is_some()
                && it.rollout.plan().slice.overlaps(slice)
        });
        others.map(|it| it.rollout.name().clone()).collect()
    }
}
