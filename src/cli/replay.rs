//! The verb `replay`: a golden set is put to two providers, and what comes of it is told.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use crate::app::redactor;
use crate::config::{Config, Provider};
use crate::domain::{Name, Replayed};
use crate::golden::{self, Asker, Figures, Progress, Row, RunError, Set, clearance};
use crate::store::{Answers, AnswersError, Asked, GOLDEN_FOLDER, Replays};

use super::{
    Exit,
    commands::Format,
    out::Screen,
    outcome,
    program::{CONFIG_INVALID, DONE, FAILED, causes, complain, say, stop_signal},
};

/// Largest set that is read, in bytes.
const SET_BYTES_MAX: u64 = 64 << 20;
/// Letters of the bar that shows how far it is.
const BAR_LEN: usize = 30;

/// What `replay` takes.
#[derive(Args, Clone, Debug)]
pub(super) struct ReplayArgs {
    /// The golden set: a case a line, as JSON
    #[arg(value_name = "FILE")]
    set: PathBuf,
    /// Who is measured against [default: the configuration's primary]
    #[arg(long, value_name = "PROVIDER")]
    primary: Option<Name>,
    /// Who is measured
    #[arg(long, value_name = "PROVIDER")]
    candidate: Name,
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = "crossfade.toml")]
    config: PathBuf,
    /// Keep the answers in this folder instead of the store's
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Put the answers that are kept aside, and ask both for all of them anew
    #[arg(long)]
    anew: bool,
    /// Requests under way at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    concurrency: u16,
}

/// Why there is nothing to tell, and what the process ends with.
struct End(String, u8);

impl End {
    fn failed(error: &(dyn std::error::Error + 'static)) -> Self {
        Self(causes(error), FAILED)
    }
}

/// Puts a set to two providers, and tells what comes of it.
pub(super) async fn replay(args: &ReplayArgs, format: Format) -> u8 {
    match played(args, format).await {
        Ok(code) => code,
        Err(End(text, code)) => complain(&text, code),
    }
}

async fn played(args: &ReplayArgs, format: Format) -> Result<u8, End> {
    let config =
        Config::load(&args.config).map_err(|faults| End(faults.to_string(), CONFIG_INVALID))?;
    let primary = args.primary.as_ref().unwrap_or(&config.primary);
    let providers = [provider(&config, primary)?, provider(&config, &args.candidate)?];
    if providers[0].name == providers[1].name {
        let text = format!("`{primary}` is the primary itself: name another candidate");
        return Err(End(text, Exit::Usage.code()));
    }
    let set = Arc::new(read(&args.set)?);
    clearance(&set, &config, providers.map(|it| &it.name))
        .map_err(|it| End(it.to_string(), Exit::Forbidden.code()))?;
    let place = Place::of(args, &config);
    let mut sides = open(&place, args.anew, &set, providers)?;
    let asker = Asker::new(&config, redactor(&config)).map_err(|error| End::failed(&error))?;
    let mut meter = Meter::new();
    let ran = tokio::select! {
        ran = golden::run(&set, &mut sides, Arc::new(asker), args.concurrency.into(), |it| meter.show(it)) => Some(ran),
        () = stop_signal(1) => None,
    };
    meter.end();
    let complete = match ran {
        Some(Ok(progress)) => tell_failed(&progress),
        Some(Err(error)) => return Err(stopped(&error)),
        None => {
            let text = "interrupted; what was answered is kept, and the same command goes on there";
            return Err(End(text.to_owned(), FAILED));
        }
    };
    let [(_, ours), (_, theirs)] = &sides;
    let rows = set
        .cases
        .iter()
        .map(|case| Row { case, answers: [ours.get(&case.id), theirs.get(&case.id)] });
    let figures = Figures::of(&set, &rows.collect::<Vec<_>>());
    keep(&place, &set, providers, &figures)?;
    let set_name = args.set.display().to_string();
    say(&outcome::told(&figures, &set_name, providers.map(|it| &it.name), format));
    Ok(if complete { DONE } else { FAILED })
}

fn provider<'a>(config: &'a Config, name: &Name) -> Result<&'a Provider, End> {
    config.provider(name).ok_or_else(|| {
        let known: Vec<&str> = config.providers.iter().map(|it| it.name.as_str()).collect();
        let text = format!("`{name}` is no provider of the configuration: {}", known.join(", "));
        End(text, Exit::Usage.code())
    })
}

