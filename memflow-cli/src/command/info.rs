//! `memflow info`: what the target is.
//!
//! Owns: the description of format, memory and kernel. Must not know: how any of it was found out.

use std::sync::Arc;

use clap::Args;
use memflow_core::{
    memory::{Liveness, Metrics, MetricsSnapshot, OpCounts, VcpuRegisters},
    os::{KernelInfo, Os},
};
use serde::Serialize;

use crate::{
    failure::{Outcome, Status},
    output::{Align, Hex, Io, Table, escape, plural, size},
    target::{Target, TargetArgs},
};

/// Arguments of `memflow info`.
#[derive(Args, Debug)]
#[command(after_help = "\
With --verbose, also every run of physical memory, the registers of each vCPU, and how the kernel was found, step by step. \
A target in which no operating system is recognised is described all the same, with exit code 3.

JSON: {\"target\": {name, format, notes, live, read_only, memory_size, runs: [{start, size}], vcpus: [{cr0, cr3, cr4, efer, \
rip}]}, \"kernel\": {system, release, version, hostname, architecture, base, build_id, page_table_root, evidence} or null, \
\"metrics\": [{target, reads: {calls, operations, failed, bytes, seconds}, writes: as reads}], \"problems\": […]}.")]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Serialize)]
struct Document {
    target: TargetRecord,
    kernel: Option<KernelRecord>,
    metrics: Vec<MetricsRecord>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct TargetRecord {
    name: String,
    format: String,
    notes: Vec<String>,
    live: bool,
    read_only: bool,
    memory_size: u64,
    runs: Vec<RunRecord>,
    vcpus: Vec<VcpuRecord>,
}

#[derive(Serialize)]
struct RunRecord {
    start: Hex,
    size: u64,
}

#[derive(Serialize, Default)]
struct VcpuRecord {
    cr0: Option<Hex>,
    cr3: Option<Hex>,
    cr4: Option<Hex>,
    efer: Option<Hex>,
    rip: Option<Hex>,
}

#[derive(Serialize)]
struct MetricsRecord {
    target: String,
    reads: CountsRecord,
    writes: CountsRecord,
}

#[derive(Serialize)]
struct CountsRecord {
    calls: u64,
    operations: u64,
    failed: u64,
    bytes: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct KernelRecord {
    system: String,
    release: String,
    version: String,
    hostname: Option<String>,
    architecture: &'static str,
    base: Hex,
    build_id: Option<String>,
    page_table_root: Hex,
    evidence: Vec<String>,
}

/// Opens the target and describes it.
pub(crate) fn run(args: &InfoArgs, io: &mut Io<'_>) -> Outcome {
    let mut target = Target::open(&args.target, io)?;
    // The kernel decides between several ways to read a raw image, so the target is described after the search.
    let (os, failure) = match target.os(io) {
        Ok(os) => (Some(os), None),
        Err(failure) => (None, Some(failure)),
    };
    let document = Document {
        target: target_record(&target),
        kernel: os.as_deref().map(kernel_record),
        metrics: target.metrics().into_iter().map(metrics_record).collect(),
        problems: failure.iter().map(ToString::to_string).collect(),
    };
    if io.json {
        io.document(&document)?;
    } else {
        let verbose = io.verbose();
        io.print(table(&document, verbose))?;
    }
    failure.map_or(Ok(Status::Complete), Err)
}

fn target_record(target: &Target) -> TargetRecord {
    let memory = target.memory();
    let metadata = memory.metadata();
    let runs = metadata.runs.runs().iter();
    TargetRecord {
        name: target.name(),
        format: target.format(),
        notes: target.notes(),
        live: metadata.liveness == Liveness::Live,
        read_only: metadata.read_only,
        memory_size: metadata.runs.total_bytes(),
        runs: runs.map(|run| RunRecord { start: run.range.start().into(), size: run.range.len() }).collect(),
        vcpus: memory.facts().vcpus.iter().map(vcpu_record).collect(),
    }
}

fn metrics_record((target, metrics): (String, Arc<Metrics>)) -> MetricsRecord {
    let MetricsSnapshot { reads, writes, .. } = metrics.snapshot();
    let record = |counts: &OpCounts| CountsRecord {
        calls: counts.calls,
        operations: counts.ops,
        failed: counts.failed_ops,
        bytes: counts.bytes,
        seconds: counts.time.as_secs_f64(),
    };
    MetricsRecord { target, reads: record(&reads), writes: record(&writes) }
}

fn vcpu_record(vcpu: &VcpuRegisters) -> VcpuRecord {
    match vcpu {
        VcpuRegisters::X86(registers) => VcpuRecord {
            cr0: registers.cr0.map(Hex),
            cr3: registers.cr3.map(Hex),
            cr4: registers.cr4.map(Hex),
            efer: registers.efer.map(Hex),
            rip: registers.rip.map(Hex),
        },
        _ => VcpuRecord::default(),
    }
}

fn kernel_record(os: &dyn Os) -> KernelRecord {
    let KernelInfo { system, release, version, hostname, architecture, base, build_id, evidence, .. } =
        os.kernel().clone();
    KernelRecord {
        system,
        release,
        version,
        hostname,
        architecture,
        base: base.into(),
        build_id,
        page_table_root: os.kernel_space().root().into(),
        evidence,
    }
}

/// The description, a line for each thing.
fn table(document: &Document, verbose: bool) -> Table {
    let Document { target, kernel, .. } = document;
    let mut table = Table::without_header([Align::Left, Align::Left]);
    let mut row = |name: &str, value: &str| table.row([name.to_owned(), escape(value).into_owned()]);
    row("target", &target.name);
    row("format", &target.format);
    for note in &target.notes {
        row("", note);
    }
    row(
        "memory",
        &format!(
            "{} in {}, {}, {}",
            size(target.memory_size),
            plural(target.runs.len() as u64, "run"),
            if target.live { "live" } else { "frozen" },
            if target.read_only { "read-only" } else { "writable" }
        ),
    );
    if verbose {
        for run in &target.runs {
            let Hex(start) = run.start;
            // A run is never empty, and its last byte exists.
            let last = start.saturating_add(run.size.saturating_sub(1));
            row("", &format!("{start:#014x}-{last:#014x}  {}", size(run.size)));
        }
    }
    let known = target.vcpus.iter().filter(|vcpu| vcpu.cr3.is_some()).count();
    row(
        "vCPUs",
        &match (target.vcpus.len(), known) {
            (0, _) => "registers not known".to_owned(),
            (all, known) if all == known => format!("{all}, registers known"),
            (all, known) => format!("{all}, page-table root known of {known}"),
        },
    );
    if verbose {
        for vcpu in &target.vcpus {
            row("", &registers(vcpu));
        }
    }
    if let Some(kernel) = kernel {
        row("kernel", &format!("{} {}", kernel.system, kernel.release));
        row("version", &kernel.version);
        row("hostname", kernel.hostname.as_deref().unwrap_or("not known"));
        row("architecture", kernel.architecture);
        row("kernel base", &format!("{:#x}", kernel.base.0));
        row("page tables", &format!("{:#x}", kernel.page_table_root.0));
        row("build id", kernel.build_id.as_deref().unwrap_or("not known"));
        if verbose {
            for (index, step) in kernel.evidence.iter().enumerate() {
                row(if index == 0 { "found by" } else { "" }, step);
            }
        }
    }
    table
}

/// The registers that are known of a vCPU, in a line.
fn registers(vcpu: &VcpuRecord) -> String {
    let VcpuRecord { cr0, cr3, cr4, efer, rip } = *vcpu;
    let all = [("cr0", cr0), ("cr3", cr3), ("cr4", cr4), ("efer", efer), ("rip", rip)];
    let known = all.into_iter().filter_map(|(name, value)| value.map(|Hex(value)| format!("{name} {value:#x}")));
    known.collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_are_not_known_are_left_out() {
        let vcpu = VcpuRecord { cr3: Some(Hex(0x1000)), rip: Some(Hex(5)), ..VcpuRecord::default() };
        assert_eq!(registers(&vcpu), "cr3 0x1000  rip 0x5");
    }
}
