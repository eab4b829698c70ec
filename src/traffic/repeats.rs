//! Which answers a provider gives again and again, whatever it is asked.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
};

use crate::domain::words;

/// Answers that are remembered.
const ANSWERS_MAX: usize = 1_024;
/// So many other questions make an answer a repeated one.
const OTHERS: usize = 3;
/// Shortest answer that is one by that, in letters and digits.
const LETTERS_MIN: usize = 8;
/// Shortest one that is taken for another that is nearly the same. One that is shorter and has a
/// digit, or is one word, is a number or a label, as is one without so many letters as above.
const FULL_LETTERS_MIN: usize = 32;
/// A number or a label was given to no fewer other questions, and to most of the last ones.
const LABEL_OTHERS_MIN: usize = 16;
/// Most letters of an answer that are looked at.
const LETTERS_MAX: usize = 16_384;
/// Letters of a shingle, and most shingles of an answer that are kept.
const SHINGLE_LEN: usize = 6;
const SHINGLES_MAX: usize = 48;

/// The last answers of a provider, with what they were given to. Hashes alone are kept, at most 250
/// KiB of them.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    hasher: BuildHasherDefault<DefaultHasher>,
    given: VecDeque<Given>,
}

#[derive(Debug)]
struct Given {
    question: u64,
    answer: Sketch,
}

/// An answer as far as it is compared: of its letters and digits, in small letters, each six that
/// follow each other, as hashes; the lowest of them, in order. Which ones these are is chance, so of
/// two answers they show how much of them is the same.
#[derive(Debug)]
struct Sketch {
    letters: usize,
    is_label: bool,
    shingles: Box<[u32]>,
}

impl Repeats {
    /// Takes an answer to a question. Whether the same, or nearly the same, was lately given to
    /// several others: spacing, case and marks do not count, and a counter or a name in it changes
    /// little.
    pub(super) fn see(&mut self, question: u64, answer: &str) -> bool {
        let answer = Sketch::of(answer, &self.hasher);
        if answer.letters == 0 {
            return false;
        }
        let alike: HashSet<u64> = self
            .given
            .iter()
            .filter(|it| it.answer.is_like(&answer))
            .map(|it| it.question)
            .collect();
        let is_new = !alike.contains(&question);
        let others = alike.len() - usize::from(!is_new);
        let most = LABEL_OTHERS_MIN.max(self.given.len() / 2);
        let least = if answer.is_label { most } else { OTHERS };
        if is_new {
            if self.given.len() == ANSWERS_MAX {
                self.given.pop_front();
            }
            self.given.push_back(Given { question, answer });
        }
        least <= others
    }
}

