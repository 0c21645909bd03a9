//! Each example on the demo snapshot prints what the guest said about itself (`memflow-cli/demo/truth.json`).

use std::process::{Command, Output};

use serde_json::Value;

fn truth() -> Value {
    serde_json::from_str(include_str!("../../memflow-cli/demo/truth.json")).unwrap()
}

/// What a program does with the demo snapshot.
fn run(program: &str) -> Output {
    let output = Command::new(program).arg("demo").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The lines that a program prints for the demo snapshot.
fn lines(program: &str) -> Vec<String> {
    let output = run(program);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A number in hexadecimal, with its prefix.
fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap()
}

/// The mappings of the first process.
fn mappings(truth: &Value) -> &Vec<Value> {
    let [maps, ..] = truth["maps"].as_array().unwrap().as_slice() else { panic!("no maps") };
    assert_eq!(maps["pid"], 1);
    maps["mappings"].as_array().unwrap()
}

fn text<'a>(truth: &'a Value, key: &str) -> &'a str {
    truth[key].as_str().unwrap()
}

#[test]
fn process_list_has_every_process() {
    let truth = truth();
    let mut lines: Vec<(u64, String)> = lines(env!("CARGO_BIN_EXE_process_list"))
        .iter()
        .map(|line| line.trim_start().split_once(' ').unwrap())
        .map(|(pid, name)| (pid.parse().unwrap(), name.to_owned()))
        .collect();
    lines.sort();
    let expected = truth["processes"].as_array().unwrap();
    assert_eq!(lines.len(), expected.len());
    for ((pid, name), expected) in lines.iter().zip(expected) {
        assert_eq!(expected["pid"], *pid);
        // Of a kernel thread's name the task itself holds 15 bytes, which is what the guest tells.
        assert!(name.starts_with(text(expected, "name")), "{name} is {}", expected["name"]);
    }
}

#[test]
fn read_kernel_symbol_prints_release_and_variables() {
    let lines = lines(env!("CARGO_BIN_EXE_read_kernel_symbol"));
    assert_eq!(lines[0], format!("release: {}", text(&truth(), "release")));
    assert!(lines[1].starts_with("list of tasks: from 0xffff"), "{}", lines[1]);
    let values: Vec<(&str, u64)> = lines[2..]
        .iter()
        .map(|line| line.split_once(": 0x").unwrap())
        .map(|(name, value)| (name, u64::from_str_radix(value, 16).unwrap()))
        .collect();
    let [("jiffies_64", _), ("max_pfn", frames), ("_totalram_pages", total)] = values[..] else {
        panic!("{values:?}");
    };
    // The guest has 96 MiB, of which the firmware keeps some at the end and the kernel itself takes a part.
    assert!((0x5f00..=0x6000).contains(&frames), "{frames:#x}");
    assert!((0x1000..frames).contains(&total), "{total:#x}");
}

#[test]
fn own_connector_translates_and_reads_the_banner() {
    let truth = truth();
    let lines = lines(env!("CARGO_BIN_EXE_own_connector"));
    let symbols = truth["symbols"].as_array().unwrap();
    let address = symbols.iter().find(|symbol| symbol["name"] == "linux_banner").unwrap()["address"].as_u64().unwrap();
    assert!(lines[0].ends_with(" of them different"), "{}", lines[0]);
    assert!(lines[1].starts_with(&format!("linux_banner: {address:#x} is at physical 0x")), "{}", lines[1]);
    assert_eq!(lines[2], text(&truth, "version"));
}

#[test]
fn module_list_has_every_module() {
    let truth = truth();
    let lines = lines(env!("CARGO_BIN_EXE_module_list"));
    assert!(lines[0].starts_with(&format!("Linux {}, kernel at 0xffff", text(&truth, "release"))), "{}", lines[0]);
    let expected = truth["modules"].as_array().unwrap();
    assert_eq!(lines.len() - 1, expected.len());
    for module in expected {
        let line = format!("{:#x} ", module["base"].as_u64().unwrap());
        let line = lines.iter().find(|printed| printed.starts_with(&line)).unwrap();
        assert_eq!(line.split(' ').nth(2).unwrap(), text(module, "name"));
        for user in module["used_by"].as_array().unwrap() {
            assert!(line.contains(user.as_str().unwrap()), "{line}");
        }
    }
}

#[test]
fn memory_maps_has_every_mapping_and_no_page_too_many() {
    let truth = truth();
    let lines = lines(env!("CARGO_BIN_EXE_memory_maps"));
    let expected = mappings(&truth);
    assert_eq!(lines.len(), expected.len());
    let mut present = 0;
    for (line, mapping) in lines.iter().zip(expected) {
        let (start, end) = (mapping["start"].as_u64().unwrap(), mapping["end"].as_u64().unwrap());
        let words: Vec<&str> = line.split(' ').collect();
        assert!(line.starts_with(&format!("{start:#x}")), "{line}");
        let [.., pages, "of", len, "present"] = words[..] else { panic!("{line}") };
        assert_eq!(hex(len), end - start);
        assert!(hex(pages) <= hex(len), "{line}");
        present += hex(pages);
    }
    assert!(present > 0, "the process runs");
}

