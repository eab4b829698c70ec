//! Steps up that came late: what takes them back.

use crate::domain::{Cause, Event, Evidence, Input, Rollout, Timestamp};

impl Rollout {
    /// What takes back a step up that was decided a while ago, where it would not be taken now.
    /// Asked of the rollout as it stands before that step.
    ///
    /// To go back is to begin the stage again, without its evidence. So what is only not heard yet
    /// is no reason: when the step was decided all had been heard.
    pub fn regret(
        &self,
        now: Timestamp,
        step: &Event,
        input: &Input<'_>,
        evidence: &Evidence,
    ) -> Option<Event> {
        let (attempt, _) = step.entered()?;
        let settled = Evidence { unsettled: None, ..evidence.clone() };
        match self.decide(now, input, &settled).ok().flatten() {
            Some(due) if due == *step => None,
            Some(fall @ Event::RolledBack(_)) => Some(fall),
            // Nobody has seen the step, so what was seen before it is no rise, whatever its slice.
            Some(_) | None => {
                Some(Event::StageEntered { attempt, stage: self.stage, cause: Cause::Jump })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Metric, Verdict,
        rollout::tests::{DAY, at_stage, evidence},
    };

    #[test]
    fn a_step_that_came_late_is_taken_back_for_a_reason_and_not_for_what_is_under_way() {
        let it = at_stage(1, 7);
        let now = Timestamp(21 * DAY);
        let pass = evidence(Verdict::Pass, 1_000);
        let regret = |input: &Input<'_>, evidence: &Evidence| {
            let step = it.decide(now, &Input::Tick, &pass).unwrap().unwrap();
            it.regret(now, &step, input, evidence)
        };
        let some = || Some("3 calls are under way".to_owned());
        let unsettled = Evidence { unsettled: some(), ..pass.clone() };
        assert_eq!(regret(&Input::Tick, &pass), None);
        assert_eq!(regret(&Input::Tick, &unsettled), None);
        let again = Some(Event::StageEntered { attempt: 1, stage: 1, cause: Cause::Jump });
        let untrusted = Evidence { problem: Some("coverage is 90%".to_owned()), ..unsettled };
        for doubt in [untrusted, evidence(Verdict::Undecided, 1_000), Evidence::default()] {
            assert_eq!(regret(&Input::Tick, &doubt), again);
        }
        let back = |cause| Some(Event::RolledBack(cause));
        let breach = evidence(Verdict::Breach, 1_000);
        assert_eq!(regret(&Input::Tick, &breach), back(Cause::Breach(Metric::ErrorRate)));
        assert_eq!(regret(&Input::Tripped, &pass), back(Cause::Tripwire));
    }

    #[test]
    fn what_raises_nothing_is_not_regretted() {
        let (it, none) = (at_stage(1, 7), Evidence::default());
        for step in [Event::ApprovalRequested, Event::Succeeded(Cause::GatesPassed), Event::Baked] {
            assert_eq!(it.regret(Timestamp(8 * DAY), &step, &Input::Tick, &none), None);
        }
    }
}
