//! Two Windows in one memory: what a boot left behind, and the system that runs.
//!
//! Owns: machines that share memory. Must not know: how a kernel is found.

use memflow_core::os::Os;
use memflow_win32::{Win32Options, Win32Os};
use memflow_windows_images::{Architecture, Description, Windows};

use crate::{build, machine::memory};

const RAM: u64 = 256 << 20;

/// A machine in one half of the memory.
fn half(seed: u64, version: &str, upper: bool) -> Windows {
    let mut description = Description::new(seed, Architecture::X64, build(version));
    description.ram = RAM;
    (description.low_stub, description.low_table) = (false, false);
    let middle = RAM / 0x1000 / 2;
    // Above the memory that is searched first.
    description.frames = Some(if upper { middle..RAM / 0x1000 } else { 0x1000..middle });
    description.build().unwrap()
}

/// Both machines in the memory of one.
fn together(one: &Windows, other: &Windows) -> Windows {
    let mut both = one.clone();
    for (frame, page) in other.pages() {
        assert!(one.pages().all(|(taken, _)| taken != frame));
        both.write(frame * 0x1000, &page[..]);
    }
    both
}

fn pids(os: &Win32Os) -> Vec<u32> {
    os.processes().unwrap().items.iter().map(|process| process.pid).collect()
}

fn built(windows: &Windows) -> Vec<u32> {
    windows.truth.processes.iter().map(|process| process.pid).collect()
}

#[test]
fn both_kernels_are_told_and_each_can_be_had() {
    for (seed, versions) in
        [(1, ["10.0.17763", "10.0.19041"]), (2, ["10.0.19041", "10.0.19041"]), (3, ["6.1.7601", "10.0.22000"])]
    {
        let (one, other) = (half(seed, versions[0], false), half(seed + 100, versions[1], true));
        let both = memory(together(&one, &other));
        let os = Win32Os::open(both.clone(), &Win32Options::default()).unwrap();
        let evidence = &os.kernel().evidence;
        let bases = [&one, &other].map(|windows| windows.truth.kernel.base);
        for windows in [&one, &other] {
            let base = format!("{:#x}", windows.truth.kernel.base);
            assert!(evidence.iter().any(|line| line.contains(&base)), "{base}: {evidence:#?}");
        }
        assert!(bases.contains(&os.kernel().base.as_u64()));
        assert!(evidence.iter().any(|line| line.contains("kernel=") && line.contains("dtb=")), "{evidence:#?}");

        for windows in [&one, &other] {
            let truth = &windows.truth;
            for change in [
                |options: &mut Win32Options<'_>, dtb, _| options.root = Some(dtb),
                |options: &mut Win32Options<'_>, _, base| options.kernel = Some(base),
                |options: &mut Win32Options<'_>, _, base| options.kernel = Some(base + 0x12345),
            ] {
                let mut options = Win32Options::default();
                change(&mut options, truth.dtb, truth.kernel.base);
                let os = Win32Os::open(both.clone(), &options).unwrap();
                assert_eq!(os.kernel().base.as_u64(), truth.kernel.base, "{options:?}");
                assert_eq!(pids(&os), built(windows), "{options:?}");
            }
        }
        let mut nowhere = Win32Options::default();
        nowhere.kernel = Some(0xffff_f8a0_1234_5000);
        let error = Win32Os::open(both, &nowhere).unwrap_err().to_string();
        assert!(error.contains("0xfffff8a012345000"), "{error}");
    }
}

#[test]
fn system_whose_clock_is_ahead_is_taken() {
    for seed in 10..14 {
        let (mut one, mut other) = (half(seed, "10.0.17763", false), half(seed + 100, "10.0.17763", true));
        let ahead = seed % 2 == 0;
        let later = if ahead { &mut one } else { &mut other };
        set_clock(later, later.truth.shared_data.system_time + 36_000_000_000);
        let expected = later.truth.kernel.base;
        let os = Win32Os::open(memory(together(&one, &other)), &Win32Options::default()).unwrap();
        assert_eq!(os.kernel().base.as_u64(), expected, "{:#?}", os.kernel().evidence);
    }
}

/// Changes the time in the page that the kernel shares with processes.
fn set_clock(windows: &mut Windows, time: u64) {
    let before = windows.truth.shared_data.system_time.to_le_bytes();
    let frame =
        windows.pages().find(|(_, page)| page[0x14..0x1c] == before && page[0x30..0x34] == *b"C\0:\0").unwrap().0;
    let high = (time >> 32) as u32;
    windows.write(frame * 0x1000 + 0x14, &time.to_le_bytes());
    windows.write(frame * 0x1000 + 0x1c, &high.to_le_bytes());
}
