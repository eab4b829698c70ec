//! The command line: verbs in, tables or JSON out, exit codes for pipelines.

mod answer;
mod audit;
mod commands;
mod create;
mod draw;
mod events;
mod flags;
mod forecast;
mod import;
mod keys;
mod ladder;
mod look;
mod moves;
mod out;
mod outcome;
mod pairs;
mod paper;
mod prices;
mod program;
mod replay;
mod report;
mod request;
mod review;
mod simulate;
mod watch;

pub use commands::{ClientCommand, Color, Format, Global, Output};

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

use crate::api::{Caller, Client, Failure, FailureKind, JsonError, proto};
use crate::listeners::{self, Passed};
use crate::telemetry::Logs;

use out::Out;
use prices::PricesArgs;
use program::{Form, Sockets};
use replay::ReplayArgs;
use simulate::SimulateArgs;

/// Listed below the long help.
const EXIT_CODES: &str = "Exit codes:
  0  done, or the condition holds       5  no such rollout or pair
  1  failed                             6  precondition: gates, state, stale stage or etag
  2  used wrongly                       7  configuration or plan invalid
  3  server unreachable                 9  the rollout was rolled back
  4  not allowed";

/// Moves LLM traffic to a cheaper provider, proven step by step, and back when it is not.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXIT_CODES)]
struct Line {
    #[command(subcommand)]
    command: Verb,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Play a whole rollout with mock providers, in under a minute
    Demo,
    /// Serve: proxy, controller, API and metrics in one process
    Serve {
        /// The configuration
        #[arg(short, long, value_name = "FILE", default_value = "crossfade.toml")]
        config: PathBuf,
        /// How log lines look
        #[arg(long, value_enum, default_value_t = LogForm::Text)]
        logs: LogForm,
        /// Take over the listening sockets of the process that runs on the same store; it ends
        /// once its callers are done, and no connection is refused
        #[arg(long)]
        takeover: bool,
    },
    /// Look at a configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Play plans of recorded traffic through the whole program
    Rehearse {
        /// The plans
        #[arg(required = true, value_name = "PLAN")]
        plans: Vec<PathBuf>,
        /// Leave the stores in this folder, one for each plan, for `crossfade simulate --pairs`
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
    },
    /// Put a golden set to two providers, and say what their answers are worth, cost and take
    Replay(ReplayArgs),
    /// Show which price holds for each provider and model, and how old the table is
    Prices(PricesArgs),
    /// Try a plan under virtual time, without a server
    Simulate(SimulateArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Tell every fault of a configuration, or that there is none
    Check {
        /// The configuration
        #[arg(short, long, value_name = "FILE", default_value = "crossfade.toml")]
        config: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

/// Runs the program by its command line.
pub fn main() -> ExitCode {
    let line = Line::parse();
    // Before there are threads: it takes them out of the environment.
    let passed = match listeners::passed() {
        Ok(passed) => passed,
        Err(error) => {
            let text = format!("the service manager passed what is no listening socket: {error}");
            return ExitCode::from(program::complain(&text, program::FAILED));
        }
    };
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let code = runtime.block_on(dispatch(line, passed));
    // Blocking work that hangs, such as a write to a dead disk, must not keep the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn dispatch(Line { command, global }: Line, passed: Passed) -> u8 {
    let form = match global.output {
        Format::Json => Form::Json,
        Format::Table | Format::Md | Format::Html => Form::Table,
    };
    match command {
        Verb::Demo => program::demo(form).await,
        Verb::Serve { config, logs, takeover } => {
            let logs = match logs {
                LogForm::Text => Logs::Text,
                LogForm::Json => Logs::Json,
            };
            let sockets =
                if takeover { Sockets::TakenOver(passed) } else { Sockets::Passed(passed) };
            program::serve(&config, logs, sockets).await
        }
        Verb::Config(ConfigVerb::Check { config }) => program::check(&config),
        Verb::Prices(args) => prices::prices(&args, form),
        Verb::Simulate(args) => simulate::simulate(&args, form),
        Verb::Replay(args) => replay::replay(&args, global.output).await,
        Verb::Rehearse { plans, keep } => program::rehearse(&plans, keep.as_deref(), form).await,
        Verb::Client(command) => run(command, global).await,
    }
}

/// What a command comes to, for scripts. Listed by `crossfade help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or the condition holds.
    Done,
    /// Failed in a way that none of the others names.
    Failed,
    /// Used wrongly.
    Usage,
    /// No server answered.
    Unreachable,
    /// Not allowed.
    Forbidden,
    /// No such rollout, pair or provider.
    NotFound,
    /// Not now: gates, a stale etag or stage.
    Precondition,
    /// A faulty plan.
    Plan,
    /// The rollout was rolled back.
    RolledBack,
}

impl Exit {
    /// The number the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Forbidden => 4,
            Self::NotFound => 5,
            Self::Precondition => 6,
            Self::Plan => 7,
            Self::RolledBack => 9,
        }
    }
}

impl From<FailureKind> for Exit {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Usage => Self::Usage,
            FailureKind::Unreachable => Self::Unreachable,
            FailureKind::Forbidden => Self::Forbidden,
            FailureKind::NotFound => Self::NotFound,
            FailureKind::Precondition => Self::Precondition,
            FailureKind::Plan => Self::Plan,
            FailureKind::Other => Self::Failed,
        }
    }
}

