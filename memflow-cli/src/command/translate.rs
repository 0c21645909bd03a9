//! `memflow translate`: from a virtual address to a physical one, and back.
//!
//! Owns: the display of a translation and of the table entries on its way. Must not know: how tables are walked: the walk itself is
//! the library's; its end says which entries were used, and those are read again here to show them.

use clap::Args;
use memflow_core::{
    Error, PhysAddr, PhysicalMemory, Reason, VirtAddr,
    error::AccessKind,
    memory::PhysicalMemoryExt,
    paging::{AddressSpace, MapBudget, PhysMappings, Translation},
};
use serde::Serialize;

use super::{
    address::resolve,
    flags::{rights, state},
    mappings::everywhere,
    space::{TablesArgs, no_space},
};
use crate::{
    failure::{Failure, Outcome, Status},
    output::{Align, Hex, Io, Table},
    parse::{self, AddressExpr},
    progress,
    target::{Target, TargetArgs},
};

/// Arguments of `memflow translate`.
#[derive(Args, Debug)]
#[command(after_help = "\
ADDR is a number (decimal, or hexadecimal with 0x) or a kernel symbol with an offset. Without --pid, in the kernel's address \
space. RIGHTS and STATE are those of `memflow maps --page-tables`. Levels count from 1, the level of the smallest pages.

JSON: {\"virtual\", \"physical\", \"page_size\", \"level\", \"rights\", \"state\", \"steps\": [{level, table, entry_address, entry}], \
\"problems\": […]}; with --reverse: {\"physical\", \"virtual\": […], \"problems\": […]}; with --reverse --everywhere: {\"physical\", \"mappings\": \
[{pid, name, virtual, page_size, rights, state}], \"problems\"}, without pid for the kernel.")]
pub(crate) struct TranslateArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// A virtual address
    #[arg(value_name = "ADDR", required_unless_present = "reverse")]
    address: Option<AddressExpr>,
    /// In the address space of this process
    #[arg(short, long, value_name = "PID")]
    pid: Option<u32>,
    #[command(flatten)]
    tables: TablesArgs,
    /// Find the virtual addresses that lead to this physical one
    #[arg(short, long, value_name = "PHYS", value_parser = parse::number, conflicts_with = "address")]
    reverse: Option<u64>,
    /// With --reverse: look in the kernel's address space and in that of every process
    #[arg(long, requires = "reverse", conflicts_with_all = ["pid", "vcpu", "root", "paging"])]
    everywhere: bool,
}

#[derive(Serialize)]
struct Document {
    r#virtual: Hex,
    physical: Option<Hex>,
    page_size: Option<u64>,
    level: Option<u8>,
    rights: Option<String>,
    state: Option<String>,
    steps: Vec<Step>,
    problems: Vec<String>,
}

/// A table entry on the way.
#[derive(Serialize)]
struct Step {
    level: u8,
    table: Hex,
    entry_address: Hex,
    entry: Hex,
}

#[derive(Serialize)]
struct ReverseDocument {
    physical: Hex,
    r#virtual: Vec<Hex>,
    problems: Vec<String>,
}

/// Opens the target and translates.
pub(crate) fn run(args: &TranslateArgs, io: &mut Io<'_>) -> Outcome {
    let mut target = Target::open(&args.target, io)?;
    if let Some(space) = args.tables.space(&target)? {
        target.settle(io)?;
        let number = |expr: &AddressExpr| match expr {
            AddressExpr::Number(value) => Ok(VirtAddr::new(*value)),
            AddressExpr::Symbol { .. } => Err(Failure::Usage(format!(
                "`{expr}` is a symbol of the kernel; with --vcpu or --root an address is a number"
            ))),
        };
        return translate(args, &space, &**target.memory(), number, io);
    }
    let os = target.os(io)?;
    if let (true, Some(phys)) = (args.everywhere, args.reverse) {
        return everywhere(&*os, PhysAddr::new(phys), io);
    }
    let process = args.pid.map(|pid| os.open_pid(pid)).transpose()?;
    let space = match &process {
        None => os.kernel_space(),
        Some(process) => process.address_space().ok_or_else(|| no_space(process.info().pid))?,
    };
    translate(args, space, &**os.physical_memory(), |expr| resolve(&*os, expr), io)
}

fn translate(
    args: &TranslateArgs,
    space: &AddressSpace,
    memory: &dyn PhysicalMemory,
    resolve: impl FnOnce(&AddressExpr) -> Outcome<VirtAddr>,
    io: &mut Io<'_>,
) -> Outcome {
    match (&args.address, args.reverse) {
        (_, Some(phys)) => reverse(space, memory, PhysAddr::new(phys), io),
        (Some(expr), None) => forward(space, memory, resolve(expr)?, io),
        (None, None) => Err(Failure::Usage("an ADDR or --reverse is needed".to_owned())),
    }
}

