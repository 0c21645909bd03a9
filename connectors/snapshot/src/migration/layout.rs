//! Which blocks of a stream are the guest's RAM, and at which addresses.
//!
//! Owns: the names of blocks, the rules of machine types. Must not know: records, files.
//! Keeps: what was assumed is said in a note.
//!
//! Source: QEMU, `hw/i386/pc_piix.c` (`pc_init1`), `hw/i386/pc_q35.c` (`pc_q35_init`), `hw/i386/microvm.c` (`microvm_memory_init`),
//! `hw/arm/virt.c` (`base_memmap`), `hw/core/machine.c` (`default_ram_id`, nodes of NUMA one after the other).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    PhysAddr, PhysRange, Result,
    address::GIB,
    memory::{Run, RunMap},
};

use super::stream::RamBlock;
use crate::{
    firmware::ram_ranges,
    input::ReadAt,
    raw::{Choice, MemoryLayout, choose_layout, firmware_choice, split},
};

/// From this size on, RAM may be moved above 1 TiB, away from addresses that AMD's processors reserve.
const MAY_BE_MOVED: u64 = 1000 * GIB;

/// Places of the blocks of RAM in `blocks`, in the order of their addresses, with what a person should know.
pub(super) fn guest_ram(blocks: &[RamBlock], notes: &mut Vec<String>) -> Vec<usize> {
    let mut candidates: Vec<(usize, &RamBlock)> =
        blocks.iter().enumerate().filter(|(_, block)| !of_device(&block.name)).collect();
    // All RAM in one block has a name of the machine's own; nodes of NUMA and what was plugged in have names that people chose.
    let whole = candidates.iter().position(|(_, block)| block.name.ends_with(".ram"));
    if let Some(whole) =
        whole.filter(|_| candidates.iter().filter(|(_, block)| block.name.ends_with(".ram")).count() == 1)
    {
        let kept = candidates.swap_remove(whole);
        for (_, block) in std::mem::replace(&mut candidates, vec![kept]) {
            notes.push(format!(
                "the {:#x} bytes of block {} are left aside, as the stream does not say where they are mapped",
                block.len, block.name
            ));
        }
    }
    candidates.sort_by_key(|(_, block)| natural(&block.name));
    if candidates.len() > 1 {
        let names: Vec<&str> = candidates.iter().map(|(_, block)| block.name.as_str()).collect();
        notes.push(format!("the blocks {} are taken for RAM, one after the other", names.join(", ")));
    }
    candidates.into_iter().map(|(index, _)| index).collect()
}

/// True for memory that is no RAM: ROMs, tables for the firmware, displays.
fn of_device(name: &str) -> bool {
    let name = name.strip_prefix("/objects/").unwrap_or(name);
    const ENDS: [&str; 6] = [".bios", ".rom", ".vram", ".vrom", ".vgavram", ".secure-ram"];
    const STARTS: [&str; 7] = ["system.flash", "virt.flash", "isa-bios", "vga", "qxl", "ramfb", "tpm-ppi"];
    name.contains('/')
        || ENDS.iter().any(|end| name.ends_with(end))
        || STARTS.iter().any(|start| name.starts_with(start))
}

/// Text and the number at its end, so that node 10 comes behind node 9.
fn natural(name: &str) -> (&str, Option<u64>, &str) {
    let text = name.trim_end_matches(|last: char| last.is_ascii_digit());
    (text, name.get(text.len()..).and_then(|number| number.parse().ok()), name)
}

/// The addresses of `ram`, which is all RAM of a machine of this type.
///
/// # Errors
/// As reading `ram`.
pub(super) fn choose(ram: &dyn ReadAt, machine: Option<&str>, asked: &MemoryLayout) -> Result<Choice> {
    let len = ram.size();
    let choice = |layout: MemoryLayout, runs| Choice { layout, runs, notes: Vec::new(), alternatives: Vec::new() };
    if let Some(runs) = asked.runs(len) {
        return Ok(choice(asked.clone(), runs));
    }
    // The firmware knows of options that move the hole.
    if let Some(choice) = firmware_choice(&ram_ranges(ram)?, len) {
        return Ok(choice);
    }
    match machine.and_then(|machine| of_machine(machine, len)) {
        Some(layout) => {
            let runs = layout.runs(len).unwrap_or_default();
            Ok(choice(layout, runs))
        }
        None => choose_layout(ram),
    }
}

