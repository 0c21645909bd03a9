//! Files that are no target, and arguments that make no sense. Texts are part of the contract: they name the thing and the way out.

use std::{fs, io::Read, process::Stdio};

use super::util::{command, run, run_in};

/// A folder with one file.
fn folder_with(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), bytes).unwrap();
    folder
}

/// Bytes without any structure, the same in every run (xorshift64).
fn noise(len: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

/// Commands that need an operating system in `image`.
const NEED_OS: [&str; 9] = [
    "ps image",
    "info image",
    "maps image 1",
    "modules image",
    "symbols image",
    "dmesg image",
    "read image 0",
    "translate image 0",
    "dump image -o out --range 0+1",
];

#[test]
fn empty_file() {
    let folder = folder_with("image", b"");
    for line in NEED_OS {
        let error = run_in(folder.path(), line.split(' ')).error(3);
        assert!(error.starts_with("image: is empty"), "{line}: {error}");
    }
}

#[test]
fn one_byte() {
    let folder = folder_with("image", b"x");
    for line in NEED_OS {
        let error = run_in(folder.path(), line.split(' ')).error(3);
        let expected = "image: is not a memory image: expected an ELF core, a LiME image, or a raw image";
        assert!(error.starts_with(expected), "{line}: {error}");
    }
}

#[test]
fn folder() {
    let folder = tempfile::tempdir().unwrap();
    let error = run_in(folder.path(), ["ps", "."]).error(3);
    assert_eq!(error, ".: is a directory; name the memory image inside it");
}

#[test]
fn missing_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = run_in(folder.path(), ["ps", "./image"]).error(3);
    assert_eq!(error, "opening ./image: No such file or directory (os error 2)");
    let error = run_in(folder.path(), ["ps", "image"]).error(3);
    assert_eq!(error, "image: no such file, and no connector lists a target of that name (see `memflow targets`)");
}

#[test]
fn file_called_demo_is_reached_by_its_path() {
    let folder = folder_with("demo", b"");
    let error = run_in(folder.path(), ["ps", "./demo"]).error(3);
    assert!(error.starts_with("./demo: is empty"), "{error}");
}

#[test]
fn memory_without_a_kernel() {
    for bytes in [noise(1 << 20), vec![0; 1 << 20], vec![0xff; 1 << 20]] {
        let folder = folder_with("image", &bytes);
        for line in NEED_OS.into_iter().filter(|line| !line.starts_with("info")) {
            let error = run_in(folder.path(), line.split(' ')).error(3);
            assert!(error.contains("no Linux kernel found; looked for "), "{line}: {error}");
        }
        assert!(!folder.path().join("out").exists());
    }
}

#[test]
fn memory_without_a_kernel_is_described_all_the_same() {
    let folder = folder_with("image", &noise(1 << 20));
    let run = run_in(folder.path(), ["info", "image"]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.out.contains("memory  1 MiB in 1 run, live, read-only\n"), "{}", run.out);
    let run = run_in(folder.path(), ["info", "image", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(document["target"]["memory_size"], 1 << 20);
    assert!(document["kernel"].is_null());
    assert!(document["problems"][0].as_str().unwrap().contains("no Linux kernel found"));
}

#[test]
fn physical_memory_needs_no_kernel() {
    let bytes = noise(1 << 20);
    let folder = folder_with("image", &bytes);
    let line =
        format!("0000fff0  {}", bytes[0xfff0..0xfff8].iter().map(|byte| format!("{byte:02x} ")).collect::<String>());
    let out = run_in(folder.path(), ["read", "image", "0xfff0", "16", "--phys"]).complete();
    assert!(out.starts_with(&line), "{out}");
}

#[test]
fn failure_is_a_document_too() {
    let folder = folder_with("image", b"x");
    for line in NEED_OS {
        let run = run_in(folder.path(), line.split(' ').chain(["--json"]));
        assert_eq!(run.code, 3, "{line}");
        let document: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(document["error"]["kind"], "target", "{line}");
        assert_eq!(format!("error: {}\n", document["error"]["message"].as_str().unwrap()), run.err, "{line}");
    }
}

#[test]
fn end_of_physical_memory() {
    let folder = folder_with("image", &noise(1 << 20));
    let run = run_in(folder.path(), ["read", "image", "0xffff0", "32", "--phys"]);
    assert_eq!(run.code, 1);
    assert_eq!(
        run.err,
        "warning: 16 bytes at 0x100000 cannot be read: physical address 0x100000 is not in the image\n"
    );
    assert!(run.out.contains("\n00100000  ?? ?? ?? ??"), "{}", run.out);
    let error = run_in(folder.path(), ["read", "image", "0xffff0", "32", "--phys", "--raw"]).error(1);
    assert!(error.ends_with("nothing was written; --fill BYTE writes a byte for each that is missing"), "{error}");
}

#[test]
fn wrong_usage() {
    for line in [
        "",
        "nonsense",
        "ps",
        "ps demo extra",
        "ps demo --pid x",
        "read demo",
        "read demo 5z",
        "read demo ffffffff81000000z+",
        "read demo 0 16MB",
        "read demo 0 --fill 0",
        "read demo 0 --raw --fill 256",
        "read demo 0 --raw --json",
        "read demo 0 --phys --pid 1",
        "dump demo",
        "dump demo -o x --range 5",
        "dump demo -o x --range 5-5",
        "dump demo -o x --range 5-4",
        "dump demo -o x --region 5",
        "dump demo -o x --pid 1",
        "dump demo -o - --json",
        "dump demo -o x --format avml",
        "dump demo -o x --format elf --phys 0+1",
        "dump demo -o x --format elf --compress zlib",
        "dump demo -o - --format kdump",
        "symbols demo x --at 5",
        "symbols demo a[",
        "translate demo",
        "translate demo 5 --reverse 5",
        "translate demo 5 --paging pae --pid 1",
        "dmesg demo --level 9",
        "ps demo --layout nonsense",
        "ps demo -v -q",
        "completions nonsense",
        "man nonsense",
    ] {
        let run = run(line);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{line}: {}", run.err);
        assert!(run.err.contains("error: ") || line.is_empty(), "{line}: {}", run.err);
    }
}

#[test]
fn closed_pipe_is_success() {
    let mut child = command(&std::env::temp_dir(), ["symbols", "demo"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

/// `/dev/full` takes nothing (`man 4 full`).
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_said() {
    for line in ["ps demo", "ps demo --json", "symbols demo", "read demo linux_banner 16 --raw"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command(&std::env::temp_dir(), line.split(' ')).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{line}");
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(err, "error: standard output: No space left on device (os error 28)\n", "{line}");
    }
}
