//! A search through memory, as `find` and `strings` make it.
//!
//! Owns: the options of where and how much, progress, Ctrl-C, and the words for what was not searched. Must not know: what is looked
//! for, how it is shown.
//! Keeps: what was found before Ctrl-C is told, and told to be partial.

use std::{
    io::{IsTerminal, stdout},
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

use clap::Args;
use memflow_core::{
    Error, PhysAddr, PhysRange, Reason, VirtAddr, VirtRange,
    address::Address,
    scan::{Ended, Hit, Scan, Scanned, Unread},
};
use serde::Serialize;

use super::space::{Space, lower_half};
use crate::{
    failure::{Failure, Outcome, Status},
    interrupt,
    output::{Hex, Io, plural, size},
    parse, progress,
    target::Target,
};

/// Most results in one JSON document.
pub(super) const JSON_LIMIT: u64 = 1 << 20;

/// Where and how much.
#[derive(Args, Clone, Debug)]
pub(super) struct RangeArgs {
    /// Only in these addresses; may be given more than once
    #[arg(long = "range", value_name = "RANGE", value_parser = parse::range::<VirtAddr>)]
    ranges: Vec<VirtRange>,
    /// Stop after this many
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = parse::number)]
    limit: Option<u64>,
}

/// Memory that was not searched.
#[derive(Serialize)]
pub(super) struct UnreadRecord {
    start: Hex,
    length: u64,
    reason: String,
}

/// How a search ended.
#[derive(Serialize)]
pub(super) struct Summary {
    ended: &'static str,
    searched: u64,
    unreadable: Vec<UnreadRecord>,
    problems: Vec<String>,
    #[serde(skip)]
    interrupted: bool,
}

/// A match: address, index of the pattern, bytes.
pub(super) type Each<'e> = dyn FnMut(&mut Io<'_>, u64, usize, &[u8]) -> Outcome<()> + Send + 'e;

/// Who is told, and the first thing that went wrong there.
struct Teller<'t, 'io> {
    io: &'t mut Io<'io>,
    each: &'t mut Each<'t>,
    failure: Option<Failure>,
    terminal: bool,
}

