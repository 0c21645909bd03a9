//! What is compressed: page by page, or as a whole.

use std::iter::once;

use super::{Subject, formats::core};
use crate::common::{
    crash_dump::PAGE,
    flattened::flatten,
    gzip_stored,
    kdump::{Kdump, Method},
    lime,
    packed::{bgzf, gzip, lz4, lz4_legacy, xz, zstd_frames, zstd_seekable},
    pattern, prstatus64, zstd_raw,
};

/// kdump in all its ways, and flattened files.
pub(crate) fn kdumps() -> Vec<Subject> {
    let kdump = |method, wide, split| Kdump {
        method,
        wide,
        machine: if wide { "x86_64" } else { "i686" },
        split,
        pages: vec![(1, Some(pattern(1, PAGE))), (2, None), (5, Some(vec![7; PAGE]))],
        notes: prstatus64(1, 2),
        ..Kdump::default()
    };
    // Signature, version and sizes; the sub-header with what it leads to; the first bytes of both bitmaps; descriptors and the pages.
    let part = |name, kdump: &Kdump| {
        let bytes = kdump.write();
        let end = bytes.len().min(4 * PAGE + 48 + 64);
        let notes = PAGE..PAGE + 512 + kdump.vmcoreinfo.len() + kdump.notes.len();
        let bitmaps = [2 * PAGE..2 * PAGE + 8, 3 * PAGE..3 * PAGE + 8];
        Subject::new(name, bytes, [0..16, 404..480, notes].into_iter().chain(bitmaps).chain(once(4 * PAGE..end)))
    };
    let stored = kdump(Method::Stored, true, None);
    let flat = |name, bytes: &[u8]| {
        let flat = flatten(bytes, bytes.len().div_ceil(4));
        let len = bytes.len().div_ceil(4);
        let last = bytes.len() - 3 * len;
        let heads = [0, last + 16, last + len + 32, last + 2 * len + 48].map(|at| 4096 + at..4096 + at + 16);
        Subject::new(name, flat.clone(), once(0..32).chain(heads).chain(once(flat.len() - 16..flat.len())))
    };
    vec![
        part("kdump, stored", &stored),
        part("kdump, zlib", &kdump(Method::Zlib, true, None)),
        part("kdump, LZO", &kdump(Method::Lzo, true, None)),
        part("kdump, snappy", &kdump(Method::Snappy, true, None)),
        part("kdump, zstd", &kdump(Method::Zstd, true, None)),
        part("kdump, 32-bit", &kdump(Method::Zlib, false, None)),
        part("kdump, a part", &kdump(Method::Zlib, true, Some((0, 3)))),
        flat("flattened kdump", &stored.write()),
        flat("flattened ELF", &core("", true).bytes),
        split_part(&kdump(Method::Zlib, true, None)),
    ]
}

/// The second file of a dump that was split; the first is opened and finds it.
fn split_part(whole: &Kdump) -> Subject {
    let [first, second] =
        [(0, 3), (3, whole.max_mapnr)].map(|split| Kdump { split: Some(split), ..whole.clone() }.write());
    let end = second.len();
    // What ties it to the first, and its own pages.
    let parts = [0..16, 424..480, PAGE..PAGE + 112, 4 * PAGE..end];
    Subject::new("kdump, the second of two parts", second, parts)
        .in_folder("dump-2", "dump-1", |dir| std::fs::write(dir.join("dump-1"), first).unwrap())
}

/// gzip, zstd, LZ4 and xz in each way in which they are read: in pieces that tell their length, in pieces that do not, in one stream.
pub(crate) fn compressed() -> Vec<Subject> {
    let image = lime(&[(0x1000, pattern(1, 300)), (0x2000, vec![0; 5000]), (0x8000, pattern(1, 300))]);
    // Two members and two frames, of which the second is stored as it is.
    let (first, second) = image.split_at(image.len() - 50);
    let members = [gzip(first), gzip_stored(second)].concat();
    let frames = [zstd::encode_all(first, 3).unwrap(), zstd_raw(second)].concat();
    let parts: Vec<&[u8]> = image.chunks(image.len()).collect();
    vec![
        Subject::whole("gzip", members),
        Subject::whole("gzip, members with lengths", bgzf(&image, 2000)),
        Subject::whole("zstd", frames).with_window(),
        Subject::whole("zstd, frames with lengths", zstd_frames(&image, 2000)).with_window(),
        Subject::whole("zstd, a table of frames", zstd_seekable(&image, 2000, true)).with_window(),
        Subject::whole("LZ4, independent blocks", lz4(&image, false)),
        Subject::whole("LZ4, linked blocks", lz4(&image, true)),
        Subject::whole("LZ4, older frames", lz4_legacy(&parts)),
        Subject::whole("xz, one block", xz(&image, None)).with_window(),
        Subject::whole("xz, blocks", xz(&image, Some(2000))).with_window(),
    ]
}
