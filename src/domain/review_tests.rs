//! Which pairs are drawn, for what they stand, and whom they wait for.

use super::*;
use crate::domain::{Call, Checks, Name, Usage};

fn call(outcome: Outcome) -> Call {
    Call {
        provider: "gpt".parse().unwrap(),
        model: None,
        status: 200,
        outcome,
        first_byte_ms: None,
        total_ms: 9,
        usage: Some(Usage::default()),
        finish_reason: None,
        cost_nano_usd: None,
        checks: Checks::default(),
        answer_chars: None,
        rouge_l_bps: None,
        estimated: false,
    }
}

pub(in crate::domain) fn pair(number: u128, agreement: Agreement) -> Pair {
    Pair {
        id: PairId((1_000 << 80) | number),
        at: Timestamp(1_000),
        window: Window { rollout: Name::every(), attempt: 1, stage: 0 },
        served: Side::Primary,
        answered: Some(Side::Primary),
        path: String::new(),
        feature: String::new(),
        segment: String::new(),
        watched: String::new(),
        judgeable: true,
        primary: call(Outcome::Ok),
        candidate: call(Outcome::Ok),
        agreement,
        lot: None,
        order: None,
    }
}

fn score(pair: &Pair, primary: f64, candidate: f64) -> Score {
    Score {
        pair: pair.id,
        window: pair.window.clone(),
        watched: String::new(),
        at: Timestamp(1_001),
        order: None,
        source: "judge:m@1".to_owned(),
        primary,
        candidate,
        parts: Vec::new(),
        rationale: String::new(),
        placed: None,
    }
}

fn share(basis_points: u16) -> Share {
    Share::from_basis_points(basis_points).unwrap()
}

pub(in crate::domain) fn lease(id: u128, reviewer: &str, until: u64) -> Lease {
    let (reviewer, until) = (reviewer.to_owned(), Timestamp(until));
    Lease { id, reviewer, until, first: Side::Primary, said: None, comment: String::new() }
}

/// Pairs of which most are alike and won by the candidate, and the doubtful ones by the primary:
/// the weighted mean of what is drawn is that of all, and the plain one is far from it.
#[test]
fn weighted_means_of_what_is_drawn_are_those_of_all_pairs() {
    let (mut truth, mut plain, mut weighted) = ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]);
    let mut doubtful_drawn = 0;
    for number in 0..200_000 {
        let it = pair(number, Agreement::Different);
        let doubtful = number % 10 == 0;
        let marks = if doubtful { score(&it, 0.9, 0.2) } else { score(&it, 0.9, 0.9) };
        let win = if doubtful { 0.1 } else { 0.6 };
        truth = [truth[0] + win, truth[1] + 1.0];
        if let Some(review) = Review::draw(share(500), &it, Some(&marks)) {
            let weight = f64::from(review.weight_millionths) / 1e6;
            assert!(0.0 < weight && weight <= 1.0);
            plain = [plain[0] + win, plain[1] + 1.0];
            weighted = [weighted[0] + weight * win, weighted[1] + weight];
            doubtful_drawn += u64::from(doubtful);
        }
    }
    let mean = |it: [f64; 2]| it[0] / it[1];
    let off = (mean(weighted) - mean(truth)).abs();
    // The standard error of some 13 000 draws is about 0.002.
    assert!(off < 0.008, "{} instead of {}", mean(weighted), mean(truth));
    assert!(0.1 < mean(truth) - mean(plain), "unweighted it is biased: {}", mean(plain));
    assert!((3_700..4_300).contains(&doubtful_drawn), "{doubtful_drawn} of 20 000 at 20 %");
}

#[test]
fn what_is_drawn_stays_drawn_and_a_larger_share_only_adds() {
    let drawn = |basis_points| -> Vec<u128> {
        let all = (0..5_000).map(|it| pair(it, Agreement::SameJson));
        all.filter_map(|it| Review::draw(share(basis_points), &it, None))
            .map(|it| it.pair.0)
            .collect()
    };
    let few = drawn(500);
    assert_eq!(few, drawn(500));
    assert!((200..300).contains(&few.len()), "{}", few.len());
    let more = drawn(2_000);
    assert!(few.iter().all(|it| more.contains(it)) && few.len() < more.len());
    assert_eq!(drawn(0), [0; 0]);
}

