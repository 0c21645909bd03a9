//! The built-in target: what the command prints is what the guest itself said (`demo/truth.json`, made from its /proc).

use std::collections::HashMap;

use serde_json::Value;

use super::util::run;

fn truth() -> Value {
    serde_json::from_str(include_str!("../../demo/truth.json")).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key}"))
}

fn hex(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

/// The pid of the only process of this name.
fn pid_of(truth: &Value, name: &str) -> u64 {
    let mut found = list(truth, "processes").iter().filter(|process| process["name"] == name);
    let pid = found.next().unwrap()["pid"].as_u64().unwrap();
    assert!(found.next().is_none());
    pid
}

#[test]
fn processes_equal_the_guests_own_list_field_by_field() {
    let truth = truth();
    let found = run("ps demo --long --json").json();
    assert_eq!(found["problems"], Value::Array(Vec::new()));
    let found = list(&found, "processes");
    let expected = list(&truth, "processes");
    assert_eq!(found.len(), expected.len());
    let found: HashMap<u64, &Value> = found.iter().map(|process| (process["pid"].as_u64().unwrap(), process)).collect();
    for expected in expected {
        let pid = expected["pid"].as_u64().unwrap();
        let found = found[&pid];
        let pairs =
            [("parent_pid", "ppid"), ("uid", "uid"), ("gid", "gid"), ("state", "state"), ("threads", "threads")];
        for (ours, theirs) in pairs.into_iter().chain([("kernel_thread", "kernel_thread"), ("executable", "exe")]) {
            assert_eq!(found[ours], expected[theirs], "{ours} of {pid}");
        }
        let name = found["name"].as_str().unwrap();
        let task_name = expected["name"].as_str().unwrap();
        if expected["kernel_thread"] == true {
            // The task holds 15 bytes of a name that the kernel also has in full.
            assert!(name.starts_with(task_name), "{name} and {task_name}");
        } else {
            assert_eq!(name, task_name);
        }
        assert_eq!(found["command_line"], expected["cmdline"], "command line of {pid}");
        let ticks = (found["start_time"].as_f64().unwrap() * 100.0).floor();
        assert_eq!(ticks, expected["start_ticks"].as_f64().unwrap(), "start of {pid}");
    }
}

#[test]
fn table_shows_each_process_once() {
    let truth = truth();
    let text = run("ps demo").complete();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().split_whitespace().eq(["PID", "PPID", "UID", "ST", "THR", "START", "NAME"]));
    let pids: Vec<u64> = lines.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
    let mut expected: Vec<u64> =
        list(&truth, "processes").iter().map(|process| process["pid"].as_u64().unwrap()).collect();
    expected.sort_unstable();
    assert_eq!(pids, expected);
}

#[test]
fn tree_has_the_same_processes_and_filters_work() {
    let sorted = |text: String| {
        let mut pids: Vec<String> = text.lines().skip(1).map(|line| line.trim_start()[..3].to_owned()).collect();
        pids.sort();
        pids
    };
    assert_eq!(sorted(run("ps demo --tree").complete()), sorted(run("ps demo").complete()));
    assert!(!run("ps demo --user-only").complete().contains('['));
    assert_eq!(run("ps demo --no-kernel").complete(), run("ps demo -u").complete());
    let workers = run("ps demo --name worker-pool").complete();
    assert_eq!(workers.lines().count(), 2, "{workers}");
    assert_eq!(run("ps demo --pid 1,2").complete().lines().count(), 3);
}

#[test]
fn process_that_does_not_exist() {
    for line in ["maps demo 4242", "read demo 0 --pid 4242", "translate demo 0 --pid 4242"] {
        assert_eq!(run(line).error(1), "no process with pid 4242 in this target", "{line}");
    }
    let listed = run("ps demo --pid 4242");
    assert_eq!((listed.code, listed.err.as_str()), (1, "warning: no process with pid 4242 in this target\n"));
}

