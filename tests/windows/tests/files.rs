//! Files of images hold the pages of the image, at the places that their headers say; the truth survives as text.
//!
//! Owns: a look at each format. Must not know: what is in the memory.
//! Keeps: what a file says is read from its bytes alone.

use std::{fs, path::Path};

use memflow_windows_images::{Architecture, Contents, Description, OffsetTable, Windows, truth::Truth, windows_7_x86};

fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn wide() -> Windows {
    let offsets = OffsetTable::embedded().unwrap().build("10.0.17763").unwrap().clone();
    Description::new(11, Architecture::X64, offsets).build().unwrap()
}

fn bytes(write: impl Fn(&Path) -> std::io::Result<()>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    write(&path).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn raw_file_has_each_page_at_its_address() {
    let windows = wide();
    let file = bytes(|path| windows.write_raw(path));
    assert_eq!(file.len(), 256 << 20);
    for (frame, page) in windows.pages() {
        let at = frame as usize * 0x1000;
        assert_eq!(file[at..at + 0x1000], page[..]);
    }
}

#[test]
fn lime_file_has_all_runs_or_those_with_something_in_them() {
    let mut windows = wide();
    let removed = windows.pages().nth(40).unwrap().0;
    windows.remove(removed);
    for contents in [Contents::All, Contents::Touched] {
        let file = bytes(|path| windows.write_lime(path, contents));
        let (mut at, mut seen, mut pages) = (0, 0, 0);
        while at < file.len() {
            assert_eq!((number(&file, at, 4), number(&file, at + 4, 4)), (0x4c69_4d45, 1));
            let (start, last) = (number(&file, at + 8, 8), number(&file, at + 16, 8));
            assert!(!(start..=last).contains(&(removed * 0x1000)));
            at += 32;
            for address in (start..=last).step_by(0x1000) {
                let here = &file[at..at + 0x1000];
                assert_eq!(Some(here), windows.read(address, 0x1000).as_deref());
                seen += usize::from(windows.pages().any(|page| page.0 == address / 0x1000));
                pages += 1;
                at += 0x1000;
            }
        }
        assert_eq!(seen, windows.pages().count());
        let all = (256 << 20) / 0x1000 - 1 - 97 - 1;
        assert_eq!(pages, if contents == Contents::All { all } else { seen });
    }
}

#[test]
fn crash_dumps_say_where_the_kernel_is() {
    let narrow = Description::new(2, Architecture::Pae, windows_7_x86()).build().unwrap();
    for windows in [wide(), narrow] {
        let width = if windows.truth.kernel.base > 0xffff_ffff { 8 } else { 4 };
        let file = bytes(|path| windows.write_crash_dump(path));
        let (header, block, kdbg) = if width == 8 { (0x2000, 0x88, 0x80) } else { (0x1000, 0x64, 0x60) };
        assert_eq!(&file[..8], if width == 8 { b"PAGEDU64" } else { b"PAGEDUMP" });
        assert_eq!(number(&file, 0x10, width), windows.truth.dtb);
        assert_eq!(number(&file, kdbg, width), windows.truth.kernel.kdbg.as_ref().unwrap().address);
        assert_eq!(number(&file, 0x10 + width, width), windows.truth.kernel.pfn_database);
        let ip = if width == 8 { 0x348 + 0xf8 } else { 0x320 + 0xb8 };
        assert_eq!(number(&file, ip, width), windows.truth.kernel.base + 0x1040);
        let runs = number(&file, block, 4) as usize;
        assert_eq!(runs, windows.truth.ram.len());
        let mut at = header;
        for run in 0..runs {
            let place = block + (2 + 2 * run) * width;
            let (first, count) = (number(&file, place, width), number(&file, place + width, width));
            for frame in first..first + count {
                assert_eq!(windows.read(frame * 0x1000, 0x1000).as_deref(), Some(&file[at..at + 0x1000]));
                at += 0x1000;
            }
        }
        assert_eq!(at, file.len());
    }
}

#[test]
fn page_file_has_pages_at_their_numbers() {
    let description = (0..).map(|seed| Description::randomised(seed).unwrap());
    let windows = description
        .map(|description| description.build().unwrap())
        .find(|windows| windows.page_file(0).count() > 3)
        .unwrap();
    let file = bytes(|path| windows.write_page_file(0, path));
    for (page, bytes) in windows.page_file(0) {
        let at = page as usize * 0x1000;
        assert_eq!(file[at..at + bytes.len()], *bytes);
    }
}

#[test]
fn truth_survives_as_text() {
    let truth = wide().truth;
    let text = serde_json::to_string(&truth).unwrap();
    assert_eq!(serde_json::from_str::<Truth>(&text).unwrap(), truth);
}

#[test]
fn removed_page_is_no_longer_read_and_written_page_is_there_again() {
    let windows = wide();
    let (frame, page) = windows.pages().nth(10).unwrap();
    let mut without = windows.without(frame);
    assert_eq!(windows.read(frame * 0x1000, 16).unwrap(), page[..16]);
    assert_eq!(without.read(frame * 0x1000 - 8, 16), None);
    assert_eq!(without.missing().collect::<Vec<_>>(), [frame]);
    without.write(frame * 0x1000, &[7; 16]);
    assert_eq!(without.read(frame * 0x1000, 17).unwrap()[15..], [7, 0]);
}
