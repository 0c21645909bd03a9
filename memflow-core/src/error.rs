//! The one error of the library.
//!
//! Owns: what can fail, in the field's words, with the numbers that were involved and the way out.
//! Must not know: who calls; nothing here prints or logs, and building an error of the memory path allocates nothing.
//!
//! One read, and every place it can fail:
//! 1. the address and length leave the address space: [`Error::Range`];
//! 2. the page tables do not map the address: [`Error::Access`] with [`Reason::NotMapped`], which names level, table and entry;
//! 3. the page is mapped but the operating system keeps it elsewhere: [`Reason::PagedOut`];
//! 4. the physical address is in no run of the target: [`Reason::NotInImage`],
//!    or whoever wrote the image left it out: [`Reason::Excluded`];
//! 5. the file under the run is shorter than it was: [`Reason::Truncated`]; what it holds there cannot be unpacked:
//!    [`Reason::Damaged`]; or the system refuses: [`Reason::Io`].

use std::{borrow::Cow, fmt, io, path::PathBuf};

use crate::address::{PhysAddr, VirtAddr};

/// A result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why bytes could not be read or written. Small and `Copy`: one is recorded in each operation of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The page tables stop before a page is reached.
    NotMapped(Stop),
    /// The operating system says that the page lies in swap or in a file, not in memory.
    PagedOut {
        /// The page-table entry as found.
        entry: u64,
    },
    /// No run of the target holds this physical address (a hole, a device, or memory the dump left out).
    NotInImage {
        /// The physical address.
        phys: PhysAddr,
    },
    /// The target had this physical address, and whoever wrote the dump left it out on purpose (pages that were free, cached, of zeros,
    /// or of processes).
    Excluded {
        /// The physical address.
        phys: PhysAddr,
    },
    /// What the dump holds of this physical address is damaged: it cannot be unpacked, or leads nowhere.
    Damaged {
        /// The physical address.
        phys: PhysAddr,
    },
    /// The file ends before this physical address, although it did not when it was opened.
    Truncated {
        /// The physical address.
        phys: PhysAddr,
    },
    /// The operation would leave the address space.
    OutOfRange,
    /// The target does not take writes.
    ReadOnly,
    /// The operating system of this machine refused.
    Io {
        /// Its error number (`errno`).
        errno: i32,
    },
    /// The code of a plugin panicked on the way; the log says where.
    Panicked,
    /// A plugin gave a reason that this build has no name for: it was built for a later version.
    Unknown {
        /// The number of the reason.
        status: u32,
    },
}

/// Where a page walk stopped, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stop {
    /// The level of the entry that stopped the walk: 1 is the level of the base pages, the root has the highest number.
    /// Zero when the walk did not start.
    pub level: u8,
    /// Physical address of the table that holds the entry.
    pub table: PhysAddr,
    /// The entry as read; zero when it could not be read.
    pub entry: u64,
    /// What is wrong with the entry.
    pub cause: StopCause,
}

/// What stopped a page walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StopCause {
    /// The virtual address has bits that this paging mode does not translate (not canonical, or too wide).
    NotCanonical,
    /// The entry is not present.
    NotPresent,
    /// The entry has a bit set that must be zero.
    ReservedBit,
    /// The table lies at a physical address that the target does not hold.
    TableNotInImage,
    /// The table could not be read for another reason.
    TableUnreadable,
    /// A plugin gave a cause that this build has no name for.
    Unknown,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, table, entry, cause } = self;
        match cause {
            StopCause::NotCanonical => write!(f, "not an address of this paging mode"),
            StopCause::NotPresent => write!(f, "not present at level {level} (table {table}, entry {entry:#x})"),
            StopCause::ReservedBit => {
                write!(f, "reserved bit set at level {level} (table {table}, entry {entry:#x})")
            }
            StopCause::TableNotInImage => write!(f, "page table {table} of level {level} is not in the image"),
            StopCause::TableUnreadable => write!(f, "page table {table} of level {level} could not be read"),
            StopCause::Unknown => write!(f, "a plugin stopped at level {level} (table {table}, entry {entry:#x})"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped(stop) => stop.fmt(f),
            Self::PagedOut { entry } => write!(f, "paged out (entry {entry:#x})"),
            Self::NotInImage { phys } => write!(f, "physical address {phys} is not in the image"),
            Self::Excluded { phys } => {
                write!(f, "physical address {phys} was left out when the dump was written")
            }
            Self::Damaged { phys } => write!(f, "the dump is damaged where it holds physical address {phys}"),
            Self::Truncated { phys } => {
                write!(f, "the file no longer reaches physical address {phys}; it shrank while it was open")
            }
            Self::OutOfRange => write!(f, "leaves the address space"),
            Self::ReadOnly => write!(f, "the target is read-only"),
            Self::Io { errno } => write!(f, "{}", io::Error::from_raw_os_error(*errno)),
            Self::Panicked => write!(f, "the code of the plugin panicked; the log says where"),
            Self::Unknown { status } => {
                write!(f, "reason {status} of a plugin, which this build does not know; update memflow")
            }
        }
    }
}

