//! The verbs that are the program itself: serve, config check, demo, rehearse.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};

use crate::app::App;
use crate::config::Config;
use crate::listeners::{self, Passed};
use crate::rehearsal::{self, DEMO, Places, Plan, Report, Screen, Style};
use crate::telemetry::{self, Logs};

/// Exit codes of these verbs; `crossfade help` lists all.
pub(super) const DONE: u8 = 0;
pub(super) const FAILED: u8 = 1;
pub(super) const CONFIG_INVALID: u8 = 7;

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Table,
    /// For machines.
    Json,
}

/// The file's faults, or that there are none.
pub(super) fn check(file: &Path) -> u8 {
    match Config::load(file) {
        Ok(config) => {
            let (providers, rollouts) = (config.providers.len(), config.rollouts.len());
            say(&format!(
                "{} is valid: {providers} providers, {rollouts} rollouts",
                file.display()
            ));
            DONE
        }
        Err(faults) => complain(&faults.to_string(), CONFIG_INVALID),
    }
}

/// Whose sockets the program listens on, if they are open already.
#[derive(Debug)]
pub(super) enum Sockets {
    /// Those of the service manager.
    Passed(Passed),
    /// Those of the process that runs on the same store; where none does, what was passed.
    TakenOver(Passed),
}

/// The word of the command line for [`Sockets::TakenOver`].
const TAKEOVER: &str = "--takeover";

/// Serves until SIGTERM or Ctrl-C, which ends at once when it comes twice.
pub(super) async fn serve(file: &Path, logs: Logs, sockets: Sockets) -> u8 {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(faults) => return complain(&faults.to_string(), CONFIG_INVALID),
    };
    telemetry::init(&filter("info"), logs);
    // From here on: callers are served before all of the program stands.
    let (asked, insisted) = (stop_signal(1), stop_signal(2));
    tokio::select! {
        code = run(config, sockets, asked) => code,
        () = insisted => complain("asked twice to stop: ended at once", FAILED),
        () = successors() => FAILED,
    }
}

async fn run(config: Config, sockets: Sockets, asked: impl Future<Output = ()>) -> u8 {
    let passed = match sockets {
        Sockets::Passed(passed) => Ok(passed),
        // Where nobody runs, this is the first one.
        Sockets::TakenOver(passed) => {
            listeners::take(&config.store).await.map(|it| it.unwrap_or(passed))
        }
    };
    let passed = match passed {
        Ok(passed) => passed,
        Err(error) => {
            let store = config.store.display();
            let text = format!("cannot take over from the process that runs on {store}: {error}");
            return complain(&text, FAILED);
        }
    };
    let app = match App::start(config, passed).await {
        Ok(app) => app,
        Err(error) => return complain(&causes(&error), FAILED),
    };
    let at = &app.addresses;
    say(&format!(
        "crossfade serves data={} control={} operations={}",
        at.data, at.control, at.operations
    ));
    match app.run(asked).await {
        Ok(()) => DONE,
        Err(error) => complain(&causes(&error), FAILED),
    }
}

/// Starts the program anew whenever SIGUSR2 asks for it, to take over from this process.
async fn successors() {
    let Ok(mut asked) = signal(SignalKind::user_defined2()) else {
        return std::future::pending().await;
    };
    while asked.recv().await.is_some() {
        let mut words = env::args_os();
        let Some(program) = words.next() else { continue };
        let words = words.filter(|it| it != TAKEOVER);
        // The watchdog listens to its successor too.
        let successor =
            Command::new(program).args(words).arg(TAKEOVER).env_remove("WATCHDOG_PID").spawn();
        match successor {
            Ok(successor) => tracing::info!(pid = successor.id(), "a successor starts"),
            Err(error) => tracing::error!(%error, "no successor could be started"),
        }
    }
}

/// Plays the demo.
pub(super) async fn demo(form: Form) -> u8 {
    telemetry::init(&filter("off"), Logs::Text);
    let title = "crossfade demo: made-up questions, mock providers and judge on real sockets; the real proxy,\n\
                 controller and bets between them. Shares are larger, margins wider and stages shorter than in\n\
                 production (config/demo.toml).";
    let plan = match Plan::parse(DEMO, "config/demo.toml") {
        Ok(plan) => plan,
        Err(error) => return complain(&causes(&error), FAILED),
    };
    play(&plan, title, None, form).await
}

/// Plays plans one after the other; the worst ending is the exit code.
pub(super) async fn rehearse(files: &[PathBuf], keep: Option<&Path>, form: Form) -> u8 {
    telemetry::init(&filter("off"), Logs::Text);
    let mut worst = DONE;
    for file in files {
        // A store for each plan, by the name of its file.
        let keep = keep.zip(file.file_stem()).map(|(folder, name)| folder.join(name));
        let code = match Plan::load(file) {
            Ok(plan) => play(&plan, &format!("{}", file.display()), keep.as_deref(), form).await,
            Err(error) => complain(&causes(&error), FAILED),
        };
        worst = worst.max(code);
    }
    worst
}

async fn play(plan: &Plan, title: &str, keep: Option<&Path>, form: Form) -> u8 {
    let style = match form {
        Form::Json => Style::Silent,
        Form::Table if io::stdout().is_terminal() => Style::Live,
        Form::Table => Style::Lines,
    };
    let mut screen = Screen::new(style, title, Box::new(io::stdout()));
    let data = data();
    let places = Places { data: &data, keep };
    let played = tokio::select! {
        played = rehearsal::play(plan, places, &mut screen) => played,
        () = stop_signal(1) => Err("interrupted".into()),
    };
    match played {
        Ok(report) => conclude(&report, &screen, form),
        Err(error) => complain(&causes(error.as_ref()), FAILED),
    }
}

fn conclude(report: &Report, screen: &Screen, form: Form) -> u8 {
    match form {
        Form::Json => match serde_json::to_string(report) {
            Ok(text) => say(&text),
            Err(error) => return complain(&error.to_string(), FAILED),
        },
        Form::Table => {
            let verdict = if report.as_expected { "as expected" } else { "NOT as expected" };
            let seconds = screen.elapsed().as_secs();
            say(&format!("\n{report}\n{verdict}, after {seconds} s\n"));
        }
    }
    if report.as_expected { DONE } else { FAILED }
}

/// Where recorded rows are: here, unless it says otherwise.
fn data() -> PathBuf {
    env::var_os("CROSSFADE_DATA").map_or_else(PathBuf::new, PathBuf::from)
}

/// What the system calls whoever types.
#[expect(clippy::disallowed_methods, reason = "the command line reads its own environment")]
pub(super) fn user() -> String {
    env::var("USER").unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "the command line reads its own environment")]
pub(super) fn filter(default: &str) -> String {
    env::var("RUST_LOG").unwrap_or_else(|_| default.to_owned())
}

/// Resolves when somebody has asked so often for the program's end, from the call on. Without
/// signals it never does.
pub(super) fn stop_signal(times: u32) -> impl Future<Output = ()> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            return std::future::pending().await;
        };
        for _ in 0..times {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
    }
}

/// A reader that went away needs no answer.
pub(super) fn say(text: &str) {
    drop(writeln!(io::stdout(), "{text}"));
}

/// Says something beside the data.
pub(super) fn note(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

pub(super) fn complain(text: &str, code: u8) -> u8 {
    let prefix = if text.starts_with("error") { "" } else { "error: " };
    drop(writeln!(io::stderr(), "{prefix}{text}"));
    code
}

/// An error with its causes, one under the other.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        text.push_str("\n  because: ");
        text.push_str(&it.to_string());
        cause = it.source();
    }
    text
}
