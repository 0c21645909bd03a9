//! Files that `memflow convert` writes from other files: the same memory, and all that the format has a place for.

use std::{fs, path::Path};

use memflow_core::{
    PhysAddr, PhysicalMemory,
    memory::{PhysicalMemoryExt, Run, TargetFacts},
};
use memflow_snapshot::{OpenOptions, Snapshot, open};

use super::{
    control::misbehaving,
    util::{Run as Ran, run_in},
};

fn opened(path: &Path) -> Snapshot {
    open(path, &OpenOptions::default()).unwrap()
}

/// The demo as it is in the source tree.
fn demo() -> Snapshot {
    opened(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/demo.elf.zst"))
}

/// Addresses with memory, runs that touch as one.
fn ranges(memory: &dyn PhysicalMemory) -> Vec<(u64, u64)> {
    let runs = memory.metadata().runs;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for Run { range, .. } in runs.runs() {
        match ranges.last_mut() {
            Some((start, len)) if *start + *len == range.start().as_u64() => *len += range.len(),
            _ => ranges.push((range.start().as_u64(), range.len())),
        }
    }
    ranges
}

/// Compares every page; returns how many there are.
fn compare(one: &dyn PhysicalMemory, other: &dyn PhysicalMemory) -> u64 {
    assert_eq!(ranges(one), ranges(other));
    let mut pages = 0;
    for (start, len) in ranges(one) {
        assert_eq!((start % 4096, len % 4096), (0, 0));
        for at in (start..start + len).step_by(4096) {
            let (mut expected, mut found) = ([0; 4096], [1; 4096]);
            one.read_into(PhysAddr::new(at), &mut expected).unwrap();
            other.read_into(PhysAddr::new(at), &mut found).unwrap();
            assert!(expected == found, "page {at:#x}");
            pages += 1;
        }
    }
    pages
}

fn convert(folder: &Path, line: &str) -> Ran {
    run_in(folder, ["convert"].into_iter().chain(line.split_whitespace()))
}

#[test]
fn memory_is_the_same_through_all_formats_and_facts_as_far_as_they_have_a_place() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo();
    let processes = run_in(folder.path(), ["ps", "demo", "--json"]).json()["processes"].clone();
    assert!(processes.as_array().unwrap().len() > 3);
    let facts: &TargetFacts = demo.memory.facts();
    assert!(facts.vmcoreinfo.is_some() && !facts.vcpus.is_empty());
    for (line, format, facts_stay) in [
        ("demo a.elf", "ELF core", true),
        ("a.elf b.kdump", "kdump", true),
        ("b.kdump c.elf.zst", "ELF core", true),
        ("c.elf.zst d.kdump --compress zstd", "kdump", true),
        ("d.kdump e.lime", "LiME", false),
        ("e.lime f.lime.zst", "LiME", false),
        ("f.lime.zst g --format kdump --compress snappy", "kdump", false),
        ("g h.raw.zst --fill-gaps zero", "raw", false),
    ] {
        convert(folder.path(), &format!("{line} -q")).complete();
        let file = line.split(' ').nth(1).unwrap();
        let written = opened(&folder.path().join(file));
        assert!(written.format.to_string().contains(format), "{line}: {}", written.format);
        // Where a raw file has no gap, there are zeros.
        if format != "raw" {
            assert!(compare(&*demo.memory, &*written.memory) > 1000, "{line}");
        }
        let now = written.memory.facts();
        if facts_stay {
            assert_eq!((&now.machine, &now.vcpus), (&facts.machine, &facts.vcpus), "{line}");
            assert_eq!(now.vmcoreinfo, facts.vmcoreinfo, "{line}");
        } else {
            assert!(now.vmcoreinfo.is_none() && now.vcpus.is_empty(), "{line}");
        }
        assert_eq!(run_in(folder.path(), ["ps", file, "--json"]).json()["processes"], processes, "{line}");
    }
}

