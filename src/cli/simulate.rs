//! The verb `simulate`: plans under virtual time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::config;
use crate::domain::{Name, Plan};
use crate::scenario::{self, Difference};
use crate::simulate::{self, PLAN, StreamError};

use super::{
    Exit,
    program::{CONFIG_INVALID, DONE, FAILED, causes, complain, say},
};

/// What `simulate` takes.
#[derive(Args, Clone, Debug)]
pub(super) struct SimulateArgs {
    /// A story: commands and the answers they must get; prints it with the answers they do get
    #[arg(value_name = "FILE", required_unless_present = "stream", conflicts_with = "stream")]
    story: Option<PathBuf>,
    /// Read what was seen from standard input, a JSON object a line, and answer each tick
    #[arg(long)]
    stream: bool,
    /// The plan: a TOML file with one table [rollout.NAME]; the names of providers are free
    #[arg(long, value_name = "FILE", requires = "stream")]
    plan: Option<PathBuf>,
}

/// Tries a plan, or plays a story.
pub(super) fn simulate(args: &SimulateArgs) -> u8 {
    if let Some(file) = &args.story {
        return story(file);
    }
    let plan = match plan(args) {
        Ok(plan) => plan,
        Err(said) => return complain(&said, CONFIG_INVALID),
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

/// The plan to try, or what is wrong with it.
fn plan(args: &SimulateArgs) -> Result<(Name, Plan), String> {
    let read = match &args.plan {
        None => config::plan(PLAN, "config/simulate.toml"),
        Some(file) => {
            let shown = file.display().to_string();
            let text = fs::read_to_string(file)
                .map_err(|error| format!("cannot read the plan {shown}: {error}"))?;
            config::plan(&text, &shown)
        }
    };
    read.map(|it| (it.name, it.plan)).map_err(|faults| faults.to_string())
}
