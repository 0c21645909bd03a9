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

    /// The answer to a question; worked out by `ask` if it is new, and kept. `None` when `ask` has none, which is not kept.
    pub(crate) fn answer(&self, question: &str, ask: impl FnOnce() -> Option<A>) -> Option<A> {
        if let Some(known) = self.lock().known.get(question) {
            return Some(known.clone());
        }
        // Not under the lock: the first question may take long, and others are answered meanwhile.
        let answer = ask()?;
        let mut answers = self.lock();
        if answers.known.len() < MAX_ANSWERS {
            answers.known.insert(question.to_owned(), answer.clone());
            answers.grown = true;
        }
        Some(answer)
    }

    /// All answers, and whether some are new.
    pub(crate) fn all(&self) -> (BTreeMap<String, A>, bool) {
        let answers = self.lock();
        (answers.known.clone(), answers.grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_is_worked_out_once() {
        let memo = Memo::with(BTreeMap::from([("known".to_owned(), 1)]));
        assert_eq!(memo.answer("known", || Some(9)), Some(1));
        assert_eq!(memo.answer("new", || Some(2)), Some(2));
        assert_eq!(memo.answer("new", || Some(9)), Some(2));
        assert_eq!(memo.answer("passing", || None), None);
        assert_eq!(memo.answer("other", || None), None);
        let (all, grown) = memo.all();
        assert_eq!((all.len(), grown), (2, true));
    }

    #[test]
    fn number_of_answers_is_limited() {
        let memo = Memo::new();
        for number in 0..MAX_ANSWERS + 10 {
            assert_eq!(memo.answer(&number.to_string(), || Some(number)), Some(number));
        }
        assert_eq!(memo.all().0.len(), MAX_ANSWERS);
    }
}
