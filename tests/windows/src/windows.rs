//! A machine that is built: its memory, its page files, and its truth.
//!
//! Owns: which pages there are, and reading them. Must not know: how they came about; file formats are in `files`.
//! Keeps: RAM that nobody wrote is zeros; a missing page is in no file.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Error,
    builder::build,
    description::Description,
    physical::{PAGE, Page, Physical},
    truth::Truth,
};

/// Page files: bytes by file and page.
#[derive(Clone, Default, Debug)]
pub(crate) struct PageFiles(BTreeMap<(u8, u32), Vec<u8>>);

impl PageFiles {
    pub(crate) fn put(&mut self, file: u8, page: u32, bytes: &[u8]) {
        self.0.insert((file, page), bytes.to_vec());
    }
}

/// A machine that runs Windows, as an image of its memory.
#[derive(Clone, Debug)]
pub struct Windows {
    /// What was built.
    pub truth: Truth,
    pages: BTreeMap<u64, Page>,
    missing: BTreeSet<u64>,
    page_files: PageFiles,
}

impl Description {
    /// Builds the machine.
    ///
    /// # Errors
    /// A description that contradicts itself, offsets without a field that every image needs, or too little RAM.
    pub fn build(&self) -> Result<Windows, Error> {
        build(self)
    }
}

impl Windows {
    pub(crate) fn new(truth: Truth, memory: Physical, page_files: PageFiles, missing: &[u64]) -> Self {
        let mut windows = Self { truth, pages: memory.pages, missing: BTreeSet::new(), page_files };
        for frame in missing {
            windows.remove(*frame);
        }
        windows
    }

    /// Pages that something was written to, by frame number; all other RAM is zeros.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &Page)> {
        self.pages.iter().map(|(frame, page)| (*frame, page))
    }

    /// The same for a range of frames.
    pub(crate) fn pages_in(&self, frames: &std::ops::Range<u64>) -> impl Iterator<Item = (u64, &Page)> {
        self.pages.range(frames.clone()).map(|(frame, page)| (*frame, page))
    }

    /// Frames that are RAM and in no image.
    pub fn missing(&self) -> impl Iterator<Item = u64> {
        self.missing.iter().copied()
    }

    /// Takes a page out of the image, as if it had not been saved.
    pub fn remove(&mut self, frame: u64) {
        self.pages.remove(&frame);
        self.missing.insert(frame);
    }

    /// The same image without one page.
    pub fn without(&self, frame: u64) -> Self {
        let mut other = self.clone();
        other.remove(frame);
        other
    }

    /// RAM that is in the image, as ranges of frames.
    pub fn runs(&self) -> Vec<std::ops::Range<u64>> {
        let mut runs = Vec::new();
        for (start, end) in &self.truth.ram {
            let mut from = start / PAGE;
            for gap in self.missing.range(from..end / PAGE) {
                if from < *gap {
                    runs.push(from..*gap);
                }
                from = gap + 1;
            }
            if from < end / PAGE {
                runs.push(from..end / PAGE);
            }
        }
        runs
    }

    /// Pages that something was written to, as ranges of frames.
    pub fn touched(&self) -> Vec<std::ops::Range<u64>> {
        let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
        for frame in self.pages.keys() {
            match runs.last_mut() {
                Some(run) if run.end == *frame => run.end += 1,
                _ => runs.push(*frame..frame + 1),
            }
        }
        runs
    }

    /// Reads physical memory; nothing, if any of it is no RAM or missing.
    pub fn read(&self, mut address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let frame = address / PAGE;
            let ram = self.truth.ram.iter().any(|(start, end)| (*start..*end).contains(&address));
            if !ram || self.missing.contains(&frame) {
                return None;
            }
            let at = (address % PAGE) as usize;
            let here = (length - bytes.len()).min(PAGE as usize - at);
            match self.pages.get(&frame) {
                Some(page) => bytes.extend(&page[at..at + here]),
                None => bytes.resize(bytes.len() + here, 0),
            }
            address += here as u64;
        }
        Some(bytes)
    }

    /// Writes physical memory, for tests that damage it; pages that were missing are there afterwards.
    pub fn write(&mut self, mut address: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = (address % PAGE) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE as usize - at));
            let page = self.pages.entry(address / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]));
            page[at..at + now.len()].copy_from_slice(now);
            self.missing.remove(&(address / PAGE));
            address += now.len() as u64;
            bytes = rest;
        }
    }

    /// Page file by number: the page with a number, and its bytes, of which those behind the last one given are zeros.
    pub fn page_file(&self, file: u8) -> impl Iterator<Item = (u32, &[u8])> {
        let pages = self.page_files.0.range((file, 0)..=(file, u32::MAX));
        pages.map(|((_, page), bytes)| (*page, bytes.as_slice()))
    }
}
