//! Memory that nothing can be written to through this handle.
//!
//! Owns: [`ReadOnlyLayer`]. Must not know: why writes are not wanted.
//! Keeps: no write reaches the memory below, by call or in place; reads are untouched.

use std::{fmt, sync::Arc};

use super::super::{
    Control, DirectMap, Lookaside, Metadata, PhysRead, PhysWrite, PhysicalMemory, RunMap, TargetFacts, refuse_writes,
};
use crate::error::Result;

/// Refuses writes with [`Reason::ReadOnly`](crate::Reason::ReadOnly) and hands everything else through.
///
/// A direct map is handed through as one that [refuses writes](DirectMap::read_only). The memory may still change: others can
/// write to it, so what is live stays live.
///
/// ```
/// # use std::sync::Arc;
/// # use memflow_core::{memory::*, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(4), facts: TargetFacts::default() };
/// # let memory = Arc::new(BufferMemory::new(config, vec![1, 2, 3, 4])?);
/// let guarded = ReadOnlyLayer::new(memory);
/// let error = guarded.write_batch(&mut [PhysWrite::new(PhysAddr::new(0), &[9])]).unwrap_err();
/// assert_eq!(error.to_string(), "write of 1 bytes at physical 0x0: the target is read-only");
/// # Ok::<(), Error>(())
/// ```
pub struct ReadOnlyLayer {
    below: Arc<dyn PhysicalMemory>,
    map: Option<DirectMap>,
}

impl fmt::Debug for ReadOnlyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadOnlyLayer({})", self.below.metadata().name)
    }
}

impl ReadOnlyLayer {
    /// A guard over `below`.
    pub fn new(below: Arc<dyn PhysicalMemory>) -> Self {
        let map = below.direct_map().map(DirectMap::read_only);
        Self { below, map }
    }
}

impl PhysicalMemory for ReadOnlyLayer {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.below.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        refuse_writes("read-only layer", ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata { read_only: true, ..self.below.metadata() }
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        self.below.populated_runs()
    }

    fn excluded_runs(&self) -> Arc<RunMap> {
        self.below.excluded_runs()
    }

    fn direct_map(&self) -> Option<&DirectMap> {
        self.map.as_ref()
    }

    fn lookaside(&self) -> Option<&Lookaside> {
        self.below.lookaside()
    }

    fn facts(&self) -> &TargetFacts {
        self.below.facts()
    }

    fn control(&self) -> Option<&dyn Control> {
        self.below.control()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::PhysAddr,
        error::Reason,
        memory::{Liveness, Outcome, PhysicalMemoryExt},
        testkit::{LockedMemory, ScriptedMemory},
    };

    #[test]
    fn no_write_reaches_the_memory_below() {
        let memory = Arc::new(ScriptedMemory::new(LockedMemory::new(RunMap::flat(16), vec![1; 16]).unwrap()));
        let guarded = ReadOnlyLayer::new(memory.clone());
        assert!(!memory.metadata().read_only && guarded.metadata().read_only);
        assert_eq!(guarded.metadata().liveness, Liveness::Live, "others may still write");

        let mut ops = [
            PhysWrite::new(PhysAddr::new(0), &[9]),
            PhysWrite::new(PhysAddr::new(100), &[9; 3]),
            PhysWrite::new(PhysAddr::new(u64::MAX), &[9; 3]),
        ];
        assert_eq!(guarded.write_batch(&mut ops).unwrap_err().reason(), Some(Reason::ReadOnly));
        let refused = Outcome::Failed { offset: 0, reason: Reason::ReadOnly };
        assert!(ops.iter().all(|op| op.outcome == refused));
        guarded.write_batch(&mut []).unwrap();
        assert_eq!(memory.call_count(), 0);

        let mut buf = [0; 16];
        guarded.read_into(PhysAddr::new(0), &mut buf).unwrap();
        assert_eq!(buf, [1; 16]);
        assert!(guarded.direct_map().is_none());
    }
}
