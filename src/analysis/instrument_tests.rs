//! What instruments take from calls, and by which terms.

use super::*;
use crate::analysis::{ledger::tests::reference_terms, tests::call};
use crate::domain::Role;

#[test]
fn a_ratio_is_of_dollars_or_of_tokens() {
    let (output_tokens, usd) = (Some(40), Some(0.25));
    let sample = Sample { output_tokens, usd, ..call(Outcome::Ok, 1.0) };
    assert_eq!(amount(Metric::Cost, &sample), usd);
    assert_eq!(amount(Metric::OutputTokensRatio, &sample), Some(40.0));
}

#[test]
fn only_where_both_sides_answered_are_their_amounts_compared() {
    let mut instrument = Instrument::new(Metric::OutputTokensRatio, reference_terms());
    let margin = Margin::default_of(Metric::OutputTokensRatio);
    instrument.enter(Timestamp(0), Some(margin), Chances::PAIRS);
    let well = Sample { output_tokens: Some(40), ..call(Outcome::Ok, 900.0) };
    let failed = Sample { outcome: Outcome::Truncated, ..well };
    for (primary, candidate) in
        [(well, failed), (failed, well), (failed, failed), (well, well), (well, well)]
    {
        let sides = (Some(primary), Some(candidate));
        instrument.observe(Metric::OutputTokensRatio, Stream::Paired, sides);
    }
    let gate = Gate { margin, role: Role::Prove };
    assert_eq!(instrument.evidence(gate, reference_terms()).samples, 2);
}

#[test]
fn the_terms_of_a_ratio_are_parts_of_one_and_whole_amounts() {
    let (percent, expected, each_max, estimated_max) = (40, 30, 2_500_000, 50);
    let limit = Limit::Ratio { percent, expected, each_max, estimated_max };
    let ratio::Margin { limit, expected, each_max, loss_max, estimated_max } =
        amounts(limit).unwrap();
    let terms = [limit, expected, each_max, loss_max, estimated_max].map(|it| it.to_string());
    assert_eq!(terms, ["0.4", "0.3", "2.5", "2.5", "0.5"]);
}
