//! Offsets of 32-bit kernels.
//!
//! Owns: three tables. Must not know: what they are used for.
//! Source: 7601 and 18362: layouts as public symbols of these builds are known to give them, written down without the symbol files at hand.
//! 19041: fields that are facts of that build, and between them the distances of 18362; its threads are those of 18362. So an image shows that
//! a reader follows the layout it is told, not that a build has this layout. Addresses of variables are made up, as are the GUIDs: no such
//! builds exist.

use crate::offsets::{Offsets, Version};

/// Fields that all three share.
const COMMON: &[(&str, u64)] = &[
    ("_KPROCESS.DirectoryTableBase", 0x18),
    ("_KPROCESS.ThreadListHead", 0x2c),
    ("_KTHREAD.Process", 0x150),
    ("_KPCR.Self", 0x1c),
    ("_KPCR.CurrentPrcb", 0x20),
    ("_KPCR.Prcb", 0x120),
    ("_KPRCB.CurrentThread", 0x4),
    ("_KPRCB.ProcessorState", 0x18),
    ("_MMVAD_SHORT.StartingVpn", 0xc),
    ("_MMVAD_SHORT.EndingVpn", 0x10),
    ("_SUBSECTION.ControlArea", 0x0),
    ("_CONTROL_AREA.FilePointer", 0x24),
    ("_FILE_OBJECT.FileName", 0x30),
    ("_OBJECT_HEADER.TypeIndex", 0xc),
    ("_OBJECT_HEADER.InfoMask", 0xe),
    ("_OBJECT_HEADER.Body", 0x18),
    ("_KLDR_DATA_TABLE_ENTRY.DllBase", 0x18),
    ("_KLDR_DATA_TABLE_ENTRY.EntryPoint", 0x1c),
    ("_KLDR_DATA_TABLE_ENTRY.SizeOfImage", 0x20),
    ("_KLDR_DATA_TABLE_ENTRY.FullDllName", 0x24),
    ("_KLDR_DATA_TABLE_ENTRY.BaseDllName", 0x2c),
    ("_MMVAD_FLAGS.VadType@bits", 3),
    ("_MMVAD_FLAGS.Protection@bits", 5),
    ("_MMVAD_FLAGS.PrivateMemory@bits", 1),
    ("rva:KiFastCallEntry", 0x3e4c0),
    ("rva:NtBuildNumber", 0x129c60),
    ("rva:KdDebuggerDataBlock", 0x128be8),
    ("rva:PsLoadedModuleList", 0x149850),
    ("rva:PsActiveProcessHead", 0x141f18),
    ("rva:PsInitialSystemProcess", 0x168b8c),
    ("rva:PspCidTable", 0x168bc4),
    ("rva:MmPhysicalMemoryBlock", 0x168b94),
    ("rva:MmPfnDatabase", 0x168d58),
    ("rva:ObTypeIndexTable", 0x148760),
];

const SEVEN: &[(&str, u64)] = &[
    ("_EPROCESS.UniqueProcessId", 0xb4),
    ("_EPROCESS.ActiveProcessLinks", 0xb8),
    ("_EPROCESS.CreateTime", 0xa0),
    ("_EPROCESS.ExitTime", 0xa8),
    ("_EPROCESS.ObjectTable", 0xf4),
    ("_EPROCESS.Token", 0xf8),
    ("_EPROCESS.SectionBaseAddress", 0x12c),
    ("_EPROCESS.InheritedFromUniqueProcessId", 0x140),
    ("_EPROCESS.Session", 0x168),
    ("_EPROCESS.ImageFileName", 0x16c),
    ("_EPROCESS.ThreadListHead", 0x188),
    ("_EPROCESS.ActiveThreads", 0x198),
    ("_EPROCESS.Peb", 0x1a8),
    ("_EPROCESS.SeAuditProcessCreationInfo", 0x1ec),
    ("_EPROCESS.Flags2", 0x26c),
    ("_EPROCESS.Flags", 0x270),
    ("_EPROCESS.ExitStatus", 0x274),
    ("_EPROCESS.VadRoot", 0x278),
    ("sizeof(_EPROCESS)", 0x2c0),
    ("_KTHREAD.InitialStack", 0x28),
    ("_KTHREAD.StackLimit", 0x2c),
    ("_KTHREAD.KernelStack", 0x30),
    ("_KTHREAD.ApcState", 0x40),
    ("_KTHREAD.State", 0x68),
    ("_KTHREAD.Teb", 0x88),
    ("_KTHREAD.TrapFrame", 0x128),
    ("_KTHREAD.StackBase", 0x190),
    ("_KTHREAD.ThreadListEntry", 0x1e0),
    ("_ETHREAD.CreateTime", 0x200),
    ("_ETHREAD.StartAddress", 0x218),
    ("_ETHREAD.Cid", 0x22c),
    ("_ETHREAD.Win32StartAddress", 0x260),
    ("_ETHREAD.ThreadListEntry", 0x268),
    ("sizeof(_ETHREAD)", 0x2b8),
    ("_MMVAD_SHORT.u", 0x14),
    ("_MMVAD.Subsection", 0x24),
    ("_MMVAD.FirstPrototypePte", 0x28),
    ("_MMVAD.LastContiguousPte", 0x2c),
    ("_MMVAD_FLAGS.VadType@bit", 20),
    ("_MMVAD_FLAGS.Protection@bit", 24),
    ("_MMVAD_FLAGS.PrivateMemory@bit", 31),
    ("sizeof(_MMVAD)", 0x3c),
    ("_HANDLE_TABLE.TableCode", 0x0),
    ("_HANDLE_TABLE.NextHandleNeedingPool", 0x38),
];

