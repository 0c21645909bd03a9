//! A target's memory as a file.
//!
//! Owns: the formats and what they do with gaps, in the words of the command line; the file, the target that stands still meanwhile, and
//! what is told about the result. Must not know: which command wants it, how a format is laid out.
//! Keeps: a byte that was not read is never written, unless the caller asked for zeros by name; then their number is told.

use std::{cell::RefCell, fmt::Display, num::NonZero, ops::ControlFlow, path::Path};

use clap::ValueEnum;
use memflow_core::{
    Error, PhysAddr, PhysRange, PhysicalMemory,
    error::Reason,
    memory::{Liveness, Piece},
};
use memflow_snapshot::{DumpCompression, DumpFormat, Gaps, Sink, WriteOptions, Written};
use serde::Serialize;

use crate::{
    failure::{Failure, Outcome, Status},
    interrupt,
    output::{Io, escape, plural, size},
    output_file::{Existing, OutputFile},
    pause::Still,
    progress,
    target::Target,
};

/// Formats of physical memory.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// Address zero is byte zero of the file; gaps need --fill-gaps
    Raw,
    /// LiME: each range of memory with its addresses; gaps stay gaps
    Lime,
    /// ELF core: as LiME, with registers, VMCOREINFO and whatever else is known of the machine
    Elf,
    /// kdump-compressed: as ELF, compressed page by page; what the source left out stays left out. Not to a pipe
    Kdump,
    /// Windows crash dump of x86 or x86-64, with what its header has a place for; gaps stay gaps
    Windows,
}

/// Compressions of dumps.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compress {
    /// Zstandard: frames of 1 MiB with a seek table, or each page of a kdump
    Zstd,
    /// zlib; kdump only, where it is what is done unless something else is asked for
    Zlib,
    /// LZO, faster and larger; kdump only
    Lzo,
    /// snappy, faster and larger; kdump only
    Snappy,
    /// Nothing
    None,
}

/// What stands in for memory that cannot be read.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fill {
    /// Zeros, as holes in the file where possible
    Zero,
    /// Nothing where the source left memory out on purpose: it is a gap then; what cannot be read fails
    Gap,
}

/// Where the memory goes, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The file, or `-`.
    pub(crate) output: &'a Path,
    /// Replaces a file of that name.
    pub(crate) force: bool,
    /// Leaves a live target running.
    pub(crate) no_pause: bool,
    /// What stands in for memory that cannot be read.
    pub(crate) fill: Option<Fill>,
}

#[derive(Serialize)]
struct Document<'a> {
    file: &'a str,
    format: &'static str,
    size: u64,
    filled: u64,
    left_out: u64,
    unknown: &'a [&'static str],
    live: bool,
    problems: [&'static str; 0],
}

/// Writes all physical memory of the target.
pub(crate) fn everything(
    wanted: Wanted<'_>,
    format: Format,
    compress: Option<Compress>,
    target: &Target,
    io: &mut Io<'_>,
) -> Outcome {
    let memory = target.memory();
    let runs = memory.metadata().runs;
    let Some(all) = runs.last_address().and_then(|last| PhysRange::inclusive(PhysAddr::new(0), last)) else {
        return Err(Failure::Missing("the target holds no memory".to_owned()));
    };
    let left_out = memory.excluded_runs().total_bytes();
    if left_out > 0 && wanted.fill.is_none() && !matches!(format, Format::Kdump | Format::Windows) {
        return Err(Failure::Usage(format!(
            "{} of memory were left out when the target was dumped, and a gap would not tell that; --format kdump \
             keeps it, --fill-gaps gap writes gaps there, --fill-gaps zero zeros",
            size(left_out)
        )));
    }
    let gap = runs.pieces(all).find_map(|piece| match piece {
        Piece::Gap { range } => Some(range),
        Piece::Present { .. } => None,
    });
    if let (Some(gap), Format::Raw, None | Some(Fill::Gap)) = (gap, format, wanted.fill) {
        return Err(Failure::Usage(format!(
            "physical memory has a gap at {} ({}); --fill-gaps zero writes zeros there, --format lime keeps gaps",
            gap.start(),
            size(gap.len())
        )));
    }
    let (kind, name) = match format {
        Format::Raw => (DumpFormat::Raw, "raw"),
        Format::Lime => (DumpFormat::Lime, "lime"),
        Format::Elf => (DumpFormat::Elf, "elf"),
        Format::Kdump => (DumpFormat::Kdump, "kdump"),
        Format::Windows => (DumpFormat::Windows, "windows"),
    };
    let mut options = WriteOptions::new(kind);
    options.compression = compress.map(|compress| match compress {
        Compress::Zstd => DumpCompression::Zstd,
        Compress::Zlib => DumpCompression::Zlib,
        Compress::Lzo => DumpCompression::Lzo,
        Compress::Snappy => DumpCompression::Snappy,
        Compress::None => DumpCompression::None,
    });
    options.gaps = wanted.fill.map(|fill| match fill {
        Fill::Zero => Gaps::Zero,
        Fill::Gap => Gaps::Gap,
    });
    // Calls to a machine follow each other: it answers no sooner when two ask, and one that fails or hangs is asked once.
    if memory.metadata().liveness == Liveness::Live && memory.direct_map().is_none() {
        options.threads = Some(NonZero::<usize>::MIN);
    }
    let mut file = MemoryFile::create(wanted, target, runs.total_bytes(), io)?;
    let copied = file.write_all(&**memory, &options);
    file.finish(copied, name, io)
}

