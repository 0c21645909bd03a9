//! The trait that every source of physical memory implements.
//!
//! Owns: [`PhysicalMemory`], its [`Metadata`], and conveniences over them.
//! Must not know: paging, views, where bytes come from.
//! Keeps: one handle serves every thread (`&self`, `Sync`); a batch is slices in and outcomes out.

use std::sync::Arc;

use super::{Control, DirectMap, Lookaside, PhysRead, PhysWrite, RunMap, TargetFacts};
use crate::{address::PhysAddr, error::Result};

/// Whether the bytes change while they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Liveness {
    /// A running system: two reads of one address may differ.
    Live,
    /// A snapshot: the bytes stay as they are.
    Frozen,
}

/// What a target holds and how it likes to be asked.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// The connector and its target, for messages ("snapshot core.elf").
    pub name: Arc<str>,
    /// The physical addresses that can be read.
    pub runs: Arc<RunMap>,
    /// Whether the bytes change while they are read.
    pub liveness: Liveness,
    /// True when writes are refused.
    pub read_only: bool,
    /// Operations per call at which the source works best.
    pub ideal_batch: usize,
}

/// A source of physical memory.
///
/// One handle is shared by all threads. Implementations keep no position and take no lock across a whole batch if they can help it.
pub trait PhysicalMemory: Send + Sync {
    /// Reads a batch, in any order, and records an outcome in every operation.
    ///
    /// # Errors
    /// The fold of the outcomes ([`finish_reads`](super::finish_reads)): the first operation that is not done. The others
    /// are carried out all the same. After a failure of one operation its buffer holds the bytes that could be read.
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()>;

    /// Writes a batch in the order given, and records an outcome in every operation.
    ///
    /// # Errors
    /// The first operation that is not done; the others are carried out all the same.
    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()>;

    /// What the target holds.
    fn metadata(&self) -> Metadata;

    /// The runs without what is known to be all zeros, such as the holes of a sparse file: where a scan or a copy need not look.
    ///
    /// Asked anew each time, as a running system fills holes. Bytes outside it are zero and can be read like any others.
    fn populated_runs(&self) -> Arc<RunMap> {
        self.metadata().runs
    }

    /// Addresses that the machine had and whoever wrote the dump left out on purpose: reads of them fail as
    /// [`Reason::Excluded`](crate::error::Reason::Excluded). In none of the [runs](Metadata::runs); offsets mean nothing. Empty where
    /// nothing was left out, or nobody says what.
    fn excluded_runs(&self) -> Arc<RunMap> {
        Arc::default()
    }

    /// The target's bytes, if they lie in this process and can be used in place.
    fn direct_map(&self) -> Option<&DirectMap> {
        None
    }

    /// Where what was worked out from the bytes is kept until they may have changed, if anybody keeps it.
    ///
    /// A layer that changes nothing of what the memory holds hands on that of the memory below, so that all layers share it; one
    /// that also keeps bytes itself tells it of writes when it has forgotten them ([`Lookaside::written`]). What shows the memory
    /// otherwise than it is has its own, or none.
    fn lookaside(&self) -> Option<&Lookaside> {
        None
    }

    /// What the target knows about itself.
    fn facts(&self) -> &TargetFacts;

    /// Power over a running target, where the connector has it.
    fn control(&self) -> Option<&dyn Control> {
        None
    }
}

impl<M: PhysicalMemory + ?Sized> PhysicalMemory for Arc<M> {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        (**self).read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        (**self).write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        (**self).metadata()
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        (**self).populated_runs()
    }

    fn excluded_runs(&self) -> Arc<RunMap> {
        (**self).excluded_runs()
    }

    fn direct_map(&self) -> Option<&DirectMap> {
        (**self).direct_map()
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        (**self).lookaside()
    }

    fn facts(&self) -> &TargetFacts {
        (**self).facts()
    }

    fn control(&self) -> Option<&dyn Control> {
        (**self).control()
    }
}

/// Conveniences over [`PhysicalMemory`].
pub trait PhysicalMemoryExt: PhysicalMemory {
    /// Fills `buf` from `addr`.
    ///
    /// # Errors
    /// As [`PhysicalMemory::read_batch`].
    fn read_into(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        self.read_batch(&mut [PhysRead::new(addr, buf)])
    }
}

impl<M: PhysicalMemory + ?Sized> PhysicalMemoryExt for M {}
