//! What may change in the plan of a rollout that moves traffic.
//!
//! What is to come may change; what is past may not. In the running stage tighter terms hold
//! at once; looser ones hold for evidence that is gathered from then on, so that nobody moves
//! the goal to where the ball lies. An edit never raises a share.

use crate::domain::{
    Approval, Event, Freeze, Gate, Metric, Plan, Refusal, Role, Rollout, Stage, State,
};

const SUPERSEDE: &str = "it is what this rollout is about; another one may supersede it";
const BUDGET: &str = "the chance of a false alarm is shared out over the attempt already";

impl Rollout {
    /// What comes of another plan; nothing when it is the same.
    pub(super) fn revise(&self, plan: &Plan) -> Result<Option<Event>, Refusal> {
        if *plan == self.plan {
            return Ok(None);
        }
        match self.state {
            State::Pending | State::RolledBack => {
                return Ok(Some(Event::Revised(Box::new(plan.clone()))));
            }
            State::Succeeded | State::Baked => {
                return Err(self.wrong("take another plan", "roll it back first"));
            }
            State::Running | State::Paused | State::AwaitingApproval => {}
        }
        self.fixed(plan)?;
        let stages = self.plan.stages.get(self.stage).zip(plan.stages.get(self.stage));
        let plan = Box::new(plan.clone());
        let frozen = |it: &Freeze| plan.times.freezes.contains(it);
        let thawed = !self.plan.times.freezes.iter().all(frozen);
        let looser = thawed || stages.is_some_and(|(old, new)| is_looser(old, new));
        Ok(Some(if looser { Event::Loosened(plan) } else { Event::Revised(plan) }))
    }

    /// Refuses a change of what cannot change while traffic moves.
    fn fixed(&self, plan: &Plan) -> Result<(), Refusal> {
        let old = &self.plan;
        let fixed = |same: bool, field: &str, why| {
            let field = field.to_owned();
            if same { Ok(()) } else { Err(Refusal::Fixed { field, why }) }
        };
        fixed(old.primary == plan.primary, "primary", SUPERSEDE)?;
        fixed(old.candidate == plan.candidate, "candidate", SUPERSEDE)?;
        fixed(old.slice == plan.slice, "slice", SUPERSEDE)?;
        fixed(old.compared == plan.compared, "compare", SUPERSEDE)?;
        fixed(old.risk == plan.risk, "risk", BUDGET)?;
        fixed(old.watched == plan.watched, "slices", BUDGET)?;
        fixed(metrics(plan).all(|it| metrics(old).any(|known| known == it)), "gates", BUDGET)?;
        for (index, before) in old.stages.iter().enumerate().take(self.stage + 1) {
            let at = |key: &str| format!("stages[{index}]{key}");
            let Some(after) = plan.stages.get(index) else {
                return fixed(false, &at(""), "it has begun already");
            };
            if index < self.stage {
                fixed(before == after, &at(""), "it is past")?;
                continue;
            }
            fixed(before.name == after.name, &at(".stage_id"), "it is the running stage")?;
            fixed(before.slice == after.slice, &at(".slice"), "it is the running stage")?;
            let why = "an edit raises no share; advance does";
            fixed(after.serve <= before.serve, &at(".serve_bps"), why)?;
        }
        Ok(())
    }
}

fn metrics(plan: &Plan) -> impl Iterator<Item = Metric> {
    plan.stages.iter().flat_map(|it| &it.gates).map(|it| it.metric())
}

/// Whether a stage asks less than before.
fn is_looser(old: &Stage, new: &Stage) -> bool {
    let kept = |gate: &Gate| new.gates.iter().any(|it| holds(*it, *gate));
    new.samples_min < old.samples_min
        || new.duration_ms_min < old.duration_ms_min
        || (old.approval == Approval::Needed && new.approval == Approval::NotNeeded)
        || !old.gates.iter().all(kept)
}

/// Whether what the new gate lets pass, the old one would have let pass.
fn holds(new: Gate, old: Gate) -> bool {
    let role = new.role == Role::Prove || old.role == Role::Guard;
    role && new.metric() == old.metric() && new.margin.is_within(old.margin)
}

#[cfg(test)]
mod tests {
    use crate::domain::{
        Command, Event, Evidence, Freeze, FreezeText, Timestamp, Visit,
        rollout::tests::{DAY, at_stage, order, rollout},
    };

    #[test]
    fn a_freeze_is_edited_away_only_as_a_loosening() {
        let text = |to: &str| FreezeText {
            days: vec!["fri".to_owned()],
            from: "18:00".to_owned(),
            to: to.to_owned(),
            zone: "UTC".to_owned(),
        };
        let freeze = |to: &str| Freeze::read(&text(to)).unwrap();
        let mut it = at_stage(1, 7);
        let mut revise = |freezes: Vec<Freeze>| {
            let mut plan = it.plan().clone();
            plan.times.freezes = freezes;
            let event = it.revise(&plan).unwrap().unwrap();
            it.apply(Timestamp(8 * DAY), &event);
            matches!(event, Event::Loosened(_))
        };
        assert!(!revise(vec![freeze("20:00")]), "more freezes are tighter");
        assert!(revise(vec![freeze("19:00")]));
        assert!(!revise(vec![freeze("19:00"), freeze("20:00")]));
        assert!(revise(Vec::new()));
    }

    #[test]
    fn evidence_outlives_a_plan_that_leaves_its_gates_alone() {
        let mut it = at_stage(1, 7);
        let at = |day| Timestamp(day * DAY);
        let visits = it.visits().to_vec();
        let shares = |stage: usize| Some(&it.plan().stages[stage]).map(|it| (it.serve, it.mirror));
        let visit = |(stage, day): (usize, u64)| Visit {
            stage,
            from: at(day),
            shares: shares(stage),
            times: true,
        };
        assert_eq!(visits, [(0, 0), (1, 7)].map(visit));
        let mut plan = it.plan().clone();
        plan.stages[1].samples_min += 1;
        order(&mut it, 10, &Command::Revise(Box::new(plan)), &Evidence::default());
        assert_eq!((it.plan_revision(), it.entered(), it.visits()), (2, at(7), visits.as_slice()));
        let mut plan = it.plan().clone();
        plan.noise = crate::domain::Share::ALL;
        order(&mut it, 11, &Command::Revise(Box::new(plan)), &Evidence::default());
        assert_eq!((it.plan_revision(), it.entered(), it.visits()), (3, at(7), visits.as_slice()));
        let mut waiting = rollout();
        let mut plan = waiting.plan().clone();
        plan.stages[0].gates.truncate(1);
        order(&mut waiting, 0, &Command::Revise(Box::new(plan)), &Evidence::default());
        assert_eq!((waiting.plan_revision(), waiting.visits()), (2, [].as_slice()));
    }
}
