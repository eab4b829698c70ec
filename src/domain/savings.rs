//! What a candidate saves where it answers callers.

use super::{Call, Seen, Side, Told};

/// What the requests of a rollout cost, so far as that is known. Billionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Savings {
    /// Requests that the candidate answered to callers.
    pub served: u64,
    /// Those of them of which it is known what they cost.
    pub priced: u64,
    /// What these cost.
    pub served_nano_usd: u64,
    /// Requests of which it is known what they cost with both.
    pub pairs: u64,
    /// What these cost with the primary.
    pub primary_nano_usd: u64,
    /// What these cost with the candidate.
    pub candidate_nano_usd: u64,
}

impl Savings {
    /// Takes what was told of a request.
    pub fn see(&mut self, seen: &Seen) {
        match seen {
            Seen::Pair(pair) => {
                if let (Some(primary), Some(candidate)) =
                    (pair.primary.cost_nano_usd, pair.candidate.cost_nano_usd)
                {
                    self.pairs += 1;
                    self.primary_nano_usd = self.primary_nano_usd.saturating_add(primary);
                    self.candidate_nano_usd = self.candidate_nano_usd.saturating_add(candidate);
                }
                if pair.answered.unwrap_or(pair.served) == Side::Candidate {
                    self.serve(&pair.candidate);
                }
            }
            Seen::Note(note) => {
                if let Told::Solo { side: Side::Candidate, call, .. } = &note.told {
                    self.serve(call);
                }
            }
            Seen::Score(_) | Seen::Review(_) => {}
        }
    }

    fn serve(&mut self, call: &Call) {
        self.served += 1;
        if let Some(cost) = call.cost_nano_usd {
            self.priced += 1;
            self.served_nano_usd = self.served_nano_usd.saturating_add(cost);
        }
    }

    /// What the requests it answered, as far as their cost is known, would have cost with the
    /// primary: as much more as pairs do. None where no pair tells.
    pub fn instead_nano_usd(&self) -> Option<u64> {
        let [served, primary, candidate] =
            [self.served_nano_usd, self.primary_nano_usd, self.candidate_nano_usd].map(u128::from);
        (served * primary).checked_div(candidate).and_then(|it| u64::try_from(it).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Agreement, Lot, Window, review::tests::pair};

    #[test]
    fn what_it_answered_is_set_against_what_pairs_cost_with_both() {
        let mut savings = Savings::default();
        assert_eq!(savings.instead_nano_usd(), None);
        let mut pair = pair(1, Agreement::Different);
        pair.answered = Some(Side::Primary);
        (pair.primary.cost_nano_usd, pair.candidate.cost_nano_usd) = (Some(900), Some(300));
        savings.see(&Seen::Pair(Box::new(pair.clone())));
        assert_eq!((savings.served, savings.instead_nano_usd()), (0, Some(0)));
        pair.answered = Some(Side::Candidate);
        savings.see(&Seen::Pair(Box::new(pair.clone())));
        let window = Window { rollout: "chat".parse().unwrap(), attempt: 1, stage: 0 };
        let mut solo = |side, cost_nano_usd| {
            let call = Box::new(Call { cost_nano_usd, ..pair.candidate.clone() });
            let told = Told::Solo { lot: Lot::Once, side, call, watched: String::new() };
            savings.see(&Seen::note(&window, told));
        };
        solo(Side::Candidate, Some(400));
        solo(Side::Candidate, None);
        solo(Side::Primary, Some(5_000));
        assert_eq!((savings.served, savings.priced, savings.served_nano_usd), (3, 2, 700));
        assert_eq!((savings.pairs, savings.instead_nano_usd()), (2, Some(2_100)));
        // Where the primary told of a failure of the candidate, nobody was served by that.
        pair.answered = Some(Side::Primary);
        pair.served = Side::Candidate;
        savings.see(&Seen::Pair(Box::new(pair)));
        assert_eq!(savings.served, 3);
    }
}