#[test]
fn info_names_the_kernel() {
    let truth = truth();
    let found = run("info demo --json").json();
    for (ours, theirs) in [("release", "release"), ("hostname", "hostname"), ("version", "version")] {
        assert_eq!(found["kernel"][ours], truth[theirs]);
    }
    assert_eq!(found["kernel"]["architecture"], "x86-64 4-level");
    assert_eq!(found["kernel"]["system"], "Linux");
    let cr3 = hex(&found["target"]["vcpus"][0]["cr3"]);
    assert_eq!(cr3, truth["cr3"][0].as_u64().unwrap());
    let text = run("info demo").complete();
    assert!(text.contains(truth["release"].as_str().unwrap()), "{text}");
    assert!(text.contains("1, registers known"), "{text}");
    assert!(run("info demo -v").out.contains("found by"));
}

#[test]
fn maps_equal_the_guests_own() {
    let truth = truth();
    for expected in list(&truth, "maps") {
        let pid = &expected["pid"];
        let found = run(&format!("maps demo {pid} --json")).json();
        let found = list(&found, "regions");
        let expected = list(expected, "mappings");
        assert_eq!(found.len(), expected.len(), "{pid}");
        for (found, expected) in found.iter().zip(expected) {
            let start = hex(&found["start"]);
            assert_eq!(start, expected["start"].as_u64().unwrap());
            assert_eq!(start + found["size"].as_u64().unwrap(), expected["end"].as_u64().unwrap());
            for key in ["read", "write", "execute", "shared"] {
                assert_eq!(found[key], expected[key], "{key} at {start:#x} of {pid}");
            }
            assert_eq!(found["name"].as_str().unwrap_or_default(), expected["name"].as_str().unwrap_or_default());
            if found["kind"] == "file" {
                assert_eq!(hex(&found["offset"]), expected["offset"].as_u64().unwrap());
                assert_eq!(found["inode"], expected["inode"]);
            }
        }
    }
}

#[test]
fn page_tables_map_only_what_regions_hold() {
    let pid = pid_of(&truth(), "worker-pool");
    let regions = run(&format!("maps demo {pid} --json")).json();
    let runs = run(&format!("maps demo {pid} --page-tables --json")).json();
    let regions: Vec<(u64, u64)> = list(&regions, "regions")
        .iter()
        .map(|region| (hex(&region["start"]), hex(&region["start"]) + region["size"].as_u64().unwrap()))
        .collect();
    assert!(!list(&runs, "runs").is_empty());
    for run in list(&runs, "runs") {
        let (mut at, end) = (hex(&run["start"]), hex(&run["start"]) + run["size"].as_u64().unwrap());
        while at < end {
            let (_, region_end) = regions.iter().find(|(start, end)| (*start..*end).contains(&at)).unwrap();
            at = *region_end;
        }
        assert_eq!(run["user"], true);
    }
    let all = run(&format!("maps demo {pid} --page-tables --all --json")).json();
    assert!(list(&all, "runs").len() > list(&runs, "runs").len());
}

#[test]
fn thread_of_the_kernel_has_no_memory_of_its_own() {
    let run = run("maps demo 2");
    assert_eq!((run.code, run.out.as_str()), (0, ""));
    assert_eq!(run.err, "warning: process 2 is a thread of the kernel or has ended; it has no memory of its own\n");
}

#[test]
fn modules_equal_the_guests_own() {
    let truth = truth();
    let found = run("modules demo --json").json();
    let key = |module: &Value| (module["name"].clone(), module["size"].clone(), module["state"].clone());
    let found_keys: Vec<_> = list(&found, "modules").iter().map(key).collect();
    let expected: Vec<_> = list(&truth, "modules").iter().map(key).collect();
    assert_eq!(found_keys, expected);
    for (found, expected) in list(&found, "modules").iter().zip(list(&truth, "modules")) {
        assert_eq!(hex(&found["base"]), expected["base"].as_u64().unwrap());
    }
}

#[test]
fn symbols_have_the_guests_addresses() {
    let truth = truth();
    let found = run("symbols demo --json").json();
    let mut addresses: HashMap<&str, Vec<u64>> = HashMap::new();
    for symbol in list(&found, "symbols") {
        addresses.entry(symbol["name"].as_str().unwrap()).or_default().push(hex(&symbol["address"]));
    }
    assert!(list(&truth, "symbols").len() > 100);
    for symbol in list(&truth, "symbols") {
        assert_eq!(addresses[symbol["name"].as_str().unwrap()], [symbol["address"].as_u64().unwrap()], "{symbol}");
    }
}

