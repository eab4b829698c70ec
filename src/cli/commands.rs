//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::domain::Share;

/// Commands to a running server.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientCommand {
    /// Show all rollouts, one line each
    List,
    /// Show where a rollout stands, what it knows and what it waits for
    Status(StatusArgs),
    /// Say what the controller would do now, and why; or why a request went where it went
    Explain {
        /// The rollout
        #[arg(required_unless_present = "request")]
        name: Option<String>,
        /// A request, by the `x-crossfade-request-id` of its answer
        #[arg(long, value_name = "ID", conflicts_with = "name")]
        request: Option<String>,
    },
    /// Show the log of a rollout, newest last
    Events {
        /// The rollout, or `-` for all
        name: String,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i32).range(1..=1_000))]
        limit: i32,
    },
    /// Show the newest pairs of a rollout, or draw a golden set from them
    Pairs {
        /// The rollout, or `-` for all
        name: String,
        /// How many at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=1_000))]
        limit: i32,
        /// What is drawn instead
        #[command(flatten)]
        drawn: Drawn,
    },
    /// Show one pair with both answers
    Pair {
        /// Its id, as `crossfade pairs` prints it
        id: String,
    },
    /// Say whether a rollout's candidate is ready, and what that rests on, for a ticket
    Report {
        /// The rollout
        name: String,
    },
    /// Say what is asked of the providers and what it costs, before anything is moved
    Audit {
        /// Days (UTC) that are looked at, today included
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(i32).range(1..=31))]
        days: i32,
    },
    /// Say what an answer is worth, for gates on `feedback`
    Feedback(FeedbackArgs),
    /// Compare answers blind: 1 or 2 is better, 3 both good, 4 both bad, s skip, u undo, q quit
    Review(ReviewArgs),
    /// Create a rollout; no traffic moves before it is started
    Create(CreateArgs),
    /// Replace the plan of a rollout; while it runs, what is to come and the running stage's terms
    Update {
        /// The rollout
        name: String,
        /// The whole plan as JSON, as `crossfade status NAME -o json` prints it
        #[arg(long, value_name = "PATH")]
        file: PathBuf,
        /// What whoever asks has seen
        #[command(flatten)]
        seen: Seen,
    },
    /// Start a rollout at its first stage, or begin anew after a rollback
    Start {
        /// The rollout
        name: String,
        /// Roll back whichever rollouts govern its requests, and take their place
        #[arg(long)]
        supersede: bool,
        /// Also where a gate cannot be expected to be proven while its stage may last
        #[arg(long)]
        force: bool,
        /// What whoever asks has seen
        #[command(flatten)]
        seen: Seen,
    },
    /// Move to the next stage, if the gates are proven
    Advance(AdvanceArgs),
    /// Go back to a stage and gather its evidence afresh, or with an override forward
    Jump(JumpArgs),
    /// End the ladder now, whatever is undecided; say why with --comment
    Complete {
        /// The rollout
        #[arg(requires = "comment")]
        name: String,
        /// Approve the stages passed over that need it
        #[arg(long)]
        approve: bool,
        /// What whoever asks has seen
        #[command(flatten)]
        seen: Seen,
    },
    /// Hold a rollout at its stage; its gates still guard it
    Pause {
        /// The rollout
        name: String,
    },
    /// Let a paused rollout go on
    Resume {
        /// The rollout
        name: String,
        /// What whoever asks has seen
        #[command(flatten)]
        seen: Seen,
    },
    /// Agree, or not, that a stage may be left
    Approve(ApproveArgs),
    /// Send everything back to the primary, at once and without a question
    Rollback {
        /// The rollout
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// Every rollout that moves traffic
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Delete a rollout that moves no traffic; its pairs stay until they are too old
    Delete {
        /// The rollout
        name: String,
        /// What whoever asks has seen
        #[command(flatten)]
        seen: Seen,
    },
    /// Cap what candidates may see; flags only ever lower what a stage allows
    #[command(subcommand)]
    Flag(FlagCommand),
    /// Send every rollout back to the primary, and let none start until this is lifted
    Stop {
        /// Let rollouts start again
        #[arg(long)]
        lift: bool,
    },
}

/// What `pairs` takes to draw a golden set.
#[derive(Args, Clone, Debug)]
pub struct Drawn {
    /// Print a golden set for `crossfade replay` instead: so many cases of each feature, segment,
    /// watched slice and path, by lot
    #[arg(long, value_name = "N", requires = "data", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub golden: Option<u16>,
    /// Data classes that they carry, with commas between, or `none`: stored pairs do not say
    #[arg(long, value_name = "CLASSES", requires = "golden", value_delimiter = ',')]
    pub data: Vec<String>,
}

