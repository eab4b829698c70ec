//! What a proxy costs: direct, the least that hyper costs, nginx `mirror` and Crossfade, in turn in
//! one run, as ratios: short and long requests, streams, and the primary beside a candidate that
//! falls ill.
//!
//! Both providers and the load share one core, the measured program has another. A visit starts
//! a target, measures it and ends it; a round visits every target; rounds begin with another
//! target each. A visit that others disturbed is repeated. One wrong or missing answer fails
//! the run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its result")]

mod figures;
mod floor;
mod http;
mod load;
mod machine;
mod mock;
mod targets;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

use figures::{Figure, Figures, Round, percentile};
use load::{Delivery, Job, Size};
use machine::Ticks;
use mock::Plan;
use targets::{Candidate, Cores, Providers, Running, SLOW, Target, Via};

/// Anything that ends the run.
type Fault = Box<dyn Error + Send + Sync>;

/// Connections of the closed loop.
const CALLERS: u32 = 32;
/// Requests a second of the open loops.
const RATE: u32 = 200;
/// Streams a second.
const STREAM_RATE: u32 = 50;
/// What a provider takes where latency is measured.
const THINKING: Duration = Duration::from_millis(5);
/// Cores that others may use during a visit, and how often it is repeated for that.
const CALM: f64 = 0.2;
const TRIES: u32 = 3;
/// Rounds and seconds with `--quick`.
const QUICK: (usize, f64) = (2, 0.5);

/// Measures what a proxy costs, and prints Markdown tables of medians.
#[derive(Parser)]
struct Args {
    /// How often every target is visited.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Only these targets, such as `nginx`, `crossfade/100,crossfade/hang` or `crossfade/0/64k`;
    /// `direct` always, and `direct/64k` where it is compared with.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// 2 rounds of half a second: whether everything works, not how well.
    #[arg(long)]
    quick: bool,
    /// Be the minimal hyper proxy, between these.
    #[arg(long, hide = true)]
    floor: Option<floor::Ways>,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(ways) = args.floor {
        let Err(error) = floor::serve(ways) else { return ExitCode::SUCCESS };
        eprintln!("the minimal proxy failed: {error}");
        return ExitCode::FAILURE;
    }
    // Before there are threads: they inherit the cores.
    let cores = Cores::take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let work = async {
        tokio::select! {
            report = run(&args, cores) => report,
            fault = stopped() => Err(fault),
        }
    };
    match runtime.map_err(Fault::from).and_then(|it| it.block_on(work)) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, cores: Cores) -> Result<String, Fault> {
    let asked = (usize::from(args.rounds), args.seconds);
    let (rounds, seconds) = if args.quick { QUICK } else { asked };
    let nginx = targets::nginx_version();
    let targets = chosen(&args.only, nginx.is_some())?;
    let bench = Bench { cores, time: Duration::from_secs_f64(seconds) };
    let mut figures = Figures(Vec::new());
    for number in 0..rounds {
        let mut order = targets.clone();
        order.rotate_left(number % targets.len());
        let mut round = Round::new();
        for target in order {
            eprintln!("round {} of {rounds}: {target}", number + 1);
            let visited = bench.calmest(target, if args.quick { 1 } else { TRIES }).await;
            let said = |error| format!("{target}, round {}: {error}", number + 1);
            round.extend(visited.map_err(said)?);
        }
        figures.0.push(round);
    }
    let machine = machine::line(cores, nginx.as_deref(), figures.others());
    let tables = figures.tables(&targets);
    Ok(format!("{tables}\n{machine}; median of {rounds} rounds, {seconds} s a measurement.\n"))
}

/// Comes back when somebody ends the run early, so that its processes and files go too.
async fn stopped() -> Fault {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => return error.into(),
    };
    tokio::select! {
        interrupt = ctrl_c() => interrupt.err().map_or("interrupted".into(), Fault::from),
        _ = terminate.recv() => "told to stop".into(),
    }
}

/// What one run measures with.
struct Bench {
    cores: Cores,
    time: Duration,
}

impl Bench {
    /// Visits again while others use the machine too, and keeps the calmest visit.
    async fn calmest(&self, target: Target, tries: u32) -> Result<Round, Fault> {
        let mut kept: Option<(f64, Round)> = None;
        for _ in 0..tries {
            let then = Ticks::now();
            let mut round = Visit::start(target, self).await?.measure().await?;
            let Some(others) = then.zip(Ticks::now()).map(|(then, now)| now.others_since(&then))
            else {
                return Ok(round);
            };
            round.insert((target, Figure::Others), others);
            if kept.as_ref().is_none_or(|(least, _)| others < *least) {
                kept = Some((others, round));
            }
            if others < CALM {
                break;
            }
        }
        Ok(kept.map(|(_, round)| round).unwrap_or_default())
    }
}

/// A target that is measured.
struct Visit {
    target: Target,
    providers: Providers,
    running: Running,
    time: Duration,
    noted: Round,
}

impl Visit {
    async fn start(target: Target, bench: &Bench) -> Result<Self, Fault> {
        let providers = Providers::start().await?;
        let running = target.start(&providers, bench.cores).await?;
        Ok(Self { target, providers, running, time: bench.time, noted: Round::new() })
    }

