//! A rollout as text: where it stands, its ladder, its gates.

use comfy_table::{CellAlignment, ColumnConstraint, Table, presets};

use super::{forecast, out::harmless};
use crate::api::{millis, proto, timestamp};
use crate::domain::show_usd;
use proto::{gate_evidence::Verdict, rollout::State};

/// Characters of a drawn interval.
const BAR_LEN: u32 = 24;

/// An empty table in our style: columns and nothing else.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

/// A table's lines, moved in by two and without trailing spaces.
pub(super) fn lines(table: &Table) -> String {
    let lines = table.lines().map(|line| format!("  {}", line.trim_end()));
    lines.collect::<Vec<_>>().join("\n")
}

/// The last part of `rollouts/chat` or `providers/gpt`.
pub(super) fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A state as people read it.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Unspecified => "unknown",
        State::Pending => "· PENDING",
        State::Running => "● RUNNING",
        State::Paused => "‼ PAUSED",
        State::AwaitingApproval => "‼ AWAITING APPROVAL",
        State::Succeeded => "✔ SUCCEEDED",
        State::Baked => "✔ BAKED",
        State::RolledBack => "✖ ROLLED BACK",
    }
}

/// Where a rollout ended for good, or not yet.
pub(super) fn ended(rollout: &proto::Rollout) -> bool {
    matches!(rollout.state(), State::Succeeded | State::Baked | State::RolledBack)
}

/// The stage a rollout is in, or ended in.
pub(super) fn current(rollout: &proto::Rollout) -> Option<&proto::Stage> {
    rollout.stages.get(usize::try_from(rollout.stage_index).ok()?)
}

