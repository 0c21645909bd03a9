//! What a caller can ask for when opening a snapshot.
//!
//! Owns: [`OpenOptions`] and its parts. Must not know: formats.

use std::{fmt, ops::ControlFlow, path::PathBuf};

use memflow_core::address::MIB;

use crate::raw::MemoryLayout;

/// How far unpacking has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Compressed bytes read so far.
    pub read: u64,
    /// Compressed bytes there are.
    pub total: u64,
    /// Bytes unpacked so far.
    pub unpacked: u64,
}

/// Is told about progress some ten times a second at most; [`ControlFlow::Break`] cancels.
pub type OnProgress<'a> = &'a dyn Fn(Progress) -> ControlFlow<()>;

/// How a snapshot is opened. The default suits almost everything.
#[derive(Clone, Default)]
pub struct OpenOptions<'a> {
    /// Which addresses a raw image holds. Containers say so themselves, and refuse any other value than `Auto`.
    pub layout: MemoryLayout,
    /// Whether the bytes may change while they are read. `None`: those of raw images may, as a raw file can be the memory of a
    /// running guest; those of containers do not. `Some(false)` promises that nobody writes to the file.
    pub live: Option<bool>,
    /// Take writes, and write them to the file. Not for compressed files.
    pub writable: bool,
    /// Most bytes to unpack of a stream that cannot be entered in its middle, which is unpacked once when it is opened; `None`: as
    /// many as three quarters of the memory that is available can hold, compressed anew.
    pub max_unpacked: Option<u64>,
    /// Bytes of a compressed file that are kept unpacked; `None` for 256 MiB.
    pub unpacked_cache: Option<u64>,
    /// Open what is there of a file that was cut short or is damaged. What is missing is then said in the notes.
    pub partial: bool,
    /// The other files of a dump that was split. None: those that lie beside it are found by what they hold.
    pub parts: Vec<PathBuf>,
    /// Told how unpacking goes on.
    pub on_progress: Option<OnProgress<'a>>,
}

impl OpenOptions<'_> {
    /// Bytes that are kept unpacked: enough for the page tables and kernel structures of a large machine.
    pub(crate) fn unpacked_cache(&self) -> u64 {
        self.unpacked_cache.unwrap_or(256 * MIB)
    }
}

impl fmt::Debug for OpenOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("layout", &self.layout)
            .field("live", &self.live)
            .field("writable", &self.writable)
            .field("max_unpacked", &self.max_unpacked)
            .field("unpacked_cache", &self.unpacked_cache)
            .field("partial", &self.partial)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}
