//! Keyboards, handles, hives and the shared page of machines that were built in code: what is found is what was built.
//!
//! Must not know: how the layer finds anything. The machines and their lists are from a generator that shares no code with it.

mod machine;
mod several;

use memflow_core::os::Os;
use memflow_win32::{OffsetSources, ProductType, Win32Options, Win32Os};
use memflow_windows_images::{
    Architecture, Description, HiveDescription, KeyboardForm, OffsetTable, Offsets, Windows, windows_7_x86,
    windows_10_18362_x86,
};

use crate::machine::memory;

/// A GUID that no table has.
const UNKNOWN: &str = "0123456789ABCDEF0123456789ABCDEF";

fn build(version: &str) -> Offsets {
    OffsetTable::embedded().unwrap().build(version).unwrap().clone()
}

fn opened(windows: &Windows) -> Win32Os {
    Win32Os::open(memory(windows.clone()), &Win32Options::default()).unwrap()
}

/// Each form of the keyboard in a build that has it. Builds of the later ones are in no table.
fn keyboards() -> Vec<(KeyboardForm, Offsets)> {
    let later = |number: u16| {
        let mut offsets = build("10.0.22000");
        offsets.version.build = number;
        offsets
    };
    vec![
        (KeyboardForm::Exported, build("10.0.17763")),
        (KeyboardForm::Exported, build("10.0.22000")),
        (KeyboardForm::Used, build("10.0.19041")),
        (KeyboardForm::SessionDriver, later(22621)),
        (KeyboardForm::SessionSlots, later(26100)),
    ]
}

fn with_keyboard(seed: u64, form: KeyboardForm, offsets: Offsets) -> Windows {
    let architecture = if seed.is_multiple_of(2) { Architecture::X64 } else { Architecture::X64Shadow };
    let known = build("10.0.22000").version.build >= offsets.version.build;
    let mut description = Description::new(seed, architecture, offsets);
    description.ram = 128 << 20;
    description.keyboard = Some(form);
    description.guid = (!known).then(|| UNKNOWN.to_owned());
    description.build().unwrap()
}

#[test]
fn keys_are_those_that_are_down_in_the_session_at_the_console() {
    for (seed, (form, offsets)) in (0..).zip(keyboards()) {
        let windows = with_keyboard(seed, form, offsets);
        let os = opened(&windows);
        let state = os.keyboard().unwrap().state().unwrap_or_else(|error| panic!("{form:?}: {error}"));
        let expected = windows.truth.keyboards.iter().find(|keyboard| keyboard.session == 1).unwrap();
        assert!(!expected.down.is_empty() && !expected.toggled.is_empty());
        assert_eq!(state.down().collect::<Vec<_>>(), expected.down, "{form:?}");
        assert_eq!(state.toggled().collect::<Vec<_>>(), expected.toggled, "{form:?}");
    }
}

#[test]
fn key_that_is_set_is_down_and_others_stay() {
    let windows = with_keyboard(3, KeyboardForm::SessionSlots, keyboards()[4].1.clone());
    let os = opened(&windows);
    let keyboard = os.keyboard().unwrap();
    let before = keyboard.state().unwrap();
    let key = (0..=u8::MAX).find(|key| !before.is_down(*key)).unwrap();
    keyboard.set_down(key, true).unwrap();
    let after = keyboard.state().unwrap();
    assert!(after.is_down(key) && after.toggled().eq(before.toggled()));
    assert!(after.down().filter(|down| *down != key).eq(before.down()));
    keyboard.set_down(key, false).unwrap();
    assert!(keyboard.state().unwrap() == before);
}

