//! What a rollout would do now and why, in sentences with numbers.

use std::{fmt::Write as _, time::Duration};

use crate::domain::{
    Cause, Event, Evidence, Gate, GateEvidence, Kind, Role, Stage, State, TierEvidence, Verdict,
};

use super::handle::View;

/// The explanation of a decision: the decision, what it waits for, each gate, what counts.
pub(super) fn explain(view: &View, decided: Option<&Event>) -> String {
    let Some(stage) = view.rollout.guarded() else { return view.message.clone() };
    let mut lines = vec![match decided {
        Some(Event::RolledBack(Cause::Breach(metric))) => {
            let gate = metric.as_str();
            format!("it would go back to the primary: gate `{gate}` is proven broken")
        }
        Some(Event::RolledBack(cause)) => {
            format!("it would go back to the primary ({})", cause.code())
        }
        Some(Event::ApprovalRequested) => {
            "it would ask for an approval: every gate of the stage is proven".to_owned()
        }
        Some(Event::StageEntered { .. } | Event::Succeeded(_)) => {
            "it would go on: every gate of the stage is proven".to_owned()
        }
        Some(Event::Paused(cause)) => format!("it would be held ({})", cause.code()),
        Some(_) | None => view.message.clone(),
    }];
    lines.push(stay(view, stage));
    for gate in &stage.gates {
        lines.push(view.evidence.of(gate.metric()).map_or_else(
            || format!("{}: no evidence yet", gate.metric().as_str()),
            |known| sentence(*gate, known, view),
        ));
        let of_gate = |it: &&GateEvidence| it.metric == gate.metric() && !it.watched.is_empty();
        let in_slices = view.evidence.gates.iter().filter(of_gate);
        lines.extend(in_slices.map(|known| sentence(*gate, known, view)));
    }
    if !view.judge.is_empty() {
        lines.push(view.judge.clone());
    }
    lines.push(counted(&view.evidence));
    lines.join("\n")
}

/// Time and pairs of the stage against the least of them.
fn stay(view: &View, stage: &Stage) -> String {
    if view.rollout.state() == State::Succeeded {
        let guarded = span(view.rollout.dwelt_ms(view.now));
        let bake = view.rollout.plan().times.bake_ms;
        let of = bake.map_or(String::new(), |it| format!(" of {}", span(it)));
        let rate = view.evidence.per_minute;
        return format!(
            "stage {} guards: for {guarded}{of}, {rate:.1} observations a minute",
            stage.name
        );
    }
    format!(
        "stage {}: {} of at least {}, {} of at least {} pairs, {:.1} observations a minute",
        stage.name,
        span(view.rollout.dwelt_ms(view.now)),
        span(stage.duration_ms_min),
        view.evidence.pairs,
        stage.samples_min,
        view.evidence.per_minute,
    )
}

fn sentence(gate: Gate, known: &GateEvidence, view: &View) -> String {
    let (metric, evidence) = (gate.metric(), &view.evidence);
    let climbs = view.rollout.state() != State::Succeeded;
    let duty = match gate.role {
        Role::Prove if known.watched.is_empty() && climbs => "must be proven here",
        Role::Prove | Role::Guard => "only guards here",
    };
    let unit = metric.unit();
    let compared = match metric.kind() {
        Kind::Ratio => format!("{:.1}{unit} of the primary's", known.difference),
        Kind::Tiers => tiers(known),
        Kind::Rate(_)
        | Kind::Quantile
        | Kind::Score
        | Kind::Opinion
        | Kind::Likeness
        | Kind::Preference => format!(
            "candidate {:.3}, primary {:.3}, difference {:+.3} {unit}",
            known.candidate, known.primary, known.difference
        ),
    };
    let bounds = if known.tiers.is_empty() {
        format!(
            ", interval [{:.3}, {:.3}], bound {:.3} {unit}",
            known.lower, known.upper, known.bound
        )
    } else {
        String::new()
    };
    let mut text = format!(
        "{} ({}) is {}, {duty}: {compared}{bounds}, {} samples",
        known.name(),
        gate.margin,
        known.verdict.as_str(),
        known.samples,
    );
    if let Some(noise) = known.noise {
        // Writing to a string cannot fail.
        let _ = write!(text, "; the primary's own {}", noise.figures(unit));
    }
    if let Some(basis) = known.basis.map(|it| it.figures()).filter(|it| !it.is_empty()) {
        let _ = write!(text, "; {basis}");
    }
    if !known.problem.is_empty() {
        let _ = write!(text, "; {}", known.problem);
    }
    if known.verdict == Verdict::Undecided {
        text.push_str(&missing(known, evidence));
    }
    let _ = write!(
        text,
        "; proof of safety {:.0}%, of harm {:.0}%, {}",
        known.safe * 100.0,
        known.harm * 100.0,
        known.mode()
    );
    text
}

/// Each way to be ready.
fn tiers(known: &GateEvidence) -> String {
    let tiers: Vec<String> = known.tiers.iter().map(TierEvidence::figures).collect();
    tiers.join(", or ")
}

/// How much more an undecided gate needs.
fn missing(known: &GateEvidence, evidence: &Evidence) -> String {
    match (known.samples_needed, evidence.wait_ms(known)) {
        (Some(more), Some(wait_ms)) => {
            format!("; about {more} more samples, {} at today's rate", span(wait_ms))
        }
        (Some(more), None) => format!("; about {more} more samples, and none come now"),
        (None, _) => "; at what is seen now it will not be proven".to_owned(),
    }
}

