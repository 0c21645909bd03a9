//! From operations to requests of a size that the stub takes.
//!
//! Owns: [`Plan`]: parts of operations sorted and joined, cut into chunks, and what becomes of a chunk that fails.
//! Must not know: packets, connections.
//! Keeps: neighbours become one request; a chunk that fails is cut until it holds one page of one operation, so that it takes nothing
//! else with it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::VecDeque;

use memflow_core::{
    Reason,
    memory::{Outcome, PhysRead},
};

/// Memory is there or not by pages of this size.
const PAGE: u64 = 4096;

/// Part of an operation that is memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// First physical address.
    pub start: u64,
    /// Last physical address.
    pub last: u64,
    /// Index of the operation.
    pub op: usize,
    /// Bytes from that operation's start.
    pub offset: u64,
}

/// One request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    /// First physical address.
    pub start: u64,
    /// Last physical address.
    pub last: u64,
    /// Index of the first part that can have bytes in it.
    first: usize,
}

impl Chunk {
    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        self.last.saturating_sub(self.start).saturating_add(1)
    }
}

/// What is still to be asked for.
#[derive(Debug)]
pub(crate) struct Plan {
    /// By address.
    parts: Vec<Part>,
    chunks: VecDeque<Chunk>,
}

impl Plan {
    /// A plan for these parts, in chunks that cross no multiple of `grid`, a power of two.
    pub(crate) fn new(mut parts: Vec<Part>, grid: u64) -> Self {
        parts.sort_unstable_by_key(|part| part.start);
        let mut chunks = VecDeque::new();
        let mut index = 0_usize;
        while let Some(begin) = parts.get(index) {
            let (start, mut last) = (begin.start, begin.last);
            let span = index;
            while let Some(part) = parts.get(index).filter(|part| part.start <= last.saturating_add(1)) {
                last = last.max(part.last);
                index = index.saturating_add(1);
            }
            let (mut at, mut first) = (start, span);
            loop {
                while parts.get(first).is_some_and(|part| part.last < at) {
                    first = first.saturating_add(1);
                }
                let chunk = Chunk { start: at, last: last.min(at | grid.saturating_sub(1)), first };
                chunks.push_back(chunk);
                match chunk.last.checked_add(1) {
                    Some(next) if next <= last => at = next,
                    _ => break,
                }
            }
        }
        Self { parts, chunks }
    }

    /// The next requests, up to `most`.
    pub(crate) fn take(&mut self, most: usize) -> Vec<Chunk> {
        self.chunks.drain(..most.min(self.chunks.len())).collect()
    }

    /// The parts with bytes in a chunk.
    fn touched(&self, chunk: Chunk) -> impl Iterator<Item = &Part> {
        let from = self.parts.get(chunk.first..).unwrap_or_default();
        from.iter().take_while(move |part| part.start <= chunk.last).filter(move |part| part.last >= chunk.start)
    }

