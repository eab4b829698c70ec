//! Which answers a provider gives again and again, whatever it is asked.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
};

use crate::domain::words;

/// Answers that are remembered.
const ANSWERS_MAX: usize = 1_024;
/// So many other questions make an answer a repeated one.
const QUESTIONS: usize = 2;
/// Shortest answer that can be one, in letters and digits, if it is more than one word; and if it is
/// one: what is shorter is a label, or a number.
const LETTERS_MIN: usize = 8;
const WORD_LETTERS_MIN: usize = 24;

/// The last answers of a provider, with what they were given to. Hashes alone are kept.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    hasher: RandomState,
    given: VecDeque<Given>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Given {
    answer: u64,
    question: u64,
}

impl Repeats {
    /// Takes an answer to a question. Whether the same was lately given to several others: spacing,
    /// case and marks do not count, and what is as short as a label is no answer to be repeated.
    pub(super) fn see(&mut self, question: &str, answer: &str) -> bool {
        let said: Vec<String> = words(answer).collect();
        let letters: usize = said.iter().map(|it| it.chars().count()).sum();
        let least = if said.len() == 1 { WORD_LETTERS_MIN } else { LETTERS_MIN };
        if letters < least {
            return false;
        }
        let hash = |words: Vec<String>| self.hasher.hash_one(words);
        let seen = Given { answer: hash(said), question: hash(words(question).collect()) };
        let mut others: Vec<u64> = Vec::new();
        let alike = self.given.iter().filter(|it| it.answer == seen.answer);
        for Given { question, .. } in alike {
            if *question != seen.question && !others.contains(question) {
                others.push(*question);
            }
            if others.len() == QUESTIONS {
                break;
            }
        }
        if !self.given.contains(&seen) {
            if self.given.len() == ANSWERS_MAX {
                self.given.pop_front();
            }
            self.given.push_back(seen);
        }
        others.len() == QUESTIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_answer_to_a_third_question_is_repeated() {
        let mut repeats = Repeats::default();
        let mut see = |question: &str, answer: &str| repeats.see(question, answer);
        assert!(!see("one", "Of course, here it is."));
        assert!(!see("one", "Of course, here it is."), "the same question may get the same answer");
        assert!(!see("two", "of course — HERE it is"));
        assert!(!see("two", "Of course, here it is not."));
        assert!(see("three", "Of course, here it is!"));
        assert!(see("one", "Of course, here it is."), "it was given to two others meanwhile");
    }

    #[test]
    fn labels_and_numbers_are_no_answers_to_be_repeated() {
        let mut repeats = Repeats::default();
        for question in 0..10 {
            for answer in ["positive", "42", "A, B", "", "…", "not_applicable", "Yes, sure."] {
                assert!(!repeats.see(&question.to_string(), answer) || answer == "not_applicable");
            }
        }
        let word = "x".repeat(WORD_LETTERS_MIN);
        let seen: Vec<bool> = (0..4).map(|it| repeats.see(&it.to_string(), &word)).collect();
        assert_eq!(seen, [false, false, true, true]);
    }

    #[test]
    fn only_so_many_answers_are_remembered() {
        let mut repeats = Repeats::default();
        let same = "the same as ever";
        assert!(!repeats.see("a", same) && !repeats.see("b", same));
        for other in 0..ANSWERS_MAX {
            assert!(!repeats.see("c", &format!("another answer {other}")));
        }
        assert_eq!(repeats.given.len(), ANSWERS_MAX);
        assert!(!repeats.see("c", same), "nobody remembers");
    }
}