/// An address with the space it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnyAddr {
    /// A physical address.
    Phys(PhysAddr),
    /// A virtual address.
    Virt(VirtAddr),
}

impl fmt::Display for AnyAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phys(address) => write!(f, "physical {address}"),
            Self::Virt(address) => address.fmt(f),
        }
    }
}

impl From<PhysAddr> for AnyAddr {
    fn from(address: PhysAddr) -> Self {
        Self::Phys(address)
    }
}

impl From<VirtAddr> for AnyAddr {
    fn from(address: VirtAddr) -> Self {
        Self::Virt(address)
    }
}

/// What was asked of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessKind {
    /// A read.
    Read,
    /// A write.
    Write,
}

impl fmt::Display for AccessKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// What kind of failure an error is, past every [`Error::Context`]: what is left of it where only a number and a text can pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`Error::Access`].
    Access,
    /// [`Error::Range`].
    Range,
    /// The other side of a plugin boundary broke its contract: [`Error::Unanswered`], among others.
    Contract,
    /// [`Error::Format`].
    Format,
    /// [`Error::File`].
    File,
    /// [`Error::Io`].
    Io,
    /// [`Error::Overlap`].
    Overlap,
    /// [`Error::NotRecognised`].
    NotRecognised,
    /// [`Error::Unsupported`].
    Unsupported,
    /// [`Error::NotFound`].
    NotFound,
    /// [`Error::Argument`].
    Argument,
    /// [`Error::Corrupt`].
    Corrupt,
    /// [`Error::Limit`].
    Limit,
    /// [`Error::Cycle`].
    Cycle,
    /// [`Error::Cancelled`].
    Cancelled,
    /// The code of a plugin panicked.
    Panic,
    /// A kind that this build has no name for.
    Other,
}

