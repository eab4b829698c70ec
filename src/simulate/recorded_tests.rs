//! What is played of what was recorded.

use super::*;
use crate::domain::{Outcome, Pair, Timestamp};
use crate::simulate::tests::plan;
use crate::store::samples;

/// What was told of a pair that was asked in a stage at a time, the candidate's answer like this.
fn heard(seq: u64, stage: u32, at: u64, candidate: Outcome) -> Heard {
    let mut pair: Pair = samples::pair("x", at, seq);
    (pair.window.stage, pair.watched, pair.lot) = (stage, String::new(), None);
    pair.candidate.outcome = candidate;
    pair.order = Some(Order { seq, at: Timestamp(at + 150) });
    Heard::of(&Seen::Pair(Box::new(pair)))
}

#[test]
fn what_was_on_its_way_while_a_step_was_written_counts_in_no_stage_as_it_did_live() {
    let (name, plan) = plan("error_rate = \"+5pp\"", &["0%", "50%"]);
    let entered = |stage, at, after| Taken {
        at: Timestamp(at),
        event: Event::StageEntered { attempt: 1, stage, cause: Cause::Operator },
        samples: Vec::new(),
        after: Some(after),
        weather: Vec::new(),
    };
    let ok = Outcome::Ok;
    let mut recorded = Recorded {
        name,
        plan,
        attempt: 1,
        steps: vec![entered(0, 1_000, 0), entered(1, 10_000, 20)],
        heard: (1..=19).map(|seq| heard(seq, 0, 1_000 + seq, ok)).collect(),
    };
    // Told while the step was being written.
    recorded.heard.push(heard(20, 0, 9_990, ok));
    // Asked after the step was decided and before it was seen, and told after that.
    recorded.heard.extend((21..=60).map(|seq| heard(seq, 0, 10_000 + seq, Outcome::ProviderError)));
    recorded.heard.extend((61..=70).map(|seq| heard(seq, 1, 12_000 + seq, ok)));
    let played = recorded.play(None);
    assert_eq!((played.outcome, played.pairs), ("running", 30), "{played:?}");
    assert_eq!(played.steps.len(), 1, "{played:?}");
    assert_eq!(played.steps[0].at, "1970-01-01T00:00:10.000Z", "when it was decided");
    // Another plan takes its steps itself, so it counts where it stands.
    let other = recorded.play(Some(recorded.plan.clone()));
    assert_eq!(other.outcome, "rolled_back", "{other:?}");
}
