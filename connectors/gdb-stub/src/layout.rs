//! Which physical addresses are memory.
//!
//! Owns: [`Layout`], and reading it from what QEMU's monitor prints, from a memory map, and from arguments.
//! Must not know: how these texts arrive.
//! Keeps: devices are never among the addresses: reading them can change them. What is not written to (ROM) is told apart.
//! Source: QEMU softmmu/memory.c, `mtree_print_flatview`; GDB manual, appendix "GDB Remote Serial Protocol", "Memory Map Format".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    Error, PhysAddr, PhysRange, Result,
    memory::{Run, RunMap},
    units,
};
use quick_xml::{Reader, events::Event};

use crate::description::attribute;

/// Which physical addresses are memory. The offset of each run is its first address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    /// What can be read.
    pub readable: RunMap,
    /// What takes writes.
    pub writable: RunMap,
}

fn run(range: PhysRange) -> Run {
    Run { range, offset: range.start().as_u64() }
}

impl Layout {
    /// A layout of these ranges, each with whether it takes writes.
    fn new(ranges: &[(PhysRange, bool)]) -> Result<Self> {
        let readable = RunMap::new(ranges.iter().map(|(range, _)| run(*range)))?;
        let writable = RunMap::new(ranges.iter().filter(|(_, writable)| *writable).map(|(range, _)| run(*range)))?;
        Ok(Self { readable, writable })
    }

    /// The memory from address zero on.
    pub(crate) fn flat(len: u64) -> Self {
        Self { readable: RunMap::flat(len), writable: RunMap::flat(len) }
    }

    /// Reads a list given by hand, `FIRST-LAST,…`.
    ///
    /// # Errors
    /// It is none, or the ranges overlap.
    pub(crate) fn given(text: &str) -> Result<Self> {
        let wrong = || Error::Argument {
            what: "map".into(),
            expected: "FIRST-LAST,… such as 0-0x9ffff,0x100000-0x7fffffff".into(),
            found: text.to_owned(),
        };
        let number = |text: &str| units::number(text.trim()).ok().map(PhysAddr::new);
        let ranges = text.split(',').map(|part| {
            let (first, last) = part.split_once('-')?;
            Some((PhysRange::inclusive(number(first)?, number(last)?)?, true))
        });
        Self::new(&ranges.collect::<Option<Vec<_>>>().ok_or_else(wrong)?)
    }

    /// Reads what QEMU's monitor prints for `info mtree -f`: the view of the address space "memory".
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_mtree(text: &str) -> std::result::Result<Self, String> {
        let mut ranges = Vec::new();
        let (mut ours, mut found) = (false, false);
        for line in text.lines() {
            if line.starts_with("FlatView") {
                if found {
                    break;
                }
                ours = false;
            } else if line.trim_start().starts_with("AS \"memory\",") {
                (ours, found) = (true, true);
            } else if ours
                && line.trim_start().starts_with(|first: char| first.is_ascii_hexdigit())
                && line.contains(" (prio ")
            {
                let (range, kind) =
                    mtree_line(line.trim()).ok_or_else(|| format!("a line that is none: {}", line.escape_debug()))?;
                match kind {
                    "ram" | "nv-ram" => ranges.push((range, true)),
                    "rom" | "nv-rom" => ranges.push((range, false)),
                    // Devices, also those that are memory behind a bus, and flash, which takes commands.
                    _ => {}
                }
            }
        }
        let layout = Self::new(&ranges).map_err(|error| error.to_string())?;
        if layout.readable.is_empty() { Err("no memory in it".to_owned()) } else { Ok(layout) }
    }

    /// Reads a memory map.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_memory_map(text: &[u8]) -> std::result::Result<Self, String> {
        let mut reader = Reader::from_reader(text);
        let mut ranges = Vec::new();
        loop {
            let event = reader.read_event().map_err(|error| format!("at byte {}: {error}", reader.error_position()))?;
            let tag = match event {
                Event::Eof => break,
                Event::Start(tag) | Event::Empty(tag) if tag.name().as_ref() == b"memory" => tag,
                _ => continue,
            };
            let number = |name| -> std::result::Result<u64, String> {
                let text = attribute(&tag, name)?.ok_or_else(|| format!("a range without {name}"))?;
                units::number(&text).map_err(|_| format!("a {name} that is no number: {}", text.escape_debug()))
            };
            let (start, len) = (number("start")?, number("length")?);
            let range = PhysRange::new(PhysAddr::new(start), len).ok_or("a range that leaves the address space")?;
            // Flash takes commands instead of bytes.
            ranges.push((range, attribute(&tag, "type")?.as_deref() == Some("ram")));
        }
        let layout = Self::new(&ranges).map_err(|error| error.to_string())?;
        if layout.readable.is_empty() { Err("no memory in it".to_owned()) } else { Ok(layout) }
    }
}

