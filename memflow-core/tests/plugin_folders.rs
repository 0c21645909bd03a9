//! Folders of plugins as they should not be: each file is found, and each that is not taken says why, soon and at small cost.
#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use memflow_core::plugin::{
    Inventory, PlaceState,
    descriptor::{HOST_TARGET, PluginKind},
};

/// A file with the plugins `one` and `two`.
fn good() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/plugins/{HOST_TARGET}.so"));
    fs::read(path).unwrap()
}

/// A folder that everybody may look into.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("libmemflow_{name}.so"))
}

fn search(folder: &Path) -> Inventory {
    Inventory::builder().folder(folder).build()
}

/// Names of the plugins.
fn names(inventory: &Inventory) -> Vec<&str> {
    inventory.plugins().iter().map(|plugin| plugin.descriptor().name.as_str()).collect()
}

/// Why a file was rejected.
#[track_caller]
fn reason<'a>(inventory: &'a Inventory, path: &Path) -> &'a str {
    let mut of_file = inventory.rejected().iter().filter(|rejected| rejected.path == path);
    let found = of_file.next().unwrap_or_else(|| panic!("{}: {:?}", path.display(), inventory.rejected()));
    assert!(of_file.next().is_none());
    &found.reason
}

/// The search by somebody who is not the superuser, whom permissions do not bind.
fn search_as_nobody(folder: PathBuf) -> Inventory {
    let search = move || {
        // SAFETY: changes the identity of this thread towards the file system; the thread ends with this closure.
        unsafe { libc::setfsuid(65534) };
        search(&folder)
    };
    std::thread::spawn(search).join().unwrap()
}

#[test]
fn folder_that_may_not_be_read_says_so() {
    let folder = folder();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(file(&closed, "good"), good()).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let inventory = search_as_nobody(closed);
    let [place] = inventory.places() else { panic!("{:?}", inventory.places()) };
    assert!(matches!(&place.state, PlaceState::Unreadable(why) if why.contains("Permission denied")), "{place:?}");
    assert!(inventory.plugins().is_empty());
}

#[test]
fn file_that_may_not_be_read_says_so_and_others_are_found() {
    let folder = folder();
    fs::write(file(folder.path(), "good"), good()).unwrap();
    let closed = file(folder.path(), "closed");
    fs::write(&closed, good()).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    let inventory = search_as_nobody(folder.path().to_owned());
    assert!(reason(&inventory, &closed).contains("Permission denied"));
    // Where the folder for temporary files is closed itself, nothing can be seen of it.
    if inventory.rejected().len() == 1 {
        assert_eq!(names(&inventory), ["one", "two"]);
    }
}

#[test]
fn places_that_are_no_folders_say_what_they_are() {
    let folder = folder();
    let text = folder.path().join("file");
    fs::write(&text, "text").unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    symlink(&one, &other).unwrap();
    symlink(&other, &one).unwrap();
    for (path, why) in [
        (text.clone(), "Not a directory"),
        (text.join("below"), "Not a directory"),
        (one, "Too many levels of symbolic links"),
        (PathBuf::from("relative"), "a relative path is not searched"),
    ] {
        let inventory = search(&path);
        let [place] = inventory.places() else { panic!("{:?}", inventory.places()) };
        assert!(matches!(&place.state, PlaceState::Unreadable(found) if found.contains(why)), "{place:?}");
    }
    assert_eq!(search(&folder.path().join("none")).places()[0].state, PlaceState::Absent);
}

