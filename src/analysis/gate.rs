//! What the instruments have in common: their terms, and what they show.

use serde::{Deserialize, Serialize};

use crate::domain::{Gate, GateEvidence, Metric, Risk, Verdict};

use super::{
    bet::{Limits, Standing, Wealth},
    chances::Chances,
    float,
    interval::Interval,
    odds::Alarm,
};

/// Part of the past mean that is staked on safety; any is valid, for the past alone makes it.
const TRUST: f64 = 0.5;

/// What all instruments agree on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Terms {
    pub(super) limits: Limits,
    pub(super) alarm: Alarm,
    /// Part of the past mean of a score's safe payoff that is trusted when it is staked on.
    /// 0 stakes as if both sides were equal, as the reference does, which takes a candidate
    /// that is far better as long to prove as an equal one.
    pub(super) trust: f64,
}

impl Terms {
    /// The terms of an attempt with so many bets, which share the chance of a false alarm.
    pub(super) fn of(risk: Risk, bets: u64) -> Self {
        let chance = |basis_points: u32| f64::from(basis_points) / 10_000.0;
        let limits = Limits {
            harm: (float(bets.max(1)) / chance(risk.harm_bps)).ln(),
            safe: chance(risk.safe_bps).recip().ln(),
        };
        let alarm = if risk.alarm_from_percent < 100 {
            Alarm::From { part: f64::from(risk.alarm_from_percent) / 100.0 }
        } else {
            Alarm::AtMargin
        };
        Self { limits, alarm, trust: TRUST }
    }

    /// The wealth of an instrument that begins.
    pub(super) fn wealth(&self) -> Wealth {
        Wealth::new(self.limits)
    }
}

/// How a request came to be seen, and so what it is bet on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// A lot drew which sides are seen: one side's absence is a matter of chance.
    Drawn,
    /// Both sides are there whatever the lot said.
    Paired,
    /// The side that serves was drawn, and nothing was copied.
    Uncopied,
}

/// One thing for each stream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Streams<T> {
    drawn: T,
    paired: T,
    uncopied: T,
}

impl<T> Streams<T> {
    /// Makes it for the primary calls that are seen for each candidate call.
    pub(super) fn new(chances: Chances, make: impl Fn(f64) -> T) -> Self {
        let uncopied = make(chances.uncopied().weight());
        Self { drawn: make(chances.weight()), paired: make(1.0), uncopied }
    }

    pub(super) fn of(&self, stream: Stream) -> &T {
        match stream {
            Stream::Drawn => &self.drawn,
            Stream::Paired => &self.paired,
            Stream::Uncopied => &self.uncopied,
        }
    }
}

/// What an instrument has to show for people, in the unit of its metric.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) samples: u64,
    pub(super) samples_needed: Option<u64>,
    pub(super) primary: f64,
    pub(super) candidate: f64,
    pub(super) difference: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
    /// The interval for who looks once; none where there is none.
    pub(super) fixed: Option<Interval>,
    pub(super) bound: f64,
    /// Why it cannot be trusted.
    pub(super) problem: Option<String>,
}

impl Shown {
    /// The evidence of a gate over all traffic, told by somebody who can be believed or not.
    pub(super) fn evidence(
        self,
        gate: Gate,
        standing: Standing,
        alarm: Alarm,
        is_believed: bool,
    ) -> GateEvidence {
        let verdict = match (standing.verdict, &self.problem) {
            // Proof of harm stands even where safety can no longer be proven, unless nothing does.
            (Verdict::Breach, _) if is_believed => Verdict::Breach,
            (_, Some(_)) => Verdict::Invalid,
            (verdict, None) => verdict,
        };
        let problem = self.problem.filter(|_| verdict == Verdict::Invalid);
        let metric: Metric = gate.metric();
        GateEvidence {
            metric,
            watched: String::new(),
            verdict,
            alarm_from_percent: alarm.percent(),
            problem: problem.unwrap_or_default(),
            samples: self.samples,
            samples_needed: self.samples_needed,
            primary: self.primary,
            candidate: self.candidate,
            difference: self.difference,
            lower: self.lower,
            upper: self.upper,
            fixed: self.fixed.map(|it| [it.lower, it.upper]),
            bound: self.bound,
            harm: standing.harm,
            safe: standing.safe,
            noise: None,
            basis: None,
            tiers: Vec::new(),
        }
    }
}
