//! Compresses in the ways of different tools: one stream, many pieces, with a table or without.

use std::io::Write;

/// Members of `cut` bytes that say how long they are, as `bgzip` writes them, with its empty last one.
pub fn bgzf(bytes: &[u8], cut: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in bytes.chunks(cut).chain([&[][..]]) {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(part).unwrap();
        let data = encoder.finish().unwrap();
        out.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0]);
        out.extend((data.len() as u16 + 25).to_le_bytes());
        out.extend(data);
        let mut crc = flate2::Crc::new();
        crc.update(part);
        out.extend(crc.sum().to_le_bytes());
        out.extend((part.len() as u32).to_le_bytes());
    }
    out
}

/// One member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One frame that says how long it is, with a checksum.
fn zstd_frame(bytes: &[u8]) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true)).unwrap();
    compressor.compress(bytes).unwrap()
}

/// Frames of `cut` bytes that say how long they are.
pub fn zstd_frames(bytes: &[u8], cut: usize) -> Vec<u8> {
    bytes.chunks(cut).flat_map(zstd_frame).collect()
}

/// Frames of `cut` bytes and a table of them; with `silent` ones the frames do not say how long they are.
pub fn zstd_seekable(bytes: &[u8], cut: usize, silent: bool) -> Vec<u8> {
    let (mut out, mut table) = (Vec::new(), Vec::new());
    let mut frames = 0u32;
    for part in bytes.chunks(cut) {
        let frame = if silent { zstd::encode_all(part, 3).unwrap() } else { zstd_frame(part) };
        table.extend([(frame.len() as u32).to_le_bytes(), (part.len() as u32).to_le_bytes(), [0; 4]].concat());
        out.extend(frame);
        frames += 1;
    }
    out.extend(0x184d_2a5eu32.to_le_bytes());
    out.extend((table.len() as u32 + 9).to_le_bytes());
    out.extend(table);
    out.extend(frames.to_le_bytes());
    out.push(0x80);
    out.extend(0x8f92_eab1u32.to_le_bytes());
    out
}

/// A frame with every checksum, in blocks of 64 KiB.
pub fn lz4(bytes: &[u8], linked: bool) -> Vec<u8> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(if linked { BlockMode::Linked } else { BlockMode::Independent })
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(bytes.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The older frame, with a block for each part.
pub fn lz4_legacy(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = 0x184c_2102u32.to_le_bytes().to_vec();
    for part in parts {
        let block = lz4_flex::block::compress(part);
        out.extend((block.len() as u32).to_le_bytes());
        out.extend(block);
    }
    out
}

/// A stream in blocks of `cut` bytes, or in one.
pub fn xz(bytes: &[u8], cut: Option<usize>) -> Vec<u8> {
    use liblzma::stream::{Action, Check, Status, Stream};
    let mut stream = Stream::new_easy_encoder(1, Check::Crc64).unwrap();
    let mut out = Vec::new();
    let mut feed = |input: &[u8], action: Action| {
        let before = stream.total_in();
        loop {
            out.reserve(4096);
            let fed = (stream.total_in() - before) as usize;
            let status = stream.process_vec(&input[fed..], &mut out, action).unwrap();
            let fed = (stream.total_in() - before) as usize;
            match action {
                Action::Run if fed == input.len() => break,
                Action::Run => {}
                _ if status == Status::StreamEnd => break,
                _ => {}
            }
        }
    };
    for part in bytes.chunks(cut.unwrap_or(usize::MAX)) {
        feed(part, if cut.is_some() { Action::FullFlush } else { Action::Run });
    }
    feed(&[], Action::Finish);
    out
}
