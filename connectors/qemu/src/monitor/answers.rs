//! What commands of QEMU's monitor print, parsed.
//!
//! Owns: `info mtree -f`, `gpa2hva`, `info ramblock`, `info memdev`, `info status`. Must not know: who asked.
//! Keeps: a line that looks like an entry and is none is an error, not skipped; nothing is guessed.
//! Source: QEMU softmmu/memory.c (`mtree_print_flatview`), monitor/misc.c (`hmp_gpa2hva`), softmmu/physmem.c (`ram_block_format`),
//! hw/core/machine-hmp-cmds.c; releases 5.2 to 10.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{PhysAddr, PhysRange, Result, memory::RunState};

use super::stream::garbage;
use crate::layout::RunKind;

/// Ranges of memory that one guest may have: 128 nodes, 256 memory devices, and what firmware cuts out of the first MiB.
const MAX_RANGES: usize = 4096;

/// Consecutive guest memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlatRange {
    /// The physical addresses.
    pub range: PhysRange,
    /// What it is.
    pub kind: RunKind,
    /// Name of the memory region it belongs to.
    pub region: String,
    /// Offset of the first byte in that region.
    pub offset: u64,
}

/// Reads `info mtree -f`: the memory in the view of the system's address space.
///
/// # Errors
/// There is no such view, no memory in it, or a line of it is not one.
pub fn parse_flat_view(text: &str) -> Result<Vec<FlatRange>> {
    let mut lines = text.lines().skip_while(|line| line.trim() != "Root memory region: system").skip(1);
    let mut ranges = Vec::new();
    for line in lines.by_ref().take_while(|line| !line.trim().is_empty()) {
        let entry = parse_entry(line).ok_or_else(|| garbage("START-END (prio N, KIND): NAME", line))?;
        let kind = match entry.kind.strip_prefix("nv-").unwrap_or(entry.kind) {
            "ram" => RunKind::Ram,
            "rom" | "romd" => RunKind::Rom,
            // Registers of devices (i/o), and memory of real devices (ramd), which changes when it is looked at.
            _ => continue,
        };
        if ranges.len() >= MAX_RANGES {
            return Err(garbage("at most 4096 ranges of memory", line));
        }
        ranges.push(FlatRange { range: entry.range, kind, region: entry.name.to_owned(), offset: entry.offset });
    }
    if ranges.is_empty() {
        return Err(garbage("a flat view of the system's memory", text));
    }
    Ok(ranges)
}

struct Entry<'a> {
    range: PhysRange,
    kind: &'a str,
    name: &'a str,
    offset: u64,
}

/// `START-END (prio N, KIND): NAME[ @OFFSET][ ACCELERATOR]`
fn parse_entry(line: &str) -> Option<Entry<'_>> {
    let (range, rest) = line.trim().split_once(" (prio ")?;
    let (first, last) = range.split_once('-')?;
    let range = PhysRange::inclusive(PhysAddr::new(hex(first)?), PhysAddr::new(hex(last)?))?;
    let (head, name) = rest.split_once("): ")?;
    let (_, kind) = head.split_once(", ")?;
    let offset = name.rsplit_once(" @").and_then(|(name, tail)| {
        let digits = tail.split(' ').next()?;
        Some((name, hex(digits).filter(|_| digits.len() == 16)?))
    });
    let (name, offset) = offset.unwrap_or_else(|| {
        let bare = [" KVM", " kvm", " MSHV"].iter().find_map(|accelerator| name.strip_suffix(accelerator));
        (bare.unwrap_or(name), 0)
    });
    Some(Entry { range, kind, name, offset })
}

/// Reads the answer to `gpa2hva ADDRESS`: the name of the memory region, and where it lies in QEMU.
///
/// # Errors
/// It says that there is no memory, or is no such answer.
pub fn parse_host_address(text: &str) -> Result<(String, u64)> {
    let parse = || {
        let rest = text.trim().strip_prefix("Host virtual address for 0x")?;
        let (_, rest) = rest.split_once(" (")?;
        let (name, address) = rest.rsplit_once(") is 0x")?;
        Some((name.to_owned(), hex(address)?))
    };
    parse().ok_or_else(|| garbage("a host virtual address", text))
}

/// Reads `info ramblock`: name and host address of each block. Releases before 8 do not print addresses.
///
/// # Errors
/// There is no column of addresses, or a line lacks one.
pub fn parse_blocks(text: &str) -> Result<Vec<(String, u64)>> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let head = lines.next().unwrap_or_default();
    if !head.contains("Block Name") || !head.contains("HVA") {
        return Err(garbage("a table with the columns Block Name and HVA", head));
    }
    // NAME SIZE UNIT OFFSET USED TOTAL HVA RIGHTS; a name may hold spaces, the other columns do not, and are counted from the right.
    let block = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let address = words.iter().rposition(|word| word.starts_with("0x"))?;
        let end = address.checked_sub(5)?;
        let name = words.get(..end)?.join(" ");
        Some((name, hex(words.get(address)?)?)).filter(|(name, _)| !name.is_empty())
    };
    lines
        .take(MAX_RANGES)
        .map(|line| block(line).ok_or_else(|| garbage("a block of memory with its host address", line)))
        .collect()
}

