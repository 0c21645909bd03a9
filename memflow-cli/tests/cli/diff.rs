//! `memflow diff`: of two dumps of the demo guest, one with bytes changed at known places, exactly those places differ.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;

use super::util::{Run, run_in};

/// The demo guest's memory as a LiME image, made once.
fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(in_folder(folder.path(), "dump demo -o a.lime").code, 0);
        fs::read(folder.path().join("a.lime")).unwrap()
    })
}

fn in_folder(folder: &Path, line: &str) -> Run {
    run_in(folder, line.split_whitespace())
}

/// A folder with the image as a.lime.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.lime"), image()).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

/// The ranges of a LiME image: first address, length, where the bytes begin.
fn ranges(image: &[u8]) -> Vec<(u64, u64, usize)> {
    let number = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < image.len() {
        let (first, last) = (number(at + 8), number(at + 16));
        ranges.push((first, last - first + 1, at + 32));
        at += 32 + (last - first + 1) as usize;
    }
    ranges
}

/// Where the byte of a physical address lies in a LiME image.
fn place(image: &[u8], address: u64) -> usize {
    let ranges = ranges(image);
    let range = ranges.iter().find(|(first, len, _)| (*first..first + len).contains(&address)).unwrap();
    range.2 + (address - range.0) as usize
}

fn hex(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

/// The physical address of a page in the stack of a process, and the pid. Nobody else maps it.
fn page_of_a_process(folder: &Path) -> (u64, u64) {
    let listed = in_folder(folder, "ps a.lime --user-only --json").json();
    for process in listed["processes"].as_array().unwrap() {
        let pid = process["pid"].as_u64().unwrap();
        let runs = in_folder(folder, &format!("maps a.lime {pid} --page-tables --json")).json();
        for run in runs["runs"].as_array().unwrap() {
            let found = in_folder(
                folder,
                &format!("translate a.lime --reverse {:#x} --everywhere --json", hex(&run["physical"])),
            );
            let found = found.json();
            let users: Vec<&Value> =
                found["mappings"].as_array().unwrap().iter().filter(|mapping| !mapping["pid"].is_null()).collect();
            if let [only] = users[..] {
                assert_eq!(only["pid"].as_u64(), Some(pid));
                return (hex(&run["physical"]), pid);
            }
        }
    }
    panic!("no page that one process alone maps: {listed}");
}

fn bytes(document: &Value, kind: &str) -> u64 {
    document["bytes"][kind].as_u64().unwrap()
}

#[test]
fn target_is_equal_to_itself() {
    let (_folder, path) = folder();
    let found = in_folder(&path, "diff a.lime a.lime --json").json();
    let held: u64 = ranges(image()).iter().map(|(_, len, _)| len).sum();
    assert_eq!((bytes(&found, "compared"), bytes(&found, "equal")), (held, held));
    assert_eq!((bytes(&found, "changed"), found["changed_pages"].as_u64()), (0, Some(0)));
    assert_eq!((&found["processes"], &found["unmapped_changed_pages"]), (&Value::Array(Vec::new()), &Value::from(0)));
    assert_eq!((found["ended"].as_str(), &found["problems"]), (Some("complete"), &Value::Array(Vec::new())));
    let text = in_folder(&path, "diff demo a.lime").complete();
    assert!(text.lines().any(|line| line.split_whitespace().eq(["changed", "0", "B", "0", "pages"])), "{text}");
}

#[test]
fn changed_pages_are_found_with_whose_they_are() {
    let (_folder, path) = folder();
    let (of_process, pid) = page_of_a_process(&path);
    // The last page of the machine's memory: free, or at least no process'.
    let (first, len, _) = *ranges(image()).last().unwrap();
    let of_nobody = first + len - 0x1000;
    let mut changed = image().to_vec();
    for address in [of_process + 7, of_nobody, of_nobody + 0xfff] {
        changed[place(image(), address)] ^= 0x55;
    }
    fs::write(path.join("b.lime"), changed).unwrap();
    for (line, partner) in
        [("diff a.lime b.lime --pages --json", "both"), ("diff b.lime a.lime --pages --json", "both")]
    {
        let found = in_folder(&path, line).json();
        assert_eq!((bytes(&found, "changed"), found["changed_pages"].as_u64()), (0x2000, Some(2)));
        let processes = found["processes"].as_array().unwrap();
        assert_eq!(processes.len(), 1, "{processes:?}");
        assert_eq!(processes[0]["pid"].as_u64(), Some(pid));
        assert_eq!((processes[0]["changed_pages"].as_u64(), processes[0]["in"].as_str()), (Some(1), Some(partner)));
        assert_eq!(found["unmapped_changed_pages"].as_u64(), Some(1));
        let mut pages: Vec<(u64, u64, usize)> = found["pages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|page| (hex(&page["start"]), page["size"].as_u64().unwrap(), page["pids"].as_array().unwrap().len()))
            .collect();
        pages.sort_unstable();
        let mut expected = vec![(of_process, 0x1000, 1), (of_nobody, 0x1000, 0)];
        expected.sort_unstable();
        assert_eq!(pages, expected);
        let in_runs: u64 = found["runs"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|run| run["differences"].as_array().unwrap())
            .map(|difference| difference["size"].as_u64().unwrap())
            .sum();
        assert_eq!(in_runs, 0x2000);
    }
    let text = in_folder(&path, "diff a.lime b.lime").complete();
    assert!(text.contains("[no process: kernel, caches, free]"), "{text}");
}

#[test]
fn what_one_of_the_two_lacks_is_not_equal() {
    let (_folder, path) = folder();
    // Without its first range, and cut short in its last.
    let all = ranges(image());
    let (first, last) = (all[0], all[all.len() - 1]);
    assert!(all.len() > 1, "{all:?}");
    let cut = (last.1 / 2).next_multiple_of(0x1000);
    let end = image().len() - (last.1 - cut) as usize;
    fs::write(path.join("b.lime"), &image()[first.2 + first.1 as usize..end]).unwrap();
    let found = in_folder(&path, "diff a.lime b.lime --partial --no-processes --json").json();
    let missing = first.1 + last.1 - cut;
    assert_eq!((bytes(&found, "only_a"), bytes(&found, "only_b")), (missing, 0));
    let held: u64 = all.iter().map(|(_, len, _)| len).sum();
    assert_eq!((bytes(&found, "compared"), bytes(&found, "equal")), (held, held - missing));
    assert_eq!((&found["processes"], &found["unmapped_changed_pages"]), (&Value::Null, &Value::Null));
    let other = in_folder(&path, "diff b.lime a.lime --partial --no-processes --json").json();
    assert_eq!((bytes(&other, "only_a"), bytes(&other, "only_b")), (0, missing));
}

#[test]
fn without_a_kernel_runs_are_told_and_that_owners_are_not_known() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), [0; 0x4000]).unwrap();
    fs::write(folder.path().join("b"), [&[0; 0x2000][..], &[1; 0x1000], &[0; 0x1000]].concat()).unwrap();
    let found = in_folder(folder.path(), "diff a b");
    assert_eq!(found.code, 1, "{}", found.err);
    assert!(found.err.contains("whose memory it is, is not known, for A: no Linux kernel found"), "{}", found.err);
    assert!(found.out.contains("0x000000000000-0x000000003fff"), "{}", found.out);
    let found = in_folder(folder.path(), "diff a b --no-processes --pages --json").json();
    assert_eq!((bytes(&found, "changed"), found["changed_pages"].as_u64()), (0x1000, Some(1)));
    assert_eq!(hex(&found["pages"][0]["start"]), 0x2000);
}
