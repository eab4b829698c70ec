//! Gates: the limits a candidate must keep to.

use super::{Check, Margin};

/// What a gate looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Share of calls that failed through the provider's fault.
    ErrorRate,
    /// 99th percentile of the time to the last byte.
    LatencyP99,
    /// Mean score by the judge.
    JudgeScore,
    /// What the candidate's answers cost, as a part of what the primary's cost.
    Cost,
    /// 99th percentile of the time to the first byte of the body.
    TtftP99,
    /// Share of calls whose stream ended without its end mark.
    TruncatedRate,
    /// Share of calls in which the model declined to answer, in the words of its dialect or in
    /// plain ones.
    RefusalRate,
    /// Share of answers that are valid by the JSON Schema that was given.
    SchemaValidRate,
    /// Output tokens of the candidate, as a part of the primary's.
    OutputTokensRatio,
    /// Mean score by those whom the answers were for.
    Feedback,
    /// Share of answers that are JSON, among those that were asked to be.
    JsonValidRate,
    /// Share of answers whose tool calls can be made, among those that were offered tools.
    ToolCallValidRate,
    /// Share of answers that say nothing.
    EmptyRate,
    /// Share of answers that a limit of their length cut off.
    LengthCutRate,
    /// Share of answers that were given to several other questions too.
    RepeatedRate,
    /// Share of answers in another language than their question.
    LanguageSwitchRate,
    /// Share of answers that call the same tools alike as the primary's, among those of which one
    /// calls any.
    ToolCallMatchRate,
    /// Share of answers that say the same as the primary's.
    ExactMatchRate,
    /// Share of answers that give the primary's label, where that gives one.
    LabelMatchRate,
    /// Mean ROUGE-L of the candidate's answers against the primary's.
    RougeL,
    /// Characters of the candidate's answers, as a part of the primary's.
    LengthRatio,
    /// The candidate's part of the comparisons that people make blind.
    HumanWinRate,
    /// Enough of the primary's quality, by the judge, at little enough of its cost, in one of two
    /// tiers.
    Readiness,
}

/// How a metric is measured, and so which instrument proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A share of calls: each either is one or is not.
    Rate(Better),
    /// The 99th percentile of a time in milliseconds; lower is better.
    Quantile,
    /// The mean of paired scores, 0 to 1; higher is better.
    Score,
    /// The same of scores that callers give to the answers they got, of one side each.
    Opinion,
    /// The mean of how much the answers of pairs are alike, 0 to 1; higher is better.
    Likeness,
    /// The part of comparisons that each side wins, 0 to 1, ties half; higher is better.
    Preference,
    /// A sum of paired amounts, compared as a part of the primary's; lower is better.
    Ratio,
    /// A score and a sum of amounts at once, in one of two ways.
    Tiers,
}

