//! Reads from a source that counts calls and fails where it is told.

#![expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests")]

use std::cell::RefCell;

use super::*;

/// Bytes that are the low byte of their page's number, from offset 0 to `len`; pages that fail; at most `most` bytes a call.
struct Pages {
    len: u64,
    bad: Vec<u64>,
    most: usize,
    calls: RefCell<Vec<(u64, usize)>>,
}

impl Pages {
    fn new(len: u64, bad: &[u64]) -> Self {
        Self { len, bad: bad.to_vec(), most: usize::MAX, calls: RefCell::default() }
    }
}

impl Source for Pages {
    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        self.calls.borrow_mut().push((offset, bufs.iter().map(|buf| buf.len()).sum()));
        let mut done = 0;
        for byte in bufs.iter_mut().flat_map(|buf| buf.iter_mut()) {
            let at = offset + done as u64;
            if done == self.most || at >= self.len {
                break;
            }
            // As the kernel does: the error alone, whatever was copied before.
            if self.bad.contains(&(at / PAGE)) {
                return Err(io::Error::from_raw_os_error(14));
            }
            *byte = (at / PAGE) as u8;
            done += 1;
        }
        Ok(done)
    }
}

fn parts<'a>(bufs: &'a mut [Vec<u8>], offsets: &[u64]) -> Vec<Part<'a>> {
    let parts = bufs.iter_mut().zip(offsets).enumerate();
    parts.map(|(op, (buf, offset))| Part { op, from: 0, offset: *offset, buf, failed: None }).collect()
}

#[test]
fn neighbours_share_a_call_in_any_order() {
    let source = Pages::new(1 << 20, &[]);
    let mut bufs = vec![vec![0xff; 0x1000]; 4];
    let mut parts = parts(&mut bufs, &[0x3000, 0x1000, 0x9000, 0x2000]);
    read(&source, &mut parts);
    assert!(parts.iter().all(|part| part.failed.is_none()));
    assert_eq!(*source.calls.borrow(), [(0x1000, 0x3000), (0x9000, 0x1000)]);
    let first: Vec<u8> = bufs.iter().map(|buf| buf[0xfff]).collect();
    assert_eq!(first, [3, 1, 9, 2]);
}

#[test]
fn the_same_place_twice_is_read_twice() {
    let source = Pages::new(1 << 20, &[]);
    let mut bufs = vec![vec![0xff; 0x10]; 2];
    let mut parts = parts(&mut bufs, &[0x5000, 0x5000]);
    read(&source, &mut parts);
    assert!(parts.iter().all(|part| part.failed.is_none()));
    assert_eq!((bufs[0][15], bufs[1][15]), (5, 5));
}

#[test]
fn short_reads_go_on_where_they_stopped() {
    let source = Pages { most: 0x777, ..Pages::new(1 << 20, &[]) };
    let mut bufs = vec![vec![0xff; 0x1800], vec![0xff; 0x800]];
    let mut parts = parts(&mut bufs, &[0, 0x1800]);
    read(&source, &mut parts);
    assert!(parts.iter().all(|part| part.failed.is_none()));
    assert!(bufs[0][..0x1000].iter().all(|byte| *byte == 0) && bufs[1].iter().all(|byte| *byte == 1));
}

#[test]
fn page_that_fails_costs_no_other() {
    let source = Pages::new(1 << 20, &[2]);
    let mut bufs = vec![vec![0xff; 0x1800], vec![0xff; 0x2000], vec![0xff; 0x10]];
    let mut parts = parts(&mut bufs, &[0x800, 0x2000, 0x4000]);
    read(&source, &mut parts);
    let failed: Vec<_> = parts.iter().map(|part| part.failed).collect();
    assert_eq!(failed, [None, Some((0, Some(14))), None]);
    assert_eq!((bufs[0][0x17ff], bufs[1][0], bufs[1][0x1000], bufs[2][0]), (1, 0xff, 3, 4));
}

#[test]
fn first_failing_page_of_a_part_is_the_one_told() {
    let source = Pages::new(1 << 20, &[2, 4]);
    let mut bufs = vec![vec![0xff; 0x4000]];
    let mut parts = parts(&mut bufs, &[0x1800]);
    read(&source, &mut parts);
    assert_eq!(parts[0].failed, Some((0x800, Some(14))));
    assert_eq!((bufs[0][0x7ff], bufs[0][0x800], bufs[0][0x1800], bufs[0][0x2800]), (1, 0xff, 3, 0xff));
    assert_eq!(bufs[0][0x3800], 5);
}

#[test]
fn end_of_the_file_is_no_error_number() {
    let source = Pages::new(0x1400, &[]);
    let mut bufs = vec![vec![0xff; 0x1000], vec![0xff; 0x1000], vec![0xff; 0x10]];
    let mut parts = parts(&mut bufs, &[0x800, 0x1800, 0x2800]);
    read(&source, &mut parts);
    let failed: Vec<_> = parts.iter().map(|part| part.failed).collect();
    assert_eq!(failed, [Some((0xc00, None)), Some((0, None)), Some((0, None))]);
}

#[test]
fn more_parts_than_a_call_takes_are_several_calls() {
    let source = Pages::new(1 << 20, &[]);
    let mut bufs = vec![vec![0xff; 1]; 3000];
    let offsets: Vec<u64> = (0..3000).collect();
    let mut parts = parts(&mut bufs, &offsets);
    read(&source, &mut parts);
    assert!(parts.iter().all(|part| part.failed.is_none()));
    assert_eq!(*source.calls.borrow(), [(0, 1024), (1024, 1024), (2048, 952)]);
}

#[test]
fn empty_parts_cost_nothing_and_are_done() {
    let source = Pages::new(0x1000, &[]);
    let mut bufs = vec![vec![], vec![0xff; 8], vec![]];
    let mut parts = parts(&mut bufs, &[8, 0, 0x9000]);
    read(&source, &mut parts);
    assert!(parts.iter().all(|part| part.failed.is_none()));
    assert_eq!(source.calls.borrow().len(), 1);
}
