//! What the numbers hold for: the machine, and how much of it others used meanwhile.

use std::fs;

use crate::targets::Cores;

/// The clock ticks of the processor so far; the unit cancels out.
pub(crate) struct Ticks {
    all: u32,
    busy: u32,
    /// Those of this process and of all that it has waited for.
    own: u32,
}

impl Ticks {
    /// Reads `/proc`; none where that is missing.
    pub(crate) fn now() -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let ticks: Vec<i64> = numbers(stat.lines().next()?.strip_prefix("cpu")?);
        // user, nice, system, idle, iowait, irq, softirq, steal; interrupts are mostly our own.
        let busy: i64 = [0, 1, 2, 7].iter().filter_map(|it| ticks.get(*it)).sum();
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        // After the name: state and ten numbers, then user, system, and those of ended children.
        let own: Vec<i64> = numbers(own.rsplit(')').next()?.trim_start().get(1..)?);
        Some(Self {
            all: u32::try_from(ticks.iter().take(8).sum::<i64>()).ok()?,
            busy: u32::try_from(busy).ok()?,
            own: u32::try_from(own.get(10..14)?.iter().sum::<i64>()).ok()?,
        })
    }

    /// How many cores others kept busy since then, on average.
    pub(crate) fn others_since(&self, then: &Self) -> f64 {
        let busy = f64::from(self.busy.saturating_sub(then.busy));
        let own = f64::from(self.own.saturating_sub(then.own));
        let all = f64::from(self.all.saturating_sub(then.all).max(1));
        let cores = u32::try_from(count()).map_or(1.0, f64::from);
        (busy - own).max(0.0) / all * cores
    }
}

/// One line about the machine, and how many cores of it others used.
pub(crate) fn line(cores: Cores, nginx: Option<&str>, others: Option<f64>) -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|it| it.strip_prefix("model name")?.split(": ").nth(1));
    let pinned = match cores {
        Cores::Apart => "one for the measured program alone",
        Cores::Shared => "shared by everything",
    };
    let nginx = nginx.map_or("nginx is not installed".to_owned(), |it| format!("nginx {it}"));
    let others = others.map(|it| format!("; other programs used {it:.1} cores meanwhile"));
    let model = model.unwrap_or("unknown processor");
    format!("{model}, {} cores, {pinned}; {nginx}{}", count(), others.unwrap_or_default())
}

/// Cores of the machine, not only those that this process may use.
fn count() -> usize {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|it| it.starts_with("processor")).count().max(1)
}

fn numbers(text: &str) -> Vec<i64> {
    text.split_whitespace().filter_map(|it| it.parse().ok()).collect()
}
