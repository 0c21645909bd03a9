//! A guest that stays alive: it obeys, it can be paused, and its RAM file changes under the reader.

use memflow_guests::Guests;
use serde_json::json;

#[test]
fn a_live_guest_obeys_and_its_memory_is_live() {
    let guests = Guests::locate().unwrap();
    let spec = Guests::spec("amd64-6.1-4level-pti").unwrap();
    let mut guest = guests.boot(spec).unwrap();
    let folder = guest.folder().to_owned();

    let truth = guest.truth().unwrap();
    assert!(truth.process_named("newcomer").is_err());
    let pid = guest.spawn("newcomer").unwrap();
    let after = guest.truth().unwrap();
    let newcomer = after.process_named("newcomer").unwrap();
    assert_eq!((newcomer.pid, newcomer.ppid), (pid, after.agent_pid().unwrap()));

    guest.pause().unwrap();
    let status = guest.qmp(&json!({ "execute": "query-status" })).unwrap();
    assert_eq!(status.get("status").unwrap(), "paused");
    assert!(guest.hmp("info registers").unwrap().contains("CR3="));
    let ram = std::fs::read(guest.ram_path()).unwrap();
    assert_eq!(ram.len() as u64, spec.memory_mib << 20);
    let name = b"newcomer\0";
    assert!(ram.windows(name.len()).any(|bytes| bytes == name));
    guest.resume().unwrap();

    guest.command(&format!("kill {pid}")).unwrap();
    assert!(guest.truth().unwrap().process_named("newcomer").is_err());
    let refused = guest.command("dance").unwrap_err().to_string();
    assert!(refused.contains("known: procs, truth, spawn NAME"), "{refused}");
    drop(guest);
    assert!(!folder.exists());
}
