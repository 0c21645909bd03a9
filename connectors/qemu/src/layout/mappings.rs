//! The layout as command line and mappings tell it, where QEMU cannot be asked.
//!
//! Owns: which mapping holds which memory backend. Must not know: /proc.
//! Keeps: a backend's mapping has its size and its kind, and its name where it has one; two that could be it are refused, with what
//! was found.
//! Source: QEMU backends/hostmem*.c, util/mmap-alloc.c, softmmu/physmem.c (`file_ram_open`: names of files in a folder).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::path::Path;

use memflow_core::{Error, PhysRange, Result, memory::MachineKind, units::Size};

use super::{GuestRun, MachineType, RunKind};
use crate::{
    command_line::{Backend, BackendKind, CommandLine},
    discover::Guest,
    host::Mapping,
};

/// QEMU's RAM where none was asked for.
const DEFAULT_SIZE: u64 = 128 << 20;
/// What a mapping of huge pages may be longer than its backend.
const MAX_ROUNDING: u64 = 1 << 30;
const WAY_OUT: &str =
    "give the guest a monitor (`-qmp unix:PATH,server=on,wait=off`) or the layout with map=FIRST-LAST@VIRTUAL,…";

/// The memory of a guest, by the rules of its machine.
pub(super) fn runs(guest: &Guest, maps: &[Mapping], notes: &mut Vec<String>) -> Result<Vec<GuestRun>> {
    let line = guest.command_line();
    let arm = guest.machine_kind() == Some(MachineKind::AArch64);
    let machine = guest.machine_type().filter(|machine| arm == (*machine == MachineType::Virt));
    let machine = machine.ok_or_else(|| Error::Unsupported {
        what: format!(
            "machine {} of {} without a monitor",
            line.machine.as_deref().unwrap_or("(not named)"),
            guest.program()
        ),
        why: format!("its layout is not known; {WAY_OUT}"),
    })?;
    let backends = backends(line)?;
    let size = backends.iter().fold(0, |sum: u64, backend| sum.saturating_add(backend.size));
    let wanted = line.memory.unwrap_or(DEFAULT_SIZE);
    if size != wanted {
        return Err(Error::Argument {
            what: "memory backends".into(),
            expected: format!("{} together, as -m says; {WAY_OUT}", Size(wanted)).into(),
            found: Size(size).to_string(),
        });
    }
    let mut found: Vec<&Mapping> = Vec::new();
    for backend in &backends {
        let mapping = mapping(backend, maps)?;
        if found.iter().any(|other| other.start == mapping.start) {
            return Err(ambiguous(backend, &[mapping]));
        }
        found.push(mapping);
    }
    let ram = machine.runs(size, line.max_ram_below_4g)?;
    let (mut runs, mut first) = (Vec::new(), 0_u64);
    for (backend, mapping) in backends.iter().zip(found) {
        let end = first.saturating_add(backend.size);
        for run in ram.runs() {
            // What of the run this backend holds.
            let start = run.offset.max(first);
            let len = run.offset.saturating_add(run.range.len()).min(end).saturating_sub(start);
            let phys = run.range.start().checked_add(start.saturating_sub(run.offset));
            let range = phys.and_then(|phys| PhysRange::new(phys, len)).filter(|range| !range.is_empty());
            if let Some(range) = range {
                let virt = mapping.start.saturating_add(start.saturating_sub(first));
                runs.push(GuestRun { range, virt, kind: RunKind::Ram, region: backend.id.clone() });
            }
        }
        first = end;
    }
    if machine != MachineType::Virt {
        notes.push("0xa0000-0xfffff is left out: without a monitor it cannot be told what is RAM there".to_owned());
    }
    if line.memory_devices > 0 {
        let count = line.memory_devices;
        notes.push(format!("{count} memory devices are left out: without a monitor their addresses are not known"));
    }
    Ok(runs)
}

/// The backends that make up the machine's RAM, in order of their addresses.
fn backends(line: &CommandLine) -> Result<Vec<Backend>> {
    let named = |id: &String| {
        line.backend(id).cloned().ok_or_else(|| Error::NotFound { what: "memory backend", name: id.clone() })
    };
    if !line.nodes.is_empty() {
        return line.nodes.iter().map(named).collect();
    }
    if let Some(id) = &line.memory_backend
        && let Some(backend) = line.backend(id)
    {
        return Ok(vec![backend.clone()]);
    }
    let kind = match &line.mem_path {
        Some(path) => BackendKind::File { path: path.clone() },
        None => BackendKind::Anonymous,
    };
    Ok(vec![Backend { id: "pc.ram".to_owned(), kind, size: line.memory.unwrap_or(DEFAULT_SIZE) }])
}

/// The one mapping that can hold a backend.
fn mapping<'a>(backend: &Backend, maps: &'a [Mapping]) -> Result<&'a Mapping> {
    let found: Vec<&Mapping> = maps.iter().filter(|map| can_hold(backend, map)).collect();
    match found.as_slice() {
        [mapping] => Ok(mapping),
        _ => Err(ambiguous(backend, &found)),
    }
}