#[test]
fn symbols_are_found_by_text_pattern_and_address() {
    let one = run("symbols demo linux_bann[e]r").complete();
    assert!(one.ends_with(" linux_banner\n") && one.lines().count() == 1, "{one}");
    assert!(run("symbols demo linux_banne").complete().contains("linux_banner\n"));
    assert_eq!(run("symbols demo --limit 3").complete().lines().count(), 3);
    let address = one.split(' ').next().unwrap();
    let at = run(&format!("symbols demo --at 0x{address}")).complete();
    assert_eq!(at, one);
    let nothing = run("symbols demo no_such_symbol_at_all");
    assert_eq!((nothing.code, nothing.err.as_str()), (1, "warning: no symbol has such a name\n"));
    assert_eq!(run("symbols demo --at 5").error(1), "no kernel symbol for address 0x5 in this target");
}

#[test]
fn log_begins_with_the_banner() {
    let truth = truth();
    let text = run("dmesg demo").complete();
    assert_eq!(text.lines().next().unwrap(), format!("[    0.000000] {}", truth["version"].as_str().unwrap()));
    assert!(text.contains(truth["cmdline"].as_str().unwrap()));
    let records = run("dmesg demo --json").json();
    assert!(list(&records, "records").len() > 50);
    assert!(run("dmesg demo --level notice").complete().len() < text.len());
}

#[test]
fn kernel_memory_is_read_by_symbol() {
    let truth = truth();
    let banner = truth["version"].as_str().unwrap();
    assert_eq!(run("read demo linux_banner --string").complete(), format!("{banner}\\n\n"));
    let dump = run("read demo linux_banner 16").complete();
    assert!(dump.ends_with(&format!("|{}|\n{:016x}\n", &banner[..16], 16 + address_of("linux_banner"))), "{dump}");
    assert_eq!(run("read demo linux_banner+6 7 --raw").complete(), banner[6..13]);
    let bytes = run("read demo linux_banner 5 --json").json();
    assert_eq!(bytes["bytes"], "4c696e7578");
    assert_eq!(run("read demo no_such_symbol").error(1), "no kernel symbol no_such_symbol in this target");
    assert_eq!(
        run("read demo ffffffff81000000").error(1),
        "no kernel symbol ffffffff81000000 in this target; hexadecimal addresses start with 0x"
    );
}

fn address_of(symbol: &str) -> u64 {
    let truth = truth();
    let found = list(&truth, "symbols").iter().find(|found| found["name"] == symbol).unwrap();
    found["address"].as_u64().unwrap()
}

#[test]
fn memory_of_a_process_is_its_own() {
    let truth = truth();
    let pid = pid_of(&truth, "worker-pool");
    let maps = run(&format!("maps demo {pid} --json")).json();
    let known = list(&maps, "regions").iter().find(|region| region["name"] == "/etc/known.txt").unwrap();
    let start = known["start"].as_str().unwrap();
    let text = run(&format!("read demo {start} 4096 --raw --pid {pid}")).complete();
    assert!(text.starts_with("line 0000 of a text that memory must hold\nline 0001 "), "{text}");
    let kernel = run(&format!("read demo {start} 16"));
    assert_eq!(kernel.code, 1, "{}", kernel.out);
    assert!(kernel.out.contains("?? ?? ??"));
    assert!(kernel.err.contains("cannot be read: not present at level"), "{}", kernel.err);
}

