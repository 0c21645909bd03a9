//! Chains: the memory of a process of the demo guest as the memory of a machine. That a real machine is found in such memory is shown
//! in `tests/nested.rs`; here it is about links, their order and what is said of them.

use super::{
    plugins::loaded,
    util::{Run, run},
};

/// A process of the demo guest: its first page of text as physical memory from 0 on.
const INIT: &str = "process:init:runs=0-0xfff@0x400000";

/// What is printed with built-in plugins and with loaded ones.
fn both(line: &str) -> String {
    let (one, other) = (run(line), loaded(line));
    assert_eq!((one.code, &one.out, &one.err), (other.code, &other.out, &other.err), "{line}");
    one.complete()
}

/// The bytes of a hexdump, without their addresses.
fn bytes(dump: &str) -> Vec<&str> {
    dump.lines().filter_map(|line| line.split_once("  ").map(|(_, bytes)| bytes)).collect()
}

#[test]
fn memory_of_a_process_is_that_of_a_machine() {
    let expected = run("read demo 0x400000 4096 --pid 1").complete();
    for connector in [INIT, "process:1:runs=0-0xfff@0x400000"] {
        let found = both(&format!("read demo -c {connector} 0 4096 --phys"));
        assert_eq!(bytes(&found), bytes(&expected));
    }
    let error = run(&format!("read demo -c {INIT} 0x1000 8 --phys"));
    assert_eq!((error.code, error.err.contains("is not in the image")), (1, true), "{}", error.err);
}

#[test]
fn same_chain_is_written_in_several_ways() {
    let expected = both(&format!("read demo -c {INIT} 0 64 --phys"));
    for line in [
        format!("read demo -o linux -c {INIT} 0 64 --phys"),
        format!("read demo -o linux -c {INIT} -o linux 0 64 --phys"),
        format!("read demo 0 64 --phys --os=linux --connector={INIT}"),
        format!("read -c snapshot:demo -o linux -c {INIT} -o linux 0 64 --phys"),
        format!("read --phys -o linux -csnapshot:demo -c {INIT} 0 64"),
        format!("read snapshot:demo:cache=4MiB -c {INIT},cache=1MiB 0 64 --phys"),
    ] {
        assert_eq!(both(&line), expected, "{line}");
    }
}

#[test]
fn description_names_the_whole_chain() {
    let document = run(&format!("info demo -c {INIT} --json"));
    assert_eq!(document.code, 3, "there is no kernel in a page of text: {}", document.err);
    assert!(document.err.starts_with("error: link 4 (OS layer linux): no Linux kernel found; "), "{}", document.err);
    let document: serde_json::Value = serde_json::from_str(&document.out).unwrap();
    let target = &document["target"];
    assert_eq!(target["name"], format!("demo -o linux -c {INIT}"));
    assert_eq!(target["format"], "process init (1) of Linux 6.12.107+deb13-cloud-amd64");
    assert_eq!((&target["memory_size"], &target["read_only"]), (&4096.into(), &true.into()));
    assert!(document["problems"][0].as_str().unwrap().starts_with("link 4 (OS layer linux): "));
}

#[test]
fn each_failure_names_its_link() {
    let error = |line: &str, code: i32| {
        let (one, other) = (run(line).error(code), loaded(line).error(code));
        assert_eq!(one, other, "{line}");
        one
    };
    assert_eq!(error("ps demo -c process:nobody", 3), "link 3 (connector process): no process nobody in this target");
    assert_eq!(
        error("ps demo -c process:init -c process:x -o linux", 3).split(':').next(),
        Some("link 4 (OS layer linux)"),
    );
    let misspelt = error("ps demo -c process:1:run=5", 3);
    assert!(
        misspelt.starts_with("link 3 (connector process): unknown argument `run`, did you mean `runs`?"),
        "{misspelt}"
    );
    assert_eq!(
        error("ps /no/such/file -c process:1", 3),
        "link 1 (connector snapshot): opening /no/such/file: No such file or directory (os error 2)"
    );
    assert_eq!(
        error("ps process:init", 3),
        "link 1 (connector process): this connector at the start of a chain is not supported: it looks into an operating system; put the \
         connector and the OS layer of that one before it"
    );
    assert!(error("ps demo -c snapshot:demo", 3).contains("put it first"));
}

#[test]
fn options_that_make_no_chain_are_wrong_usage() {
    let refused = |line: &str| {
        let Run { code, out, err } = run(line);
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        err
    };
    assert!(refused("ps demo -o linux -o linux").contains("OS layers linux and linux follow each other"));
    assert!(refused("ps demo -c process:a:b:c").contains("'--connector <CONNECTOR>': `process:a:b:c`, character 12"));
    assert!(refused("ps demo -o linux:x=1,").contains("'--os <OS>'"));
    // A first -c is TARGET, so this names two.
    assert!(refused("ps -c snapshot:demo demo").contains("unexpected argument 'demo'"));
    assert!(refused("ps -c snapshot:demo --layout flat").contains("--layout and --partial are for files"));
    assert!(refused("ps -o linux").contains("<TARGET>"));
}

/// The file of `dump` has had `-o` before chains had it.
#[test]
fn dump_keeps_its_own_o() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("page");
    let line = format!("dump demo --os linux -c {INIT} --phys 0+16 -o {}", out.display());
    run(&line).complete();
    assert_eq!(std::fs::read(out).unwrap()[..4], *b"\x7fELF");
}

#[test]
fn metrics_are_told_at_the_end() {
    let plain = run("ps demo").complete();
    let Run { code, out, err } = run("ps snapshot:demo:metrics");
    assert_eq!((code, out), (0, plain.clone()));
    let line = err.strip_suffix('\n').unwrap();
    assert!(line.starts_with("metrics: snapshot:demo:metrics: reads: ") && !line.contains('\n'), "{err}");
    assert!(line.contains(" calls, ") && !line.contains(": 0 calls"), "{err}");
    assert_eq!(run("ps snapshot:demo:metrics --quiet").complete(), plain);

    let both = run(&format!("read snapshot:demo:metrics -c {INIT},metrics 0 16 --phys")).err;
    let lines: Vec<&str> = both.lines().collect();
    assert!(
        lines.len() == 2
            && lines[0].starts_with("metrics: snapshot:demo:metrics: reads: ")
            && lines[1]
                .starts_with("metrics: process:init:runs=0-0xfff@0x400000,metrics: reads: 1 calls, 1 operations"),
        "{both}"
    );
    // Also when the command fails.
    let failed = run("read snapshot:demo:metrics no_such_symbol").err;
    assert!(failed.starts_with("error: ") && failed.contains("\nmetrics: snapshot:demo:metrics: reads: "), "{failed}");
}

#[test]
fn metrics_are_part_of_the_description() {
    let described = run("info snapshot:demo:metrics --json");
    let document: serde_json::Value = serde_json::from_str(&described.out).unwrap();
    let metrics = document["metrics"].as_array().unwrap();
    assert_eq!((metrics.len(), &metrics[0]["target"]), (1, &"snapshot:demo:metrics".into()));
    let reads = &metrics[0]["reads"];
    assert!(reads["calls"].as_u64().unwrap() > 0 && reads["bytes"].as_u64().unwrap() > 4096, "{reads}");
    assert_eq!((&reads["failed"], &metrics[0]["writes"]["calls"]), (&0.into(), &0.into()));
    assert_eq!(run("info demo --json").json()["metrics"], serde_json::json!([]));
}
