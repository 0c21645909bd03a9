//! Offsets that memory tells, against those of the table: every row, every field.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use memflow_core::memory::TargetFacts;
use memflow_win32::{OffsetSources, Win32Options, Win32Os};
use memflow_windows_images::{Architecture, Description, Exports, KdbgForm, OffsetTable, Offsets};

use crate::machine::{Image, UNKNOWN, description, kinds};

/// What processes, their threads, modules and regions are read with. Names on one line are one field that was renamed.
const NEEDED: &[&[&str]] = &[
    &["_KPROCESS.DirectoryTableBase"],
    &["_KPROCESS.UserDirectoryTableBase"],
    &["_KPROCESS.ThreadListHead"],
    &["_EPROCESS.UniqueProcessId"],
    &["_EPROCESS.ActiveProcessLinks"],
    &["_EPROCESS.Token"],
    &["_EPROCESS.InheritedFromUniqueProcessId"],
    &["_EPROCESS.SectionBaseAddress"],
    &["_EPROCESS.Peb"],
    &["_EPROCESS.WoW64Process", "_EPROCESS.Wow64Process"],
    &["_EPROCESS.ObjectTable"],
    &["_EPROCESS.ImageFileName"],
    &["_EPROCESS.ThreadListHead"],
    &["_EPROCESS.ActiveThreads"],
    &["_EPROCESS.VadRoot"],
    &["_EPROCESS.ExitStatus"],
    &["_EPROCESS.CreateTime"],
    &["_EPROCESS.ExitTime"],
    &["_EPROCESS.SeAuditProcessCreationInfo"],
    &["_EPROCESS.Session"],
    &["_EWOW64PROCESS.Peb"],
    &["_KTHREAD.Teb"],
    &["_KTHREAD.Process"],
    &["_KTHREAD.State"],
    &["_KTHREAD.ApcState"],
    &["_KTHREAD.ThreadListEntry"],
    &["_ETHREAD.ThreadListEntry"],
    &["_ETHREAD.Cid"],
    &["_ETHREAD.StartAddress"],
    &["_ETHREAD.Win32StartAddress"],
    &["_ETHREAD.CreateTime"],
    &["_KPRCB.CurrentThread"],
    &["_HANDLE_TABLE.TableCode"],
    &["_KLDR_DATA_TABLE_ENTRY.DllBase"],
    &["_KLDR_DATA_TABLE_ENTRY.SizeOfImage"],
    &["_KLDR_DATA_TABLE_ENTRY.FullDllName"],
    &["_KLDR_DATA_TABLE_ENTRY.BaseDllName"],
    &["_MMVAD_SHORT.VadNode"],
    &["_MMVAD_SHORT.StartingVpn"],
    &["_MMVAD_SHORT.EndingVpn"],
    &["_MMVAD_SHORT.StartingVpnHigh"],
    &["_MMVAD_SHORT.EndingVpnHigh"],
    &["_MMVAD_SHORT.u"],
    &["_MMVAD.Subsection"],
    &["_MMVAD.FirstPrototypePte"],
    &["_SUBSECTION.ControlArea"],
    &["_CONTROL_AREA.FilePointer"],
    &["_FILE_OBJECT.FileName"],
    &["_MMVAD_FLAGS.VadType@bit"],
    &["_MMVAD_FLAGS.VadType@bits"],
    &["_MMVAD_FLAGS.Protection@bit"],
    &["_MMVAD_FLAGS.Protection@bits"],
    &["_MMVAD_FLAGS.PrivateMemory@bit"],
    &["_MMVAD_FLAGS.PrivateMemory@bits"],
];

/// What became of one field in the machines of a build.
#[derive(Clone, Copy, Default)]
struct Count {
    same: u32,
    unknown: u32,
    wrong: u32,
}

