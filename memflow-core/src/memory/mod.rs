//! Physical memory of a target: the trait that connectors implement, and what they build on.
//!
//! Must not know: page tables, views, operating systems.

mod control;
mod direct_map;
mod facts;
mod layer;
mod live;
mod op;
mod physical;
mod run_map;
mod source;
mod table_pages;

#[cfg(unix)]
pub use self::source::{FilePart, MappedParts};
pub use self::{
    control::{Control, Pause, RunState},
    direct_map::{Backing, DirectMap, DirectRegion, LoadError},
    facts::{AArch64Registers, MachineKind, TargetFacts, VcpuRegisters, X86Registers},
    layer::{
        CacheConfig, CacheLayer, CacheStats, DelayLayer, LatencyHistogram, Metrics, MetricsLayer, MetricsSnapshot,
        OpCounts, ReadOnlyLayer, Validity,
    },
    op::{Outcome, PhysRead, PhysWrite, ReadOp, ViewRead, ViewWrite, WriteOp, finish_reads, finish_writes},
    physical::{Liveness, Metadata, PhysicalMemory, PhysicalMemoryExt},
    run_map::{Piece, Pieces, Run, RunMap},
    source::{BufferMemory, FileMemory, MapMode, MappedMemory, OwnedBytes, PageBuffer, SourceConfig},
};
pub(crate) use self::{
    direct_map::Unconfirmed,
    table_pages::{Bias, Entries, Entry, EntryPlace, TablePage, TablePages},
};
