//! Physical memory while it is being built: which frames there are, which are taken, what they hold.
//!
//! Owns: frames. Must not know: addresses of any address space.
//! Keeps: a frame is handed out once; a frame that nobody wrote takes no memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use fastrand::Rng;

use crate::Error;

/// Bytes in a page.
pub(crate) const PAGE: u64 = 0x1000;
const PAGE_BYTES: usize = 0x1000;

/// The bytes of one page.
pub type Page = Box<[u8; PAGE_BYTES]>;

/// Physical memory.
#[derive(Debug)]
pub(crate) struct Physical {
    /// Frame numbers that are RAM.
    pub(crate) ram: Vec<Range<u64>>,
    pub(crate) pages: BTreeMap<u64, Page>,
    taken: BTreeSet<u64>,
    /// Frames of large pages, and those that are left alone: as ranges, since most of them hold nothing.
    large: Vec<Range<u64>>,
}

impl Physical {
    /// RAM of a PC: below 640 KiB, from 1 MiB on, and above 4 GiB what does not fit below 3 GiB.
    pub(crate) fn new(bytes: u64) -> Result<Self, Error> {
        let (least, most) = (128 << 20, 64 << 30);
        if !(least..=most).contains(&bytes) || !bytes.is_multiple_of(1 << 20) {
            return Err(Error::Ram { bytes });
        }
        let below = bytes.min(3 << 30);
        let mut ram = vec![1..0x9f, 0x100..below / PAGE];
        if bytes > below {
            ram.push((4 << 30) / PAGE..((4 << 30) + bytes - below) / PAGE);
        }
        Ok(Self { ram, pages: BTreeMap::new(), taken: BTreeSet::new(), large: Vec::new() })
    }

    /// Leaves all frames alone but these.
    pub(crate) fn only(&mut self, frames: &Range<u64>) {
        self.large.extend([0..frames.start, frames.end..u64::MAX].into_iter().filter(|others| !others.is_empty()));
    }

    fn free(&self, frame: u64) -> bool {
        self.ram.iter().any(|run| run.contains(&frame))
            && !self.taken.contains(&frame)
            && !self.large.iter().any(|run| run.contains(&frame))
    }

    /// A frame anywhere above 1 MiB and below `limit` bytes, but where large pages need room.
    pub(crate) fn frame_below(&mut self, rng: &mut Rng, limit: u64) -> Result<u64, Error> {
        let runs: Vec<Range<u64>> = self.ram[1..]
            .iter()
            .map(|run| run.start..run.end.min(limit / PAGE))
            .filter(|run| !run.is_empty())
            .collect();
        let total: u64 = runs.iter().map(|run| run.end - run.start).sum();
        for _ in 0..4096 {
            let mut at = rng.u64(0..total.max(1));
            for run in &runs {
                if at >= run.end - run.start {
                    at -= run.end - run.start;
                    continue;
                }
                let frame = run.start + at;
                if self.scattered(frame) && self.free(frame) {
                    self.taken.insert(frame);
                    return Ok(frame);
                }
                break;
            }
        }
        Err(Error::OutOfMemory)
    }

    /// Single frames lie in the lower part of each 64 MiB, and leave the second GiB of larger machines alone, so that pages of any size
    /// find room between them.
    fn scattered(&self, frame: u64) -> bool {
        let gib = (1 << 30) / PAGE;
        let huge = (gib..2 * gib).contains(&frame) && self.ram.iter().any(|run| run.end >= 2 * gib);
        frame % 0x4000 < 0x1800 && !huge
    }

    /// A frame anywhere above 1 MiB.
    pub(crate) fn frame(&mut self, rng: &mut Rng) -> Result<u64, Error> {
        self.frame_below(rng, u64::MAX)
    }

    /// One given frame, if it is still free.
    pub(crate) fn exactly(&mut self, frame: u64) -> Result<u64, Error> {
        if !self.free(frame) {
            return Err(Error::FrameTaken { frame });
        }
        self.taken.insert(frame);
        Ok(frame)
    }

    /// `count` frames in a row, the first a multiple of `align`, from the lowest address on that is free.
    pub(crate) fn run(&mut self, count: u64, align: u64) -> Result<u64, Error> {
        for run in &self.ram[1..] {
            let mut first = run.start.next_multiple_of(align);
            while first + count <= run.end {
                let taken = self.taken.range(first..first + count).next_back();
                let large = self.large.iter().find(|other| other.start < first + count && first < other.end);
                let after = match (taken, large) {
                    (None, None) => {
                        self.large.push(first..first + count);
                        return Ok(first);
                    }
                    (Some(&taken), _) => taken + 1,
                    (None, Some(large)) => large.end,
                };
                first = after.next_multiple_of(align);
            }
        }
        Err(Error::OutOfMemory)
    }

    /// Writes bytes; they may cross frames that lie in a row.
    pub(crate) fn write(&mut self, mut address: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = (address % PAGE) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE_BYTES - at));
            let page = self.pages.entry(address / PAGE).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page[at..at + now.len()].copy_from_slice(now);
            address += now.len() as u64;
            bytes = rest;
        }
    }

    /// Reads a number of 4 or 8 bytes; what nobody wrote is zero.
    pub(crate) fn number(&self, address: u64, bytes: usize) -> u64 {
        let at = (address % PAGE) as usize;
        let mut number = [0; 8];
        if let Some(page) = self.pages.get(&(address / PAGE)) {
            number[..bytes].copy_from_slice(&page[at..at + bytes]);
        }
        u64::from_le_bytes(number)
    }
}
