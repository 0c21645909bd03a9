//! Files that `memflow dump` writes: whole or not there.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::util::{command, run_in};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Pages that differ from each other.
fn pages(count: u8) -> Vec<u8> {
    (0..count).flat_map(|page| [page; 4096]).collect()
}

#[test]
fn physical_ranges_are_copied_exactly() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), pages(16)).unwrap();
    let out = run_in(folder.path(), ["dump", "image", "-o", "out", "--phys", "0xfff-0x3001"]).complete();
    assert_eq!(out, "out: 8194 bytes (8.0 KiB), raw\n");
    assert_eq!(fs::read(folder.path().join("out")).unwrap(), pages(16)[0xfff..0x3001]);
    let run = run_in(folder.path(), ["dump", "image", "-o", "-", "--phys", "0x1000+2"]);
    assert_eq!(run.complete(), "\u{1}\u{1}");
}

#[test]
fn gap_fails_or_is_filled_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), pages(2)).unwrap();
    let range = ["dump", "image", "-o", "out", "--phys", "0x1000-0x3000"];
    let error = run_in(folder.path(), range).error(1);
    assert_eq!(
        error,
        "4096 bytes at 0x2000 cannot be read: physical address 0x2000 is not in the image; no file was written; --fill-gaps \
         zero writes zeros there"
    );
    assert_eq!(names(folder.path()), ["image"]);
    let run = run_in(folder.path(), range.into_iter().chain(["--fill-gaps", "zero"]));
    assert_eq!((run.code, run.err.as_str()), (0, "warning: zeros stand for 4096 bytes that could not be read\n"));
    let bytes = fs::read(folder.path().join("out")).unwrap();
    assert_eq!(bytes, [[1; 4096], [0; 4096]].concat());
}

#[test]
fn existing_file_is_kept_unless_forced_and_the_target_always() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), pages(2)).unwrap();
    fs::write(folder.path().join("out"), "old").unwrap();
    let dump = ["dump", "image", "-o", "out", "--format", "raw"];
    assert_eq!(run_in(folder.path(), dump).error(2), "out exists already; --force replaces it");
    assert_eq!(fs::read(folder.path().join("out")).unwrap(), b"old");
    run_in(folder.path(), dump.into_iter().chain(["--force"])).complete();
    assert_eq!(fs::read(folder.path().join("out")).unwrap(), pages(2));
    let itself = run_in(folder.path(), ["dump", "image", "-o", "./image", "--force"]).error(2);
    assert_eq!(itself, "./image is the target itself; name another file");
    assert_eq!(names(folder.path()), ["image", "out"]);
}

#[test]
fn lime_file_opens_again_with_the_same_memory() {
    let folder = tempfile::tempdir().unwrap();
    let layout = ["--layout", "0x1000-0x1fff@0,0x8000-0x9fff@0x1000"];
    fs::write(folder.path().join("image"), pages(3)).unwrap();
    run_in(folder.path(), ["dump", "image", "-o", "out.lime"].into_iter().chain(layout)).complete();
    // Two headers of 32 bytes and three pages.
    assert_eq!(fs::metadata(folder.path().join("out.lime")).unwrap().len(), 2 * 32 + 3 * 4096);
    let out = run_in(folder.path(), ["read", "out.lime", "0x9000", "1", "--raw", "--phys"]).complete();
    assert_eq!(out, "\u{2}");
    let raw = ["dump", "out.lime", "-o", "out.raw", "--format", "raw"];
    let error = run_in(folder.path(), raw).error(2);
    assert_eq!(
        error,
        "physical memory has a gap at 0x0 (4 KiB); --fill-gaps zero writes zeros there, --format lime keeps gaps"
    );
    let run = run_in(folder.path(), raw.into_iter().chain(["--fill-gaps", "zero"]));
    assert_eq!(run.code, 0, "{}", run.err);
    let bytes = fs::read(folder.path().join("out.raw")).unwrap();
    assert_eq!(bytes, [vec![0; 0x1000], pages(1), vec![0; 0x6000], pages(3)[0x1000..].to_vec()].concat());
}

/// A real guest, through formats that keep all that is known of it.
#[test]
fn dumps_of_the_demo_open_with_its_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let processes = run_in(folder.path(), ["ps", "demo", "--json"]).json()["processes"].clone();
    for (file, args) in [
        ("out.dmp", "--format windows -q"),
        ("out.elf", "--format elf"),
        ("out.elf.zst", "--format elf --compress zstd"),
        ("out.kdump", "--format kdump"),
    ] {
        let dump = ["dump", "demo", "-o", file].into_iter().chain(args.split(' '));
        run_in(folder.path(), dump).complete();
        assert_eq!(run_in(folder.path(), ["ps", file, "--json"]).json()["processes"], processes, "{file}");
    }
    assert_eq!(names(folder.path()), ["out.dmp", "out.elf", "out.elf.zst", "out.kdump"]);
}

#[test]
fn region_of_a_process_is_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let document = run_in(folder.path(), ["ps", "demo", "--name", "worker-pool", "--json"]).json();
    let pid = document["processes"][0]["pid"].to_string();
    let maps = run_in(folder.path(), ["maps", "demo", &pid, "--json"]).json();
    let known = maps["regions"].as_array().unwrap().iter().find(|region| region["name"] == "/etc/known.txt").unwrap();
    let start = known["start"].as_str().unwrap();
    let dump = ["dump", "demo", "-o", "out", "--pid", &pid, "--region", start, "--json"];
    let document = run_in(folder.path(), dump).json();
    assert_eq!((&document["size"], &document["filled"]), (&known["size"], &0.into()));
    let text = fs::read_to_string(folder.path().join("out")).unwrap();
    assert!(text.starts_with("line 0000 of a text that memory must hold\n"));
    let missing = ["dump", "demo", "-o", "out2", "--pid", &pid, "--region", "0x10"];
    let error = run_in(folder.path(), missing).error(1);
    assert_eq!(error, format!("no region of process {pid} holds 0x10; `memflow maps` shows them"));
    assert_eq!(names(folder.path()), ["out"]);
}

#[cfg(unix)]
#[test]
fn file_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), pages(1)).unwrap();
    run_in(folder.path(), ["dump", "image", "-o", "out"]).complete();
    assert_eq!(fs::metadata(folder.path().join("out")).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Ctrl-C while two sparse gibibytes are copied.
#[cfg(unix)]
#[test]
fn interrupted_dump_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("image")).unwrap().set_len(2 << 30).unwrap();
    let dump = ["dump", "image", "-o", "out", "--layout", "flat"];
    let child = command(folder.path(), dump).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while names(folder.path()).len() < 2 {
        assert!(started.elapsed() < Duration::from_secs(30), "the dump never began");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: interrupted\n");
    assert_eq!(names(folder.path()), ["image"]);
}

/// Ctrl-C where nothing has to be cleaned up.
#[cfg(unix)]
#[test]
fn interrupted_read_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), pages(16)).unwrap();
    let read = ["read", "image", "0", "1TiB", "--phys", "--no-squeeze"];
    let mut child = command(folder.path(), read).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first line is there, so the handler is too; then the pipe is full and the command waits.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
