//! Evidence as messages: gates, pairs, calls and scores.

use super::{duration, int, long, provider, time};
use crate::api::proto;
use crate::domain::{
    Agreement, Basis, Call, Check, Choice, Found, GateEvidence, Lease, Noise, Outcome, Pair,
    Review, Score, ScorePart, Side, TierEvidence, Usage, Verdict,
};
use crate::store::Bodies;

/// What is known about a gate.
pub(super) fn gate_evidence(gate: &GateEvidence) -> proto::GateEvidence {
    proto::GateEvidence {
        metric: gate.metric.as_str().to_owned(),
        verdict: verdict(gate.verdict).into(),
        problem: gate.problem.clone(),
        samples: long(gate.samples),
        samples_needed: gate.samples_needed.map(long),
        primary_value: gate.primary,
        candidate_value: gate.candidate,
        difference: gate.difference,
        lower: gate.lower,
        upper: gate.upper,
        fixed_lower: gate.fixed.map(|[lower, _]| lower),
        fixed_upper: gate.fixed.map(|[_, upper]| upper),
        bound: gate.bound,
        unit: gate.metric.unit().to_owned(),
        harm: gate.harm,
        safe: gate.safe,
        alarm_from_percent: int(gate.alarm_from_percent),
        time_needed: None,
        slice: gate.watched.clone(),
        noise: gate.noise.map(|Noise { samples, difference, lower, upper }| proto::Noise {
            samples: long(samples),
            difference,
            lower,
            upper,
        }),
        basis: gate.basis.map(|Basis { estimated_percent, input_tokens }| proto::Basis {
            estimated_percent,
            primary_input_tokens: input_tokens.map(|(primary, _)| primary),
            candidate_input_tokens: input_tokens.map(|(_, candidate)| candidate),
        }),
        tiers: gate.tiers.iter().map(tier).collect(),
    }
}

fn verdict(verdict: Verdict) -> proto::gate_evidence::Verdict {
    match verdict {
        Verdict::Pass => proto::gate_evidence::Verdict::Pass,
        Verdict::Undecided => proto::gate_evidence::Verdict::Undecided,
        Verdict::Invalid => proto::gate_evidence::Verdict::Invalid,
        Verdict::Breach => proto::gate_evidence::Verdict::Breach,
    }
}

fn tier(tier: &TierEvidence) -> proto::Tier {
    let found = |Found { value, lower, upper, bound, verdict: it }: Found| {
        Some(proto::Found { value, lower, upper, bound, verdict: verdict(it).into() })
    };
    proto::Tier { quality: found(tier.quality), cost: found(tier.cost) }
}

/// A pair with what judges think of it; without its bodies.
pub(in crate::api) fn pair(pair: &Pair, scores: &[Score]) -> proto::Pair {
    use proto::pair as told;
    let served = match pair.served {
        Side::Primary => told::Served::Primary,
        Side::Candidate => told::Served::Candidate,
    };
    let agreement = match pair.agreement {
        Agreement::Exact => told::Agreement::Exact,
        Agreement::SameJson => told::Agreement::SameJson,
        Agreement::Different => told::Agreement::Different,
        Agreement::Unknown => told::Agreement::Unknown,
    };
    proto::Pair {
        name: format!("rollouts/{}/pairs/{}", pair.window.rollout, pair.id),
        create_time: Some(time(pair.at)),
        attempt: int(pair.window.attempt),
        stage_index: int(pair.window.stage),
        served: served.into(),
        path: pair.path.clone(),
        feature: pair.feature.clone(),
        segment: pair.segment.clone(),
        slice: pair.watched.clone(),
        judgeable: pair.judgeable,
        primary: Some(call(&pair.primary)),
        candidate: Some(call(&pair.candidate)),
        agreement: agreement.into(),
        judgements: scores.iter().map(judgement).collect(),
        comparisons: Vec::new(),
        bodies: None,
    }
}

/// What people said of a pair.
pub(in crate::api) fn comparisons(review: &Review) -> Vec<proto::Comparison> {
    use proto::comparison::Choice as Told;
    let told = |lease: &Lease| {
        let (choice, at) = lease.said?;
        let choice = match choice {
            Choice::Better(Side::Primary) => Told::Primary,
            Choice::Better(Side::Candidate) => Told::Candidate,
            Choice::BothGood => Told::BothGood,
            Choice::BothBad => Told::BothBad,
            Choice::Skipped => Told::Skipped,
        };
        Some(proto::Comparison {
            reviewer: lease.reviewer.clone(),
            create_time: Some(time(at)),
            choice: choice.into(),
            comment: lease.comment.clone(),
            counts: review.counted.is_some_and(|it| it.lease == lease.id),
        })
    };
    review.leases.iter().filter_map(told).collect()
}