#[test]
fn things_that_are_called_like_plugins_and_are_no_files_are_not_opened() {
    let folder = folder();
    let path = |name| file(folder.path(), name);
    fs::write(path("good"), good()).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    symlink(path("loop"), path("loop")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    symlink("/dev/zero", path("device")).unwrap();
    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let started = Instant::now();
    let inventory = search(folder.path());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for (name, why) in [
        ("dangling", "cannot be opened: No such file"),
        ("loop", "cannot be opened: Too many levels of symbolic links"),
        ("folder", "is not a regular file"),
        ("device", "is not a regular file"),
        ("pipe", "is not a regular file"),
        ("socket", "is not a regular file"),
    ] {
        assert!(reason(&inventory, &path(name)).starts_with(why), "{name}: {}", reason(&inventory, &path(name)));
    }
    assert_eq!((names(&inventory), inventory.rejected().len()), (vec!["one", "two"], 6));
    assert_eq!(inventory.places()[0].state, PlaceState::Searched { files: 7 });
}

#[test]
fn file_is_looked_at_once_however_many_names_it_has() {
    let folder = folder();
    let path = |name| file(folder.path(), name);
    fs::write(path("a"), good()).unwrap();
    symlink(path("a"), path("b")).unwrap();
    fs::hard_link(path("a"), path("c")).unwrap();
    fs::write(path("x"), "text").unwrap();
    symlink("libmemflow_x.so", path("y")).unwrap();
    let inventory = Inventory::builder().file(path("b")).folder(folder.path()).build();
    assert_eq!(names(&inventory), ["one", "two"]);
    let [rejected] = inventory.rejected() else { panic!("{:?}", inventory.rejected()) };
    assert_eq!(rejected.path, path("x"));
}

#[test]
fn of_two_files_with_the_same_plugin_the_first_is_taken_and_both_are_listed() {
    let (one, other) = (folder(), folder());
    for (folder, name) in [(&one, "b"), (&one, "a"), (&other, "a")] {
        fs::write(file(folder.path(), name), good()).unwrap();
    }
    let inventory = Inventory::builder().folder(one.path()).folder(other.path()).build();
    assert!(inventory.rejected().is_empty());
    let origins: Vec<_> = inventory
        .plugins()
        .iter()
        .filter(|plugin| plugin.descriptor().name == "one")
        .map(|plugin| plugin.origin().path().unwrap().to_owned())
        .collect();
    assert_eq!(origins, [file(one.path(), "a"), file(one.path(), "b"), file(other.path(), "a")]);
    let kind = inventory.plugins()[0].descriptor().kind;
    assert_eq!(inventory.find(kind, "one", None).unwrap().origin().path().unwrap(), origins[0]);
}

/// The bytes, with one text in place of another of the same length wherever it is.
fn replaced(mut bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty() && from.len() == to.len());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[test]
fn plugin_that_is_twice_in_one_file_is_taken_once() {
    let folder = folder();
    let path = file(folder.path(), "twins");
    // Both OS layers of one name; empty strings are padding.
    let twins = replaced(good(), "kind=connector\0name=one", "kind=os\0\0\0\0\0\0\0\0name=one");
    let twins = replaced(twins, "accepts=content\0", &"\0".repeat(16));
    fs::write(&path, replaced(twins, "\0name=two\0", "\0name=one\0")).unwrap();
    let inventory = search(folder.path());
    let [plugin] = inventory.plugins() else { panic!("{:?}", inventory.plugins()) };
    assert_eq!((plugin.descriptor().kind, plugin.descriptor().entry.as_str()), (PluginKind::Os, "memflow_plugin_one"));
    assert_eq!(reason(&inventory, &path), "OS layer `one` 0.1.0: is twice in the file; the first is taken");
}

/// A file that takes 200 MB, with its section headers at the end, where linkers put them.
fn large() -> Vec<(u64, Vec<u8>)> {
    const SIZE: u64 = 200 << 20;
    let mut bytes = good();
    let field =
        |at: usize, len: usize| bytes[at..at + len].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
    let (headers, size, count) = (field(0x28, 8), field(0x3a, 2), field(0x3c, 2));
    let table = bytes[headers as usize..(headers + size * count) as usize].to_vec();
    bytes[0x28..0x30].copy_from_slice(&SIZE.to_le_bytes());
    vec![(0, bytes), (SIZE, table)]
}

/// Bytes that this thread has read from files so far.
fn bytes_read() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn large_plugin_costs_what_is_looked_at() {
    use std::os::unix::fs::FileExt;
    let folder = folder();
    let made = fs::File::create(file(folder.path(), "large")).unwrap();
    for (offset, bytes) in large() {
        made.write_all_at(&bytes, offset).unwrap();
    }
    let (before, started) = (bytes_read(), Instant::now());
    let inventory = search(folder.path());
    let (read, took) = (bytes_read() - before, started.elapsed());
    assert_eq!(names(&inventory), ["one", "two"], "{:?}", inventory.rejected());
    // With what it takes to ask for the number.
    assert!(read < 64 << 10, "{read}");
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[test]
fn file_that_changes_meanwhile_is_taken_or_says_why_not() {
    let folder = folder();
    let (path, good) = (file(folder.path(), "restless"), good());
    fs::write(&path, &good).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let changed = fs::File::options().write(true).open(&path).unwrap();
            for len in (0..good.len() as u64).step_by(97).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                changed.set_len(len).unwrap();
                changed.set_len(good.len() as u64 * 2).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&changed, &good, 0).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            let inventory = search(folder.path());
            let said = inventory.rejected().iter().all(|rejected| !rejected.reason.is_empty());
            assert!(said && inventory.plugins().len() + inventory.rejected().len() > 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
    fs::write(&path, &good).unwrap();
    assert_eq!(names(&search(folder.path())), ["one", "two"]);
}

#[test]
fn ten_thousand_files_of_garbage_hide_no_good_one() {
    const FILES: usize = 10_000;
    let (folder, good) = (folder(), good());
    let mut flipped = good.clone();
    flipped[18] ^= 0xff;
    let garbage: [&[u8]; 5] = [b"", b"text", b"\x7fELF\x02\x01\x01", &good[..good.len() / 2], &flipped];
    for index in 0..FILES {
        fs::write(file(folder.path(), &format!("{index:05}")), garbage[index % garbage.len()]).unwrap();
    }
    fs::write(file(folder.path(), "good"), &good).unwrap();
    let (before, started) = (bytes_read(), Instant::now());
    let inventory = search(folder.path());
    let (read, took) = (bytes_read() - before, started.elapsed());
    assert_eq!(inventory.places()[0].state, PlaceState::Searched { files: FILES + 1 });
    assert_eq!((names(&inventory), inventory.rejected().len()), (vec!["one", "two"], FILES));
    assert!(inventory.rejected().iter().all(|rejected| (1..400).contains(&rejected.reason.len())));
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(read < 40 << 20, "{read}");
}
