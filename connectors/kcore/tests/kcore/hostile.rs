//! Files that are no kcore, or one that contradicts itself: a reason, and never a panic.

use memflow_kcore::{Headers, Options, open, physical_runs};

use crate::common::{Kcore, X86, bytes_file};

fn sample() -> Kcore {
    Kcore::new(X86).note("VMCOREINFO", 0, b"OSRELEASE=1\n").virtual_only(0xffff_c900_0000_0000, 1 << 40).area(
        0xffff_8880_0000_1000,
        0x1000,
        b'a',
        0x2000,
    )
}

fn error_of(bytes: &[u8]) -> String {
    let (_dir, path) = bytes_file(bytes);
    let error = open(&path, &Options::default()).unwrap_err().to_string();
    error.replace(&path.display().to_string(), "kcore")
}

fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = sample().bytes();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn what_is_no_kcore_is_refused_with_a_reason() {
    assert_eq!(error_of(b""), "kcore: is empty; containers hide the kernel's memory like this, so run on the host");
    assert_eq!(
        error_of(b"\x7fELF"),
        "kcore: kcore: at offset 0x0: expected 0x40 bytes of the ELF header, found 0x4 bytes"
    );
    assert!(error_of(&[7; 4096]).contains("expected an ELF header, as the kernel writes it"));
    assert!(error_of(&patched(4, &[1])).starts_with("kcore: ELF class 1, byte order 1 is not supported"));
    assert!(error_of(&patched(5, &[2])).starts_with("kcore: ELF class 2, byte order 2 is not supported"));
    assert!(error_of(&patched(16, &[2])).ends_with("expected a core (type 4), found type 2"));
    assert!(error_of(&patched(18, &[3])).starts_with("kcore: machine 3 of the ELF header is not supported"));
    assert!(error_of(&patched(54, &[32])).ends_with("expected segment headers of 56 bytes, found 32"));
    assert!(error_of(&patched(56, &[0xff, 0xff])).contains("fewer than 65535 segments"));
    assert!(error_of(&patched(56, &[0xfe, 0xff])).contains("bytes of the table of segments, found"));
    assert!(error_of(&patched(32, &[0xff; 8])).contains("table of segments"));
}

#[test]
fn folders_and_sockets_are_no_kcore() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(dir.path(), &Options::default()).unwrap_err().to_string();
    assert!(error.ends_with("is no file; name a kcore"), "{error}");
    #[cfg(unix)]
    {
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(open(&socket, &Options::default()).unwrap_err().to_string().ends_with("is no file; name a kcore"));
        // As containers hide it.
        let error = open("/dev/null".as_ref(), &Options::default()).unwrap_err().to_string();
        assert!(error.contains("containers hide the kernel's memory like this"), "{error}");
    }
}

#[test]
fn notes_that_leave_their_segment_are_refused() {
    let mut kcore = sample();
    kcore.notes[4..8].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    assert!(error_of(&kcore.bytes()).contains("expected a note inside its segment"));
    // The length of the segment itself.
    assert!(error_of(&patched(64 + 32, &(1_u64 << 40).to_le_bytes())).contains("at most 0x100000 bytes of notes"));
    assert!(error_of(&patched(64 + 8, &(1_u64 << 40).to_le_bytes())).contains("bytes of the notes, found 0x0 bytes"));
}

#[test]
fn segments_that_contradict_themselves_are_refused() {
    let with = |change: fn(&mut crate::common::Area)| {
        let mut kcore = sample();
        change(kcore.areas.last_mut().unwrap());
        error_of(&kcore.bytes())
    };
    assert!(
        with(|area| area.memsz = 0x3000).contains("expected all 0x3000 bytes of segment 2 in the file, found 0x2000")
    );
    assert!(with(|area| area.paddr = u64::MAX - 0x1000).contains("expected a segment within the address space"));
    assert!(with(|area| area.offset = Some(u64::MAX - 0x10)).contains("expected a segment within a file"));
    assert!(with(|area| area.offset = Some((1 << 63) - 0x1000)).contains("expected a segment within a file"));
    assert!(with(|area| area.paddr = u64::MAX).contains("2 segments, none of them with a physical address"));
    assert!(
        with(|area| (area.filesz, area.memsz) = (0, 0)).contains("1 segments, none of them with a physical address")
    );
}

#[test]
fn one_address_in_two_places_is_refused() {
    let kcore = sample().area(0xffff_8880_0000_2000, 0x2000, b'b', 0x2000);
    assert_eq!(error_of(&kcore.bytes()), "runs 0x1000-0x2fff and 0x2000-0x3fff overlap");
}

#[test]
fn kernels_that_do_not_say_where_memory_lies_are_refused() {
    let mut kcore = sample();
    for area in &mut kcore.areas {
        area.paddr = 0;
    }
    assert_eq!(
        error_of(&kcore.bytes()),
        "kcore: a kcore with several segments at physical address 0 is not supported: kernels before Linux 4.11 do not say where memory lies; \
         open a dump of the machine instead"
    );
}

#[test]
fn any_damage_to_the_headers_ends_in_an_answer() {
    let whole = sample().bytes();
    let headers = 64 + 56 * 3 + 64;
    for at in 0..headers {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let read = Headers::read(&bytes[..], "x".as_ref());
            let runs = read.and_then(|headers| physical_runs(&headers.segments, "x".as_ref()));
            // Whatever is accepted has an end within a file.
            if let Ok(runs) = runs {
                assert!(
                    runs.runs()
                        .iter()
                        .all(|run| run.offset.checked_add(run.range.len()).is_some_and(|end| end < 1 << 63))
                );
            }
        }
        let _ = Headers::read(&whole[..at], "x".as_ref());
    }
}
