//! Windows images: what the command prints is what was built, and of the sparse image of a real machine, what is known of it.
//!
//! Must not know: the OS layer. The built machine and its lists are from a generator that shares no code with it.

use std::path::{Path, PathBuf};

use memflow_windows_images::{
    Architecture, Contents, Description, OffsetTable, ProcessDescription, Windows,
    truth::{Process, Truth},
};
use serde_json::Value;

use super::util::{Run, run_in};

/// A built machine as a LiME file `windows.lime`.
struct Machine {
    folder: tempfile::TempDir,
    windows: Windows,
}

impl Machine {
    fn new() -> Self {
        Self::with(Contents::Touched)
    }

    /// With all of its RAM, or only pages that are not zero.
    fn with(contents: Contents) -> Self {
        let offsets = OffsetTable::embedded().unwrap().build("10.0.19041").unwrap().clone();
        let mut editor =
            ProcessDescription::new(4_000, 2_096, r"C:\Program Files (x86)\Editor\a long editor's name.exe");
        editor.wow64 = true;
        editor.command_line = "\"editor.exe\" --open \"C:\\some file.txt\"".to_owned();
        let mut ended = ProcessDescription::new(4_004, 2_096, r"C:\Windows\System32\ended.exe");
        ended.ended = true;
        let mut description = Description::new(7, Architecture::X64Shadow, offsets).process(editor).process(ended);
        description.ram = 128 << 20;
        let windows = description.build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        windows.write_lime(&folder.path().join("windows.lime"), contents).unwrap();
        Self { folder, windows }
    }

