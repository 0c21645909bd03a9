//! A shared library with two plugins in it: a connector, and an OS layer that recognises nothing.
//!
//! Owns: what plugins of the attributes look like. Must not know: who loads them.

use std::sync::Arc;

use memflow_core::{
    Error, MemoryView, PhysicalMemory, Result, VirtAddr,
    memory::{BufferMemory, RunMap, SourceConfig, TargetFacts},
    os::{KernelInfo, Listing, LogRecord, ModuleInfo, Os, Process, ProcessInfo, SymbolInfo},
    paging::AddressSpace,
    plugin::{ConnectorRequest, OsRequest, TargetInfo},
};

/// Memory that holds
/// nothing but zeros.
///
/// The size is an argument.
///
/// So is the rest.
#[memflow_derive::connector(
    name = "all-zero",
    type = AllZero,
    accepts(content, os),
    targets = list_targets,
    args(
        size: size = "16MiB" => "how much: in bytes",
        layout: choice(auto | flat | "e820-2") = "auto",
        separator: text = r"a:b\c",
        path: path required => "where",
        count: number = 0x10,
        "time-out": time = "5s" => "how long",
        partial: flag => "open what is there",
    ),
)]
fn open(request: &ConnectorRequest<'_>) -> Result<BufferMemory> {
    let size = request.args.size("size")?.unwrap_or(16 << 20).min(16 << 20);
    let bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    let config = SourceConfig { name: "all-zero".into(), runs: RunMap::flat(size), facts: TargetFacts::default() };
    BufferMemory::new(config, bytes)
}

fn list_targets() -> Result<Vec<TargetInfo>> {
    Ok(vec![TargetInfo::new("zero", "the only one")])
}

/// Not what the description says.
#[memflow_derive::os_layer(name = "nothing", description = "recognises nothing", help = "one\ntwo", type = Nothing)]
fn look(request: OsRequest<'_>) -> Result<Never> {
    request.step("looking", 0, 0)?;
    Err(Error::Cancelled)
}

/// An operating system that is never there.
#[derive(Debug)]
enum Never {}

impl Os for Never {
    fn kernel(&self) -> &KernelInfo {
        match *self {}
    }

    fn kernel_space(&self) -> &AddressSpace {
        match *self {}
    }

    fn kernel_view(&self) -> &dyn MemoryView {
        match *self {}
    }

    fn physical_memory(&self) -> &Arc<dyn PhysicalMemory> {
        match *self {}
    }

    fn processes(&self) -> Result<Listing<ProcessInfo>> {
        match *self {}
    }

    fn open(&self, _: &ProcessInfo) -> Result<Box<dyn Process>> {
        match *self {}
    }

    fn modules(&self) -> Result<Listing<ModuleInfo>> {
        match *self {}
    }

    fn symbols(&self) -> Result<Listing<SymbolInfo>> {
        match *self {}
    }

    fn symbols_named(&self, _: &str) -> Result<Vec<SymbolInfo>> {
        match *self {}
    }

    fn symbol_at(&self, _: VirtAddr) -> Result<Option<(SymbolInfo, u64)>> {
        match *self {}
    }

    fn kernel_log(&self) -> Result<Listing<LogRecord>> {
        match *self {}
    }
}