#[test]
fn doubt_is_a_judge_that_sees_one_ahead_or_marks_low_or_answers_that_differ() {
    let alike = pair(1, Agreement::SameJson);
    let apart = pair(1, Agreement::Different);
    for (pair, marks, doubt) in [
        (&alike, None, false),
        (&apart, None, true),
        (&apart, Some((0.9, 0.9)), false),
        (&alike, Some((0.9, 0.8)), true),
        (&apart, Some((0.8, 0.9)), true),
        (&apart, Some((0.3, 0.3)), true),
    ] {
        let marks = marks.map(|(primary, candidate)| score(pair, primary, candidate));
        let review = Review::draw(share(2_500), pair, marks.as_ref());
        assert_eq!(raises_doubt(pair, marks.as_ref()), doubt, "{marks:?}");
        // At 25 % every doubtful pair is drawn, and stands for a quarter of itself.
        assert!(!doubt || review.is_some_and(|it| it.weight_millionths == 250_000));
    }
}

#[test]
fn what_is_the_same_word_for_word_or_no_answer_is_never_drawn() {
    let drawn = |pair: &Pair| Review::draw(Share::ALL, pair, None).is_some();
    assert!(drawn(&pair(1, Agreement::Different)) && drawn(&pair(1, Agreement::SameJson)));
    assert!(!drawn(&pair(1, Agreement::Exact)) && !drawn(&pair(1, Agreement::Unknown)));
    for outcome in Outcome::ALL {
        let it = Pair { candidate: call(outcome), ..pair(1, Agreement::Different) };
        assert_eq!(drawn(&it), matches!(outcome, Outcome::Ok | Outcome::Refused), "{outcome:?}");
    }
}

#[test]
fn a_pair_waits_for_whoever_has_not_seen_it_until_enough_have_answered() {
    let now = Timestamp(2_000);
    // A pair for one reviewer, and one for two.
    let wanted = |it: &Review| {
        let second = Share::from_basis_points(SECOND_BPS).unwrap();
        second.includes("second opinion", &it.pair.to_string())
    };
    let drawn =
        |number| Review::draw(Share::ALL, &pair(number, Agreement::Different), None).unwrap();
    let mut one = (0..99).map(drawn).find(|it| !wanted(it)).unwrap();
    let mut two = (0..99).map(drawn).find(wanted).unwrap();
    for review in [&mut one, &mut two] {
        assert!(review.waits_for("ana", now));
        review.give(lease(1, "ana", 3_000), now);
        assert!(!review.waits_for("ana", now), "she has it");
    }
    assert!(!one.waits_for("ben", now) && two.waits_for("ben", now));
    assert!(one.waits_for("ben", Timestamp(3_000)), "she let it go");
    assert!(one.waits_for("ana", Timestamp(3_000)), "she has not answered it");
    one.leases[0].said = Some((Choice::Skipped, now));
    assert!(one.waits_for("ben", now) && !one.waits_for("ana", now), "she passed it over");
    two.leases[0].said = Some((Choice::BothBad, now));
    assert!(two.waits_for("ben", now) && !two.waits_for("ana", Timestamp(9_000)));
    two.give(lease(2, "ben", 2_500), now);
    two.give(lease(3, "cleo", 3_500), Timestamp(2_600));
    assert_eq!(two.leases.iter().map(|it| it.id).collect::<Vec<_>>(), [1, 3], "ben's is gone");
}

#[test]
fn a_winner_is_ahead_by_more_than_a_judge_wavers() {
    let it = pair(1, Agreement::Different);
    for (primary, candidate, winner) in [
        (0.9, 0.9, Preferred::Neither),
        (0.9, 0.87, Preferred::Neither),
        (0.9, 0.8, Preferred::Primary),
        (0.8, 0.9, Preferred::Candidate),
    ] {
        assert_eq!(Preferred::of(&score(&it, primary, candidate)), winner);
    }
}
