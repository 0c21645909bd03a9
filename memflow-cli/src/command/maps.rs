//! `memflow maps`: the memory map of a process, from the kernel's records or from its page tables.
//!
//! Owns: the tables and the JSON forms of regions and page-table runs. Must not know: how either is found.

use std::ops::ControlFlow;

use clap::Args;
use memflow_core::{
    VirtRange,
    os::{MemoryRegion, Process, RegionKind},
    paging::{MapBudget, MappedRun, PageFlags},
};
use serde::Serialize;

use super::{
    flags::{rights, state},
    space::lower_half,
};
use crate::{
    args::ProcessArgs,
    failure::{Outcome, Status},
    output::{Align, Hex, Io, Table, escape, size, texts},
    progress,
    target::Target,
};

/// Arguments of `memflow maps`.
#[derive(Args, Debug)]
#[command(after_help = "\
Columns are those of /proc/PID/maps: addresses (the second is the first one after the region), rights (s shared, p private), \
offset in the file, device, inode, path or [name].
With --page-tables: SIZE of the run, PAGE size of its pages, RIGHTS (u when user mode may use it, s when only the kernel may), \
STATE (A accessed, D dirty, G global), PHYSICAL address of its first byte. The tables are those that the kernel runs on for \
the process; where page-table isolation is on, they do not let it execute user memory, so x is missing there.

JSON: {\"regions\": [{start, size, read, write, execute, shared, kind, name, offset, inode, device}], \"problems\": […]}, kind \
being anonymous, file or special; with --page-tables: {\"runs\": [{start, size, physical, page_size, write, execute, user, \
accessed, dirty, global}], \"problems\": […]}.")]
pub(crate) struct MapsArgs {
    #[command(flatten)]
    process: ProcessArgs,
    /// Show what the page tables map, instead of what the kernel's records say
    #[arg(long)]
    page_tables: bool,
    /// With --page-tables: also the upper half of the address space, which belongs to the kernel
    #[arg(long, requires = "page_tables")]
    all: bool,
}

#[derive(Serialize)]
struct RegionsDocument<'a> {
    regions: Vec<RegionRecord<'a>>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct RegionRecord<'a> {
    start: Hex,
    size: u64,
    read: bool,
    write: bool,
    execute: bool,
    shared: bool,
    kind: &'static str,
    name: Option<&'a str>,
    offset: Option<Hex>,
    inode: Option<u64>,
    device: Option<String>,
}

#[derive(Serialize)]
struct RunsDocument {
    runs: Vec<RunRecord>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct RunRecord {
    start: Hex,
    size: u64,
    physical: Hex,
    page_size: u64,
    write: bool,
    execute: bool,
    user: bool,
    accessed: bool,
    dirty: bool,
    global: bool,
}

/// Opens the target and shows the map of a process.
pub(crate) fn run(args: &MapsArgs, io: &mut Io<'_>) -> Outcome {
    let os = Target::open(&args.process.target, io)?.os(io)?;
    let process = os.open_pid(args.process.pid)?;
    if args.page_tables { show_page_tables(&*process, args.all, io) } else { show(&*process, io) }
}

fn show(process: &dyn Process, io: &mut Io<'_>) -> Outcome {
    let list = process.memory_map()?;
    let status = io.problems("the memory map", &list.problems);
    say_if_it_has_no_space(process, io);
    if io.json {
        let regions = list.items.iter().map(region_record).collect();
        io.document(&RegionsDocument { regions, problems: texts(&list.problems) })?;
    } else {
        io.table(&region_table(&list.items))?;
    }
    Ok(status)
}

fn show_page_tables(process: &dyn Process, all: bool, io: &mut Io<'_>) -> Outcome {
    say_if_it_has_no_space(process, io);
    let mut runs = Vec::new();
    let mut problems = Vec::new();
    if let Some(space) = process.address_space() {
        let range = if all { None } else { lower_half(space) };
        let mut take = |run| {
            runs.push(run);
            ControlFlow::Continue(())
        };
        let scan = || space.map(process.physical_memory(), range, MapBudget::default(), &mut take);
        match progress::spin(io.quiet(), "reading the page tables", scan) {
            Ok(summary) => problems.extend(
                summary
                    .holes
                    .iter()
                    .map(|hole| format!("what is mapped in {} is not known: {}", hole.range, hole.reason)),
            ),
            Err(error) => problems.push(error.to_string()),
        }
    }
    for problem in &problems {
        io.warn(format_args!("the map is incomplete: {problem}"));
    }
    let status = if problems.is_empty() { Status::Complete } else { Status::Incomplete };
    if io.json {
        io.document(&RunsDocument { runs: runs.iter().map(run_record).collect(), problems })?;
    } else {
        io.table(&run_table(&runs))?;
    }
    Ok(status)
}

fn say_if_it_has_no_space(process: &dyn Process, io: &mut Io<'_>) {
    if process.address_space().is_none() {
        let pid = process.info().pid;
        io.warn(format_args!("process {pid} is a thread of the kernel or has ended; it has no memory of its own"));
    }
}

fn region_record(region: &MemoryRegion) -> RegionRecord<'_> {
    let mut record = RegionRecord {
        start: region.range.start().into(),
        size: region.range.len(),
        read: region.permissions.read,
        write: region.permissions.write,
        execute: region.permissions.execute,
        shared: region.permissions.shared,
        kind: "anonymous",
        name: None,
        offset: None,
        inode: None,
        device: None,
    };
    match &region.kind {
        RegionKind::File { path, offset, inode, device_major, device_minor } => {
            record.kind = "file";
            record.name = Some(path);
            record.offset = Some(Hex(*offset));
            record.inode = Some(*inode);
            record.device = Some(format!("{device_major:02x}:{device_minor:02x}"));
        }
        RegionKind::Special { name } => {
            record.kind = "special";
            record.name = Some(name);
        }
        // Anonymous memory, and kinds that are newer than this program, of which nothing more can be said.
        _ => {}
    }
    record
}

