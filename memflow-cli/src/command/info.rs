//! `memflow info`: what the target is.
//!
//! Owns: the description of format, memory and kernel. Must not know: how any of it was found out.

mod content;
mod facts;

use std::{fs::Metadata, sync::Arc};

use clap::Args;
use memflow_core::{
    memory::{Control, Liveness, Metrics, MetricsSnapshot, OpCounts, VcpuRegisters},
    os::{KernelInfo, Os},
};
use serde::Serialize;

use self::{
    content::{ContentRecord, GapsRecord},
    facts::FactsRecord,
};
use super::control::word;
use crate::{
    failure::{Failure, Outcome, Status},
    interrupt,
    output::{Align, Hex, Io, Table, escape, plural, size},
    target::{Target, TargetArgs},
};

/// Arguments of `memflow info`.
#[derive(Args, Debug)]
#[command(after_help = "\
With --verbose, also every run of physical memory with its place in the file, what VMCOREINFO says, the registers of each \
vCPU, and how the kernel was found, step by step. A target in which no operating system is recognised is described all the same, with exit code 3.

What is missing is told apart: gaps are addresses that the machine may have had and the target does not; of those, some were left out on \
purpose. What is damaged shows only when it is read: --pages reads all memory, and counts pages of zeros too.

JSON: {\"target\": {name, format, notes, live, state, read_only, file_size, memory_size, runs: [{start, size, offset}], gaps: {count, \
size, left_out}, content: {pages, zero_pages, unreadable, places: [{start, size, reason}], complete} with --pages, facts: {machine, \
directory_table, vmcoreinfo: {size, values: [[name, value]]}, windows: {build, processors, pae, debugger_data, loaded_modules, \
active_processes, pfn_database, bug_check: {code, parameters}, time}}, vcpus: [{cr0, cr2, cr3, cr4, efer, rip, rsp} or {ttbr0_el1, \
ttbr1_el1, tcr_el1, sctlr_el1, vbar_el1, pc, sp}]}, \"kernel\": {system, release, version, hostname, architecture, base, build_id, \
page_table_root, evidence} or null, \"metrics\": [{target, reads: {calls, operations, failed, bytes, seconds}, writes: as reads}], \
\"problems\": […]}.")]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Read all memory: count pages of zeros, and find what cannot be read
    #[arg(long)]
    pages: bool,
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
    state: Option<&'static str>,
    read_only: bool,
    file_size: Option<u64>,
    memory_size: u64,
    runs: Vec<RunRecord>,
    gaps: GapsRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<ContentRecord>,
    facts: FactsRecord,
    vcpus: Vec<VcpuRecord>,
}

#[derive(Serialize)]
struct RunRecord {
    start: Hex,
    size: u64,
    /// Where its bytes are in the file; of a compressed one, among the unpacked bytes.
    offset: Hex,
}

#[derive(Serialize)]
#[serde(untagged)]
enum VcpuRecord {
    X86(X86Record),
    AArch64(AArch64Record),
    /// Of a kind that this command does not know.
    Other {},
}

#[derive(Serialize, Default, Clone, Copy)]
struct X86Record {
    cr0: Option<Hex>,
    cr2: Option<Hex>,
    cr3: Option<Hex>,
    cr4: Option<Hex>,
    efer: Option<Hex>,
    rip: Option<Hex>,
    rsp: Option<Hex>,
}

#[derive(Serialize, Default, Clone, Copy)]
struct AArch64Record {
    ttbr0_el1: Option<Hex>,
    ttbr1_el1: Option<Hex>,
    tcr_el1: Option<Hex>,
    sctlr_el1: Option<Hex>,
    vbar_el1: Option<Hex>,
    pc: Option<Hex>,
    sp: Option<Hex>,
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
    let state = target
        .memory()
        .control()
        .map(Control::run_state)
        .transpose()
        .map_err(|error| error.context("the target's state"));
    let mut problems: Vec<String> = failure.iter().map(ToString::to_string).collect();
    let (state, status) = match state {
        Ok(state) => (state.map(word), Status::Complete),
        Err(error) => {
            io.warn(&error);
            problems.push(error.to_string());
            (None, Status::Incomplete)
        }
    };
    let content = args.pages.then(|| {
        let _results = interrupt::Unfinished::results();
        ContentRecord::read(&**target.memory(), io.quiet())
    });
    let interrupted = content.as_ref().is_some_and(|content| !content.complete);
    let status = match content.as_ref().map(ContentRecord::problems).filter(|problems| !problems.is_empty()) {
        Some(unreadable) => {
            unreadable.iter().for_each(|problem| io.warn(problem));
            problems.extend(unreadable);
            Status::Incomplete
        }
        None => status,
    };
    if interrupted {
        problems.push("interrupted; what was read until then is told".to_owned());
    }
    let document = Document {
        target: target_record(&target, state, content),
        kernel: os.as_deref().map(kernel_record),
        metrics: target.metrics().into_iter().map(metrics_record).collect(),
        problems,
    };
    if io.json {
        io.document(&document)?;
    } else {
        let verbose = io.verbose();
        io.print(table(&document, verbose))?;
    }
    if interrupted {
        return Err(Failure::Interrupted);
    }
    failure.map_or(Ok(status), Err)
}