/// Searches `space` and tells every match.
pub(super) fn search(
    scan: Scan<'_>,
    space: &Space,
    target: &Target,
    args: &RangeArgs,
    io: &mut Io<'_>,
    each: &mut Each<'_>,
) -> Outcome<Summary> {
    let _results = interrupt::Unfinished::results();
    let quiet = io.quiet();
    let bar: Mutex<Option<(progress::Bytes, u64)>> = Mutex::new(None);
    let on_progress = |done: u64, total: u64| {
        let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        let (bar, shown) = bar.get_or_insert_with(|| (progress::Bytes::new(quiet, total), 0));
        bar.advance(done.saturating_sub(*shown));
        *shown = done.max(*shown);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let limit = match args.limit {
        None if io.json => Some(JSON_LIMIT),
        Some(limit) if io.json => Some(limit.min(JSON_LIMIT)),
        limit => limit,
    };
    let scan = limit.map_or(scan, |limit| scan.limit(limit)).progress(&on_progress);
    let terminal = stdout().is_terminal();
    let mut teller = Teller { io: &mut *io, each, failure: None, terminal };
    let mut tell = |addr: u64, pattern: usize, bytes: &[u8]| {
        let bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        match &*bar {
            Some((bar, _)) if terminal => bar.aside(|| teller.tell(addr, pattern, bytes)),
            _ => teller.tell(addr, pattern, bytes),
        }
    };
    let summary = match space.address_space()? {
        Some((tables, memory)) => {
            // A process' tables also map the kernel, which is searched on its own.
            let own = matches!(space, Space::Process(..)).then(|| lower_half(tables)).flatten();
            let ranges = if args.ranges.is_empty() { own.as_slice() } else { &args.ranges };
            let mut each = |hit: Hit<'_, VirtAddr>| tell(hit.addr.as_u64(), hit.pattern, hit.bytes);
            summary(&scan.space(tables, memory, ranges, &mut each)?)
        }
        None => {
            let ranges: Vec<PhysRange> = args.ranges.iter().map(physical).collect::<Result<_, _>>()?;
            let mut each = |hit: Hit<'_, PhysAddr>| tell(hit.addr.as_u64(), hit.pattern, hit.bytes);
            summary(&scan.physical(&**target.memory(), &ranges, &mut each)?)
        }
    };
    match teller.failure {
        Some(failure) => Err(failure),
        None => Ok(summary),
    }
}

impl Teller<'_, '_> {
    fn tell(&mut self, addr: u64, pattern: usize, bytes: &[u8]) -> ControlFlow<()> {
        let told = (self.each)(self.io, addr, pattern, bytes);
        // Whoever looks at a terminal sees a match when it is found.
        match told.and_then(|()| if self.terminal { self.io.flush() } else { Ok(()) }) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }
}

/// The physical addresses of the same numbers.
fn physical(range: &VirtRange) -> Result<PhysRange, Error> {
    let (start, len) = (PhysAddr::new(range.start().as_u64()), range.len());
    PhysRange::new(start, len).ok_or(Error::Range { address: start.into(), len })
}

fn summary<A: Address>(scanned: &Scanned<A>) -> Summary {
    let unreadable: Vec<UnreadRecord> = scanned
        .unread
        .iter()
        .map(|unread| UnreadRecord {
            start: Hex(unread.range.start().to_u64()),
            length: unread.range.len(),
            reason: unread.reason.to_string(),
        })
        .collect();
    let mut problems = Vec::new();
    let (absent, broken): (Vec<_>, Vec<_>) =
        scanned.unread.iter().partition(|unread| matches!(unread.reason, Reason::NotInImage { .. }));
    problems.extend(not_searched(&broken, "could not be searched"));
    problems.extend(not_searched(&absent, "are mapped to no memory of this target, as those of devices are"));
    let told = scanned.unread.iter().fold(0u64, |sum, unread| sum.saturating_add(unread.range.len()));
    if let Some(more) = scanned.missing.checked_sub(told).filter(|more| *more > 0) {
        problems.push(format!("{} more could not be searched", size(more)));
    }
    // Ranges are wide as a rule, and spaces mostly empty.
    let nothing = scanned.bytes == 0 && scanned.missing == 0 && scanned.ended == Ended::Complete;
    if scanned.absent > 0 && nothing {
        problems.push("there is no memory at the addresses that were asked for".to_owned());
    }
    let interrupted = scanned.ended == Ended::Cancelled;
    if interrupted {
        problems.push(format!("interrupted after {}; what was found until then is told", size(scanned.bytes)));
    }
    let ended = match scanned.ended {
        Ended::Complete => "complete",
        Ended::Limit => "limit",
        Ended::Stopped => "stopped",
        Ended::Cancelled => "interrupted",
    };
    Summary { ended, searched: scanned.bytes, unreadable, problems, interrupted }
}

/// A sentence about memory that was not searched, if there is any.
fn not_searched<A: Address>(list: &[&Unread<A>], what: &str) -> Option<String> {
    let first = list.first()?;
    let bytes = list.iter().fold(0u64, |sum, unread| sum.saturating_add(unread.range.len()));
    let places = plural(list.len() as u64, "place");
    Some(format!("{} in {places} {what}, the first at {}: {}", size(bytes), first.range.start(), first.reason))
}

impl Summary {
    /// Adds something that the answer lacks.
    pub(super) fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// Says what the answer lacks.
    pub(super) fn warn(&self, io: &mut Io<'_>) {
        for problem in &self.problems {
            io.warn(problem);
        }
    }

    /// How the command ends.
    pub(super) fn finish(&self) -> Outcome {
        match (self.interrupted, self.problems.is_empty()) {
            (true, _) => Err(Failure::Interrupted),
            (false, true) => Ok(Status::Complete),
            (false, false) => Ok(Status::Incomplete),
        }
    }

    /// True when there may be more than was told because of a limit that nobody asked for.
    pub(super) fn is_cut(&self, args: &RangeArgs) -> bool {
        self.ended == "limit" && args.limit.is_none_or(|limit| limit > JSON_LIMIT)
    }
}
