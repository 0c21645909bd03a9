//! Which addresses may be asked for.
//!
//! Owns: the text of a map, what LeechCore's own map means, and the checks of both.
//! Must not know: how a device reads.
//! Keeps: what is guessed is no map: LeechCore takes all addresses below the last one for memory when a device does not tell, and so
//! does not keep away from devices in between.
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

use crate::raw::{GRAIN, MapEntry};

/// What LeechCore is told is the last address when it is to search for nothing. Devices that know where their memory lies
/// replace it; the others take everything below it for memory.
pub(crate) const NO_SEARCH: u64 = 0x1000;

/// Reads a map: `FIRST-LAST` or `FIRST-LAST@DEVICE`, both addresses included, separated by commas or line ends. `DEVICE` is the
/// address that the device has for `FIRST`; without it they are the same. What follows `#` in a line is a comment.
///
/// # Errors
/// [`Error::Argument`] for anything else, for an empty map, and for ranges that do not begin and end at multiples of 8 bytes;
/// [`Error::Overlap`] for ranges that overlap.
///
/// ```
/// let map = memflow_pcileech::parse_map("0x1000-0x9ffff, 0x100000-0x7fffffff\n# above the hole\n0x100000000-0x47fffffff")?;
/// assert_eq!(map.runs().len(), 3);
/// # Ok::<(), memflow_core::Error>(())
/// ```
pub fn parse_map(text: &str) -> Result<RunMap> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let parts = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|part| !part.is_empty());
    let map = RunMap::new(parts.map(range).collect::<Result<Vec<_>>>()?)?;
    if map.is_empty() {
        return Err(wrong(text, "at least one range FIRST-LAST"));
    }
    Ok(map)
}

fn wrong(text: &str, expected: &'static str) -> Error {
    let found: String = text.chars().take(80).collect();
    Error::Argument { what: "memory map".into(), expected: expected.into(), found }
}

fn range(text: &str) -> Result<Run> {
    const FORM: &str = "ranges FIRST-LAST or FIRST-LAST@DEVICE, such as 0x100000-0x7fffffff";
    let (range, device) = match text.split_once('@') {
        Some((range, device)) => (range, Some(device)),
        None => (text, None),
    };
    let (first, last) = range.split_once('-').ok_or_else(|| wrong(text, FORM))?;
    let number = |number: &str| units::number(number.trim()).map_err(|_| wrong(text, FORM));
    let (first, last) = (number(first)?, number(last)?);
    let device = device.map_or(Ok(first), number)?;
    let range = PhysRange::inclusive(PhysAddr::new(first), PhysAddr::new(last));
    let range = range.ok_or_else(|| wrong(text, "a last address that is not below the first"))?;
    run(range, device).ok_or_else(|| wrong(text, "ranges that begin and end at multiples of 8 bytes"))
}

/// A range as a run, if whole entries of a read fit into it.
fn run(range: PhysRange, device: u64) -> Option<Run> {
    let whole = |number: u64| number.is_multiple_of(GRAIN);
    let device_end = device.checked_add(range.len())?;
    (whole(range.start().as_u64()) && whole(range.len()) && whole(device) && whole(device_end))
        .then_some(Run { range, offset: device })
}

/// What a map of LeechCore's says: where memory lies, or `None` when that is not known. Addresses are those that LeechCore takes; it
/// translates them itself.
///
/// # Errors
/// A range leaves the address space, does not begin and end at multiples of 8 bytes, or overlaps another.
pub(crate) fn of_device(entries: &[MapEntry], name: &str) -> Result<Option<RunMap>> {
    if matches!(entries, [] | [MapEntry { address: 0, len: NO_SEARCH, .. }]) {
        return Ok(None);
    }
    everything(entries, name).map(Some)
}

/// As [`of_device`], with what is guessed.
///
/// # Errors
/// As [`of_device`].
pub(crate) fn everything(entries: &[MapEntry], name: &str) -> Result<RunMap> {
    let runs = entries.iter().filter(|entry| entry.len > 0).map(|entry| {
        let range = PhysRange::new(PhysAddr::new(entry.address), entry.len);
        range.and_then(|range| run(range, entry.address)).ok_or_else(|| Error::Unsupported {
            what: format!("{:#x} bytes at {:#x} in the memory map of LeechCore device {name}", entry.len, entry.address),
            why: "ranges within the address space that begin and end at multiples of 8 bytes were expected; give a map with map="
                .to_owned(),
        })
    });
    RunMap::new(runs.collect::<Result<Vec<_>>>()?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn entry(address: u64, len: u64) -> MapEntry {
        MapEntry { address, len, device_address: 0 }
    }

    #[test]
    fn ranges_are_separated_by_commas_and_lines() {
        let map =
            parse_map("0x1000-0x9ffff,\n 0x100000 - 0x1fffff@0x80000000 # moved\n\n4294967296-4294971391").unwrap();
        assert_eq!(
            map.to_string(),
            "0x1000-0x9ffff@0x1000,0x100000-0x1fffff@0x80000000,0x100000000-0x100000fff@0x100000000"
        );
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in ["", " \n# nothing\n", "x", "0x1000", "0x1000-", "0x2000-0x1fff", "0x1000-0x1fff@", "-1-5"] {
            assert!(matches!(parse_map(text), Err(Error::Argument { .. })), "{text}");
        }
        for text in ["0x1001-0x1fff", "0x1000-0x1ffe", "0x1000-0x1fff@0x4", "0x1000-0x1fff@0xfffffffffffffff8"] {
            let error = parse_map(text).unwrap_err().to_string();
            assert!(error.contains("multiples of 8 bytes"), "{text}: {error}");
        }
        assert!(matches!(parse_map("0x1000-0x2fff,0x2000-0x3fff"), Err(Error::Overlap { .. })));
    }

    #[test]
    fn guess_of_leechcore_is_no_map() {
        assert_eq!(of_device(&[], "x").unwrap(), None);
        assert_eq!(of_device(&[entry(0, NO_SEARCH)], "x").unwrap(), None);
        assert!(of_device(&[entry(0, 0x2000)], "x").unwrap().is_some());
    }

    #[test]
    fn maps_that_cannot_be_are_refused() {
        assert!(everything(&[entry(u64::MAX - 7, 0x1000)], "x").is_err());
        assert!(everything(&[entry(0x1001, 0x1000)], "x").is_err());
        assert!(everything(&[entry(0x1000, 0x2000), entry(0x2000, 0x1000)], "x").is_err());
        assert_eq!(everything(&[entry(0x1000, 0), entry(0x2000, 8)], "x").unwrap().total_bytes(), 8);
    }
}
