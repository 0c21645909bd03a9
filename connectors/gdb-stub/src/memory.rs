//! Physical memory behind a stub.
//!
//! Owns: [`GdbMemory`]: batches of reads and writes as requests, and their answers as outcomes.
//! Must not know: how the stub was found, whether the target stands.
//! Keeps: addresses that are no memory are never asked for; bytes come from an answer of exactly the right length or not at all; a stub
//! that is lost fails everything at once.
//! Source: GDB manual, appendix "GDB Remote Serial Protocol", "Packets": `m`, `x`, `M`, `X`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use memflow_core::{
    Error, PhysAddr, PhysicalMemory, Reason, Result,
    memory::{
        Control, Liveness, Lookaside, Metadata, Outcome, PhysRead, PhysWrite, RunMap, TargetFacts, finish_reads,
        finish_writes,
    },
};
use rustix::io::Errno;

use crate::{
    description::Description,
    handshake::Abilities,
    hex,
    layout::Layout,
    packet::{encoded_len, unescape},
    plan::{Chunk, Part, Plan},
    session::{Request, Session},
};

/// Requests that are made and answered before the next are made: bounds what answers take in memory.
const REQUESTS: usize = 256;
/// Room in a packet for the letter, the address, the length and what stands between.
const HEADER: usize = 40;
/// Writes keep to pages, so that one that fails takes no other page with it.
const PAGE: u64 = 4096;

/// The memory of a target behind a GDB stub, and control over whether it runs.
pub struct GdbMemory {
    session: Mutex<Session>,
    name: Arc<str>,
    readable: Arc<RunMap>,
    writable: RunMap,
    pub(crate) description: Description,
    facts: TargetFacts,
    /// Most bytes of a read, a power of two.
    grid: u64,
    /// Most bytes of a write, on the wire.
    room: usize,
    abilities: Abilities,
    calls: AtomicU64,
    pub(crate) lookaside: Lookaside,
}

impl std::fmt::Debug for GdbMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GdbMemory({})", self.name)
    }
}

/// Why a target that is lost cannot be read: the error number that comes nearest.
fn reason_of(error: &Error) -> Reason {
    let errno = match error {
        Error::Io { source, .. } => match source.kind() {
            io::ErrorKind::TimedOut => Errno::TIMEDOUT,
            io::ErrorKind::InvalidData => Errno::PROTO,
            io::ErrorKind::UnexpectedEof => Errno::CONNRESET,
            _ => Errno::IO,
        },
        _ => Errno::IO,
    };
    Reason::Io { errno: errno.raw_os_error() }
}

/// Why bytes that the stub refuses are not there: it says no more than that.
fn refused() -> Reason {
    Reason::Io { errno: Errno::FAULT.raw_os_error() }
}

/// Why an answer that cannot be one is not taken.
fn nonsense() -> Reason {
    Reason::Io { errno: Errno::PROTO.raw_os_error() }
}

/// What a stub answered to a read.
enum Answer {
    Bytes(Vec<u8>),
    Refused,
    Nonsense,
}

impl GdbMemory {
    pub(crate) fn new(
        session: Session,
        layout: Layout,
        description: Description,
        facts: TargetFacts,
        abilities: Abilities,
    ) -> Self {
        let largest = u64::try_from(abilities.packet / 2).unwrap_or(u64::MAX);
        let grid = 1_u64.checked_shl(largest.max(1).ilog2()).unwrap_or(1);
        Self {
            name: session.name().into(),
            session: Mutex::new(session),
            readable: Arc::new(layout.readable),
            writable: layout.writable,
            description,
            facts,
            grid,
            room: abilities.packet.saturating_sub(HEADER),
            abilities,
            calls: AtomicU64::new(0),
            lookaside: Lookaside::by_liveness(Liveness::Live),
        }
    }

    /// Batches that this connector was called with.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The conversation. A thread that panicked in it left a request without its answer at worst, which is noticed.
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts of an operation that are in `map`, and its outcome as far as it is known without asking.
    fn parts(&self, map: &RunMap, op: usize, addr: PhysAddr, len: usize) -> (Vec<Part>, Outcome) {
        let mut parts = Vec::new();
        let missing = |phys| match self.readable.find(phys) {
            // Memory that is not in `map` is there to be read only.
            Some(_) => Reason::ReadOnly,
            None => Reason::NotInImage { phys },
        };
        let outcome = map.cut(addr, len, missing, |part| {
            let (start, last) = (part.range.start(), part.range.last().unwrap_or(part.range.start()));
            let offset = u64::try_from(part.from).unwrap_or(u64::MAX);
            parts.push(Part { start: start.as_u64(), last: last.as_u64(), op, offset });
        });
        (parts, outcome)
    }

    fn read_request(&self, chunk: &Chunk) -> Request {
        let letter = if self.abilities.binary_read { 'x' } else { 'm' };
        Request::new(format!("{letter}{:x},{:x}", chunk.start, chunk.len()))
    }

    fn read_answer(&self, answer: &[u8], chunk: &Chunk) -> Answer {
        let bytes = match answer {
            [b'E', _, _] | [b'E', b'.', ..] | [] => return Answer::Refused,
            [b'b', binary @ ..] if self.abilities.binary_read => unescape(binary),
            digits if !self.abilities.binary_read => hex::decode(digits),
            _ => None,
        };
        match bytes {
            Some(bytes) if bytes.is_empty() => Answer::Refused,
            Some(bytes) if u64::try_from(bytes.len()).is_ok_and(|len| len <= chunk.len()) => Answer::Bytes(bytes),
            _ => Answer::Nonsense,
        }
    }

