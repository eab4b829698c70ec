//! What a proxy costs: direct, the least that hyper costs, nginx `mirror` and Crossfade, interleaved
//! in one run, as ratios.
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

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Parser;
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

use figures::{Figure, Figures, Round, percentile};
use load::{Delivery, Job, Times};
use machine::Ticks;
use mock::{Mock, Plan};
use targets::{Candidate, Cores, Providers, Running, Target, Via};

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
    /// Only these targets, such as `nginx` or `crossfade/100,crossfade/hang`; `direct` always.
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
    let providers = Providers {
        primary: Mock::start("primary").await?,
        candidate: Mock::start("candidate").await?,
    };
    let bench = Bench { providers, cores, time: Duration::from_secs_f64(seconds) };
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
    providers: Providers,
    cores: Cores,
    time: Duration,
}

impl Bench {
    /// Visits again while others use the machine too, and keeps the calmest visit.
    async fn calmest(&self, target: Target, tries: u32) -> Result<Round, Fault> {
        let mut kept: Option<(f64, Round)> = None;
        for _ in 0..tries {
            let then = Ticks::now();
            let mut round = self.visit(target).await?;
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

    async fn visit(&self, target: Target) -> Result<Round, Fault> {
        let mut round = Round::new();
        self.plan(Plan::Whole(Duration::ZERO));
        if target.candidate == Candidate::Hangs {
            self.providers.candidate.set(Plan::Hang);
        }
        let running = target.start(&self.providers, self.cores).await?;
        let mut note = |figure, value| {
            round.insert((target, figure), value);
        };
        match target.candidate {
            Candidate::Answers => {
                self.throughput(target, &running, &mut note).await?;
                self.plan(Plan::Whole(THINKING));
                self.latency(&running, &mut note).await?;
                self.plan(Plan::Stream);
                self.streams(&running, &mut note).await?;
                if let Some(kib) = running.memory_kib() {
                    note(Figure::Memory, f64::from(kib) / 1_024.0);
                }
            }
            Candidate::Hangs => {
                self.providers.primary.set(Plan::Whole(THINKING));
                let asked = self.asked();
                self.latency(&running, &mut note).await?;
                note(Figure::Mirrored, self.mirrored_since(asked, target)?);
            }
        }
        running.stop().await?;
        Ok(round)
    }

    async fn throughput(
        &self,
        target: Target,
        running: &Running,
        note: &mut impl FnMut(Figure, f64),
    ) -> Result<(), Fault> {
        let job = Job::new(running.address, &Delivery::Whole, self.providers.primary.whole());
        job.closed(CALLERS, self.time / 4).await?;
        let (asked, cpu) = (self.asked(), running.cpu());
        let done = job.closed(CALLERS, self.time).await?;
        let answers = f64::from(done.answers);
        note(Figure::Throughput, answers / done.elapsed.as_secs_f64());
        note(Figure::Mirrored, self.mirrored_since(asked, target)?);
        if let (Some(before), Some(after)) = (cpu, running.cpu()) {
            note(Figure::Cpu, after.saturating_sub(before).as_secs_f64() * 1e6 / answers);
        }
        Ok(())
    }

    async fn latency(
        &self,
        running: &Running,
        note: &mut impl FnMut(Figure, f64),
    ) -> Result<(), Fault> {
        let job = Job::new(running.address, &Delivery::Whole, self.providers.primary.whole());
        let times = job.open(RATE, self.time).await?;
        let whole = |it: &Times| it.whole;
        let mut times: Vec<Duration> = times.iter().map(whole).collect();
        note(Figure::P50, ms(percentile(&mut times, 50)));
        note(Figure::P99, ms(percentile(&mut times, 99)));
        Ok(())
    }

    async fn streams(
        &self,
        running: &Running,
        note: &mut impl FnMut(Figure, f64),
    ) -> Result<(), Fault> {
        let job = Job::new(running.address, &Delivery::Stream, &self.providers.primary.stream());
        let times = job.open(STREAM_RATE, self.time).await?;
        let begun = |it: &Times| it.begun;
        let mut times: Vec<Duration> = times.iter().map(begun).collect();
        note(Figure::BegunP50, ms(percentile(&mut times, 50)));
        note(Figure::BegunP99, ms(percentile(&mut times, 99)));
        Ok(())
    }

    fn plan(&self, plan: Plan) {
        self.providers.primary.set(plan);
        self.providers.candidate.set(plan);
    }

    fn asked(&self) -> (u32, u32) {
        (self.providers.primary.asked(), self.providers.candidate.asked())
    }

    /// The share that was mirrored since then, in percent.
    fn mirrored_since(&self, then: (u32, u32), target: Target) -> Result<f64, Fault> {
        let (primary, candidate) = self.asked();
        let (primary, candidate) = (primary - then.0, candidate - then.1);
        if (candidate == 0) != (target.percent == 0) {
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
    Ok(all
        .into_iter()
        .filter(|it| match it.via {
            Via::Direct => true,
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
