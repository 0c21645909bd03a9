//! A Windows made by hand, for each paging mode: also five levels, which the machines of the generator do not have.

mod world;

use memflow_core::{os::Os, testkit::PagingMode};
use memflow_win32::{Win32Options, Win32Os};

use crate::world::World;

const WIDE_BASE: u64 = 0xffff_f803_1234_0000;
const SHARED: u64 = 0xffff_f780_0000_0000;
const POOL: u64 = 0xffff_e000_0000_0000;

fn shared_page(world: &mut World, at: u64) {
    world.put(at, &[0; 0x1000]).u32(at + 0x260, 17763).u32(at + 0x26c, 10).u32(at + 0x270, 0);
    world.u64(at + 0x8, 100_000_000).u64(at + 0x14, 132_639_181_000_000_000);
}

#[test]
fn kernels_of_every_paging_mode_are_found_by_their_tables() {
    for (mode, base, shared, pool) in [
        (PagingMode::X64, WIDE_BASE, SHARED, POOL),
        (PagingMode::La57, WIDE_BASE, SHARED, POOL),
        (PagingMode::Pae, 0x8280_0000, 0xffdf_0000, 0x8c00_0000),
        (PagingMode::X86, 0x8280_0000, 0xffdf_0000, 0x8c00_0000),
    ] {
        let mut world = World::new(mode, base);
        shared_page(&mut world, shared);
        world.modules(pool, &[("ntoskrnl.exe", base), ("hal.dll", base + 0x10_0000)]);
        // Something in each quarter.
        world.put(0x1_0000, b"user").put(0x4001_0000, b"user");
        if mode == PagingMode::Pae {
            world.put(0xc800_0000, b"kernel");
        }
        world.map_tables();
        let os =
            Win32Os::open(world.memory(), &Win32Options::default()).unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        assert_eq!((os.kernel().base.as_u64(), &*os.kernel().release), (base, "10.0.17763"), "{mode:?}");
        let modules = os.modules().unwrap().into_complete().unwrap();
        assert_eq!(modules.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["ntoskrnl.exe", "hal.dll"], "{mode:?}");
    }
}
