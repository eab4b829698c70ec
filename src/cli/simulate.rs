//! The verb `simulate`: plans under virtual time.

use std::{fs, io, path::PathBuf};

use clap::Args;

use crate::config;
use crate::domain::{Name, Plan};
use crate::simulate::{self, PLAN, StreamError};

use super::{
    Exit,
    program::{CONFIG_INVALID, DONE, FAILED, causes, complain},
};

/// What `simulate` takes.
#[derive(Args, Clone, Debug)]
pub(super) struct SimulateArgs {
    /// Read what was seen from standard input, a JSON object a line, and answer each tick
    #[arg(long, required = true)]
    stream: bool,
    /// The plan: a TOML file with one table [rollout.NAME]; the names of providers are free
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

/// Tries a plan.
pub(super) fn simulate(args: &SimulateArgs) -> u8 {
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
