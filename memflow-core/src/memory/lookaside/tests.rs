//! What a lookaside gives to whom.
//!
//! Owns: epochs, owners and ages. Must not know: slots, marks.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::{super::validity::AgeLimit, *};
use crate::{
    address::{PhysAddr, PhysRange},
    memory::{Liveness, PhysWrite, Validity},
};

const ONE: Owner = [8, 0x1000];
const OTHER: Owner = [8, 0x1_0000_1000];

fn answer(value: u64) -> Answer {
    Answer { value, extra: value as u16, asked: 0 }
}

fn lookaside() -> Lookaside {
    Lookaside::by_liveness(Liveness::Frozen)
}

fn page(number: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(number << 12), 8).unwrap()
}

/// Works an answer out from the bytes of a page.
fn learn(lookaside: &Lookaside, owner: Owner, key: u64, value: u64, from: u64) {
    let session = lookaside.session(owner).unwrap();
    session.will_read([page(from)].into_iter());
    session.keep(Kind::End, key, answer(value));
}

fn find(lookaside: &Lookaside, owner: Owner, key: u64) -> Option<u64> {
    lookaside.session(owner).unwrap().find(Kind::End, key).map(|found| {
        assert_eq!(found, answer(found.value));
        found.value
    })
}

#[test]
fn answers_are_their_owners() {
    let lookaside = lookaside();
    learn(&lookaside, ONE, 1, 10, 5);
    learn(&lookaside, OTHER, 1, 20, 6);
    learn(&lookaside, [16, 0x1000], 1, 30, 6);
    assert_eq!([find(&lookaside, ONE, 1), find(&lookaside, OTHER, 1)], [Some(10), Some(20)]);
    assert_eq!([find(&lookaside, [16, 0x1000], 1), find(&lookaside, [24, 0x1000], 1)], [Some(30), None]);
    let session = lookaside.session(ONE).unwrap();
    assert_eq!(session.find(Kind::Step, 1), None, "a step is no answer");
    assert!(!session.is_new() && lookaside.session([32, 1]).unwrap().is_new());
}

#[test]
fn one_owner_is_forgotten_or_all_are() {
    let lookaside = lookaside();
    learn(&lookaside, ONE, 1, 10, 5);
    learn(&lookaside, OTHER, 1, 20, 6);
    lookaside.forget(ONE);
    assert_eq!([find(&lookaside, ONE, 1), find(&lookaside, OTHER, 1)], [None, Some(20)]);
    lookaside.flush();
    assert_eq!(find(&lookaside, OTHER, 1), None);
    learn(&lookaside, OTHER, 1, 21, 6);
    assert_eq!(find(&lookaside, OTHER, 1), Some(21));
}

#[test]
fn writes_forget_what_was_read_there_and_nothing_else() {
    let lookaside = lookaside();
    learn(&lookaside, ONE, 1, 10, 5);
    lookaside.written(page(7));
    let ops = [PhysWrite::new(PhysAddr::new(0x7000), &[0; 64]), PhysWrite::new(PhysAddr::new(0x5000), &[])];
    drop(lookaside.writing(&ops));
    assert_eq!(find(&lookaside, ONE, 1), Some(10));
    let ops = [PhysWrite::new(PhysAddr::new(0x4fff), &[0; 2])];
    let writing = lookaside.writing(&ops);
    assert_eq!(find(&lookaside, ONE, 1), Some(10), "until it has been written");
    drop(writing);
    assert_eq!(find(&lookaside, ONE, 1), None);
}

#[test]
fn what_was_read_before_a_write_is_not_kept_after_it() {
    for forget in [(|lookaside| lookaside.written(page(5))) as fn(&Lookaside), Lookaside::flush, |lookaside| {
        lookaside.forget(ONE)
    }] {
        let lookaside = lookaside();
        let early = lookaside.session(ONE).unwrap();
        early.will_read([page(5)].into_iter());
        forget(&lookaside);
        early.keep(Kind::End, 1, answer(10));
        assert_eq!(find(&lookaside, ONE, 1), None);
        learn(&lookaside, ONE, 1, 11, 5);
        early.keep(Kind::End, 1, answer(10));
        assert_eq!(find(&lookaside, ONE, 1), Some(11));
    }
}

