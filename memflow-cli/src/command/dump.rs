//! `memflow dump`: memory to a file.
//!
//! Owns: what is dumped, and what becomes of memory that cannot be read. Must not know: how files become whole, how a target stands
//! still, how any format is laid out.
//! Keeps: a byte that was not read is never written, unless the caller asked for zeros by name; then their number is told.

use std::{cell::RefCell, fmt::Display, num::NonZero, ops::ControlFlow, path::PathBuf};

use clap::{Args, ValueEnum};
use memflow_core::{
    Error, MemoryView, MemoryViewExt, PhysAddr, PhysRange, PhysicalMemory, VirtAddr, VirtRange,
    address::MIB,
    error::Reason,
    memory::{Liveness, Piece},
    os::{Os, Process},
    view::PhysicalView,
};
use memflow_snapshot::{DumpCompression, DumpFormat, Gaps, Sink, WriteOptions, Written};
use serde::Serialize;

use super::address::resolve;
use crate::{
    failure::{Failure, Outcome, Status},
    interrupt,
    output::{Io, escape, plural, size},
    output_file::{Existing, OutputFile},
    parse::{self, AddressExpr},
    pause::Still,
    progress,
    target::{Target, TargetArgs},
};

/// Bytes copied at once.
const STEP: u64 = 4 * MIB;

/// Arguments of `memflow dump`.
#[derive(Args, Debug)]
#[command(after_help = "\
Without --range, --region or --phys, all physical memory is written. RANGE is START-END, where END is the first address after \
it, or START+LENGTH.

FILE appears only when it is whole and on the disk, readable by its owner alone; - is standard output. A dump in which \
something cannot be read fails and leaves no file; with --fill-gaps zero, zeros take its place, and how many is said. So does one of \
a dump from which memory was left out on purpose (kdump), as formats other than kdump cannot tell that from memory that never was.

A live target whose connector can pause it stands still while its memory is copied, and runs again afterwards, whatever becomes of the \
dump: also after an error or Ctrl-C. One that was paused before stays so. What is written of a target that cannot be paused, or with \
--no-pause, is torn: its parts are from different moments. If memflow itself is killed (kill -9), a paused target stays paused until \
`memflow resume`.

-o is the file here; name an OS layer with --os.

JSON: {\"file\", \"format\", \"size\", \"filled\", \"left_out\", \"live\", \"problems\"}; live if the target may have run meanwhile.", mut_arg("os", |os| os.short(None)))]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    what: WhatArgs,
    /// Format of a dump of all physical memory
    #[arg(long, value_enum, default_value_t = Format::Lime, conflicts_with_all = ["range", "region", "phys"])]
    format: Format,
    /// Compress a dump of all physical memory; it opens as it is, and is read at random
    #[arg(long, value_enum, value_name = "HOW", conflicts_with_all = ["range", "region", "phys"])]
    compress: Option<Compress>,
    /// What to write where memory cannot be read, or where a raw file would have a gap
    #[arg(long, value_enum, value_name = "WITH")]
    fill_gaps: Option<Fill>,
    /// Replace FILE if it exists
    #[arg(short, long)]
    force: bool,
    /// Leave a live target running while it is written
    #[arg(long)]
    no_pause: bool,
}

/// Which memory.
#[derive(Args, Debug)]
#[group(skip)]
struct WhatArgs {
    /// In the memory of this process; without it, --range is in the kernel's
    #[arg(short, long, value_name = "PID", conflicts_with = "phys")]
    pid: Option<u32>,
    /// These virtual addresses
    #[arg(long, value_name = "RANGE", value_parser = parse::range::<VirtAddr>, conflicts_with_all = ["region", "phys"])]
    range: Option<VirtRange>,
    /// The region of the process' memory map that holds this address
    #[arg(long, value_name = "ADDR", requires = "pid", conflicts_with = "phys")]
    region: Option<AddressExpr>,
    /// These physical addresses
    #[arg(long, value_name = "RANGE", value_parser = parse::range::<PhysAddr>)]
    phys: Option<PhysRange>,
}

