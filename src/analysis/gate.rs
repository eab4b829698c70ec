//! What the gates have in common: their terms, and what they show.

use crate::domain::{Gate, GateEvidence, Verdict};

use super::{
    bet::{Limits, Wealth},
    odds::Alarm,
};

/// What all gates agree on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) limits: Limits,
    pub(super) alarm: Alarm,
    /// Primary calls seen for each candidate call seen.
    pub(super) weight: f64,
    /// Part of the past mean of a score's safe payoff that is trusted when it is staked on.
    /// 0 stakes as if both sides were equal, as the reference does, which takes a candidate
    /// that is far better as long to prove as an equal one.
    pub(super) trust: f64,
}

/// What a gate has to show for people, in the unit of its metric.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) samples: u64,
    pub(super) samples_needed: Option<u64>,
    pub(super) primary: f64,
    pub(super) candidate: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) bound: f64,
    /// Why it cannot be trusted.
    pub(super) problem: Option<String>,
}

impl Shown {
    /// The evidence of a gate.
    pub(super) fn evidence(self, gate: Gate, wealth: &Wealth) -> GateEvidence {
        // Proof of harm stands even where safety can no longer be proven.
        let verdict = match (wealth.verdict(), &self.problem) {
            (Verdict::Breach, _) => Verdict::Breach,
            (Verdict::Pass | Verdict::Undecided | Verdict::Invalid, Some(_)) => Verdict::Invalid,
            (verdict @ (Verdict::Pass | Verdict::Undecided | Verdict::Invalid), None) => verdict,
        };
        let problem = self.problem.filter(|_| verdict == Verdict::Invalid);
        GateEvidence {
            metric: gate.metric(),
            verdict,
            problem: problem.unwrap_or_default(),
            samples: self.samples,
            samples_needed: self.samples_needed,
            primary: self.primary,
            candidate: self.candidate,
            difference: self.candidate - self.primary,
            lower: self.lower,
            upper: self.upper,
            bound: self.bound,
            harm: wealth.harm(),
            safe: wealth.safe(),
        }
    }
}
