//! From a path to physical memory.
//!
//! Owns: the order of steps: open, detect, unpack, parse, map. Must not know: how any format is parsed.
//! Keeps: what is unknown is raw only when it has the shape of memory; mapping refused is a quiet fall back to positional reads.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use memflow_core::{
    Error, PhysicalMemory, Result,
    memory::{
        BufferMemory, FileMemory, Liveness, LookasideLayer, MapMode, MappedMemory, PageBuffer, PositionedMemory,
        SourceConfig,
    },
};

use crate::{
    beside::{self, Beside},
    blocks::{BlockInput, Blocks},
    container::{Container, PackedParser},
    detect::{Compression, Detected, Format, detect},
    flattened::Flattened,
    image::{PackedImage, ParseOptions, ParsedImage},
    input::{BytesInput, FileInput, InputSource, OwnedInput, ReadAt, View},
    kdump,
    libvirt::{self, Tail},
    migration,
    options::OpenOptions,
    raw::{Choice, MemoryLayout, choose_layout, vmware_pc},
    split,
    unpack::{self, Bytes, UnpackOptions, Unpacked},
    vmware::{self, State},
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
/// An ELF core or a LiME image says where its memory lies. A raw image does not, so with [`MemoryLayout::Auto`], unless the state of a VMware
/// machine, of Firecracker or of Cloud Hypervisor lies beside it and says it:
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
    let detected = detect(&input)?;
    if !options.parts.is_empty() && detected != Detected::Container(Container::Kdump) {
        return Err(Error::Argument {
            what: "parts".into(),
            expected: "a kdump file that makedumpfile split".into(),
            found: path.display().to_string(),
        });
    }
    match detected {
        Detected::Compressed(compression) => {
            refuse_writing(&input, options, "is compressed")?;
            open_compressed(Arc::new(input), compression, options)
        }
        Detected::Flattened => {
            refuse_writing(&input, options, "is flattened")?;
            open_flattened(Arc::new(input), options)
        }
        Detected::LibvirtSave => {
            refuse_writing(&input, options, "is a stream of pages")?;
            open_libvirt(Arc::new(input), false, options)
        }
        Detected::VmwareState => {
            let state = vmware::parse(&input)?;
            match state.memory {
                Some(_) => open_vmware(input, &state, options),
                None => open_vmware(FileInput::open(&memory_beside(path)?, options.writable)?, &state, options),
            }
        }
        Detected::Container(Container::Raw) if options.layout == MemoryLayout::Auto && is_vmware_memory(path) => {
            match state_beside(path) {
                Some(state) => {
                    let input_of_state = FileInput::open(&state, false)?;
                    let state = vmware::parse(&input_of_state).map_err(|error| {
                        error.context("the state beside the memory; a layout given by hand needs none")
                    })?;
                    open_vmware(input, &State { memory: None, ..state }, options)
                }
                None => open_plain(input, Container::Raw, options),
            }
        }
        Detected::Container(Container::Raw) if options.layout == MemoryLayout::Auto => {
            match beside::find(path, input.size())? {
                Some(Beside { image, alternatives }) => {
                    open_file(input, Parsed { image, alternatives }, Container::Raw, options)
                }
                None => open_plain(input, Container::Raw, options),
            }
        }
        Detected::Container(container) => match container.packed() {
            Some(parser) => {
                refuse_writing(&input, options, "is compressed")?;
                let input: Arc<dyn ReadAt> = Arc::new(input);
                let others = match container {
                    Container::Kdump => split::others(&input, options)?,
                    _ => Vec::new(),
                };
                if others.is_empty() {
                    return open_packed(input, container, parser, options);
                }
                let image = kdump::parse_parts(input.clone(), others, ParseOptions { partial: options.partial })?;
                refuse_layout(&*input, container, options)?;
                Ok(finish_packed(path, image, Vec::new(), container, options))
            }
            None => open_plain(input, container, options),
        },
    }
}

/// Opens a file whose memory lies in it as it is.
fn open_plain(input: FileInput, container: Container, options: &OpenOptions<'_>) -> Result<Snapshot> {
    let parsed = parse(&input, container, options)?;
    open_file(input, parsed, container, options)
}

