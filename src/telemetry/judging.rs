//! What is counted of the judge.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Real;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplyLabels {
    reply: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    rule: &'static str,
}

/// The judge's metrics.
#[derive(Debug, Default)]
pub struct Judging {
    replies: Family<ReplyLabels, Counter>,
    ruled: Family<RuleLabels, Counter>,
    both: Counter,
    flipped: Counter,
    fit: Gauge,
    kappa: Real,
    drift: Real,
}

impl Judging {
    /// Counts a call by how it ended.
    pub fn reply(&self, reply: &'static str) {
        self.replies.get_or_create(&ReplyLabels { reply }).inc();
    }

    /// Counts a pair that a rule marked in place of the judge.
    pub fn rule(&self, rule: &'static str) {
        self.ruled.get_or_create(&RuleLabels { rule }).inc();
    }

    /// Counts a pair shown in both orders: whether each had another winner.
    pub fn orders(&self, flipped: bool) {
        self.both.inc();
        if flipped {
            self.flipped.inc();
        }
    }

    /// Shows what a run of the calibration set came to.
    pub fn calibrated(&self, kappa: f64, drift: f64, problem: Option<&str>) {
        self.fit.set(i64::from(problem.is_none()));
        self.kappa.set(kappa);
        self.drift.set(drift);
    }

    pub(super) fn register(&self, table: &mut Registry) {
        let it = table;
        it.register("judge_replies", "Calls of the judge, by how they ended", self.replies.clone());
        it.register("judge_ruled", "Pairs marked by a rule in its place", self.ruled.clone());
        it.register("judge_both_orders", "Pairs shown in both orders", self.both.clone());
        it.register("judge_flipped", "Those with another winner in each", self.flipped.clone());
        it.register("judge_fit", "1 if its last calibration went well", self.fit.clone());
        it.register("judge_kappa", "Agreement with its calibration set", self.kappa.clone());
        it.register("judge_drift", "Distance from its first marks there", self.drift.clone());
    }
}
