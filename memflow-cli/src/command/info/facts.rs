//! What a target says of its machine before anybody has looked for a kernel: headers of dumps, registers, VMCOREINFO.
//!
//! Owns: the records of facts and their lines. Must not know: where a connector has them from.
//! Keeps: what is not known is left out, never zero.
//! Source of the names in VMCOREINFO: Linux, `Documentation/admin-guide/kdump/vmcoreinfo.rst`.

use memflow_core::memory::{MachineKind, TargetFacts, WindowsFacts};
use serde::Serialize;

use crate::output::{Hex, plural};

/// What in VMCOREINFO tells most: the kernel's release and build, and where it lies.
const TELLING: [&str; 8] = [
    "OSRELEASE",
    "BUILD-ID",
    "PAGESIZE",
    "SYMBOL(swapper_pg_dir)",
    "SYMBOL(init_top_pgt)",
    "NUMBER(phys_base)",
    "KERNELOFFSET",
    "CRASHTIME",
];
/// Intervals of 100 ns in a second, and seconds from 1601-01-01 to 1970-01-01: the clock of Windows.
const TICKS: u64 = 10_000_000;
const TO_1970: u64 = 11_644_473_600;

#[derive(Serialize)]
pub(super) struct FactsRecord {
    machine: Option<&'static str>,
    directory_table: Option<Hex>,
    vmcoreinfo: Option<NoteRecord>,
    windows: Option<WindowsRecord>,
}

#[derive(Serialize)]
struct NoteRecord {
    size: usize,
    /// Name and value, as they stand in the note.
    values: Vec<(String, String)>,
}

#[derive(Serialize)]
struct WindowsRecord {
    build: u32,
    processors: Option<u32>,
    pae: Option<bool>,
    debugger_data: Option<Hex>,
    loaded_modules: Option<Hex>,
    active_processes: Option<Hex>,
    pfn_database: Option<Hex>,
    bug_check: Option<BugCheckRecord>,
    /// Seconds since 1970-01-01 00:00 UTC.
    time: Option<u64>,
}

#[derive(Serialize)]
struct BugCheckRecord {
    code: Hex,
    parameters: [Hex; 4],
}

impl FactsRecord {
    pub(super) fn new(facts: &TargetFacts) -> Self {
        Self {
            machine: facts.machine.and_then(|machine| match machine {
                MachineKind::X86 => Some("x86"),
                MachineKind::X86_64 => Some("x86-64"),
                MachineKind::AArch64 => Some("AArch64"),
                _ => None,
            }),
            directory_table: facts.directory_table.map(Hex),
            vmcoreinfo: facts.vmcoreinfo.as_deref().map(NoteRecord::new),
            windows: facts.windows.as_ref().map(WindowsRecord::new),
        }
    }

    /// A name and a value for each line of the description; an empty name continues the line before. `values`: also those in VMCOREINFO.
    pub(super) fn lines(&self, values: bool) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(machine) = self.machine {
            lines.push(("machine", machine.to_owned()));
        }
        if let Some(Hex(root)) = self.directory_table {
            lines.push(("directory table", format!("{root:#x}")));
        }
        if let Some(note) = &self.vmcoreinfo {
            lines.push(("VMCOREINFO", plural(note.size as u64, "byte")));
            let told = note.values.iter().filter(|_| values);
            lines.extend(told.map(|(name, value)| ("", format!("{name}={value}"))));
        }
        if let Some(windows) = &self.windows {
            lines.extend(windows.lines());
        }
        lines
    }
}

impl NoteRecord {
    fn new(note: &[u8]) -> Self {
        let text = String::from_utf8_lossy(note);
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let telling = pairs.filter(|(name, _)| TELLING.contains(name));
        let values = telling.map(|(name, value)| (name.to_owned(), value.to_owned())).take(TELLING.len()).collect();
        Self { size: note.len(), values }
    }
}

impl WindowsRecord {
    fn new(facts: &WindowsFacts) -> Self {
        let time = facts.system_time.and_then(|ticks| (ticks / TICKS).checked_sub(TO_1970));
        Self {
            build: facts.build,
            processors: facts.processors,
            pae: facts.pae,
            debugger_data: facts.debugger_data.map(Hex::from),
            loaded_modules: facts.loaded_modules.map(Hex::from),
            active_processes: facts.active_processes.map(Hex::from),
            pfn_database: facts.pfn_database.map(Hex::from),
            bug_check: facts
                .bug_check
                .map(|check| BugCheckRecord { code: Hex(check.code.into()), parameters: check.parameters.map(Hex) }),
            time,
        }
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("Windows build", self.build.to_string())];
        if let Some(count) = self.processors {
            lines.push(("processors", count.to_string()));
        }
        if let Some(pae) = self.pae {
            lines.push(("PAE", if pae { "yes" } else { "no" }.to_owned()));
        }
        let addresses = [
            ("KDBG", self.debugger_data),
            ("loaded modules", self.loaded_modules),
            ("active processes", self.active_processes),
            ("PFN database", self.pfn_database),
        ];
        let known =
            addresses.into_iter().filter_map(|(name, value)| value.map(|Hex(value)| (name, format!("{value:#x}"))));
        lines.extend(known);
        if let Some(BugCheckRecord { code: Hex(code), parameters }) = &self.bug_check {
            let parameters: Vec<String> = parameters.iter().map(|Hex(value)| format!("{value:#x}")).collect();
            lines.push(("bug check", format!("{code:#x} ({})", parameters.join(", "))));
        }
        if let Some(seconds) = self.time {
            lines.push(("written", format!("{} UTC", date(seconds))));
        }
        lines
    }
}

/// The date and time of a number of seconds since 1970, in the Gregorian calendar.
fn date(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Years of March to February, in cycles of 400 years from 0000-03-01 on.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + u64::from(month > 9), if month < 10 { month + 3 } else { month - 9 });
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `date -u -d @N`.
    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_700_000_000, "2023-11-14 22:13:20"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn only_what_tells_is_taken_of_a_note() {
        let note = NoteRecord::new(b"OSRELEASE=6.1.0\nLENGTH(free_area.free_list)=6\nKERNELOFFSET=2e00\nnothing\n");
        let expected = [("OSRELEASE", "6.1.0"), ("KERNELOFFSET", "2e00")];
        assert_eq!(note.values, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(note.size, 72);
    }
}
