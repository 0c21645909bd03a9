//! What is to be built.
//!
//! Owns: the descriptions of a machine and of its processes, and what a plain one has. Must not know: how any of it lies in memory.
//! Keeps: a description says the same image for ever: all that is not said is drawn from its seed.

use crate::{
    Error,
    offsets::Offsets,
    truth::{PageState, Through},
};

/// Processor, page tables, and what separates user mode from the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// 64 bits, four levels.
    X64,
    /// The same with page tables of their own for user mode.
    X64Shadow,
    /// 32 bits with physical address extension.
    Pae,
    /// 32 bits with two levels.
    X86,
}

/// The export directory of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exports {
    /// It is there.
    Present,
    /// Its pages are in no frame: the image has been paged out there, or the frames were not saved.
    Missing,
}

/// The debugger's block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KdbgForm {
    /// As it is.
    Plain,
    /// Encoded, as since Windows 8 unless a debugger is attached.
    Encoded,
    /// Zeros.
    Absent,
}

/// How the keyboard's state is to be found, which changed between builds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyboardForm {
    /// `win32kbase.sys` exports it by name, as until build 22000.
    Exported,
    /// It does not, and only its code says where it is.
    Used,
    /// It is in the state of a session, to which `win32ksgd.sys` leads, as from build 22621 on.
    SessionDriver,
    /// The same, and `win32k.sys` leads there, as in later builds.
    SessionSlots,
}

/// A hive of the registry that is loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HiveDescription {
    /// Where it is in the registry: `\REGISTRY\MACHINE\SYSTEM`.
    pub root: String,
    /// Its file as the kernel knows it; empty for one that is only in memory.
    pub file: String,
}

/// Who a process runs as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Account {
    /// S-1-5-18.
    System,
    /// S-1-5-19.
    LocalService,
    /// S-1-5-20.
    NetworkService,
    /// A person, with medium integrity.
    User,
    /// A person, as an administrator with high integrity.
    Administrator,
    /// A person's program in a sandbox, with low integrity.
    Sandbox,
}

/// A page of private memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrivatePage {
    /// Present.
    Valid,
    /// In transition.
    Transition,
    /// In page file 0.
    PageFile,
    /// In the store of compressed pages: page file 2, as builds from 10 on have it.
    Compressed,
    /// Committed, never touched.
    DemandZero,
    /// Its entry is zero.
    Nothing,
}

/// A region of private memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrivateRegion {
    /// Protection as in a VAD: 4 is read and write, 6 all.
    pub protection: u8,
    /// Its pages.
    pub pages: Vec<PrivatePage>,
}

/// A mapped file. All pages of one file are in the state that the first region of it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MappedFile {
    /// Path with a drive: `C:\Users\user\data.bin`.
    pub path: String,
    /// Where each page is, and how the process's entry says so. [`Through::Entry`] is possible for valid pages only.
    pub pages: Vec<(PageState, Through)>,
}

/// A process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessDescription {
    /// Its number: a multiple of four.
    pub pid: u32,
    /// Its parent's number, of a process that may have ended.
    pub parent: u32,
    /// Path with a drive.
    pub path: String,
    /// Its command line; the path in quotes, if empty.
    pub command_line: String,
    /// Its current directory.
    pub current_directory: String,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// Its session; smss has none.
    pub session: Option<u32>,
    /// A 32-bit process on a 64-bit system.
    pub wow64: bool,
    /// Who it runs as.
    pub account: Account,
    /// Threads.
    pub threads: u32,
    /// Modules besides its image, ntdll and the three of WoW64: file names in `System32`, and in `SysWOW64` under WoW64.
    pub modules: Vec<String>,
    /// Modules that are taken out of the lists after loading.
    pub unlinked_modules: Vec<String>,
    /// It has ended and is still in the list: no threads, no memory of user mode.
    pub ended: bool,
    /// It has been taken out of the list of processes.
    pub hidden: bool,
    /// Regions of private memory besides those that every process has.
    pub private: Vec<PrivateRegion>,
    /// Mapped files.
    pub mapped: Vec<MappedFile>,
    /// Large pages (2 MiB, 4 MiB with two levels) in one region.
    pub large_pages: u32,
    /// A page of 1 GiB; needs a machine of four levels with 2 GiB or more.
    pub huge_page: bool,
    /// How many of a hundred pages of images and of its own memory are in transition or without an entry.
    pub trimmed: u8,
}

