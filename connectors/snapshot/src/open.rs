//! From a path to physical memory.
//!
//! Owns: the order of steps: open, detect, unpack, parse, map. Must not know: how any format is parsed.
//! Keeps: what is unknown is raw only when it has the shape of memory; mapping refused is a quiet fall back to positional reads.

use std::{fmt, path::Path, sync::Arc};

use memflow_core::{
    Error, PhysicalMemory, Result,
    memory::{BufferMemory, FileMemory, LookasideLayer, MapMode, MappedMemory, SourceConfig},
};

use crate::{
    detect::{Compression, Container, Detected, Format, detect},
    elf,
    image::{ParseOptions, ParsedImage},
    input::{BytesInput, FileInput, ReadAt},
    lime,
    options::OpenOptions,
    raw::{Choice, MemoryLayout, choose_layout},
    unpack::{self, UnpackOptions, Unpacked},
};

/// Size of the pages that a raw image consists of.
const PAGE: u64 = 4096;

/// An open snapshot.
#[non_exhaustive]
pub struct Snapshot {
    /// Its memory, with what it says about the machine as [`facts`](PhysicalMemory::facts).
    pub memory: Arc<dyn PhysicalMemory>,
    /// What the file is.
    pub format: Format,
    /// What a person should know about it: what is missing, what was assumed.
    pub notes: Vec<String>,
    /// For a raw image whose layout was assumed: the others it may have, the likelier first. Whoever can tell (an OS layer that
    /// finds its kernel or not) opens the file again with one of them.
    pub alternatives: Vec<MemoryLayout>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("name", &self.memory.metadata().name)
            .field("format", &self.format)
            .field("notes", &self.notes)
            .field("alternatives", &self.alternatives)
            .finish_non_exhaustive()
    }
}

/// Opens a file that holds physical memory. What it is, is told by its content.
///
/// An ELF core or a LiME image says where its memory lies. A raw image does not, so with [`MemoryLayout::Auto`]:
///
/// 1. If the firmware's SMBIOS tables are in the image and their list of RAM ranges fits its size, that list is the layout.
/// 2. Else an image below 2.75 GiB is flat: no PC has a hole there.
/// 3. Else, if it is longer than 4 GiB and holds only zeros where the hole of a PC is, it is taken for flat.
/// 4. Else it is taken for the RAM of a q35 machine.
///
/// In the last two cases a note says so, and [`Snapshot::alternatives`] lists what else it may be.
///
/// Raw images are live unless [`OpenOptions::live`] says otherwise: a raw file can be the memory of a running guest. Opening
/// costs the headers of a container, or unpacking; the memory itself is read when it is asked for.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] when the file cannot be used at all; [`Error::Format`] when it contradicts itself or ends
/// early; [`Error::Unsupported`] for formats known by sight only; [`Error::Argument`] for options that do not suit the file;
/// [`Error::Cancelled`] when the progress callback asks for it.
///
/// # Examples
/// ```
/// use memflow_snapshot::{OpenOptions, open};
///
/// let error = open("no such file".as_ref(), &OpenOptions::default()).unwrap_err();
/// assert!(error.to_string().starts_with("opening no such file: "));
/// ```
pub fn open(path: &Path, options: &OpenOptions<'_>) -> Result<Snapshot> {
    let input = FileInput::open(path, options.writable)?;
    let container = match detect(&input)? {
        Detected::Container(container) => container,
        Detected::Compressed(compression) => return open_compressed(&input, compression, options),
    };
    let parsed = parse(&input, container, options)?;
    let config = parsed.config(path);
    let live = options.live.unwrap_or(container == Container::Raw);
    let mode = match (options.writable, live) {
        (true, _) => MapMode::SharedWritable,
        (false, true) => MapMode::Shared,
        (false, false) => MapMode::Private,
    };
    let memory: Arc<dyn PhysicalMemory> = match MappedMemory::new(config.clone(), input.file(), mode) {
        Ok(memory) => Arc::new(memory),
        Err(Error::Io { what, source }) => {
            log::debug!("{what}: {source}; reading by position instead");
            let memory = FileMemory::new(config, input.into_file(), mode.liveness(), !options.writable);
            LookasideLayer::over(Arc::new(memory))
        }
        Err(Error::Range { .. }) => {
            let problem = "shrank while it was opened; is it still being written?";
            return Err(Error::File { path: path.to_owned(), problem: problem.into() });
        }
        Err(error) => return Err(error),
    };
    Ok(parsed.finish(memory, Format { container, compression: None }))
}

/// Opens an image that lies in memory, such as one built into a program; `name` stands for its path in messages.
///
/// # Errors
/// As [`open`].
///
/// # Examples
/// ```
/// use memflow_core::{PhysAddr, memory::PhysicalMemoryExt};
/// use memflow_snapshot::{OpenOptions, open_bytes};
///
/// let mut image = vec![0; 0x2000];
/// image[0x1000] = 7;
/// let snapshot = open_bytes("built in", &image, &OpenOptions::default())?;
/// assert_eq!(snapshot.format.to_string(), "raw");
/// let mut byte = [0];
/// snapshot.memory.read_into(PhysAddr::new(0x1000), &mut byte)?;
/// assert_eq!(byte, [7]);
/// # Ok::<(), memflow_core::Error>(())
/// ```
pub fn open_bytes(name: &str, bytes: &[u8], options: &OpenOptions<'_>) -> Result<Snapshot> {
    let input = BytesInput::new(name.as_ref(), bytes);
    match detect(&input)? {
        Detected::Compressed(compression) => open_compressed(&input, compression, options),
        Detected::Container(container) => {
            refuse_writing(&input, options, "lies in memory")?;
            let parsed = parse(&input, container, options)?;
            let memory = BufferMemory::new(parsed.config(input.path()), bytes.to_vec())?;
            Ok(parsed.finish(Arc::new(memory), Format { container, compression: None }))
        }
    }
}

