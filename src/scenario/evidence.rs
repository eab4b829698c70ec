//! Evidence that a story says outright, without traffic.

use crate::domain::{Evidence, GateEvidence, Metric, Rollout, Verdict};

use super::words::{Read, count, split};

/// Reads `error_rate=pass/500 all=pass pairs=500 problem=coverage error_rate@search=breach`.
///
/// A gate that is not named has no evidence; `all` is every gate of the stage, and what stands
/// after `@` a watched slice.
pub(super) fn read<'a>(rollout: &Rollout, words: impl Iterator<Item = &'a str>) -> Read<Evidence> {
    let mut evidence = Evidence::default();
    for word in words {
        let (key, value) = split(word);
        match key {
            "pairs" => evidence.pairs = count(value)?,
            "problem" => evidence.problem = Some(value.replace('_', " ")),
            "unsettled" => evidence.unsettled = Some(value.replace('_', " ")),
            "outage" => evidence.outage = Some(value.replace('_', " ")),
            "all" => {
                let stage = rollout.plan().stages.get(rollout.stage_index());
                for gate in stage.map_or(&[][..], |it| &it.gates) {
                    evidence.gates.push(verdict(gate.metric(), value)?);
                }
            }
            name => {
                let (name, slice) = name.split_once('@').unwrap_or((name, ""));
                let metric = Metric::from_name(name).ok_or_else(|| {
                    format!("`{name}` is no metric, nor pairs, problem, outage or all")
                })?;
                let known = verdict(metric, value)?;
                evidence.gates.push(GateEvidence { watched: slice.to_owned(), ..known });
            }
        }
    }
    Ok(evidence)
}

fn verdict(metric: Metric, text: &str) -> Read<GateEvidence> {
    let (name, samples) = text.split_once('/').unwrap_or((text, "0"));
    let verdict = Verdict::from_name(name)
        .ok_or_else(|| format!("`{name}` is not pass, undecided, invalid or breach"))?;
    let problem = match verdict {
        Verdict::Invalid => "what came back is no number".to_owned(),
        Verdict::Pass | Verdict::Undecided | Verdict::Breach => String::new(),
    };
    Ok(GateEvidence {
        metric,
        watched: String::new(),
        verdict,
        alarm_from_percent: 70,
        problem,
        samples: count(samples)?,
        samples_needed: None,
        primary: 0.0,
        candidate: 0.0,
        difference: 0.0,
        lower: 0.0,
        upper: 0.0,
        bound: 0.0,
        harm: 0.0,
        safe: 0.0,
        noise: None,
        basis: None,
        tiers: Vec::new(),
        fixed: None,
    })
}
