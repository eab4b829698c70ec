//! Conversations with the stream, and flaws that only the whole controller could have.

use std::fmt::Write as _;

use super::{Numbers, PLAN, Simulation, stream};
use crate::analysis::{Chances, News, Observation, Said, Sample};
use crate::config;
use crate::domain::{Event, Lot, Mark, Name, Outcome, Plan, Splitmix, State, Timestamp, Watched};

/// The plan of a text with one stage for each share served: no gates but the named ones.
pub(super) fn plan(gates: &str, serve: &[&str]) -> (Name, Plan) {
    let mut text =
        "[rollout.x]\ncandidate = \"c\"\nmirror = \"2%\"\n[rollout.x.gates]\n".to_owned();
    for gate in ["error_rate", "latency_p99", "judge_score"] {
        if !gates.contains(gate) {
            writeln!(text, "{gate} = \"off\"").unwrap();
        }
    }
    writeln!(text, "{gates}").unwrap();
    for share in serve {
        writeln!(
            text,
            "[[rollout.x.stage]]\nname = \"at-{}\"\nserve = \"{share}\"\nduration = \"60s\"\nsamples = 50",
            share.trim_end_matches('%')
        )
        .unwrap();
    }
    let read = config::plan(&text, "the test's plan").unwrap_or_else(|it| panic!("{it}"));
    (read.name, read.plan)
}

/// What the stream answers to these lines, and why it ended early if it did.
fn answers(plan: (Name, Plan), lines: &str) -> (Vec<String>, Option<String>) {
    let mut output = Vec::new();
    let error = stream(plan, &mut lines.as_bytes(), &mut output).err();
    let text = String::from_utf8(output).unwrap();
    let error = error.map(|it| {
        let cause = std::error::Error::source(&it).map(|it| format!(": {it}")).unwrap_or_default();
        format!("{it}{cause}")
    });
    (text.lines().map(str::to_owned).collect(), error)
}

/// Holds a conversation: lines with `>` are sent, those with `<` begin the answers.
fn converse(plan: (Name, Plan), script: &str) {
    let part = |mark: &str| {
        let lines = script.lines().filter_map(|it| it.trim().strip_prefix(mark));
        lines.map(str::trim).collect::<Vec<_>>()
    };
    let (said, error) = answers(plan, &part(">").join("\n"));
    let expected = part("<");
    assert_eq!(error, None);
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        let said: serde_json::Value = serde_json::from_str(said).unwrap();
        let said = format!("{} {}", said["d"].as_str().unwrap(), said["why"].as_str().unwrap());
        assert!(said.starts_with(expected), "`{said}` is not `{expected}…`");
    }
}

fn default_plan() -> (Name, Plan) {
    let read = config::plan(PLAN, "config/simulate.toml").unwrap_or_else(|it| panic!("{it}"));
    (read.name, read.plan)
}

#[test]
fn the_default_plan_proves_the_percentile_from_the_third_stage_on() {
    let (_, plan) = default_plan();
    assert_eq!(plan.faults(), []);
    let proven = plan
        .stages
        .iter()
        .map(|it| it.gates.iter().filter(|gate| gate.role == crate::domain::Role::Prove).count());
    assert_eq!(proven.collect::<Vec<_>>(), [3, 3, 4, 4, 4]);
}

#[test]
fn silence_holds_and_names_what_is_not_proven() {
    converse(
        default_plan(),
        r#"
        > {"e":"tick","t":0.5}
        < hold no stage has begun
        > {"e":"stage","t":1.0,"index":0,"rho_p":1.0,"rho_c":0.05}
        > {"e":"tick","t":2.0}
        < hold not proven: error_rate, judge_score, cost
        > {"e":"tick","t":90.0}
        < hold gate `error_rate` of stage `shadow` is undecided: difference
        "#,
    );
}