/// `FIRST-LAST (prio N, KIND): NAME …`
fn mtree_line(line: &str) -> Option<(PhysRange, &str)> {
    let (range, rest) = line.split_once(" (prio ")?;
    let (_, rest) = rest.split_once(", ")?;
    let (kind, _) = rest.split_once("): ")?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| crate::hex::number(text.as_bytes()).map(PhysAddr::new);
    Some((PhysRange::inclusive(number(first)?, number(last)?)?, kind))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MTREE: &str = "FlatView #0\r\n AS \"I/O\", root: io\r\n Root memory region: io\r\n  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan\r\n\r\n\
        FlatView #1\r\n AS \"cpu-memory-0\", root: system\r\n AS \"memory\", root: system\r\n Root memory region: system\r\n\
        \x20 0000000000000000-000000000009ffff (prio 0, ram): ram\r\n\
        \x20 00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\r\n\
        \x20 00000000000c0000-00000000000c3fff (prio 1, rom): ram @00000000000c0000\r\n\
        \x20 0000000000100000-0000000007ffffff (prio 0, ram): ram @0000000000100000 KVM\r\n\
        \x20 00000000e0000000-00000000e0ffffff (prio 0, ramd): bar\r\n\
        \x20 00000000fffc0000-00000000ffffffff (prio 0, romd): flash\r\n\r\n\
        FlatView #2\r\n AS \"smm\", root: memory\r\n  0000000000000000-00000000ffffffff (prio 0, ram): other\r\n";

    #[test]
    fn memory_of_the_system_view_and_nothing_else() {
        let layout = Layout::from_mtree(MTREE).unwrap();
        assert_eq!(layout.readable.to_string(), "0x0-0x9ffff@0x0,0xc0000-0xc3fff@0xc0000,0x100000-0x7ffffff@0x100000");
        assert_eq!(layout.writable.to_string(), "0x0-0x9ffff@0x0,0x100000-0x7ffffff@0x100000");
    }

    #[test]
    fn other_texts_are_told() {
        for text in [
            "",
            "unknown command: 'info mtree -f'",
            "FlatView #0\n AS \"memory\", root: system\n  No rendered FlatView\n",
        ] {
            assert_eq!(Layout::from_mtree(text).unwrap_err(), "no memory in it");
        }
        for line in ["0-g (prio 0, ram): ram", "5-4 (prio 0, ram): ram", "0-10000000000000000 (prio 0, ram): ram"] {
            let text = format!("FlatView #0\n AS \"memory\", root: system\n  {line}\n");
            assert!(Layout::from_mtree(&text).unwrap_err().contains("none"), "{line}");
        }
        let twice = "FlatView #0\n AS \"memory\", root: system\n  0-f (prio 0, ram): a\n  8-1f (prio 0, ram): b\n";
        assert!(Layout::from_mtree(twice).unwrap_err().contains("overlap"));
    }

    #[test]
    fn memory_maps_tell_ram_from_flash() {
        let map = b"<?xml version='1.0'?><memory-map><memory type='ram' start='0x20000000' length='0x1000'/>\
            <memory type='flash' start='0' length='4096'><property name='blocksize'>512</property></memory></memory-map>";
        let layout = Layout::from_memory_map(map).unwrap();
        assert_eq!(layout.readable.total_bytes(), 0x2000);
        assert_eq!(layout.writable.to_string(), "0x20000000-0x20000fff@0x20000000");
        for text in [
            "<memory-map/>",
            "<memory start='0'/>",
            "<memory start='0' length='x'/>",
            "<memory start='0xffffffffffffffff' length='2'/>",
            "<memory",
        ] {
            assert!(Layout::from_memory_map(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn given_lists_are_read_and_others_refused() {
        assert_eq!(Layout::given("0-0xfff, 0x2000-0x2fff").unwrap().readable.total_bytes(), 0x2000);
        for text in ["", "0", "1-0", "0-1@0", "0-0xf,8-0x1f"] {
            assert!(Layout::given(text).is_err(), "{text}");
        }
    }
}