fn target_record(target: &Target, state: Option<&'static str>, content: Option<ContentRecord>) -> TargetRecord {
    let memory = target.memory();
    let metadata = memory.metadata();
    let runs = metadata.runs.runs().iter();
    TargetRecord {
        name: target.name(),
        format: target.format(),
        notes: target.notes(),
        live: metadata.liveness == Liveness::Live,
        state,
        read_only: metadata.read_only,
        // Devices have lengths of their own.
        file_size: target.path().and_then(|path| path.metadata().ok()).filter(Metadata::is_file).map(|file| file.len()),
        memory_size: metadata.runs.total_bytes(),
        runs: runs
            .map(|run| RunRecord { start: run.range.start().into(), size: run.range.len(), offset: Hex(run.offset) })
            .collect(),
        gaps: GapsRecord::new(&**memory),
        content,
        facts: FactsRecord::new(memory.facts()),
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
        VcpuRegisters::X86(registers) => VcpuRecord::X86(X86Record {
            cr0: registers.cr0.map(Hex),
            cr2: registers.cr2.map(Hex),
            cr3: registers.cr3.map(Hex),
            cr4: registers.cr4.map(Hex),
            efer: registers.efer.map(Hex),
            rip: registers.rip.map(Hex),
            rsp: registers.rsp.map(Hex),
        }),
        VcpuRegisters::AArch64(registers) => VcpuRecord::AArch64(AArch64Record {
            ttbr0_el1: registers.ttbr0_el1.map(Hex),
            ttbr1_el1: registers.ttbr1_el1.map(Hex),
            tcr_el1: registers.tcr_el1.map(Hex),
            sctlr_el1: registers.sctlr_el1.map(Hex),
            vbar_el1: registers.vbar_el1.map(Hex),
            pc: registers.pc.map(Hex),
            sp: registers.sp.map(Hex),
        }),
        _ => VcpuRecord::Other {},
    }
}

impl VcpuRecord {
    /// True when the root of the kernel's page tables is known.
    fn has_root(&self) -> bool {
        match self {
            Self::X86(registers) => registers.cr3.is_some(),
            Self::AArch64(registers) => registers.ttbr1_el1.is_some(),
            Self::Other {} => false,
        }
    }

    /// The registers that are known, in a line.
    fn line(&self) -> String {
        let all: &[(&str, Option<Hex>)] = match *self {
            Self::X86(X86Record { cr0, cr2, cr3, cr4, efer, rip, rsp }) => {
                &[("cr0", cr0), ("cr2", cr2), ("cr3", cr3), ("cr4", cr4), ("efer", efer), ("rip", rip), ("rsp", rsp)]
            }
            Self::AArch64(AArch64Record { ttbr0_el1, ttbr1_el1, tcr_el1, sctlr_el1, vbar_el1, pc, sp }) => &[
                ("ttbr0", ttbr0_el1),
                ("ttbr1", ttbr1_el1),
                ("tcr", tcr_el1),
                ("sctlr", sctlr_el1),
                ("vbar", vbar_el1),
                ("pc", pc),
                ("sp", sp),
            ],
            Self::Other {} => &[],
        };
        let known = all.iter().filter_map(|(name, value)| value.map(|Hex(value)| format!("{name} {value:#x}")));
        known.collect::<Vec<_>>().join("  ")
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
    if let Some(bytes) = target.file_size {
        row("file", &size(bytes));
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
            let (Hex(start), Hex(offset)) = (run.start, run.offset);
            // A run is never empty, and its last byte exists.
            let last = start.saturating_add(run.size.saturating_sub(1));
            row("", &format!("{start:#014x}-{last:#014x}  {} at {offset:#x}", size(run.size)));
        }
    }
    if let Some(gaps) = target.gaps.line() {
        row("not there", &gaps);
    }
    if let Some(content) = &target.content {
        row("content", &content.line());
    }
    for (name, value) in target.facts.lines(verbose) {
        row(name, &value);
    }
    if let Some(state) = target.state {
        row("state", state);
    }
    let known = target.vcpus.iter().filter(|vcpu| vcpu.has_root()).count();
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
            row("", &vcpu.line());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_are_not_known_are_left_out() {
        let vcpu = X86Record { cr3: Some(Hex(0x1000)), rip: Some(Hex(5)), ..X86Record::default() };
        assert_eq!(VcpuRecord::X86(vcpu).line(), "cr3 0x1000  rip 0x5");
        let vcpu = AArch64Record { ttbr1_el1: Some(Hex(0x1000)), ..AArch64Record::default() };
        assert_eq!(VcpuRecord::AArch64(vcpu).line(), "ttbr1 0x1000");
    }
}
