//! Targets for what a GDB stub sends.
//!
//! Owns: what must be true of anything that was taken from one. Must not know: the protocol.

use memflow_gdb::fuzzing;

/// Longest packet that the decoder is to take.
const LIMIT: usize = 4096;

/// Packets, with run lengths, escapes and checksums.
pub fn gdb_packet(data: &[u8]) {
    for payload in fuzzing::packets(data, LIMIT) {
        assert!(payload.len() <= LIMIT);
    }
    // Whatever is sent arrives as it was, also behind garbage that ended.
    let payload = data.get(..LIMIT / 2).unwrap_or(data);
    let sent = fuzzing::packet(payload);
    assert_eq!(fuzzing::packets(&sent, LIMIT), [payload]);
    assert_eq!(
        fuzzing::packets(&[b"+$half", sent.as_slice()].concat(), LIMIT).last().map(Vec::as_slice),
        Some(payload)
    );
}

/// Descriptions of targets: XML documents with NUL between them, that may include each other by number.
pub fn gdb_description(data: &[u8]) {
    if let Some(registers) = fuzzing::description(data) {
        // `<reg name="" bitsize="1"/>` is the shortest there is.
        assert!(registers <= data.len() / 20, "{registers} registers in {} bytes", data.len());
    }
}

/// Lists of memory: memory maps, and the monitor's.
pub fn gdb_layout(data: &[u8]) {
    for (readable, writable) in fuzzing::layouts(data) {
        assert!(readable > 0 && writable <= readable);
    }
}