#[test]
fn a_dead_candidate_is_sent_back_at_the_next_tick_and_stays_there() {
    converse(
        default_plan(),
        r#"
        > {"e":"stage","t":0,"index":0,"rho_p":1,"rho_c":0.05}
        > {"e":"obs","t":0.1,"id":1,"p":{"ok":true,"ms":800,"usd":0.001},"c":{"ok":false,"ms":3}}
        > {"e":"obs","t":0.2,"id":2,"p":{"ok":true,"ms":800,"usd":0.001},"c":{"ok":false,"ms":3}}
        > {"e":"obs","t":0.3,"id":3,"p":{"ok":true,"ms":800,"usd":0.001},"c":{"ok":false,"ms":3}}
        > {"e":"obs","t":0.4,"id":4,"p":{"ok":true,"ms":800,"usd":0.001},"c":{"ok":false,"ms":3}}
        > {"e":"obs","t":0.5,"id":5,"p":{"ok":true,"ms":800,"usd":0.001},"c":{"ok":false,"ms":3}}
        > {"e":"obs","t":0.6,"id":6,"p":{"ok":true,"ms":800,"usd":0.001},"c":{"ok":false,"ms":3}}
        > {"e":"tick","t":1.0}
        < rollback error_rate: +100.000 pp, interval [
        > {"e":"obs","t":1.1,"id":7,"p":{"ok":true,"ms":800},"c":{"ok":true,"ms":700}}
        > {"e":"score","p":0.9,"c":0.9}
        > {"e":"tick","t":2.0}
        < rollback error_rate: +100.000 pp, interval [
        "#,
    );
}

#[test]
fn the_tripwire_sees_what_no_gate_asks_for() {
    let dead = r#"{"e":"obs","t":0.1,"p":null,"c":{"ok":true,"class":"timeout","ms":30}}"#;
    let lines = format!(
        "{}\n{}\n{}",
        r#"{"e":"stage","t":0,"index":0,"rho_p":0.5,"rho_c":0.5}"#,
        [dead; 5].join("\n"),
        r#"{"e":"tick","t":1}"#
    );
    let (said, error) = answers(plan("latency_p99 = \"+200ms\"", &["50%"]), &lines);
    assert_eq!((said, error), (vec![r#"{"d":"rollback","why":"tripwire"}"#.to_owned()], None));
}

#[test]
fn a_slice_that_breaks_goes_back_by_name_whatever_the_average_says() {
    let (name, plan) = plan("error_rate = \"+20pp\"", &["0%"]);
    let values = ["tools", "text"].map(str::to_owned).into();
    let watched = Plan { watched: Some(Watched { by: Mark::Task, values }), ..plan.clone() };
    let mut lines = r#"{"e":"stage","t":0,"index":0,"rho_p":1,"rho_c":1}"#.to_owned();
    for second in 1..900 {
        let (ok, slice) = match second % 30 {
            0 => (false, r#","slice":"tools""#),
            1 => (true, r#","slice":"elsewhere""#),
            2..15 => (true, ""),
            _ => (true, r#","slice":"text""#),
        };
        let sides = format!(r#""p":{{"ok":true,"ms":9}},"c":{{"ok":{ok},"ms":9}}"#);
        writeln!(lines, "\n{{\"e\":\"obs\",\"t\":{second},{sides}{slice}}}").unwrap();
    }
    lines.push_str(r#"{"e":"tick","t":900}"#);
    let (said, error) = answers((name.clone(), plan), &lines);
    assert_eq!(error, None);
    assert!(said[0].contains("advance"), "{said:?}");
    let (said, error) = answers((name, watched), &lines);
    assert_eq!(error, None);
    assert!(said[0].contains("rollback"), "{said:?}");
    assert!(said[0].contains("error_rate in slice `tools`: +100.000 pp"), "{said:?}");
}

#[test]
fn unknown_fields_are_passed_over_and_throttled_calls_say_nothing_of_errors() {
    let mut lines = r#"{"e":"stage","t":0,"index":0,"rho_p":1,"rho_c":1,"new":[1,{}]}"#.to_owned();
    for second in 1..60 {
        let throttled = r#"{"ok":false,"class":"throttled","ms":3,"why":"quota"}"#;
        let well = r#"{"ok":true,"ms":3}"#;
        writeln!(lines, "\n{{\"e\":\"obs\",\"t\":{second},\"p\":{well},\"c\":{throttled}}}")
            .unwrap();
    }
    lines.push_str(r#"{"e":"tick","t":60.0}"#);
    let (said, error) = answers(plan("error_rate = \"+1pp\"", &["0%"]), &lines);
    assert_eq!(error, None);
    assert!(said[0].contains("hold"), "{said:?}");
}

#[test]
fn a_line_that_makes_no_sense_is_told_by_its_number() {
    let begin = r#"{"e":"stage","t":0,"index":0,"rho_p":1,"rho_c":1}"#;
    for (line, told) in [
        ("", ""),
        ("nonsense", "expected"),
        (r#"{"e":"begin","t":1}"#, "unknown variant"),
        (r#"{"e":"obs","t":-1}"#, "`t` is a time"),
        (r#"{"e":"obs","t":1e300}"#, "`t` is a time"),
        (r#"{"e":"obs"}"#, "`t` is a time"),
        (r#"{"e":"obs","t":1,"p":0.5}"#, "`p` and `c` are calls"),
        (r#"{"e":"obs","t":1,"p":{"ok":true}}"#, "missing field `ms`"),
        (r#"{"e":"obs","t":1,"p":{"ok":true,"ms":1,"class":"bad"}}"#, "one of ok, provider_error"),
        (r#"{"e":"score","p":0.5}"#, "are scores"),
        (r#"{"e":"stage","t":1,"index":5,"rho_p":1,"rho_c":1}"#, "`index` is 0 to 4"),
        (r#"{"e":"stage","t":1,"index":1,"rho_p":1,"rho_c":1.5}"#, "are chances"),
    ] {
        let (_, error) = answers(default_plan(), &format!("{begin}\n{line}\n"));
        let error = error.unwrap_or_default();
        assert_eq!(error.contains("line 2"), !told.is_empty(), "{line}: {error}");
        assert!(error.contains(told), "{line}: {error}");
    }
    let long = format!("{begin}\n{}", " ".repeat(1 << 17) + begin);
    assert!(
        answers(default_plan(), &long).1.unwrap().contains("line 2 makes no sense: it is longer")
    );
    let early = r#"{"e":"stage","t":0,"index":1,"rho_p":1,"rho_c":1}"#;
    assert!(answers(default_plan(), early).1.unwrap().contains("stage 1 cannot begin"));
}

/// A request in no watched slice.
pub(super) fn seen(lot: Option<Lot>, primary: Option<Sample>, candidate: Option<Sample>) -> Said {
    Said::Request(Observation { lot, primary, candidate, watched: String::new() })
}

pub(super) fn news(at: Timestamp, said: Said) -> News {
    News { at, made: at, said }
}

/// Seeded randomness.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// Uniform in [0, 1).
    pub(super) fn uniform(&mut self) -> f64 {
        let mut numbers = Splitmix(self.0);
        let bits = numbers.roll();
        self.0 = numbers.0;
        f64::from(u32::try_from(bits >> 32).unwrap()) / 4_294_967_296.0
    }

    pub(super) fn happens(&mut self, chance: f64) -> bool {
        self.uniform() < chance
    }

    /// Log-normal around one.
    pub(super) fn spread(&mut self, sigma: f64) -> f64 {
        let (radius, angle) = (1.0 - self.uniform(), self.uniform());
        (sigma * (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()).exp()
    }
}

#[test]
fn a_hundred_thousand_requests_pass_and_an_equal_candidate_reaches_the_end() {
    let (name, plan) = plan("error_rate = \"+2pp\"", &["0%", "50%", "100%"]);
    let (mut random, mut index) = (Random(5), 0);
    let (mut simulation, mut lines) = (Simulation::new(name.clone(), plan.clone()), String::new());
    let chances = |index: usize| Chances::of(&plan.stages[index]);
    let stage = |lines: &mut String, second: u64, index: usize| {
        let Chances { primary, candidate, .. } = chances(index);
        writeln!(
            lines,
            r#"{{"e":"stage","t":{second},"index":{index},"rho_p":{primary},"rho_c":{candidate}}}"#
        )
        .unwrap();
    };
    simulation.start(Timestamp(0), chances(0)).unwrap();
    stage(&mut lines, 0, 0);
    let mut seconds = 0;
    // The same world twice: here to learn how it is to be routed, then as a stream.
    for second in 0..1_000 {
        let chances = chances(index);
        for _ in 0..100 {
            let both = random.happens(0.02);
            let served = random.happens((chances.candidate - 0.02) / 0.98);
            let mut side = |seen: bool| {
                let (ok, ms) = (!random.happens(0.002), 800.0 * random.spread(0.5));
                seen.then_some((ok, ms))
            };
            let (p, c) = (side(both || !served), side(both || served));
            let say = |side: Option<(bool, f64)>| {
                side.map_or_else(
                    || "null".to_owned(),
                    |(ok, ms)| format!(r#"{{"ok":{ok},"ms":{ms},"usd":0.001}}"#),
                )
            };
            let (p_said, c_said) = (say(p), say(c));
            writeln!(lines, r#"{{"e":"obs","t":{second}.5,"id":1,"p":{p_said},"c":{c_said}}}"#)
                .unwrap();
            let sample = |(ok, ms): (bool, f64)| sample(ok, ms, 0.001);
            let (lot, primary, candidate) = (Some(Lot::Once), p.map(sample), c.map(sample));
            let at = Timestamp(second * 1_000 + 500);
            simulation.hear(&news(at, seen(lot, primary, candidate)));
        }
        seconds = second + 1;
        writeln!(lines, r#"{{"e":"tick","t":{seconds}}}"#).unwrap();
        let at = Timestamp(seconds * 1_000);
        if simulation.rollout().state() == State::Running
            && let Ok(event) = simulation.decide(at, Numbers::Spared)
        {
            if let Event::StageEntered { stage: next, .. } = event {
                index = next;
                stage(&mut lines, seconds, index);
            }
            simulation.apply(at, &event, Chances::of(&plan.stages[index]));
        }
    }
    let (said, error) = answers((name, plan), &lines);
    assert_eq!((error, said.len()), (None, usize::try_from(seconds).unwrap()));
    assert!(said.last().unwrap().contains("succeeded"), "{:?}", said.last());
    let advanced = said.iter().filter(|it| it.contains("advance")).count();
    assert_eq!((advanced, simulation.rollout().state()), (3, State::Succeeded));
}

pub(super) fn sample(ok: bool, ms: f64, usd: f64) -> Sample {
    Sample {
        outcome: if ok { Outcome::Ok } else { Outcome::ProviderError },
        total_ms: ms,
        first_byte_ms: None,
        output_tokens: None,
        usd: Some(usd),
        checks: crate::domain::Checks::default(),
        answer_chars: None,
        rouge_l: None,
        input_tokens: None,
        estimated: false,
    }
}

/// Plays pairs, ten a second, and asks for the next step every ten seconds. True if it is
/// ever to be left forward.
fn is_ever_left(gates: &str, pairs: u64, mut pair: impl FnMut(&mut Simulation, Timestamp)) -> bool {
    let (name, plan) = plan(gates, &["0%"]);
    let mut simulation = Simulation::new(name, plan);
    simulation.start(Timestamp(0), Chances::default()).unwrap();
    (1..=pairs).any(|number| {
        let at = Timestamp(number * 100);
        pair(&mut simulation, at);
        number % 100 == 0 && simulation.decide(at, Numbers::Spared).is_ok()
    })
}

fn both(simulation: &mut Simulation, at: Timestamp, primary: Sample, candidate: Sample) {
    let (primary, candidate) = (Some(primary), Some(candidate));
    simulation.hear(&news(at, seen(None, primary, candidate)));
}

#[test]
fn a_candidate_that_costs_seventy_percent_never_passes_a_limit_of_forty() {
    const GATE: &str = "cost = \"<= 40%, expected 30%, each <= 0.04096\"";
    for seed in 0..8 {
        let mut random = Random(seed);
        assert!(!is_ever_left(GATE, 3_000, |simulation, at| {
            let usd = (0.004 * random.spread(0.8)).min(0.04);
            let theirs = (0.7 * usd * random.spread(0.4)).min(0.04);
            both(simulation, at, sample(true, 1.0, usd), sample(true, 1.0, theirs));
        }));
        // As dear on the whole, by a few calls above the bound of any call.
        assert!(!is_ever_left(GATE, 3_000, |simulation, at| {
            let usd = (0.004 * random.spread(0.8)).min(0.04);
            let theirs = if random.happens(0.01) { 0.2 } else { 0.2 * usd };
            both(simulation, at, sample(true, 1.0, usd), sample(true, 1.0, theirs));
        }));
        // What keeps to the limit passes, or the above would mean nothing.
        assert!(is_ever_left(GATE, 3_000, |simulation, at| {
            let usd = (0.004 * random.spread(0.8)).min(0.04);
            both(simulation, at, sample(true, 1.0, usd), sample(true, 1.0, 0.2 * usd));
        }));
    }
}

#[test]
fn failures_whose_copies_are_lost_never_prove_a_candidate_safe() {
    const GATE: &str = "error_rate = \"+0.5pp\"";
    let (well, bad) = (sample(true, 1.0, 0.0), sample(false, 1.0, 0.0));
    for seed in 0..4 {
        let mut random = Random(seed);
        let mut lost = |simulation: &mut Simulation, at: Timestamp, told: Told| {
            let primary = if random.happens(0.002) { bad } else { well };
            match (random.happens(0.02), told) {
                (false, _) => both(simulation, at, primary, well),
                (true, Told::Lost) => {
                    simulation.hear(&news(at, Said::CopyLost));
                }
                (true, Told::Nothing) => {}
            }
        };
        assert!(!is_ever_left(GATE, 10_000, |it, at| lost(it, at, Told::Lost)), "seed {seed}");
        assert!(is_ever_left(GATE, 10_000, |it, at| lost(it, at, Told::Nothing)), "seed {seed}");
    }
}

#[derive(Clone, Copy)]
enum Told {
    Lost,
    Nothing,
}

/// Turns of a conversation, and conversations going on at a time.
const TURNS: u64 = 30;
const TOGETHER: u64 = 50;

/// How many of some identical pairs of arms are sent back, where the conversations that fail
/// do so in each of their turns and half of them go to the candidate.
fn sent_back(seeds: u64, lot: impl Fn(u64) -> Lot) -> usize {
    let went_back = |seed: &u64| {
        let mut random = Random(*seed);
        let (name, plan) = plan("error_rate = \"+0.5pp\"", &["50%"]);
        let mut simulation = Simulation::new(name, plan);
        let half = Chances { primary: 0.5, candidate: 0.5, ..Chances::default() };
        simulation.start(Timestamp(0), half).unwrap();
        let mut at = Timestamp(0);
        for round in 0..8 {
            let conversations: Vec<(u64, bool, bool)> = (0..TOGETHER)
                .map(|it| (round * TOGETHER + it, random.happens(0.5), random.happens(0.03)))
                .collect();
            for turn in 0..TURNS * TOGETHER {
                let place = usize::try_from(turn % TOGETHER).unwrap();
                let (key, candidate, fails) = conversations[place];
                let call = Some(sample(!fails, 1_000.0, 0.0));
                let sides = if candidate { (None, call) } else { (call, None) };
                at = Timestamp(at.0 + 20);
                let (lot, primary, candidate) = (Some(lot(key)), sides.0, sides.1);
                simulation.hear(&news(at, seen(lot, primary, candidate)));
            }
        }
        simulation.rollout().state() == State::RolledBack
    };
    (0..seeds).filter(went_back).count()
}

#[test]
fn conversations_of_thirty_turns_count_once_and_keep_the_level() {
    assert_eq!(sent_back(12, Lot::Sticky), 0);
    // Each turn for itself would be thirty times the evidence there is.
    let each = sent_back(12, |_| Lot::Once);
    assert!(2 < each, "{each} of 12");
}
