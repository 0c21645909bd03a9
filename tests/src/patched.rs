//! Memory with bytes put in its place: damage to a real target.

use std::sync::Arc;

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory, Reason, Result,
    memory::{Metadata, Outcome, PhysRead, PhysWrite, TargetFacts, finish_reads, finish_writes},
};

/// Physical memory with some bytes replaced and some ranges gone. It has no direct map, so every read passes here.
pub struct Patched {
    inner: Arc<dyn PhysicalMemory>,
    patches: Vec<(u64, Vec<u8>)>,
    gone: Vec<PhysRange>,
    facts: TargetFacts,
}

impl std::fmt::Debug for Patched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Patched({} patches)", self.patches.len())
    }
}

impl Patched {
    /// The memory as it is, facts included.
    pub fn new(inner: Arc<dyn PhysicalMemory>) -> Self {
        let facts = inner.facts().clone();
        Self { inner, patches: Vec::new(), gone: Vec::new(), facts }
    }

    /// Forgets what the target knows about itself.
    #[must_use]
    pub fn without_facts(mut self) -> Self {
        self.facts = TargetFacts::default();
        self
    }

    /// Forgets the VMCOREINFO note, and keeps the registers.
    #[must_use]
    pub fn without_vmcoreinfo_fact(mut self) -> Self {
        self.facts.vmcoreinfo = None;
        self
    }

    /// Puts `bytes` at `at`.
    #[must_use]
    pub fn with(mut self, at: PhysAddr, bytes: impl Into<Vec<u8>>) -> Self {
        self.patches.push((at.as_u64(), bytes.into()));
        self
    }

    /// Takes a range out, as if the image did not hold it.
    #[must_use]
    pub fn without(mut self, range: PhysRange) -> Self {
        self.gone.push(range);
        self
    }
}

impl PhysicalMemory for Patched {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        // The outcome of each operation tells; a failure of one is not a failure of the call.
        let _ = self.inner.read_batch(ops);
        for op in &mut *ops {
            let (start, len) = (op.addr.as_u64(), op.buf.len() as u64);
            for (at, bytes) in &self.patches {
                let from = start.max(*at);
                let to = start.saturating_add(len).min(at + bytes.len() as u64);
                if from < to {
                    let source = &bytes[(from - at) as usize..(to - at) as usize];
                    op.buf[(from - start) as usize..(to - start) as usize].copy_from_slice(source);
                }
            }
            let range = PhysRange::new(op.addr, len);
            for hole in self.gone.iter().filter_map(|gone| gone.intersection(&range?)) {
                let offset = hole.start().as_u64() - start;
                op.outcome.fail(offset, Reason::NotInImage { phys: hole.start() });
            }
        }
        finish_reads("patched memory", ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        for op in &mut *ops {
            op.outcome = Outcome::Failed { offset: 0, reason: Reason::ReadOnly };
        }
        finish_writes("patched memory", ops)
    }

    fn metadata(&self) -> Metadata {
        self.inner.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}
