//! `memflow dump`: memory to a file.
//!
//! Owns: which memory is dumped, and what becomes of parts of a range that cannot be read. Must not know: how files become whole, how a
//! target stands still, how any format is laid out.

use std::path::PathBuf;

use clap::Args;
use memflow_core::{
    Error, MemoryView, MemoryViewExt, PhysAddr, PhysRange, VirtAddr, VirtRange,
    address::MIB,
    os::{Os, Process},
    view::PhysicalView,
};

use super::address::resolve;
use crate::{
    failure::{Failure, Outcome},
    image::{Compress, Fill, Format, MemoryFile, Wanted, everything, unreadable},
    interrupt,
    output::Io,
    parse::{self, AddressExpr},
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
a dump from which memory was left out on purpose (kdump), as formats other than kdump and windows cannot tell that from memory that never \
was.

A live target whose connector can pause it stands still while its memory is copied, and runs again afterwards, whatever becomes of the \
dump: also after an error or Ctrl-C. One that was paused before stays so. What is written of a target that cannot be paused, or with \
--no-pause, is torn: its parts are from different moments. If memflow itself is killed (kill -9), a paused target stays paused until \
`memflow resume`.

-o is the file here; name an OS layer with --os.

A Windows crash dump is of any system, but its header is filled in from what the target tells (a crash dump, or a file that was \
converted from one); which fields it does not tell is said. Debuggers of Windows need more of them than readers of memory do.

JSON: {\"file\", \"format\", \"size\", \"filled\", \"left_out\", \"unknown\", \"live\", \"problems\"}; live if the target may have run \
meanwhile.", mut_arg("os", |os| os.short(None)))]
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

impl DumpArgs {
    fn wanted(&self) -> Wanted<'_> {
        Wanted { output: &self.output, force: self.force, no_pause: self.no_pause, fill: self.fill_gaps }
    }
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
            None => everything(args.wanted(), args.format, args.compress, &target, io),
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
    let mut file = MemoryFile::create(args.wanted(), target, range.len(), io)?;
    let copied = copy(&mut file, view, range);
    file.finish(copied, "raw", io)
}

/// Appends `range` of `view`.
fn copy(file: &mut MemoryFile, view: &dyn MemoryView, range: VirtRange) -> Outcome<()> {
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
            if file.stand_in() != Some(Fill::Zero) {
                return Err(unreadable(gap.range.len(), gap.range.start(), gap.reason));
            }
            rest = write_up_to(file, rest, position, gap.range.start())?;
            let missing = usize::try_from(gap.range.len()).unwrap_or(usize::MAX).min(rest.len());
            file.fill(gap.range.len())?;
            rest = rest.get(missing..).unwrap_or_default();
            position = gap.range.start().wrapping_add(gap.range.len());
        }
        file.append(rest)?;
        done += len;
    }
    Ok(())
}

/// Appends the bytes of `rest`, which starts at `position`, that lie before `end`; returns the others.
fn write_up_to<'b>(file: &mut MemoryFile, rest: &'b [u8], position: VirtAddr, end: VirtAddr) -> Outcome<&'b [u8]> {
    let len = end.offset_from(position).and_then(|len| usize::try_from(len).ok()).unwrap_or(0).min(rest.len());
    let (before, after) = rest.split_at(len);
    file.append(before)?;
    Ok(after)
}
