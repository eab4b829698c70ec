//! What a plan is expected to take.

use super::{
    Exit, Problem,
    commands::Output,
    ladder::{count, lines, right, span, table},
    moves,
    out::Out,
};
use crate::api::{millis, proto};

/// Says what changed, and what the plan is expected to take.
pub(super) fn tell(out: &mut Out, rollout: &proto::Rollout) -> Result<Exit, Problem> {
    let done = moves::tell(out, rollout)?;
    if out.output() == Output::Table && !rollout.forecasts.is_empty() {
        out.note(&picture(rollout))?;
    }
    Ok(done)
}

/// Samples and time for each gate.
fn picture(rollout: &proto::Rollout) -> String {
    let mut table = table(&["STAGE", "GATE", "SAMPLES", "TIME AT LEAST", ""]);
    for it in &rollout.forecasts {
        table.add_row([
            it.stage_id.clone(),
            it.metric.clone(),
            it.samples.map_or_else(|| "not known yet".to_owned(), |it| format!("~{}", count(it))),
            it.time.map_or_else(|| "not known yet".to_owned(), |it| span(millis(it))),
            if it.too_slow { "‼ longer than its max_duration" } else { "" }.to_owned(),
        ]);
    }
    right(&mut table, &[2, 3]);
    let head = match rollout.requests_per_minute {
        Some(rate) => format!("expected if both sides are alike, at {rate:.1} requests a minute:"),
        None => "expected if both sides are alike; too little traffic was seen to say how long:"
            .to_owned(),
    };
    format!("{head}\n{}", lines(&table))
}

/// The first gate that cannot be expected to be proven in time, as a sentence.
pub(super) fn too_slow(rollout: &proto::Rollout) -> Option<String> {
    let slow = rollout.forecasts.iter().find(|it| it.too_slow)?;
    let (stage, metric) = (&slow.stage_id, &slow.metric);
    let time = span(slow.time.map_or(0, millis));
    Some(format!(
        "`{metric}` of `{stage}` takes about {time} at the traffic seen, longer than its max_duration"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_said_and_what_is_too_slow_too() {
        let forecast = |samples, seconds: Option<i64>, too_slow| proto::Forecast {
            stage_id: "half".to_owned(),
            metric: "error_rate".to_owned(),
            samples,
            time: seconds.map(|seconds| proto::Duration { seconds, nanos: 0 }),
            too_slow,
        };
        let mut rollout = proto::Rollout {
            forecasts: vec![forecast(None, None, false)],
            ..proto::Rollout::default()
        };
        let unknown = picture(&rollout);
        assert!(unknown.contains("too little traffic was seen"), "{unknown}");
        assert_eq!(unknown.matches("not known yet").count(), 2, "{unknown}");
        assert_eq!(too_slow(&rollout), None);
        rollout.forecasts.push(forecast(Some(1_383), Some(7_260), true));
        rollout.requests_per_minute = Some(12.0);
        let known = picture(&rollout);
        assert!(known.contains("~1,383") && known.contains("2h 1m"), "{known}");
        let slow = too_slow(&rollout).unwrap();
        assert!(slow.contains("`error_rate` of `half` takes about 2h 1m"), "{slow}");
    }
}