fn can_hold(backend: &Backend, map: &Mapping) -> bool {
    let rounding = map.len().checked_sub(backend.size);
    if !(map.read && map.write) {
        return false;
    }
    match &backend.kind {
        BackendKind::Anonymous => {
            let anonymous = map.path.is_empty() || map.path.starts_with("[anon") || map.path == "/dev/zero (deleted)";
            anonymous && rounding == Some(0)
        }
        // The name is the backend's id, or in older releases that of its type.
        BackendKind::Memfd => {
            let name = map.path.strip_prefix("/memfd:").and_then(|name| name.strip_suffix(" (deleted)"));
            let ours = name.is_some_and(|name| {
                name == backend.id
                    || name == "memory-backend-memfd"
                    || name.strip_prefix("/objects/") == Some(&backend.id)
            });
            ours && rounding.is_some_and(|more| more < MAX_ROUNDING)
        }
        BackendKind::File { path } => {
            let file = map.file_path();
            let in_folder = file.parent().is_some_and(|folder| same(folder, path))
                && file.file_name().is_some_and(|name| is_backing_file(&name.to_string_lossy(), &backend.id));
            (same(file, path) || in_folder) && rounding.is_some_and(|more| more < MAX_ROUNDING)
        }
    }
}

/// Whether a mapped file is the one of a path, which may be relative to a folder that is not known.
fn same(file: &Path, path: &Path) -> bool {
    let path = path.strip_prefix(".").unwrap_or(path);
    if path.is_absolute() {
        file == path || std::fs::canonicalize(path).is_ok_and(|path| path == file)
    } else {
        path.file_name().is_some() && file.ends_with(path)
    }
}

/// Whether QEMU would name the file of a backend so, in a folder: `qemu_back_mem.ID.XXXXXX`.
fn is_backing_file(name: &str, id: &str) -> bool {
    let stem = name.strip_prefix("qemu_back_mem.").and_then(|rest| rest.rsplit_once('.')).map(|(stem, _)| stem);
    stem.is_some_and(|stem| stem == id || stem.strip_prefix("_objects_") == Some(id))
}

fn ambiguous(backend: &Backend, found: &[&Mapping]) -> Error {
    let kind = match &backend.kind {
        BackendKind::Anonymous => "anonymous".to_owned(),
        BackendKind::Memfd => "memfd".to_owned(),
        BackendKind::File { path } => path.display().to_string(),
    };
    let found = match found {
        [] => "none".to_owned(),
        some => {
            let list =
                some.iter().map(|map| format!("{:#x}-{:#x} {}", map.start, map.end, map.path).trim_end().to_owned());
            list.collect::<Vec<_>>().join(", ")
        }
    };
    Error::Argument {
        what: format!("memory backend {}", backend.id).into(),
        expected: format!("one mapping of {} ({kind}) for it alone; {WAY_OUT}", Size(backend.size)).into(),
        found,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::host::parse_maps;

    fn backend(kind: BackendKind, size: u64) -> Backend {
        Backend { id: "ram".to_owned(), kind, size }
    }

    fn found(backend: &Backend, maps: &str) -> Result<u64> {
        mapping(backend, &parse_maps(maps)).map(|map| map.start)
    }

    #[test]
    fn larger_mapping_is_not_taken_for_the_ram() {
        // The memory of a display adapter that is passed through is larger than the guest's RAM.
        let maps = "10000000-20000000 rw-s 00000000 00:10 5 anon_inode:[vfio-device]\n\
                    30000000-34000000 rw-p 00000000 00:00 0 \n34000000-34001000 ---p 00000000 00:00 0 \n\
                    40000000-80000000 rw-p 00000000 00:00 0 \n";
        assert_eq!(found(&backend(BackendKind::Anonymous, 64 << 20), maps).unwrap(), 0x3000_0000);
    }

    #[test]
    fn two_mappings_that_could_be_it_are_refused() {
        let maps = "30000000-34000000 rw-p 00000000 00:00 0 \n50000000-54000000 rw-p 00000000 00:00 0 \n";
        let error = found(&backend(BackendKind::Anonymous, 64 << 20), maps).unwrap_err().to_string();
        assert!(error.contains("0x30000000-0x34000000, 0x50000000-0x54000000") && error.contains("map="), "{error}");
        let error = found(&backend(BackendKind::Anonymous, 32 << 20), maps).unwrap_err().to_string();
        assert!(error.contains("found `none`"), "{error}");
    }

    #[test]
    fn files_are_known_by_name() {
        let maps = "30000000-34000000 rw-s 00000000 00:10 5 /dev/shm/other\n40000000-44000000 rw-s 00000000 00:10 6 /dev/shm/ram\n\
                    50000000-58000000 rw-s 00000000 00:10 7 /mnt/huge/qemu_back_mem.ram.a1B2c3 (deleted)\n\
                    60000000-64000000 rw-s 00000000 00:01 8 /memfd:ram (deleted)\n";
        let file = |path: &str| backend(BackendKind::File { path: path.into() }, 64 << 20);
        assert_eq!(found(&file("/dev/shm/ram"), maps).unwrap(), 0x4000_0000);
        assert_eq!(found(&file("ram"), maps).unwrap(), 0x4000_0000);
        assert_eq!(found(&file("/mnt/huge"), maps).unwrap(), 0x5000_0000);
        assert_eq!(found(&backend(BackendKind::Memfd, 64 << 20), maps).unwrap(), 0x6000_0000);
        assert!(found(&file("/dev/shm/none"), maps).is_err());
    }
}
