//! A built machine as physical memory.
//!
//! Owns: [`Image`], which gives memory with or without a page. Must not know: what is in it.

use std::sync::Arc;

use memflow_core::{
    PhysAddr, PhysRange, Result,
    memory::{
        BufferMemory, DirectMap, Metadata, PhysRead, PhysWrite, PhysicalMemory, Run, RunMap, SourceConfig, TargetFacts,
        VcpuRegisters, X86Registers,
    },
};
use memflow_win32::PageFile;
use memflow_windows_images::Windows;

const PAGE: u64 = 0x1000;

/// Memory that knows which of its pages hold anything.
struct Populated {
    memory: BufferMemory,
    populated: Arc<RunMap>,
}

/// All of a machine's memory but for the pages that `missing` names, besides those that the machine has not.
pub(crate) fn memory(windows: &Windows, missing: &[u64], facts: TargetFacts) -> Arc<dyn PhysicalMemory> {
    let run = |start: u64, end: u64| {
        let range = PhysRange::new(PhysAddr::new(start * PAGE), (end - start) * PAGE)?;
        Some(Run { range, offset: start * PAGE })
    };
    let without = |runs: Vec<std::ops::Range<u64>>| {
        let mut parts = Vec::new();
        for mut rest in runs {
            for gap in missing.iter().filter(|gap| rest.contains(gap)).copied().collect::<Vec<_>>() {
                parts.extend(run(rest.start, gap));
                rest.start = gap + 1;
            }
            parts.extend(run(rest.start, rest.end));
        }
        RunMap::new(parts).unwrap()
    };
    let end = windows.truth.ram.iter().map(|(_, end)| *end).max().unwrap();
    let mut bytes = vec![0; end as usize];
    for (frame, page) in windows.pages() {
        let at = (frame * PAGE) as usize;
        bytes[at..at + PAGE as usize].copy_from_slice(&page[..]);
    }
    let config = SourceConfig { name: "built Windows".into(), runs: without(windows.runs()), facts };
    let populated = Arc::new(without(windows.touched()));
    Arc::new(Populated { memory: BufferMemory::new(config, bytes).unwrap(), populated })
}

/// GS bases of a machine's processors, as a connector tells them.
pub(crate) fn processors(windows: &Windows) -> TargetFacts {
    let mut facts = TargetFacts::default();
    for processor in &windows.truth.processors {
        let mut registers = X86Registers::default();
        registers.gs_base = Some(processor.kpcr);
        facts.vcpus.push(VcpuRegisters::X86(registers));
    }
    facts
}

/// A page file of a machine: the pages that the generator made.
pub(crate) fn page_file(windows: &Windows, number: u8) -> PageFile {
    let mut bytes = Vec::new();
    let mut runs = Vec::new();
    for (page, content) in windows.page_file(number) {
        let range = PhysRange::new(PhysAddr::new(u64::from(page) * PAGE), PAGE).unwrap();
        runs.push(Run { range, offset: bytes.len() as u64 });
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
    }
    let runs = RunMap::new(runs).unwrap();
    let config = SourceConfig { name: "page file".into(), runs, facts: TargetFacts::default() };
    PageFile::new(number, Arc::new(BufferMemory::new(config, bytes).unwrap()))
}

impl PhysicalMemory for Populated {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.memory.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.memory.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.memory.metadata()
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        self.populated.clone()
    }

    fn direct_map(&self) -> Option<&DirectMap> {
        self.memory.direct_map()
    }

    fn facts(&self) -> &TargetFacts {
        self.memory.facts()
    }
}
