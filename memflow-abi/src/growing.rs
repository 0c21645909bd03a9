//! Structures that grow at their end, and how the two sides agree on them.
//!
//! Owns: [`Header`], [`Grows`], the list of all structures with their fields, and the comparison of two sides' layouts.
//! Must not know: what any structure is for.

use core::{fmt, marker::PhantomData, ptr};

pub use abi_stable::type_layout::TypeLayout;
use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals},
};

extern crate alloc;
use alloc::string::{String, ToString};

/// The start of every growing structure.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, StableAbi)]
pub struct Header {
    /// Size of the whole structure in bytes, as its maker knows it.
    pub size: u32,
    /// Major version of the ABI that its maker was built for.
    pub major: u16,
    /// Minor version of the ABI that its maker was built for.
    pub minor: u16,
}

impl Header {
    /// The header of a `T` of this build.
    pub const fn of<T>() -> Self {
        // Structures of this crate are far smaller than 4 GiB.
        Self { size: size_of::<T>() as u32, major: crate::MAJOR, minor: crate::MINOR }
    }
}

/// A structure that starts with a [`Header`] and of which a prefix is valid: all-zero bytes are a valid value of every field.
///
/// # Safety
/// The type is `repr(C)`, its first field is a [`Header`], and all-zero bytes are a valid value of it.
pub unsafe trait Growing: Sized {}

/// A pointer to a growing structure, or null.
#[repr(transparent)]
pub struct Grows<T> {
    /// The structure, of which the first `header.size` bytes are there.
    pub ptr: *const T,
}

impl<T> Clone for Grows<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Grows<T> {}

impl<T> fmt::Debug for Grows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grows({:p})", self.ptr)
    }
}

impl<T> Grows<T> {
    /// No structure.
    pub const NULL: Self = Self { ptr: ptr::null() };

    /// A pointer to a structure of this build.
    pub const fn new(structure: &T) -> Self {
        Self { ptr: structure }
    }

    /// True when there is no structure.
    pub fn is_null(self) -> bool {
        self.ptr.is_null()
    }
}

// SAFETY: it is one pointer, which may be null. What it points to may have more or fewer fields on the other side, so the layout
// says no more than that; each growing structure is compared on its own, as a field of `Layout`.
unsafe impl<T: 'static> StableAbi for Grows<T> {
    type IsNonZeroType = abi_stable::reexports::False;
    const LAYOUT: &'static TypeLayout = <*const Header as StableAbi>::LAYOUT;
}

// SAFETY: equal `T` give equal static equivalents.
unsafe impl<T: 'static> abi_stable::abi_stability::GetStaticEquivalent_ for Grows<T> {
    type StaticEquivalent = Grows<PhantomData<T>>;
}

/// A field of a structure, for the record of the layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Bytes from the start of the structure.
    pub offset: usize,
    /// Its size in bytes.
    pub size: usize,
    /// Its type as the source has it, for the comparison with the C header.
    pub rust_type: &'static str,
}

/// A structure, for the record of the layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Structure {
    /// Its name.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: usize,
    /// Its alignment in bytes.
    pub align: usize,
    /// Whether later minor versions may append fields.
    pub grows: bool,
    /// Its fields in order.
    pub fields: &'static [Field],
}

/// Numbers with names, for the record of the layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbers {
    /// Their name: that of the module.
    pub name: &'static str,
    /// Size of each in bytes.
    pub size: usize,
    /// Names and values in order.
    pub values: &'static [(&'static str, u64)],
}

