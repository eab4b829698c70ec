//! Checks: what can be said of an answer by rule, without anybody's opinion.

/// One thing that an answer should keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// It is JSON, where JSON was asked for.
    Json,
    /// It is valid against the JSON Schema that was given.
    Schema,
    /// Each tool it calls was offered, with arguments that are valid; none where none was due.
    ToolCalls,
    /// It says something: a text, a tool call, a refusal.
    NotEmpty,
    /// It was not cut off by a limit of its length.
    NotCut,
    /// Lately the same was not answered to several other questions.
    NotRepeated,
    /// It is in the language of the question.
    SameLanguage,
    /// Its text does not decline to answer.
    NotDeclined,
    /// It calls the tools that the primary calls, with equal arguments.
    ToolCallMatch,
    /// It says what the primary says, or the same in the fields that count.
    ExactMatch,
    /// It gives the label that the primary gives.
    LabelMatch,
}

impl Check {
    /// Every check. What is stored counts by the place here: new ones come last.
    pub const ALL: [Self; 11] = [
        Self::Json,
        Self::Schema,
        Self::ToolCalls,
        Self::NotEmpty,
        Self::NotCut,
        Self::NotRepeated,
        Self::SameLanguage,
        Self::NotDeclined,
        Self::ToolCallMatch,
        Self::ExactMatch,
        Self::LabelMatch,
    ];

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Schema => "schema",
            Self::ToolCalls => "tool_calls",
            Self::NotEmpty => "not_empty",
            Self::NotCut => "not_cut",
            Self::NotRepeated => "not_repeated",
            Self::SameLanguage => "same_language",
            Self::NotDeclined => "not_declined",
            Self::ToolCallMatch => "tool_call_match",
            Self::ExactMatch => "exact_match",
            Self::LabelMatch => "label_match",
        }
    }

    fn bit(self) -> u16 {
        match self {
            Self::Json => 1,
            Self::Schema => 1 << 1,
            Self::ToolCalls => 1 << 2,
            Self::NotEmpty => 1 << 3,
            Self::NotCut => 1 << 4,
            Self::NotRepeated => 1 << 5,
            Self::SameLanguage => 1 << 6,
            Self::NotDeclined => 1 << 7,
            Self::ToolCallMatch => 1 << 8,
            Self::ExactMatch => 1 << 9,
            Self::LabelMatch => 1 << 10,
        }
    }
}

/// What was asked of an answer, and what of that it kept to. Nothing is kept that was not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    asked: u16,
    kept: u16,
}

impl Checks {
    /// Those of these bits, as [`bits`](Self::bits) gives them; what is not known is left out.
    pub fn from_bits((asked, kept): (u16, u16)) -> Self {
        let known = Check::ALL.iter().fold(0, |all, it| all | it.bit());
        Self { asked: asked & known, kept: asked & kept & known }
    }

    /// What was asked and what was kept, a bit for each check.
    pub fn bits(self) -> (u16, u16) {
        (self.asked, self.kept)
    }

    /// The same with the finding of one check, where there is one.
    #[must_use]
    pub fn with(self, check: Check, kept: Option<bool>) -> Self {
        let Some(kept) = kept else { return self };
        let bit = check.bit();
        let others = self.kept & !bit;
        Self { asked: self.asked | bit, kept: if kept { others | bit } else { others } }
    }

    /// What was found here or there; what was found in both counts as here.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let new = other.asked & !self.asked;
        Self { asked: self.asked | new, kept: self.kept | other.kept & new }
    }

    /// The same checks, all of them kept.
    #[must_use]
    pub fn all_kept(self) -> Self {
        Self { kept: self.asked, ..self }
    }

    /// Whether a check was kept; none where it was not asked.
    pub fn kept(self, check: Check) -> Option<bool> {
        (self.asked & check.bit() != 0).then_some(self.kept & check.bit() != 0)
    }

    /// What was asked, and whether it was kept.
    pub fn iter(self) -> impl Iterator<Item = (Check, bool)> {
        Check::ALL.into_iter().filter_map(move |it| Some((it, self.kept(it)?)))
    }
}

/// What the answers of a pair are compared by, besides the whole of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// The labels that answers of a classification are. Case, quotes and full stops do not count.
    pub labels: Vec<String>,
    /// The places in JSON answers that have to be the same, names or indexes with dots between;
    /// without any the whole answer has to be.
    pub fields: Vec<String>,
}

/// Most labels, and most fields.
const NAMES_MAX: usize = 256;
/// Longest of them, in bytes.
const NAME_LEN_MAX: usize = 128;

