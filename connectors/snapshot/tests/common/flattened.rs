//! Flattened dumps by the layout that makedumpfile documents, without any code of the crate.

/// The header, without any piece.
pub fn header() -> Vec<u8> {
    let mut flat = b"makedumpfile\0\0\0\0".to_vec();
    flat.extend([1u64.to_be_bytes(), 1u64.to_be_bytes()].concat());
    flat.resize(4096, 0);
    flat
}

/// A piece: where it belongs, and its bytes.
pub fn piece(at: u64, bytes: &[u8]) -> Vec<u8> {
    [&at.to_be_bytes()[..], &(bytes.len() as u64).to_be_bytes(), bytes].concat()
}

/// The mark behind the last piece.
pub const END: [u8; 16] = [0xff; 16];

/// A file in pieces of `len` bytes, the last one first.
pub fn flatten(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut flat = header();
    for (index, bytes) in bytes.chunks(len).enumerate().collect::<Vec<_>>().into_iter().rev() {
        flat.extend(piece((index * len) as u64, bytes));
    }
    flat.extend(END);
    flat
}