impl Sketch {
    fn of(text: &str, hasher: &BuildHasherDefault<DefaultHasher>) -> Self {
        let letters = text.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase);
        let letters: Vec<char> = letters.take(LETTERS_MAX).collect();
        let says_little =
            || words(text).nth(1).is_none() || letters.iter().any(|it| it.is_numeric());
        let is_label =
            letters.len() < LETTERS_MIN || letters.len() < FULL_LETTERS_MIN && says_little();
        // Half of a hash tells as much.
        let hash = |it: &[char]| u32::try_from(hasher.hash_one(it) >> 32).unwrap_or(u32::MAX);
        let mut shingles: Vec<u32> = if letters.len() <= SHINGLE_LEN {
            vec![hash(&letters)]
        } else {
            letters.windows(SHINGLE_LEN).map(hash).collect()
        };
        shingles.sort_unstable();
        shingles.dedup();
        shingles.truncate(SHINGLES_MAX);
        Self { letters: letters.len(), is_label, shingles: shingles.into() }
    }

    /// Whether two answers are the same, or so nearly that two fifths of all that is in either of them
    /// are in both.
    fn is_like(&self, other: &Self) -> bool {
        if self.letters.min(other.letters) < FULL_LETTERS_MIN {
            return self.letters == other.letters && self.shingles == other.shingles;
        }
        let (mut ours, mut theirs) = (self.shingles.iter(), other.shingles.iter());
        let (mut our, mut their) = (ours.next(), theirs.next());
        let (mut both, mut all) = (0, 0);
        // The lowest of those in either are chance too, and what is beyond these is not known.
        while all < SHINGLES_MAX {
            match (our, their) {
                (None, None) => break,
                (Some(one), Some(another)) if one == another => {
                    both += 1;
                    (our, their) = (ours.next(), theirs.next());
                }
                (Some(one), another) if another.is_none_or(|it| one < it) => our = ours.next(),
                (_, Some(_)) | (Some(_), None) => their = theirs.next(),
            }
            all += 1;
        }
        2 * all <= 5 * both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these answers, each to another question, were repeated.
    fn seen<T: AsRef<str>>(answers: impl IntoIterator<Item = T>) -> Vec<bool> {
        let mut repeats = Repeats::default();
        (0..).zip(answers).map(|(question, it)| repeats.see(question, it.as_ref())).collect()
    }

    #[test]
    fn the_same_answer_to_a_fourth_question_is_repeated() {
        let mut repeats = Repeats::default();
        let mut see = |question, answer: &str| repeats.see(question, answer);
        assert!(!see(1, "Of course, here it is."));
        assert!(!see(1, "Of course, here it is."), "the same question may get the same answer");
        assert!(!see(2, "of course — HERE it is"));
        assert!(!see(3, "Of course! Here it is!"));
        assert!(!see(4, "Of course, here is another one."));
        assert!(see(4, "Of course, here it is!"));
        assert!(see(1, "Of course, here it is."), "it was given to three others meanwhile");
    }

    #[test]
    fn a_counter_or_a_name_does_not_hide_a_constant_answer() {
        let names = ["Anna", "Bartholomew", "Li", "Dr. Smith", "Señora Núñez"];
        let all = [false, false, false, true, true];
        let thanks = |it: &&str| format!("Thank you for your question, here is the answer, {it}.");
        assert_eq!(seen(names.iter().map(thanks)), all);
        let dear = |it: &&str| format!("Dear {it}, the best answer of all is the one above.");
        assert_eq!(seen(names.iter().map(dear)), all);
        let numbered = (0..5).map(|it| format!("#{it}: certainly, this is the best answer of all"));
        assert_eq!(seen(numbered), all);
        let long = "This answer is accurate, relevant and of the right tone. ".repeat(60);
        let counted = (1_000..1_005).map(|it| format!("{long}{it} {}", it * 7_919));
        assert_eq!(seen(counted), all);
        let no_spaces = (0..5).map(|it| {
            format!("当然可以,以下是对您的问题最准确最详细的回答,希望对您有所帮助,请参考以上内容谢谢{it}")
        });
        assert_eq!(seen(no_spaces), all);
    }

    #[test]
    fn answers_that_begin_or_end_alike_are_not_the_same() {
        let facts = [
            "the river rises in the mountains of the north and ends in a wide delta",
            "a kettle boils sooner on a high plain, since the air weighs less there",
            "most violins of that town were built by one family within sixty years",
            "paper was made from rags until somebody found out how to use wood",
            "salt was once so dear that whole cities grew rich by trading it",
        ];
        let polite = facts.map(|it| format!("Sure! Here is what I know: {it}. Hope this helps!"));
        assert_eq!(seen(polite), [false; 5]);
    }

    #[test]
    fn labels_and_numbers_are_repeated_only_where_nothing_else_is_said() {
        let labels = ["positive", "negative", "unknown", "42", "Yes, sure.", "…", ""];
        assert!(!seen((0..200).map(|it| labels[it % 7])).contains(&true));
        let sums = (0..200).map(|it| format!("The answer is {}.", it % 7));
        assert!(!seen(sums).contains(&true));
        let same = seen((0..100).map(|_| "Sure!"));
        assert!(!same[15] && same[16..].iter().all(|it| *it));
        assert!(!seen([""; 100]).contains(&true), "that is empty, and counted as such");
    }

    #[test]
    fn only_so_many_answers_are_remembered() {
        let mut repeats = Repeats::default();
        let same = "the same as ever";
        assert!((0..3).all(|it| !repeats.see(it, same)));
        for other in 0..u64::try_from(ANSWERS_MAX).unwrap() {
            let other = other.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            repeats.see(3 + other, &format!("{other:x}{:x}", !other));
        }
        assert_eq!(repeats.given.len(), ANSWERS_MAX);
        assert!(!repeats.see(4, same), "nobody remembers");
        let shingles = Sketch::of(&"abcdefghijklmnop ".repeat(5_000), &repeats.hasher).shingles;
        assert!(shingles.len() <= SHINGLES_MAX);
    }
}