/// What can be done with flags.
#[derive(Clone, Debug, Subcommand)]
pub enum FlagCommand {
    /// Show the flags in force
    List,
    /// Set a flag, in the place of the one of its name; the narrowest wins, and 0% always wins
    Set(FlagArgs),
    /// Clear a flag
    Clear {
        /// Its name
        name: String,
    },
}

/// What `flag set` takes.
#[derive(Args, Clone, Debug)]
pub struct FlagArgs {
    /// Its name, yours to choose: a-z, 0-9 and `-`
    pub name: String,
    /// Only in this rollout
    #[arg(long)]
    pub rollout: Option<String>,
    /// Only requests of this feature
    #[arg(long)]
    pub feature: Option<String>,
    /// Only users of this segment
    #[arg(long)]
    pub segment: Option<String>,
    /// Most traffic that a candidate may answer, such as `5%`; `0%` is off. Not given, the flag says
    /// nothing of it
    #[arg(long, value_name = "SHARE", value_parser = share, required_unless_present = "mirror")]
    pub serve: Option<Share>,
    /// Most traffic for which the other side is asked too, in the same way
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub mirror: Option<Share>,
}

fn share(text: &str) -> Result<Share, String> {
    crate::config::share(text).ok_or_else(|| "write it like `5%` or `0.25%`".to_owned())
}

/// What `status` takes.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// The rollout
    pub name: String,
    /// Keep showing it until it ends
    #[arg(short, long)]
    pub watch: bool,
    /// Exit with 9 when it was rolled back
    #[arg(long)]
    pub exit_status: bool,
}

/// What `advance` takes.
#[derive(Args, Clone, Debug)]
pub struct AdvanceArgs {
    /// The rollout
    pub name: String,
    /// Only from this stage, so that a step run twice does no harm
    #[arg(long, value_name = "ID")]
    pub from_stage: Option<String>,
    /// Skip what is undecided, never what is broken; say why with --comment
    #[arg(long, requires = "comment")]
    pub override_undecided: bool,
    /// What whoever asks has seen
    #[command(flatten)]
    pub seen: Seen,
}

/// What whoever asks has seen.
#[derive(Args, Clone, Debug)]
pub struct Seen {
    /// Only at this revision, which `crossfade status` shows: refused if anything changed since
    #[arg(long, value_name = "REVISION")]
    pub etag: Option<u64>,
}

impl Seen {
    /// The etag as the API takes it; empty for none.
    pub(super) fn etag(&self) -> String {
        self.etag.map_or_else(String::new, |it| it.to_string())
    }
}

/// What `jump` takes.
#[derive(Args, Clone, Debug)]
pub struct JumpArgs {
    /// The rollout
    pub name: String,
    /// The stage to go to
    pub stage: String,
    /// Needed to go forward: skip what is undecided, never what is broken
    #[arg(long = "override", requires = "comment")]
    pub override_undecided: bool,
    /// Approve the stages passed over that need it
    #[arg(long, requires = "comment")]
    pub approve: bool,
    /// What whoever asks has seen
    #[command(flatten)]
    pub seen: Seen,
}

/// What `approve` takes.
#[derive(Args, Clone, Debug)]
pub struct ApproveArgs {
    /// The rollout
    pub name: String,
    /// The stage that may be left
    pub stage: String,
    /// Do not agree: send everything back to the primary
    #[arg(long)]
    pub decline: bool,
    /// Only in this attempt, which `crossfade status` shows: said again later, it passes no other
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub attempt: Option<i32>,
    /// What whoever asks has seen
    #[command(flatten)]
    pub seen: Seen,
}

/// What `feedback` takes.
#[derive(Args, Clone, Debug)]
pub struct FeedbackArgs {
    /// The `x-crossfade-request-id` of the answer
    #[arg(value_name = "REQUEST_ID")]
    pub request: String,
    /// 0 (bad) to 1 (good); a thumb is 0 or 1
    pub score: f64,
    /// What was scored; the first score of each signal stands
    #[arg(long, default_value = "thumb")]
    pub signal: String,
}

/// What `review` takes.
#[derive(Args, Clone, Debug)]
pub struct ReviewArgs {
    /// The rollout
    pub name: String,
    /// Only tell how far the reviews have come, and who agrees with whom
    #[arg(long)]
    pub progress: bool,
}