/// The layout of `len` bytes in a machine type that is known.
fn of_machine(name: &str, len: u64) -> Option<MemoryLayout> {
    let is =
        |family: &str| name == family || name.strip_prefix(family).is_some_and(|rest| rest.starts_with(['-', '+']));
    if is("virt") {
        let range = PhysRange::new(PhysAddr::new(GIB), len)?;
        return RunMap::new([Run { range, offset: 0 }]).ok().map(MemoryLayout::Runs);
    }
    if len >= MAY_BE_MOVED {
        return None;
    }
    if is("q35") || is("pc-q35") {
        Some(MemoryLayout::Q35)
    } else if ["pc-i440fx-1.", "pc-1.", "pc-0."].iter().any(|old| name.starts_with(old)) {
        // Before 2.0 the hole began at 3.5 GiB, whatever the size.
        Some(MemoryLayout::Runs(split(len, 0xe000_0000)))
    } else if name == "pc" || name.starts_with("pc+") || is("pc-i440fx") {
        Some(MemoryLayout::I440fx)
    } else if is("microvm") {
        Some(MemoryLayout::Runs(split(len, 3 * GIB)))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]
    use super::*;
    use crate::migration::pages::Pages;

    fn ram_of(names: &[&str]) -> (Vec<String>, usize) {
        let blocks: Vec<RamBlock> =
            names.iter().map(|name| RamBlock { name: (*name).to_owned(), len: 0x1000, pages: Pages::none() }).collect();
        let mut notes = Vec::new();
        let ram = guest_ram(&blocks, &mut notes);
        (ram.into_iter().map(|index| blocks[index].name.clone()).collect(), notes.len())
    }

    #[test]
    fn blocks_of_ram_are_told_by_their_names() {
        let devices = [
            "0000:00:02.0/vga.vram",
            "/rom@etc/acpi/tables",
            "pc.bios",
            "pc.rom",
            "system.flash0",
            "vga.rom",
            "vga.vram",
        ];
        let with = |names: &[&str]| ram_of(&[names, &devices].concat());
        assert_eq!(with(&["pc.ram"]), (vec!["pc.ram".to_owned()], 0));
        assert_eq!(with(&["mach-virt.ram", "dimm1"]), (vec!["mach-virt.ram".to_owned()], 1));
        // QEMU lists the largest first.
        let nodes = ["ram-node10", "ram-node9", "ram-node0"];
        assert_eq!(with(&nodes).0, ["ram-node0", "ram-node9", "ram-node10"]);
        assert_eq!(with(&["/objects/mem"]).0, ["/objects/mem"]);
        assert_eq!(with(&[]), (Vec::new(), 0));
    }

    #[test]
    fn machine_types_put_the_hole_where_qemu_does() {
        let runs = |machine, gib: u64| {
            of_machine(machine, gib * GIB).map(|layout| layout.runs(gib * GIB).unwrap().to_string())
        };
        let split = |low: u64, high: u64| {
            let end = (4 << 30) + high - 1;
            Some(format!("0x0-{:#x}@0x0,0x100000000-{end:#x}@{low:#x}", low - 1))
        };
        for name in ["pc-q35-7.2", "q35", "pc-q35-rhel9.2.0", "pc-q35-10.0+pve1"] {
            assert_eq!(runs(name, 4), split(0x8000_0000, 0x8000_0000), "{name}");
        }
        for name in ["pc", "pc-i440fx-7.2", "pc-i440fx-rhel7.6.0", "pc-i440fx-2.0"] {
            assert_eq!(runs(name, 4), split(0xc000_0000, 0x4000_0000), "{name}");
        }
        assert_eq!(runs("pc-1.2", 4), split(0xe000_0000, 0x2000_0000));
        assert_eq!(runs("microvm", 4), split(0xc000_0000, 0x4000_0000));
        assert_eq!(runs("virt-7.2", 4), Some("0x40000000-0x13fffffff@0x0".to_owned()));
        assert_eq!(runs("pc-q35-7.2", 1000), None);
        assert_eq!(runs("s390-ccw-virtio-7.2", 4), None);
    }
}
