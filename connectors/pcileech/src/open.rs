//! From the name of a device to its memory.
//!
//! Owns: [`open`], its options, and when a device is not read for want of a map. Must not know: how LeechCore is called.
//! Keeps: LeechCore does not search for the end of memory by reading unless the caller lets it.

use std::path::PathBuf;

use memflow_core::{
    Error, Result,
    memory::{PhysicalMemory, RunMap},
};

use crate::{
    library::{Device, Request},
    locate, map,
    memory::LeechcoreMemory,
};

/// How a device is opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// LeechCore's library, or the folder that holds it; `None` to look for it.
    pub library: Option<PathBuf>,
    /// Which addresses may be asked for, with the device's addresses as offsets. `None`: those that the device itself says.
    pub map: Option<RunMap>,
    /// The agent to go through, in LeechCore's terms (`rpc://insecure:HOST`).
    pub remote: Option<String>,
    /// Ask for any address that LeechCore takes for memory, which it finds out by reading, if there is no map. Devices that lie there may
    /// react: the machine that is read can stop.
    pub unsafe_map_all: bool,
}

impl Options {
    /// The same, with a library.
    #[must_use]
    pub fn with_library(mut self, path: impl Into<PathBuf>) -> Self {
        self.library = Some(path.into());
        self
    }

    /// The same, with a map.
    #[must_use]
    pub fn with_map(mut self, map: RunMap) -> Self {
        self.map = Some(map);
        self
    }
}

/// An open device.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected {
    /// Its memory.
    pub memory: LeechcoreMemory,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What it is, in a few words.
    pub format: String,
}

/// Opens a device that LeechCore knows: `fpga`, `file://PATH`, `rawudp://ip=…` and others; LeechCore's own guide lists them.
///
/// # Errors
/// LeechCore is not there or not one that is known; it refuses the device; the device does not say where memory lies and no map was
/// given ([`Error::Unsupported`]).
///
/// # Examples
/// ```
/// use memflow_pcileech::{Options, open};
///
/// let error = open("fpga", &Options::default().with_library("/no such folder/leechcore.so")).unwrap_err();
/// assert!(error.to_string().starts_with("loading /no such folder/leechcore.so (install LeechCore"));
/// ```
pub fn open(device: &str, options: &Options) -> Result<Connected> {
    let library = locate::load(options.library.as_deref())?;
    let last_of_map = options.map.as_ref().map(|map| {
        let ends = map.runs().iter().map(|run| run.offset.saturating_add(run.range.len()));
        ends.max().unwrap_or(map::NO_SEARCH).next_multiple_of(map::NO_SEARCH)
    });
    let last_address = match (last_of_map, options.unsafe_map_all) {
        (Some(last), _) => last,
        (None, true) => 0,
        (None, false) => map::NO_SEARCH,
    };
    let request = Request { device, remote: options.remote.as_deref().unwrap_or_default(), last_address };
    let opened = Device::open(library, &request)?;
    let mut notes = Vec::new();
    let runs = match &options.map {
        Some(map) => map.clone(),
        None if options.unsafe_map_all => {
            let runs = map::everything(&opened.memory_map()?, &opened.name)?;
            notes.push(format!("any address in {runs} is asked for, whether memory answers there or not"));
            runs
        }
        None => map::of_device(&opened.memory_map()?, &opened.name)?.ok_or_else(|| Error::Unsupported {
            what: format!("LeechCore device {device} without a memory map"),
            why: "it does not say where memory lies, and a read of anything else can stop the machine; give its ranges with map=FILE or \
                  map=FIRST-LAST,…, or read everywhere with unsafe-map=all"
                .to_owned(),
        })?,
    };
    if runs.is_empty() {
        return Err(Error::Unsupported {
            what: format!("LeechCore device {device} without memory"),
            why: "its memory map is empty; give one with map=".to_owned(),
        });
    }
    if opened.is_file() && opened.writable {
        let note = "LeechCore writes to files through buffers: reads may give older bytes until the target is closed; the connector \
                    snapshot with writable has no such delay";
        notes.push(note.to_owned());
    }
    let format = format!("LeechCore device {}", opened.name);
    let memory = LeechcoreMemory::new(opened, format!("pcileech {device}"), runs);
    log::debug!("{device}: {}", memory.metadata().runs);
    Ok(Connected { memory, notes, format })
}