#[test]
fn unreadable_bytes_are_filled_only_by_name() {
    let error = run("read demo 0x10 4 --raw").error(1);
    assert!(error.starts_with("4 bytes at 0x10 cannot be read: not present at level 4 (table 0x"), "{error}");
    let filled = run("read demo 0x10 4 --raw --fill 0x2e");
    assert_eq!((filled.code, filled.out.as_str()), (0, "...."));
    assert!(filled.err.starts_with("warning: 4 bytes at 0x10 cannot be read"), "{}", filled.err);
    assert_eq!(run("read demo 0x10 4 --raw --fill 0x2e --quiet").complete(), "....");
    let json = run("read demo 0x10 4 --json");
    let document: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, &document["bytes"], &document["gaps"][0]["length"]), (1, &"????????".into(), &4.into()));
    assert_eq!(run("read demo 0xffffffffffffffff 2").error(1), "2 bytes at 0xffffffffffffffff leave the address space");
}

#[test]
fn translation_goes_both_ways() {
    let forth = run("translate demo linux_banner --json").json();
    assert_eq!(hex(&forth["virtual"]), address_of("linux_banner"));
    let steps = list(&forth, "steps");
    assert_eq!(steps.len() as u64, 5 - forth["level"].as_u64().unwrap());
    assert_eq!(steps[0]["level"], 4);
    let physical = forth["physical"].as_str().unwrap();
    let back = run(&format!("translate demo --reverse {physical} --json")).json();
    assert!(list(&back, "virtual").contains(&forth["virtual"]));
    let banner = run(&format!("read demo {physical} --string --phys")).complete();
    assert!(banner.starts_with("Linux version "), "{banner}");
    // The last entry shown leads to the page: its address bits are those of the physical address.
    let page = forth["page_size"].as_u64().unwrap();
    assert_eq!(
        hex(&steps.last().unwrap()["entry"]) & 0x000f_ffff_ffff_f000 & !(page - 1),
        hex(&forth["physical"]) & !(page - 1)
    );
    let text = run("translate demo linux_banner").complete();
    assert!(text.contains("LEVEL  TABLE"), "{text}");
}

#[test]
fn address_that_is_not_mapped_shows_where_the_walk_ended() {
    let failed = run("translate demo 0x1000");
    assert_eq!(failed.code, 1);
    assert!(failed.err.starts_with("error: 0x1000 is not mapped: not present at level 4 (table 0x"), "{}", failed.err);
    assert!(failed.out.starts_with("LEVEL  TABLE"), "{}", failed.out);
    let failed = run("translate demo 0x800000000000");
    assert_eq!(failed.err, "error: 0x800000000000 is not mapped: not an address of this paging mode\n");
}

#[test]
fn page_tables_can_be_named() {
    let address = format!("{:#x}", address_of("linux_banner"));
    let expected = run(&format!("translate demo {address} --json")).json()["physical"].clone();
    let root = run("info demo --json").json()["kernel"]["page_table_root"].as_str().unwrap().to_owned();
    for tables in [
        "--vcpu 0".to_owned(),
        "--vcpu 0 --paging 4level".to_owned(),
        format!("--root {root}"),
        format!("--root {root} --paging 4level"),
    ] {
        let found = run(&format!("translate demo {address} --json {tables}")).json();
        assert_eq!(found["physical"], expected, "{tables}");
        let text = run(&format!("read demo {address} --string {tables}")).complete();
        assert!(text.starts_with("Linux version "), "{tables}: {text}");
    }
    let error = run("translate demo 0 --vcpu 1").error(1);
    assert_eq!(error, "there is no vCPU 1: the target has the registers of 1 vCPU");
    assert_eq!(run("translate demo 0 --paging pae").error(2), "--paging needs --vcpu or --root");
    let error = run("translate demo linux_banner --vcpu 0").error(2);
    assert_eq!(error, "`linux_banner` is a symbol of the kernel; with --vcpu or --root an address is a number");
}

#[test]
fn every_command_speaks_json() {
    for line in [
        "ps demo",
        "info demo",
        "maps demo 1",
        "maps demo 1 --page-tables",
        "modules demo",
        "symbols demo --limit 5",
        "symbols demo --at schedule",
        "dmesg demo",
        "read demo linux_banner 16",
        "read demo linux_banner --string",
        "translate demo linux_banner",
    ] {
        let document = run(&format!("{line} --json")).json();
        assert_eq!(document["problems"], Value::Array(Vec::new()), "{line}");
    }
}