/// Formats of physical memory.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    /// Address zero is byte zero of the file; gaps need --fill-gaps
    Raw,
    /// LiME: each range of memory with its addresses; gaps stay gaps
    Lime,
    /// ELF core: as LiME, with registers, VMCOREINFO and whatever else is known of the machine
    Elf,
    /// kdump-compressed: as ELF, compressed page by page; what the source left out stays left out. Not to a pipe
    Kdump,
}

/// Compressions of dumps.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Compress {
    /// Zstandard: frames of 1 MiB with a seek table, or each page of a kdump
    Zstd,
    /// zlib; kdump only, where it is what is done unless something else is asked for
    Zlib,
    /// snappy, faster and larger; kdump only
    Snappy,
    /// Nothing
    None,
}

/// What stands in for memory that cannot be read.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Fill {
    /// Zeros, as holes in the file where possible
    Zero,
    /// Nothing where the source left memory out on purpose: it is a gap then; what cannot be read fails
    Gap,
}

#[derive(Serialize)]
struct Document<'a> {
    file: &'a str,
    format: &'static str,
    size: u64,
    filled: u64,
    left_out: u64,
    live: bool,
    problems: [&'static str; 0],
}

/// Opens the target and writes the dump.
pub(crate) fn run(args: &DumpArgs, io: &mut Io<'_>) -> Outcome {
    let WhatArgs { pid, range, region, phys } = &args.what;
    if pid.is_some() && range.is_none() && region.is_none() {
        let way_out = "--pid needs --range or --region; `memflow maps` shows the regions of a process";
        return Err(Failure::Usage(way_out.to_owned()));
    }
    if io.json && args.output.as_os_str() == "-" {
        io.json = false;
        return Err(Failure::Usage("--json and -o - would both write to standard output".to_owned()));
    }
    let mut target = Target::open(&args.target, io)?;
    if range.is_none() && region.is_none() {
        target.settle(io)?;
        let physical = PhysicalView::new(target.memory().clone());
        return match phys {
            Some(range) => span(args, &target, &physical, same_numbers(*range)?, io),
            None => everything(args, &target, io),
        };
    }
    let os = target.os(io)?;
    let process = pid.map(|pid| os.open_pid(pid)).transpose()?;
    match (&process, range, region) {
        (Some(process), _, Some(address)) => {
            let range = region_at(&*os, &**process, address, io)?;
            span(args, &target, process, range, io)
        }
        (Some(process), Some(range), None) => span(args, &target, process, *range, io),
        (None, Some(range), _) => span(args, &target, os.kernel_view(), *range, io),
        (_, None, _) => Err(Failure::Usage("--region needs --pid".to_owned())),
    }
}

/// The region of the process' memory map that holds the address.
fn region_at(os: &dyn Os, process: &dyn Process, address: &AddressExpr, io: &mut Io<'_>) -> Outcome<VirtRange> {
    let address = resolve(os, address)?;
    let map = process.memory_map()?;
    match map.items.iter().find(|region| region.range.contains(address)) {
        Some(region) => Ok(region.range),
        None => {
            // The region may be among those that could not be read.
            let _named = io.problems("the memory map", &map.problems);
            let pid = process.info().pid;
            Err(Failure::Missing(format!("no region of process {pid} holds {address}; `memflow maps` shows them")))
        }
    }
}

/// A physical range as addresses of a physical view.
fn same_numbers(range: PhysRange) -> Outcome<VirtRange> {
    let start = VirtAddr::new(range.start().as_u64());
    Ok(VirtRange::new(start, range.len()).ok_or(Error::Range { address: start.into(), len: range.len() })?)
}

/// Bytes of one range, and nothing else.
fn span(args: &DumpArgs, target: &Target, view: &dyn MemoryView, range: VirtRange, io: &mut Io<'_>) -> Outcome {
    let mut dump = Dump::create(args, target, range.len(), io)?;
    let copied = dump.copy(view, range);
    dump.finish(copied, "raw", io)
}

