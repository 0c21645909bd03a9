//! What both sides tell each other: texts, operations with their outcomes, records of lists, failures.
//!
//! Must not know: what is read or listed.

use core::ffi::c_void;

use crate::{
    Grows, Header,
    growing::{fixed, growing, numbers},
};

fixed! {
    /// UTF-8 text, or bytes where a description says so. Not terminated. A null `ptr` means that there is none.
    Text {
        /// First byte.
        ptr: *const u8,
        /// Number of bytes.
        len: usize,
    }
}

impl Text {
    /// No text.
    pub const NONE: Self = Self { ptr: core::ptr::null(), len: 0 };

    /// A text that is borrowed.
    pub const fn new(text: &str) -> Self {
        Self { ptr: text.as_ptr(), len: text.len() }
    }

    /// Bytes that are borrowed.
    pub const fn bytes(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }
}

numbers! {
    /// What became of an operation: values of [`Outcome::status`].
    status: u32 {
        /// Nobody has tried yet.
        NOT_ATTEMPTED = 0,
        /// Every byte was copied.
        DONE = 1,
        /// The page tables stop before a page: `level`, `cause`, `address` (of the table), `entry`.
        NOT_MAPPED = 2,
        /// The page lies in swap or in a file: `entry`.
        PAGED_OUT = 3,
        /// No run of the target holds the byte: `address` (physical).
        NOT_IN_IMAGE = 4,
        /// The file was cut short while it was open: `address` (physical).
        TRUNCATED = 5,
        /// The operation leaves the address space.
        OUT_OF_RANGE = 6,
        /// The target does not take writes.
        READ_ONLY = 7,
        /// The operating system refused: `os_error`.
        IO = 8,
        /// The code that was called panicked.
        PANICKED = 9,
        /// Whoever wrote the dump left the byte out on purpose: `address` (physical). Since 1.2.
        EXCLUDED = 10,
        /// The dump is damaged where it holds the byte: `address` (physical). Since 1.2.
        DAMAGED = 11,
    }
}

numbers! {
    /// What stopped a page walk: values of [`Outcome::cause`].
    cause: u32 {
        /// The address has bits that the paging mode does not translate.
        NOT_CANONICAL = 1,
        /// The entry is not present.
        NOT_PRESENT = 2,
        /// The entry has a bit set that must be zero.
        RESERVED_BIT = 3,
        /// The table lies where the target holds nothing.
        TABLE_NOT_IN_IMAGE = 4,
        /// The table could not be read for another reason.
        TABLE_UNREADABLE = 5,
    }
}

fixed! {
    /// What became of an operation. Fields that the status does not use are zero.
    Outcome {
        /// One of [`status`].
        status: u32,
        /// Level of the entry that stopped a page walk: 1 for base pages, 0 when the walk did not start.
        level: u32,
        /// One of [`cause`].
        cause: u32,
        /// Error number of the operating system (`errno`).
        os_error: i32,
        /// Bytes from the start of the operation to the first one that failed.
        offset: u64,
        /// An address, as the status says.
        address: u64,
        /// A page-table entry.
        entry: u64,
    }
}

fixed! {
    /// One read of a batch.
    ReadOp {
        /// First address.
        address: u64,
        /// Where the bytes go: `len` bytes that nobody else touches during the call. After a failure it holds the bytes that could be
        /// read, the others are left as they were.
        buffer: *mut u8,
        /// Number of bytes; may be zero.
        len: usize,
        /// What became of it. The caller sets it to zero, the callee fills it in for every operation of the batch.
        outcome: Outcome,
    }
}

fixed! {
    /// One write of a batch.
    WriteOp {
        /// First address.
        address: u64,
        /// The bytes.
        buffer: *const u8,
        /// Number of bytes; may be zero.
        len: usize,
        /// What became of it, as for [`ReadOp`].
        outcome: Outcome,
    }
}

numbers! {
    /// What failed: values of [`Failure::kind`].
    failure: u32 {
        /// None of the others.
        OTHER = 0,
        /// Bytes could not be read or written; the fields after `message` say which.
        ACCESS = 1,
        /// An address and a length leave the address space.
        RANGE = 2,
        /// The other side broke its contract.
        CONTRACT = 3,
        /// A file does not say what its format demands.
        FORMAT = 4,
        /// A file cannot be used as a whole.
        FILE = 5,
        /// The operating system refused; `os_error` of the outcome says how.
        IO = 6,
        /// Runs of physical memory overlap.
        OVERLAP = 7,
        /// No operating system was recognised.
        NOT_RECOGNISED = 8,
        /// Something was recognised that cannot be worked with.
        UNSUPPORTED = 9,
        /// A named thing does not exist in the target.
        NOT_FOUND = 10,
        /// An option or argument is not what it must be.
        ARGUMENT = 11,
        /// A structure in the target contradicts itself.
        CORRUPT = 12,
        /// A list or table went on past its limit.
        LIMIT = 13,
        /// A list comes back to an entry that it passed before.
        CYCLE = 14,
        /// The caller asked to stop.
        CANCELLED = 15,
        /// The code of the plugin panicked.
        PANIC = 16,
    }
}

numbers! {
    /// What was asked of memory: values of [`Failure::access`].
    access: u32 {
        /// A read.
        READ = 1,
        /// A write.
        WRITE = 2,
    }
}

numbers! {
    /// The kind of an address: values of [`Failure::space`].
    address_space: u32 {
        /// Physical.
        PHYSICAL = 1,
        /// Virtual.
        VIRTUAL = 2,
    }
}

growing! {
    /// Why something failed.
    Failure, FailureRef, FailurePrefix {
        /// One of [`failure`].
        kind: u32,
        /// One of [`access`], for [`failure::ACCESS`].
        access: u32,
        /// The whole message for a person: what failed, expected and found, the way out.
        message: Text,
        /// One of [`address_space`], for [`failure::ACCESS`].
        space: u32,
        /// Zero.
        reserved: u32,
        /// First address of the operation, for [`failure::ACCESS`].
        address: u64,
        /// Bytes of the operation, for [`failure::ACCESS`].
        len: u64,
        /// Why, for [`failure::ACCESS`]; for [`failure::IO`] its `os_error`.
        outcome: Outcome,
    }
}

fixed! {
    /// Where a function puts the reason of its failure.
    FailureSink {
        /// First argument of `set`.
        context: *mut c_void,
        /// Takes the reason; everything it points to is borrowed for the call. A second call replaces the first.
        set: Option<unsafe extern "C" fn(context: *mut c_void, failure: Grows<Failure>)>,
    }
}

fixed! {
    /// Where a list goes, one record after another.
    RecordSink {
        /// First argument of both functions.
        context: *mut c_void,
        /// Takes a record of the kind that the function which got this sink names; it points to the record's header, and everything is
        /// borrowed for the call. Anything but zero asks for an end of the list: the function that lists returns success soon.
        item: Option<unsafe extern "C" fn(context: *mut c_void, record: *const Header) -> i32>,
        /// Takes something that kept the list from being complete.
        problem: Option<unsafe extern "C" fn(context: *mut c_void, problem: Grows<Failure>)>,
    }
}

growing! {
    /// A text as a record of a list.
    TextRecord, TextRecordRef, TextRecordPrefix {
        /// The text.
        text: Text,
    }
}
