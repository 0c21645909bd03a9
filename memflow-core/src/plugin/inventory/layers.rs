//! Layers as arguments of any connector: `cache=`, `delay=`, `metrics`, `read_only`, `tlb=`.
//!
//! Owns: their names and the order in which they lie over each other. Must not know: what a layer does, connectors.
//! Keeps: an argument that the connector has itself is the connector's; memory that has to be called has a lookaside.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use crate::{
    error::Result,
    memory::{
        CacheConfig, CacheLayer, DelayLayer, LookasideConfig, LookasideLayer, Metrics, MetricsLayer, ReadOnlyLayer,
        Validity,
    },
    plugin::{
        args::{ArgKind, ArgSpec, Args},
        definition::Connection,
    },
};

/// The arguments of layers.
pub(super) fn specs() -> &'static [ArgSpec] {
    static SPECS: LazyLock<[ArgSpec; 5]> = LazyLock::new(|| {
        [
            ArgSpec::new("cache", ArgKind::Size).help("keep so much of the target's memory, in pages that were read"),
            ArgSpec::new("delay", ArgKind::Time).help("wait so long before each call, to imitate a slow device"),
            ArgSpec::new("metrics", ArgKind::Flag)
                .help("count calls, bytes and time; the target's bytes are then not used in place"),
            ArgSpec::new("read_only", ArgKind::Flag).help("refuse writes"),
            ArgSpec::new("tlb", ArgKind::Time)
                .help("use what page tables said for so long, where they have to be called for; 5ms for live targets"),
        ]
    });
    &*SPECS
}

/// Which layers are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LayerArgs {
    /// Capacity of a page cache in bytes.
    pub cache: Option<u64>,
    /// Time to wait before each call.
    pub delay: Option<Duration>,
    /// Whether to count.
    pub metrics: bool,
    /// Whether to refuse writes.
    pub read_only: bool,
    /// How long translations are used, where page tables have to be called for; by the liveness of the target unless given.
    pub tlb: Option<Duration>,
}

/// An opened target with its layers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Layered {
    /// The target; its memory is that on top.
    pub connection: Connection,
    /// What is counted, if that was asked for: what reaches the connector, below a cache.
    pub metrics: Option<Arc<Metrics>>,
}

impl LayerArgs {
    /// Takes the arguments of layers out of those of a connector that takes `own` itself.
    pub(super) fn take(own: &[ArgSpec], args: &mut Args) -> Result<Self> {
        let mut layers = Args::new();
        for spec in specs() {
            if !own.iter().any(|argument| argument.name == spec.name)
                && let Some(value) = args.get(&spec.name).cloned()
            {
                // A value that the layer does not take is left, for the check that lists what is accepted.
                if spec.kind.accepts(&value) {
                    args.remove(&spec.name);
                    layers.set(spec.name.clone(), value);
                }
            }
        }
        Ok(Self {
            cache: layers.size("cache")?,
            delay: layers.time("delay")?,
            metrics: layers.flag("metrics")?.unwrap_or(false),
            read_only: layers.flag("read_only")?.unwrap_or(false),
            tlb: layers.time("tlb")?,
        })
    }

    /// Lays them over the memory: delay nearest to the connector, then what counts, then the lookaside, then the cache.
    pub(super) fn apply(self, mut connection: Connection) -> Result<Layered> {
        let mut metrics = None;
        if let Some(delay) = self.delay {
            connection.memory = Arc::new(DelayLayer::new(connection.memory, delay)?);
        }
        if self.metrics {
            let layer = MetricsLayer::new(connection.memory);
            metrics = Some(layer.metrics());
            connection.memory = Arc::new(layer);
        }
        connection.memory = match self.tlb {
            Some(time) if connection.memory.direct_map().is_none() => {
                let config = LookasideConfig { validity: Validity::For(time), ..LookasideConfig::default() };
                Arc::new(LookasideLayer::new(connection.memory, config)?)
            }
            _ => LookasideLayer::over(connection.memory),
        };
        if let Some(capacity) = self.cache {
            let config = CacheConfig { capacity, ..CacheConfig::default() };
            connection.memory = Arc::new(CacheLayer::new(connection.memory, config)?);
        }
        if self.read_only {
            connection.memory = Arc::new(ReadOnlyLayer::new(connection.memory));
        }
        Ok(Layered { connection, metrics })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::{BufferMemory, PhysicalMemory, RunMap, SourceConfig, TargetFacts},
        testkit::LockedMemory,
    };

    fn layered(args: LayerArgs, memory: Arc<dyn PhysicalMemory>) -> Result<Arc<dyn PhysicalMemory>> {
        args.apply(Connection::new(memory)).map(|layered| layered.connection.memory)
    }

    fn mapped() -> Arc<dyn PhysicalMemory> {
        let config = SourceConfig { name: "test".into(), runs: RunMap::flat(8), facts: TargetFacts::default() };
        Arc::new(BufferMemory::new(config, vec![0; 8]).unwrap())
    }

    fn called() -> Arc<dyn PhysicalMemory> {
        Arc::new(LockedMemory::new(RunMap::flat(8), vec![0; 8]).unwrap())
    }

    #[test]
    fn memory_that_has_to_be_called_keeps_translations() {
        let plain = LayerArgs::default();
        let every = LayerArgs { cache: Some(1 << 20), delay: Some(Duration::ZERO), metrics: true, ..plain };
        let told = LayerArgs { tlb: Some(Duration::from_secs(1)), ..plain };
        for args in [plain, every, told] {
            assert!(layered(args, called()).unwrap().lookaside().is_some(), "{args:?}");
        }
        for args in [plain, told, LayerArgs { read_only: true, ..plain }] {
            assert!(layered(args, mapped()).unwrap().lookaside().is_none(), "{args:?}");
        }
        // A direct map that is hidden is as good as none.
        assert!(layered(every, mapped()).unwrap().lookaside().is_some());
    }

    #[test]
    fn tlb_of_no_time_is_refused() {
        let error = layered(LayerArgs { tlb: Some(Duration::ZERO), ..LayerArgs::default() }, called()).map(|_| ());
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "lookaside validity: expected more than zero; a nanosecond keeps next to nothing, found `0`");
    }
}