    /// Gives what was read from the start of a chunk to its operations; what was not is asked for again.
    pub(crate) fn deliver(&mut self, chunk: Chunk, bytes: &[u8], ops: &mut [PhysRead<'_>]) {
        let got = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(chunk.len());
        let Some(last) = chunk.start.checked_add(got.saturating_sub(1)) else { return };
        for part in self.touched(chunk) {
            let (from, to) = (part.start.max(chunk.start), part.last.min(last));
            let source = index(from, chunk.start)..index(to, chunk.start).saturating_add(1);
            let target = index(from, part.start).saturating_add(usize::try_from(part.offset).unwrap_or(usize::MAX));
            let (Some(source), Some(op)) = (bytes.get(source), ops.get_mut(part.op)) else { continue };
            let target = op.buf.get_mut(target..).and_then(|rest| rest.get_mut(..source.len()));
            if let Some(target) = target {
                target.copy_from_slice(source);
            }
        }
        if last < chunk.last {
            self.chunks.push_front(Chunk { start: last.saturating_add(1), ..chunk });
        }
    }

    /// Cuts a chunk that failed and asks for the halves, or lets its operations fail.
    pub(crate) fn refused(&mut self, chunk: Chunk, reason: Reason, ops: &mut [PhysRead<'_>]) {
        match self.cut(chunk) {
            Some(middle) => {
                self.chunks.push_front(Chunk { start: middle, ..chunk });
                self.chunks.push_front(Chunk { last: middle.saturating_sub(1), ..chunk });
            }
            None => self.fail(chunk, reason, ops),
        }
    }

    /// Lets the operations of a chunk fail.
    pub(crate) fn fail(&self, chunk: Chunk, reason: Reason, ops: &mut [PhysRead<'_>]) {
        for part in self.touched(chunk) {
            if let Some(op) = ops.get_mut(part.op) {
                let inside = chunk.start.saturating_sub(part.start);
                op.outcome.add_part(part.offset.saturating_add(inside), Outcome::Failed { offset: 0, reason });
            }
        }
    }

    /// Lets the operations of everything that is left fail.
    pub(crate) fn fail_rest(&mut self, reason: Reason, ops: &mut [PhysRead<'_>]) {
        for chunk in std::mem::take(&mut self.chunks) {
            self.fail(chunk, reason, ops);
        }
    }

    /// The address to cut a chunk at: between pages, else between operations.
    fn cut(&self, chunk: Chunk) -> Option<u64> {
        let inside = |at: &u64| *at > chunk.start && *at <= chunk.last;
        let page = |at: u64| at & !(PAGE.saturating_sub(1));
        let middle = page(chunk.start.saturating_add(chunk.len() / 2));
        let pages = [middle, page(chunk.start).saturating_add(PAGE)].into_iter().find(inside);
        let edges = || self.touched(chunk).flat_map(|part| [part.start, part.last.saturating_add(1)]).find(inside);
        pages.or_else(edges)
    }
}

/// The distance of two addresses as an index.
fn index(address: u64, base: u64) -> usize {
    usize::try_from(address.saturating_sub(base)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing, reason = "tests")]
    use memflow_core::PhysAddr;

    use super::*;

    fn part(op: usize, start: u64, len: u64) -> Part {
        Part { start, last: start + (len - 1), op, offset: 0 }
    }

    /// Carries a plan out over memory whose byte at each address is the address, without what `bad` names.
    fn run(parts: &[(u64, u64)], grid: u64, bad: fn(u64) -> bool) -> (Vec<Vec<u8>>, Vec<Outcome>, usize) {
        let mut buffers: Vec<Vec<u8>> = parts.iter().map(|(_, len)| vec![0xee; *len as usize]).collect();
        let mut ops: Vec<_> = buffers.iter_mut().map(|buf| PhysRead::new(PhysAddr::new(0), buf)).collect();
        ops.iter_mut().for_each(|op| op.outcome = Outcome::Done);
        let mut plan =
            Plan::new(parts.iter().enumerate().map(|(op, (start, len))| part(op, *start, *len)).collect(), grid);
        let mut asked = 0;
        loop {
            let chunks = plan.take(3);
            if chunks.is_empty() {
                break;
            }
            for chunk in chunks {
                asked += 1;
                let addresses = chunk.start..=chunk.last;
                if addresses.clone().any(bad) {
                    plan.refused(chunk, Reason::ReadOnly, &mut ops);
                } else {
                    let bytes: Vec<u8> = addresses.map(|at| at as u8).collect();
                    plan.deliver(chunk, &bytes, &mut ops);
                }
            }
        }
        let outcomes = ops.iter().map(|op| op.outcome).collect();
        (buffers, outcomes, asked)
    }

    #[test]
    fn neighbours_and_doubles_are_one_request() {
        let (buffers, outcomes, asked) =
            run(&[(0x1010, 0x10), (0x1000, 0x10), (0x1008, 4), (0x1000, 0x20)], 2048, |_| false);
        assert!(outcomes.iter().all(Outcome::is_done));
        assert_eq!(asked, 1);
        assert_eq!((buffers[0][0], buffers[1][0], buffers[2][3], buffers[3][0x1f]), (0x10, 0, 0x0b, 0x1f));
    }

    #[test]
    fn failing_page_takes_no_other_with_it() {
        let (buffers, outcomes, _) = run(&[(0x0ff0, 0x2020), (0x1ff0, 0x20)], 1 << 16, |at| at >> 12 == 1);
        assert_eq!(
            outcomes,
            [
                Outcome::Failed { offset: 0x10, reason: Reason::ReadOnly },
                Outcome::Failed { offset: 0, reason: Reason::ReadOnly }
            ]
        );
        assert_eq!((buffers[0][0xf], buffers[0][0x10], buffers[0][0x1010], buffers[1][0x10]), (0xff, 0xee, 0, 0));
    }

    #[test]
    fn failing_operation_takes_no_neighbour_with_it() {
        let (_, outcomes, _) = run(&[(0x1000, 8), (0x1008, 8), (0x1010, 8)], 2048, |at| at == 0x100c);
        assert!(outcomes[0].is_done() && !outcomes[1].is_done() && outcomes[2].is_done());
    }

    #[test]
    fn chunks_keep_to_the_grid_up_to_the_last_address() {
        let parts = vec![part(0, 0x7f8, 0x1010), part(1, u64::MAX - 7, 8)];
        let chunks = Plan::new(parts, 2048).take(100);
        let places: Vec<_> = chunks.iter().map(|chunk| (chunk.start, chunk.last)).collect();
        assert_eq!(
            places,
            [(0x7f8, 0x7ff), (0x800, 0xfff), (0x1000, 0x17ff), (0x1800, 0x1807), (u64::MAX - 7, u64::MAX)]
        );
    }

    #[test]
    fn short_answers_are_asked_on() {
        let mut buf = [0; 16];
        let mut ops = [PhysRead::new(PhysAddr::new(0), &mut buf)];
        let mut plan = Plan::new(vec![part(0, 0x10, 16)], 2048);
        let chunk = plan.take(1)[0];
        plan.deliver(chunk, &[1; 5], &mut ops);
        let rest = plan.take(9);
        assert_eq!(rest.iter().map(|chunk| (chunk.start, chunk.len())).collect::<Vec<_>>(), [(0x15, 11)]);
        plan.deliver(rest[0], &[2; 11], &mut ops);
        assert_eq!(buf, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    }
}
