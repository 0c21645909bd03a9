//! Images as files: raw, LiME, Windows crash dumps, page files.
//!
//! Owns: the headers of these formats. Must not know: what is in the memory.
//! Keeps: zeros that nobody wrote are holes in the file, so that 2 GiB take a few MiB of disk.
//! Source: the LiME project's description; public descriptions of the crash dump's header.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
};

use crate::{Windows, physical::PAGE, tables::Paging};

/// Which pages a file is to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contents {
    /// All RAM, but for what is missing.
    All,
    /// Only pages that something was written to.
    Touched,
}

impl Windows {
    fn contents(&self, contents: Contents) -> Vec<Range<u64>> {
        match contents {
            Contents::All => self.runs(),
            Contents::Touched => self.touched(),
        }
    }

    /// Writes the pages of `run` so that its first byte is at `at`.
    fn write_run(&self, file: &mut File, at: u64, run: &Range<u64>) -> io::Result<()> {
        for (frame, page) in self.pages_in(run) {
            file.seek(SeekFrom::Start(at + (frame - run.start) * PAGE))?;
            file.write_all(&page[..])?;
        }
        Ok(())
    }

    /// Writes memory by physical address; what is missing or no RAM is zeros.
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn write_raw(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        let end = self.truth.ram.iter().map(|run| run.1).max().unwrap_or(0);
        file.set_len(end)?;
        self.write_run(&mut file, 0, &(0..end / PAGE))
    }

    /// Writes a LiME file.
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn write_lime(&self, path: &Path, contents: Contents) -> io::Result<()> {
        let mut file = File::create(path)?;
        let mut at = 0;
        for run in self.contents(contents) {
            let mut header = [0x4c69_4d45_u32, 1].map(u32::to_le_bytes).concat();
            header.extend([run.start * PAGE, run.end * PAGE - 1, 0].map(u64::to_le_bytes).concat());
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&header)?;
            self.write_run(&mut file, at + 32, &run)?;
            at += 32 + (run.end - run.start) * PAGE;
        }
        file.set_len(at)
    }

    /// Writes a full crash dump.
    ///
    /// # Errors
    /// What the system says of the file; [`io::ErrorKind::InvalidInput`] if there are more runs than a header holds.
    pub fn write_crash_dump(&self, path: &Path) -> io::Result<()> {
        let wide = self.truth.paging == Paging::Four;
        let runs = self.runs();
        let (size, most, width): (usize, usize, usize) = if wide { (0x2000, 42, 8) } else { (0x1000, 86, 4) };
        if runs.len() > most {
            let text = format!("{} runs of memory; the header of a crash dump holds {most}", runs.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut header = b"PAGE".repeat(size / 4);
        let mut put =
            |at: usize, value: u64, bytes: usize| header[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        let symbol = |name: &str| self.truth.kernel.symbols.get(name).copied().unwrap_or(0);
        let kdbg = self.truth.kernel.kdbg.as_ref().map_or(0, |kdbg| kdbg.address);
        put(4, u64::from(u32::from_le_bytes(if wide { *b"DU64" } else { *b"DUMP" })), 4);
        put(8, 15, 4);
        put(0xc, u64::from(self.truth.kernel.version.build), 4);
        let pointers = [
            self.truth.dtb,
            self.truth.kernel.pfn_database,
            symbol("PsLoadedModuleList"),
            symbol("PsActiveProcessHead"),
        ];
        for (slot, value) in pointers.into_iter().enumerate() {
            put(0x10 + slot * width, value, width);
        }
        let machine = 0x10 + 4 * width;
        put(machine, if wide { 0x8664 } else { 0x14c }, 4);
        put(machine + 4, self.truth.processors.len() as u64, 4);
        put(machine + 8, 0xe2, 4);
        let (kdbg_at, block, kind) = if wide { (0x80, 0x88, 0xf98) } else { (0x60, 0x64, 0xf88) };
        put(kdbg_at, kdbg, width);
        if !wide {
            put(0x5c, u64::from(self.truth.paging == Paging::Pae), 1);
        }
        put(block, runs.len() as u64, 4);
        put(block + width, runs.iter().map(|run| run.end - run.start).sum(), width);
        for (index, run) in runs.iter().enumerate() {
            put(block + (2 + 2 * index) * width, run.start, width);
            put(block + (3 + 2 * index) * width, run.end - run.start, width);
        }
        put(kind, 1, 4);
        // Parameters of the bug check, and the registers of the first processor, in the kernel.
        let (parameters, context, end) = if wide { (0x40, 0x348, 0xf00) } else { (0x2c, 0x320, 0x7d0) };
        (0..4).for_each(|at| put(parameters + at * width, 0, width));
        (context..end).for_each(|at| put(at, 0, 1));
        let running = self.truth.processors.first().map_or(0, |processor| processor.thread);
        let threads = self.truth.processes.iter().flat_map(|process| &process.threads);
        let stack = threads.filter(|thread| thread.ethread == running).map(|thread| thread.stack_base - 0x800).max();
        let ip = self.truth.kernel.base + 0x1040;
        let registers: &[(usize, u64, usize)] = if wide {
            &[(0x30, 0x10_001f, 4), (0x38, 0x10, 2), (0x44, 0x246, 4), (0x98, stack.unwrap_or(0), 8), (0xf8, ip, 8)]
        } else {
            &[(0, 0x1_003f, 4), (0xb8, ip, 4), (0xbc, 8, 4), (0xc0, 0x246, 4), (0xc4, stack.unwrap_or(0), 4)]
        };
        registers.iter().for_each(|(at, value, bytes)| put(context + at, *value, *bytes));
        let mut file = File::create(path)?;
        file.write_all(&header)?;
        let mut at = size as u64;
        for run in &runs {
            self.write_run(&mut file, at, run)?;
            at += (run.end - run.start) * PAGE;
        }
        file.set_len(at)
    }

    /// Writes a page file by its number.
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn write_page_file(&self, number: u8, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        let mut end = 0;
        for (page, bytes) in self.page_file(number) {
            file.seek(SeekFrom::Start(u64::from(page) * PAGE))?;
            file.write_all(bytes)?;
            end = (u64::from(page) + 1) * PAGE;
        }
        file.set_len(end)
    }
}
