//! Libraries that are no LeechCore, and devices that misbehave: a reason, and nothing worse.

use memflow_core::{Error, PhysAddr, PhysicalMemory, memory::PhysicalMemoryExt};
use memflow_pcileech::{Options, open};

use crate::fake::{FIRST, bytes_at, compile, fake, mapped, options};

fn error_of(device: &str, options: &Options) -> String {
    open(device, options).unwrap_err().to_string()
}

#[test]
fn library_that_is_not_there_says_where_it_was_looked_for() {
    let error = error_of("fpga", &Options::default().with_library("/no such folder"));
    assert!(
        error.starts_with("loading /no such folder (install LeechCore (its releases, or the Python package"),
        "{error}"
    );
    let folder = tempfile::tempdir().unwrap();
    let error = error_of("fpga", &Options::default().with_library(folder.path()));
    assert!(error.starts_with(&format!("loading {}/leechcore.so (install", folder.path().display())), "{error}");
    // Beside the test, and where the system has libraries; unless somebody installed it there.
    if let Err(error) = open("no such device", &Options::default()) {
        let text = error.to_string();
        if text.starts_with("loading LeechCore") {
            let folder = std::env::current_exe().unwrap().parent().unwrap().display().to_string();
            assert!(
                text.contains(&format!("looked for leechcore.so in {folder}/leechcore.so and the system's")),
                "{text}"
            );
            assert!(text.contains("name it with lib=FILE"), "{text}");
        }
    }
}

#[test]
fn file_that_is_no_library_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leechcore.so");
    std::fs::write(&path, "no library").unwrap();
    let error = error_of("fpga", &Options::default().with_library(&path));
    assert!(error.starts_with(&format!("loading {}: ", path.display())), "{error}");
}

#[test]
fn library_without_a_function_is_refused_by_its_name() {
    let library = compile("without-write.so", &["-DWITHOUT_WRITE"]);
    let error = error_of("fake", &Options::default().with_library(&library));
    assert!(
        error.ends_with(
            "without-write.so: is no LeechCore 2: it has no function LcWriteScatter; give another with lib="
        ),
        "{error}"
    );
}

#[test]
fn other_versions_are_refused_and_their_device_closed() {
    let library = compile("version-3.so", &["-DVERSION=3"]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let device = format!("fake://log={};own", log.display());
    let error = error_of(&device, &Options::default().with_library(library));
    assert_eq!(error, "LeechCore 3 is not supported: version 2 is known; give another with lib=");
    assert!(std::fs::read_to_string(&log).unwrap().ends_with("close 0 0\n"));
    let error = error_of("fake://ageless", &options());
    assert!(error.starts_with("a LeechCore that does not tell its version is not supported"), "{error}");
}

#[test]
fn refusals_are_told_in_the_words_of_the_library() {
    assert_eq!(error_of("fake://refuse", &options()), "opening LeechCore device fake://refuse: board is off");
    // A length that the structure does not have.
    assert_eq!(
        error_of("fake://refuse;lying", &options()),
        "opening LeechCore device fake://refuse;lying: board is off"
    );
    let error = error_of("fake://refuse;silent", &options());
    assert!(error.contains("LeechCore refused without a reason; is the name right"), "{error}");
}

#[test]
fn texts_that_do_not_fit_are_refused() {
    let error = error_of(&"x".repeat(260), &options());
    assert_eq!(error, "device: expected at most 259 bytes without NUL, found `260 bytes`");
    assert!(open("a\0b", &options()).is_err());
    let mut with_remote = options();
    with_remote.remote = Some("r".repeat(1000));
    assert!(error_of("fake", &with_remote).starts_with("remote: expected at most 259 bytes"));
}

#[test]
fn name_without_an_end_is_cut() {
    assert_eq!(mapped("longname").connected.format, format!("LeechCore device {}", "n".repeat(260)));
}

#[test]
fn maps_that_cannot_be_are_refused() {
    for words in ["torn", "endless"] {
        let error = fake(words, &options()).err().unwrap().to_string();
        assert!(error.contains("whole entries of 24 bytes, at most 65536, were expected"), "{words}: {error}");
    }
    assert!(matches!(fake("twice", &options()), Err(Error::Overlap { .. })));
}

#[test]
fn answers_larger_than_asked_stay_in_their_place() {
    let device = mapped("more");
    let mut bufs = [[0_u8; 8]; 3];
    let mut ops: Vec<_> = bufs
        .iter_mut()
        .enumerate()
        .map(|(index, buf)| memflow_core::memory::PhysRead::new(PhysAddr::new(FIRST + index as u64 * 0x1000), buf))
        .collect();
    device.connected.memory.read_batch(&mut ops).unwrap();
    for (index, buf) in bufs.iter().enumerate() {
        assert_eq!(buf[..], bytes_at(FIRST + index as u64 * 0x1000, 8));
    }
}

#[test]
fn what_a_device_does_to_its_entries_is_not_looked_at() {
    let device = mapped("scribble");
    let mut bytes = vec![0; 0x3000];
    device.connected.memory.read_into(PhysAddr::new(FIRST + 4), &mut bytes).unwrap();
    assert!(bytes == bytes_at(FIRST + 4, 0x3000));
}
