//! Rollouts: from tables to plans that can be run.

use std::collections::BTreeMap;

use crate::domain::{
    Approval, Budget, Compared, Freeze, FreezeText, Gate, Golden, Kind, Margin, Mark, Metric, Name,
    OnIdle, Plan, Risk, Role, Share, Slice, Stage, Times, Watched, default_ladder,
};

use super::{
    Faults, Provider,
    faults::Report,
    form::{CHANCE, NAME, PERCENT, SHARE, SOME, Unit},
    golden,
    plan_faults::{check_budget, check_ground, check_kin, check_prices, report},
    prices,
    table::{Table, listed, nearest},
};

/// A rollout as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutConfig {
    /// Its name, unique among rollouts.
    pub name: Name,
    /// What it does; free of faults.
    pub plan: Plan,
    /// Whether it starts by itself.
    pub autostart: Autostart,
    /// What it may spend on copies and scores.
    pub budget: Budget,
    /// What has to be known before its first stage begins.
    pub golden: Option<Golden>,
}

/// Whether a rollout starts by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Autostart {
    /// A person or a pipeline starts it.
    #[default]
    No,
    /// `serve` starts it once, when it has never been started. After a rollback only a
    /// person or a pipeline starts it again.
    Yes,
}

/// What the rest of the file says that a rollout needs.
pub(super) struct Around<'a> {
    pub(super) primary: Option<&'a Name>,
    /// Whoever can be named; none where there is nobody to ask and any name will do.
    pub(super) providers: Option<&'a [Provider]>,
    /// The share of pairs that is judged unless the rollout says; none without a judge.
    pub(super) judge: Option<Share>,
    /// What all rollouts together may spend.
    pub(super) budget: Budget,
    /// Whether there is a judge of whom no price is known.
    pub(super) judge_unpriced: bool,
    /// The providers that are the judge's kin, and why.
    pub(super) kin: BTreeMap<Name, String>,
    /// What gates beside the judge unless the rollout says otherwise.
    pub(super) ground: &'a [Metric],
}

/// A rollout's table and name.
pub(super) type Named<'a> = (Name, Table<'a>);

/// Most copies a day where nobody says otherwise.
pub const COPIES_PER_DAY_DEFAULT: u64 = 50_000;
const SAMPLES_MIN: u64 = 1_000;
const DAY_MS: u64 = 86_400_000;
/// The 99th percentile has to be proven from this share on: below, its proof takes too long.
const LATENCY_PROVEN_FROM_BPS: u16 = 2_000;

/// Reads the plan of the one rollout of a text, to be tried out without a program around it.
///
/// The providers may have any name, the primary may be left out, and a judge is taken to see
/// every pair unless the rollout says otherwise. Other tables are not looked at, so a whole
/// configuration of one rollout will do.
///
/// # Errors
/// Every fault of the rollout; also when the text has none, or several.
pub fn plan(text: &str, file: &str) -> Result<RolloutConfig, Faults> {
    let report = Report::new(text, file);
    let Some(document) = report.document() else { return report.finish(None) };
    let top = Table::top(&report, document.get_ref());
    let tables = named(&top);
    if 1 < tables.len() || !top.has("rollout") {
        let problem = format!("there are {} rollouts", tables.len());
        report.add(None, problem, "write exactly one table [rollout.NAME]");
    }
    let named = tables.first().filter(|(_, table)| table.has("primary"));
    let primary = named.and_then(|(_, table)| table.text("primary", &NAME));
    let primary = primary.or_else(|| "primary".parse().ok());
    let around = Around {
        primary: primary.as_ref(),
        providers: None,
        judge: Some(Share::ALL),
        budget: Budget::default(),
        judge_unpriced: false,
        kin: BTreeMap::new(),
        // A plan by itself, as `simulate --stream` takes it, has the gates that it names.
        ground: if top.has("judge") { &Metric::GROUND_DEFAULTS } else { &[] },
    };
    let rollout = read(&tables, &around).into_iter().next();
    report.finish(rollout)
}

/// The tables of all rollouts, in the order of the file.
pub(super) fn named<'a>(top: &Table<'a>) -> Vec<Named<'a>> {
    let mut tables = Vec::new();
    for ((name, spot), table) in top.named("rollout") {
        match name.parse() {
            Ok(name) => tables.push((name, table)),
            Err(_) => top.fault_at(Some(&spot), name, "is not a name", NAME.remedy),
        }
    }
    tables
}

