//! The connector `called`: an image file, read by calls alone, as a device would be.
//!
//! Owns: hiding the direct map. Must not know: who loads it, how files are parsed.

use std::{path::Path, sync::Arc};

use memflow_core::{
    PhysicalMemory, Result,
    memory::{Metadata, PhysRead, PhysWrite, TargetFacts},
    plugin::ConnectorRequest,
};
use memflow_snapshot::OpenOptions;

/// Memory without a direct map.
struct Called(Arc<dyn PhysicalMemory>);

impl PhysicalMemory for Called {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.0.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.0.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        self.0.facts()
    }
}

#[memflow_derive::connector(name = "called", description = "an image file, read by calls alone")]
fn open(request: &ConnectorRequest<'_>) -> Result<Called> {
    let path = request.required_target("the path of a file")?;
    let options = OpenOptions { live: Some(false), ..OpenOptions::default() };
    Ok(Called(memflow_snapshot::open(Path::new(path), &options)?.memory))
}
