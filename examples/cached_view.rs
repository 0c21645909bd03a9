//! Reads a process through a cache, and counts what reaches the target: `cargo run -p memflow-examples --bin cached_view -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{error::Error, sync::Arc, time::Duration};

use memflow_core::{
    MemoryViewExt,
    memory::{CacheConfig, MetricsLayer, Validity},
    os::Os,
    view::CachedView,
};
use memflow_linux::{LinuxOptions, LinuxOs};

fn main() -> Result<(), Box<dyn Error>> {
    // A layer that counts: it stands between the image and all else.
    let counted = MetricsLayer::new(memflow_examples::memory()?);
    let metrics = counted.metrics();
    let os = LinuxOs::open(Arc::new(counted), &LinuxOptions::default())?;
    let process = os.open_pid(1)?;
    let start = process.memory_map()?.into_complete()?.first().ok_or("no memory")?.range.start();

    let calls = |what: &str, read: &dyn Fn(u64) -> memflow_core::Result<u8>| -> memflow_core::Result<()> {
        let before = metrics.snapshot().reads.calls;
        let mut sum = 0_u64;
        for offset in 0..1000 {
            sum += u64::from(read(offset)?);
        }
        println!("{what}: sum {sum}, {} calls", metrics.snapshot().reads.calls - before);
        Ok(())
    };
    calls("direct", &|offset| process.read(start.wrapping_add(offset)))?;
    let config = CacheConfig { validity: Validity::For(Duration::from_secs(10)), ..CacheConfig::default() };
    let cached = CachedView::new(process, config)?;
    calls("cached", &|offset| cached.read(start.wrapping_add(offset)))?;
    Ok(())
}