/// Every rollout that could be read.
pub(super) fn read(tables: &[Named<'_>], around: &Around<'_>) -> Vec<RolloutConfig> {
    let mut rollouts: Vec<(RolloutConfig, &Table<'_>)> = Vec::new();
    for (name, table) in tables {
        let Some(rollout) = rollout(name, table, around) else { continue };
        for (other, place) in &rollouts {
            if other.plan.slice.overlaps(&rollout.plan.slice) {
                let (first, line) = (&other.name, place.line());
                let problem = format!("overlaps: a request could belong to `{first}` and `{name}`");
                let remedy = format!(
                    "keep it apart from `{first}` in line {line} by features, segments, tasks or \
                     models"
                );
                table.fault("slice", &problem, remedy);
            }
        }
        rollouts.push((rollout, table));
    }
    rollouts.into_iter().map(|(rollout, _)| rollout).collect()
}

fn rollout(name: &Name, table: &Table<'_>, around: &Around<'_>) -> Option<RolloutConfig> {
    check_primary(table, around);
    let candidate = candidate(table, around);
    let (slice, watched, compared) = (slice(table), watched(table), compared(table));
    let judge_share = judge_share(table, around);
    let defaults = defaults(around);
    let mut margins = margins(table, &defaults, around.judge);
    leave_beside(&mut margins, table, around);
    let mirror = table.text("mirror", &SHARE).unwrap_or_else(mirror_default);
    let ladder = Ladder { table, margins: &margins, mirror, judge: around.judge };
    let (stages, tables) = ladder.read();
    let copies = table.amount("copies_per_day", Unit::Count, 1..=1_000_000_000);
    let review = table.text("review", &SHARE).unwrap_or_else(review_default);
    let noise = table.text("noise", &SHARE).unwrap_or_default();
    let risk = risk(table);
    let times = times(table);
    let autostart = table.choice("autostart", Autostart::Yes, Autostart::No).unwrap_or_default();
    let (budget, golden) = (prices::budget(table), golden::golden(table));
    table.close();
    let plan = Plan {
        primary: around.primary?.clone(),
        candidate: candidate?,
        slice,
        watched,
        compared,
        stages,
        copies_per_day_max: copies.unwrap_or(COPIES_PER_DAY_DEFAULT),
        judge_share,
        review,
        noise,
        risk,
        times,
    };
    for fault in plan.faults() {
        report(&fault, table, &tables);
    }
    check_prices(&plan, table, around);
    check_budget(&plan, budget, (table, around));
    check_kin(&plan, table, around);
    check_ground(&plan, table, around);
    Some(RolloutConfig { name: name.clone(), plan, autostart, budget, golden })
}

/// A rollout may repeat the primary, not choose another.
fn check_primary(table: &Table<'_>, around: &Around<'_>) {
    let named = table.text("primary", &NAME);
    if let (Some(named), Some(primary)) = (named, around.primary)
        && named != *primary
    {
        let remedy = format!("all rollouts share one primary, `{primary}`: leave the key out");
        table.fault("primary", "is another than the file's", remedy);
    }
}

fn candidate(table: &Table<'_>, around: &Around<'_>) -> Option<Name> {
    table.need("candidate", "name the provider under test");
    let name = table.text("candidate", &NAME)?;
    if let Some(known) = around.providers {
        check_provider(table, "candidate", &name, known);
    }
    Some(name)
}

/// Adds a fault when the key names no provider of the file.
pub(super) fn check_provider(table: &Table<'_>, key: &str, name: &Name, known: &[Provider]) {
    if known.iter().any(|it| it.name == *name) {
        return;
    }
    let names = || known.iter().map(|it| it.name.as_str());
    let remedy = match nearest(name.as_str(), names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("add a table [provider.{name}]"),
        None => format!("known: {}; or add a table [provider.{name}]", listed(names())),
    };
    table.fault(key, "names no provider", remedy);
}

fn slice(table: &Table<'_>) -> Slice {
    let Some(table) = table.table("slice") else { return Slice::default() };
    let slice = Slice {
        features: table.list("features"),
        segments: table.list("segments"),
        tasks: table.list("tasks"),
        models: table.list("models"),
    };
    table.close();
    slice
}

/// The parts of its traffic that are watched by themselves.
fn watched(table: &Table<'_>) -> Option<Watched> {
    let table = table.table("slices")?;
    table.need("by", "say which mark tells the slices apart: \"feature\", \"segment\" or \"task\"");
    table.need("values", "name the slices, like [\"search\", \"tools\"]");
    let by = table.word("by", &Mark::ALL.map(|it| (it.as_str(), it)));
    let values = table.has("values").then(|| table.list("values"));
    table.close();
    Some(Watched { by: by?, values: values? })
}

/// What answers are compared by, besides the whole of them.
fn compared(table: &Table<'_>) -> Compared {
    let Some(table) = table.table("compare") else { return Compared::default() };
    let compared = Compared { labels: table.list("labels"), fields: table.list("fields") };
    table.close();
    compared
}

fn judge_share(table: &Table<'_>, around: &Around<'_>) -> Share {
    let share = table.text("judge_share", &SHARE);
    let Some(judge) = around.judge else {
        if table.has("judge_share") {
            table.fault("judge_share", "needs a judge", "add a [judge] or leave the key out");
        }
        return Share::NONE;
    };
    share.unwrap_or(judge)
}

fn risk(table: &Table<'_>) -> Risk {
    let risk = Risk::default();
    let Some(table) = table.table("risk") else { return risk };
    let risk = Risk {
        harm_bps: table.text("false_rollback", &CHANCE).unwrap_or(risk.harm_bps),
        safe_bps: table.text("false_proof", &CHANCE).unwrap_or(risk.safe_bps),
        alarm_from_percent: table.text("alarm_from", &PERCENT).unwrap_or(risk.alarm_from_percent),
    };
    table.close();
    risk
}

/// When the rollout may not move, and how long it waits.
fn times(table: &Table<'_>) -> Times {
    let default = Times::default();
    let read = |table: &Table<'_>| {
        let text = |key| table.raw(key, "a text", "write it between quotes").map(str::to_owned);
        let text = FreezeText {
            days: table.list("days"),
            from: text("from").unwrap_or_default(),
            to: text("to").unwrap_or_default(),
            zone: text("zone").unwrap_or_else(|| "UTC".to_owned()),
        };
        table.close();
        let freeze = Freeze::read(&text);
        freeze.map_err(|error| table.fault(error.field, "cannot stand", error.problem)).ok()
    };
    let words = [("pause", OnIdle::Pause), ("rollback", OnIdle::Rollback)];
    Times {
        freezes: table.array("freeze").iter().filter_map(read).collect(),
        idle_ms_max: table
            .amount("idle", Unit::Millis, 1_000..=365 * DAY_MS)
            .unwrap_or(default.idle_ms_max),
        on_idle: table.word("on_idle", &words).unwrap_or(default.on_idle),
        bake_ms: table.amount("bake", Unit::Millis, 1_000..=365 * DAY_MS),
    }
}

/// Every gate at its default; scores, and what stands beside them, only where somebody gives them.
fn defaults(around: &Around<'_>) -> Vec<Margin> {
    let given = |it: &Metric| *it != Metric::JudgeScore || around.judge.is_some();
    let ground = around.ground.iter().copied().filter(|_| around.judge.is_some());
    let metrics = Metric::DEFAULTS.into_iter().filter(given).chain(ground);
    metrics.map(Margin::default_of).collect()
}

/// The gates of a table: those it names replace the inherited, `"off"` leaves one out.
fn margins(table: &Table<'_>, inherited: &[Margin], judge: Option<Share>) -> Vec<Margin> {
    let gates = table.table("gates");
    let margin = |metric: Metric| {
        let before = inherited.iter().copied().find(|it| it.metric() == metric);
        let Some(gates) = &gates else { return before };
        let example = Margin::default_of(metric);
        let key = if gates.has(metric.alias()) { metric.alias() } else { metric.as_str() };
        let remedy = format!("write it like \"{example}\", or \"off\" to go without this gate");
        let Some(text) = gates.raw(key, "a margin", &remedy) else {
            return before;
        };
        if text == "off" {
            return None;
        }
        if metric.is_judged() && judge.is_none() {
            gates.fault(metric.as_str(), "needs a judge", "add a [judge] or leave the key out");
            return None;
        }
        let margin = Margin::parse(metric, text).ok();
        if margin.is_none() {
            gates.fault(key, "is not a margin", remedy);
        }
        margin.or(before)
    };
    let margins = Metric::ALL.into_iter().filter_map(margin).collect();
    if let Some(gates) = &gates {
        gates.close();
    }
    margins
}

/// Where no judge is asked nothing has to stand beside it, unless it is written.
fn leave_beside(margins: &mut Vec<Margin>, table: &Table<'_>, around: &Around<'_>) {
    let judged = margins.iter().any(|it| it.metric().is_judged());
    let written = |it: Metric| table.table("gates").is_some_and(|gates| gates.has(it.as_str()));
    margins.retain(|it| judged || !around.ground.contains(&it.metric()) || written(it.metric()));
}

fn mirror_default() -> Share {
    Share::from_basis_points(100).unwrap_or(Share::ALL)
}

/// The share of pairs that people are shown where nobody says otherwise.
pub fn review_default() -> Share {
    Share::from_basis_points(500).unwrap_or(Share::NONE)
}

/// What the stages of a rollout inherit from it.
struct Ladder<'a, 'b> {
    table: &'b Table<'a>,
    margins: &'b [Margin],
    mirror: Share,
    judge: Option<Share>,
}

impl<'a> Ladder<'a, '_> {
    /// The stages, and their tables when the file writes them out.
    fn read(&self) -> (Vec<Stage>, Vec<Table<'a>>) {
        let tables = self.table.array("stage");
        let default = self.table.word("ladder", &[("default", ())]);
        let non_critical = self.table.list("non_critical");
        let migratable = self.table.list("migratable");
        if !self.table.has("stage") {
            let mut stages = default_ladder(self.margins, &non_critical, &migratable);
            for stage in &mut stages {
                stage.mirror = self.mirror;
            }
            return (stages, tables);
        }
        if default.is_some() {
            let remedy = "leave it out, or leave the stages out";
            self.table.fault("ladder", "stands beside stages of its own", remedy);
        }
        for key in ["non_critical", "migratable"] {
            if self.table.has(key) {
                let remedy = "give the stage that it narrows a `slice`";
                self.table.fault(key, "is for the default ladder only", remedy);
            }
        }
        let mut stages: Vec<Stage> = Vec::new();
        for table in &tables {
            // What is missing is told; what stands in for it must not be a second fault.
            let serve_before = stages.last().map_or(Share::NONE, |it| it.serve);
            let name = format!("stage-{}", stages.len() + 1);
            stages.push(self.stage(table, name, serve_before));
        }
        (stages, tables)
    }

    fn stage(&self, table: &Table<'_>, name: String, serve_before: Share) -> Stage {
        table.need("name", "give each stage a name of its own");
        table.need("serve", "say which share the candidate answers, like \"5%\"");
        table.need("duration", "say how long the stage lasts at least, like \"14d\"");
        let serve = table.text("serve", &SHARE).unwrap_or(serve_before);
        let margins = margins(table, self.margins, self.judge);
        let proven = proven(table, &margins);
        let gate = |&margin: &Margin| Gate { margin, role: role(margin, serve, proven.as_deref()) };
        let duration = table.amount("duration", Unit::Millis, 1_000..=365 * DAY_MS);
        let delay = table.amount("initial_delay", Unit::Millis, 0..=DAY_MS);
        let samples = table.amount("samples", Unit::Count, 1..=1_000_000_000);
        let approval = table.choice("approval", Approval::Needed, Approval::NotNeeded);
        let stage = Stage {
            name: table.text("name", &SOME).unwrap_or(name),
            serve,
            mirror: table.text("mirror", &SHARE).unwrap_or(self.mirror),
            slice: slice(table),
            duration_ms_min: duration.unwrap_or(DAY_MS),
            duration_ms_max: table.amount("duration_max", Unit::Millis, 1_000..=365 * DAY_MS),
            delay_ms: delay.unwrap_or(0),
            samples_min: samples.unwrap_or(SAMPLES_MIN),
            gates: margins.iter().map(gate).collect(),
            approval: approval.unwrap_or(Approval::NotNeeded),
        };
        table.close();
        stage
    }
}