/// Why a command did not get done.
#[derive(Debug, thiserror::Error)]
enum Problem {
    /// The server said no, or nothing.
    #[error(transparent)]
    Call(#[from] Failure),
    /// A file or the terminal.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not JSON of that form.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// Runs a command against the server, and answers the exit code of the process.
pub async fn run(command: ClientCommand, global: Global) -> u8 {
    let mut out = Out::new(&global);
    let written = matches!(command, ClientCommand::Audit { .. } | ClientCommand::Report { .. });
    if matches!(global.output, Format::Md | Format::Html) && !written {
        let hint = "`md` and `html` are for `audit` and `report`; here it is `table` or `json`";
        // Where even the error cannot be written, the exit code is all that is left.
        let _ = out.error("this is not printed as a document", &[], hint);
        return Exit::Usage.code();
    }
    let result = obey(command, &global, &mut out).await;
    result.unwrap_or_else(|problem| report(&problem, &mut out)).code()
}

async fn obey(command: ClientCommand, global: &Global, out: &mut Out) -> Result<Exit, Problem> {
    let mut actor = global.actor.clone();
    if matches!(command, ClientCommand::Review(_)) {
        actor.get_or_insert_with(|| review::sitting(&program::user()));
    }
    let caller = Caller { actor, timeout: global.timeout.into() };
    let client = &mut Client::connect(&global.server, caller).await?;
    match command {
        ClientCommand::List => look::list(client, out).await,
        ClientCommand::Status(args) if args.watch => watch::status(client, out, &args).await,
        ClientCommand::Status(args) => look::status(client, out, &args).await,
        ClientCommand::Explain { request: Some(id), .. } => request::explain(client, out, id).await,
        ClientCommand::Explain { name, .. } => {
            look::explain(client, out, &name.unwrap_or_default()).await
        }
        ClientCommand::Events { name, limit } => events::events(client, out, &name, limit).await,
        ClientCommand::Pairs { name, drawn, .. } if drawn.golden.is_some() => {
            draw::draw(client, out, &name, &drawn).await
        }
        ClientCommand::Pairs { name, limit, .. } => pairs::list(client, out, &name, limit).await,
        ClientCommand::Pair { id } => pairs::one(client, out, &id).await,
        ClientCommand::Review(args) => review::review(client, out, &args).await,
        ClientCommand::Feedback(args) => request::feedback(client, out, args, global).await,
        ClientCommand::Audit { days } => audit::audit(client, out, days, global.output).await,
        ClientCommand::Report { name } => report::report(client, out, &name, global.output).await,
        ClientCommand::Create(args) => create::create(client, out, args, global).await,
        ClientCommand::Update { name, file, seen } => {
            create::update(client, out, (name, file, seen), global).await
        }
        ClientCommand::Start { name, supersede, force, seen } => {
            let etag = seen.etag();
            let request = proto::StartRolloutRequest {
                supersede,
                force,
                etag,
                ..moves::start(&name, global)
            };
            forecast::tell(out, &client.start_rollout(request).await?)
        }
        ClientCommand::Advance(args) => moves::advance(client, out, args, global).await,
        ClientCommand::Jump(args) => moves::jump(client, out, args, global).await,
        ClientCommand::Complete { name, approve, seen } => {
            let etag = seen.etag();
            let request =
                proto::CompleteRolloutRequest { approve, etag, ..moves::complete(&name, global) };
            moves::tell(out, &client.complete_rollout(request).await?)
        }
        ClientCommand::Pause { name } => moves::pause(client, out, name, global).await,
        ClientCommand::Resume { name, seen } => {
            moves::resume(client, out, (name, seen), global).await
        }
        ClientCommand::Approve(args) => moves::approve(client, out, args, global).await,
        ClientCommand::Rollback { name, .. } => moves::rollback(client, out, name, global).await,
        ClientCommand::Delete { name, seen } => {
            moves::delete(client, out, (name, seen), global).await
        }
        ClientCommand::Flag(command) => flags::flag(client, out, command, global).await,
        ClientCommand::Stop { lift: false } => moves::stop(client, out, global).await,
        ClientCommand::Stop { lift: true } => moves::lift(client, out, global).await,
    }
}

/// Says what went wrong: what, why, and what to do.
fn report(problem: &Problem, out: &mut Out) -> Exit {
    let (exit, said) = match problem {
        Problem::Call(failure) => {
            let gone = failure.about.get("state").is_some_and(|it| it == "rolled_back");
            let exit = if gone { Exit::RolledBack } else { failure.kind.into() };
            (exit, out.error(&failure.message, &failure.faults, &failure.hint))
        }
        // Whoever read our output has seen enough.
        Problem::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Done,
        Problem::Io(error) => (Exit::Failed, out.error(&error.to_string(), &[], "")),
        Problem::Json(error) => {
            let cause: Vec<String> =
                std::error::Error::source(error).iter().map(ToString::to_string).collect();
            (Exit::Plan, out.error(&error.to_string(), &cause, ""))
        }
    };
    // Where even the error cannot be written, the exit code is all that is left.
    let _ = said;
    exit
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn failure(kind: FailureKind, state: &str) -> Problem {
        let about = BTreeMap::from([("state".to_owned(), state.to_owned())]);
        let (message, hint) = (String::new(), String::new());
        Problem::Call(Failure { kind, message, faults: vec![], hint, about })
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        for (kind, code) in [
            (FailureKind::Other, 1),
            (FailureKind::Usage, 2),
            (FailureKind::Unreachable, 3),
            (FailureKind::Forbidden, 4),
            (FailureKind::NotFound, 5),
            (FailureKind::Precondition, 6),
            (FailureKind::Plan, 7),
        ] {
            let exit = report(&failure(kind, "running"), &mut Out::nowhere());
            assert_eq!(exit.code(), code, "{kind:?}");
        }
    }

    #[test]
    fn a_command_to_a_rollout_that_went_back_says_so_in_its_exit_code() {
        let problem = failure(FailureKind::Precondition, "rolled_back");
        assert_eq!(report(&problem, &mut Out::nowhere()).code(), 9);
    }
}