/// All physical memory.
fn everything(args: &DumpArgs, target: &Target, io: &mut Io<'_>) -> Outcome {
    let memory = target.memory();
    let runs = memory.metadata().runs;
    let Some(all) = runs.last_address().and_then(|last| PhysRange::inclusive(PhysAddr::new(0), last)) else {
        return Err(Failure::Missing("the target holds no memory".to_owned()));
    };
    let left_out = memory.excluded_runs().total_bytes();
    if left_out > 0 && args.fill_gaps.is_none() && args.format != Format::Kdump {
        return Err(Failure::Usage(format!(
            "{} of memory were left out when the target was dumped, and a gap would not tell that; --format kdump \
             keeps it, --fill-gaps gap writes gaps there, --fill-gaps zero zeros",
            size(left_out)
        )));
    }
    let gap = runs.pieces(all).find_map(|piece| match piece {
        Piece::Gap { range } => Some(range),
        Piece::Present { .. } => None,
    });
    if let (Some(gap), Format::Raw, None | Some(Fill::Gap)) = (gap, args.format, args.fill_gaps) {
        return Err(Failure::Usage(format!(
            "physical memory has a gap at {} ({}); --fill-gaps zero writes zeros there, --format lime keeps gaps",
            gap.start(),
            size(gap.len())
        )));
    }
    let (format, name) = match args.format {
        Format::Raw => (DumpFormat::Raw, "raw"),
        Format::Lime => (DumpFormat::Lime, "lime"),
        Format::Elf => (DumpFormat::Elf, "elf"),
        Format::Kdump => (DumpFormat::Kdump, "kdump"),
    };
    let mut options = WriteOptions::new(format);
    options.compression = args.compress.map(|compress| match compress {
        Compress::Zstd => DumpCompression::Zstd,
        Compress::Zlib => DumpCompression::Zlib,
        Compress::Snappy => DumpCompression::Snappy,
        Compress::None => DumpCompression::None,
    });
    options.gaps = args.fill_gaps.map(|fill| match fill {
        Fill::Zero => Gaps::Zero,
        Fill::Gap => Gaps::Gap,
    });
    // Calls to a machine follow each other: it answers no sooner when two ask, and one that fails or hangs is asked once.
    if memory.metadata().liveness == Liveness::Live && memory.direct_map().is_none() {
        options.threads = Some(NonZero::<usize>::MIN);
    }
    let mut dump = Dump::create(args, target, runs.total_bytes(), io)?;
    let copied = dump.write(&**memory, &options);
    dump.finish(copied, name, io)
}

/// The file as a sink. Why it takes no more is kept here.
struct FileSink<'f> {
    file: &'f mut OutputFile,
    failure: Option<Failure>,
}

impl FileSink<'_> {
    fn kept(&mut self, done: Outcome<()>) -> Result<(), Error> {
        done.map_err(|failure| {
            self.failure = Some(failure);
            Error::Cancelled
        })
    }
}

impl Sink for FileSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let done = self.file.write(bytes);
        self.kept(done)
    }

    fn skip(&mut self, len: u64) -> Result<(), Error> {
        let done = self.file.skip(len);
        self.kept(done)
    }

    fn can_patch(&self) -> bool {
        self.file.can_patch()
    }

    fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let done = self.file.patch(offset, bytes);
        self.kept(done)
    }
}

/// A dump that is being written.
struct Dump {
    // Before the file: when a panic drops both, the target runs first.
    still: Still,
    file: OutputFile,
    name: String,
    progress: progress::Bytes,
    fill: Option<Fill>,
    filled: u64,
    left_out: u64,
}

impl Dump {
    /// Makes the file, and pauses the target once that is there.
    fn create(args: &DumpArgs, target: &Target, total: u64, io: &mut Io<'_>) -> Outcome<Self> {
        let existing = if args.force { Existing::Replaced } else { Existing::Kept };
        let file = OutputFile::create(&args.output, existing, target.path())?;
        Ok(Self {
            still: Still::new(target, args.no_pause, io)?,
            file,
            name: args.output.display().to_string(),
            progress: progress::Bytes::new(io.quiet(), total),
            fill: args.fill_gaps,
            filled: 0,
            left_out: 0,
        })
    }

