//! Plans as a story writes them: words about the whole, then a line for each stage.

use crate::domain::{
    Approval, Freeze, FreezeText, Gate, Margin, Mark, Metric, Name, OnIdle, Plan, Risk, Role,
    Share, Slice, Stage, Times, Watched,
};

use super::words::{Read, count, duration_ms, list, share, split};

/// Reads the lines of a plan; a problem comes with the position of its line.
pub(super) fn read(head: &str, stages: &[&str]) -> Result<Plan, (usize, String)> {
    let mut plan = whole(head).map_err(|problem| (0, problem))?;
    for (index, line) in stages.iter().enumerate() {
        let read = stage(line);
        plan.stages.push(read.map_err(|problem| (index + 1, problem))?);
    }
    Ok(plan)
}

fn whole(head: &str) -> Read<Plan> {
    let mut plan = Plan {
        primary: name("gpt")?,
        candidate: name("cheap")?,
        slice: Slice::default(),
        watched: None,
        compared: crate::domain::Compared::default(),
        stages: Vec::new(),
        copies_per_day_max: 10_000,
        judge_share: Share::ALL,
        review: Share::ALL,
        noise: Share::NONE,
        risk: Risk::default(),
        times: Times::default(),
    };
    for word in head.split_whitespace().skip(1) {
        let (key, value) = split(word);
        match key {
            "primary" => plan.primary = name(value)?,
            "candidate" => plan.candidate = name(value)?,
            "copies" => plan.copies_per_day_max = count(value)?,
            "judge" => plan.judge_share = share(value)?,
            "noise" => plan.noise = share(value)?,
            "alarm" => plan.risk.alarm_from_percent = basis_points(value)? / 100,
            "harm" => plan.risk.harm_bps = basis_points(value)?,
            "safe" => plan.risk.safe_bps = basis_points(value)?,
            "bake" => plan.times.bake_ms = Some(duration_ms(value)?),
            "freeze" => plan.times.freezes.push(freeze(value)?),
            "idle" => plan.times.idle_ms_max = duration_ms(value)?,
            "slices" => plan.watched = Some(watched(value)?),
            "idle-rollback" => plan.times.on_idle = OnIdle::Rollback,
            _ => slice(&mut plan.slice, key, value)?,
        }
    }
    Ok(plan)
}

fn stage(line: &str) -> Read<Stage> {
    let mut words = line.split_whitespace();
    let mut stage = Stage {
        name: words.next().unwrap_or("").to_owned(),
        serve: Share::NONE,
        mirror: Share::ALL,
        slice: Slice::default(),
        duration_ms_min: 0,
        duration_ms_max: None,
        delay_ms: 0,
        samples_min: 100,
        gates: Vec::new(),
        approval: Approval::NotNeeded,
    };
    let mut gates = vec![Gate { margin: Margin::default_of(Metric::ErrorRate), role: Role::Prove }];
    for word in words {
        let (key, value) = split(word);
        match key {
            "serve" => stage.serve = share(value)?,
            "mirror" => stage.mirror = share(value)?,
            "least" => stage.duration_ms_min = duration_ms(value)?,
            "most" => stage.duration_ms_max = Some(duration_ms(value)?),
            "delay" => stage.delay_ms = duration_ms(value)?,
            "pairs" => stage.samples_min = count(value)?,
            "approval" => stage.approval = Approval::Needed,
            "ungated" => gates.clear(),
            _ => match Metric::from_name(key) {
                Some(metric) => stage.gates.push(gate(metric, value)?),
                None => slice(&mut stage.slice, key, value)?,
            },
        }
    }
    if stage.gates.is_empty() {
        stage.gates = gates;
    }
    Ok(stage)
}

/// `+0.5pp`, or `+0.5pp:guard` where it need not be proven.
fn gate(metric: Metric, text: &str) -> Read<Gate> {
    let (margin, role) = match text.strip_suffix(":guard") {
        Some(margin) => (margin, Role::Guard),
        None => (text, Role::Prove),
    };
    let margin = if margin.is_empty() {
        Margin::default_of(metric)
    } else {
        Margin::parse(metric, margin).map_err(|error| error.to_string())?
    };
    Ok(Gate { margin, role })
}

/// `fri,sat@18:00-08:00@Europe/Berlin`.
fn freeze(text: &str) -> Read<Freeze> {
    let parts: Vec<&str> = text.split('@').collect();
    let [days, hours, zone] = parts.as_slice() else {
        return Err(format!("`{text}` is not like `fri,sat@18:00-08:00@Europe/Berlin`"));
    };
    let (from, to) = hours.split_once('-').unwrap_or((hours, ""));
    let [from, to, zone] = [from, to, zone].map(str::to_owned);
    Freeze::read(&FreezeText { days: list(days), from, to, zone }).map_err(|it| it.to_string())
}

/// `feature:search,tools`.
fn watched(text: &str) -> Read<Watched> {
    let (by, values) = text.split_once(':').unwrap_or((text, ""));
    let by = Mark::from_name(by);
    let by = by.ok_or_else(|| format!("`{text}` is not like `feature:search,tools`"))?;
    Ok(Watched { by, values: list(values) })
}

fn slice(slice: &mut Slice, key: &str, value: &str) -> Read<()> {
    let marks = match key {
        "features" => &mut slice.features,
        "segments" => &mut slice.segments,
        "tasks" => &mut slice.tasks,
        "models" => &mut slice.models,
        _ => return Err(format!("`{key}` is no word of a plan or a stage")),
    };
    *marks = list(value);
    Ok(())
}

fn name(text: &str) -> Read<Name> {
    text.parse().map_err(|error| format!("{error}"))
}

fn basis_points(text: &str) -> Read<u32> {
    Ok(u32::from(share(text)?.basis_points()))
}