/// Regions as `/proc/PID/maps` shows them.
fn region_table(regions: &[MemoryRegion]) -> Table {
    let mut table =
        Table::without_header([Align::Left, Align::Left, Align::Left, Align::Left, Align::Right, Align::Left]);
    for region in regions {
        let (offset, device, inode, name) = match &region.kind {
            RegionKind::File { path, offset, inode, device_major, device_minor } => {
                (*offset, format!("{device_major:02x}:{device_minor:02x}"), *inode, escape(path))
            }
            RegionKind::Special { name } => (0, "00:00".to_owned(), 0, escape(name)),
            _ => (0, "00:00".to_owned(), 0, "".into()),
        };
        table.row([
            addresses(&region.range),
            region.permissions.to_string(),
            format!("{offset:08x}"),
            device,
            inode.to_string(),
            name.into_owned(),
        ]);
    }
    table
}

/// A range as `/proc/PID/maps` writes it: the second address is the one after the last.
fn addresses(range: &VirtRange) -> String {
    let end = range.end().map_or_else(|| format!("1{:016x}", 0), |end| format!("{end:08x}"));
    format!("{:08x}-{end}", range.start())
}

fn run_record(run: &MappedRun) -> RunRecord {
    RunRecord {
        start: run.virt.start().into(),
        size: run.virt.len(),
        physical: run.phys.into(),
        page_size: run.page.bytes(),
        write: run.flags.contains(PageFlags::WRITABLE),
        execute: !run.flags.contains(PageFlags::NO_EXECUTE),
        user: run.flags.contains(PageFlags::USER),
        accessed: run.flags.contains(PageFlags::ACCESSED),
        dirty: run.flags.contains(PageFlags::DIRTY),
        global: run.flags.contains(PageFlags::GLOBAL),
    }
}

fn run_table(runs: &[MappedRun]) -> Table {
    let mut table = Table::new(&[
        ("ADDRESSES", Align::Left),
        ("SIZE", Align::Right),
        ("PAGE", Align::Right),
        ("RIGHTS", Align::Left),
        ("STATE", Align::Left),
        ("PHYSICAL", Align::Left),
    ]);
    for run in runs {
        table.row([
            addresses(&run.virt),
            size(run.virt.len()),
            run.page.to_string(),
            rights(run.flags),
            state(run.flags),
            run.phys.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use memflow_core::{PageSize, PhysAddr, VirtAddr, os::Permissions};

    use super::*;

    fn range(start: u64, len: u64) -> VirtRange {
        VirtRange::new(VirtAddr::new(start), len).unwrap()
    }

    /// Lines of a Linux `/proc/PID/maps`, columns apart.
    #[test]
    fn regions_look_as_those_of_proc() {
        let read_execute = Permissions { read: true, execute: true, ..Permissions::default() };
        let file = RegionKind::File {
            path: "/usr/bin/a b\n".into(),
            offset: 0x2000,
            inode: 1_234_567,
            device_major: 254,
            device_minor: 1,
        };
        let stack = RegionKind::Special { name: "[stack]".into() };
        let regions = [
            MemoryRegion::new(range(0x40_0000, 0x1000), read_execute, file),
            MemoryRegion::new(
                range(0x7ffc_0000_0000, 0x21000),
                Permissions { read: true, write: true, ..Default::default() },
                stack,
            ),
            MemoryRegion::new(
                range(0x7ffd_0000_0000, 0x1000),
                Permissions { shared: true, ..Default::default() },
                RegionKind::Anonymous,
            ),
        ];
        assert_eq!(
            region_table(&regions).to_string(),
            "00400000-00401000          r-xp  00002000  fe:01  1234567  /usr/bin/a b\\n\n\
             7ffc00000000-7ffc00021000  rw-p  00000000  00:00        0  [stack]\n\
             7ffd00000000-7ffd00001000  ---s  00000000  00:00        0\n"
        );
    }

    #[test]
    fn runs_show_rights_state_and_physical_address() {
        let run = MappedRun {
            virt: range(u64::MAX - 0x1f_ffff, 0x20_0000),
            phys: PhysAddr::new(0x100_0000),
            page: PageSize::MIB_2,
            flags: PageFlags::WRITABLE | PageFlags::NO_EXECUTE | PageFlags::ACCESSED | PageFlags::GLOBAL,
        };
        assert_eq!(
            run_table(&[run]).to_string(),
            "ADDRESSES                            SIZE   PAGE  RIGHTS  STATE  PHYSICAL\n\
             ffffffffffe00000-10000000000000000  2 MiB  2 MiB  rw-s    A-G    0x1000000\n"
        );
    }
}
