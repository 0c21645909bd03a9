//! Memory that is plugged into a running guest, and unplugged by it while it is open.

use std::time::{Duration, Instant};

use memflow_core::{
    PhysAddr, PhysicalMemory,
    memory::{PhysWrite, PhysicalMemoryExt},
};
use memflow_guests::{Addition, Guests, Live, MATRIX};
use memflow_qemu::{AccessKind, Options, Target, open};
use serde_json::json;

const MIB: u64 = 1 << 20;
const DIMM: u64 = 128 * MIB;

#[test]
fn unplugged_memory_is_an_error_soon_and_the_rest_goes_on() {
    let spec = MATRIX.iter().find(|spec| spec.name == "amd64-6.12-4level-pti").unwrap();
    let name = format!("plugged-{}", std::process::id());
    let arguments = "-machine q35,memory-backend=ram -m 512M,slots=2,maxmem=1G \
                     -object memory-backend-memfd,id=ram,size=512M,share=on -qmp unix:spare.sock,server=on,wait=off";
    // The guest takes what is plugged into use, in a way that lets it give it back.
    let script = "echo online_movable >/sys/devices/system/memory/auto_online_blocks && echo armed";
    let guests = Guests::locate().unwrap();
    let mut guest = guests.boot_live_with(spec, &Live::new(&name, arguments), Addition::script(script)).unwrap();
    assert!(guest.script_output().unwrap().contains("armed"));
    for (command, arguments) in [
        ("object-add", json!({ "qom-type": "memory-backend-memfd", "id": "more", "size": DIMM, "share": true })),
        ("device_add", json!({ "driver": "pc-dimm", "id": "dimm", "memdev": "more" })),
    ] {
        guest.qmp(&json!({ "execute": command, "arguments": arguments })).unwrap();
    }
    // The guest's kernel has it in use.
    std::thread::sleep(Duration::from_secs(5));
    let opened = [AccessKind::Map, AccessKind::ProcessVm, AccessKind::Mem].map(|access| {
        let mut options = Options::default();
        (options.timeout, options.access, options.writable) = (Duration::from_secs(20), access, true);
        open(&Target::Name(name.clone()), &options).unwrap()
    });
    let dimm = opened[0].layout.runs.iter().find(|run| run.region == "more").expect("the device's memory").range;
    assert_eq!(dimm.len(), DIMM);
    guest.pause().unwrap();
    // It is free there: the guest sees nothing of what is written.
    for (index, one) in opened.iter().enumerate() {
        let place = dimm.start().checked_add(64 * MIB + 4096 * index as u64).unwrap();
        one.memory.write_batch(&mut [PhysWrite::new(place, b"plugged")]).unwrap();
    }
    let saved = guest.save(dimm.start().as_u64(), DIMM).unwrap();
    assert_eq!(saved.windows(7).filter(|bytes| bytes == b"plugged").count(), opened.len());
    for one in &opened {
        assert!(one.memory.direct_map().is_none(), "what goes away is not read in place");
        let mut bytes = vec![0; DIMM as usize];
        one.memory.read_into(dimm.start(), &mut bytes).unwrap();
        assert!(bytes == saved, "access {}", one.memory.access());
    }
    guest.resume().unwrap();

    guest.qmp(&json!({ "execute": "device_del", "arguments": { "id": "dimm" } })).unwrap();
    let started = Instant::now();
    while guest.hmp("info memory-devices").unwrap().contains("dimm") {
        assert!(started.elapsed() < Duration::from_secs(120), "the guest does not let go of it");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The backend is still there, so the bytes could be read: they are no memory of the guest's any more.
    std::thread::sleep(Duration::from_secs(1));
    let mut buffer = [0; 4096];
    for one in &opened {
        for at in [dimm.start().as_u64(), dimm.start().as_u64() + DIMM / 2] {
            let error = one.memory.read_into(PhysAddr::new(at), &mut buffer).unwrap_err();
            assert!(error.is_not_in_image(), "access {}: {error}", one.memory.access());
        }
        one.memory.read_into(PhysAddr::new(16 * MIB), &mut buffer).unwrap();
        assert!(one.memory.metadata().runs.find(dimm.start()).is_none());
    }
    guest.qmp(&json!({ "execute": "object-del", "arguments": { "id": "more" } })).unwrap();
    for one in &opened {
        assert!(one.memory.read_into(dimm.start(), &mut buffer).unwrap_err().is_not_in_image());
        one.memory.read_into(PhysAddr::new(16 * MIB), &mut buffer).unwrap();
    }
}