/// Basis points as percent: `5%`, `0.5%`.
pub(super) fn percent(basis_points: i32) -> String {
    let text = format!("{}.{:02}", basis_points / 100, basis_points % 100);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `2h 4m`: the two largest units of a span of time.
pub(super) fn span(ms: u64) -> String {
    let seconds = std::time::Duration::from_secs(ms / 1_000);
    let text = humantime::format_duration(seconds).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A count with its thousands apart: `18,220`.
pub(super) fn count(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if 0 < index && (digits.len() - index).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time as `2026-01-31T14:03:12Z`.
pub(super) fn moment(time: Option<proto::Timestamp>) -> String {
    let since = time.map_or(0, |it| timestamp(it).0 / 1_000);
    let at = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(since));
    at.map_or_else(String::new, |it| humantime::format_rfc3339_seconds(it).to_string())
}

/// The full picture of a rollout.
pub(super) fn picture(rollout: &proto::Rollout) -> String {
    let head = format!(
        "{}   {}  →  {}   {}   attempt {}   revision {}",
        short(&rollout.name),
        short(&rollout.primary),
        short(&rollout.candidate),
        state(rollout.state()),
        rollout.attempt,
        rollout.revision,
    );
    let facts = facts(rollout).into_iter();
    let facts = facts.map(|(key, value)| format!("{key:<10}  {}", harmless(&value)));
    let mut parts = vec![std::iter::once(head).chain(facts).collect::<Vec<_>>().join("\n")];
    parts.push(lines(&ladder(rollout)));
    if !rollout.evidence.is_empty() {
        parts.push(lines(&gates(rollout)));
    }
    parts.push(footer(rollout));
    parts.join("\n\n")
}

fn facts(rollout: &proto::Rollout) -> Vec<(&'static str, String)> {
    let most = count(rollout.copies_per_day.unwrap_or_default());
    let copies = format!("{} of {most} today", count(rollout.copies_today));
    let mut facts = vec![("slice", slice(rollout.slice.as_ref())), ("copies", copies)];
    if let Some(spent) = rollout.spending.as_ref().and_then(spent) {
        facts.push(("spent", spent));
    }
    if let Some(slices) = &rollout.slices {
        facts.push(("watches", format!("{}={}", slices.by, slices.values.join(","))));
    }
    if !rollout.evidence_problem.is_empty() {
        facts.push(("evidence", format!("‼ cannot be trusted: {}", rollout.evidence_problem)));
    }
    if let Some(slow) = forecast::too_slow(rollout) {
        facts.push(("plan", format!("‼ {slow}")));
    }
    if !rollout.durable {
        facts.push(("disk", "‼ the last step is not on disk yet".to_owned()));
    }
    if !rollout.status_message.is_empty() {
        facts.push(("now", rollout.status_message.clone()));
    }
    facts
}

/// What copies and scores cost; none where nothing was spent and nothing limits it.
fn spent(spending: &proto::Spending) -> Option<String> {
    let usd = |nano: i64| show_usd(u64::try_from(nano).unwrap_or(0));
    let of = |max: Option<i64>| max.map_or_else(String::new, |max| format!(" of {}", usd(max)));
    let limits = (spending.per_day_nano_usd_max, spending.total_nano_usd_max);
    if spending.total_nano_usd == 0 && limits == (None, None) {
        return None;
    }
    let (today, total) = (usd(spending.today_nano_usd), usd(spending.total_nano_usd));
    Some(format!("{today}{} today, {total}{} in all", of(limits.0), of(limits.1)))
}

fn slice(slice: Option<&proto::TrafficSlice>) -> String {
    let Some(slice) = slice else { return "all requests".to_owned() };
    let lists = [
        ("feature", &slice.features),
        ("segment", &slice.segments),
        ("model", &slice.models),
        ("task", &slice.tasks),
    ];
    let named = lists.iter().filter(|(_, list)| !list.is_empty());
    let parts: Vec<String> = named.map(|(key, list)| format!("{key}={}", list.join(","))).collect();
    if parts.is_empty() { "all requests".to_owned() } else { parts.join("  ") }
}

fn ladder(rollout: &proto::Rollout) -> Table {
    let mut table = table(&["", "STAGE", "MODE", "SERVES", "PAIRS FROM", "TIME", "SAMPLES", ""]);
    for (index, stage) in rollout.stages.iter().enumerate() {
        let here = usize::try_from(rollout.stage_index).is_ok_and(|it| it == index);
        let before = usize::try_from(rollout.stage_index).is_ok_and(|it| index < it);
        let moving = here && rollout.stage_elapsed.is_some();
        let mark = match rollout.state() {
            State::RolledBack if here => "✖",
            State::Succeeded | State::Baked => "✔",
            State::Unspecified
            | State::Pending
            | State::Running
            | State::Paused
            | State::AwaitingApproval
            | State::RolledBack => match (before, moving) {
                (true, _) => "✔",
                (false, true) => "▶",
                (false, false) => "·",
            },
        };
        let least = span(stage.min_duration.map_or(0, millis));
        let (time, samples) = match rollout.stage_elapsed {
            Some(elapsed) if moving && rollout.state() != State::Succeeded => (
                format!("{} of {least}", span(millis(elapsed))),
                format!("{} of {}", count(rollout.pairs), count(stage.min_samples)),
            ),
            Some(_) | None => (least, count(stage.min_samples)),
        };
        table.add_row([
            mark.to_owned(),
            stage.stage_id.clone(),
            if stage.serve_bps == 0 { "shadow" } else { "live" }.to_owned(),
            percent(stage.serve_bps),
            percent(stage.mirror_bps),
            time,
            samples,
            if stage.approval_required { "needs approval" } else { "" }.to_owned(),
        ]);
    }
    right(&mut table, &[3, 4, 6]);
    table
}

/// Aligns columns of numbers.
pub(super) fn right(table: &mut Table, columns: &[usize]) {
    for &index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn gates(rollout: &proto::Rollout) -> Table {
    let measured = rollout.evidence.iter().any(|it| it.noise.is_some());
    let header = [
        "GATE",
        "PRIMARY",
        "CANDIDATE",
        "DIFFERENCE",
        "",
        "INTERVAL (any time)",
        if measured { "NOISE (primary twice)" } else { "" },
        "BOUND",
        "SAMPLES",
        "VERDICT",
    ];
    let mut table = table(&header);
    for gate in &with_claims(&rollout.evidence) {
        table.add_row([
            harmless(&self::gate(&gate.metric, &gate.slice)),
            value(gate, gate.primary_value),
            value(gate, gate.candidate_value),
            difference(gate, gate.difference),
            bar(gate),
            format!("[{}, {}]", difference(gate, gate.lower), difference(gate, gate.upper)),
            noise(gate),
            difference(gate, gate.bound),
            count(gate.samples),
            verdict(rollout, gate),
        ]);
    }
    right(&mut table, &[1, 2, 3, 7, 8]);
    if let Some(column) = table.column_mut(6).filter(|_| !measured) {
        column.set_constraint(ColumnConstraint::Hidden);
    }
    table
}

/// Gates, each with the claims of its tiers behind it.
pub(super) fn with_claims(gates: &[proto::GateEvidence]) -> Vec<proto::GateEvidence> {
    let claims = |gate: &proto::GateEvidence| {
        let (gate, tiers) = (gate.clone(), gate.tiers.clone());
        let tiers = tiers.into_iter().enumerate();
        tiers.flat_map(move |(place, tier)| {
            let claims = [("quality", tier.quality), ("cost", tier.cost)];
            let claims = claims.map(|(what, found)| Some(claim(&gate, place, what, found?)));
            claims.into_iter().flatten()
        })
    };
    gates.iter().flat_map(|it| std::iter::once(it.clone()).chain(claims(it))).collect()
}

/// A claim of a tier, as a gate of its own would show it.
fn claim(
    gate: &proto::GateEvidence,
    place: usize,
    what: &str,
    found: proto::Found,
) -> proto::GateEvidence {
    proto::GateEvidence {
        metric: format!("{} {}: {what}", gate.metric, place + 1),
        slice: gate.slice.clone(),
        verdict: found.verdict,
        problem: gate.problem.clone(),
        samples: gate.samples,
        primary_value: f64::NAN,
        candidate_value: f64::NAN,
        difference: found.value,
        lower: found.lower,
        upper: found.upper,
        bound: found.bound,
        unit: gate.unit.clone(),
        ..proto::GateEvidence::default()
    }
}

/// What the primary shows against itself: `[-0.20pp, +0.20pp] of 402`.
fn noise(gate: &proto::GateEvidence) -> String {
    gate.noise.map_or_else(String::new, |it| {
        let [lower, upper] = [it.lower, it.upper].map(|it| difference(gate, it));
        format!("[{lower}, {upper}] of {}", count(it.samples))
    })
}

/// A gate's name, with the watched slice where it is about one.
pub(super) fn gate(metric: &str, slice: &str) -> String {
    if slice.is_empty() { metric.to_owned() } else { format!("{metric} in {slice}") }
}

pub(super) fn verdict(rollout: &proto::Rollout, gate: &proto::GateEvidence) -> String {
    let gates = current(rollout).map_or(&[][..], |it| it.gates.as_slice());
    let guards = gates.iter().any(|it| {
        let guards = !gate.slice.is_empty() || it.role() == proto::gate::Role::Guard;
        it.metric == gate.metric && guards
    });
    let guards = if guards { " (guard)" } else { "" };
    match (gate.verdict(), gate.samples_needed) {
        (Verdict::Pass, _) => format!("✔ pass{guards}"),
        (Verdict::Breach, _) => format!("✖ breach{guards}"),
        (Verdict::Invalid, _) => format!("‼ invalid: {}", gate.problem),
        (Verdict::Undecided, Some(more)) if 0 < more => {
            format!("… undecided{guards}, ~{} more", count(more))
        }
        (Verdict::Undecided | Verdict::Unspecified, _) => format!("… undecided{guards}"),
    }
}

/// A side's own value.
pub(super) fn value(gate: &proto::GateEvidence, value: f64) -> String {
    match gate.unit.as_str() {
        _ if !value.is_finite() || gate.samples == 0 => "–".to_owned(),
        "pp" => format!("{value:.2}%"),
        "ms" if 1_000.0 <= value => format!("{:.2} s", value / 1_000.0),
        "ms" => format!("{value:.0} ms"),
        "%" if gate.metric == "cost" => format!("${value:.6}"),
        "%" => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// A difference of the sides, with its sign.
pub(super) fn difference(gate: &proto::GateEvidence, value: f64) -> String {
    match gate.unit.as_str() {
        _ if !value.is_finite() => "–".to_owned(),
        "pp" => format!("{value:+.2}pp"),
        "ms" => format!("{value:+.0}ms"),
        // The candidate's part of the primary's amount, and no difference.
        "%" => format!("{value:.1}%"),
        _ => format!("{value:+.3}"),
    }
}

/// The interval, the difference and the bound on a line to scale: `────[━●━━]──┊──`.
fn bar(gate: &proto::GateEvidence) -> String {
    let (lower, upper, bound) = (gate.lower, gate.upper, gate.bound);
    if ![lower, upper, bound, gate.difference].iter().all(|it| it.is_finite()) {
        return "─".repeat(usize::try_from(BAR_LEN).unwrap_or(0));
    }
    let low = lower.min(bound).min(0.0);
    let width = (upper.max(bound).max(0.0) - low).max(f64::MIN_POSITIVE);
    let last = f64::from(BAR_LEN - 1);
    let at = |value: f64| ((value - low) / width * last).round();
    let mark = |cell: u32| {
        let cell = f64::from(cell);
        let is = |value: f64| (at(value) - cell).abs() < 0.5;
        if is(gate.difference) {
            '●'
        } else if is(lower) {
            '['
        } else if is(upper) {
            ']'
        } else if is(bound) {
            '┊'
        } else if at(lower) < cell && cell < at(upper) {
            '━'
        } else {
            '─'
        }
    };
    (0..BAR_LEN).map(mark).collect()
}

fn footer(rollout: &proto::Rollout) -> String {
    let name = short(&rollout.name);
    let mut lines = Vec::new();
    if let Some(reason) = &rollout.reason {
        let by = if reason.metric.is_empty() { "" } else { " by " };
        let said = if reason.comment.is_empty() { "" } else { ": " };
        lines.push(format!(
            "last  {}  {}{by}{}  ({}{said}{})",
            moment(rollout.update_time),
            reason.code,
            gate(&reason.metric, &reason.slice),
            reason.actor,
            reason.comment
        ));
    }
    if let Some(obstacle) = &rollout.obstacle {
        lines.push(format!("wait  {}", obstacle.message));
    }
    lines.push(match rollout.state() {
        State::Pending => format!("next  crossfade start {name}"),
        State::Paused => format!("next  crossfade resume {name}"),
        State::AwaitingApproval if rollout.obstacle.is_none() => {
            let stage = current(rollout).map_or("STAGE", |it| it.stage_id.as_str());
            format!("next  crossfade approve {name} {stage} --attempt {}", rollout.attempt)
        }
        State::RolledBack => format!("next  crossfade pairs {name}"),
        State::AwaitingApproval
        | State::Running
        | State::Succeeded
        | State::Baked
        | State::Unspecified => {
            format!("undo  crossfade rollback {name}   (at once, no questions asked)")
        }
    });
    lines.iter().map(|line| harmless(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> proto::GateEvidence {
        proto::GateEvidence {
            metric: "error_rate".to_owned(),
            verdict: Verdict::Undecided.into(),
            samples: 6_118,
            samples_needed: Some(900),
            primary_value: 0.31,
            candidate_value: 0.44,
            difference: 0.13,
            lower: -0.05,
            upper: 0.33,
            bound: 0.5,
            unit: "pp".to_owned(),
            ..proto::GateEvidence::default()
        }
    }

    #[test]
    fn the_picture_shows_ladder_gates_and_what_it_waits_for() {
        let stage = |id: &str, serve_bps| proto::Stage {
            stage_id: id.to_owned(),
            serve_bps,
            mirror_bps: 100,
            min_duration: Some(proto::Duration { seconds: 3_600, nanos: 0 }),
            min_samples: 1_000,
            ..proto::Stage::default()
        };
        let obstacle = proto::Obstacle { message: "900 more".to_owned(), ..Default::default() };
        let noise = proto::Noise { samples: 402, difference: 0.01, lower: -0.2, upper: 0.25 };
        let gate = || proto::GateEvidence { noise: Some(noise), ..gate() };
        let tools = proto::GateEvidence { slice: "tools".to_owned(), ..gate() };
        let (by, values) = ("task".to_owned(), vec!["tools".to_owned(), "text".to_owned()]);
        let watched = proto::WatchedSlices { by, values };
        let [code, metric, slice] = ["GATE_BREACHED", "error_rate", "tools"].map(str::to_owned);
        let reason = proto::Reason { code, metric, slice, ..proto::Reason::default() };
        let text = picture(&proto::Rollout {
            name: "rollouts/chat".to_owned(),
            primary: "providers/gpt".to_owned(),
            candidate: "providers/cheap".to_owned(),
            stages: vec![stage("shadow", 0), stage("half", 5_000)],
            state: State::Running.into(),
            stage_index: 1,
            stage_elapsed: Some(proto::Duration { seconds: 2_220, nanos: 0 }),
            evidence: vec![gate(), tools],
            slices: Some(watched),
            reason: Some(reason),
            obstacle: Some(obstacle),
            pairs: 6_118,
            ..proto::Rollout::default()
        });
        for part in [
            "chat   gpt  →  cheap   ● RUNNING",
            "✔  shadow  shadow",
            "▶  half    live",
            "37m of 1h",
            "6,118 of 1,000",
            "+0.13pp",
            "[-0.05pp, +0.33pp]   [-0.20pp, +0.25pp] of 402  ",
            "… undecided, ~900 more",
            "wait  900 more",
            "watches     task=tools,text",
            "error_rate in tools",
            "GATE_BREACHED by error_rate in tools",
            "crossfade rollback chat",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_bar_shows_interval_difference_and_bound() {
        let text = bar(&gate());
        assert_eq!(text.chars().count(), 24);
        let order: String = text.chars().filter(|it| !"─━".contains(*it)).collect();
        assert_eq!(order, "[●]┊");
        let unknown = proto::GateEvidence { upper: f64::INFINITY, ..gate() };
        assert!(bar(&unknown).chars().all(|it| it == '─'));
    }

    #[test]
    fn numbers_read_easily() {
        assert_eq!([0, 50, 100, 10_000].map(percent), ["0%", "0.5%", "1%", "100%"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(span(7_440_999), "2h 4m");
    }
}
