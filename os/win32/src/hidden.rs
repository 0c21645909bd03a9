//! Processes that others than the kernel's list know of.
//!
//! Owns: whom to ask, in which order. Must not know: what a process is, how each witness is asked.
//! Keeps: a process comes up once, by the first who told of it.

use std::{collections::HashSet, fmt};

use memflow_core::{Error, VirtAddr};

use crate::{
    cid::{self, Numbered, NumberedKind},
    eprocess::FoundBy,
    kernel::Kernel,
    processors,
};

impl fmt::Display for FoundBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "the list of processes",
            Self::Numbers => "the table of process numbers",
            Self::Thread => "a thread",
            Self::Processor => "a processor",
            Self::Caller => "the caller",
        })
    }
}

/// Addresses that must be those of processes and are not in `known`, with who told of each. `system` is the process System, if it is known.
pub(crate) fn candidates(
    kernel: &Kernel,
    system: Option<VirtAddr>,
    known: &HashSet<VirtAddr>,
    problems: &mut Vec<Error>,
) -> Vec<(FoundBy, VirtAddr)> {
    let mut told: Vec<(FoundBy, VirtAddr)> = Vec::new();
    match cid::numbered(kernel, system, &|at| known.contains(&at)) {
        None => log::debug!("hidden processes: where the table of process numbers lies is not known"),
        Some(Err(error)) => problems.push(error),
        Some(Ok(numbered)) => {
            problems.extend(numbered.problems);
            let of_kind = |one: &Numbered| match one.kind {
                NumberedKind::Process => Some((FoundBy::Numbers, one.at)),
                NumberedKind::Thread { owner } => owner.map(|owner| (FoundBy::Thread, owner)),
            };
            told.extend(numbered.items.iter().filter_map(of_kind));
        }
    }
    told.extend(processors::running(kernel).into_iter().map(|running| (FoundBy::Processor, running.process)));
    // Processes by their own number come before owners of threads.
    told.sort_by_key(|(found_by, _)| *found_by);
    let mut seen = known.clone();
    told.retain(|(_, at)| seen.insert(*at));
    told
}
