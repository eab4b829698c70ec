//! What a report says of what it was told.

use proto::rollout::State;

use super::*;

fn gate(metric: &str, slice: &str, figures: [f64; 4]) -> proto::GateEvidence {
    let [primary_value, difference, lower, upper] = figures;
    proto::GateEvidence {
        metric: metric.to_owned(),
        slice: slice.to_owned(),
        primary_value,
        candidate_value: primary_value + difference,
        difference,
        lower,
        upper,
        unit: "score".to_owned(),
        samples: 1_200,
        verdict: Verdict::Pass.into(),
        ..proto::GateEvidence::default()
    }
}

fn pair(id: &str, outcome: Outcome, scores: Option<(f64, f64)>) -> proto::Pair {
    let call = |outcome: Outcome, cost| proto::Call {
        outcome: outcome.into(),
        cost_nano_usd: cost,
        ..proto::Call::default()
    };
    let judgement = |(primary_score, candidate_score)| proto::Judgement {
        primary_score,
        candidate_score,
        ..proto::Judgement::default()
    };
    proto::Pair {
        name: format!("rollouts/chat/pairs/{id}"),
        attempt: 1,
        primary: Some(call(Outcome::Ok, Some(6_000_000))),
        candidate: Some(call(outcome, Some(2_000_000))),
        judgements: scores.map(judgement).into_iter().collect(),
        ..proto::Pair::default()
    }
}

fn facts() -> Facts {
    let mut cost = gate("cost", "", [0.006, 33.3, 30.1, 38.2]);
    "%".clone_into(&mut cost.unit);
    let mut open = gate("latency_p99", "", [800.0, 20.0, -40.0, 300.0]);
    (open.verdict, open.samples_needed) = (Verdict::Undecided.into(), Some(900));
    let mut score = gate("judge_score", "", [0.8, -0.02, -0.04, 0.01]);
    score.noise = Some(proto::Noise { samples: 70, difference: 0.01, lower: -0.03, upper: 0.05 });
    let slice = gate("judge_score", "tools", [0.8, -0.3, -0.4, -0.2]);
    let stage =
        proto::Stage { stage_id: "half".to_owned(), serve_bps: 5_000, ..Default::default() };
    let rollout = proto::Rollout {
        name: "rollouts/chat".to_owned(),
        primary: "providers/gpt".to_owned(),
        candidate: "providers/cheap".to_owned(),
        stages: vec![stage],
        state: State::Running.into(),
        attempt: 1,
        stage_elapsed: Some(proto::Duration { seconds: 60, nanos: 0 }),
        evidence: vec![score, slice, cost, open],
        slices: Some(proto::WatchedSlices {
            by: "task".to_owned(),
            values: vec!["tools".to_owned()],
        }),
        requests_per_minute: Some(100.0),
        obstacle: Some(proto::Obstacle {
            code: "GATE_UNDECIDED".to_owned(),
            message: "gate `latency_p99` of stage `half` is undecided".to_owned(),
            metric: "latency_p99".to_owned(),
        }),
        ..proto::Rollout::default()
    };
    let pairs = vec![
        pair("good", Outcome::Ok, Some((0.8, 0.9))),
        pair("poor", Outcome::Ok, Some((0.9, 0.3))),
        pair("dead", Outcome::Timeout, None),
    ];
    Facts { rollout, decision: Decision::Hold, climb: Climb::default(), pairs }
}