#[test]
fn answers_grow_old_by_the_clock_from_before_they_were_asked_for() {
    let (age, hand) = AgeLimit::by_hand(100);
    let lookaside = Lookaside::with_age(64, age);
    let session = lookaside.session(ONE).unwrap();
    hand.store(60, Ordering::Relaxed);
    session.keep(Kind::End, 1, answer(10));
    hand.store(99, Ordering::Relaxed);
    assert_eq!(find(&lookaside, ONE, 1), Some(10));
    hand.store(100, Ordering::Relaxed);
    assert_eq!(find(&lookaside, ONE, 1), None);
}

#[test]
fn answers_grow_old_by_batches() {
    let config = LookasideConfig { validity: Validity::Batches(3), answers: 64 };
    let lookaside = Lookaside::new(config, Liveness::Frozen).unwrap();
    learn(&lookaside, ONE, 1, 10, 5);
    let found = [(); 5].map(|()| find(&lookaside, ONE, 1));
    assert_eq!(found, [Some(10), Some(10), Some(10), None, None]);
}

#[test]
fn many_owners_and_answers_stay_within_the_size() {
    let config = LookasideConfig { validity: Validity::Forever, answers: 64 };
    let lookaside = Lookaside::new(config, Liveness::Live).unwrap();
    for round in 1..2000_u64 {
        learn(&lookaside, [8, round], round, round, round);
        assert_eq!(find(&lookaside, [8, round], round), Some(round));
    }
    // Those asked for last first: asking makes an owner known.
    let held = (1..2000).rev().filter(|round| find(&lookaside, [8, *round], *round).is_some()).count();
    assert!((1..=64).contains(&held), "{held}");
}

#[test]
fn sizes_and_validities_that_keep_nothing_are_refused() {
    let new = |config| Lookaside::new(config, Liveness::Live).map(|_| ()).map_err(|error| error.to_string());
    let default = LookasideConfig::default();
    for answers in [0, Lookaside::MOST_ANSWERS + 1, usize::MAX] {
        let error = new(LookasideConfig { answers, ..default }).unwrap_err();
        assert!(error.starts_with("lookaside answers: expected 1 to 67108864, found `"), "{error}");
    }
    for validity in [Validity::For(Duration::ZERO), Validity::Batches(0)] {
        let error = new(LookasideConfig { validity, ..default }).unwrap_err();
        assert!(error.starts_with("lookaside validity: expected more than zero"), "{error}");
    }
    new(LookasideConfig { answers: 1, validity: Validity::For(Duration::MAX) }).unwrap();
}

#[test]
fn no_answer_outlives_the_write_it_depends_on() {
    // The target is one word, in page 5; what is worked out from it is the word itself.
    let (target, written, stop) = (AtomicU64::new(1), AtomicU64::new(1), AtomicBool::new(false));
    let lookaside = lookaside();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let least = written.load(Ordering::SeqCst);
                    let session = lookaside.session(ONE).unwrap();
                    let found = session.find(Kind::End, 1).map_or_else(
                        || {
                            session.will_read([page(5)].into_iter());
                            let value = target.load(Ordering::SeqCst);
                            session.keep(Kind::End, 1, answer(value));
                            value
                        },
                        |found| found.value,
                    );
                    assert!(found >= least, "{found} after {least} was written");
                }
            });
        }
        for value in 2..20_000 {
            let ops = [PhysWrite::new(PhysAddr::new(0x5000), &[0; 8])];
            let writing = lookaside.writing(&ops);
            target.store(value, Ordering::SeqCst);
            drop(writing);
            written.store(value, Ordering::SeqCst);
        }
        stop.store(true, Ordering::Relaxed);
    });
}