/// Fields of Windows 10 that 18362 and 19041 share, as far as is known.
const TEN: &[(&str, u64)] = &[
    ("_KTHREAD.InitialStack", 0x20),
    ("_KTHREAD.StackLimit", 0x24),
    ("_KTHREAD.StackBase", 0x28),
    ("_KTHREAD.KernelStack", 0x48),
    ("_KTHREAD.TrapFrame", 0x6c),
    ("_KTHREAD.ApcState", 0x70),
    ("_KTHREAD.State", 0x90),
    ("_KTHREAD.Teb", 0xa8),
    ("_KTHREAD.ThreadListEntry", 0x1d4),
    ("_ETHREAD.CreateTime", 0x350),
    ("_ETHREAD.StartAddress", 0x368),
    ("_ETHREAD.Cid", 0x37c),
    ("_ETHREAD.Win32StartAddress", 0x3ac),
    ("_ETHREAD.ThreadListEntry", 0x3b4),
    ("sizeof(_ETHREAD)", 0x4a8),
    ("_MMVAD_SHORT.VadNode", 0x0),
    ("_MMVAD_SHORT.u", 0x1c),
    ("_MMVAD.Subsection", 0x2c),
    ("_MMVAD.FirstPrototypePte", 0x30),
    ("_MMVAD.LastContiguousPte", 0x34),
    ("_MMVAD_FLAGS.VadType@bit", 4),
    ("_MMVAD_FLAGS.Protection@bit", 7),
    ("_MMVAD_FLAGS.PrivateMemory@bit", 20),
    ("sizeof(_MMVAD)", 0x48),
    ("_HANDLE_TABLE.NextHandleNeedingPool", 0x0),
    ("_HANDLE_TABLE.TableCode", 0x8),
    ("rva:ObHeaderCookie", 0x168c9c),
];

/// The process of 18362, up to its list of threads.
const PROCESS_18362: &[(&str, u64)] = &[
    ("_EPROCESS.UniqueProcessId", 0xb4),
    ("_EPROCESS.ActiveProcessLinks", 0xb8),
    ("_EPROCESS.Flags2", 0xc8),
    ("_EPROCESS.Flags", 0xcc),
    ("_EPROCESS.CreateTime", 0xd0),
    ("_EPROCESS.Token", 0xfc),
    ("_EPROCESS.SectionBaseAddress", 0x130),
    ("_EPROCESS.InheritedFromUniqueProcessId", 0x140),
    ("_EPROCESS.Peb", 0x14c),
    ("_EPROCESS.Session", 0x150),
    ("_EPROCESS.ObjectTable", 0x15c),
    ("_EPROCESS.ImageFileName", 0x17c),
    ("_EPROCESS.SeAuditProcessCreationInfo", 0x190),
    ("_EPROCESS.ThreadListHead", 0x1a0),
    ("_EPROCESS.ActiveThreads", 0x1a8),
];

/// And behind it.
const REST_18362: &[(&str, u64)] = &[
    ("_EPROCESS.ExitStatus", 0x30c),
    ("_EPROCESS.VadRoot", 0x310),
    ("_EPROCESS.ExitTime", 0x348),
    ("sizeof(_EPROCESS)", 0x480),
];

/// Windows 7 SP1, with or without PAE.
pub fn windows_7_x86() -> Offsets {
    let version = Version { major: 6, minor: 1, build: 7601, revision: 24540 };
    Offsets::narrow(version, "5A8F6D1B2C3E4F50A1B2C3D4E5F60718", &[COMMON, SEVEN].concat())
}

/// Windows 10 1903, PAE.
pub fn windows_10_18362_x86() -> Offsets {
    let version = Version { major: 10, minor: 0, build: 18362, revision: 30 };
    Offsets::narrow(version, "6B906E2C3D4F5061B2C3D4E5F6071829", &[COMMON, TEN, PROCESS_18362, REST_18362].concat())
}

/// Windows 10 2004, PAE; its threads are those of 18362.
pub fn windows_10_19041_x86() -> Offsets {
    let version = Version { major: 10, minor: 0, build: 19041, revision: 1 };
    let further = |fields: &[(&'static str, u64)], by: u64| -> Vec<(&'static str, u64)> {
        fields.iter().map(|(name, offset)| (*name, offset + by)).collect()
    };
    let process = further(PROCESS_18362, 0x30);
    let rest = further(REST_18362, 0x40);
    let fields: &[&[(&str, u64)]] = &[COMMON, TEN, &process, &rest];
    Offsets::narrow(version, "7CA17F3D4E506172C3D4E5F60718293A", &fields.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_19041_that_are_known_are_where_they_are_known_to_be() {
        let offsets = windows_10_19041_x86();
        let known = [
            ("_EPROCESS.UniqueProcessId", 0xe4),
            ("_EPROCESS.ActiveProcessLinks", 0xe8),
            ("_EPROCESS.ImageFileName", 0x1ac),
            ("_EPROCESS.Peb", 0x17c),
            ("_EPROCESS.VadRoot", 0x350),
        ];
        for (name, offset) in known {
            assert_eq!(offsets.get(name), Some(offset), "{name}");
        }
    }
}
