//! What was built: the lists that a reader of the image has to find.
//!
//! Owns: plain records, serialisable. Must not know: how any of it lies in memory.
//! Keeps: addresses are virtual unless the name says physical; times are units of 100 ns since 1601.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{offsets::Version, tables::Paging};

/// All of a machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Truth {
    /// Page tables of the machine.
    pub paging: Paging,
    /// Page tables of user mode are of their own.
    pub kva_shadow: bool,
    /// Physical address of the top table of the process System, without flags.
    pub dtb: u64,
    /// Index of the entry in a table of four levels that refers to the table itself.
    pub self_reference: u64,
    /// Physical address of the start block of processors, if there is one.
    pub low_stub: Option<u64>,
    /// RAM as physical ranges: first byte, and first byte behind.
    pub ram: Vec<(u64, u64)>,
    /// The bit that is set in page table entries which are not present, against speculative loads; 0 if there is none.
    pub invalid_pte_mask: u64,
    /// The kernel.
    pub kernel: Kernel,
    /// `KUSER_SHARED_DATA`.
    pub shared_data: SharedData,
    /// Processors in their order.
    pub processors: Vec<Processor>,
    /// Modules of the kernel, in the order of `PsLoadedModuleList`.
    pub drivers: Vec<Module>,
    /// Keyboards, by session.
    pub keyboards: Vec<Keyboard>,
    /// Hives of the registry, in the order of their list.
    pub hives: Vec<Hive>,
    /// Processes in the order in which they were made, hidden ones with them; System is the first.
    pub processes: Vec<Process>,
}

/// The kernel's image and its variables.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// Where the image lies.
    pub base: u64,
    /// `SizeOfImage`.
    pub size: u64,
    /// Version of the image.
    pub version: Version,
    /// GUID of the symbol file, as in its name.
    pub guid: String,
    /// Its age.
    pub age: u32,
    /// Its name.
    pub pdb: String,
    /// Text of `NtBuildLab`.
    pub build_lab: String,
    /// What `MmPfnDatabase` says; no record of a frame is in memory.
    pub pfn_database: u64,
    /// Addresses of variables by name, without the module.
    pub symbols: BTreeMap<String, u64>,
    /// Where the debugger's block lies, and whether it is encoded.
    pub kdbg: Option<Kdbg>,
    /// The page or pages with the export directory cannot be read.
    pub exports_missing: bool,
    /// Names and relative addresses of exports.
    pub exports: Vec<Export>,
}

/// The debugger's block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kdbg {
    /// Where it lies.
    pub address: u64,
    /// Its `Size`.
    pub size: u64,
    /// Its bytes are encoded.
    pub encoded: bool,
}

/// What user mode may know of the system.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SharedData {
    /// Where it lies for the kernel.
    pub kernel_address: u64,
    /// Where it lies for processes.
    pub user_address: u64,
    /// Time since the start, in ticks.
    pub tick_count: u64,
    /// Now.
    pub system_time: u64,
    /// `C:\Windows`.
    pub system_root: String,
    /// `NtProductType`: 1 workstation, 3 server.
    pub product_type: u32,
}

/// A processor, as it runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Processor {
    /// KPCR: what GS points to in 64-bit kernel mode, and FS in 32-bit.
    pub kpcr: u64,
    /// Its top table.
    pub cr3: u64,
    /// Entry of system calls.
    pub lstar: u64,
    /// Where the interrupt table lies.
    pub idt: u64,
    /// The thread that runs.
    pub thread: u64,
    /// Its process.
    pub process: u64,
}

/// The keyboard of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Keyboard {
    /// The session.
    pub session: u32,
    /// Where its state lies, in the space of the session's processes.
    pub address: u64,
    /// Keys that are down, by virtual-key code.
    pub down: Vec<u8>,
    /// Keys that are switched on.
    pub toggled: Vec<u8>,
}

/// A hive of the registry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hive {
    /// Address of the CMHIVE.
    pub address: u64,
    /// Where it is in the registry.
    pub root: String,
    /// Its file; empty if it has none.
    pub file: String,
}

/// A process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Address of the EPROCESS.
    pub eprocess: u64,
    /// Its number.
    pub pid: u32,
    /// Its parent's number.
    pub parent: u32,
    /// `ImageFileName`: at most 14 characters.
    pub short_name: String,
    /// Full path in the name space of the kernel, from `SeAuditProcessCreationInfo`; empty for System and Registry.
    pub device_path: String,
    /// Full path as the process knows it.
    pub path: String,
    /// Its command line.
    pub command_line: String,
    /// Its current directory.
    pub current_directory: String,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// Its session.
    pub session: Option<u32>,
    /// When it was made.
    pub create_time: u64,
    /// When it ended.
    pub exit_time: Option<u64>,
    /// Its exit status: 0x103 while it runs.
    pub exit_status: u32,
    /// `DirectoryTableBase`, with its flags.
    pub dtb: u64,
    /// `UserDirectoryTableBase`, if there is such a field.
    pub user_dtb: Option<u64>,
    /// PEB, or 0.
    pub peb: u64,
    /// PEB of 32 bits, if it runs under WoW64.
    pub peb32: Option<u64>,
    /// It runs 32-bit code: under WoW64, or on a 32-bit system.
    pub narrow: bool,
    /// `SectionBaseAddress`.
    pub section_base: u64,
    /// Its token.
    pub token: Token,
    /// Address of the handle table.
    pub object_table: u64,
    /// Its handles.
    pub handles: Vec<Handle>,
    /// It is in the list of active processes.
    pub listed: bool,
    /// It is in the table of process and thread numbers.
    pub in_cid_table: bool,
    /// Its threads, in the order of its list.
    pub threads: Vec<Thread>,
    /// Its modules in load order; under WoW64 those of 64 bits.
    pub modules: Vec<Module>,
    /// Its modules of 32 bits under WoW64.
    pub modules32: Vec<Module>,
    /// Its regions, by address.
    pub vads: Vec<Vad>,
    /// Its pages, by address, but for reserved ones that nothing was ever in.
    pub pages: Vec<UserPage>,
}