impl Compared {
    /// Whether there is nothing of its own to compare by.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// What is wrong with it, if something is.
    pub(super) fn fault(&self) -> Option<String> {
        for (what, names) in [("labels", &self.labels), ("fields", &self.fields)] {
            if NAMES_MAX < names.len() {
                return Some(format!("has {} {what}; {NAMES_MAX} is the most", names.len()));
            }
            let fits =
                |it: &String| (1..=NAME_LEN_MAX).contains(&it.len()) && !label(it).is_empty();
            if let Some(wrong) = names.iter().find(|it| !fits(it)) {
                return Some(format!(
                    "`{wrong}` cannot be one of the {what}: they have 1 to {NAME_LEN_MAX} bytes, \
                     with a letter or a digit in them"
                ));
            }
        }
        let mut labels: Vec<String> = self.labels.iter().map(|it| label(it)).collect();
        labels.sort();
        let twice = labels.windows(2).find(|it| it[0] == it[1])?;
        Some(format!("has the label `{}` twice", twice[0]))
    }

    /// The label that an answer is, if it is one.
    pub fn label(&self, answer: &str) -> Option<String> {
        let short = answer.trim();
        // Longer than any label with all that may stand around it.
        let said = (short.len() <= 2 * NAME_LEN_MAX).then(|| label(short))?;
        self.labels.iter().any(|it| label(it) == said).then_some(said)
    }
}

/// The words of a text, in small letters, without the marks between them.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|it: char| !it.is_alphanumeric()).filter(|it| !it.is_empty());
    words.map(str::to_lowercase)
}

/// A label in small letters, without what stands around it.
fn label(text: &str) -> String {
    text.trim_matches(|it: char| !it.is_alphanumeric()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_place_of_its_own_that_stays() {
        for (place, check) in Check::ALL.into_iter().enumerate() {
            assert_eq!(check.bit(), 1 << place, "{}", check.as_str());
            let one = Checks::default().with(check, Some(true));
            assert_eq!(Checks::from_bits(one.bits()), one);
            assert_eq!(one.iter().collect::<Vec<_>>(), [(check, true)]);
        }
    }

    #[test]
    fn nothing_is_kept_that_was_not_asked() {
        assert_eq!(Checks::from_bits((1, u16::MAX)).bits(), (1, 1));
        assert_eq!(Checks::from_bits((u16::MAX, 0)).iter().count(), Check::ALL.len());
        let none = Checks::default().with(Check::Json, None);
        assert_eq!((none, none.kept(Check::Json)), (Checks::default(), None));
        let broken = none.with(Check::Json, Some(true)).with(Check::Json, Some(false));
        assert_eq!(broken.kept(Check::Json), Some(false));
        assert_eq!(broken.all_kept().kept(Check::Json), Some(true));
        let more = Checks::default().with(Check::Schema, Some(true)).with(Check::Json, Some(true));
        let both = broken.and(more);
        assert_eq!([Check::Json, Check::Schema].map(|it| both.kept(it)), [Some(false), Some(true)]);
    }

    #[test]
    fn a_label_is_told_from_what_stands_around_it_and_from_a_sentence() {
        let labels = ["Spam", "not spam"].map(str::to_owned).into();
        let compared = Compared { labels, fields: Vec::new() };
        for text in ["spam", " SPAM.", "\"Spam\"\n", "**spam**"] {
            assert_eq!(compared.label(text).as_deref(), Some("spam"), "{text}");
        }
        assert_eq!(compared.label("Not spam!").as_deref(), Some("not spam"));
        for text in ["", "...", "This is spam", "ham"] {
            assert_eq!(compared.label(text), None, "{text}");
        }
        assert_eq!(compared.label(&format!("spam{}", ".".repeat(300))), None);
    }

    #[test]
    fn nonsense_to_compare_by_is_told() {
        let fault = |labels: &[&str], fields: &[&str]| {
            let [labels, fields] =
                [labels, fields].map(|it| it.iter().map(|it| (*it).to_owned()).collect());
            Compared { labels, fields }.fault().unwrap_or_default()
        };
        assert_eq!(fault(&["a", "b"], &["x.y"]), "");
        assert!(fault(&["a", "A."], &[]).contains("`a` twice"));
        assert!(fault(&["..."], &[]).contains("`...` cannot be one of the labels"));
        assert!(fault(&[], &[""]).contains("fields"));
        assert!(fault(&[&"x".repeat(129)], &[]).contains("1 to 128 bytes"));
        assert!(fault(&vec!["x"; 257], &[]).contains("256 is the most"));
    }
}