/// Maps a file, or reads it by position where it cannot be mapped.
fn open_file(input: FileInput, parsed: Parsed, container: Container, options: &OpenOptions<'_>) -> Result<Snapshot> {
    let config = parsed.config(input.path());
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
            return Err(Error::File { path: input.path().to_owned(), problem: problem.into() });
        }
        Err(error) => return Err(error),
    };
    Ok(parsed.finish(memory, Format { container, compression: None }))
}

/// True for the name of a file in which VMware keeps memory.
fn is_vmware_memory(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("vmem"))
}

/// The state of the snapshot to which a file of memory belongs.
fn state_beside(memory: &Path) -> Option<PathBuf> {
    ["vmss", "vmsn"].into_iter().map(|extension| memory.with_extension(extension)).find(|state| state.is_file())
}

/// The memory that belongs to a state that has none in it.
fn memory_beside(state: &Path) -> Result<PathBuf> {
    let memory = state.with_extension("vmem");
    if memory.is_file() {
        return Ok(memory);
    }
    let problem = format!(
        "holds no memory, and {} is not beside it; copy that file too, from where the snapshot was taken",
        memory.file_name().unwrap_or_default().to_string_lossy()
    );
    Err(Error::File { path: state.to_owned(), problem: problem.into() })
}

/// Opens VMware's memory, which lies in its state or in a file of its own.
fn open_vmware(memory: FileInput, state: &State, options: &OpenOptions<'_>) -> Result<Snapshot> {
    refuse_layout(&memory, Container::Vmware, options)?;
    let view = View::new(&memory, "VMware memory");
    let (base, len) = state.memory.unwrap_or((0, memory.size()));
    let mut image = ParsedImage::default();
    let listed =
        state.runs(base).map_err(|error| view.bad(0, "regions of memory that fit each other", error.to_string()))?;
    image.runs = match listed {
        Some(runs) => runs,
        None => {
            image.notes.push("the state lists no regions, so memory is taken to be that of a PC of VMware".to_owned());
            vmware_pc(base, len)
        }
    };
    if image.runs.is_empty() {
        return Err(view.bad(base, "memory in its regions", format!("none of {len:#x} bytes; copy the memory again")));
    }
    let end = base.saturating_add(len).min(memory.size());
    if let Some(run) = image.runs.runs().iter().find(|run| run.offset.saturating_add(run.range.len()) > end) {
        return Err(view.bad(
            run.offset,
            format!("the {:#x} bytes of {}", run.range.len(), run.range),
            format!("the end of the memory at {end:#x}; it looks truncated, copy it again"),
        ));
    }
    image.facts.vcpus = state.vcpus.clone();
    open_file(memory, Parsed { image, alternatives: Vec::new() }, Container::Vmware, options)
}

/// Opens a container that compresses its memory piece by piece: the pieces are unpacked as they are asked for.
fn open_packed(
    input: Arc<dyn ReadAt>,
    container: Container,
    parser: PackedParser,
    options: &OpenOptions<'_>,
) -> Result<Snapshot> {
    if container == Container::Migration {
        return open_migration(input, 0, options);
    }
    refuse_layout(&*input, container, options)?;
    let image = parser(input.clone(), ParseOptions { partial: options.partial })?;
    Ok(finish_packed(input.path(), image, Vec::new(), container, options))
}

/// Opens a migration stream that begins at `start`. It names the machine, but not where that has its memory.
fn open_migration(input: Arc<dyn ReadAt>, start: u64, options: &OpenOptions<'_>) -> Result<Snapshot> {
    let path = input.path().to_owned();
    let parse_options = ParseOptions { partial: options.partial };
    let (image, alternatives) = migration::parse_at(input, start, parse_options, &options.layout)?;
    Ok(finish_packed(&path, image, alternatives, Container::Migration, options))
}

