//! Layers: physical memory over physical memory, which changes how it is reached and not what it holds.
//!
//! Must not know: connectors, page tables, how a layer was asked for.
//!
//! | layer | what it is for | direct map of the memory below |
//! |---|---|---|
//! | [`CacheLayer`] | pages of slow memory are kept and served again | handed through: the cache is then idle |
//! | [`DelayLayer`] | every call takes a time: a slow device, imitated | hidden: bytes in place would not be delayed |
//! | [`LookasideLayer`] | what page tables said is kept, and used again | handed through: nothing is kept then |
//! | [`MetricsLayer`] | calls, operations, bytes and latencies are counted | hidden: bytes in place would not be counted |
//! | [`ReadOnlyLayer`] | writes are refused | handed through as one that refuses writes |
//!
//! All take `Arc<dyn PhysicalMemory>` and are one, so they stack in any order, and a plugin's memory takes them like any other.

mod cache;
mod control;
mod delay;
mod lookaside;
mod metrics;
mod read_only;

pub use self::{
    cache::{CacheConfig, CacheLayer, CacheStats},
    delay::DelayLayer,
    lookaside::LookasideLayer,
    metrics::{LatencyHistogram, Metrics, MetricsLayer, MetricsSnapshot, OpCounts},
    read_only::ReadOnlyLayer,
};