    fn truth(&self) -> &Truth {
        &self.windows.truth
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command line in the folder of the machine.
    fn run(&self, line: &str) -> Run {
        run_in(self.path(), line.split_whitespace())
    }

    fn process(&self, name: &str) -> &Process {
        self.truth().processes.iter().find(|process| process.path.ends_with(name)).unwrap()
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key}: {value}"))
}

fn hex(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

/// The name that a list shows: whole where the path is known, else 14 bytes.
fn name(process: &Process) -> &str {
    match process.device_path.rsplit('\\').next() {
        Some(name) if !name.is_empty() => name,
        _ => &process.short_name,
    }
}

#[test]
fn processes_equal_those_that_were_built() {
    let machine = Machine::new();
    let found = machine.run("ps windows.lime --long --json").json();
    let (found, expected) = (list(&found, "processes"), &machine.truth().processes);
    assert_eq!(found.len(), expected.len());
    let shared = &machine.truth().shared_data;
    let boot = shared.system_time - shared.tick_count * 156_250;
    for (found, expected) in found.iter().zip(expected) {
        let pid = expected.pid;
        assert_eq!((&found["pid"], &found["parent_pid"]), (&pid.into(), &expected.parent.into()));
        assert_eq!(found["name"], name(expected), "{pid}");
        assert_eq!((&found["uid"], &found["gid"]), (&Value::Null, &Value::Null));
        assert_eq!(found["state"], if expected.exit_time.is_some() { "Z" } else { "R" }, "{pid}");
        assert_eq!(found["threads"], expected.threads.len(), "{pid}");
        assert_eq!(hex(&found["address"]), expected.eprocess);
        assert_eq!(hex(&found["page_table_root"]), expected.dtb);
        let started = expected.create_time.saturating_sub(boot) as f64 / 1e7;
        assert!(
            (found["start_time"].as_f64().unwrap() - started).abs() < 1e-3,
            "{pid}: {} and {started}",
            found["start_time"]
        );
        let kernel = expected.path.is_empty();
        assert_eq!(found["kernel_thread"], kernel, "{pid}");
        if !kernel {
            assert_eq!(found["executable"], *expected.device_path, "{pid}");
        }
        let line: &[&str] = match &*expected.command_line {
            "" => &[],
            line => &[line],
        };
        assert_eq!(found["command_line"], Value::from(line), "{pid}");
    }
}

#[test]
fn table_tree_and_filters_show_the_same_processes() {
    let machine = Machine::new();
    let table = machine.run("ps windows.lime").complete();
    let mut lines = table.lines();
    assert!(lines.next().unwrap().split_whitespace().eq(["PID", "PPID", "UID", "ST", "THR", "START", "NAME"]));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    let pids: Vec<String> = machine.truth().processes.iter().map(|process| process.pid.to_string()).collect();
    assert!(rows.iter().map(|row| row[0]).eq(pids.iter().map(String::as_str)), "{table}");
    // There are no numbers of users on Windows.
    assert!(rows.iter().all(|row| row[2] == "-"), "{table}");
    assert!(rows[0][6] == "[System]" && table.contains("  a long editor's name.exe\n"), "{table}");

    let tree = machine.run("ps windows.lime --tree").complete();
    assert_eq!(tree.lines().count(), table.lines().count());
    assert!(tree.contains("  smss.exe\n") && tree.contains("    a long editor's name.exe\n"), "{tree}");
    assert_eq!(machine.run("ps windows.lime --user-only --name csrss").complete().lines().count(), 3);
    assert_eq!(machine.run("maps windows.lime 4242").error(1), "no process with pid 4242 in this target");
}

#[test]
fn kernel_is_named_with_how_it_was_found() {
    let machine = Machine::new();
    let found = machine.run("info windows.lime --json").json();
    let (kernel, truth) = (&found["kernel"], machine.truth());
    assert_eq!((&kernel["system"], &kernel["release"]), (&"Windows".into(), &"10.0.19041".into()));
    assert_eq!(hex(&kernel["base"]), truth.kernel.base);
    assert_eq!(hex(&kernel["page_table_root"]), truth.dtb);
    assert_eq!(kernel["build_id"], format!("{}{:X}", truth.kernel.guid, truth.kernel.age));
    let text = machine.run("info windows.lime -v").complete();
    assert!(text.contains("found by") && text.contains("Windows 10.0.19041 (ntkrnlmp.pdb"), "{text}");
    // The system is named by itself, and refused where it is not.
    machine.run("ps windows.lime -o win32").complete();
    let error = machine.run("ps windows.lime -o linux").error(3);
    assert!(error.contains("no Linux kernel found; looked for "), "{error}");
    let error = machine.run("ps windows.lime -o win32:arch=x86").error(3);
    assert!(error.contains("no Windows kernel found; looked for "), "{error}");
    let error = machine.run("ps windows.lime -o win32:arch=arm").error(3);
    assert!(error.contains("arch") && error.contains("x86-pae"), "{error}");
}

#[test]
fn modules_equal_those_that_were_built() {
    let machine = Machine::new();
    let key = |module: &Value| {
        (module["name"].as_str().unwrap().to_owned(), hex(&module["base"]), module["size"].as_u64().unwrap())
    };
    let expected = |modules: &[memflow_windows_images::truth::Module]| -> Vec<_> {
        modules.iter().map(|module| (module.name.clone(), module.base, module.size)).collect()
    };
    let found = machine.run("modules windows.lime --json").json();
    let found: Vec<_> = list(&found, "modules").iter().map(key).collect();
    assert_eq!(found, expected(&machine.truth().drivers));
    for process in ["explorer.exe", "editor's name.exe"].map(|name| machine.process(name)) {
        let found = machine.run(&format!("modules windows.lime --pid {} --json", process.pid)).json();
        let found: Vec<_> = list(&found, "modules").iter().map(key).collect();
        let mut all = expected(&process.modules);
        // The executable is in both lists of a process of 32-bit code.
        all.extend(expected(&process.modules32).into_iter().filter(|module| !all.contains(module)).collect::<Vec<_>>());
        assert_eq!(found, all, "{}", process.path);
    }
    assert_eq!(machine.run("modules windows.lime --pid 4").complete().lines().count(), 1);
    assert_eq!(machine.run("modules windows.lime --pid 4242").error(1), "no process with pid 4242 in this target");
}

#[test]
fn regions_equal_those_that_were_built() {
    let machine = Machine::new();
    for process in &machine.truth().processes {
        let found = machine.run(&format!("maps windows.lime {} --json", process.pid)).json();
        let found: Vec<_> = list(&found, "regions")
            .iter()
            .map(|region| {
                (hex(&region["start"]), region["size"].as_u64().unwrap(), region["name"].as_str().map(str::to_owned))
            })
            .collect();
        let expected: Vec<_> =
            process.vads.iter().map(|vad| (vad.start, vad.last - vad.start + 1, vad.file.clone())).collect();
        assert_eq!(found, expected, "{}", process.pid);
    }
    let explorer = machine.process("explorer.exe");
    let tables = machine.run(&format!("maps windows.lime {} --page-tables --json", explorer.pid)).json();
    let mapped: u64 = list(&tables, "runs").iter().map(|run| run["size"].as_u64().unwrap()).sum();
    let present = explorer.pages.iter().filter(|page| page.state == memflow_windows_images::truth::PageState::Valid);
    assert!(mapped > 0 && mapped <= present.map(|page| page.size).sum());
}

#[test]
fn exports_are_the_symbols() {
    let machine = Machine::new();
    let kernel = &machine.truth().kernel;
    let found = machine.run("symbols windows.lime --json").json();
    let found = list(&found, "symbols");
    for export in &kernel.exports {
        let symbol = found.iter().find(|symbol| symbol["name"] == *export.name && symbol["module"].is_null());
        let symbol = symbol.unwrap_or_else(|| panic!("{}", export.name));
        assert_eq!(hex(&symbol["address"]), kernel.base + u64::from(export.rva), "{}", export.name);
    }
    let in_modules: usize = machine.truth().drivers.iter().skip(1).map(|driver| driver.exports.len()).sum();
    assert_eq!(found.len(), kernel.exports.len() + in_modules);
    let one = machine.run("symbols windows.lime PsGetProcessPeb").complete();
    let peb = kernel.exports.iter().find(|export| export.name == "PsGetProcessPeb").unwrap();
    let inside = kernel.base + u64::from(peb.rva) + 3;
    let at = machine.run(&format!("symbols windows.lime --at {inside:#x}")).complete();
    assert_eq!(at, one.replace(" PsGetProcessPeb", " PsGetProcessPeb+0x3"));
    let hal = machine.run("symbols windows.lime KeStallExecutionProcessor").complete();
    assert!(hal.ends_with("\t[hal.dll]\n"), "{hal}");
}

#[test]
fn memory_is_read_searched_and_translated() {
    let machine = Machine::with(Contents::All);
    let build = machine.run("read windows.lime NtBuildNumber 4 --json").json();
    assert_eq!(build["bytes"], "614a00f0");
    let magic = machine.run(&format!("read windows.lime {:#x} 2 --raw", machine.truth().kernel.base)).complete();
    assert_eq!(magic, "MZ");

    let editor = machine.process("editor's name.exe");
    let pid = editor.pid.to_string();
    let open = ["find", "windows.lime", "--json", "--pid", &pid, "--utf16=--open \"C:\\some file.txt\""];
    let found = run_in(machine.path(), open).json();
    assert!(!list(&found, "matches").is_empty(), "{found}");
    let strings = machine.run(&format!("strings windows.lime --pid {} --encoding utf16 --min 20", editor.pid)).out;
    assert!(strings.contains("--open \"C:\\some file.txt\"") || strings.contains("--open \\\"C:"), "{strings}");

    let page = editor
        .pages
        .iter()
        .find(|page| {
            page.physical.is_some()
                && page.size == 0x1000
                && page.state == memflow_windows_images::truth::PageState::Valid
        })
        .unwrap();
    let line = format!("translate windows.lime {:#x} --pid {} --json", page.address, editor.pid);
    let forth = machine.run(&line).json();
    assert_eq!(Some(hex(&forth["physical"])), page.physical);
    let back = machine
        .run(&format!("translate windows.lime --reverse {:#x} --everywhere --json", page.physical.unwrap()))
        .json();
    let of_editor = list(&back, "mappings").iter().filter(|one| one["pid"] == editor.pid);
    assert!(of_editor.map(|one| hex(&one["virtual"])).any(|at| at == page.address), "{back}");
}

#[test]
fn log_of_the_kernel_is_refused_with_the_reason() {
    let error = Machine::new().run("dmesg windows.lime").error(1);
    assert!(error.starts_with("the kernel log of Windows") && error.contains("event log"), "{error}");
}

#[test]
fn dumps_and_converted_files_hold_the_same_machine() {
    let machine = Machine::new();
    machine.windows.write_crash_dump(&machine.path().join("memory.dmp")).unwrap();
    let expected = machine.run("ps windows.lime --json").json();
    for (line, file) in [
        ("dump windows.lime -o copy.elf -q", "copy.elf"),
        ("convert copy.elf copy.lime.zst -q", "copy.lime.zst"),
        ("convert copy.lime.zst copy.raw --fill-gaps zero -q", "copy.raw"),
        // The header of a crash dump has what its formats ask for.
        ("convert memory.dmp again.elf -q", "again.elf"),
        ("convert again.elf again.dmp -q", "again.dmp"),
        ("convert again.dmp again.kdump -q", "again.kdump"),
    ] {
        machine.run(line).complete();
        let found = machine.run(&format!("ps {file} --json")).json();
        assert_eq!(found, expected, "{line}");
    }
    let same = machine.run("diff memory.dmp again.kdump --json").json();
    assert_eq!((&same["changed_pages"], &same["problems"]), (&0.into(), &Value::Array(Vec::new())));
    // A page of a process, changed.
    let explorer = machine.process("explorer.exe");
    let page = explorer.pages.iter().find(|page| page.address == explorer.peb).unwrap();
    let mut windows = machine.windows.clone();
    windows.write(page.physical.unwrap() + 0x900, b"something else");
    windows.write_lime(&machine.path().join("later.lime"), Contents::Touched).unwrap();
    let diff = machine.run("diff windows.lime later.lime --json").json();
    assert_eq!(diff["changed_pages"], 1);
    let changed: Vec<&Value> = list(&diff, "processes").iter().collect();
    assert_eq!(changed.len(), 1, "{diff}");
    assert_eq!((&changed[0]["pid"], &changed[0]["changed_pages"]), (&explorer.pid.into(), &1.into()));
    // A region of a process to a file.
    let line = format!("dump windows.lime -o block --pid {} --range {:#x}+0x1000 -q", explorer.pid, explorer.peb);
    machine.run(&line).complete();
    assert_eq!(std::fs::read(machine.path().join("block")).unwrap().len(), 0x1000);
}

#[test]
fn crash_dump_of_the_system_is_opened_by_its_header() {
    let machine = Machine::new();
    machine.windows.write_crash_dump(&machine.path().join("memory.dmp")).unwrap();
    let expected = machine.run("ps windows.lime --json").json();
    assert_eq!(machine.run("ps memory.dmp --json").json(), expected);
    let told = machine.run("info memory.dmp -v");
    assert_eq!((told.code, &*told.err), (0, "note: a complete dump\n"));
    assert!(told.out.contains("page tables named by the dump's header"), "{}", told.out);
}

/// The real image as it is in the source tree.
fn sparse() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../os/win32/tests/data/win10-17763-x64-sparse.lime.zst")
}

/// Runs a command line on the real image.
fn on_sparse(line: &str) -> Run {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = vec![command.to_owned(), sparse().display().to_string()];
    words.extend(rest.split_whitespace().map(str::to_owned));
    run_in(&std::env::temp_dir(), words)
}

const SPARSE_BASE: u64 = 0xffff_f805_1a09_f000;

#[test]
fn sparse_real_image_is_recognised_by_itself_and_with_each_argument() {
    for arguments in
        ["", "-o win32", "-o win32:dtb=0x235500002", "-o win32:kernel=0xfffff8051a3ce140", "-o win32:arch=x64"]
    {
        let found = on_sparse(&format!("info --json {arguments}")).json();
        let kernel = &found["kernel"];
        assert_eq!(hex(&kernel["base"]), SPARSE_BASE, "{arguments}");
        assert_eq!(kernel["release"], "10.0.17763", "{arguments}");
        assert_eq!(kernel["build_id"], "20C711BBD4C21AA5C45BC774BC7E04721", "{arguments}");
        assert_eq!(hex(&kernel["page_table_root"]), 0x2_3550_0000, "{arguments}");
    }
    let text = on_sparse("info -v").complete();
    assert!(text.contains("4 MiB in 624 runs") || text.contains("in 624 runs"), "{text}");
    assert!(text.contains("ntkrnlmp.pdb") && text.contains("KDBG: at 0xfffff8051a49e5e0"), "{text}");
}

#[test]
fn sparse_real_image_gives_what_it_holds_and_says_what_it_does_not() {
    let modules = on_sparse("modules --json").json();
    let names: Vec<&str> = list(&modules, "modules").iter().map(|module| module["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), names[0]), (198, "ntoskrnl.exe"));
    assert!(
        ["cng.sys", "win32kfull.sys", "tcpip.sys"]
            .iter()
            .all(|name| names.iter().any(|one| one.eq_ignore_ascii_case(name))),
        "{names:?}"
    );

    // The list of processes leads to System, whose page is missing: what can be read is shown, and the rest is told.
    let listed = on_sparse("ps");
    assert_eq!(listed.code, 1, "{}", listed.err);
    let rows: Vec<&str> = listed.out.lines().skip(1).collect();
    assert_eq!(rows.len(), 2, "{}", listed.out);
    assert!(rows[1].starts_with("7088  5200") && rows[1].ends_with("cng.exe"), "{}", listed.out);
    assert!(
        listed.err.contains("the process list is incomplete") && listed.err.contains("0xffffe38f36461328"),
        "{}",
        listed.err
    );
    let long = on_sparse("ps --long --pid 7088");
    assert!(long.code == 1 && long.err.contains("command line of process 7088"), "{}", long.err);

    let regions = on_sparse("maps 7088");
    assert!(regions.code == 1 && regions.err.contains("not in the image"), "{}", regions.err);
    let own = on_sparse("maps 7088 --page-tables");
    assert!(own.code == 1 && own.err.contains("page table 0x129547000 of level 3 is not in the image"), "{}", own.err);

    // The kernel's header is there, its export directory is not.
    assert_eq!(on_sparse(&format!("read {SPARSE_BASE:#x} 2 --raw")).complete(), "MZ");
    let exports = on_sparse("symbols");
    assert_eq!(exports.code, 1);
    assert!(exports.err.contains("exports of ntoskrnl.exe"), "{}", exports.err);
    let named = on_sparse("symbols --at 0xfffff8051a3ce140").error(1);
    assert!(named.contains("exports of ntoskrnl.exe") && named.contains("not in the image"), "{named}");
    let clock = on_sparse("read 0xfffff78000000260 4 --json").json();
    assert_eq!(clock["bytes"], "63450000");
}

#[test]
fn machine_of_another_system_is_no_windows() {
    let error = run_in(&std::env::temp_dir(), ["ps", "demo", "-o", "win32"]).error(3);
    assert!(
        error.starts_with("demo: no Windows kernel found; looked for ")
            || error.contains("no Windows kernel found; looked for "),
        "{error}"
    );
}
