//! Hives of the registry that are loaded.
//!
//! Owns: the list of hives, how it is found, and what they are called. Must not know: keys and values.
//! Keeps: a hive counts by its signature, at the same distance from the link in all of them; names are text that looks like theirs.
//! Source: `_CMHIVE`, `_HHIVE` and `CmpHiveListHead` in the kernel's symbols. Their members move from build to build: they are found by
//! what they hold.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryViewExt, VirtAddr,
    error::{Error, Result},
    os::Listing,
};

use crate::{
    bytes::{Bytes, number},
    kernel::Kernel,
    list,
    os::Win32Os,
    reader::Reader,
};

/// What a hive begins with (`HHIVE_SIGNATURE`).
const SIGNATURE: u32 = 0xbee0_bee0;
/// More hives than any system loads.
const MAX_HIVES: u64 = 1 << 14;
/// Farthest that the link lies behind the start of a hive, and names behind the link.
const REACH: u64 = 0x1000;
/// Room behind a name.
const MAX_ROOM: u16 = 0x400;

/// A hive.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Hive {
    /// Where it lies (`_CMHIVE`).
    pub address: VirtAddr,
    /// Where it is in the registry (`\REGISTRY\MACHINE\SYSTEM`), if it says so.
    pub root: Option<String>,
    /// Its file, as the kernel knows it; hives that are only in memory have none.
    pub file: Option<String>,
}

impl Win32Os {
    /// The hives of the registry that are loaded, in the order of their list.
    ///
    /// # Errors
    /// When the list cannot be found; later problems are in the listing.
    pub fn hives(&self) -> Result<Listing<Hive>> {
        let kernel = self.found();
        let reader = Reader::new(&kernel.view);
        let (head, distance) = head(kernel, &reader)
            .ok_or_else(|| Error::NotFound { what: "list", name: "CmpHiveListHead".to_owned() })?;
        let nodes = list::nodes(reader, "list of hives", head, MAX_HIVES);
        let mut listing = Listing { items: Vec::new(), problems: nodes.problems };
        for node in nodes.items {
            match hive(&reader, node, distance) {
                Ok(hive) => listing.items.push(hive),
                Err(error) => listing.problems.push(error.context(format!("hive at {}", node.wrapping_sub(distance)))),
            }
        }
        Ok(listing)
    }
}

fn hive(reader: &Reader<'_>, node: VirtAddr, distance: u64) -> Result<Hive> {
    let address = node.wrapping_sub(distance);
    let signature: u32 = reader.value(address, 0)?;
    if signature != SIGNATURE {
        return Err(Error::Corrupt {
            what: "hive",
            address: address.into(),
            expected: format!("its signature, {SIGNATURE:#x}").into(),
            found: format!("{signature:#x}").into(),
        });
    }
    // The end may lie in a page that is missing, or belong to somebody else.
    let mut bytes = vec![0; usize::try_from(REACH).unwrap_or_default()];
    let _ = reader.view().read_partial(node, &mut bytes)?;
    let (mut root, mut file) = (None, None);
    let size = reader.pointer_size();
    let mut at = size.saturating_mul(2);
    while at < REACH {
        if let Some(text) = text(reader, &bytes, at) {
            // Both are paths from the root of the system's names.
            match text.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("\\registry\\")) {
                true => root = root.or(Some(text)),
                false => file = file.or(Some(text)),
            }
        }
        at = at.saturating_add(size);
    }
    Ok(Hive { address, root, file })
}

/// The path that a `UNICODE_STRING` in a hive names.
fn text(reader: &Reader<'_>, bytes: &[u8], at: u64) -> Option<String> {
    let bytes = Bytes(bytes);
    let (len, room) = (bytes.u16(at)?, bytes.u16(at.checked_add(2)?)?);
    let buffer = bytes.pointer(at.checked_add(reader.pointer_size())?, u8::try_from(reader.pointer_size()).ok()?)?;
    let buffer = VirtAddr::new(buffer);
    if len < 4 || len % 2 != 0 || len > room || room.checked_sub(len)? > MAX_ROOM || !reader.is_kernel(buffer) {
        return None;
    }
    let text = reader.utf16(buffer, len.into()).ok()?;
    let is_path = text.starts_with('\\') && text.chars().all(|letter| !letter.is_control() && letter != '\u{fffd}');
    is_path.then_some(text)
}

/// The list's head, and how far behind the start of a hive its link lies.
fn head(kernel: &Kernel, reader: &Reader<'_>) -> Option<(VirtAddr, u64)> {
    let named = kernel.symbol("CmpHiveListHead").and_then(|head| Some((head, distance(reader, head)?)));
    named.or_else(|| search(kernel, reader))
}

/// How far behind the start of a hive the link lies to which a head leads, if it does.
fn distance(reader: &Reader<'_>, head: VirtAddr) -> Option<u64> {
    let (next, previous) = reader.links(head).ok()?;
    if next == head || !reader.is_kernel(next) || !reader.is_kernel(previous) {
        return None;
    }
    let leads_back = reader.links(next).is_ok_and(|(_, back)| back == head)
        && reader.links(previous).is_ok_and(|(onwards, _)| onwards == head);
    if !leads_back {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(REACH).ok()?];
    let start = next.checked_sub(REACH)?;
    // What is missing is no signature.
    let _ = reader.view().read_partial(start, &mut bytes).ok()?;
    let size = reader.pointer_size();
    let mut back = size;
    while back <= REACH {
        let at = REACH.checked_sub(back)?;
        let other = || reader.value::<u32>(previous.wrapping_sub(back), 0).is_ok_and(|found| found == SIGNATURE);
        if Bytes(&bytes).u32(at)? == SIGNATURE && other() {
            return Some(back);
        }
        back = back.checked_add(size)?;
    }
    None
}

/// Looks for the head in the kernel's data.
fn search(kernel: &Kernel, reader: &Reader<'_>) -> Option<(VirtAddr, u64)> {
    let image = kernel.image.as_ref()?;
    let size = reader.pointer_size();
    let width = u8::try_from(size).ok()?;
    image.sections.iter().filter(|section| section.is_writable()).find_map(|section| {
        let bytes = image.readable(reader.view(), section);
        let start = image.at(section.offset);
        let places = (0..number(bytes.len())).step_by(usize::try_from(size).ok()?);
        let mut heads = places.filter_map(|at| {
            let word = |at: u64| Bytes(&bytes).pointer(at, width).map(VirtAddr::new);
            let (next, previous) = (word(at)?, word(at.checked_add(size)?)?);
            // Hives lie in no image.
            let outside = |link: VirtAddr| reader.is_kernel(link) && !image.contains(link);
            (outside(next) && outside(previous)).then(|| start.wrapping_add(at))
        });
        heads.find_map(|head| Some((head, distance(reader, head)?)))
    })
}