    /// Writes all of `memory`.
    fn write(&mut self, memory: &dyn PhysicalMemory, options: &WriteOptions<'_>) -> Outcome<()> {
        // Told through a shared reference, by this thread alone.
        let shown = RefCell::new((&mut self.progress, 0));
        let on_progress = |copied: memflow_snapshot::Copied| {
            let (progress, before) = &mut *shown.borrow_mut();
            progress.advance(copied.done.saturating_sub(*before));
            *before = copied.done;
            if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let options = WriteOptions { on_progress: Some(&on_progress), ..options.clone() };
        let mut sink = FileSink { file: &mut self.file, failure: None };
        let written = memflow_snapshot::write(memory, &mut sink, &options);
        if let Some(failure) = sink.failure {
            return Err(failure);
        }
        match written {
            Ok(Written { filled, left_out, .. }) => {
                self.filled = filled;
                self.left_out = left_out;
                Ok(())
            }
            Err(Error::Access { address, len, reason, .. }) => Err(unreadable(len, address, reason)),
            Err(error @ Error::Unsupported { .. }) => Err(Failure::Usage(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends `range` of `view`.
    fn copy(&mut self, view: &dyn MemoryView, range: VirtRange) -> Outcome<()> {
        let mut buf = Vec::new();
        let mut done = 0;
        while done < range.len() {
            if interrupt::requested() {
                return Err(Failure::Interrupted);
            }
            let len = (range.len() - done).min(STEP);
            // At most `STEP`, which every machine's address space holds.
            buf.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
            let at = range.start().wrapping_add(done);
            let gaps = view.read_partial(at, &mut buf)?.gaps;
            let mut rest = buf.as_slice();
            let mut position = at;
            for gap in gaps {
                if self.fill != Some(Fill::Zero) {
                    return Err(unreadable(gap.range.len(), gap.range.start(), gap.reason));
                }
                rest = self.write_up_to(rest, position, gap.range.start())?;
                let missing = usize::try_from(gap.range.len()).unwrap_or(usize::MAX).min(rest.len());
                self.fill(gap.range.len())?;
                rest = rest.get(missing..).unwrap_or_default();
                position = gap.range.start().wrapping_add(gap.range.len());
            }
            self.file.write(rest)?;
            self.progress.advance(rest.len() as u64);
            done += len;
        }
        Ok(())
    }

    /// Appends the bytes of `rest`, which starts at `position`, that lie before `end`; returns the others.
    fn write_up_to<'b>(&mut self, rest: &'b [u8], position: VirtAddr, end: VirtAddr) -> Outcome<&'b [u8]> {
        let len = end.offset_from(position).and_then(|len| usize::try_from(len).ok()).unwrap_or(0).min(rest.len());
        let (before, after) = rest.split_at(len);
        self.file.write(before)?;
        self.progress.advance(before.len() as u64);
        Ok(after)
    }

    /// Appends zeros in place of what cannot be read.
    fn fill(&mut self, len: u64) -> Outcome<()> {
        self.filled = self.filled.saturating_add(len);
        self.progress.advance(len);
        self.file.skip(len)
    }

    /// Lets the target run, and makes the file whole if all was copied.
    fn finish(self, copied: Outcome<()>, format: &'static str, io: &mut Io<'_>) -> Outcome {
        let Self { still, file, name, progress, filled, left_out, .. } = self;
        let live = still.is_live();
        let ended = still.end(io);
        if let (Err(_), Err(problem)) = (&copied, &ended) {
            io.alarm(problem);
        }
        copied?;
        let (to_stdout, written) = (file.is_stdout(), file.len());
        file.finish()?;
        drop(progress);
        if filled > 0 {
            io.warn(format_args!("zeros stand for {} that could not be read", plural(filled, "byte")));
        }
        if left_out > 0 {
            io.warn(format_args!("{} that were left out of the target are gaps now", plural(left_out, "byte")));
        }
        if io.json {
            io.document(&Document { file: &name, format, size: written, filled, left_out, live, problems: [] })?;
        } else if !to_stdout {
            io.line(format_args!("{}: {} ({}), {format}", escape(&name), plural(written, "byte"), size(written)))?;
        }
        // The file is good, and yet not all is.
        ended.map(|()| Status::Complete)
    }
}

/// The failure for memory that cannot be read.
fn unreadable(len: u64, address: impl Display, reason: Reason) -> Failure {
    Failure::Unreadable(format!(
        "{} at {address} cannot be read: {reason}; no file was written; --fill-gaps zero writes zeros there",
        plural(len, "byte")
    ))
}
