//! Foresight: whether plans can be proven in their time, at the traffic that comes.

use std::sync::Arc;

use crate::domain::{Foresight, Name, Plan, State, Timestamp};

use super::{
    actor::Controller,
    handle::{Rejected, Requester, Slow},
};

/// How often plans are looked at again, in milliseconds: the traffic is another one then.
const LOOK_MS: u64 = 5_000;

impl Controller {
    /// Refuses a plan that cannot be expected to be proven in its time, unless whoever asks takes
    /// it all the same. What nothing is known of is refused to nobody.
    pub(super) fn may_be_slow(
        &self,
        name: &Name,
        plan: &Plan,
        by: &Requester,
    ) -> Result<(), Rejected> {
        let refusal = match by.slow {
            Slow::Refused => self.barometer.foresee(plan).refusal(),
            Slow::Taken => None,
        };
        let Some(refusal) = refusal.map(Box::new) else { return Ok(()) };
        let stands = self.managed.get(name).map(|it| &it.rollout);
        let (rollout, remedy) = (name.clone(), refusal.remedy_when(name, stands));
        Err(Rejected::Refused { rollout, refusal, remedy })
    }

    /// Looks ahead for all rollouts, where it is time to.
    pub(super) fn look_ahead_at(&mut self, now: Timestamp) {
        if LOOK_MS <= now.millis_since(self.looked_ahead) {
            self.looked_ahead = now;
            let names: Vec<Name> = self.managed.keys().cloned().collect();
            for name in &names {
                self.look_ahead(name);
            }
        }
    }

    /// Brings up to date what the plan of a rollout is expected to take, and says when it has
    /// become too slow.
    pub(super) fn look_ahead(&mut self, name: &Name) {
        let Some(managed) = self.managed.get_mut(name) else { return };
        let foresight = match managed.rollout.state() {
            State::Pending | State::Running | State::Paused | State::AwaitingApproval => {
                self.barometer.foresee(managed.rollout.plan())
            }
            State::Succeeded | State::Baked | State::RolledBack => Foresight::default(),
        };
        if let Some(why) = foresight.refusal()
            && managed.foresight.refusal().is_none()
        {
            tracing::warn!(rollout = %name, %why, "the plan is not expected to be proven in its time");
        }
        managed.foresight = Arc::new(foresight);
    }
}