/// Everything that can go wrong in the library and its plugins.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes could not be read or written.
    #[error("{kind} of {len} bytes at {address}: {reason}")]
    Access {
        /// Read or write.
        kind: AccessKind,
        /// First address of the operation.
        address: AnyAddr,
        /// Length of the operation in bytes.
        len: u64,
        /// Why, for the first byte that failed.
        reason: Reason,
    },
    /// An address and a length leave the address space.
    #[error("{len} bytes at {address} leave the address space")]
    Range {
        /// First address.
        address: AnyAddr,
        /// Length in bytes.
        len: u64,
    },
    /// A connector or plugin broke its contract; the target's data is not at fault.
    #[error("{who} left operation {index} of a batch without an outcome; this is a defect of {who}, please report it")]
    Unanswered {
        /// The connector.
        who: String,
        /// Index of the operation in the batch.
        index: usize,
    },
    /// A file of a memory format does not say what it must.
    #[error("{}: {format}: at offset {offset:#x}: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format that it was taken for.
        format: &'static str,
        /// Offset in the file, in bytes.
        offset: u64,
        /// What belongs there.
        expected: Cow<'static, str>,
        /// What is there.
        found: Cow<'static, str>,
    },
    /// A file cannot be used, as a whole.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the way out.
        problem: Cow<'static, str>,
    },
    /// This machine's operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the name of the file.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Runs of physical memory overlap.
    #[error("runs {first} and {second} overlap")]
    Overlap {
        /// One run.
        first: crate::address::PhysRange,
        /// The other.
        second: crate::address::PhysRange,
    },
    /// No operating system was recognised in the memory.
    #[error("no {what} found; looked for {looked_for}")]
    NotRecognised {
        /// What was searched ("Linux kernel").
        what: &'static str,
        /// Each thing that was looked for and what became of it.
        looked_for: String,
    },
    /// Something was recognised that cannot be worked with.
    #[error("{what} is not supported: {why}")]
    Unsupported {
        /// What was found.
        what: String,
        /// What is missing and the way out.
        why: String,
    },
    /// A named thing does not exist in the target.
    #[error("no {what} {name} in this target")]
    NotFound {
        /// "process", "symbol", "module", "type", "field".
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// An option or argument is not what it must be.
    #[error("{what}: expected {expected}, found `{found}`")]
    Argument {
        /// The option or argument.
        what: Cow<'static, str>,
        /// What belongs there.
        expected: Cow<'static, str>,
        /// What was given.
        found: String,
    },
    /// An argument that the plugin does not take.
    #[error("unknown argument `{name}`{}; accepted: {}", meant.as_ref().map(|meant| format!(", did you mean `{meant}`?")).unwrap_or_default(), if accepted.is_empty() { "none" } else { accepted.as_str() })]
    UnknownArgument {
        /// The argument.
        name: String,
        /// The accepted one that is spelt almost like it.
        meant: Option<String>,
        /// All that are accepted, each with what it does; empty when there are none.
        accepted: String,
    },
    /// An argument that must be given was not.
    #[error("missing argument {usage}{}", if help.is_empty() { String::new() } else { format!(" ({help})") })]
    MissingArgument {
        /// How it is given (`layout=auto|flat`).
        usage: String,
        /// What it does; may be empty.
        help: String,
    },
    /// A structure in the target contradicts itself.
    #[error("{what} at {address}: expected {expected}, found {found}")]
    Corrupt {
        /// The structure.
        what: &'static str,
        /// Where it lies.
        address: AnyAddr,
        /// What belongs there.
        expected: Cow<'static, str>,
        /// What is there.
        found: Cow<'static, str>,
    },
    /// A list or table went on past its limit.
    #[error("{what} at {address} exceeds the limit of {limit}")]
    Limit {
        /// The list or table.
        what: &'static str,
        /// Where it starts.
        address: AnyAddr,
        /// The limit, in entries or bytes as the text says.
        limit: u64,
    },
    /// A list comes back to an entry that it passed before.
    #[error("{what} loops: {address} comes up again after {entries} entries")]
    Cycle {
        /// The list.
        what: &'static str,
        /// The entry that came up twice.
        address: AnyAddr,
        /// Entries walked until then.
        entries: u64,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Something failed in a loaded plugin; the message is the plugin's.
    #[error("{message}")]
    Foreign {
        /// What kind of failure it is.
        kind: ErrorKind,
        /// The whole message.
        message: String,
        /// The memory access that failed, if that is what it was: an [`Error::Access`].
        access: Option<Box<Error>>,
    },
    /// Something failed while a larger thing was done.
    #[error("{what}: {source}")]
    Context {
        /// The larger thing.
        what: Cow<'static, str>,
        /// What failed.
        source: Box<Error>,
    },
}

impl Error {
    /// An [`Error::Io`].
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Wraps the error into what was being done.
    #[must_use]
    pub fn context(self, what: impl Into<Cow<'static, str>>) -> Self {
        Self::Context { what: what.into(), source: Box::new(self) }
    }

    /// The innermost error, past every [`Error::Context`].
    pub fn root_cause(&self) -> &Self {
        let mut error = self;
        while let Self::Context { source, .. } = error {
            error = source;
        }
        error
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self.root_cause() {
            Self::Access { .. } => ErrorKind::Access,
            Self::Range { .. } => ErrorKind::Range,
            Self::Unanswered { .. } => ErrorKind::Contract,
            Self::Format { .. } => ErrorKind::Format,
            Self::File { .. } => ErrorKind::File,
            Self::Io { .. } => ErrorKind::Io,
            Self::Overlap { .. } => ErrorKind::Overlap,
            Self::NotRecognised { .. } => ErrorKind::NotRecognised,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Argument { .. } | Self::UnknownArgument { .. } | Self::MissingArgument { .. } => ErrorKind::Argument,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Limit { .. } => ErrorKind::Limit,
            Self::Cycle { .. } => ErrorKind::Cycle,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Foreign { kind, .. } => *kind,
            // The root is past every context.
            Self::Context { .. } => ErrorKind::Other,
        }
    }

    /// Why memory could not be accessed, if that is what failed.
    pub fn reason(&self) -> Option<Reason> {
        match self.root_cause() {
            Self::Access { reason, .. } => Some(*reason),
            Self::Foreign { access: Some(access), .. } => access.reason(),
            _ => None,
        }
    }

    /// True when the page tables do not map the address.
    pub fn is_not_mapped(&self) -> bool {
        matches!(self.reason(), Some(Reason::NotMapped(_)))
    }

    /// True when the physical address is in no run of the target.
    pub fn is_not_in_image(&self) -> bool {
        matches!(self.reason(), Some(Reason::NotInImage { .. }))
    }

    /// True when a named thing does not exist in the target.
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }
}

/// Adds what was being done to the error of a result.
pub trait ResultExt<T> {
    /// Wraps the error, if there is one, into what was being done.
    fn context(self, what: impl FnOnce() -> Cow<'static, str>) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn context(self, what: impl FnOnce() -> Cow<'static, str>) -> Result<T> {
        self.map_err(|error| error.context(what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_stays_small_enough_to_return_by_value() {
        assert!(size_of::<Error>() <= 112, "{}", size_of::<Error>());
    }

    #[test]
    fn text_names_address_level_and_table() {
        let error = Error::Access {
            kind: AccessKind::Read,
            address: VirtAddr::new(0x7ffd_2000).into(),
            len: 8,
            reason: Reason::NotMapped(Stop {
                level: 2,
                table: PhysAddr::new(0x1a2b_3000),
                entry: 0,
                cause: StopCause::NotPresent,
            }),
        };
        assert_eq!(
            error.to_string(),
            "read of 8 bytes at 0x7ffd2000: not present at level 2 (table 0x1a2b3000, entry 0x0)"
        );
        assert!(error.is_not_mapped());
        assert!(error.context("process 612").is_not_mapped());
    }
}