fn counted(evidence: &Evidence) -> String {
    let excluded = if evidence.excluded.is_empty() {
        "nothing was left out".to_owned()
    } else {
        let parts = evidence.excluded.iter().map(|it| format!("{} {}", it.count, it.reason));
        format!("left out: {}", parts.collect::<Vec<_>>().join(", "))
    };
    format!(
        "it rests on {} pairs and {} requests of which one side was seen; {excluded}",
        evidence.pairs, evidence.solos
    )
}

/// A span of time in its two largest units.
fn span(ms: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(ms.div_ceil(1_000))).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Approval, Excluded, Margin, Metric, Name, Noise, Plan, Risk, Rollout, Share, Slice, Times,
        Timestamp,
    };

    fn stage() -> Stage {
        let gate = |metric, role| Gate { margin: Margin::default_of(metric), role };
        Stage {
            name: "shadow".to_owned(),
            serve: Share::NONE,
            mirror: Share::ALL,
            slice: Slice::default(),
            duration_ms_min: 3_600_000,
            duration_ms_max: None,
            delay_ms: 0,
            samples_min: 1_000,
            gates: vec![
                gate(Metric::ErrorRate, Role::Prove),
                gate(Metric::LatencyP99, Role::Guard),
            ],
            approval: Approval::NotNeeded,
        }
    }

    fn plan() -> Plan {
        let name = |text: &str| text.parse::<Name>().unwrap();
        Plan {
            primary: name("gpt"),
            candidate: name("cheap"),
            slice: Slice::default(),
            watched: None,
            compared: crate::domain::Compared::default(),
            stages: vec![stage()],
            copies_per_day_max: 1_000,
            judge_share: Share::NONE,
            review: Share::ALL,
            noise: Share::NONE,
            risk: Risk::default(),
            times: Times::default(),
        }
    }

    fn view() -> View {
        let mut rollout = Rollout::new("chat".parse().unwrap(), plan());
        let entered = Event::StageEntered { attempt: 1, stage: 0, cause: Cause::Operator };
        rollout.apply(Timestamp(0), &entered);
        let errors = errors();
        View {
            rollout,
            evidence: Evidence {
                gates: vec![errors.clone(), in_tools(errors)],
                pairs: 600,
                solos: 600,
                per_minute: 120.0,
                excluded: vec![Excluded { reason: "throttled", count: 3 }],
                ..Evidence::default()
            },
            created: Timestamp(0),
            updated: Timestamp(0),
            actor: "ana".to_owned(),
            comment: String::new(),
            message: "waits: gate `error_rate`".to_owned(),
            durable: true,
            foresight: std::sync::Arc::default(),
            judge: "judge:m@r: 1200 answers read".to_owned(),
            copies_today: 600,
            purse: std::sync::Arc::default(),
            savings: crate::domain::Savings::default(),
            now: Timestamp(600_000),
        }
    }

    fn errors() -> GateEvidence {
        GateEvidence {
            metric: Metric::ErrorRate,
            watched: String::new(),
            verdict: Verdict::Undecided,
            alarm_from_percent: 70,
            problem: String::new(),
            samples: 600,
            samples_needed: Some(300),
            primary: 0.31,
            candidate: 0.44,
            difference: 0.13,
            lower: -0.2,
            upper: 0.7,
            bound: 0.5,
            harm: 0.03,
            safe: 0.64,
            basis: None,
            tiers: Vec::new(),
            fixed: None,
            noise: Some(Noise { samples: 402, difference: 0.05, lower: -0.2, upper: 0.25 }),
        }
    }

    fn in_tools(errors: GateEvidence) -> GateEvidence {
        GateEvidence { watched: "tools".to_owned(), samples: 60, ..errors }
    }

    #[test]
    fn an_explanation_names_the_real_cause_of_what_it_would_do() {
        for (event, says) in [
            (Event::RolledBack(Cause::Breach(Metric::LatencyP99)), "gate `latency_p99` is proven"),
            (Event::RolledBack(Cause::Tripwire), "go back to the primary (TRIPWIRE)"),
            (Event::Paused(Cause::Idle), "it would be held (IDLE)"),
            (Event::ApprovalRequested, "it would ask for an approval"),
            (Event::Succeeded(Cause::GatesPassed), "it would go on"),
        ] {
            let text = explain(&view(), Some(&event));
            assert!(text.lines().next().unwrap().contains(says), "{text}");
        }
    }

    #[test]
    fn an_explanation_says_what_blocks_with_numbers_and_for_how_long() {
        let text = explain(&view(), None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "waits: gate `error_rate`");
        assert!(lines[1].starts_with("stage shadow: 10m of at least 1h, 600 of at least 1000"));
        for part in [
            "error_rate (+0.5pp) is undecided, must be proven here",
            "difference +0.130 pp, interval [-0.200, 0.700], bound 0.500 pp, 600 samples",
            "600 samples; the primary's own noise +0.050 pp in [-0.200, +0.250], 402 samples",
            "about 300 more samples, 5m at today's rate",
            "proof of safety 64%, of harm 3%, goes back from 70% of the margin on",
        ] {
            assert!(lines[2].contains(part), "{part}: {}", lines[2]);
        }
        let slice = "error_rate in slice `tools` (+0.5pp) is undecided, only guards here";
        assert!(lines[3].starts_with(slice), "{}", lines[3]);
        assert_eq!(lines[4], "latency_p99: no evidence yet");
        assert_eq!(lines[5], "judge:m@r: 1200 answers read");
        assert!(lines[6].ends_with("left out: 3 throttled"), "{}", lines[6]);
    }
}
