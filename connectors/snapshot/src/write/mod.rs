//! Writing memory to a file, in the formats that others read.
//!
//! ```text
//! memory ─▶ source ─┬─ raw │ lime │ elf │ windows ─▶ items ─▶ stream ─┬─▶ sink
//!                   └─ kdump ─────────────────────────────────────────┘
//!                              pipeline: several threads read and compress, one writes
//! ```
//!
//! Owns: what can be asked for, and what is told about the result. Must not know: files, whether anybody stands still.
//! Keeps: what a format cannot tell is refused with the way out, unless it was asked for by name; then how much that was is told.

mod bits;
mod elf;
mod kdump;
mod lime;
mod notes;
mod pipeline;
mod raw;
mod source;
mod stream;
mod windows;

use std::{fmt, io, num::NonZero, ops::ControlFlow, thread};

use memflow_core::{Error, PhysicalMemory, Result};

use self::{source::Source, stream::Item};

/// Where a dump goes.
pub trait Sink {
    /// Appends bytes.
    ///
    /// # Errors
    /// What the system says; it ends the dump.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Appends zeros; a hole where that is possible.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn skip(&mut self, len: u64) -> Result<()>;

    /// True when bytes that were written can be written over.
    fn can_patch(&self) -> bool {
        false
    }

    /// Writes over bytes that were written or skipped before.
    ///
    /// # Errors
    /// As [`write`](Self::write), and for a sink that cannot.
    fn patch(&mut self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(Error::io("writing over what was written", io::ErrorKind::Unsupported.into()))
    }
}

/// A format that can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DumpFormat {
    /// Physical address zero is byte zero; no gaps, nothing about the machine.
    Raw,
    /// LiME, version 1: gaps, nothing about the machine.
    Lime,
    /// An ELF core: gaps, and all that is known of the machine.
    Elf,
    /// kdump-compressed: as an ELF core, and what was left out is told from gaps. For sinks that can be written over.
    Kdump,
    /// A complete Windows crash dump, of x86 or x86-64, whatever the system: gaps, and what its header has a place for: the root of the page
    /// tables, where a Windows kernel keeps its lists, the context of one vCPU. What was left out is told from gaps, by those who look.
    Windows,
}

impl fmt::Display for DumpFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Lime => "LiME",
            Self::Elf => "ELF core",
            Self::Kdump => "kdump",
            Self::Windows => "Windows crash dump",
        })
    }
}

/// How a dump is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DumpCompression {
    /// Not at all: the pages of a kdump as they are.
    None,
    /// zlib, which every tool for kdumps reads; of kdump only.
    Zlib,
    /// LZO, faster and larger; of kdump only.
    Lzo,
    /// snappy, faster and larger; of kdump only.
    Snappy,
    /// Zstandard: of other formats than kdump in frames of 1 MiB with a seek table, so that it is read at random.
    Zstd,
}

/// What becomes of memory that the format cannot leave out, or that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gaps {
    /// Zeros stand for it.
    Zero,
    /// What the source left out on purpose becomes a gap like any other. What cannot be read fails all the same.
    Gap,
}

/// How far a dump has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copied {
    /// Bytes of memory written.
    pub done: u64,
    /// Bytes of memory there are.
    pub total: u64,
}

/// How memory is written.
#[derive(Clone)]
pub struct WriteOptions<'a> {
    /// The format.
    pub format: DumpFormat,
    /// How it is compressed; `None` for what is usual: kdump has its pages compressed by zlib, the others nothing.
    pub compression: Option<DumpCompression>,
    /// What becomes of memory that the format cannot leave out, or that cannot be read; `None` fails.
    pub gaps: Option<Gaps>,
    /// Threads that read and compress; `None` for as many as this machine has processors.
    pub threads: Option<NonZero<usize>>,
    /// Is told about progress, some thousand times a gibibyte; [`ControlFlow::Break`] ends the dump with [`Error::Cancelled`].
    pub on_progress: Option<&'a dyn Fn(Copied) -> ControlFlow<()>>,
}

impl WriteOptions<'_> {
    /// As it is usual.
    pub fn new(format: DumpFormat) -> Self {
        Self { format, compression: None, gaps: None, threads: None, on_progress: None }
    }

    fn threads(&self) -> usize {
        self.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get)
    }
}

