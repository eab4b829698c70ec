//! What a rehearsal shows while it plays: a live ladder on a terminal, plain lines elsewhere.

use std::{
    collections::HashMap,
    io::{self, Write},
    time::{Duration, Instant},
};

use crate::api::proto::{Rollout, rollout::State};
use crate::clock;
use crate::listeners::Addresses;

use super::plan::Plan;

/// How a rehearsal is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Redrawn in place, for a terminal.
    Live,
    /// A line for each change.
    Lines,
    /// Nothing.
    Silent,
}

/// Where a rehearsal is shown.
pub struct Screen {
    style: Style,
    out: Box<dyn Write + Send>,
    title: String,
    started: Instant,
    /// Lines drawn last, to be drawn over.
    drawn: usize,
    /// What was last said of each rollout.
    said: HashMap<String, String>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("style", &self.style).finish_non_exhaustive()
    }
}

impl Screen {
    /// Shows on `out`.
    pub fn new(style: Style, title: &str, out: Box<dyn Write + Send>) -> Self {
        let (title, started) = (title.to_owned(), clock::instant());
        Self { style, out, title, started, drawn: 0, said: HashMap::new() }
    }

    /// Says what is about to be played, and where it can be watched.
    pub(super) fn begin(&mut self, addresses: &Addresses, plan: &Plan) -> io::Result<()> {
        if self.style == Style::Silent {
            return Ok(());
        }
        let out = &mut self.out;
        writeln!(out, "{}", self.title)?;
        writeln!(
            out,
            "  proxy http://{}/v1   control {}   operations http://{}/metrics",
            addresses.data, addresses.control, addresses.operations
        )?;
        let rollouts = plan.rollouts().len();
        writeln!(
            out,
            "  {} players, {rollouts} rollouts at {} requests a second each, seed {}\n",
            plan.player.len(),
            plan.traffic.rate,
            plan.traffic.seed
        )
    }

    /// Shows where every rollout stands.
    pub(super) fn show(&mut self, rollouts: &[Rollout]) -> io::Result<()> {
        let mut rollouts: Vec<&Rollout> = rollouts.iter().collect();
        rollouts.sort_by(|a, b| a.name.cmp(&b.name));
        match self.style {
            Style::Live => self.redraw(&rollouts),
            Style::Lines => self.lines(&rollouts),
            Style::Silent => Ok(()),
        }
    }

    fn redraw(&mut self, rollouts: &[&Rollout]) -> io::Result<()> {
        let mut lines = Vec::new();
        for rollout in rollouts {
            lines.push(format!("{:<12} {}", short(rollout), ladder(rollout)));
            lines.extend(rollout.evidence.iter().map(|gate| {
                let mark = crate::api::proto::gate_evidence::Verdict::try_from(gate.verdict);
                let mark = mark.map_or("", |it| it.as_str_name().trim_start_matches("VERDICT_"));
                format!(
                    "{:14}{:<12} {:+9.3} {:<5} bound {:+9.3}   proven {:>3.0}%  harm {:>3.0}%  n={:<6} {}",
                    "", gate.metric, gate.difference, gate.unit, gate.bound,
                    gate.safe * 100.0, gate.harm * 100.0, gate.samples, mark.to_lowercase()
                )
            }));
            lines.push(format!("{:14}{}", "", rollout.status_message));
        }
        // Without wrapping, so that a line is a line however narrow the terminal.
        write!(self.out, "\x1b[?7l")?;
        if 0 < self.drawn {
            write!(self.out, "\x1b[{}A", self.drawn)?;
        }
        for line in &lines {
            writeln!(self.out, "\x1b[2K{line}")?;
        }
        // What was there before and is longer would stay below.
        write!(self.out, "\x1b[J\x1b[?7h")?;
        self.drawn = lines.len();
        self.out.flush()
    }

    fn lines(&mut self, rollouts: &[&Rollout]) -> io::Result<()> {
        let seconds = self.started.elapsed().as_secs_f32();
        for rollout in rollouts {
            let says = ladder(rollout);
            let before = self.said.insert(rollout.name.clone(), says.clone());
            if before.as_ref() == Some(&says) {
                continue;
            }
            let end = match rollout.state() {
                State::RolledBack => format!("  {}", rollout.status_message),
                State::Unspecified
                | State::Pending
                | State::Running
                | State::Paused
                | State::AwaitingApproval
                | State::Succeeded
                | State::Baked => String::new(),
            };
            writeln!(self.out, "{seconds:6.1}s  {:<12} {says}{end}", short(rollout))?;
        }
        self.out.flush()
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

fn short(rollout: &Rollout) -> &str {
    rollout.name.trim_start_matches("rollouts/")
}

/// `✔shadow ▶read-only ·low-stakes`, and how it ended.
fn ladder(rollout: &Rollout) -> String {
    let current = usize::try_from(rollout.stage_index).unwrap_or(0);
    let state = rollout.state();
    let rungs = rollout.stages.iter().enumerate().map(|(index, stage)| {
        let mark = match (index.cmp(&current), state) {
            (_, State::Pending) => '·',
            (std::cmp::Ordering::Less, _) | (_, State::Succeeded | State::Baked) => '✔',
            (std::cmp::Ordering::Equal, State::RolledBack) => '✖',
            (std::cmp::Ordering::Equal, _) => '▶',
            (std::cmp::Ordering::Greater, _) => '·',
        };
        format!("{mark}{}", stage.stage_id)
    });
    let end = match state {
        State::Succeeded | State::Baked => "  SUCCEEDED",
        State::RolledBack => "  ROLLED BACK",
        State::AwaitingApproval => "  waits for approval",
        State::Paused => "  paused",
        State::Unspecified | State::Pending | State::Running => "",
    };
    format!("{}{end}", rungs.collect::<Vec<_>>().join(" "))
}
