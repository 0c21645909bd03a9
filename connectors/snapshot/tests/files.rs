//! What is no image at all, and files that change underneath.

mod common;

use std::fs::File;

use common::{error_of, file, open_error, pattern, read, sample_elf64};
use memflow_core::{
    Reason,
    memory::{FileMemory, Liveness, SourceConfig},
};
use memflow_snapshot::{FileInput, OpenOptions, ParseOptions, elf, open};

#[test]
fn what_is_no_image_is_refused_with_a_reason() {
    let default = OpenOptions::default();
    assert_eq!(error_of(b"", &default), "image: is empty; was it copied completely?");
    for bytes in [&b"x"[..], b"\x7f", b"\x1f\x8b", b"EMi", b"\x7fEL"] {
        let text = error_of(bytes, &default);
        assert!(text.starts_with("image: is not a memory image: expected an ELF core"), "{text}");
    }
    assert!(
        error_of(b"\x7fELF", &default).contains("expected 0x10 bytes of ELF header, found the end of the file at 0x4")
    );
    assert!(error_of(b"EMiL", &default).contains("expected 0x20 bytes of a range's header"));
    assert!(error_of(b"\x1f\x8b\x08", &default).contains("expected a gzip header, found the end of the file"));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        open_error(dir.path(), &default),
        format!("{}: is a directory; name the memory image inside it", dir.path().display())
    );
    let missing = dir.path().join("missing");
    assert_eq!(
        open_error(&missing, &default),
        format!("opening {}: No such file or directory (os error 2)", missing.display())
    );
    let (_dir, path) = file(b"x");
    assert!(open_error(&path.join("below"), &default).contains("Not a directory"));
}

#[cfg(unix)]
#[test]
fn pipes_sockets_and_endless_devices_are_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let text = open_error(&socket, &OpenOptions::default());
    assert!(text.ends_with("is a pipe or socket, which cannot be read by position; save it to a file first"), "{text}");
    let text = open_error("/dev/zero".as_ref(), &OpenOptions::default());
    assert_eq!(text, "/dev/zero: is a device that does not tell its length; copy what it holds to a file first");
}

#[cfg(target_os = "linux")]
#[test]
fn file_that_may_not_be_read_is_refused_as_the_system_does() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path) = file(&pattern(0, 0x1000));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Permissions do not bind the superuser, so the file is opened by a thread that is nobody to the file system.
    let text = std::thread::spawn(move || {
        // SAFETY: changes the identity of this thread towards the file system; the thread ends with this closure.
        unsafe { libc::setfsuid(65534) };
        open_error(&path, &OpenOptions::default())
    });
    let text = text.join().unwrap();
    assert!(text.contains("image (run as a user who may read it): "), "{text}");
}

#[test]
fn formats_known_by_sight_are_named_with_a_way_out() {
    for (head, name, way_out) in [
        (&b"QFI\xfb"[..], "a qcow2 disk image", "-loadvm TAG"),
        (b"hibr", "a Windows hibernation file", "volatility"),
        (b"WAKE", "a Windows hibernation file whose machine has woken up", "hibernate the machine again"),
        (b"\x14\x20\x28\x01", "a saved state of Hyper-V (.vmrs)", "LeechCore"),
        (b"PK\x03\x04", "a zip archive", "unzip"),
    ] {
        let mut bytes = head.to_vec();
        bytes.resize(0x1000, 0);
        let text = error_of(&bytes, &OpenOptions::default());
        assert!(text.starts_with(&format!("image: {name} is not supported: ")) && text.contains(way_out), "{text}");
    }
}

/// The error of reading what a file no longer holds, and a read of what it still holds.
fn after_shrinking(memory: &dyn memflow_core::PhysicalMemory, path: &std::path::Path, phys: u64, kept: u64) {
    assert!(read(memory, phys, 1).is_ok());
    File::options().write(true).open(path).unwrap().set_len(kept).unwrap();
    for addr in [phys, phys + 0xfff] {
        let error = read(memory, addr, 1).unwrap_err();
        assert!(matches!(error.reason(), Some(Reason::Truncated { .. })), "{error}");
    }
}

#[test]
fn mapped_file_that_shrinks_is_an_error_not_a_signal() {
    let bytes = pattern(3, 0x8000);
    for live in [None, Some(false)] {
        let (_dir, path) = file(&bytes);
        let snapshot = open(&path, &OpenOptions { live, ..OpenOptions::default() }).unwrap();
        assert!(snapshot.memory.direct_map().is_some());
        after_shrinking(&*snapshot.memory, &path, 0x4000, 0x4000);
        assert_eq!(read(&*snapshot.memory, 0x3000, 0x1000).unwrap(), bytes[0x3000..0x4000]);
    }
    let (_dir, path) = file(&sample_elf64());
    let snapshot = open(&path, &OpenOptions::default()).unwrap();
    after_shrinking(&*snapshot.memory, &path, 0x10_0000, 0x1000);
}

#[test]
fn positional_file_that_shrinks_is_an_error() {
    let (_dir, path) = file(&sample_elf64());
    let input = FileInput::open(&path, false).unwrap();
    let image = elf::parse(&input, ParseOptions::default()).unwrap();
    let config = SourceConfig { name: "image".into(), runs: image.runs, facts: image.facts };
    let memory = FileMemory::new(config, input.into_file(), Liveness::Frozen, true);
    assert_eq!(read(&memory, 0x10_0000, 0x1000).unwrap(), pattern(7, 0x1000));
    after_shrinking(&memory, &path, 0x10_0000, 0x1000);
}

#[test]
fn file_that_shrinks_before_it_is_parsed_is_an_error() {
    let (_dir, path) = file(&sample_elf64());
    let input = FileInput::open(&path, false).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    let text = elf::parse(&input, ParseOptions::default()).unwrap_err().to_string();
    assert!(text.contains("found the end of the file, which shrank meanwhile"), "{text}");
}