fn forward(space: &AddressSpace, memory: &dyn PhysicalMemory, address: VirtAddr, io: &mut Io<'_>) -> Outcome {
    let result = space.translate(memory, address);
    let lowest = match &result {
        Ok(Translation { level, .. }) => *level,
        Err(Reason::NotMapped(stop)) => stop.level,
        Err(_) => 1,
    };
    let steps = steps(space, memory, address, lowest);
    let failure = match result {
        Ok(_) => None,
        Err(reason) => Some(Error::Access { kind: AccessKind::Read, address: address.into(), len: 1, reason }),
    };
    if io.json {
        let found = result.as_ref().ok();
        io.document(&Document {
            r#virtual: address.into(),
            physical: found.map(|found| found.phys.into()),
            page_size: found.map(|found| found.page.bytes()),
            level: found.map(|found| found.level),
            rights: found.map(|found| rights(found.flags)),
            state: found.map(|found| state(found.flags)),
            steps,
            problems: failure.iter().map(ToString::to_string).collect(),
        })?;
    } else {
        if let Ok(found) = &result {
            io.table(&summary(address, found))?;
            io.line("")?;
        }
        io.table(&step_table(&steps))?;
    }
    match result {
        Ok(_) => Ok(Status::Complete),
        Err(reason @ Reason::NotMapped(_)) => Err(Failure::Unreadable(format!("{address} is not mapped: {reason}"))),
        Err(reason) => Err(Failure::Unreadable(format!("{address} does not lead to memory: {reason}"))),
    }
}

fn summary(address: VirtAddr, found: &Translation) -> Table {
    let mut table = Table::without_header([Align::Left, Align::Left]);
    table.row(["virtual".to_owned(), address.to_string()]);
    table.row(["physical".to_owned(), found.phys.to_string()]);
    table.row(["page".to_owned(), format!("{} at level {}", found.page, found.level)]);
    table.row(["rights".to_owned(), rights(found.flags)]);
    table.row(["state".to_owned(), state(found.flags)]);
    table
}

fn step_table(steps: &[Step]) -> Table {
    let mut table = Table::new(&[
        ("LEVEL", Align::Right),
        ("TABLE", Align::Left),
        ("ENTRY AT", Align::Left),
        ("ENTRY", Align::Left),
    ]);
    for Step { level, table: at, entry_address, entry } in steps {
        table.row([
            level.to_string(),
            format!("{:#x}", at.0),
            format!("{:#x}", entry_address.0),
            format!("{:#018x}", entry.0),
        ]);
    }
    table
}

/// Reads again the entries that the walk for `address` used, down to the level at which it ended; fewer if one cannot be read.
fn steps(space: &AddressSpace, memory: &dyn PhysicalMemory, address: VirtAddr, lowest: u8) -> Vec<Step> {
    let architecture = space.architecture();
    let mut steps = Vec::new();
    let mut table = space.root();
    // A walk that did not start, at a non-canonical address, has ended at level zero.
    let levels = if lowest == 0 { &[] } else { architecture.levels };
    for (level, number) in levels.iter().zip((lowest..=u8::try_from(levels.len()).unwrap_or(u8::MAX)).rev()) {
        let index = address.as_u64() >> level.shift & ((1 << level.index_bits) - 1);
        let entry_address = table.wrapping_add(index.wrapping_mul(architecture.entry_size.bytes()));
        let mut bytes = [0; 8];
        let size = usize::try_from(architecture.entry_size.bytes()).unwrap_or(bytes.len());
        let entry = bytes.get_mut(..size).map(|entry| memory.read_into(entry_address, entry));
        if !matches!(entry, Some(Ok(()))) {
            break;
        }
        let entry = u64::from_le_bytes(bytes);
        steps.push(Step { level: number, table: table.into(), entry_address: entry_address.into(), entry: Hex(entry) });
        table = PhysAddr::new(entry & level.table.address);
    }
    steps
}

fn reverse(space: &AddressSpace, memory: &dyn PhysicalMemory, phys: PhysAddr, io: &mut Io<'_>) -> Outcome {
    let scan = || space.phys_to_virt(memory, phys, MapBudget::default());
    let PhysMappings { addresses, holes } = progress::spin(io.quiet(), "reading the page tables", scan)?;
    let problems: Vec<String> = holes
        .iter()
        .map(|hole| format!("whether an address in {} leads there is not known: {}", hole.range, hole.reason))
        .collect();
    for problem in &problems {
        io.warn(problem);
    }
    if addresses.is_empty() {
        io.warn(format_args!("no virtual address of this space leads to physical {phys}"));
    }
    if io.json {
        let r#virtual = addresses.iter().copied().map(Hex::from).collect();
        io.document(&ReverseDocument { physical: phys.into(), r#virtual, problems })?;
    } else {
        for address in &addresses {
            io.line(format_args!("{address:016x}"))?;
        }
    }
    Ok(if addresses.is_empty() || !holes.is_empty() { Status::Incomplete } else { Status::Complete })
}