    async fn measure(mut self) -> Result<Round, Fault> {
        if self.target.candidate == Candidate::Answers {
            self.throughput().await?;
            self.providers.set(Plan::Whole(THINKING));
            self.latency().await?;
            if self.target.size == Size::Small {
                self.streams().await?;
            }
            if let Some(kib) = self.running.memory_kib() {
                self.note(Figure::Memory, f64::from(kib) / 1_024.0);
            }
        } else {
            self.illness().await?;
        }
        self.running.stop().await?;
        Ok(self.noted)
    }

    async fn throughput(&mut self) -> Result<(), Fault> {
        let job = self.job();
        job.closed(CALLERS, self.time / 4).await?;
        let (asked, cpu) = (self.providers.asked(), self.running.cpu());
        let done = job.closed(CALLERS, self.time).await?;
        let answers = f64::from(done.answers);
        self.note(Figure::Throughput, answers / done.elapsed.as_secs_f64());
        self.note(Figure::Mirrored, self.mirrored_since(asked)?);
        if let (Some(before), Some(after)) = (cpu, self.running.cpu()) {
            self.note(Figure::Cpu, after.saturating_sub(before).as_secs_f64() * 1e6 / answers);
        }
        Ok(())
    }

    async fn latency(&mut self) -> Result<(), Fault> {
        let times = self.job().open(RATE, self.time).await?;
        let whole = times.iter().map(|it| it.whole);
        self.note_times([Figure::P50, Figure::P99], whole.collect());
        Ok(())
    }

    async fn streams(&mut self) -> Result<(), Fault> {
        self.providers.set(Plan::Stream);
        let expected = self.providers.primary.stream();
        let job = Job::new(self.running.address, self.target.size, &Delivery::Stream, &expected);
        let times = job.open(STREAM_RATE, self.time).await?;
        let begun = times.iter().map(|it| it.begun);
        self.note_times([Figure::BegunP50, Figure::BegunP99], begun.collect());
        let later = times.iter().flat_map(|it| it.pieces.iter().skip(1)).copied();
        self.note_times([Figure::PieceP50, Figure::PieceP99], later.collect());
        Ok(())
    }

    /// The primary's latency from when the candidate falls ill.
    async fn illness(&mut self) -> Result<(), Fault> {
        self.providers.set(Plan::Whole(THINKING));
        self.job().open(RATE, self.time / 4).await?;
        let candidate = &mut self.providers.candidate;
        match self.target.candidate {
            Candidate::Answers => {}
            Candidate::Hangs => candidate.set(Plan::Hang),
            Candidate::Slow => candidate.set(Plan::Whole(SLOW)),
            Candidate::Fails => candidate.set(Plan::Fail),
            Candidate::Dead => candidate.die().await,
        }
        let asked = self.providers.asked();
        self.latency().await?;
        // The dead count nobody.
        if self.target.candidate != Candidate::Dead {
            self.note(Figure::Mirrored, self.mirrored_since(asked)?);
        }
        Ok(())
    }

    fn job(&self) -> Arc<Job> {
        let expected = self.providers.primary.whole();
        Job::new(self.running.address, self.target.size, &Delivery::Whole, expected)
    }

    fn note(&mut self, figure: Figure, value: f64) {
        self.noted.insert((self.target, figure), value);
    }

    /// Notes the 50th and the 99th percentile.
    fn note_times(&mut self, figures: [Figure; 2], mut times: Vec<Duration>) {
        for (figure, percent) in figures.into_iter().zip([50, 99]) {
            self.note(figure, ms(percentile(&mut times, percent)));
        }
    }

    /// The share that was mirrored since then, in percent.
    fn mirrored_since(&self, then: (u32, u32)) -> Result<f64, Fault> {
        let (primary, candidate) = self.providers.asked();
        let (primary, candidate) = (primary - then.0, candidate - then.1);
        if (candidate == 0) != (self.target.percent == 0) {
            return Err(format!("{candidate} of {primary} requests were mirrored").into());
        }
        Ok(f64::from(candidate) * 100.0 / f64::from(primary))
    }
}

/// The targets that are asked for and can be run.
fn chosen(only: &[String], nginx: bool) -> Result<Vec<Target>, Fault> {
    let names = |word: &str, it: &Target| {
        let name = it.to_string();
        name == word || name.split('/').next() == Some(word)
    };
    let all = Target::all();
    if let Some(word) = only.iter().find(|word| !all.iter().any(|it| names(word, it))) {
        let known: Vec<String> = all.iter().map(Target::to_string).collect();
        return Err(format!("--only {word}: choose from {}", known.join(", ")).into());
    }
    let wanted = |it: &Target| only.is_empty() || only.iter().any(|word| names(word, it));
    let large = all.iter().any(|it| it.size == Size::Large && wanted(it));
    Ok(all
        .into_iter()
        .filter(|it| match it.via {
            Via::Direct => it.size == Size::Small || large,
            Via::Nginx => nginx && wanted(it),
            Via::Floor | Via::Crossfade => wanted(it),
        })
        .collect())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 600".to_owned()) }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