/// Defines a structure that grows, with zero as the value of what is missing.
macro_rules! growing {
    (
        $(#[$doc:meta])*
        $name:ident, $reference:ident, $prefix:ident {
            $( $(#[$field_doc:meta])* $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(abi_stable::StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = $reference, prefix_fields = $prefix)))]
        #[sabi(missing_field(panic))]
        pub struct $name {
            /// Size and version.
            #[sabi(last_prefix_field)]
            pub header: $crate::Header,
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        // SAFETY: `repr(C)` with a header first; every field is a number, a raw pointer, an optional function, or a structure of those.
        unsafe impl $crate::Growing for $name {}

        impl $name {
            /// A structure of this build in which everything is zero but the header.
            pub const fn empty() -> Self {
                Self {
                    header: $crate::Header::of::<Self>(),
                    // SAFETY: all-zero bytes are a valid value of every field (see `Growing`).
                    ..unsafe { core::mem::zeroed() }
                }
            }

            /// The structure for the record of the layout.
            pub(crate) const STRUCTURE: $crate::Structure = $crate::Structure {
                name: stringify!($name),
                size: size_of::<Self>(),
                align: align_of::<Self>(),
                grows: true,
                fields: &[
                    $crate::growing::field::<$crate::Header>("header", core::mem::offset_of!(Self, header), "Header"),
                    $(
                        $crate::growing::field::<$type>(
                            stringify!($field),
                            core::mem::offset_of!(Self, $field),
                            stringify!($type),
                        ),
                    )*
                ],
            };
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).field("header", &self.header).finish_non_exhaustive()
            }
        }
    };
}

/// Defines a structure that stays as it is.
macro_rules! fixed {
    (
        $(#[$doc:meta])*
        $name:ident {
            $( $(#[$field_doc:meta])* $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, abi_stable::StableAbi)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        impl $name {
            /// The structure for the record of the layout.
            pub(crate) const STRUCTURE: $crate::Structure = $crate::Structure {
                name: stringify!($name),
                size: size_of::<Self>(),
                align: align_of::<Self>(),
                grows: false,
                fields: &[
                    $(
                        $crate::growing::field::<$type>(
                            stringify!($field),
                            core::mem::offset_of!(Self, $field),
                            stringify!($type),
                        ),
                    )*
                ],
            };
        }
    };
}

/// Defines numbers with names.
macro_rules! numbers {
    (
        $(#[$doc:meta])*
        $module:ident: $type:ty {
            $( $(#[$number_doc:meta])* $name:ident = $value:expr, )*
        }
    ) => {
        $(#[$doc])*
        pub mod $module {
            $( $(#[$number_doc])* pub const $name: $type = $value; )*

            /// The numbers for the record of the layout.
            pub(crate) const NUMBERS: $crate::Numbers = $crate::Numbers {
                name: stringify!($module),
                size: size_of::<$type>(),
                values: &[$((stringify!($name), $name as u64)),*],
            };
        }
    };
}

pub(crate) use {fixed, growing, numbers};

pub(crate) const fn field<T>(name: &'static str, offset: usize, rust_type: &'static str) -> Field {
    Field { name, offset, size: size_of::<T>(), rust_type }
}

/// Every growing structure, as one: never made, only its layout is compared. The fixed ones are found through their fields.
#[allow(dead_code, reason = "stands for the layout of its fields")]
mod whole {
    use abi_stable::StableAbi;

    #[repr(C)]
    #[derive(StableAbi)]
    #[sabi(kind(Prefix(prefix_ref = LayoutRef, prefix_fields = LayoutPrefix)))]
    #[sabi(missing_field(panic))]
    pub(super) struct Layout {
        #[sabi(last_prefix_field)]
        entry: crate::entry::PluginEntryRef,
        host: crate::entry::HostRef,
        log_message: crate::entry::LogMessageRef,
        connector_request: crate::entry::ConnectorRequestRef,
        os_request: crate::entry::OsRequestRef,
        target: crate::entry::TargetRecordRef,
        failure: crate::report::FailureRef,
        text: crate::report::TextRecordRef,
        memory_info: crate::memory::MemoryInfoRef,
        facts: crate::memory::FactsRef,
        direct_map: crate::memory::DirectMapRef,
        memory_table: crate::memory::MemoryTableRef,
        soft_faults_table: crate::paging::SoftFaultsTableRef,
        space: crate::paging::SpaceRecordRef,
        view_table: crate::view::ViewTableRef,
        kernel: crate::os::KernelRecordRef,
        process: crate::os::ProcessRecordRef,
        thread: crate::os::ThreadRecordRef,
        region: crate::os::RegionRecordRef,
        module: crate::os::ModuleRecordRef,
        symbol: crate::os::SymbolRecordRef,
        log_record: crate::os::LogRecordRef,
        os_table: crate::os::OsTableRef,
        process_table: crate::os::ProcessTableRef,
        vcpu: crate::memory::VcpuRecordRef,
    }
}

/// Layout of every structure of this build, for [`compatible`].
pub const LAYOUT: &TypeLayout = <whole::LayoutRef as StableAbi>::LAYOUT;

/// Compares the layouts of two builds: what both know must be the same, and the one of the later minor version may have more.
///
/// # Errors
/// The first difference, in words.
pub fn compatible(one: (u16, &'static TypeLayout), other: (u16, &'static TypeLayout)) -> Result<(), String> {
    let (earlier, later) = if one.0 <= other.0 { (one, other) } else { (other, one) };
    // Without what the process remembers of comparisons before: that compares the builds of earlier calls with those of this one.
    let contains = |fewer, more| {
        check_layout_compatibility_with_globals(fewer, more, &CheckingGlobals::new()).map_err(|error| error.to_string())
    };
    contains(earlier.1, later.1)?;
    if earlier.0 == later.0 {
        contains(later.1, earlier.1)?;
    }
    Ok(())
}

/// Every structure of the ABI with its fields, for the record of the layout.
pub const STRUCTURES: &[Structure] = &[
    Header::STRUCTURE,
    crate::report::Text::STRUCTURE,
    crate::report::Outcome::STRUCTURE,
    crate::report::ReadOp::STRUCTURE,
    crate::report::WriteOp::STRUCTURE,
    crate::report::FailureSink::STRUCTURE,
    crate::report::RecordSink::STRUCTURE,
    crate::report::Failure::STRUCTURE,
    crate::report::TextRecord::STRUCTURE,
    crate::memory::Run::STRUCTURE,
    crate::memory::RunSink::STRUCTURE,
    crate::memory::DirectRegion::STRUCTURE,
    crate::memory::X86Vcpu::STRUCTURE,
    crate::memory::AArch64Vcpu::STRUCTURE,
    crate::memory::DumpHeader::STRUCTURE,
    crate::memory::VcpuRecord::STRUCTURE,
    crate::memory::MemoryInfo::STRUCTURE,
    crate::memory::Facts::STRUCTURE,
    crate::memory::DirectMap::STRUCTURE,
    crate::memory::Memory::STRUCTURE,
    crate::memory::MemoryTable::STRUCTURE,
    crate::paging::SoftFault::STRUCTURE,
    crate::paging::SoftFaults::STRUCTURE,
    crate::paging::SoftFaultsTable::STRUCTURE,
    crate::paging::SpaceRecord::STRUCTURE,
    crate::view::ViewInfo::STRUCTURE,
    crate::view::View::STRUCTURE,
    crate::view::ViewTable::STRUCTURE,
    crate::os::KernelRecord::STRUCTURE,
    crate::os::ProcessRecord::STRUCTURE,
    crate::os::ThreadRecord::STRUCTURE,
    crate::os::RegionRecord::STRUCTURE,
    crate::os::ModuleRecord::STRUCTURE,
    crate::os::SymbolRecord::STRUCTURE,
    crate::os::LogRecord::STRUCTURE,
    crate::os::Os::STRUCTURE,
    crate::os::OsTable::STRUCTURE,
    crate::os::Process::STRUCTURE,
    crate::os::ProcessTable::STRUCTURE,
    crate::entry::Argument::STRUCTURE,
    crate::entry::Progress::STRUCTURE,
    crate::entry::OpenReport::STRUCTURE,
    crate::entry::Host::STRUCTURE,
    crate::entry::LogMessage::STRUCTURE,
    crate::entry::ConnectorRequest::STRUCTURE,
    crate::entry::OsRequest::STRUCTURE,
    crate::entry::TargetRecord::STRUCTURE,
    crate::entry::PluginEntry::STRUCTURE,
];

/// Every set of numbers of the ABI, for the record of the layout.
pub const NUMBERS: &[Numbers] = &[
    crate::report::status::NUMBERS,
    crate::report::cause::NUMBERS,
    crate::report::failure::NUMBERS,
    crate::report::access::NUMBERS,
    crate::report::address_space::NUMBERS,
    crate::memory::liveness::NUMBERS,
    crate::memory::machine::NUMBERS,
    crate::memory::x86_register::NUMBERS,
    crate::memory::aarch64_register::NUMBERS,
    crate::memory::header_fact::NUMBERS,
    crate::memory::run_state::NUMBERS,
    crate::paging::soft_fault_answer::NUMBERS,
    crate::paging::page_flag::NUMBERS,
    crate::os::process_present::NUMBERS,
    crate::os::process_state::NUMBERS,
    crate::os::permission::NUMBERS,
    crate::os::region_kind::NUMBERS,
    crate::entry::log_level::NUMBERS,
];

impl Header {
    /// The structure for the record of the layout.
    pub(crate) const STRUCTURE: Structure = Structure {
        name: "Header",
        size: size_of::<Self>(),
        align: align_of::<Self>(),
        grows: false,
        fields: &[
            field::<u32>("size", core::mem::offset_of!(Self, size), "u32"),
            field::<u16>("major", core::mem::offset_of!(Self, major), "u16"),
            field::<u16>("minor", core::mem::offset_of!(Self, minor), "u16"),
        ],
    };
}