/// Reads `info memdev`: the ids of the memory backends.
pub(crate) fn parse_backends(text: &str) -> Vec<String> {
    let ids = text.lines().filter_map(|line| line.trim().strip_prefix("memory backend: "));
    ids.take(MAX_RANGES).map(|id| id.trim().to_owned()).collect()
}

/// Reads `info status`.
pub(crate) fn parse_running(text: &str) -> Result<RunState> {
    let status = text.lines().find_map(|line| line.trim().strip_prefix("VM status: "));
    match status.map(|status| status.split_ascii_whitespace().next().unwrap_or_default()) {
        Some("running") => Ok(RunState::Running),
        Some("paused" | "stopped") => Ok(RunState::Paused),
        _ => Err(garbage("VM status: running or paused", text)),
    }
}

fn hex(text: &str) -> Option<u64> {
    let text = text.trim();
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const VIEW: &str = "FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n  0000000000000000-0000000000000007 (prio 0, i/o): dma\n\n\
        FlatView #1\n AS \"memory\", root: system\n Root memory region: system\n\
        \x20 0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM\n\
        \x20 00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\n\
        \x20 00000000000c0000-00000000000cafff (prio 0, rom): pc.ram @00000000000c0000 KVM\n\
        \x20 0000000000100000-00000000bfffffff (prio 0, nv-ram): ram node 0 @0000000000100000\n\
        \x20 00000000c0000000-00000000c0ffffff (prio 0, ramd): 0000:00:02.0 BAR 0 mmaps[0]\n\
        \x20 00000000fffc0000-00000000ffffffff (prio 0, romd): system.flash0\n\n\
        FlatView #2\n Root memory region: memory\n  0000000000000000-000000000009ffff (prio 0, ram): smram\n";

    #[test]
    fn memory_of_the_system_is_found_whatever_its_name() {
        let ranges = parse_flat_view(VIEW).unwrap();
        let names: Vec<_> = ranges.iter().map(|range| (range.region.as_str(), range.offset, range.kind)).collect();
        assert_eq!(
            names,
            [
                ("pc.ram", 0, RunKind::Ram),
                ("pc.ram", 0xc_0000, RunKind::Rom),
                ("ram node 0", 0x10_0000, RunKind::Ram),
                ("system.flash0", 0, RunKind::Rom),
            ]
        );
        assert_eq!(ranges[2].range.to_string(), "0x100000-0xbfffffff");
    }

    #[test]
    fn view_without_memory_is_an_error_and_not_an_empty_machine() {
        assert!(parse_flat_view("").is_err());
        assert!(parse_flat_view("Root memory region: system\n\n").is_err());
        assert!(parse_flat_view("Root memory region: system\n  nonsense\n").is_err());
        assert!(parse_flat_view("unknown command: 'info mtree'").is_err());
    }

    #[test]
    fn host_address_has_the_name_of_its_region() {
        let answer = "Host virtual address for 0x100000 (pc.ram) is 0x7f1343f00000\r\n";
        assert_eq!(parse_host_address(answer).unwrap(), ("pc.ram".to_owned(), 0x7f13_43f0_0000));
        assert!(parse_host_address("Memory at address 0xa0000 is not RAM").is_err());
        assert!(parse_host_address("No memory is mapped at address 0x7000000000").is_err());
    }

    #[test]
    fn blocks_with_and_without_addresses() {
        let text = "              Block Name    PSize              Offset               Used              Total                HVA  RO\n\
            \x20                 pc.ram    4 KiB  0x0000000000000000 0x0000000080000000 0x0000000080000000 0x00007f1c00000000  rw\n\
            \x20  /rom@etc/acpi/tables    4 KiB  0x0000000110080000 0x0000000000020000 0x0000000000200000 0x00007f1bfe000000  ro\n";
        let blocks = parse_blocks(text).unwrap();
        assert_eq!(
            blocks,
            [("pc.ram".to_owned(), 0x7f1c_0000_0000), ("/rom@etc/acpi/tables".to_owned(), 0x7f1b_fe00_0000)]
        );
        assert!(parse_blocks("  Block Name    PSize   Offset   Used   Total\n pc.ram 4 KiB 0x0 0x8 0x8\n").is_err());
        assert!(parse_blocks("Block Name HVA\n pc.ram 4\n").is_err());
    }

    #[test]
    fn states_are_told_apart() {
        assert_eq!(parse_running("VM status: running\r\n").unwrap(), RunState::Running);
        assert_eq!(parse_running("VM status: paused (prelaunch)\n").unwrap(), RunState::Paused);
        assert!(parse_running("VM status: \n").is_err());
        assert_eq!(parse_backends("memory backend: m1\n  size:  2147483648\n\nmemory backend: m0\n"), ["m1", "m0"]);
    }
}