impl ProcessDescription {
    /// A process of a person in session 1, with two threads and the usual modules.
    pub fn new(pid: u32, parent: u32, path: &str) -> Self {
        let environment =
            [("SystemRoot", r"C:\Windows"), ("PATH", r"C:\Windows\system32;C:\Windows"), ("USERNAME", "user")];
        Self {
            pid,
            parent,
            path: path.to_owned(),
            command_line: String::new(),
            current_directory: r"C:\Users\user\".to_owned(),
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            session: Some(1),
            wow64: false,
            account: Account::User,
            threads: 2,
            modules: vec!["kernel32.dll".to_owned()],
            unlinked_modules: Vec::new(),
            ended: false,
            hidden: false,
            private: Vec::new(),
            mapped: Vec::new(),
            large_pages: 0,
            huge_page: false,
            trimmed: 0,
        }
    }

    /// A process of the system in session 0.
    pub fn service(pid: u32, parent: u32, path: &str) -> Self {
        Self {
            session: Some(0),
            account: Account::System,
            current_directory: r"C:\Windows\system32\".to_owned(),
            ..Self::new(pid, parent, path)
        }
    }

    /// The last part of its path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('\\').next().unwrap_or_default()
    }
}

/// A machine that runs Windows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// From which all is drawn that is not said.
    pub seed: u64,
    /// Processor and page tables.
    pub architecture: Architecture,
    /// Offsets of the build.
    pub offsets: Offsets,
    /// Another GUID than that of the build, so that no table knows it.
    pub guid: Option<String>,
    /// Bytes of RAM.
    pub ram: u64,
    /// There is a start block of processors below 1 MiB (64 bits only).
    pub low_stub: bool,
    /// The top table of System lies in the first 16 MiB, as usual; anywhere below 4 GiB otherwise.
    pub low_table: bool,
    /// The kernel is mapped by large pages.
    pub large_kernel: bool,
    /// The export directory of the kernel.
    pub exports: Exports,
    /// The debugger's block.
    pub kdbg: KdbgForm,
    /// Roots are stored with the numbers of address spaces in their low bits (shadow tables only).
    pub pcid: bool,
    /// Entries that are not present have bit 45 inverted (builds from 17134 on, 64 bits).
    pub invalid_pte_mask: bool,
    /// Processes and threads have numbers and pointers in the fields that are not in the offsets; zeros otherwise.
    pub cluttered: bool,
    /// Processors.
    pub processors: u32,
    /// Drivers besides those that each machine has: file names.
    pub drivers: Vec<String>,
    /// The window system is there: its drivers in the space of each session, with a keyboard. From Windows 10 on, 64 bits.
    pub keyboard: Option<KeyboardForm>,
    /// Hives of the registry, in the order of their list.
    pub hives: Vec<HiveDescription>,
    /// Names of events that every process with a memory of its own has handles to.
    pub events: Vec<String>,
    /// The only frames that are used, so that another machine's fit beside them in one image. Nothing then lies in low memory.
    pub frames: Option<std::ops::Range<u64>>,
    /// Processes besides System, and Registry where builds have it. Their order is that of the list.
    pub processes: Vec<ProcessDescription>,
}