#[test]
fn code_that_leads_nowhere_or_to_two_places_is_an_error() {
    for (seed, (form, offsets)) in (20..).zip(keyboards()) {
        let windows = with_keyboard(seed, form, offsets);
        let driver = windows.truth.drivers.iter().find(|driver| driver.name == "win32kbase.sys").unwrap();
        // The headers of the driver are gone.
        let page = windows
            .pages()
            .find(|(_, page)| page[..2] == *b"MZ" && page.windows(8).any(|bytes| bytes == driver.base.to_le_bytes()))
            .map(|(frame, _)| frame)
            .unwrap();
        let os = opened(&windows.without(page));
        let error = os.keyboard().unwrap().state().unwrap_err().to_string();
        assert!(error.starts_with("keyboard: process ") && error.contains("win32kbase.sys"), "{form:?}: {error}");
    }
    // No window system at all.
    let windows = Description::new(1, Architecture::X64, build("10.0.17763")).build().unwrap();
    let error = opened(&windows).keyboard().unwrap().state().unwrap_err().to_string();
    assert!(error.contains("no module win32kbase.sys"), "{error}");
    let windows = Description::new(1, Architecture::Pae, windows_7_x86()).build().unwrap();
    let error = opened(&windows).keyboard().unwrap().state().unwrap_err().to_string();
    assert!(error.contains("keyboard of a 32-bit Windows"), "{error}");
}

/// Machines of several builds and modes, with events and hives.
fn described(seed: u64, architecture: Architecture, offsets: Offsets) -> Description {
    let mut description = Description::new(seed, architecture, offsets);
    description.ram = 128 << 20;
    description.events = ["WinSta0", "TermSrvReadyEvent", "m\u{fc}ll"].map(str::to_owned).to_vec();
    let hive = |root: &str, file: &str| HiveDescription { root: root.to_owned(), file: file.to_owned() };
    description.hives = vec![
        hive(r"\REGISTRY\MACHINE\HARDWARE", ""),
        hive(r"\REGISTRY\MACHINE\SYSTEM", r"\SystemRoot\System32\Config\SYSTEM"),
        hive(r"\REGISTRY\MACHINE\SOFTWARE", r"\SystemRoot\System32\Config\SOFTWARE"),
        hive(r"\REGISTRY\USER\S-1-5-21-1-2-3-1001", r"\??\C:\Users\user\ntuser.dat"),
    ];
    description
}

const BUILDS: [&str; 6] = ["6.1.7601", "6.3.9600", "10.0.14393", "10.0.17763", "10.0.19041", "10.0.22000"];

