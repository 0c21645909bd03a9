//! Lists of the other side.
//!
//! Owns: the sink that records go into, one after another. Must not know: what is listed.
//! Keeps: a list has an end, even when the other side goes on.

use std::{
    ffi::c_void,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
};

use memflow_abi::{Failure, FailureSink, Grows, Header, RecordSink};

use super::handle::{blamed, broken};
use crate::{
    error::{Error, Result},
    os::Listing,
    plugin::wire::{failure, raw, records, records::Record},
};

/// What has come so far. The sink's context is a pointer to this.
struct Collector<R> {
    who: String,
    listing: Mutex<Listing<R>>,
    kind: PhantomData<R>,
}

/// Carries out a call of `who` that lists records of kind `R`.
///
/// # Errors
/// The failure that the call told. What kept the list from being complete is in its problems.
pub(in crate::plugin) fn collect<R: Record>(
    who: &str,
    call: impl FnOnce(RecordSink, FailureSink) -> i32,
) -> Result<Listing<R>> {
    let collector = Collector::<R> { who: who.to_owned(), listing: Mutex::new(Listing::new()), kind: PhantomData };
    let sink = RecordSink {
        context: (&raw const collector).cast_mut().cast(),
        item: Some(item::<R>),
        problem: Some(problem::<R>),
    };
    failure::call(|failure| call(sink, failure)).map_err(|error| blamed(who, error))?;
    Ok(collector.listing.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

impl<R: Record> Collector<R> {
    /// Adds a record or a problem; false when there are enough.
    fn add(&self, added: Result<R>) -> bool {
        let mut listing = self.listing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if listing.problems.len() > R::MOST || listing.items.len() >= R::MOST {
            let problem = broken(&self.who, format_args!("a list goes on past {} entries", R::MOST));
            listing.problems.truncate(R::MOST);
            listing.problems.push(problem);
            return false;
        }
        match added {
            Ok(item) => listing.items.push(item),
            Err(problem) => listing.problems.push(blamed(&self.who, problem)),
        }
        true
    }
}

unsafe extern "C" fn item<R: Record>(context: *mut c_void, record: *const Header) -> i32 {
    // SAFETY: the context is the one that `collect` gave, which is there for as long as the call lasts.
    let collector = unsafe { &*context.cast::<Collector<R>>() };
    let take = || {
        // SAFETY: the ABI's contract: the record is whole for the call and of the kind that the function lists.
        let wire = unsafe { raw::structure(Grows { ptr: record.cast::<R::Wire>() }) };
        collector.add(match wire {
            // SAFETY: the ABI's contract: so are its texts and arrays.
            Some(wire) => unsafe { R::from_wire(&wire) },
            None => Err(records::broken("something that is no record is in a list")),
        })
    };
    let more = catch_unwind(AssertUnwindSafe(take)).unwrap_or(false);
    i32::from(!more)
}

unsafe extern "C" fn problem<R: Record>(context: *mut c_void, problem: Grows<Failure>) {
    // SAFETY: as in `item`.
    let collector = unsafe { &*context.cast::<Collector<R>>() };
    // SAFETY: the ABI's contract: the failure is whole for the call.
    let take = || collector.add(Err::<R, Error>(unsafe { failure::from_wire(problem) }));
    drop(catch_unwind(AssertUnwindSafe(take)));
}