/// A call, without its text.
pub(super) fn call(call: &Call) -> proto::Call {
    use proto::call::Outcome as Told;
    let outcome = match call.outcome {
        Outcome::Ok => Told::Ok,
        Outcome::ProviderError => Told::ProviderError,
        Outcome::Throttled => Told::Throttled,
        Outcome::Timeout => Told::Timeout,
        Outcome::Truncated => Told::Truncated,
        Outcome::Refused => Told::Refused,
        Outcome::Incompatible => Told::Incompatible,
        Outcome::Abandoned => Told::Abandoned,
    };
    let named = |kept: bool| {
        let checks = call.checks.iter().filter(|it| it.1 == kept);
        checks.map(|(check, _)| check.as_str().to_owned()).collect()
    };
    proto::Call {
        provider: provider(&call.provider),
        model: call.model.clone().unwrap_or_default(),
        http_status: call.status.into(),
        outcome: outcome.into(),
        latency: Some(duration(call.total_ms.into())),
        time_to_first_byte: call.first_byte_ms.map(|ms| duration(ms.into())),
        usage: call.usage.map(usage),
        finish_reason: call.finish_reason.clone().unwrap_or_default(),
        cost_nano_usd: call.cost_nano_usd.map(long),
        well_formed: call.checks.kept(Check::Json),
        checks_kept: named(true),
        checks_broken: named(false),
        answer_chars: call.answer_chars.map(int),
        rouge_l: call.rouge_l_bps.map(|it| f64::from(it) / 10_000.0),
        estimated: call.estimated,
    }
}

fn usage(usage: Usage) -> proto::Usage {
    let Usage { input, cache_read, cache_write, output } = usage;
    proto::Usage {
        input_tokens: long(input),
        cache_read_tokens: long(cache_read),
        cache_write_tokens: long(cache_write),
        output_tokens: long(output),
    }
}

fn judgement(score: &Score) -> proto::Judgement {
    let part = |part: &ScorePart| proto::JudgementPart {
        dimension: part.dimension.clone(),
        primary_score: part.primary,
        candidate_score: part.candidate,
    };
    proto::Judgement {
        source: score.source.clone(),
        create_time: Some(time(score.at)),
        primary_score: score.primary,
        candidate_score: score.candidate,
        parts: score.parts.iter().map(part).collect(),
        rationale: score.rationale.clone(),
    }
}

/// The texts of a pair.
pub(in crate::api) fn bodies(bodies: &Bodies) -> proto::Bodies {
    proto::Bodies {
        request: bodies.request.to_vec(),
        primary: bodies.primary.to_vec(),
        candidate: bodies.candidate.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::millis;
    use crate::domain::{PairId, Timestamp, Window};

    #[test]
    fn a_pair_keeps_what_was_seen_and_leaves_out_what_was_not() {
        let side = |name: &str| Call {
            provider: name.parse().unwrap(),
            model: None,
            status: 200,
            outcome: Outcome::Truncated,
            first_byte_ms: None,
            total_ms: 1_250,
            usage: Some(Usage { input: 3, output: 5, ..Usage::default() }),
            finish_reason: None,
            cost_nano_usd: None,
            checks: crate::domain::Checks::default(),
            answer_chars: None,
            rouge_l_bps: None,
            estimated: false,
        };
        let window = Window { rollout: "chat".parse().unwrap(), attempt: 2, stage: 1 };
        let given = Pair {
            id: PairId(7),
            at: Timestamp(1_001),
            window,
            served: Side::Candidate,
            answered: None,
            path: "/v1/chat/completions".to_owned(),
            feature: String::new(),
            segment: "free".to_owned(),
            watched: "free".to_owned(),
            judgeable: true,
            primary: side("gpt"),
            candidate: side("cheap"),
            agreement: Agreement::SameJson,
            lot: None,
            order: None,
        };
        let told = pair(&given, &[]);
        assert_eq!(told.name, "rollouts/chat/pairs/00000000-0000-0000-0000-000000000007");
        assert_eq!((told.attempt, told.stage_index, told.slice.as_str()), (2, 1, "free"));
        assert_eq!(told.agreement(), proto::pair::Agreement::SameJson);
        let call = told.candidate.unwrap();
        assert_eq!(call.provider, "providers/cheap");
        assert_eq!(call.latency.map(millis), Some(1_250));
        assert_eq!((call.time_to_first_byte, call.model.as_str()), (None, ""));
        assert_eq!(call.usage.unwrap().output_tokens, 5);
    }
}
