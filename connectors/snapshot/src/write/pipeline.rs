//! Work for several threads whose results are wanted in order.
//!
//! Owns: the threads, and how far they run ahead. Must not know: what the work is.
//! Keeps: results come in the order of their jobs; no more than a few jobs a thread are under way, however slow one of them is; the
//! first failure in that order ends all; a panic in a thread is one here.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use memflow_core::Result;

/// Jobs under way for each thread: one that is worked on, others that wait for their turn to be taken.
const AHEAD: usize = 3;

/// Does `work` on each of `jobs` in `threads` threads, each with scratch of its own, and hands the results to `take` in this thread,
/// in the order of the jobs. One thread is this one.
///
/// # Errors
/// The first failure of a job or of `take`, in the order of the jobs.
pub(super) fn in_order<J: Send, T: Send, S>(
    threads: usize,
    jobs: impl Iterator<Item = J> + Send,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, J) -> Result<T> + Sync,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    if threads <= 1 {
        let mut scratch = scratch();
        return jobs.into_iter().try_for_each(|job| take(work(&mut scratch, job)?));
    }
    let (permit, permits) = mpsc::channel();
    let (done, results) = mpsc::channel();
    for _ in 0..threads.saturating_mul(AHEAD) {
        // The other end lives in this function.
        let _ = permit.send(());
    }
    // Who has a permit takes the next job: the first job that is not done is always under way.
    let queue = Mutex::new((permits, (0u64..).zip(jobs)));
    thread::scope(|scope| {
        for _ in 0..threads {
            let done = done.clone();
            let (queue, scratch, work) = (&queue, &scratch, &work);
            scope.spawn(move || {
                let mut scratch = scratch();
                loop {
                    let next = {
                        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                        let (permits, jobs) = &mut *queue;
                        if permits.recv().is_err() { None } else { jobs.next() }
                    };
                    let Some((number, job)) = next else { break };
                    let result = catch_unwind(AssertUnwindSafe(|| work(&mut scratch, job)));
                    if done.send((number, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        // Both ends go when this ends, however it does; then nobody waits for anything.
        let (permit, results) = (permit, results);
        let mut early = BTreeMap::new();
        let mut next = 0;
        while let Ok((number, result)) = results.recv() {
            early.insert(number, result);
            while let Some(result) = early.remove(&next) {
                match result {
                    Ok(result) => take(result?)?,
                    Err(panic) => resume_unwind(panic),
                }
                next += 1;
                // With no thread left that wants one, all jobs are done.
                let _ = permit.send(());
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use memflow_core::Error;

    use super::*;

    #[test]
    fn results_come_in_order_and_nobody_runs_far_ahead() {
        for threads in [1, 2, 5] {
            let begun = AtomicU64::new(0);
            let mut taken = 0;
            in_order(
                threads,
                0..500u64,
                || (),
                |(), job| {
                    begun.fetch_max(job, Ordering::SeqCst);
                    if job == 20 {
                        thread::sleep(Duration::from_millis(30));
                    }
                    Ok(job)
                },
                |job| {
                    assert_eq!(job, taken);
                    taken += 1;
                    let ahead = begun.load(Ordering::SeqCst).saturating_sub(job);
                    assert!(ahead <= (threads * AHEAD) as u64, "{ahead} jobs ahead of {job}");
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(taken, 500);
        }
    }

    #[test]
    fn first_failure_ends_all() {
        for threads in [1, 3] {
            let mut taken = Vec::new();
            let work = |(): &mut (), job: u64| if job % 7 == 6 { Err(Error::Cancelled) } else { Ok(job) };
            let ended = in_order(
                threads,
                0..,
                || (),
                work,
                |job| {
                    taken.push(job);
                    Ok(())
                },
            );
            assert!(matches!(ended, Err(Error::Cancelled)));
            assert_eq!(taken, [0, 1, 2, 3, 4, 5]);
            let ended = in_order(
                threads,
                0u64..,
                || (),
                |(), job| Ok(job),
                |job| match job {
                    9 => Err(Error::Cancelled),
                    _ => Ok(()),
                },
            );
            assert!(matches!(ended, Err(Error::Cancelled)));
        }
    }

    #[test]
    fn panic_in_a_thread_is_one_here() {
        let work = |(): &mut (), job: u64| {
            assert_ne!(job, 30, "job 30");
            Ok(job)
        };
        let ended = catch_unwind(AssertUnwindSafe(|| in_order(2, 0.., || (), work, |_| Ok(()))));
        assert!(ended.is_err());
    }
}