/// Opens a domain that libvirt saved: a migration stream behind a header. The stream may be compressed, unless the whole is.
fn open_libvirt(input: Arc<dyn ReadAt>, unpacked: bool, options: &OpenOptions<'_>) -> Result<Snapshot> {
    let (start, compression) = libvirt::stream(&*input)?;
    let inside = |error: Error| error.context("inside a libvirt save file");
    let tail = Arc::new(Tail::new(input.clone(), start));
    match detect(&*tail).map_err(inside)? {
        Detected::Container(Container::Migration) => open_migration(input, start, options).map_err(inside),
        Detected::Compressed(compression) if !unpacked => {
            open_compressed(tail, compression, options).map_err(inside)
        }
        _ => Err(Error::Unsupported {
            what: format!("{}: a libvirt save file in format {compression}", input.path().display()),
            why: "raw, gzip, xz, zstd and sparse are known, compressed once; restore the domain and use `virsh dump --memory-only`"
                .to_owned(),
        }),
    }
}

/// Makes memory of pieces that are unpacked as they are asked for.
fn finish_packed(
    path: &Path,
    image: PackedImage,
    alternatives: Vec<MemoryLayout>,
    container: Container,
    options: &OpenOptions<'_>,
) -> Snapshot {
    let PackedImage { image, excluded, blocks } = image;
    let parsed = Parsed { image, alternatives };
    let source = BlockInput::new(path, blocks, options.unpacked_cache());
    let memory = PositionedMemory::new(parsed.config(path), source, Liveness::Frozen, true).with_excluded(excluded);
    parsed.finish(LookasideLayer::over(Arc::new(memory)), Format { container, compression: None })
}

/// Opens a container whose pieces are in any order.
fn open_flattened(input: Arc<dyn ReadAt>, options: &OpenOptions<'_>) -> Result<Snapshot> {
    let inside = |error: Error| error.context("inside a flattened dump".to_owned());
    let (input, notes) = Flattened::read(input, ParseOptions { partial: options.partial })?;
    let mut snapshot = match detect(&input).map_err(inside)? {
        Detected::Container(container) => open_by_position(Arc::new(input), container, options).map_err(inside)?,
        Detected::Flattened | Detected::Compressed(_) | Detected::VmwareState | Detected::LibvirtSave => {
            return Err(Error::Unsupported {
                what: format!("{}: something else than a dump inside a flattened dump", input.path().display()),
                why: "makedumpfile writes dumps there; rearrange it with `makedumpfile -R OUT < IN`".to_owned(),
            });
        }
    };
    snapshot.notes.splice(0..0, notes);
    Ok(snapshot)
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
    refuse_writing(&input, options, "lies in memory")?;
    let container = match detect(&input)? {
        Detected::Compressed(compression) => {
            return open_compressed(Arc::new(OwnedInput::copy(name.as_ref(), bytes)?), compression, options);
        }
        Detected::Flattened => return open_flattened(Arc::new(OwnedInput::copy(name.as_ref(), bytes)?), options),
        Detected::LibvirtSave => {
            return open_libvirt(Arc::new(OwnedInput::copy(name.as_ref(), bytes)?), false, options);
        }
        Detected::VmwareState => return Err(not_a_file(&input)),
        Detected::Container(container) => container,
    };
    if let Some(parser) = container.packed() {
        return open_packed(Arc::new(OwnedInput::copy(name.as_ref(), bytes)?), container, parser, options);
    }
    let parsed = parse(&input, container, options)?;
    let memory = BufferMemory::new(parsed.config(input.path()), bytes.to_vec())?;
    Ok(parsed.finish(Arc::new(memory), Format { container, compression: None }))
}

/// Opens what is in a compressed file, read at random.
fn open_compressed(input: Arc<dyn ReadAt>, compression: Compression, options: &OpenOptions<'_>) -> Result<Snapshot> {
    let unpack_options = UnpackOptions {
        max_unpacked: options.max_unpacked,
        whole: options.unpacked_cache(),
        partial: options.partial,
        on_progress: options.on_progress,
    };
    let path = input.path().to_owned();
    let Unpacked { bytes, notes } = unpack::open(input, compression, unpack_options)?;
    let mut snapshot = match bytes {
        Bytes::Whole(bytes) => open_whole(&path, bytes, options),
        Bytes::Blocks(blocks) => open_blocks(&path, blocks, options),
    }
    .map_err(|error| error.context(format!("inside the {compression} stream")))?;
    snapshot.format.compression = Some(compression);
    snapshot.notes.splice(0..0, notes);
    Ok(snapshot)
}

