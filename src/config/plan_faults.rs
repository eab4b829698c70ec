//! What cannot stand in a plan that was read, shown where the file has it.

use super::{rollout::Around, table::Table};
use crate::domain::{Budget, Metric, Plan, PlanFault};

/// Shows a fault of the plan where the file has what it is about.
pub(super) fn report(fault: &PlanFault, table: &Table<'_>, stages: &[Table<'_>]) {
    let (place, field) = match fault.field.strip_prefix("stages[") {
        Some(rest) => rest.split_once("].").unwrap_or(("", rest)),
        None => ("", fault.field.as_str()),
    };
    let key = match field {
        "serve_bps" => "serve",
        "mirror_bps" => "mirror",
        "min_samples" => "samples",
        "max_duration" => "duration_max",
        "freezes" => "freeze",
        "stage_id" => "name",
        "stages" => "stage",
        other => other,
    };
    let table = place.parse().ok().and_then(|it: usize| stages.get(it)).unwrap_or(table);
    table.fault(key, "cannot stand", fault.problem.as_str());
}

/// A budget can be kept only where it is known what copies and scores cost.
pub(super) fn check_budget(plan: &Plan, own: Budget, (table, around): (&Table<'_>, &Around<'_>)) {
    if !own.is_limit() && !around.budget.is_limit() {
        return;
    }
    let key = if own.is_limit() { "budget" } else { "candidate" };
    let fault = |who: &str, table_name: &str| {
        let problem = format!("has a budget that cannot be kept: {who} has no price");
        let remedy = format!("add a table [{table_name}.price.\"*\"], or name a table by `prices`");
        table.fault(key, &problem, remedy);
    };
    for name in [&plan.primary, &plan.candidate] {
        let known = around.providers.unwrap_or_default().iter().find(|it| it.name == *name);
        if known.is_some_and(|it| it.prices.is_empty()) {
            fault(&format!("provider `{name}`"), &format!("provider.{name}"));
        }
    }
    if around.judge_unpriced && !plan.judge_share.is_none() {
        fault("the judge", "judge");
    }
}

/// Costs can be compared only where both providers have prices.
pub(super) fn check_prices(plan: &Plan, table: &Table<'_>, around: &Around<'_>) {
    let Some(metric) = plan.gated(Metric::is_priced).map(Metric::as_str) else { return };
    for name in [&plan.primary, &plan.candidate] {
        let known = around.providers.unwrap_or_default().iter().find(|it| it.name == *name);
        if known.is_some_and(|it| it.prices.is_empty()) {
            let problem = format!("have one on `{metric}`, but provider `{name}` has no price");
            let remedy = format!("add a table [provider.{name}.price.\"*\"], or leave it \"off\"");
            table.fault("gates", &problem, remedy);
        }
    }
}

/// A judge favours its own kin, so its scores of them prove nothing unless somebody says they do.
pub(super) fn check_kin(plan: &Plan, table: &Table<'_>, around: &Around<'_>) {
    let Some(metric) = plan.gated(Metric::is_judged).map(Metric::as_str) else { return };
    let kin = [&plan.primary, &plan.candidate].into_iter().filter_map(|it| around.kin.get(it));
    for why in kin {
        let problem = format!("have one on `{metric}`, but {why}");
        let remedy = "take another model to judge, or write `allow_kin = true` in [judge]";
        table.fault("gates", &problem, remedy);
    }
}

/// What a judge thinks proves nothing where nothing else does.
pub(super) fn check_ground(plan: &Plan, table: &Table<'_>, around: &Around<'_>) {
    let stage = plan.ungrounded().filter(|_| around.providers.is_some());
    if let Some(stage) = stage {
        let problem =
            format!("let the judge alone prove what answers are worth in `{}`", stage.name);
        let remedy = "a judge can be wrong or deceived: have a check by rules or what people say \
                      proven in the same stage, like repeated_rate = \"+0.5pp\" (and in `prove`, \
                      where the stage has one)";
        table.fault("gates", &problem, remedy);
    }
}
