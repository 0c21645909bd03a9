//! Seeds for files that may be plugins.
//!
//! Owns: a descriptor for each part of the format, and the small ones of the shared objects that the analyser's own tests read.
//! Must not know: the analyser.

use super::Seed;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../memflow-core/tests/fixtures/plugins/", $name)).to_vec()
    };
}

/// The targets that the shared objects were built for.
pub(crate) const HOSTS: [&str; 6] = [
    "x86_64-unknown-linux-gnu",
    "s390x-unknown-linux-gnu",
    "i686-unknown-linux-gnu",
    "x86_64-pc-windows-gnu",
    "i686-pc-windows-gnu",
    "x86_64-apple-darwin",
];

pub(crate) fn seeds() -> Vec<Seed> {
    vec![
        ("analyze", "elf64", fixture!("x86_64-unknown-linux-gnu.so")),
        ("analyze", "elf64-big-endian", fixture!("s390x-unknown-linux-gnu.so")),
        ("analyze", "elf32", fixture!("i686-unknown-linux-gnu.so")),
        ("analyze", "pe64", fixture!("x86_64-pc-windows-gnu.dll")),
        ("analyze", "pe32", fixture!("i686-pc-windows-gnu.dll")),
        ("analyze", "macho", fixture!("x86_64-apple-darwin.dylib")),
        ("analyze", "fat", fat(&fixture!("x86_64-apple-darwin.dylib"))),
        ("descriptor", "least", LEAST.to_vec()),
        ("descriptor", "every-key", [LEAST, MORE].concat()),
        ("descriptor", "three", [LEAST, b"\0\0\0", LEAST, MORE, b"\0", LEAST, &[0; 64]].concat()),
    ]
}

const LEAST: &[u8] = b"memflow_plugin=1\0kind=connector\0name=a\0version=0.1.0\0abi=1.1\0\
    target=x86_64-unknown-linux-gnu\0entry=memflow_plugin_a\0description=one line\0";
const MORE: &[u8] = b"accepts=content\0accepts=os\0arg=layout:text:auto:which addresses\0arg=partial:flag::\0\
    layout=abi_stable 0.11\0unknown=value\0help=several\nlines = text\0";

/// A file for several architectures (`mach-o/fat.h`) that has only one, right behind the list.
fn fat(slice: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xcafe_babe, 1, 0x0100_0007, 3, 28, slice.len() as u32, 0] {
        out.extend(word.to_be_bytes());
    }
    out.extend(slice);
    out
}