impl Description {
    /// A machine of 256 MiB with smss.exe, two csrss.exe, winlogon.exe and explorer.exe.
    pub fn new(seed: u64, architecture: Architecture, offsets: Offsets) -> Self {
        let system = |name: &str| format!(r"C:\Windows\System32\{name}");
        let smss = ProcessDescription {
            session: None,
            modules: Vec::new(),
            ..ProcessDescription::service(308, 4, &system("smss.exe"))
        };
        let csrss = |pid, session| ProcessDescription {
            session: Some(session),
            command_line: r"%SystemRoot%\system32\csrss.exe ObjectDirectory=\Windows".to_owned(),
            modules: vec!["csrsrv.dll".to_owned()],
            ..ProcessDescription::service(pid, 380, &system("csrss.exe"))
        };
        let winlogon =
            ProcessDescription { session: Some(1), ..ProcessDescription::service(520, 456, &system("winlogon.exe")) };
        let explorer = ProcessDescription {
            modules: vec!["kernel32.dll".to_owned(), "user32.dll".to_owned()],
            ..ProcessDescription::new(2096, 2040, r"C:\Windows\explorer.exe")
        };
        Self {
            seed,
            architecture,
            kdbg: if offsets.version.major == 6 && offsets.version.minor < 2 {
                KdbgForm::Plain
            } else {
                KdbgForm::Encoded
            },
            offsets,
            guid: None,
            ram: 256 << 20,
            low_stub: true,
            low_table: true,
            large_kernel: false,
            exports: Exports::Present,
            pcid: true,
            invalid_pte_mask: false,
            cluttered: false,
            processors: 2,
            drivers: ["ntfs.sys", "tcpip.sys", "disk.sys"].map(str::to_owned).to_vec(),
            keyboard: None,
            hives: Vec::new(),
            events: Vec::new(),
            frames: None,
            processes: vec![smss, csrss(392, 0), csrss(464, 1), winlogon, explorer],
        }
    }

    /// The same with one more process.
    pub fn process(mut self, process: ProcessDescription) -> Self {
        self.processes.push(process);
        self
    }

    /// Page tables have four levels.
    pub(crate) fn wide(&self) -> bool {
        matches!(self.architecture, Architecture::X64 | Architecture::X64Shadow)
    }

    /// Whether it can be built at all.
    ///
    /// # Errors
    /// What contradicts what.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Description { what });
        if self.wide() != self.offsets.wide {
            return wrong(format!(
                "{:?} with offsets of {} bits",
                self.architecture,
                if self.offsets.wide { 64 } else { 32 }
            ));
        }
        if self.processors == 0 || self.processors > 64 {
            return wrong(format!("{} processors; 1 to 64 are possible", self.processors));
        }
        if self.keyboard.is_some() && !(self.wide() && self.offsets.ten()) {
            return wrong("a window system of builds before Windows 10, or of 32 bits".to_owned());
        }
        if self.frames.is_some() && (self.low_stub || self.low_table) {
            return wrong("frames are given, and something is to lie in low memory".to_owned());
        }
        if self.guid.as_ref().is_some_and(|guid| guid.len() != 32 || u128::from_str_radix(guid, 16).is_err()) {
            return wrong("a GUID of other than 32 hex digits".to_owned());
        }
        let mut seen = std::collections::BTreeSet::from([0, 4, REGISTRY]);
        for process in &self.processes {
            let name = process.name();
            if !process.pid.is_multiple_of(4) || !seen.insert(process.pid) {
                return wrong(format!("{name} has the number {}, which is taken or no multiple of four", process.pid));
            }
            if !process.path.starts_with(r"C:\") || process.path.len() < 4 {
                return wrong(format!("{}: no path on drive C", process.path));
            }
            if process.wow64 && !self.wide() {
                return wrong(format!("{name} runs under WoW64 on a 32-bit system"));
            }
            if process.huge_page && (!self.wide() || self.ram < 2 << 30) {
                return wrong(format!("{name} has a page of 1 GiB; that needs 64 bits and 2 GiB of RAM"));
            }
            let entries = process.mapped.iter().flat_map(|file| &file.pages);
            if entries.into_iter().any(|(state, through)| (*through == Through::Entry) != (*state == PageState::Valid))
            {
                return wrong(format!(
                    "{name}: pages of mapped files have an entry of their own when they are valid, and only then"
                ));
            }
        }
        Ok(())
    }
}

/// Number of the process Registry.
pub(crate) const REGISTRY: u32 = 88;