    /// Carries out a plan; the error is why the stub is lost.
    fn read_planned(&self, plan: &mut Plan, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let mut session = self.session();
        let was_running = match session.begin() {
            Ok(was_running) => was_running,
            Err(error) => {
                plan.fail_rest(reason_of(&error), ops);
                return Err(error);
            }
        };
        loop {
            let chunks = plan.take(REQUESTS);
            if chunks.is_empty() {
                return session.end(was_running);
            }
            let requests: Vec<Request> = chunks.iter().map(|chunk| self.read_request(chunk)).collect();
            let answers = match session.exchange(&requests, true) {
                Ok(answers) => answers,
                Err(error) => {
                    let reason = reason_of(&error);
                    chunks.iter().for_each(|chunk| plan.fail(*chunk, reason, ops));
                    plan.fail_rest(reason, ops);
                    return Err(error);
                }
            };
            for (chunk, answer) in chunks.into_iter().zip(answers) {
                match self.read_answer(&answer, &chunk) {
                    Answer::Bytes(bytes) => plan.deliver(chunk, &bytes, ops),
                    Answer::Refused => plan.refused(chunk, refused(), ops),
                    Answer::Nonsense => plan.fail(chunk, nonsense(), ops),
                }
            }
        }
    }

    /// The requests of a write, each with its bytes from the operation's start. They cross no page.
    fn write_requests(&self, part: &Part, bytes: &[u8]) -> Vec<(u64, Request)> {
        let mut requests = Vec::new();
        let (mut at, mut rest) = (part.start, bytes);
        while !rest.is_empty() {
            let to_page = PAGE.saturating_sub(at % PAGE);
            let width = |byte: u8| if self.abilities.binary_write { encoded_len(byte) } else { 2 };
            let mut used = 0_usize;
            let fits = rest.iter().take(usize::try_from(to_page).unwrap_or(usize::MAX)).take_while(|byte| {
                used = used.saturating_add(width(**byte));
                used <= self.room
            });
            let Some((now, behind)) = rest.split_at_checked(fits.count().max(1)) else { break };
            let letter = if self.abilities.binary_write { 'X' } else { 'M' };
            let mut payload = format!("{letter}{at:x},{:x}:", now.len()).into_bytes();
            if self.abilities.binary_write {
                payload.extend(now);
            } else {
                hex::encode(now, &mut payload);
            }
            requests.push((part.offset.saturating_add(at.saturating_sub(part.start)), Request::new(payload)));
            at = at.saturating_add(u64::try_from(now.len()).unwrap_or(u64::MAX));
            rest = behind;
        }
        requests
    }

    /// Writes the parts in order; the error is why the stub is lost.
    fn write_parts(&self, parts: &[Part], ops: &mut [PhysWrite<'_>]) -> Result<()> {
        let mut session = self.session();
        let mut lost = session.begin().map_or_else(|error| (Some(error), false), |running| (None, running));
        for part in parts {
            let Some(op) = ops.get_mut(part.op) else { continue };
            let from = usize::try_from(part.offset).unwrap_or(usize::MAX);
            let len = usize::try_from(part.last.saturating_sub(part.start)).unwrap_or(usize::MAX).saturating_add(1);
            let bytes = op.buf.get(from..).and_then(|rest| rest.get(..len)).unwrap_or_default();
            if let Some(error) = &lost.0 {
                op.outcome.fail(part.offset, reason_of(error));
                continue;
            }
            for group in self.write_requests(part, bytes).chunks(REQUESTS) {
                let requests: Vec<Request> = group.iter().map(|(_, request)| request.clone()).collect();
                match session.exchange(&requests, true) {
                    Ok(answers) => {
                        for ((offset, _), answer) in group.iter().zip(answers) {
                            match answer.as_slice() {
                                b"OK" => {}
                                [b'E', ..] | [] => op.outcome.fail(*offset, refused()),
                                _ => op.outcome.fail(*offset, nonsense()),
                            }
                        }
                    }
                    Err(error) => {
                        let offset = group.first().map_or(part.offset, |(offset, _)| *offset);
                        op.outcome.fail(offset, reason_of(&error));
                        lost.0 = Some(error);
                        break;
                    }
                }
            }
        }
        match lost {
            (Some(error), _) => Err(error),
            (None, was_running) => session.end(was_running),
        }
    }
}

/// The error of a batch: what its operations say, and why the stub was lost, if it was.
fn verdict(called: Result<()>, folded: Result<()>) -> Result<()> {
    match (called, folded) {
        (Err(lost), Err(error)) => Err(error.context(lost.to_string())),
        // The bytes are there, but the target could not be let go.
        (Err(lost), Ok(())) => Err(lost),
        (Ok(()), folded) => folded,
    }
}

impl PhysicalMemory for GdbMemory {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut all = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter_mut().enumerate() {
            let (parts, outcome) = self.parts(&self.readable, index, op.addr, op.buf.len());
            op.outcome = outcome;
            all.extend(parts);
        }
        let called = if all.is_empty() { Ok(()) } else { self.read_planned(&mut Plan::new(all, self.grid), ops) };
        verdict(called, finish_reads(&self.name, ops))
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // Dropped when the writes have been carried out.
        let _writing = self.lookaside.writing(ops);
        let mut all = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter_mut().enumerate() {
            let (parts, outcome) = self.parts(&self.writable, index, op.addr, op.buf.len());
            op.outcome = outcome;
            all.extend(parts);
        }
        let called = if all.is_empty() { Ok(()) } else { self.write_parts(&all, ops) };
        verdict(called, finish_writes(&self.name, ops))
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: self.name.clone(),
            runs: self.readable.clone(),
            liveness: Liveness::Live,
            read_only: self.writable.is_empty(),
            ideal_batch: REQUESTS,
        }
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        Some(&self.lookaside)
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    fn control(&self) -> Option<&dyn Control> {
        Some(self)
    }
}