/// Opens what was unpacked and is small enough to be kept.
fn open_whole(path: &Path, bytes: PageBuffer, options: &OpenOptions<'_>) -> Result<Snapshot> {
    let inner = BytesInput::new(path, bytes.bytes());
    match detect(&inner)? {
        Detected::Container(container) if container.packed().is_none() => {
            let parsed = parse(&inner, container, options)?;
            let memory = BufferMemory::new(parsed.config(path), bytes)?;
            Ok(parsed.finish(Arc::new(memory), Format { container, compression: None }))
        }
        detected => open_inner(Arc::new(OwnedInput::new(path, bytes)), detected, options),
    }
}

/// Opens what is unpacked as it is read.
fn open_blocks(path: &Path, blocks: Box<dyn Blocks>, options: &OpenOptions<'_>) -> Result<Snapshot> {
    let cache = options.unpacked_cache();
    let input = BlockInput::new(path, blocks, cache);
    let detected = detect(&input)?;
    if !matches!(detected, Detected::Container(container) if container.packed().is_some()) {
        return open_inner(Arc::new(input), detected, options);
    }
    // What is compressed twice has two caches, which share what may be kept.
    let half = cache / 2;
    let input = BlockInput::new(path, input.into_blocks(), half);
    open_inner(Arc::new(input), detected, &OpenOptions { unpacked_cache: Some(half), ..options.clone() })
}

/// Opens what a compressed file holds.
fn open_inner(input: Arc<dyn ReadAt>, detected: Detected, options: &OpenOptions<'_>) -> Result<Snapshot> {
    match detected {
        Detected::Compressed(again) => Err(Error::Unsupported {
            what: format!("{}: a {again} stream inside another", input.path().display()),
            why: "one compression is unpacked; unpack the outer one first".to_owned(),
        }),
        Detected::Flattened => open_flattened(input, options),
        Detected::LibvirtSave => open_libvirt(input, true, options),
        Detected::VmwareState => Err(not_a_file(&*input)),
        Detected::Container(container) => open_by_position(input, container, options),
    }
}

/// Opens a container in bytes that are read by position and do not change.
fn open_by_position(input: Arc<dyn ReadAt>, container: Container, options: &OpenOptions<'_>) -> Result<Snapshot> {
    if let Some(parser) = container.packed() {
        return open_packed(input, container, parser, options);
    }
    let parsed = parse(&*input, container, options)?;
    let config = parsed.config(input.path());
    let memory = PositionedMemory::new(config, InputSource::new(input), Liveness::Frozen, true);
    Ok(parsed.finish(LookasideLayer::over(Arc::new(memory)), Format { container, compression: None }))
}

fn refuse_writing(input: &dyn ReadAt, options: &OpenOptions<'_>, why: &str) -> Result<()> {
    if options.writable {
        let problem = format!("{why}, so it cannot be written to; open it read-only");
        return Err(Error::File { path: input.path().to_owned(), problem: problem.into() });
    }
    Ok(())
}

/// The error for a state that is not a file of its own.
fn not_a_file(input: &dyn ReadAt) -> Error {
    Error::Unsupported {
        what: format!("{}: a VMware state that is compressed or built in", input.path().display()),
        why: "its memory lies in a file beside it; unpack it first".to_owned(),
    }
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
    let Some(parser) = container.plain() else { return parse_raw(input, options) };
    refuse_layout(input, container, options)?;
    let image = parser(input, ParseOptions { partial: options.partial })?;
    Ok(Parsed { image, alternatives: Vec::new() })
}

/// A container says where its memory lies; nobody else may.
fn refuse_layout(input: &dyn ReadAt, container: Container, options: &OpenOptions<'_>) -> Result<()> {
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
    Ok(())
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
