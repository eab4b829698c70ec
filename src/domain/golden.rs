//! Golden sets: questions of which the answers are known, asked before any traffic is.

use super::hash;

/// The number of a golden set's text, which tells it from every other and from itself once changed.
pub fn golden_digest(text: &str) -> u64 {
    hash("golden-set", text)
}

/// What has to be known before the first stage of a rollout begins: that its candidate answers a
/// golden set about as well as its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Golden {
    /// The file of the set.
    pub file: String,
    /// The set's name: that of the file, without what stands behind its last dot.
    pub set: String,
    /// The number of its text.
    pub digest: u64,
    /// How much less of it the candidate may have right, in basis points.
    pub within_bps: u32,
}

/// What came of putting a golden set to two providers.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// The number of the set's text.
    pub digest: u64,
    /// The numbers of what was asked of the primary and of the candidate, and where.
    pub identities: [u64; 2],
    /// Cases that one of them has not answered.
    pub missing: u64,
    /// Cases that both have answered and of which the answer is known.
    pub cases: u64,
    /// The 95% interval of what the candidate has right more than the primary, −1 to 1.
    pub interval: [f64; 2],
    /// For each task and measure its name, and the upper end of the same interval.
    pub tasks: Vec<(String, f64)>,
}

impl Golden {
    /// Why the first stage may not begin between these providers; none where it may. It has to be
    /// proven over all cases that the candidate is within what is allowed, and in no task that it is
    /// not: an average hides one that is broken.
    pub fn obstacle(&self, replayed: Option<&Replayed>, identities: [u64; 2]) -> Option<String> {
        let Some(replayed) = replayed else {
            return Some("it was not put to these two providers".to_owned());
        };
        if replayed.digest != self.digest {
            return Some("it was changed since it was put to them".to_owned());
        }
        if replayed.identities != identities {
            return Some("they were configured otherwise when it was put to them".to_owned());
        }
        let Replayed { missing, cases, interval: [lower, upper], tasks, .. } = replayed;
        if 0 < *missing {
            return Some(format!("{missing} of its cases are not answered by both"));
        }
        if *cases == 0 {
            return Some("no answer is expected in it, and an opinion proves nothing".to_owned());
        }
        let allowed = f64::from(self.within_bps) / 10_000.0;
        let broken = tasks.iter().find(|(_, upper)| *upper < -allowed);
        let points = |part: f64| format!("{:+.1} pp", 100.0 * part);
        if let Some((task, upper)) = broken {
            return Some(format!(
                "in {task} the candidate is at best {} from the primary, and {} is allowed",
                points(*upper),
                points(-allowed)
            ));
        }
        let is_proven = -allowed <= *lower;
        (!is_proven).then(|| {
            format!(
                "the candidate is between {} and {} from the primary over {cases} cases, and {} \
                 has to be proven",
                points(*lower),
                points(*upper),
                points(-allowed)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_replay_of_this_set_and_these_providers_that_proves_it_lets_it_begin() {
        let set = "chat".to_owned();
        let golden = Golden { file: "chat.jsonl".to_owned(), set, digest: 7, within_bps: 200 };
        let tasks = vec![("mail by accuracy".to_owned(), 0.01)];
        let proven = Replayed {
            digest: 7,
            identities: [1, 2],
            missing: 0,
            cases: 900,
            interval: [-0.02, 0.01],
            tasks,
        };
        let obstacle =
            |replayed: Replayed| golden.obstacle(Some(&replayed), [1, 2]).unwrap_or_default();
        assert_eq!(obstacle(proven.clone()), "");
        assert!(golden.obstacle(None, [1, 2]).is_some_and(|it| it.contains("not put to")));
        assert!(golden.obstacle(Some(&proven), [1, 3]).is_some_and(|it| it.contains("configured")));
        assert!(obstacle(Replayed { digest: 8, ..proven.clone() }).contains("changed"));
        assert!(obstacle(Replayed { missing: 1, ..proven.clone() }).starts_with("1 of its cases"));
        assert!(obstacle(Replayed { cases: 0, ..proven.clone() }).contains("opinion"));
        let told = obstacle(Replayed { interval: [-0.021, 0.01], ..proven.clone() });
        assert!(
            told.contains("between -2.1 pp and +1.0 pp")
                && told.ends_with("-2.0 pp has to be proven"),
            "{told}"
        );
        let tasks =
            vec![("mail by accuracy".to_owned(), 0.01), ("tools by tool_calls".to_owned(), -0.5)];
        let told = obstacle(Replayed { tasks, ..proven.clone() });
        assert!(
            told.starts_with("in tools by tool_calls the candidate is at best -50.0 pp"),
            "{told}"
        );
        let nothing = Replayed { interval: [f64::NAN, f64::NAN], ..proven };
        assert!(!obstacle(nothing).is_empty(), "what is no number proves nothing");
    }
}
