//! Questions and their answers, each worked out once.
//!
//! Owns: [`Memo`]. Must not know: what is asked, who keeps the answers from one run to the next.
//! Keeps: an answer is only ever that of the function that was given with the question; the number of answers is limited.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Most answers that are kept; the layer itself asks for some hundreds.
pub(crate) const MAX_ANSWERS: usize = 4096;

/// Answers by question.
#[derive(Debug)]
pub(crate) struct Memo<A> {
    answers: Mutex<Answers<A>>,
}

#[derive(Debug)]
struct Answers<A> {
    known: BTreeMap<String, A>,
    /// Answers were added since the start.
    grown: bool,
}

impl<A: Clone> Memo<A> {
    /// A memo without answers.
    pub(crate) fn new() -> Self {
        Self::with(BTreeMap::new())
    }

    /// A memo that starts with these answers.
    pub(crate) fn with(known: BTreeMap<String, A>) -> Self {
        Self { answers: Mutex::new(Answers { known, grown: false }) }
    }

    fn lock(&self) -> MutexGuard<'_, Answers<A>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a question; worked out by `ask` if it is new, and kept if `ask` says so.
    pub(crate) fn answer(&self, question: &str, ask: impl FnOnce() -> (A, Keep)) -> A {
        if let Some(known) = self.lock().known.get(question) {
            return known.clone();
        }
        // Not under the lock: the first question may take long, and others are answered meanwhile.
        let (answer, keep) = ask();
        let mut answers = self.lock();
        if keep == Keep::Yes && answers.known.len() < MAX_ANSWERS {
            answers.known.insert(question.to_owned(), answer.clone());
            answers.grown = true;
        }
        answer
    }

    /// All answers, and whether some are new.
    pub(crate) fn all(&self) -> (BTreeMap<String, A>, bool) {
        let answers = self.lock();
        (answers.known.clone(), answers.grown)
    }
}

/// Whether an answer holds as long as the memo does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_is_worked_out_once() {
        let memo = Memo::with(BTreeMap::from([("known".to_owned(), 1)]));
        assert_eq!(memo.answer("known", || (9, Keep::Yes)), 1);
        assert_eq!(memo.answer("new", || (2, Keep::Yes)), 2);
        assert_eq!(memo.answer("new", || (9, Keep::Yes)), 2);
        assert_eq!(memo.answer("passing", || (3, Keep::No)), 3);
        assert_eq!(memo.answer("passing", || (4, Keep::No)), 4);
        let (all, grown) = memo.all();
        assert_eq!((all.len(), grown), (2, true));
    }

    #[test]
    fn number_of_answers_is_limited() {
        let memo = Memo::new();
        for number in 0..MAX_ANSWERS + 10 {
            assert_eq!(memo.answer(&number.to_string(), || (number, Keep::Yes)), number);
        }
        assert_eq!(memo.all().0.len(), MAX_ANSWERS);
    }
}
