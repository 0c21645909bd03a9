//! `memflow info`: what headers say is told, and what is not there.

use std::fs;

use super::util::{run, run_in};

const PAGE: usize = 4096;

/// A complete dump of 64-bit Windows, from the public structure `DUMP_HEADER64`: pages 1, 2 and 5.
fn crash_dump() -> Vec<u8> {
    let mut out: Vec<u8> = b"PAGE".iter().copied().cycle().take(0x2000).collect();
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(4, b"DU64");
    put(0xc, &19041u32.to_le_bytes());
    put(0x30, &0x8664u32.to_le_bytes());
    put(0x34, &4u32.to_le_bytes());
    put(0x38, &0xd1u32.to_le_bytes());
    put(0x88, &2u32.to_le_bytes());
    put(0xf98, &1u32.to_le_bytes());
    for (at, value) in [
        (0x10, 0x1a_d000u64),
        (0x40, 7),
        (0x48, 8),
        (0x50, 9),
        (0x58, 10),
        (0x80, 0xffff_f800_3333_3330),
        (0x90, 3),
        (0x98, 1),
        (0xa0, 2),
        (0xa8, 5),
        (0xb0, 1),
        // 2023-11-14 22:13:20, in units of 100 ns since 1601.
        (0xfa8, (1_700_000_000 + 11_644_473_600) * 10_000_000),
        (0x348 + 0x98, 0xffff_f800_4444_4440),
        (0x348 + 0xf8, 0xffff_f800_5555_5550),
    ] {
        put(at, &value.to_le_bytes());
    }
    out.extend([[0; PAGE], [7; PAGE], [0; PAGE]].concat());
    out
}

#[test]
fn facts_of_a_crash_dump_are_told_without_a_kernel() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("memory.dmp"), crash_dump()).unwrap();
    let found = run_in(folder.path(), ["info", "memory.dmp", "--pages", "--json"]);
    // It is not Linux.
    assert_eq!(found.code, 3, "{}", found.err);
    let found: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    let target = &found["target"];
    assert_eq!(target["format"], "Windows crash dump");
    assert_eq!((&target["file_size"], &target["memory_size"]), (&(0x2000 + 3 * PAGE).into(), &(3 * PAGE).into()));
    let (first, second) = (&target["runs"][0], &target["runs"][1]);
    assert_eq!((first["start"].as_str(), first["offset"].as_str()), (Some("0x1000"), Some("0x2000")));
    assert_eq!((second["start"].as_str(), second["offset"].as_str()), (Some("0x5000"), Some("0x4000")));
    let gaps = &target["gaps"];
    assert_eq!((&gaps["count"], &gaps["size"], &gaps["left_out"]), (&2.into(), &(3 * PAGE).into(), &0.into()));
    let content = &target["content"];
    assert_eq!((&content["pages"], &content["zero_pages"], &content["unreadable"]), (&3.into(), &2.into(), &0.into()));
    let facts = &target["facts"];
    assert_eq!((facts["machine"].as_str(), facts["directory_table"].as_str()), (Some("x86-64"), Some("0x1ad000")));
    let windows = &facts["windows"];
    assert_eq!((&windows["build"], &windows["processors"]), (&19041.into(), &4.into()));
    assert_eq!(windows["debugger_data"], "0xfffff80033333330");
    assert_eq!(windows["loaded_modules"], serde_json::Value::Null);
    assert_eq!(windows["bug_check"]["code"], "0xd1");
    assert_eq!(windows["bug_check"]["parameters"], serde_json::json!(["0x7", "0x8", "0x9", "0xa"]));
    assert_eq!(windows["time"], 1_700_000_000);
    assert_eq!(target["vcpus"][0]["rsp"], "0xfffff80044444440");

    let text = run_in(folder.path(), ["info", "memory.dmp"]).out;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for expected in [
        "Windows build 19041",
        "KDBG 0xfffff80033333330",
        "bug check 0xd1 (0x7, 0x8, 0x9, 0xa)",
        "written 2023-11-14 22:13:20 UTC",
        "directory table 0x1ad000",
        "not there 12 KiB in 2 gaps",
    ] {
        assert!(lines.contains(&expected.split_whitespace().collect()), "{expected}: {text}");
    }
}

#[test]
fn vmcoreinfo_and_pages_of_a_linux_dump_are_told() {
    let found = run("info demo --pages --json").json();
    let target = &found["target"];
    let release = found["kernel"]["release"].as_str().unwrap();
    let values = target["facts"]["vmcoreinfo"]["values"].as_array().unwrap();
    assert!(values.contains(&serde_json::json!(["OSRELEASE", release])), "{values:?}");
    let content = &target["content"];
    let (pages, zero) = (content["pages"].as_u64().unwrap(), content["zero_pages"].as_u64().unwrap());
    assert!(pages >= target["memory_size"].as_u64().unwrap() / PAGE as u64 && 0 < zero && zero < pages, "{content}");
    assert_eq!((&content["complete"], &content["unreadable"]), (&true.into(), &0.into()));
    assert!(run("info demo -v").out.contains(&format!("OSRELEASE={release}")));
    assert!(!run("info demo").complete().contains("OSRELEASE"));
}