impl fmt::Debug for WriteOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteOptions")
            .field("format", &self.format)
            .field("compression", &self.compression)
            .field("gaps", &self.gaps)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// What a person should know about a dump that was written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Written {
    /// Bytes for which zeros stand, because they could not be read, are no memory, or were left out of the source.
    pub filled: u64,
    /// Bytes that were left out of the source and are a gap now like memory that never was.
    pub left_out: u64,
    /// Fields of a crash dump's header, by the names that Windows has for them, of which the target tells nothing: they are as Windows
    /// leaves a field that it does not set.
    pub unknown: Vec<&'static str>,
}

/// Writes all physical memory, with what is known of its machine.
///
/// What the source left out on purpose is an error where the format cannot tell that, unless [`WriteOptions::gaps`] says what it becomes.
///
/// # Errors
/// [`Error::Unsupported`] before anything is written for what the format cannot say, with the way out; [`Error::Access`] for memory that
/// cannot be read; what the sink says; [`Error::Cancelled`] when the progress callback asks for it. What was written until then is no
/// dump.
///
/// # Examples
/// ```
/// use memflow_core::Result;
/// use memflow_snapshot::{DumpFormat, OpenOptions, Sink, WriteOptions, open_bytes, write};
///
/// struct Bytes(Vec<u8>);
///
/// impl Sink for Bytes {
///     fn write(&mut self, bytes: &[u8]) -> Result<()> {
///         self.0.extend_from_slice(bytes);
///         Ok(())
///     }
///
///     fn skip(&mut self, len: u64) -> Result<()> {
///         self.0.resize(self.0.len() + len as usize, 0);
///         Ok(())
///     }
/// }
///
/// let image = open_bytes("image", &[7; 0x2000], &OpenOptions::default())?;
/// let mut file = Bytes(Vec::new());
/// write(&*image.memory, &mut file, &WriteOptions::new(DumpFormat::Lime))?;
/// assert_eq!(file.0.len(), 32 + 0x2000);
/// # Ok::<(), memflow_core::Error>(())
/// ```
pub fn write(memory: &dyn PhysicalMemory, sink: &mut dyn Sink, options: &WriteOptions<'_>) -> Result<Written> {
    let source = Source::new(memory, options.gaps)?;
    let left_out = source.excluded.iter().fold(0, |sum: u64, range| sum.saturating_add(range.len()));
    if options.format == DumpFormat::Kdump {
        kdump::write(&source, sink, options)?;
        return Ok(Written { filled: source.filled(), ..Written::default() });
    }
    let compressed = match options.compression {
        None | Some(DumpCompression::None) => false,
        Some(DumpCompression::Zstd) => true,
        Some(DumpCompression::Zlib | DumpCompression::Lzo | DumpCompression::Snappy) => {
            return Err(Error::Unsupported {
                what: format!("{} with compression other than zstd", options.format),
                why: "zlib, LZO and snappy are for the pages of a kdump".to_owned(),
            });
        }
    };
    let told = options.format == DumpFormat::Windows && windows::tells_left_out(&source);
    if left_out > 0 && options.gaps.is_none() && !told {
        return Err(Error::Unsupported {
            what: format!("{left_out:#x} bytes of memory that the source left out, as {}", options.format),
            why: "the format cannot tell them from memory that never was; take kdump, which can, or ask for gaps or zeros there"
                .to_owned(),
        });
    }
    let mut unknown = Vec::new();
    let items: Vec<Item> = match options.format {
        DumpFormat::Raw => raw::items(&source)?,
        DumpFormat::Lime => lime::items(&source),
        DumpFormat::Elf | DumpFormat::Kdump => elf::items(&source),
        DumpFormat::Windows => {
            let dump = windows::items(&source)?;
            unknown = dump.unknown;
            dump.items
        }
    };
    stream::write(&source, items, compressed, sink, options)?;
    Ok(Written {
        filled: source.filled(),
        left_out: if options.gaps == Some(Gaps::Gap) { left_out } else { 0 },
        unknown,
    })
}
