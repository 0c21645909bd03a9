//! Who maps a physical address: the kernel and every process.
//!
//! Owns: which spaces are looked at, and the list of mappings. Must not know: how tables are read.
//! Keeps: a space that could not be looked at is told.

use memflow_core::{
    PhysAddr,
    os::{Listing, Os, ProcessInfo},
    paging::{MapBudget, Mapping, ReverseMapBuilder},
};
use serde::Serialize;

use super::{
    flags::{rights, state},
    space::lower_half,
};
use crate::{
    failure::{Outcome, Status},
    output::{Align, Hex, Io, Table, escape, size},
    progress,
};

#[derive(Serialize)]
struct Document {
    physical: Hex,
    mappings: Vec<Record>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Record {
    pid: Option<u32>,
    name: String,
    r#virtual: Hex,
    page_size: u64,
    rights: String,
    state: String,
}

/// A space that was looked at.
struct Owner {
    pid: Option<u32>,
    name: String,
}

/// Lists every virtual address of the kernel and of the processes that leads to `phys`.
pub(super) fn everywhere(os: &dyn Os, phys: PhysAddr, io: &mut Io<'_>) -> Outcome {
    let (owners, builder, mut problems) =
        progress::spin(io.quiet(), "reading the page tables of every process", || collect(os))?;
    let map = builder.build();
    for (space, hole) in map.holes() {
        let name = owners.get(*space).map_or("", |owner| owner.name.as_str());
        problems
            .push(format!("whether an address of {name} in {} leads there is not known: {}", hole.range, hole.reason));
    }
    let record = |mapping: &Mapping| {
        let owner = owners.get(mapping.space)?;
        Some(Record {
            pid: owner.pid,
            name: owner.name.clone(),
            r#virtual: mapping.virt.into(),
            page_size: mapping.page.bytes(),
            rights: rights(mapping.flags),
            state: state(mapping.flags),
        })
    };
    let mappings: Vec<Record> = map.find(phys).iter().filter_map(record).collect();
    for problem in &problems {
        io.warn(problem);
    }
    if mappings.is_empty() {
        io.warn(format_args!("neither the kernel nor a process maps physical {phys}"));
    }
    let complete = problems.is_empty() && !mappings.is_empty();
    if io.json {
        io.document(&Document { physical: phys.into(), mappings, problems })?;
    } else {
        io.table(&table(&mappings))?;
    }
    Ok(if complete { Status::Complete } else { Status::Incomplete })
}

/// The maps of all spaces, whose they are, and what could not be had.
fn collect(os: &dyn Os) -> Outcome<(Vec<Owner>, ReverseMapBuilder, Vec<String>)> {
    let mut builder = ReverseMapBuilder::default();
    let mut owners = vec![Owner { pid: None, name: "[kernel]".to_owned() }];
    builder.add(os.kernel_space(), &**os.physical_memory(), None, MapBudget::default())?;
    let (added, problems) = add_processes(os, &os.processes()?, &mut builder);
    owners.extend(added.into_iter().map(|info| Owner { pid: Some(info.pid), name: info.name }));
    Ok((owners, builder, problems))
}

/// Adds the own half of every listed process to a map, one space for each that is returned, and says what could not be had.
pub(super) fn add_processes(
    os: &dyn Os,
    list: &Listing<ProcessInfo>,
    builder: &mut ReverseMapBuilder,
) -> (Vec<ProcessInfo>, Vec<String>) {
    let mut owners = Vec::new();
    let mut problems: Vec<String> =
        list.problems.iter().map(|problem| format!("the process list is incomplete: {problem}")).collect();
    // Threads of the kernel, and processes that have ended, have no space.
    for info in list.items.iter().filter(|info| info.root.is_some() && !info.kernel_thread) {
        let added = os.open(info).and_then(|process| match process.address_space() {
            Some(space) => {
                // The upper half is the kernel's, and the same in all.
                let range = lower_half(space);
                builder.add(space, process.physical_memory(), range, MapBudget::default()).map(Some)
            }
            None => Ok(None),
        });
        match added {
            Ok(Some(_)) => owners.push(info.clone()),
            Ok(None) => {}
            Err(error) => problems.push(format!("process {} was not looked at: {error}", info.pid)),
        }
    }
    (owners, problems)
}

fn table(mappings: &[Record]) -> Table {
    let mut table = Table::new(&[
        ("PID", Align::Right),
        ("NAME", Align::Left),
        ("ADDRESS", Align::Left),
        ("PAGE", Align::Right),
        ("RIGHTS", Align::Left),
        ("STATE", Align::Left),
    ]);
    for mapping in mappings {
        table.row([
            mapping.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            escape(&mapping.name).into_owned(),
            format!("{:016x}", mapping.r#virtual.0),
            size(mapping.page_size),
            mapping.rights.clone(),
            mapping.state.clone(),
        ]);
    }
    table
}
