//! The seeds of the corpus: built here, from the formats' documents, by code that shares nothing with what reads them.
//!
//! Owns: which seeds there are. `UPDATE_CORPUS=1 cargo test -p memflow-fuzz --test corpus` writes them anew; files that no
//! builder makes (finds of libFuzzer) are left alone. Must not know: the parsers.
//! Keeps: a seed is small (mutations of small inputs reach more), and the committed file is what the builder makes.

mod args;
#[path = "../../../os/linux/src/types/synthetic.rs"]
#[allow(dead_code, unreachable_pub, reason = "the corpus uses its part")]
mod btf_builder;
mod gdb;
#[path = "../../../connectors/snapshot/tests/common/mod.rs"]
mod images;
#[path = "../../../os/linux/src/symbols/synthetic.rs"]
#[allow(dead_code, unreachable_pub, reason = "the corpus uses its part")]
mod kallsyms_builder;
#[path = "../../../connectors/kcore/tests/kcore/common.rs"]
#[allow(dead_code, reason = "the corpus uses its part")]
mod kcore_builder;
mod linux;
mod live;
mod paging;
mod plugin;
mod scan;
mod snapshot;
mod win32;

use std::{fs, path::Path};

use memflow_core::{
    memory::RunMap,
    plugin::{
        analyze::{HostAbi, analyze},
        args::{ArgSpec, ConnectorSpec},
        descriptor::{AbiVersion, Descriptor},
    },
};
use memflow_linux::fuzzing;
use memflow_snapshot::{
    BytesInput, MemoryLayout, OpenOptions, ParseOptions, crash_dump, elf, fuzzing as snapshot_fuzzing, lime,
    open_bytes, vmware,
};

/// Bytes of the largest seed.
const MAX_LEN: usize = 20 << 10;

/// A seed: target, name, bytes.
type Seed = (&'static str, &'static str, Vec<u8>);

fn seeds() -> Vec<Seed> {
    [
        args::seeds(),
        gdb::seeds(),
        snapshot::seeds(),
        win32::seeds(),
        linux::seeds(),
        live::seeds(),
        paging::seeds(),
        plugin::seeds(),
        scan::seeds(),
    ]
    .concat()
}

#[test]
fn seeds_are_what_the_builders_make() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let update = std::env::var_os("UPDATE_CORPUS").is_some();
    for (target, name, bytes) in seeds() {
        let path = folder.join(target).join(name);
        assert!(bytes.len() <= MAX_LEN, "{target}/{name} has {} bytes", bytes.len());
        if update {
            fs::create_dir_all(folder.join(target)).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let committed = fs::read(&path).unwrap_or_default();
        assert!(committed == bytes, "{} is not what the builder makes; UPDATE_CORPUS=1 writes it", path.display());
    }
}

#[test]
fn seeds_reach_the_end_of_their_parser() {
    let mut opened = 0;
    for (target, name, bytes) in seeds().into_iter().filter(|(_, name, _)| !name.starts_with("regression-")) {
        let input = BytesInput::new(name.as_ref(), &bytes);
        let strict = ParseOptions::default();
        let some = |found: usize| match found {
            0 => Err(memflow_core::Error::NotFound { what: "anything", name: name.to_owned() }),
            _ => Ok(()),
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        // What is compressed there is anything.
        let packed = OpenOptions { layout: MemoryLayout::Runs(RunMap::flat(1)), ..OpenOptions::default() };
        let result = match target {
            "args" => text(&bytes).parse::<ConnectorSpec>().map(drop),
            "arg_specs" => text(&bytes).lines().try_for_each(|line| line.parse::<ArgSpec>().map(drop)),
            "analyze" => some(taken(&bytes)),
            "descriptor" => some(good(&Descriptor::parse_section(&bytes).unwrap())),
            "elf" => elf::parse(&input, strict).map(drop),
            "kcore" => memflow_kcore::Headers::read(&bytes[..], name.as_ref())
                .and_then(|headers| memflow_kcore::physical_runs(&headers.segments, name.as_ref()))
                .map(drop),
            "kdbg" => some(memflow_win32::fuzzing::kdbg(&bytes)),
            "pdb" => some(memflow_win32::fuzzing::pdb(&bytes)),
            "pe" => some(memflow_win32::fuzzing::pe(&bytes)),
            "dma_map" => memflow_pcileech::parse_map(&text(&bytes)).map(drop),
            "lime" => lime::parse(&input, strict).map(drop),
            "runs" => text(&bytes).parse::<RunMap>().map(drop),
            "btf" => memflow_linux::Types::parse(bytes).map(drop),
            "crash_dump" => crash_dump::parse(&input, strict).map(drop),
            "vmware" => vmware::parse(&input).map(drop),
            "open" | "avml" | "kdump" | "libvirt" | "migration" => {
                open_bytes(name, &bytes, &OpenOptions::default()).map(drop)
            }
            "beside" => some(beside(&bytes)),
            "facts_note" => some(snapshot_fuzzing::facts_note(&bytes).0.vcpus.len()),
            "gdb_packet" => some(memflow_gdb::fuzzing::packets(&bytes, 4096).len()),
            "gdb_description" if name != "round" => some(memflow_gdb::fuzzing::description(&bytes).unwrap_or(0)),
            "gdb_layout" if name != "overlap" => some(memflow_gdb::fuzzing::layouts(&bytes).len()),
            "gzip" | "lz4" | "xz" | "zstd" => open_bytes(name, &bytes, &packed).map(drop),
            "kallsyms" => some(fuzzing::kallsyms(&bytes)),
            "layout_entry" => some(fuzzing::layout_entry(&bytes)),
            "vmcoreinfo" => some(fuzzing::vmcoreinfo(&bytes)),
            "log_flat" => some(fuzzing::log_flat(&bytes)),
            "log_ring" => some(fuzzing::log_ring(&bytes)),
            // Tables that overlap have no end to reach; pages are checked against the slow walker by the target itself.
            _ => continue,
        };
        result.unwrap_or_else(|error| panic!("{target}/{name}: {error}"));
        opened += 1;
    }
    assert!(opened > 10);
}

/// Plugins of a shared object that the host takes for which it was built.
fn taken(bytes: &[u8]) -> usize {
    let hosts = plugin::HOSTS.map(|target| HostAbi { version: AbiVersion::new(1, 1), target });
    hosts.iter().filter_map(|host| analyze(bytes, host).ok()).map(|file| good(&file.plugins)).sum()
}

/// Runs that a state tells of.
fn beside(bytes: &[u8]) -> usize {
    let (len, state) = bytes.split_first_chunk().unwrap();
    let len = u64::from_le_bytes(*len);
    let image = snapshot_fuzzing::firecracker(state, len).map(|(image, _)| image);
    let image = image.or_else(|| snapshot_fuzzing::cloud_hypervisor(state, len).unwrap());
    image.map_or(0, |image| image.runs.runs().len())
}

fn good<T, E>(results: &[Result<T, E>]) -> usize {
    results.iter().filter(|result| result.is_ok()).count()
}