#[test]
fn the_answer_stands_first_and_says_how_much_quality_for_how_much_cost() {
    let text = facts().paper().markdown();
    let first: Vec<&str> = text.lines().filter(|it| !it.is_empty()).take(3).collect();
    assert_eq!(first[0], "# Is \\`chat\\` ready?");
    assert!(first[1].starts_with("Not yet: gate \\`latency"), "{text}");
    let sentence = "97.5% of the primary's quality (judge\\_score, \\[95.0%, 101.2%\\], 1,200 pairs) at \
        33.3% of its cost (\\[30.1%, 38.2%\\], 1,200 pairs).";
    assert_eq!(first[2], sentence);
    assert!(text.contains("judge\\_score in tools: -0.300 \\[-0.400, -0.200\\]"), "{text}");
    assert!(text.contains("| +0.010 \\[-0.030, +0.050\\] |"), "{text}");
    assert!(text.contains("latency\\_p99 is not decided: about 900 more samples."), "{text}");
}

#[test]
fn the_worst_pairs_are_named_the_failed_before_the_poor_and_no_good_one() {
    let text = facts().paper().markdown();
    let (dead, poor) = (text.find("| dead |").unwrap(), text.find("| poor |").unwrap());
    assert!(dead < poor && !text.contains("| good |"), "{text}");
    assert!(text.contains("judged 0.90 and 0.30"), "{text}");
}

#[test]
fn money_is_reckoned_from_pairs_whose_costs_are_known() {
    let facts = facts();
    assert_eq!(facts.costs(), Costs { pairs: 3, primary: 18_000_000, candidate: 6_000_000 });
    // 4 thousandths of a dollar a request, 100 a minute, 43,200 minutes; half is served.
    let (now, all) = facts.forecast().unwrap();
    assert!((all - 17_280.0).abs() < 1e-6 && (now - 8_640.0).abs() < 1e-6, "{now} {all}");
    let amounts = [123_456_789_012_345, -5].map(|it| format!("{:.9}", dollars(it)));
    assert_eq!(amounts, ["123456.789012345", "-0.000000005"]);
    let mut unknown = facts;
    for pair in &mut unknown.pairs {
        pair.candidate.as_mut().unwrap().cost_nano_usd = None;
    }
    assert!(unknown.paper().markdown().contains("no stored pair has a known cost on both sides"));
}

#[test]
fn what_a_program_is_told_has_the_same_figures() {
    let json = facts().json();
    assert_eq!(json["gates"][0]["samples"], 1_200);
    assert_eq!(json["gates"][0]["noise"]["samples"], 70);
    assert!(json["gates"][2]["noise"].is_null());
    assert_eq!(json["money"]["primaryNanoUsd"], 18_000_000);
    assert!(json["answer"].as_str().unwrap().starts_with("Not yet"));
    let html = facts().paper().html();
    assert!(html.contains("<h2>Gates</h2>") && html.contains("judge_score in tools"));
}

#[test]
fn what_was_saved_so_far_is_less_what_copies_and_scores_cost() {
    let mut facts = facts();
    assert!(facts.so_far().ends_with("and the candidate answered nobody yet."));
    let savings = |priced, instead_nano_usd| proto::Savings {
        served: 1_000,
        priced,
        served_nano_usd: 2_000_000_000,
        instead_nano_usd,
        pairs: 40,
    };
    let spending = proto::Spending { total_nano_usd: 1_500_000_000, ..Default::default() };
    (facts.rollout.spending, facts.rollout.savings) = (Some(spending), Some(savings(1_000, None)));
    assert!(facts.so_far().ends_with("that the candidate answered is not known."));
    facts.rollout.savings = Some(savings(900, Some(5_000_000_000)));
    assert_eq!(
        facts.so_far(),
        "So far the candidate answered 1,000 requests (what 900 of them cost is known) for $2.00; \
         with the primary they would have cost about $5.00, by 40 pairs. Copies and scores cost \
         $1.50 so far: all in all it saved $1.50."
    );
    assert_eq!(facts.json()["money"]["savedNanoUsd"], 1_500_000_000_i64);
    facts.rollout.savings = Some(savings(1_000, Some(2_500_000_000)));
    assert!(facts.so_far().ends_with("all in all it cost $1.00."), "{}", facts.so_far());
    assert!(facts.paper().html().contains("all in all it cost $1.00."));
}