/// The file as a sink. Why it takes no more is kept here.
struct FileSink<'f> {
    file: &'f mut OutputFile,
    failure: Option<Failure>,
}

impl FileSink<'_> {
    fn kept(&mut self, done: Outcome<()>) -> Result<(), Error> {
        done.map_err(|failure| {
            self.failure = Some(failure);
            Error::Cancelled
        })
    }
}

impl Sink for FileSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let done = self.file.write(bytes);
        self.kept(done)
    }

    fn skip(&mut self, len: u64) -> Result<(), Error> {
        let done = self.file.skip(len);
        self.kept(done)
    }

    fn can_patch(&self) -> bool {
        self.file.can_patch()
    }

    fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let done = self.file.patch(offset, bytes);
        self.kept(done)
    }
}

/// A file that is being written.
pub(crate) struct MemoryFile {
    // Before the file: when a panic drops both, the target runs first.
    still: Still,
    file: OutputFile,
    name: String,
    progress: progress::Bytes,
    fill: Option<Fill>,
    filled: u64,
    left_out: u64,
    unknown: Vec<&'static str>,
}

impl MemoryFile {
    /// Makes the file, and pauses the target once that is there.
    pub(crate) fn create(wanted: Wanted<'_>, target: &Target, total: u64, io: &mut Io<'_>) -> Outcome<Self> {
        let existing = if wanted.force { Existing::Replaced } else { Existing::Kept };
        let file = OutputFile::create(wanted.output, existing, target.path())?;
        Ok(Self {
            still: Still::new(target, wanted.no_pause, io)?,
            file,
            name: wanted.output.display().to_string(),
            progress: progress::Bytes::new(io.quiet(), total),
            fill: wanted.fill,
            filled: 0,
            left_out: 0,
            unknown: Vec::new(),
        })
    }

    /// Writes all of `memory`.
    fn write_all(&mut self, memory: &dyn PhysicalMemory, options: &WriteOptions<'_>) -> Outcome<()> {
        // Told through a shared reference, by this thread alone.
        let shown = RefCell::new((&mut self.progress, 0));
        let on_progress = |copied: memflow_snapshot::Copied| {
            let (progress, before) = &mut *shown.borrow_mut();
            progress.advance(copied.done.saturating_sub(*before));
            *before = copied.done;
            if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let options = WriteOptions { on_progress: Some(&on_progress), ..options.clone() };
        let mut sink = FileSink { file: &mut self.file, failure: None };
        let written = memflow_snapshot::write(memory, &mut sink, &options);
        if let Some(failure) = sink.failure {
            return Err(failure);
        }
        match written {
            Ok(Written { filled, left_out, unknown, .. }) => {
                self.filled = filled;
                self.left_out = left_out;
                self.unknown = unknown;
                Ok(())
            }
            Err(Error::Access { address, len, reason, .. }) => Err(unreadable(len, address, reason)),
            Err(error @ Error::Unsupported { .. }) => Err(Failure::Usage(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// What stands in for memory that cannot be read.
    pub(crate) fn stand_in(&self) -> Option<Fill> {
        self.fill
    }

    /// Appends bytes of memory.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.file.write(bytes)?;
        self.progress.advance(bytes.len() as u64);
        Ok(())
    }

    /// Appends zeros in place of what cannot be read.
    pub(crate) fn fill(&mut self, len: u64) -> Outcome<()> {
        self.filled = self.filled.saturating_add(len);
        self.progress.advance(len);
        self.file.skip(len)
    }

    /// Lets the target run, and makes the file whole if all was copied.
    pub(crate) fn finish(self, copied: Outcome<()>, format: &'static str, io: &mut Io<'_>) -> Outcome {
        let Self { still, file, name, progress, filled, left_out, unknown, .. } = self;
        let live = still.is_live();
        let ended = still.end(io);
        if let (Err(_), Err(problem)) = (&copied, &ended) {
            io.alarm(problem);
        }
        copied?;
        let (to_stdout, written) = (file.is_stdout(), file.len());
        file.finish()?;
        drop(progress);
        if filled > 0 {
            io.warn(format_args!("zeros stand for {} that could not be read", plural(filled, "byte")));
        }
        if left_out > 0 {
            io.warn(format_args!("{} that were left out of the target are gaps now", plural(left_out, "byte")));
        }
        if !unknown.is_empty() {
            io.warn(format_args!(
                "the target does not tell what belongs into these fields of the header: {}",
                unknown.join(", ")
            ));
        }
        if io.json {
            let unknown = &unknown[..];
            io.document(&Document {
                file: &name,
                format,
                size: written,
                filled,
                left_out,
                unknown,
                live,
                problems: [],
            })?;
        } else if !to_stdout {
            io.line(format_args!("{}: {} ({}), {format}", escape(&name), plural(written, "byte"), size(written)))?;
        }
        // The file is good, and yet not all is.
        ended.map(|()| Status::Complete)
    }
}

/// The failure for memory that cannot be read.
pub(crate) fn unreadable(len: u64, address: impl Display, reason: Reason) -> Failure {
    Failure::Unreadable(format!(
        "{} at {address} cannot be read: {reason}; no file was written; --fill-gaps zero writes zeros there",
        plural(len, "byte")
    ))
}
