//! Long copies by several threads.
//!
//! Owns: from which length on threads pay, how many there are, the threads. Must not know: what is copied, how it is cut.
//! Keeps: where no thread can be had, or all are at work, the caller's does everything; nobody waits for a lock, or for work that is
//! not its own.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

/// The shortest copy that several threads share. Waking another one takes about 20 µs, in which one copies a MiB; from 8 MiB on, bytes go
/// past the caches (`live.rs`) and memory is what limits one thread. `cargo xtask bench --compare --filter copies/` measures both sides
/// of it, on a machine that has its cores to itself: whoever waits for a thread that another program keeps from running loses more.
pub(crate) const LONG: usize = 16 << 20;
/// What each of them copies at least: from this length on, bytes go past the caches (`live.rs`).
const LEAST_SHARE: usize = 8 << 20;
/// Shares are whole pages.
const PAGE: u64 = 4096;
/// Threads that one copy has at most. Memory is not faster for more.
const MOST_THREADS: usize = 8;

/// Threads, and the process that has them: a child of it has none.
struct Threads {
    pool: ThreadPool,
    process: u32,
}

/// The threads, unless the caller's should do everything.
fn threads() -> Option<&'static ThreadPool> {
    static THREADS: OnceLock<Option<Threads>> = OnceLock::new();
    // A thread of a pool, be it this one or the program's, has others beside it that are at work. Waiting here, it would take on what
    // they left, with whatever it holds.
    if rayon::current_thread_index().is_some() {
        return None;
    }
    let threads = THREADS.get_or_init(|| {
        let pool = ThreadPoolBuilder::new().thread_name(|number| format!("memflow-copy-{number}")).build();
        if let Err(error) = &pool {
            log::debug!("long copies have one thread: {error}");
        }
        pool.ok().map(|pool| Threads { pool, process: std::process::id() })
    });
    threads.as_ref().filter(|threads| threads.process == std::process::id()).map(|threads| &threads.pool)
}

/// How much of `bytes` bytes each thread is to copy; `None` where one does it as fast.
pub(crate) fn share(bytes: u64) -> Option<u64> {
    if bytes < LONG as u64 {
        return None;
    }
    let threads = threads()?.current_num_threads().min(MOST_THREADS) as u64;
    let shares = threads.min(bytes / LEAST_SHARE as u64);
    (shares > 1).then(|| bytes.div_ceil(shares).saturating_add(PAGE - 1) & !(PAGE - 1))
}

/// Does `work` with every part, several at a time.
pub(crate) fn for_each<T: Send>(parts: &mut [T], work: impl Fn(&mut T) + Send + Sync) {
    match threads() {
        Some(pool) => pool.install(|| parts.par_iter_mut().with_max_len(1).for_each(work)),
        None => parts.iter_mut().for_each(work),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_copies_and_threads_of_a_pool_share_nothing() {
        assert_eq!(share(LONG as u64 - 1), None);
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        assert_eq!(pool.install(|| share(u64::MAX)), None);
        // As a pool for one: how a program keeps this to one thread.
        let mut sums = [0; 4];
        pool.install(|| for_each(&mut sums, |sum| *sum += 1));
        assert_eq!(sums, [1; 4]);
    }

    #[test]
    fn shares_cover_everything_and_are_long() {
        for bytes in [LONG as u64, LONG as u64 + 1, 1 << 30, u64::MAX] {
            if let Some(share) = share(bytes) {
                assert!(share >= LEAST_SHARE as u64 && share < bytes, "{share} of {bytes}");
                assert!(bytes.div_ceil(share) <= MOST_THREADS as u64, "{share} of {bytes}");
            }
        }
        let mut parts: Vec<u32> = (0..100).collect();
        for_each(&mut parts, |part| *part += 1);
        assert!(parts.into_iter().eq(1..101));
    }
}