#[test]
fn handles_are_those_that_were_built() {
    for (seed, version) in (0..).zip(BUILDS) {
        for known in [true, false] {
            let mut description = described(seed, Architecture::X64, build(version));
            description.guid = (!known).then(|| UNKNOWN.to_owned());
            let windows = description.build().unwrap();
            let os = opened(&windows);
            for expected in &windows.truth.processes {
                let what = format!("{version}, {known}: {}", expected.pid);
                let info = os.process_details().unwrap().items;
                let Some(info) = info.into_iter().find(|process| process.info.pid == expected.pid) else {
                    panic!("{what}: not listed")
                };
                let process = os.open_process(&info.info).unwrap();
                let handles = match process.handles() {
                    Ok(handles) => handles,
                    // Of a build that nobody knows, memory may not tell all that is needed.
                    Err(error) if !known && error.to_string().contains("no known offset of ") => continue,
                    Err(error) => panic!("{what}: {error}"),
                };
                let handles = handles.into_complete().unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(handles.len(), expected.handles.len(), "{what}");
                for (found, expected) in handles.iter().zip(&expected.handles) {
                    assert_eq!(
                        (found.value, found.object.as_u64(), &*found.kind, found.access),
                        (u64::from(expected.value), expected.object, &*expected.kind, expected.access),
                        "{what}"
                    );
                    let named = windows.truth.processes.iter().find(|process| process.eprocess == expected.object);
                    let name = found.name.as_deref().unwrap_or_default();
                    match (&*expected.kind, named) {
                        ("Process", Some(named)) => assert!(name.ends_with(&format!(" ({})", named.pid)), "{name}"),
                        ("File", _) => assert!(name.starts_with(r"\Windows\"), "{name}"),
                        ("Thread", _) => {
                            let thread = info.info.pid;
                            assert!(name.starts_with("thread ") && name.ends_with(&format!(" of process {thread}")));
                        }
                        _ => assert_eq!(expected.name.as_deref(), found.name.as_deref()),
                    }
                }
            }
        }
    }
}

#[test]
fn hives_are_those_that_were_built() {
    let wide = BUILDS.map(|version| (Architecture::X64, build(version)));
    let narrow = [(Architecture::X86, windows_7_x86()), (Architecture::Pae, windows_10_18362_x86())];
    for (seed, (architecture, offsets)) in (40..).zip(wide.into_iter().chain(narrow)) {
        let windows = described(seed, architecture, offsets).build().unwrap();
        let hives = opened(&windows).hives().unwrap().into_complete().unwrap();
        let found: Vec<_> = hives
            .iter()
            .map(|hive| {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                (hive.address.as_u64(), text(&hive.root), text(&hive.file))
            })
            .collect();
        let expected: Vec<_> =
            windows.truth.hives.iter().map(|hive| (hive.address, hive.root.clone(), hive.file.clone())).collect();
        assert_eq!(found, expected, "{seed}");
    }
}

#[test]
fn hive_that_is_missing_or_damaged_is_a_problem_and_others_stay() {
    let windows = described(60, Architecture::X64, build("10.0.17763")).build().unwrap();
    let mut signatures: Vec<u64> = windows
        .pages()
        .filter(|(_, page)| page[..4] == 0xbee0_bee0_u32.to_le_bytes())
        .map(|(frame, _)| frame)
        .collect();
    signatures.sort_unstable();
    assert_eq!(signatures.len(), windows.truth.hives.len());
    for frame in signatures {
        // Its signature is gone: the list still leads to it.
        let mut damaged = windows.clone();
        damaged.write(frame * 0x1000, &[0; 4]);
        match opened(&damaged).hives() {
            Ok(hives) => assert_eq!((hives.items.len(), hives.problems.len()), (3, 1)),
            // The distance is known from the first and the last hive.
            Err(error) => assert!(error.to_string().contains("CmpHiveListHead"), "{error}"),
        }
        let hives = opened(&windows.without(frame)).hives();
        assert!(hives.is_err() || hives.is_ok_and(|hives| hives.items.len() <= 3 && !hives.problems.is_empty()));
    }
}

#[test]
fn shared_page_tells_the_system() {
    for (architecture, offsets) in [
        (Architecture::X64, build("6.1.7601")),
        (Architecture::X64Shadow, build("10.0.22000")),
        (Architecture::Pae, windows_10_18362_x86()),
    ] {
        let windows = described(70, architecture, offsets.clone()).build().unwrap();
        let (data, truth) = (opened(&windows).system_data().unwrap(), &windows.truth.shared_data);
        let version = offsets.version;
        assert_eq!((data.version.major, data.version.minor), (u32::from(version.major), u32::from(version.minor)));
        let expected = if truth.product_type == 1 { ProductType::Workstation } else { ProductType::Server };
        assert_eq!((data.product_type, &data.system_root), (Some(expected), &truth.system_root));
        assert_eq!((data.now, data.uptime), (truth.system_time, truth.tick_count * 156_250));
        assert_eq!((data.console_session, data.debugged), (Some(1), false));
        let pages: u64 = windows.truth.ram.iter().map(|run| (run.1 - run.0) / 0x1000).sum();
        assert_eq!(data.physical_pages.map(u64::from), Some(pages));
    }
}

#[test]
fn handles_without_a_table_of_builds_are_found_or_refused_by_name() {
    let mut options = Win32Options::default();
    options.offsets = OffsetSources::Derived;
    let windows = described(80, Architecture::X64, build("10.0.19041")).build().unwrap();
    let os = Win32Os::open(memory(windows.clone()), &options).unwrap();
    let list = os.process_details().unwrap();
    let explorer = list.items.iter().find(|process| process.info.name == "explorer.exe").unwrap();
    match os.open_process(&explorer.info).unwrap().handles() {
        Ok(handles) => {
            let expected = windows.truth.processes.iter().find(|process| process.pid == explorer.info.pid).unwrap();
            assert_eq!(handles.into_complete().unwrap().len(), expected.handles.len());
        }
        Err(error) => assert!(error.to_string().contains("no known offset of "), "{error}"),
    }
}