#[test]
fn windows_crash_dump_has_the_memory_and_says_what_its_header_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo();
    let processes = run_in(folder.path(), ["ps", "demo", "--json"]).json()["processes"].clone();
    let document = convert(folder.path(), "demo a.dmp --json -q").json();
    assert_eq!(document["format"], "windows");
    let unknown = serde_json::json!([
        "MinorVersion",
        "PfnDataBase",
        "PsLoadedModuleList",
        "PsActiveProcessHead",
        "BugCheckCode",
        "KdDebuggerDataBlock",
        "SystemTime"
    ]);
    assert_eq!(document["unknown"], unknown);
    let written = opened(&folder.path().join("a.dmp"));
    assert_eq!(written.format.to_string(), "Windows crash dump");
    assert!(compare(&*demo.memory, &*written.memory) > 1000);
    assert_eq!(run_in(folder.path(), ["ps", "a.dmp", "--json"]).json()["processes"], processes);
    let ran = convert(folder.path(), "a.dmp b.dmp.zst");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let warning = "the target does not tell what belongs into these fields of the header: MinorVersion, PfnDataBase, PsLoadedModuleList, \
                   PsActiveProcessHead, BugCheckCode, KdDebuggerDataBlock, SystemTime";
    assert!(ran.err.contains(warning), "{}", ran.err);
    assert!(compare(&*demo.memory, &*opened(&folder.path().join("b.dmp.zst")).memory) > 1000);
    fs::write(folder.path().join("image"), [7; 0x3000]).unwrap();
    let error = convert(folder.path(), "image c.dmp").error(2);
    let expected = "a Windows crash dump of a machine that the target does not tell is not supported: it is written for x86 and x86-64; LiME \
                    and ELF are for any machine";
    assert_eq!(error, expected);
    assert!(!folder.path().join("c.dmp").exists());
}

#[test]
fn result_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), [7; 0x3000]).unwrap();
    assert_eq!(convert(folder.path(), "image out.lime").complete(), "out.lime: 12320 bytes (12.0 KiB), lime\n");
    let document = convert(folder.path(), "out.lime out.raw --json").json();
    let expected = serde_json::json!({
        "file": "out.raw", "format": "raw", "size": 0x3000, "filled": 0, "left_out": 0, "unknown": [], "live": false,
        "problems": []
    });
    assert_eq!(document, expected);
    assert_eq!(fs::read(folder.path().join("out.raw")).unwrap(), [7; 0x3000]);
    assert_eq!(convert(folder.path(), "image - --format raw").complete(), "\u{7}".repeat(0x3000));
}

#[test]
fn name_that_does_not_tell_the_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), [7; 0x3000]).unwrap();
    for name in ["out", "out.core", "out.zst", "-"] {
        let error = convert(folder.path(), &format!("image {name}")).error(2);
        let way_out =
            "the name does not tell the format (.raw, .img, .lime, .elf, .kdump and .dmp do); name it with --format";
        assert_eq!(error, format!("{name}: {way_out}"));
    }
    let error = convert(folder.path(), "image out.kdump.zst").error(2);
    let way_out = "a kdump is not compressed as a whole, but page by page; leave .zst away and take --compress zstd";
    assert_eq!(error, format!("out.kdump.zst: {way_out}"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn only_files_are_converted_and_never_onto_themselves() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image.raw"), [7; 0x3000]).unwrap();
    let plugin = misbehaving().to_str().unwrap();
    let error = run_in(folder.path(), ["convert", "faulty:machine", "out.elf", "--plugin", plugin]).error(2);
    let way_out = "only files are converted; `memflow dump` writes the memory of other targets";
    assert_eq!(error, format!("faulty:machine: {way_out}"));
    let error = convert(folder.path(), "image.raw ./image.raw --force").error(2);
    assert_eq!(error, "./image.raw is the target itself; name another file");
    fs::write(folder.path().join("old.lime"), "old").unwrap();
    let error = convert(folder.path(), "image.raw old.lime").error(2);
    assert_eq!(error, "old.lime exists already; --force replaces it");
    convert(folder.path(), "image.raw old.lime --force").complete();
    assert_eq!(fs::read(folder.path().join("old.lime")).unwrap().len(), 32 + 0x3000);
}