fn open_compressed(input: &dyn ReadAt, compression: Compression, options: &OpenOptions<'_>) -> Result<Snapshot> {
    refuse_writing(input, options, "is compressed")?;
    let unpack_options = UnpackOptions {
        max_unpacked: options.max_unpacked,
        partial: options.partial,
        on_progress: options.on_progress,
    };
    let Unpacked { bytes, notes } = match compression {
        Compression::Gzip => unpack::gzip(input, unpack_options)?,
        Compression::Zstd => unpack::zstd(input, unpack_options)?,
    };
    let inner = BytesInput::new(input.path(), bytes.bytes());
    let inside = |error: Error| error.context(format!("inside the {compression} stream"));
    let container = match detect(&inner).map_err(inside)? {
        Detected::Container(container) => container,
        Detected::Compressed(again) => {
            return Err(Error::Unsupported {
                what: format!("{}: a {again} stream inside a {compression} stream", input.path().display()),
                why: "one compression is unpacked; unpack the outer one first".to_owned(),
            });
        }
    };
    let mut parsed = parse(&inner, container, options).map_err(inside)?;
    parsed.image.notes.splice(0..0, notes);
    let memory = BufferMemory::new(parsed.config(input.path()), bytes)?;
    Ok(parsed.finish(Arc::new(memory), Format { container, compression: Some(compression) }))
}

fn refuse_writing(input: &dyn ReadAt, options: &OpenOptions<'_>, why: &str) -> Result<()> {
    if options.writable {
        let problem = format!("{why}, so it cannot be written to; open it read-only");
        return Err(Error::File { path: input.path().to_owned(), problem: problem.into() });
    }
    Ok(())
}

/// A parsed image, and the layouts it may have instead.
struct Parsed {
    image: ParsedImage,
    alternatives: Vec<MemoryLayout>,
}

impl Parsed {
    fn config(&self, path: &Path) -> SourceConfig {
        let name = format!("snapshot {}", path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
        SourceConfig { name: name.into(), runs: self.image.runs.clone(), facts: self.image.facts.clone() }
    }

    fn finish(self, memory: Arc<dyn PhysicalMemory>, format: Format) -> Snapshot {
        Snapshot { memory, format, notes: self.image.notes, alternatives: self.alternatives }
    }
}

fn parse(input: &dyn ReadAt, container: Container, options: &OpenOptions<'_>) -> Result<Parsed> {
    let parser = match container {
        Container::Raw => return parse_raw(input, options),
        Container::Lime => lime::parse,
        Container::ElfCore => elf::parse,
    };
    if options.layout != MemoryLayout::Auto {
        return Err(Error::Argument {
            what: "memory layout".into(),
            expected: format!(
                "auto, as {} is a {container} file, which says where its memory lies",
                input.path().display()
            )
            .into(),
            found: options.layout.to_string(),
        });
    }
    let image = parser(input, ParseOptions { partial: options.partial })?;
    Ok(Parsed { image, alternatives: Vec::new() })
}

fn parse_raw(input: &dyn ReadAt, options: &OpenOptions<'_>) -> Result<Parsed> {
    let size = input.size();
    let mut image = ParsedImage::default();
    if !size.is_multiple_of(PAGE) && !matches!(options.layout, MemoryLayout::Runs(_)) {
        if !options.partial {
            return Err(Error::File {
                path: input.path().to_owned(),
                problem: format!(
                    "is not a memory image: expected an ELF core, a LiME image, or a raw image of whole pages of {PAGE:#x} bytes, \
                     found {size:#x} bytes of something else; if it is a raw image that was cut short, open it as a partial image"
                )
                .into(),
            });
        }
        image.notes.push(format!("the image ends {:#x} bytes into a page; it was cut short", size % PAGE));
    }
    let choice = match options.layout.runs(size) {
        Some(runs) => Choice { layout: options.layout.clone(), runs, notes: Vec::new(), alternatives: Vec::new() },
        None => choose_layout(input)?,
    };
    if let Some(run) = choice.runs.runs().iter().find(|run| run.offset.saturating_add(run.range.len()) > size) {
        return Err(Error::Argument {
            what: "memory layout".into(),
            expected: format!("runs inside the {size:#x} bytes of {}", input.path().display()).into(),
            found: format!("{}@{:#x}", run.range, run.offset),
        });
    }
    log::debug!("{}: raw image in layout {}", input.path().display(), choice.layout);
    image.runs = choice.runs;
    image.notes.extend(choice.notes);
    Ok(Parsed { image, alternatives: choice.alternatives })
}