fn read(path: &Path) -> Result<Set, End> {
    let faulty = |error: &(dyn std::error::Error + 'static)| {
        let why = causes(error);
        End(format!("`{}` is no golden set: {why}", path.display()), CONFIG_INVALID)
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| faulty(&error))?;
    file.take(SET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| faulty(&error))?;
    if u64::try_from(text.len()).is_ok_and(|it| SET_BYTES_MAX < it) {
        return Err(faulty(&io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    Set::parse(&text).map_err(|error| faulty(&error))
}

/// Where answers to a set are kept.
struct Place {
    folder: PathBuf,
    /// The name of the set.
    set: String,
}

impl Place {
    fn of(args: &ReplayArgs, config: &Config) -> Self {
        let folder = args.out.clone().unwrap_or_else(|| config.store.join(GOLDEN_FOLDER));
        let set = args.set.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self { folder, set }
    }
}

/// The answers of both that are kept.
fn open(
    Place { folder, set: name }: &Place,
    anew: bool,
    set: &Set,
    providers: [&Provider; 2],
) -> Result<[(Name, Answers); 2], End> {
    let side = |provider: &Provider| {
        let asked = Asked {
            set: name.clone(),
            digest: set.digest,
            provider: provider.name.clone(),
            identity: provider.identity(),
        };
        if anew {
            Answers::put_aside(folder, &asked).map_err(|error| End::failed(&error))?;
        }
        let answers = Answers::open(folder, &asked).map_err(|error| unusable(&error))?;
        Ok((provider.name.clone(), answers))
    };
    let [primary, candidate] = providers;
    Ok([side(primary)?, side(candidate)?])
}

/// Keeps what came of it for rollouts that stand behind it.
fn keep(place: &Place, set: &Set, providers: [&Provider; 2], figures: &Figures) -> Result<(), End> {
    let count = |it: usize| u64::try_from(it).unwrap_or(u64::MAX);
    let tasks = figures.quality.iter().filter_map(|it| {
        let [_, upper] = it.interval?;
        Some((format!("`{}` by {}", it.task, it.measure), upper))
    });
    let overall = figures.overall.as_ref();
    let replayed = Replayed {
        digest: set.digest,
        identities: providers.map(Provider::identity),
        missing: count(figures.cases - figures.both),
        cases: overall.map_or(0, |it| count(it.cases)),
        interval: overall.and_then(|it| it.interval).unwrap_or([-1.0, 1.0]),
        tasks: tasks.collect(),
    };
    let names = providers.map(|it| &it.name);
    Replays::keep(&place.folder, (&place.set, names), &replayed)
        .map_err(|error| End::failed(&error))
}

fn unusable(error: &AnswersError) -> End {
    let hint = match error {
        AnswersError::OtherSet(_) | AnswersError::OtherProvider { .. } => {
            "\nhint: --anew puts them aside and asks again; --out keeps the new ones elsewhere"
        }
        AnswersError::Damaged { .. } => "\nhint: --anew puts them aside and asks again",
        AnswersError::Busy(_) | AnswersError::File(_) => "",
    };
    End(format!("{}{hint}", causes(error)), FAILED)
}

fn stopped(error: &RunError) -> End {
    let text = format!(
        "{}\nhint: what was answered is kept; once this is mended the same command goes on there",
        causes(error)
    );
    End(text, FAILED)
}

/// Says which cases have no answer; whether all have one.
fn tell_failed(progress: &Progress) -> bool {
    let Some(first) = progress.failed.first() else {
        return progress.kept == progress.wanted;
    };
    let text = format!(
        "{} of {} answers are missing, such as one of {first}\nhint: the same command asks for \
         them again",
        progress.failed.len(),
        progress.wanted
    );
    complain(&text, DONE);
    false
}

/// Shows on standard error how far it is: a bar on a terminal, else a line for each tenth.
#[derive(Debug)]
struct Meter {
    screen: Screen,
    tenth: Option<usize>,
}

impl Meter {
    fn new() -> Self {
        let screen = if io::stderr().is_terminal() { Screen::Terminal } else { Screen::Lines };
        Self { screen, tenth: None }
    }

    fn show(&mut self, progress: &Progress) {
        let Progress { wanted, kept, failed } = progress;
        let done = kept + failed.len();
        let mut line = format!("{kept} of {wanted} answers");
        if !failed.is_empty() {
            line = format!("{line}, {} failed", failed.len());
        }
        let mut stream = io::stderr();
        // Nobody needs to see it.
        let _ = if self.screen == Screen::Terminal {
            let full = BAR_LEN * done / wanted.max(&1);
            let bar = "█".repeat(full) + &"░".repeat(BAR_LEN - full);
            write!(stream, "\r{bar} {line}\x1b[K").and_then(|()| stream.flush())
        } else {
            let tenth = 10 * done / wanted.max(&1);
            if self.tenth.replace(tenth) == Some(tenth) {
                return;
            }
            writeln!(stream, "{line}")
        };
    }

    /// Leaves the line of the bar.
    fn end(self) {
        if self.screen == Screen::Terminal {
            let _ = writeln!(io::stderr());
        }
    }
}
