//! The verb `simulate`: plans under virtual time.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use clap::{ArgGroup, Args};

use crate::config;
use crate::domain::{Name, Plan};
use crate::scenario::{self, Difference};
use crate::simulate::{self, Backtest, BacktestError, PLAN, Recorded, StreamError};
use crate::store::{JournalError, PairsError};

use super::{
    Exit,
    program::{CONFIG_INVALID, DONE, FAILED, Form, causes, complain, say},
};

/// What to do about a store that another process has.
const IN_USE: &str = "hint: a store has one reader. Stop the node, or copy `journal.log` and the folder \
                      `segments` to another folder and name that by --store: the index is made anew there";

/// What `simulate` takes.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("source").required(true).args(["story", "stream", "pairs"])))]
pub(super) struct SimulateArgs {
    /// A story: commands and the answers they must get; prints it with the answers they do get
    #[arg(value_name = "FILE")]
    story: Option<PathBuf>,
    /// Read what was seen from standard input, a JSON object a line, and answer each tick
    #[arg(long)]
    stream: bool,
    /// Play the stored pairs of this rollout again
    #[arg(long, value_name = "ROLLOUT")]
    pairs: Option<String>,
    /// The plan: a TOML file with one table [rollout.NAME]; the names of providers are free.
    /// Stored pairs are played through the rollout's own plan unless there is another
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// The folder of the store
    #[arg(long, value_name = "DIR", default_value = "crossfade-data", conflicts_with = "stream")]
    store: PathBuf,
    /// Which attempt of the rollout [default: the last]
    #[arg(long, value_name = "N", conflicts_with = "stream")]
    attempt: Option<u32>,
}

/// Tries a plan, or plays a story.
pub(super) fn simulate(args: &SimulateArgs, form: Form) -> u8 {
    if let Some(file) = &args.story {
        return story(file);
    }
    let plan = match args.plan.as_ref().map(plan).transpose() {
        Ok(plan) => plan,
        Err(said) => return complain(&said, CONFIG_INVALID),
    };
    match &args.pairs {
        None => stream(plan),
        Some(name) => backtest(args, name, plan.map(|(_, plan)| plan), form),
    }
}

fn stream(plan: Option<(Name, Plan)>) -> u8 {
    let own = || config::plan(PLAN, "config/simulate.toml").map(|it| (it.name, it.plan));
    let plan = match plan.map_or_else(own, Ok) {
        Ok(plan) => plan,
        Err(faults) => return complain(&faults.to_string(), CONFIG_INVALID),
    };
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    match simulate::stream(plan, &mut input, &mut output) {
        Ok(()) => DONE,
        // Whoever asked has heard enough.
        Err(StreamError::Io { error, .. }) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error @ StreamError::Io { .. }) => complain(&causes(&error), FAILED),
        Err(error @ (StreamError::Form { .. } | StreamError::Sense { .. })) => {
            complain(&causes(&error), Exit::Usage.code())
        }
    }
}

/// Plays a story. Where an answer is another one than it says, the difference goes to standard
/// error.
fn story(file: &Path) -> u8 {
    let shown = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return complain(&format!("cannot read the story {shown}: {error}"), FAILED),
    };
    match scenario::replay(&text) {
        Err(bad) => complain(&format!("{shown}: {bad}"), Exit::Usage.code()),
        Ok(replay) => {
            say(replay.text.trim_end());
            if replay.differences.is_empty() {
                return DONE;
            }
            let told: Vec<String> = replay.differences.iter().map(Difference::show).collect();
            complain(&format!("{shown} comes out otherwise\n{}", told.join("\n")), FAILED)
        }
    }
}

fn backtest(args: &SimulateArgs, name: &str, plan: Option<Plan>, form: Form) -> u8 {
    let name = match name.strip_prefix("rollouts/").unwrap_or(name).parse::<Name>() {
        Ok(name) => name,
        Err(error) => return complain(&error.to_string(), Exit::Usage.code()),
    };
    let recorded = match Recorded::read(&args.store, &name, args.attempt) {
        Ok(recorded) => recorded,
        Err(error) => return refuse(&error),
    };
    let played = recorded.play(plan);
    match form {
        Form::Table => say(&shown(&played)),
        Form::Json => match serde_json::to_string(&played) {
            Ok(json) => say(&json),
            Err(error) => return complain(&error.to_string(), FAILED),
        },
    }
    DONE
}

fn refuse(error: &BacktestError) -> u8 {
    let said = causes(error);
    match error {
        BacktestError::Journal(JournalError::Locked { .. })
        | BacktestError::Pairs(PairsError::Locked(_)) => {
            complain(&format!("{said}\n\n{IN_USE}"), FAILED)
        }
        BacktestError::NoRollout { .. } | BacktestError::NoAttempt { .. } => {
            complain(&said, Exit::NotFound.code())
        }
        BacktestError::NoStore(_) | BacktestError::Journal(_) | BacktestError::Pairs(_) => {
            complain(&said, FAILED)
        }
    }
}

/// A backtest for people.
fn shown(played: &Backtest) -> String {
    let Backtest { rollout, attempt, outcome, stage, why, pairs, scores, .. } = played;
    let mut text =
        format!("{rollout}, attempt {attempt}: {pairs} pairs and {scores} scores played\n");
    // Writing to a text does not fail.
    for step in &played.steps {
        let word = step.step.replace('_', " ");
        let pair = step.pair.as_deref().unwrap_or("no pair");
        let (at, stage, in_stage, all) = (&step.at, &step.stage, step.pairs, step.pairs_played);
        let _ = writeln!(
            text,
            "{at}  {word} at `{stage}` after {in_stage} of its pairs, {all} in all; last was {pair}"
        );
        for gate in &step.gates {
            let _ = writeln!(text, "    {gate}");
        }
    }
    let outcome = outcome.replace('_', " ");
    let _ = write!(text, "{outcome} in stage `{stage}`: {why}");
    for note in &played.notes {
        let _ = write!(text, "\nnote: {note}");
    }
    text
}

/// A plan from a file, or what is wrong with it.
fn plan(file: &PathBuf) -> Result<(Name, Plan), String> {
    let shown = file.display().to_string();
    let text = fs::read_to_string(file)
        .map_err(|error| format!("cannot read the plan {shown}: {error}"))?;
    let read = config::plan(&text, &shown);
    read.map(|it| (it.name, it.plan)).map_err(|faults| faults.to_string())
}
