//! What belongs to sessions and to the whole system: keyboards, events, hives, and machines that share memory.
//!
//! Owns: the look at each. Must not know: how images are built.

#[allow(dead_code, reason = "the other test program looks at more")]
mod reader;

use memflow_windows_images::{
    Architecture, Description, Error, HiveDescription, KeyboardForm, OffsetTable, Offsets, windows_10_18362_x86,
};
use reader::Reader;

fn build(version: &str) -> Offsets {
    OffsetTable::embedded().unwrap().build(version).unwrap().clone()
}

const FORMS: [KeyboardForm; 4] =
    [KeyboardForm::Exported, KeyboardForm::Used, KeyboardForm::SessionDriver, KeyboardForm::SessionSlots];

#[test]
fn keyboards_are_those_of_their_session_alone() {
    for (seed, form) in (0..).zip(FORMS) {
        let offsets = build("10.0.19041");
        let mut description = Description::new(seed, Architecture::X64Shadow, offsets.clone());
        description.keyboard = Some(form);
        let windows = description.build().unwrap();
        let truth = &windows.truth;
        assert!(!truth.keyboards.is_empty());
        for keyboard in &truth.keyboards {
            let mut expected = [0_u8; 64];
            for (keys, bits) in [(&keyboard.down, 1), (&keyboard.toggled, 2)] {
                keys.iter().for_each(|key| expected[usize::from(*key) / 4] |= bits << (key % 4 * 2));
            }
            for process in &truth.processes {
                let found = Reader::new(&windows, &offsets, process.dtb).bytes(keyboard.address, 64);
                if process.session == Some(keyboard.session) {
                    assert_eq!(found.as_deref(), Some(&expected[..]), "{form:?}: {}", process.pid);
                } else if matches!(form, KeyboardForm::Exported | KeyboardForm::Used) {
                    assert_ne!(found.as_deref(), Some(&expected[..]), "{form:?}: {}", process.pid);
                }
            }
        }
        // Drivers of the window system are in the list, and in the space of sessions only.
        let driver = truth.drivers.iter().find(|driver| driver.name == "win32kbase.sys").unwrap();
        assert_eq!(Reader::system(&windows, &offsets).bytes(driver.base, 2), None);
        let winlogon = truth.processes.iter().find(|process| process.short_name == "winlogon.exe").unwrap();
        let space = Reader::new(&windows, &offsets, winlogon.dtb);
        assert_eq!(space.bytes(driver.base, 2).unwrap(), b"MZ");
    }
}

#[test]
fn hives_are_in_their_list_and_events_have_names() {
    for (architecture, offsets) in [(Architecture::X64, build("6.1.7601")), (Architecture::Pae, windows_10_18362_x86())]
    {
        let mut description = Description::new(5, architecture, offsets.clone());
        let hive = |root: &str, file: &str| HiveDescription { root: root.to_owned(), file: file.to_owned() };
        description.hives = vec![hive(r"\REGISTRY\MACHINE\HARDWARE", ""), hive(r"\REGISTRY\USER\X", r"\??\C:\x.dat")];
        description.events = vec!["Ready".to_owned()];
        let windows = description.build().unwrap();
        let system = Reader::system(&windows, &offsets);
        let width = system.width();
        let links = system.list(windows.truth.kernel.symbols["CmpHiveListHead"], width);
        let distance = links[0] - windows.truth.hives[0].address;
        for (link, hive) in links.iter().zip(&windows.truth.hives) {
            assert_eq!(link - distance, hive.address);
            assert_eq!(system.number(hive.address, 4), Some(0xbee0_bee0));
        }
        assert_eq!(links.len(), 2);
        let explorer = windows.truth.processes.iter().find(|process| process.short_name == "explorer.exe").unwrap();
        let handle = explorer.handles.iter().find(|handle| handle.kind == "Event").unwrap();
        let header = handle.object - system.offset("_OBJECT_HEADER.Body");
        assert_eq!(system.number(header + system.offset("_OBJECT_HEADER.InfoMask"), 1), Some(2));
        assert_eq!(system.string(header - 3 * width, width), "Ready");
    }
}

#[test]
fn machine_keeps_to_its_frames() {
    let mut description = Description::new(9, Architecture::X64, build("10.0.17763"));
    let frames = 0x2000..0x8000;
    description.frames = Some(frames.clone());
    assert!(matches!(description.build(), Err(Error::Description { .. })));
    (description.low_stub, description.low_table) = (false, false);
    let windows = description.build().unwrap();
    assert!(windows.pages().all(|(frame, _)| frames.contains(&frame)));
    description.keyboard = Some(KeyboardForm::Exported);
    description.offsets = build("6.1.7601");
    assert!(matches!(description.build(), Err(Error::Description { .. })));
}
