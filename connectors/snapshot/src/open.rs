//! From a path to physical memory.
//!
//! Owns: the order of steps: open, detect, unpack, parse, map. Must not know: how any format is parsed.
//! Keeps: what is unknown is raw only when it has the shape of memory; mapping refused is a quiet fall back to positional reads.

use std::{fmt, path::Path, sync::Arc};

use memflow_core::{
    Error, PhysicalMemory, Result,
    memory::{FileMemory, MapMode, MappedMemory, SourceConfig},
};

use crate::{
    detect::{Container, Detected, Format, detect},
    elf,
    image::{ParseOptions, ParsedImage},
    input::{FileInput, ReadAt},
    options::OpenOptions,
    raw::{MemoryLayout, raw_layouts},
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
    /// For a raw image whose layout was assumed: the others it may have. Whoever knows how to tell (an OS layer that finds its
    /// kernel or not) can open the file again with one of them.
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

/// Opens a file that holds physical memory.
pub fn open(path: &Path, options: &OpenOptions<'_>) -> Result<Snapshot> {
    let input = FileInput::open(path, options.writable)?;
    let Detected::Container(container) = detect(&input)? else {
        return Err(Error::Unsupported { what: path.display().to_string(), why: "compressed".into() });
    };
    let parsed = parse(&input, container, options)?;
    let config = SourceConfig { name: name(path), runs: parsed.image.runs, facts: parsed.image.facts };
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
            Arc::new(FileMemory::new(config, input.into_file(), mode.liveness(), !options.writable))
        }
        Err(Error::Range { .. }) => {
            return Err(Error::File {
                path: path.to_owned(),
                problem: "shrank while it was opened; is it still being written?".into(),
            });
        }
        Err(error) => return Err(error),
    };
    let format = Format { container, compression: None };
    Ok(Snapshot { memory, format, notes: parsed.image.notes, alternatives: parsed.alternatives })
}

fn name(path: &Path) -> Arc<str> {
    path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy()).into()
}

/// A parsed image, and the layouts it may have instead.
struct Parsed {
    image: ParsedImage,
    alternatives: Vec<MemoryLayout>,
}

fn parse(input: &dyn ReadAt, container: Container, options: &OpenOptions<'_>) -> Result<Parsed> {
    if container == Container::Raw {
        return parse_raw(input, options);
    }
    if options.layout != MemoryLayout::Auto {
        return Err(Error::Argument {
            what: "memory layout",
            expected: format!(
                "auto for {}: it is a {container} file, which says itself where its memory lies",
                input.path().display()
            )
            .into(),
            found: options.layout.to_string(),
        });
    }
    let parse_options = ParseOptions { partial: options.partial };
    let image = elf::parse(input, parse_options)?;
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
                    "is not a memory image: expected an ELF core, LiME or raw image, and a raw image has whole pages of {PAGE} \
                     bytes; its size is {size:#x}. If it is a raw image that was cut short, open it as a partial image"
                )
                .into(),
            });
        }
        image.notes.push(format!("the image ends {:#x} bytes into a page; it was cut short", size % PAGE));
    }
    let mut layouts = raw_layouts(size);
    let (layout, runs) = match options.layout.runs(size) {
        Some(runs) => {
            layouts.clear();
            (options.layout.clone(), runs)
        }
        None => layouts.remove(0),
    };
    if let Some(run) = runs.runs().iter().find(|run| run.offset.saturating_add(run.range.len()) > size) {
        return Err(Error::Argument {
            what: "memory layout",
            expected: format!("runs inside the {size:#x} bytes of {}", input.path().display()).into(),
            found: format!("{}@{:#x}", run.range, run.offset),
        });
    }
    image.runs = runs;
    let alternatives: Vec<MemoryLayout> = layouts.into_iter().map(|(layout, _)| layout).collect();
    log::debug!("{}: raw image in layout {layout}", input.path().display());
    Ok(Parsed { image, alternatives })
}
