//! The connector `kcore` inside guests: the command of this tree runs on the guest's own kernel, and the guest's `/proc` is the judge.

use std::collections::BTreeMap;

use memflow_core::{MemoryViewExt, VirtAddr, os::Os};
use memflow_guests::{Addition, Error, Guests};
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_snapshot::OpenOptions;
use memflow_tests::built;
use serde_json::Value;

/// What the guest does. A list of processes may be caught in the middle of a change; the command then says so and is asked again.
const SCRIPT: &str = r#"
processes() { for dir in /proc/[0-9]*; do read -r name <$dir/comm && echo "${dir#/proc/} $name"; done 2>/dev/null; }
json() {
    echo "@@$1"; name=$1; shift
    for try in 1 2 3 4 5 6; do memflow "$@" --json >/tmp/out 2>/tmp/err && break; done
    cat /tmp/out; echo "@@$name-errors"; cat /tmp/err
}
echo; echo '@@before'; processes
json ps ps -c kcore --no-cache
json info info -c kcore --no-cache
json modules modules -c kcore --no-cache
echo '@@after'; processes
echo '@@iomem'; cat /proc/iomem
echo '@@proc-modules'; cat /proc/modules
echo '@@banner'; memflow read -c kcore linux_banner 4096 2>/tmp/err
json elsewhere info -c kcore:/proc/self/cwd/proc/kcore --no-cache
echo '@@worker'; busybox su worker -c '/addition/memflow info -c kcore'
mount -t securityfs none /sys/kernel/security && echo confidentiality >/sys/kernel/security/lockdown
echo '@@locked'; memflow info -c kcore
"#;

#[test]
fn command_inside_a_four_level_guest_sees_the_kernel_it_runs_on() {
    inside("amd64-6.12-4level-pti");
}

#[test]
fn command_inside_a_five_level_guest_sees_the_kernel_it_runs_on() {
    inside("amd64-6.1-5level-pti");
}

fn inside(name: &str) {
    let guests = Guests::locate().unwrap();
    let spec = Guests::spec(name).unwrap();
    let mut tries = 0;
    let (guest, output) = loop {
        let addition = Addition::script(SCRIPT).with_program(&built().memflow, "memflow").unwrap();
        let mut guest = guests.boot_with(spec, addition).unwrap();
        match guest.script_output() {
            Ok(output) => break (guest, output),
            // Emulated kernels die now and then, on QEMU's account.
            Err(Error::Ended { .. }) if tries < 4 => tries += 1,
            Err(error) => panic!("{name}: {error}"),
        }
    };
    let sections = sections(&output);
    let section = |name: &str| sections.get(name).unwrap_or_else(|| panic!("no section {name} in {output}")).as_str();
    let json = |name: &str| -> Value {
        let text = section(name);
        let errors = section(&format!("{name}-errors"));
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}\n{errors}"))
    };

    same_processes(&json("ps"), &processes(section("before")), &processes(section("after")));
    let info = json("info");
    same_memory(&info, section("iomem"));
    same_modules(&json("modules"), section("proc-modules"));
    assert_eq!(json("elsewhere").get("kernel"), info.get("kernel"));

    let refused = section("worker");
    assert!(refused.contains("opening /proc/kcore (it takes root with CAP_SYS_RAWIO"), "{refused}");
    let locked = section("locked");
    assert!(locked.contains("opening /proc/kcore (the kernel is locked down:"), "{locked}");

    // Its text does not change, so the guest's RAM says the same from outside.
    let memory = memflow_snapshot::open(&guest.ram_path(), &OpenOptions::default()).unwrap().memory;
    let os = LinuxOs::open(memory, &LinuxOptions::default()).unwrap();
    let (address, bytes) = hexdump(section("banner"));
    assert_eq!(bytes.len(), 4096);
    let mut expected = vec![0; 4096];
    os.kernel_view().read_into(VirtAddr::new(address), &mut expected).unwrap();
    assert!(bytes == expected, "{address:#x}");
    assert!(bytes.starts_with(b"Linux version "), "{address:#x}");
}

/// What was printed behind each line that begins with `@@`.
fn sections(output: &str) -> BTreeMap<String, String> {
    let mut sections = BTreeMap::new();
    for part in output.split("\n@@").skip(1) {
        let (name, text) = part.split_once('\n').unwrap_or((part, ""));
        sections.insert(name.to_owned(), text.to_owned());
    }
    sections
}

fn processes(text: &str) -> BTreeMap<u64, String> {
    let line = |line: &str| line.split_once(' ').and_then(|(pid, name)| Some((pid.parse().ok()?, name.to_owned())));
    text.lines().filter_map(line).collect()
}

/// Who was there before and after is listed under its name; who is listed was there before or after, or is the command itself.
fn same_processes(document: &Value, before: &BTreeMap<u64, String>, after: &BTreeMap<u64, String>) {
    assert_eq!(document["problems"].as_array().map(Vec::len), Some(0), "{document}");
    let listed: BTreeMap<u64, &str> = document["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| (process["pid"].as_u64().unwrap(), process["name"].as_str().unwrap()))
        .collect();
    assert!(listed.len() > 30, "{listed:?}");
    let stayed = before.iter().filter(|(pid, name)| after.get(pid) == Some(name));
    for (pid, name) in stayed {
        let found = listed.get(pid).unwrap_or_else(|| panic!("{name} ({pid}) is missing in {listed:?}"));
        // A worker's name has what it works on behind it, in /proc alone.
        assert!(found == name || name.starts_with("kworker/"), "{pid}: {found}, not {name}");
    }
    for (pid, name) in listed {
        assert!(before.contains_key(&pid) || after.contains_key(&pid) || name == "memflow", "{name} ({pid}) is nobody");
    }
}

/// The memory is System RAM, to the page.
fn same_memory(info: &Value, iomem: &str) {
    let ranges = iomem.lines().filter(|line| line.ends_with(": System RAM"));
    let pages = ranges.map(|line| {
        let (first, last) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let address = |text: &str| u64::from_str_radix(text, 16).unwrap();
        // Whole pages only, as the kernel counts them.
        (address(last) + 1) / 4096 - address(first).div_ceil(4096)
    });
    let bytes = pages.sum::<u64>() * 4096;
    assert_eq!(info["target"]["memory_size"].as_u64(), Some(bytes), "{info}");
}

fn same_modules(document: &Value, modules: &str) {
    let names = |names: Vec<&str>| {
        let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    let listed = document["modules"].as_array().unwrap().iter().map(|module| module["name"].as_str().unwrap());
    let expected = modules.lines().filter_map(|line| line.split(' ').next());
    assert_eq!(names(listed.collect()), names(expected.collect()));
    assert!(!modules.is_empty());
}

/// The address and the bytes of a hexdump.
fn hexdump(text: &str) -> (u64, Vec<u8>) {
    let first = text.lines().find(|line| line.len() > 16).unwrap().split(' ').next().unwrap();
    let bytes = text.lines().flat_map(|line| {
        let columns = line.split_once("  ").map_or("", |(_, rest)| rest.split('|').next().unwrap_or_default());
        columns.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect::<Vec<u8>>()
    });
    (u64::from_str_radix(first, 16).unwrap(), bytes.collect())
}