/// Which way a rate should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// What is counted is bad.
    Lower,
    /// What is counted is good.
    Higher,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 23] = [
        Self::ErrorRate,
        Self::LatencyP99,
        Self::JudgeScore,
        Self::Cost,
        Self::TtftP99,
        Self::TruncatedRate,
        Self::RefusalRate,
        Self::SchemaValidRate,
        Self::OutputTokensRatio,
        Self::Feedback,
        Self::JsonValidRate,
        Self::ToolCallValidRate,
        Self::EmptyRate,
        Self::LengthCutRate,
        Self::RepeatedRate,
        Self::LanguageSwitchRate,
        Self::ToolCallMatchRate,
        Self::ExactMatchRate,
        Self::LabelMatchRate,
        Self::RougeL,
        Self::LengthRatio,
        Self::HumanWinRate,
        Self::Readiness,
    ];

    /// The metrics that gate unless a plan says otherwise.
    pub const DEFAULTS: [Self; 3] = [Self::ErrorRate, Self::LatencyP99, Self::JudgeScore];

    /// The metrics that gate beside the judge unless a plan says otherwise, so that it never stands
    /// alone: each [`is_ground`](Self::is_ground).
    pub const GROUND_DEFAULTS: [Self; 1] = [Self::RepeatedRate];

    /// The name in config, metrics, records and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::LatencyP99 => "latency_p99",
            Self::JudgeScore => "judge_score",
            Self::Cost => "cost",
            Self::TtftP99 => "ttft_p99",
            Self::TruncatedRate => "truncated_rate",
            Self::RefusalRate => "refusal_rate",
            Self::SchemaValidRate => "schema_valid_rate",
            Self::OutputTokensRatio => "output_tokens_ratio",
            Self::Feedback => "feedback",
            Self::JsonValidRate => "json_valid_rate",
            Self::ToolCallValidRate => "tool_call_valid_rate",
            Self::EmptyRate => "empty_rate",
            Self::LengthCutRate => "length_cut_rate",
            Self::RepeatedRate => "repeated_rate",
            Self::LanguageSwitchRate => "language_switch_rate",
            Self::ToolCallMatchRate => "tool_call_match_rate",
            Self::ExactMatchRate => "exact_match_rate",
            Self::LabelMatchRate => "label_match_rate",
            Self::RougeL => "rouge_l",
            Self::LengthRatio => "length_ratio",
            Self::HumanWinRate => "human_win_rate",
            Self::Readiness => "readiness",
        }
    }

    /// What a metric is called besides; its own name where there is nothing else.
    pub fn alias(self) -> &'static str {
        if self == Self::Cost { "cost_per_request" } else { self.as_str() }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| [it.as_str(), it.alias()].contains(&name))
    }

    /// How it is measured.
    pub fn kind(self) -> Kind {
        match self {
            Self::ErrorRate
            | Self::TruncatedRate
            | Self::RefusalRate
            | Self::EmptyRate
            | Self::LengthCutRate
            | Self::RepeatedRate
            | Self::LanguageSwitchRate => Kind::Rate(Better::Lower),
            Self::SchemaValidRate
            | Self::JsonValidRate
            | Self::ToolCallValidRate
            | Self::ToolCallMatchRate
            | Self::ExactMatchRate
            | Self::LabelMatchRate => Kind::Rate(Better::Higher),
            Self::LatencyP99 | Self::TtftP99 => Kind::Quantile,
            Self::JudgeScore => Kind::Score,
            Self::Feedback => Kind::Opinion,
            Self::RougeL => Kind::Likeness,
            Self::HumanWinRate => Kind::Preference,
            Self::Readiness => Kind::Tiers,
            Self::Cost | Self::OutputTokensRatio | Self::LengthRatio => Kind::Ratio,
        }
    }

    /// The check whose share of answers it is, if it is one.
    pub fn check(self) -> Option<Check> {
        match self {
            Self::SchemaValidRate => Some(Check::Schema),
            Self::JsonValidRate => Some(Check::Json),
            Self::ToolCallValidRate => Some(Check::ToolCalls),
            Self::EmptyRate => Some(Check::NotEmpty),
            Self::LengthCutRate => Some(Check::NotCut),
            Self::RepeatedRate => Some(Check::NotRepeated),
            Self::LanguageSwitchRate => Some(Check::SameLanguage),
            Self::ToolCallMatchRate => Some(Check::ToolCallMatch),
            Self::ExactMatchRate => Some(Check::ExactMatch),
            Self::LabelMatchRate => Some(Check::LabelMatch),
            Self::ErrorRate
            | Self::LatencyP99
            | Self::JudgeScore
            | Self::Cost
            | Self::TtftP99
            | Self::TruncatedRate
            | Self::RefusalRate
            | Self::OutputTokensRatio
            | Self::Feedback
            | Self::RougeL
            | Self::LengthRatio
            | Self::HumanWinRate
            | Self::Readiness => None,
        }
    }

    /// Whether it says by rule, or by people, something of what answers are worth: what a judge's
    /// opinion of them can be set against. That they are not empty, not cut and in the right
    /// language says nothing of that.
    pub fn is_ground(self) -> bool {
        match self {
            Self::RefusalRate
            | Self::SchemaValidRate
            | Self::JsonValidRate
            | Self::ToolCallValidRate
            | Self::RepeatedRate
            | Self::ToolCallMatchRate
            | Self::ExactMatchRate
            | Self::LabelMatchRate
            | Self::RougeL
            | Self::Feedback
            | Self::HumanWinRate => true,
            Self::ErrorRate
            | Self::LatencyP99
            | Self::JudgeScore
            | Self::Cost
            | Self::Readiness
            | Self::TtftP99
            | Self::TruncatedRate
            | Self::OutputTokensRatio
            | Self::EmptyRate
            | Self::LengthCutRate
            | Self::LanguageSwitchRate
            | Self::LengthRatio => false,
        }
    }

    /// Whether a judge's opinion goes into it.
    pub fn is_judged(self) -> bool {
        matches!(self, Self::JudgeScore | Self::Readiness)
    }

    /// Whether what calls cost goes into it.
    pub fn is_priced(self) -> bool {
        matches!(self, Self::Cost | Self::Readiness)
    }

    /// Whether it is read off both answers of a pair: the primary's is the measure, and so what is
    /// allowed is allowed of the candidate's alone.
    pub fn is_of_pair(self) -> bool {
        matches!(
            self,
            Self::ToolCallMatchRate | Self::ExactMatchRate | Self::LabelMatchRate | Self::RougeL
        )
    }

    /// The unit of differences and bounds, for display.
    pub fn unit(self) -> &'static str {
        match self.kind() {
            Kind::Rate(_) => "pp",
            Kind::Quantile => "ms",
            Kind::Score | Kind::Opinion | Kind::Likeness | Kind::Preference => "score",
            Kind::Ratio | Kind::Tiers => "%",
        }
    }
}

/// What a gate may do in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Must be proven before the stage is left, and rolls back when broken.
    Prove,
    /// Rolls back when broken, but need not be proven here.
    Guard,
}

/// One limit in one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// How much worse the candidate may be; says the metric too.
    pub margin: Margin,
    /// What it may do here.
    pub role: Role,
}

impl Gate {
    /// What the gate looks at.
    pub fn metric(self) -> Metric {
        self.margin.metric()
    }
}

/// What the numbers say about one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Proven within the margin.
    Pass,
    /// Not enough is known either way.
    Undecided,
    /// What is known cannot be trusted.
    Invalid,
    /// Proven worse.
    Breach,
}

impl Verdict {
    /// The name in metrics, records and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Undecided => "undecided",
            Self::Invalid => "invalid",
            Self::Breach => "breach",
        }
    }

    /// The verdict of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pass, Self::Undecided, Self::Invalid, Self::Breach]
            .into_iter()
            .find(|it| it.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_but_that_of_refusals_is_what_a_metric_counts() {
        let of = |check: Check| Metric::ALL.into_iter().find(|it| it.check() == Some(check));
        for check in Check::ALL {
            assert_eq!(of(check).is_none(), check == Check::NotDeclined, "{}", check.as_str());
            let worthless = [Check::NotEmpty, Check::NotCut, Check::SameLanguage].contains(&check);
            assert_eq!(of(check).is_none_or(Metric::is_ground), !worthless, "{}", check.as_str());
        }
        assert!(Metric::RougeL.is_ground() && !Metric::JudgeScore.is_ground());
        assert!(!Metric::ErrorRate.is_ground() && !Metric::LengthRatio.is_ground());
        assert!(!Metric::Readiness.is_ground(), "its quality is a judge's opinion");
    }
}
