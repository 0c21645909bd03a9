//! Descriptions drawn from a number.
//!
//! Owns: what is drawn, and how often. Must not know: how an image is built.
//! Keeps: every number gives a description that can be built, and always the same one.

use fastrand::Rng;

use crate::{
    Error, OffsetTable,
    description::{
        Account, Architecture, Description, Exports, KdbgForm, MappedFile, PrivatePage, PrivateRegion,
        ProcessDescription,
    },
    narrow::{windows_7_x86, windows_10_18362_x86, windows_10_19041_x86},
    offsets::Offsets,
    truth::{PageState, Through},
};

impl Description {
    /// Any machine: one of all builds, modes and features.
    ///
    /// # Errors
    /// A table of offsets that cannot be read.
    pub fn randomised(seed: u64) -> Result<Self, Error> {
        let mut rng = Rng::with_seed(seed ^ 0x57a7_e5ee_d000_0000);
        let table = OffsetTable::embedded()?;
        let rows = table.rows();
        let architecture = match rng.u8(0..8) {
            0 => Architecture::X86,
            1 | 2 => Architecture::Pae,
            3 | 4 => Architecture::X64Shadow,
            _ => Architecture::X64,
        };
        let offsets = match architecture {
            Architecture::X86 => windows_7_x86(),
            Architecture::Pae => match rng.u8(0..3) {
                0 => windows_7_x86(),
                1 => windows_10_18362_x86(),
                _ => windows_10_19041_x86(),
            },
            _ => rows[rng.usize(0..rows.len())].clone(),
        };
        Ok(Self::randomised_for(seed, architecture, offsets))
    }

    /// Any machine of one build.
    pub fn randomised_for(seed: u64, architecture: Architecture, offsets: Offsets) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0xde5c_71be_d000_0000);
        let rng = &mut rng;
        let mut description = Self::new(seed, architecture, offsets);
        let wide = description.wide();
        description.ram = rng.u64(2..=16) << 26;
        description.low_stub = rng.bool();
        description.low_table = rng.u8(0..4) > 0;
        description.large_kernel = rng.bool();
        description.exports = if rng.u8(0..4) == 0 { Exports::Missing } else { Exports::Present };
        description.kdbg = [KdbgForm::Plain, KdbgForm::Encoded, KdbgForm::Absent][rng.usize(0..3)];
        if description.offsets.version.major == 6 && description.offsets.version.minor < 2 {
            description.kdbg = KdbgForm::Plain;
        }
        description.pcid = rng.bool();
        description.invalid_pte_mask = rng.bool();
        description.cluttered = rng.bool();
        description.processors = rng.u32(1..=4);
        let more = rng.usize(0..12);
        description.drivers.extend((0..more).map(|at| format!("driver{at}.sys")));
        for process in &mut description.processes {
            process.trimmed = if rng.bool() { rng.u8(0..40) } else { 0 };
        }
        for at in 0..rng.u32(1..8) {
            // Numbers go on above those of the processes that are always there, some of them with two digits more.
            let pid = 2400 + at * 4 * rng.u32(1..100) + at * 2000;
            let process = any_process(rng, pid, wide);
            if description.processes.iter().all(|other| other.pid != pid) {
                description.processes.push(process);
            }
        }
        description
    }
}

fn any_process(rng: &mut Rng, pid: u32, wide: bool) -> ProcessDescription {
    const NAMES: [&str; 8] = [
        "notepad.exe",
        "svchost.exe",
        "a.exe",
        "WindowsInternal.ComposableShell.exe",
        "fourteenchars.x",
        "fifteen chars.e",
        "m\u{fc}nchen.exe",
        "noextension",
    ];
    let wow64 = wide && rng.u8(0..3) == 0;
    let name = NAMES[rng.usize(0..NAMES.len())];
    // One path is one image: a program of 32 bits is another file.
    let folder = if wow64 { r"C:\Program Files (x86)\Some Program" } else { r"C:\Windows\System32" };
    let mut process = ProcessDescription::new(pid, 2096, &format!(r"{folder}\{name}"));
    process.wow64 = wow64;
    process.account = [
        Account::System,
        Account::LocalService,
        Account::NetworkService,
        Account::User,
        Account::Administrator,
        Account::Sandbox,
    ][rng.usize(0..6)];
    if rng.bool() {
        process.session = Some(rng.u32(0..4));
    }
    if rng.bool() {
        process.command_line = format!(
            "\"{}\" --number={} \u{43f}\u{440}\u{438}\u{432}\u{435}\u{442} {}",
            process.path,
            pid,
            "x".repeat(rng.usize(0..300))
        );
    }
    process.threads = rng.u32(1..6);
    const MORE: [&str; 5] =
        ["user32.dll", "gdi32.dll", "advapi32.dll", "ws2_32.dll", "a-module-with-a-rather-long-name.dll"];
    process.modules.extend(MORE.iter().filter(|_| rng.bool()).map(|name| (*name).to_owned()));
    if rng.u8(0..4) == 0 {
        process.unlinked_modules.push("hidden.dll".to_owned());
    }
    process.trimmed = if rng.bool() { rng.u8(0..60) } else { 0 };
    match rng.u8(0..8) {
        0 => process.ended = true,
        1 => process.hidden = true,
        _ => {}
    }
    for _ in 0..rng.usize(0..3) {
        let kinds = [
            PrivatePage::Valid,
            PrivatePage::Transition,
            PrivatePage::PageFile,
            PrivatePage::Compressed,
            PrivatePage::DemandZero,
            PrivatePage::Nothing,
        ];
        let pages = (0..rng.usize(1..20)).map(|_| kinds[rng.usize(0..6)]).collect();
        process.private.push(PrivateRegion { protection: [1, 4, 6, 0x18][rng.usize(0..4)], pages });
    }
    if rng.bool() {
        let through = [Through::Prototype, Through::Vad, Through::Nothing];
        let pages = (0..rng.u32(1..20))
            .map(|page| {
                let through = through[rng.usize(0..3)];
                match rng.u8(0..6) {
                    0 => (PageState::Valid, Through::Entry),
                    1 => (PageState::Transition, through),
                    2 => (PageState::DemandZero, through),
                    3 => (PageState::PageFile { file: 0, page: 0x1_0000 + pid % 0x1000 * 16 + page }, through),
                    4 => (PageState::File, through),
                    _ => (PageState::Transition, through),
                }
            })
            .collect();
        process.mapped.push(MappedFile { path: format!(r"C:\Users\user\file of {pid}.bin"), pages });
    }
    process.large_pages = u32::from(rng.u8(0..4) == 0);
    process
}
