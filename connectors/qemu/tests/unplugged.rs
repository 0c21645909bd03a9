//! Memory that goes away while it is open, as that of a DIMM that is unplugged. Alone in its program: nothing else may be mapped there.

#![cfg(target_os = "linux")]

use memflow_core::{
    PhysAddr, PhysicalMemory,
    memory::{PhysRead, PhysWrite},
};
use memflow_qemu::{AccessKind, Options, Target, open};

const LEN: usize = 16 << 20;

#[test]
fn memory_that_was_unplugged_fails_what_touches_it_and_nothing_else() {
    for access in [AccessKind::ProcessVm, AccessKind::Mem] {
        let (mut stays, mut goes) =
            (memmap2::MmapMut::map_anon(LEN).unwrap(), memmap2::MmapMut::map_anon(LEN).unwrap());
        stays.fill(1);
        goes.fill(2);
        let (first, second) = (stays.as_ptr().addr(), goes.as_ptr().addr());
        let map = format!("0x0-{:#x}@{first:#x},{LEN:#x}-{:#x}@{second:#x}", LEN - 1, 2 * LEN - 1);
        let mut options = Options::default();
        options.map = Some(map.parse().unwrap());
        (options.access, options.writable) = (access, true);
        let memory = open(&Target::Pid(std::process::id()), &options).unwrap().memory;
        let (mut one, mut across, mut two) = ([0; 4096], [0; 4096], [0; 3 * 4096]);
        let mut read = |gone: bool| {
            let mut ops = [
                PhysRead::new(PhysAddr::new(0x1000), &mut one),
                PhysRead::new(PhysAddr::new(LEN as u64 - 2048), &mut across),
                PhysRead::new(PhysAddr::new(LEN as u64 + 100), &mut two),
                PhysRead::new(PhysAddr::new(0), &mut []),
            ];
            let result = memory.read_batch(&mut ops);
            let done = ops.each_ref().map(|op| op.outcome.is_done());
            assert_eq!(done, [true, !gone, !gone, true], "{access}");
            result
        };
        read(false).unwrap();
        assert_eq!((one[0], across[2047], across[2048], two[0]), (1, 1, 2, 2));
        drop(goes);
        let error = {
            let mut ops =
                [PhysRead::new(PhysAddr::new(0x1000), &mut one), PhysRead::new(PhysAddr::new(LEN as u64), &mut two)];
            let error = memory.read_batch(&mut ops).unwrap_err();
            assert!(ops[0].outcome.is_done() && !ops[1].outcome.is_done(), "{access}");
            error
        };
        assert!(error.is_not_in_image(), "{error}");
        across.fill(9);
        let mut ops = [PhysRead::new(PhysAddr::new(LEN as u64 - 2048), &mut across)];
        assert!(memory.read_batch(&mut ops).is_err());
        assert_eq!((across[2047], across[2048]), (1, 9), "what is there is read, the rest is left alone");
        let mut writes = [PhysWrite::new(PhysAddr::new(8), b"x"), PhysWrite::new(PhysAddr::new(LEN as u64), b"x")];
        assert!(memory.write_batch(&mut writes).is_err());
        assert!(writes[0].outcome.is_done() && !writes[1].outcome.is_done());
        assert_eq!(stays[8], b'x');
    }
}
