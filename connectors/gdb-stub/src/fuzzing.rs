//! Entries for the fuzz targets: foreign bytes in, and whether they meant something.
//!
//! Owns: nothing but the way in. Must not know: how inputs are made.

use crate::{
    description::Description,
    layout::Layout,
    packet::{Decoder, Frame, encode, unescape},
};

/// Bytes of a stub, with packets of at most `limit` bytes; the packets that were whole, as they are after unescaping.
pub fn packets(bytes: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new(limit);
    let mut packets = Vec::new();
    let mut rest = bytes;
    while let Ok((taken, Some(frame))) = decoder.take(rest) {
        rest = rest.get(taken..).unwrap_or_default();
        if let Frame::Packet(payload) = frame {
            packets.extend(unescape(&payload));
        }
    }
    packets
}

/// A payload as it goes over the wire.
pub fn packet(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(payload, &mut out);
    out
}

/// A description whose documents are separated by NUL bytes; each includes the others by their number (`1`, `2`, …). The number of
/// its registers.
pub fn description(bytes: &[u8]) -> Option<usize> {
    let documents: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let read = Description::read(|name| {
        let index = if name == "target.xml" { Some(0) } else { name.parse::<usize>().ok() };
        Ok(index.and_then(|index| documents.get(index)).map(|document| document.to_vec()))
    });
    read.ok()?.ok().map(|description| description.registers.len())
}

/// A memory map, and what QEMU's monitor prints; bytes of memory in each that can be read and written.
pub fn layouts(bytes: &[u8]) -> Vec<(u64, u64)> {
    let map = Layout::from_memory_map(bytes).ok();
    let mtree = Layout::from_mtree(&String::from_utf8_lossy(bytes)).ok();
    let sizes = |layout: Layout| (layout.readable.total_bytes(), layout.writable.total_bytes());
    map.into_iter().chain(mtree).map(sizes).collect()
}