/// How fields agree, by build.
#[derive(Default)]
struct Agreement {
    counts: BTreeMap<(&'static str, String), Count>,
    builds: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Agreement {
    /// Derives the offsets of a machine and compares all that its build has, besides what is excused.
    fn compare(&mut self, offsets: &Offsets, description: &Description, excused: &[&str]) {
        let windows = Arc::new(description.build().unwrap());
        let mut options = Win32Options::default();
        options.offsets = OffsetSources::Derived;
        let os = Win32Os::open(Image::memory(windows, TargetFacts::default()), &options).unwrap();
        let build = format!("{}{}", offsets.version.build, if offsets.wide { "" } else { "x" });
        self.builds.insert(build.clone());
        for names in NEEDED {
            let Some(expected) = names.iter().find_map(|name| offsets.get(name)) else { continue };
            let found = names.iter().find_map(|name| os.found().offset(name).ok());
            let count = self.counts.entry((names[0], build.clone())).or_default();
            match found {
                Some(found) if found == expected => count.same += 1,
                None if excused.contains(&names[0]) => {}
                None => count.unknown += 1,
                Some(found) => {
                    count.wrong += 1;
                    let evidence = os.found().info.evidence.join("; ");
                    self.wrong
                        .push(format!("{} {}: {found:#x}, not {expected:#x}; {evidence}", offsets.version, names[0]));
                }
            }
        }
    }

    /// Same, unknown, wrong.
    fn sum(&self) -> (u32, u32, u32) {
        self.counts.values().fold((0, 0, 0), |sum, one| (sum.0 + one.same, sum.1 + one.unknown, sum.2 + one.wrong))
    }

    /// A line for each field, a column for each build: machines in which it is the same, unknown, wrong.
    fn table(&self) -> String {
        let mut text = format!("{:42}", "same/unknown/wrong");
        self.builds.iter().for_each(|build| write!(text, "{build:>11}").unwrap());
        for names in NEEDED {
            write!(text, "\n{:42}", names[0]).unwrap();
            for build in &self.builds {
                let cell = match self.counts.get(&(names[0], build.clone())) {
                    Some(one) => format!("{}/{}/{}", one.same, one.unknown, one.wrong),
                    None => "-".to_owned(),
                };
                write!(text, "{cell:>11}").unwrap();
            }
        }
        let (same, unknown, wrong) = self.sum();
        write!(text, "\n{same} same, {unknown} unknown, {wrong} wrong: {:.2} %", self.percent()).unwrap();
        text
    }

    fn percent(&self) -> f64 {
        let (same, unknown, wrong) = self.sum();
        f64::from(same) * 100.0 / f64::from(same + unknown + wrong)
    }

    #[expect(clippy::print_stdout, reason = "the table is what somebody who asks for the test's output wants to see")]
    fn assert(&self, least: f64) {
        println!("{}", self.table());
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        assert!(self.percent() >= least, "{}", self.table());
    }
}

/// Every row of the table as a machine whose GUID is in no table.
fn of_all_rows(seed: u64, architecture: Architecture, prepare: impl Fn(&mut Description)) -> Agreement {
    let mut agreement = Agreement::default();
    for (number, offsets) in (seed..).zip(OffsetTable::embedded().unwrap().rows()) {
        let mut one = description(number, architecture, offsets.clone());
        one.guid = Some(UNKNOWN.to_owned());
        prepare(&mut one);
        // Where nobody has page tables of his own for user mode, nobody needs their root.
        let excused: &[&str] =
            if architecture == Architecture::X64Shadow { &[] } else { &["_KPROCESS.UserDirectoryTableBase"] };
        agreement.compare(offsets, &one, excused);
    }
    agreement
}

#[test]
fn derived_offsets_are_those_of_every_row() {
    of_all_rows(1000, Architecture::X64Shadow, |_| {}).assert(95.0);
}

#[test]
fn derived_offsets_are_those_of_every_row_among_clutter() {
    of_all_rows(2000, Architecture::X64, |one| one.cluttered = true).assert(95.0);
}

#[test]
fn nothing_derived_without_exports_and_kdbg_is_wrong() {
    of_all_rows(3000, Architecture::X64Shadow, |one| {
        one.exports = Exports::Missing;
        one.kdbg = KdbgForm::Absent;
        one.cluttered = true;
    })
    .assert(90.0);
}

#[test]
fn derived_offsets_of_32_bit_kernels_are_right() {
    let mut agreement = Agreement::default();
    for (seed, (architecture, offsets)) in (4000..).zip(kinds()).filter(|(_, (_, offsets))| !offsets.wide) {
        for cluttered in [false, true] {
            let mut one = description(seed, architecture, offsets.clone());
            one.cluttered = cluttered;
            agreement.compare(&offsets, &one, &[]);
        }
    }
    agreement.assert(95.0);
}

#[test]
fn nothing_derived_of_any_machine_is_wrong() {
    let mut agreement = Agreement::default();
    for seed in 0..150 {
        let mut one = Description::randomised(seed).unwrap();
        one.ram = 128 << 20;
        one.guid = Some(UNKNOWN.to_owned());
        let offsets = one.offsets.clone();
        agreement.compare(&offsets, &one, &["_KPROCESS.UserDirectoryTableBase"]);
    }
    // Nobody may have ended in them, or be in another session than the first.
    agreement.assert(90.0);
}
