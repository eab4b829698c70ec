//! How far people and a judge agree on who wins.

use crate::analysis::kappa;
use crate::domain::{Preferred, Review};

use super::calibrated::KAPPA_MIN;

/// Comparisons before they speak for or against a judge.
const COMPARED_MIN: u64 = 50;

/// Pairs that people have compared and a judge has marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Pairs.
    pub pairs: u64,
    /// Those with the same winner.
    pub agreed: u64,
    /// What they stand for, in millionths of a pair that raised no doubt, by who wins for the judge
    /// (rows) and for people (columns): primary, neither, candidate.
    weights: [[u64; 3]; 3],
}

impl Agreed {
    /// Takes a pair that somebody has compared, and the judge's marks: the
    /// primary's, and the candidate's.
    pub fn add(&mut self, review: &Review, people: Preferred, marks: [f64; 2]) {
        let judge = Preferred::by(marks);
        self.pairs += 1;
        self.agreed += u64::from(judge == people);
        let weight = &mut self.weights[judge.place()][people.place()];
        *weight = weight.saturating_add(u64::from(review.weight_millionths));
    }

    /// Takes all of another one.
    pub fn join(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.agreed += other.agreed;
        let weights = self.weights.as_flattened_mut().iter_mut();
        for (weight, other) in weights.zip(other.weights.as_flattened()) {
            *weight = weight.saturating_add(*other);
        }
    }

    /// Agreement beyond chance over all pairs that might have been drawn, -1 to 1: pairs that
    /// raise doubt are drawn more often, and count for less. None where nothing was told apart.
    pub fn kappa(&self) -> Option<f64> {
        kappa(&self.weights)
    }

    /// Why the judge is not believed, if so.
    pub(super) fn problem(&self) -> Option<String> {
        let kappa = self.kappa().filter(|_| COMPARED_MIN <= self.pairs)?;
        (kappa < KAPPA_MIN).then(|| {
            format!(
                "{}, at least {KAPPA_MIN} is needed; take another model or wording, or gate \
                 human_win_rate in place of judge_score",
                self.text()
            )
        })
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        let Self { pairs, agreed, .. } = self;
        let kappa = self.kappa().map_or_else(String::new, |it| format!(", kappa {it:.2}"));
        format!("people find the judge's winner in {agreed} of {pairs} pairs{kappa}")
    }
}
