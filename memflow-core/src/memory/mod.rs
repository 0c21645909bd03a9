//! Physical memory of a target: the trait that connectors implement, and what they build on.
//!
//! Must not know: page tables, views, operating systems.

mod control;
mod direct_map;
mod facts;
mod layer;
mod live;
mod lookaside;
mod op;
mod physical;
mod run_map;
mod source;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod table_lanes;
mod table_pages;
mod validity;

#[cfg(unix)]
pub use self::source::{FilePart, MappedParts};
#[cfg(all(test, target_arch = "x86_64", not(miri)))]
pub(crate) use self::table_lanes::REFUSED;
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) use self::table_lanes::{HasLanes, Lanes, Mask, TableLanes};
pub use self::{
    control::{Control, Pause, RunState},
    direct_map::{Backing, DirectMap, DirectRegion, LoadError},
    facts::{AArch64Registers, BugCheck, MachineKind, TargetFacts, VcpuRegisters, WindowsFacts, X86Registers},
    layer::{
        CacheConfig, CacheLayer, CacheStats, DelayLayer, LatencyHistogram, LookasideLayer, Metrics, MetricsLayer,
        MetricsSnapshot, OpCounts, ReadOnlyLayer,
    },
    lookaside::{Lookaside, LookasideConfig, Writing},
    op::{Outcome, PhysRead, PhysWrite, ReadOp, ViewRead, ViewWrite, WriteOp, finish_reads, finish_writes},
    physical::{Liveness, Metadata, PhysicalMemory, PhysicalMemoryExt},
    run_map::{Piece, Pieces, Run, RunMap},
    source::{
        BufferMemory, ByteSource, FileMemory, MapMode, MappedMemory, OwnedBytes, PageBuffer, PositionedMemory,
        SourceConfig,
    },
    validity::Validity,
};
pub(crate) use self::{
    direct_map::{Losses, Unconfirmed, Values},
    lookaside::{Answer, Kind, Owner, Session},
    table_pages::{Bias, Entries, Entry, EntryPlace, TablePage, TablePages},
};
