//! `find`, `strings` and `translate --reverse --everywhere`: the expected places come from a plain search of the bytes that `dump`
//! writes, and from what the demo guest said of itself.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use serde_json::Value;

use super::util::{command, run, run_in};

fn truth() -> Value {
    serde_json::from_str(include_str!("../../demo/truth.json")).unwrap()
}

fn hex(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

fn pid_of(name: &str) -> u64 {
    let truth = truth();
    let processes = truth["processes"].as_array().unwrap();
    processes.iter().find(|process| process["name"] == name).unwrap()["pid"].as_u64().unwrap()
}

/// A part of the demo's memory: kernel code, its constants and data, pages of processes.
const RANGE: &str = "0x2100000+24MiB";
const START: u64 = 0x210_0000;

/// That part, as `dump` writes it.
fn memory(folder: &Path) -> Vec<u8> {
    run_in(folder, ["dump", "demo", "-o", "memory", "--phys", RANGE, "-q"]).complete();
    fs::read(folder.join("memory")).unwrap()
}

/// Every place where `matches` is true of the bytes.
fn places(memory: &[u8], len: usize, matches: impl Fn(&[u8]) -> bool) -> Vec<u64> {
    memory.windows(len).zip(START..).filter(|(bytes, _)| matches(bytes)).map(|(_, at)| at).collect()
}

fn addresses(found: &Value) -> Vec<u64> {
    found["matches"].as_array().unwrap().iter().map(|found| hex(&found["address"])).collect()
}

#[test]
fn physical_matches_equal_a_plain_search_of_a_dump() {
    let folder = tempfile::tempdir().unwrap();
    let memory = memory(folder.path());
    let find = |args: &[&str]| {
        let run = run_in(folder.path(), ["find", "demo", "--phys", "--json", "--range", RANGE].iter().chain(args));
        let found: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!((&found["ended"], &found["unreadable"]), (&"complete".into(), &Value::Array(Vec::new())));
        assert_eq!(run.code, i32::from(addresses(&found).is_empty()));
        addresses(&found)
    };
    let text = places(&memory, 7, |bytes| bytes == b"version");
    assert!(text.len() > 10);
    assert_eq!(find(&["version"]), text);
    assert_eq!(
        find(&["-e", "v[e]rsi.n"]),
        places(&memory, 7, |bytes| bytes.starts_with(b"versi") && bytes[5] != b'\n' && bytes[6] == b'n')
    );
    assert_eq!(find(&["-i", "VERsion"]), places(&memory, 7, |bytes| bytes.eq_ignore_ascii_case(b"version")));
    let code = |bytes: &[u8]| bytes[0] == 0x48 && bytes[1] >> 4 == 8 && bytes[3] & 0xf == 5;
    assert_eq!(find(&["-x", "48 8? ?? ?5"]), places(&memory, 4, code));
    let number = *memory[0x8000..].first_chunk::<8>().unwrap();
    let value = format!("u64:{:#x}", u64::from_le_bytes(number));
    let aligned = places(&memory, 8, |bytes| bytes == number).into_iter().filter(|at| at % 8 == 0);
    assert_eq!(find(&["--value", &value, "--align", "8"]), aligned.collect::<Vec<_>>());
}

#[test]
fn secret_of_a_process_is_found_in_it() {
    let pid = pid_of("worker-pool");
    let text = run(&format!("find demo MEMFLOW_SECRET= --pid {pid}")).complete();
    let address = text.split_whitespace().next().unwrap();
    let read = run(&format!("read demo 0x{address} --pid {pid} --string")).complete();
    assert_eq!(read, "MEMFLOW_SECRET=correct-horse-battery-staple\n");
    let shown = run(&format!("find demo MEMFLOW_SECRET= --pid {pid} --limit 1 -C 16")).complete();
    assert!(shown.lines().count() > 3 && shown.contains("MEMFLOW_SECRE"), "{shown}");
}

#[test]
fn banner_is_found_at_its_symbol() {
    let symbol = run("symbols demo linux_banner").complete();
    let all: Value = serde_json::from_str(&run("find demo -e Linux.version.6 --json").out).unwrap();
    let expected = u64::from_str_radix(symbol.split(' ').next().unwrap(), 16).unwrap();
    assert!(addresses(&all).contains(&expected), "{symbol}");
}

#[test]
fn several_patterns_are_told_apart_and_come_by_address() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("list"), "text:version\n\nhex:7f 45 4c 46\nutf16:a\n").unwrap();
    let args = ["find", "demo", "--phys", "-f", "list", "--json", "--range", RANGE];
    let found = run_in(folder.path(), args).json();
    let names: BTreeSet<&str> =
        found["matches"].as_array().unwrap().iter().map(|found| found["pattern"].as_str().unwrap()).collect();
    assert!(names.len() > 1 && names.iter().all(|name| ["text:version", "hex:7f 45 4c 46", "utf16:a"].contains(name)));
    assert!(addresses(&found).is_sorted());
    let limited = run_in(folder.path(), args.iter().chain(&["--limit", "50"])).json();
    assert_eq!((addresses(&limited), &limited["ended"]), (addresses(&found)[..50].to_vec(), &"limit".into()));
}