#[test]
fn kernel_exports_finds_a_symbol_both_ways() {
    let truth = truth();
    let lines = lines(env!("CARGO_BIN_EXE_kernel_exports"));
    let count: usize = lines[0].strip_suffix(" symbols").unwrap().parse().unwrap();
    assert!(count > 10_000, "{count}");
    let symbols = truth["symbols"].as_array().unwrap();
    let address = symbols.iter().find(|symbol| symbol["name"] == "init_task").unwrap()["address"].as_u64().unwrap();
    assert!(lines[1].starts_with(&format!("{address:#x} ")) && lines[1].ends_with(" init_task"), "{}", lines[1]);
    assert_eq!(lines[2], format!("{:#x} is init_task+0x8", address + 8));
}

#[test]
fn read_write_reads_the_program_and_is_told_why_not() {
    let truth = truth();
    let lines = lines(env!("CARGO_BIN_EXE_read_write"));
    let start = mappings(&truth)[0]["start"].as_u64().unwrap();
    assert_eq!(lines[0], format!("{start:#x}: [7f, 45, 4c, 46], \"ELF\""));
    assert_eq!(lines[1], "4096 of 4096 bytes, 0 gaps");
    assert!(lines[2].starts_with("error: read of 8 bytes at 0x0: not present at level "), "{}", lines[2]);
    assert_eq!(lines[3], format!("error: write of 4 bytes at {start:#x}: the target is read-only"));
}

#[test]
fn batcher_finds_the_programs_in_memory() {
    let truth = truth();
    let lines = lines(env!("CARGO_BIN_EXE_batcher"));
    let mappings = mappings(&truth);
    assert!(lines[0].starts_with(&format!("{} reads, ", mappings.len() * 3)), "{}", lines[0]);
    let start = mappings[0]["start"].as_u64().unwrap();
    assert!(lines[1].starts_with(&format!("{start:#x}: machine 62, entry 0x40")), "{}", lines[1]);
    let vdso = mappings.iter().find(|mapping| mapping["name"] == "[vdso]").unwrap()["start"].as_u64().unwrap();
    assert!(lines[2].starts_with(&format!("{vdso:#x}: machine 62, ")), "{}", lines[2]);
    assert_eq!(lines.len(), 3);
}

#[test]
fn cached_view_reads_the_same_with_one_call() {
    let lines = lines(env!("CARGO_BIN_EXE_cached_view"));
    let [direct, cached] = &lines[..] else { panic!("{lines:?}") };
    let of = |line: &str, start: &str| {
        line.strip_prefix(start).unwrap().split_once(", ").map(|(a, b)| (a.to_owned(), b.to_owned()))
    };
    let (direct, cached) = (of(direct, "direct: ").unwrap(), of(cached, "cached: ").unwrap());
    assert_eq!(direct.0, cached.0);
    let calls = |text: &str| text.strip_suffix(" calls").unwrap().parse::<u64>().unwrap();
    assert!(calls(&direct.1) >= 1000, "{direct:?}");
    assert!(calls(&cached.1) <= 5, "one for each level of the tables, and one for the page: {cached:?}");
}

#[test]
fn multithreading_reads_every_process() {
    let truth = truth();
    let lines = lines(env!("CARGO_BIN_EXE_multithreading"));
    let (processes, bytes) = lines[0].split_once(" processes, ").unwrap();
    assert_eq!(processes, truth["processes"].as_array().unwrap().len().to_string());
    assert!(bytes.strip_suffix(" bytes").unwrap().parse::<u64>().unwrap() > 1 << 20, "{bytes}");
}

#[test]
fn read_bench_prints_a_time_for_each_way() {
    let lines = lines(env!("CARGO_BIN_EXE_read_bench"));
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.ends_with(" MB/s")), "{lines:?}");
}

#[test]
fn scan_finds_the_banner_of_the_kernel() {
    let lines = lines(env!("CARGO_BIN_EXE_scan"));
    let (last, banners) = lines.split_last().unwrap();
    assert!(banners.iter().all(|line| line.starts_with("0x") && line.ends_with(": \"Linux version \"")), "{lines:?}");
    assert!(last.starts_with(&format!("{} banners and ", banners.len())) && last.ends_with("complete: true"), "{last}");
    assert!(!banners.is_empty());
}

#[test]
fn watch_value_sees_a_snapshot_stand_still() {
    let lines = lines(env!("CARGO_BIN_EXE_watch_value"));
    assert!(lines[0].starts_with("jiffies_64 at 0xffff") && lines[0].ends_with(", frozen"), "{}", lines[0]);
    assert!(hex(&lines[1]) > 0);
    assert_eq!(lines.len(), 2);
}

#[test]
fn dump_module_writes_the_largest_module_whole() {
    let truth = truth();
    let output = run(env!("CARGO_BIN_EXE_dump_module"));
    let size = |module: &Value| module["size"].as_u64().unwrap();
    let modules = truth["modules"].as_array().unwrap();
    let largest = modules.iter().max_by_key(|module| size(module)).unwrap();
    assert_eq!(output.stdout.len() as u64, size(largest));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with(&format!("{}: {} bytes from ", text(largest, "name"), size(largest))), "{told}");
    assert!(output.stdout.iter().any(|byte| *byte != 0));
}