/// A thread.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Thread {
    /// Address of the ETHREAD.
    pub ethread: u64,
    /// Its number.
    pub tid: u32,
    /// TEB, or 0.
    pub teb: u64,
    /// Where the kernel started it.
    pub start_address: u64,
    /// Where the program started it.
    pub win32_start_address: u64,
    /// `KTHREAD.State`: 2 running, 4 terminated, 5 waiting.
    pub state: u8,
    /// When it was made.
    pub create_time: u64,
    /// Upper end of its kernel stack.
    pub stack_base: u64,
    /// Where its kernel stack keeps the registers of user mode.
    pub trap_frame: u64,
    /// Instruction pointer in that frame.
    pub user_ip: u64,
    /// Stack pointer in that frame.
    pub user_sp: u64,
}

/// A token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Address of the TOKEN.
    pub address: u64,
    /// The user: S-1-5-18.
    pub user: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// The last number of the integrity label: 0x4000 of the system, 0x3000 high, 0x2000 medium, 0x1000 low.
    pub integrity: u32,
    /// Its session.
    pub session: u32,
}

/// A handle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Handle {
    /// Its number.
    pub value: u32,
    /// Address of the object, behind its header.
    pub object: u64,
    /// Name of its type.
    pub kind: String,
    /// What it allows.
    pub access: u32,
    /// Name of the object, of those that have one.
    pub name: Option<String>,
}

/// A module of the kernel or of a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Module {
    /// Where it lies.
    pub base: u64,
    /// Its size.
    pub size: u64,
    /// Address of its entry point, or 0.
    pub entry: u64,
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Address of its entry in the list.
    pub list_entry: u64,
    /// What it exports, sorted by name.
    pub exports: Vec<Export>,
    /// What it imports.
    pub imports: Vec<Import>,
    /// Its sections.
    pub sections: Vec<Section>,
    /// Texts of its version resource.
    pub version: BTreeMap<String, String>,
    /// It is in the list; one that is not can be found by its VAD only.
    pub listed: bool,
}

/// An export.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Its relative address.
    pub rva: u32,
    /// Its ordinal.
    pub ordinal: u32,
}

/// An import.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Import {
    /// The module that it is in.
    pub module: String,
    /// Its name.
    pub name: String,
    /// Relative address of the slot with its address.
    pub slot: u32,
}

/// A section of an image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its relative address.
    pub rva: u32,
    /// Its size in memory.
    pub size: u32,
    /// Its flags.
    pub characteristics: u32,
}

/// What a VAD is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VadKind {
    /// Private memory.
    Private,
    /// An image.
    Image,
    /// A mapped file.
    Mapped,
}

/// A region of a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vad {
    /// Address of the MMVAD.
    pub node: u64,
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// What it is for.
    pub kind: VadKind,
    /// `VadType`: 0 none, 2 image, 5 large pages.
    pub vad_type: u8,
    /// `Protection`: 1 read, 3 read and execute, 4 read and write, 6 all, 7 image.
    pub protection: u8,
    /// `PrivateMemory`.
    pub private: bool,
    /// Name of the mapped file without its volume.
    pub file: Option<String>,
}

/// Where the bytes of a page are, by its table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PageState {
    /// Present.
    Valid,
    /// In transition: in RAM, not present.
    Transition,
    /// Zeros, never touched.
    DemandZero,
    /// In a page file.
    PageFile {
        /// Number of the page file.
        file: u8,
        /// Page in it.
        page: u32,
    },
    /// Only in the mapped file.
    File,
}

/// How a page's own table entry says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Through {
    /// By itself.
    Entry,
    /// It names a prototype.
    Prototype,
    /// It says to look into the VAD.
    Vad,
    /// It is zero; the VAD knows.
    Nothing,
}

/// A page of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UserPage {
    /// Its address.
    pub address: u64,
    /// Its size: 4 KiB, or that of a large page.
    pub size: u64,
    /// Where its bytes are.
    pub state: PageState,
    /// How its entry says so.
    pub through: Through,
    /// Physical address of its bytes, if they are in RAM.
    pub physical: Option<u64>,
}