/// The gates a stage says must be proven; none when it does not say.
fn proven(table: &Table<'_>, margins: &[Margin]) -> Option<Vec<Metric>> {
    let mut metrics = Vec::new();
    for (text, spot) in table.texts("prove")? {
        let here = |it: &Metric| margins.iter().any(|margin| margin.metric() == *it);
        if let Some(metric) = Metric::from_name(text).filter(here) {
            metrics.push(metric);
            continue;
        }
        let names = || margins.iter().map(|it| it.metric().as_str());
        let remedy = nearest(text, names()).map_or_else(
            || format!("its gates are {}", listed(names())),
            |near| format!("did you mean `{near}`?"),
        );
        table.fault_at(Some(&spot), "prove", "names no gate of the stage", remedy);
    }
    Some(metrics)
}

fn role(margin: Margin, serve: Share, proven: Option<&[Metric]>) -> Role {
    let prove = match (proven, margin.metric().kind()) {
        (Some(proven), _) => proven.contains(&margin.metric()),
        (None, Kind::Quantile) => LATENCY_PROVEN_FROM_BPS <= serve.basis_points(),
        (None, Kind::Opinion) => Share::NONE < serve && serve < Share::ALL,
        (
            None,
            Kind::Rate(_)
            | Kind::Score
            | Kind::Likeness
            | Kind::Preference
            | Kind::Ratio
            | Kind::Tiers,
        ) => true,
    };
    if prove { Role::Prove } else { Role::Guard }
}
