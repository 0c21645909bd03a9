//! Each example on the demo snapshot prints what the guest said about itself (`memflow-cli/demo/truth.json`).

use std::process::Command;

use serde_json::Value;

fn truth() -> Value {
    serde_json::from_str(include_str!("../../memflow-cli/demo/truth.json")).unwrap()
}

/// The lines that a program prints for the demo snapshot.
fn lines(program: &str) -> Vec<String> {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../memflow-cli/demo/demo.elf.zst");
    let output = Command::new(program).arg(demo).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
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