/// What `create` takes.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
    /// The rollout's name: a-z, 0-9 and `-`
    pub name: String,
    /// The whole plan as JSON, as `crossfade status NAME -o json` prints it
    #[arg(long, value_name = "PATH", conflicts_with_all = ["primary", "candidate"])]
    pub file: Option<PathBuf>,
    /// Who serves today
    #[arg(long, value_name = "PROVIDER", required_unless_present = "file")]
    pub primary: Option<String>,
    /// Who is to be tested
    #[arg(long, value_name = "PROVIDER", required_unless_present = "file")]
    pub candidate: Option<String>,
    /// Only requests of this feature (may be repeated)
    #[arg(long, conflicts_with = "file")]
    pub feature: Vec<String>,
    /// Only users of this segment (may be repeated)
    #[arg(long, conflicts_with = "file")]
    pub segment: Vec<String>,
    /// A gate of every stage, such as `error_rate=+0.5pp` (may be repeated)
    #[arg(long, value_name = "METRIC=MARGIN", value_parser = gate, conflicts_with = "file")]
    pub gate: Vec<(String, String)>,
    /// Most copies a day
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub copies_per_day: Option<i64>,
    /// Also where a gate cannot be expected to be proven while its stage may last
    #[arg(long)]
    pub force: bool,
}

fn gate(text: &str) -> Result<(String, String), String> {
    let (metric, margin) = text.split_once('=').ok_or("write it like `error_rate=+0.5pp`")?;
    Ok((metric.trim().to_owned(), margin.trim().to_owned()))
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// The server: `http://HOST:PORT` or `unix:PATH`
    #[arg(
        long,
        global = true,
        env = "CROSSFADE_SERVER",
        default_value = "http://127.0.0.1:9090",
        value_name = "URL"
    )]
    pub server: String,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Said for the log, with whatever changes something
    #[arg(long, global = true, value_name = "TEXT")]
    pub comment: Option<String>,
    /// The same id again changes nothing and answers the same
    #[arg(long, global = true, value_name = "ID")]
    pub request_id: Option<String>,
    /// Who you are, for the log
    #[arg(long, global = true, env = "CROSSFADE_ACTOR", value_name = "NAME")]
    pub actor: Option<String>,
    /// How long the server may take to answer
    #[arg(long, global = true, default_value = "35s", value_name = "TIME")]
    pub timeout: humantime::Duration,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Never use colours
    #[arg(long, global = true, env = "NO_COLOR", hide = true, num_args = 0..=1,
        default_missing_value = "1")]
    pub no_color: Option<String>,
}

/// How data is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: the API's own messages, one on each line.
    Json,
    /// A report as Markdown.
    Md,
    /// A report as a page of HTML.
    Html,
}

/// How data is printed that is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Whole {
        #[command(subcommand)]
        command: ClientCommand,
        #[command(flatten)]
        global: Global,
    }

    fn parse(line: &str) -> Result<Whole, clap::Error> {
        Whole::try_parse_from(std::iter::once("crossfade").chain(line.split(' ')))
    }

    #[test]
    fn commands_are_typed_as_documented() {
        for line in [
            "list -o json",
            "status chat --watch --exit-status",
            "advance chat --from-stage shadow --override-undecided --comment why",
            "approve chat half --decline",
            "approve chat half --attempt 2 --etag 17",
            "resume chat --etag 17",
            "jump chat shadow",
            "jump chat half --override --approve --comment why",
            "complete chat --comment why",
            "update chat --file plan.json",
            "start chat --supersede --force --etag 3",
            "stop --lift",
            "delete chat --comment why --etag 3",
            "flag list",
            "flag set paid --rollout chat --feature help --segment paid --serve 5% --mirror 0%",
            "flag set off --mirror 0%",
            "flag clear paid --comment why",
            "feedback 0192f0c1-2345-7abc-8def-0123456789ab 0.5 --signal refund",
            "rollback --all --server unix:/tmp/x.sock",
            "rollback chat --timeout 2s",
            "create chat --primary a --candidate b --gate error_rate=+1pp",
            "events - --limit 5 --no-color",
        ] {
            parse(line).unwrap();
        }
        let told = parse("status chat --timeout 1500ms").unwrap();
        assert_eq!(told.global.timeout.as_millis(), 1_500);
        for line in ["rollback", "rollback chat --all", "create chat --primary a", "events"]
            .into_iter()
            .chain(["flag set paid", "flag set paid --serve 101%", "flag clear"])
        {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in
            ["advance chat --override-undecided", "jump chat half --override", "complete chat"]
        {
            assert!(parse(line).is_err(), "`{line}` needs a comment");
        }
    }
}