#[test]
fn nothing_found_is_code_1() {
    let found = run("find demo --phys no-memory-has-this-text-but-this-one");
    assert_eq!((found.code, found.out.as_str(), found.err.as_str()), (1, "", "warning: nothing found\n"));
    let outside = run("find demo --phys busybox --range 0x100000000+4096");
    assert_eq!(
        outside.err,
        "warning: there is no memory at the addresses that were asked for\nwarning: nothing found\n"
    );
}

#[test]
fn patterns_that_make_no_sense_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("list"), "text:a\nhex:4\n").unwrap();
    let error = |args: &[&str]| run_in(folder.path(), ["find", "demo", "--phys"].iter().chain(args)).error(2);
    assert_eq!(
        error(&["-x", "48 8"]),
        "hex pattern, character 5: expected a second digit of the byte (or ?), found `the end`"
    );
    assert!(error(&["-e", "a("]).starts_with("regular expression, character 2: "));
    assert!(error(&["-e", "a*"]).contains("matches everywhere"));
    assert!(error(&["--value", "u8:300"]).starts_with("value of type u8: expected a number of 1 bytes"));
    assert!(error(&["-f", "list"]).starts_with("list, line 2: hex pattern, character 2: "));
    assert!(error(&["-f", "no-such-file"]).starts_with("no-such-file: "));
    assert!(error(&[""]).contains("at least one byte"));
    assert!(error(&["x", "--align", "0"]).contains("1 or more bytes"));
    assert_eq!(error(&[]), "nothing to look for: a TEXT, --hex, --utf16, --value, --regex or --patterns is needed");
}

#[test]
fn strings_equal_those_of_a_dump() {
    let folder = tempfile::tempdir().unwrap();
    let memory = memory(folder.path());
    let found =
        run_in(folder.path(), ["strings", "demo", "--phys", "--range", RANGE, "--encoding", "ascii", "-m", "6"])
            .complete();
    let printable = |byte: &u8| *byte == b'\t' || (0x20..0x7f).contains(byte);
    let mut expected = String::new();
    for part in memory.split_inclusive(|byte| !printable(byte)) {
        let text = &part[..part.iter().take_while(|byte| printable(byte)).count()];
        if text.len() >= 6 {
            let at = part.as_ptr() as u64 - memory.as_ptr() as u64 + START;
            let text = String::from_utf8(text.to_vec()).unwrap().replace('\t', "\\t");
            expected.push_str(&format!("{at:016x}  {text}\n"));
        }
    }
    assert!(expected.lines().count() > 10_000);
    let first = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(found == expected, "{first:?}, {} and {} lines", found.lines().count(), expected.lines().count());
    let wide = run_in(
        folder.path(),
        ["strings", "demo", "--phys", "--range", RANGE, "--encoding", "utf16", "-m", "6", "--json"],
    )
    .json();
    let first = &wide["strings"][0];
    let (at, text) = ((hex(&first["address"]) - START) as usize, first["text"].as_str().unwrap());
    let bytes: Vec<u8> = text.bytes().flat_map(|byte| [byte, 0]).collect();
    assert!(memory[at..].starts_with(&bytes) && text.len() >= 6);
}

#[test]
fn page_of_a_file_leads_back_to_every_process_that_maps_it() {
    let runs = run("maps demo 1 --page-tables --json").json();
    let page = &runs["runs"][0];
    let physical = hex(&page["physical"]) + 0x10;
    let found = run(&format!("translate demo --reverse {physical:#x} --everywhere --json"));
    let found: Value = serde_json::from_str(&found.out).unwrap();
    let mappings = found["mappings"].as_array().unwrap();
    let start = format!("{:#x}", hex(&page["start"]) + 0x10);
    let pids: BTreeSet<u64> =
        mappings.iter().filter(|found| found["virtual"] == *start).filter_map(|found| found["pid"].as_u64()).collect();
    let truth = truth();
    let busybox: BTreeSet<u64> = truth["processes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|process| process["exe"] == "/bin/busybox" && process["state"] != "Z")
        .map(|process| process["pid"].as_u64().unwrap())
        .collect();
    assert!(pids.contains(&1) && pids.is_subset(&busybox) && pids.len() > 1, "{pids:?} of {busybox:?}");
    // The kernel's direct map has every page.
    assert!(mappings.iter().any(|found| found["pid"].is_null() && found["name"] == "[kernel]"));
    let one = run(&format!("translate demo --reverse {physical:#x} --pid 1 --json")).out;
    assert!(one.contains(&start), "{one}");
}

#[cfg(unix)]
#[test]
fn interrupted_search_tells_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = vec![b'a'; 64 << 20];
    // Each `a` between two of these begins a match that is too long, so this takes hours.
    bytes.iter_mut().step_by(100_000).for_each(|byte| *byte = b'z');
    fs::write(folder.path().join("image"), bytes).unwrap();
    let args = ["find", "image", "--layout", "flat", "--phys", "-e", "a[^z]*z", "--max-len", "65536"];
    let mut child = command(folder.path(), args)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(4));
    assert!(child.try_wait().unwrap().is_none(), "still searching");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("interrupted after"), "{err}");
}
