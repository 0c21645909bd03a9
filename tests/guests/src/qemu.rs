//! The machine QEMU plays for a guest, as its command line.
//!
//! Owns: devices, memory backend, sockets' names.
//! Must not know: how the process is kept or spoken to.
//! Keeps: no device beyond what a capture needs, so dumps hold RAM and little else.
//! Source: qemu-system-x86_64(1).

use std::process::Command;

use crate::program::Boot;
use crate::spec::{DEMO, Machine, NESTED, Spec};

/// The command that starts a guest in the folder it is run in.
pub(crate) fn command_line(spec: &Spec, boot: &Boot) -> Command {
    let memory = spec.memory_mib;
    // Emulation gives the same machine everywhere; a host with a working /dev/kvm may ask for it.
    let accel = match std::env::var("MEMFLOW_GUESTS_ACCEL") {
        // The emulated CPU can run an inner machine (AMD's SVM); the host's own may not hand that on.
        Ok(accel) if *spec != NESTED => accel,
        _ => "tcg".into(),
    };
    // The shell holds our end of a pipe: QEMU is killed when this process ends, however it ends.
    let mut qemu = Command::new("sh");
    qemu.args([
        "-c",
        "exec 3<&0; \"$@\" </dev/null 3<&- & read -r _ <&3; kill -9 $!; wait",
        "sh",
        "qemu-system-x86_64",
    ]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", &accel]);
    qemu.args(["-cpu", spec.cpu(), "-smp", &spec.cpus.to_string(), "-m", &format!("{memory}M")]);
    qemu.args(["-object", &format!("memory-backend-file,id=ram,size={memory}M,mem-path=live.img,share=on")]);
    qemu.args(["-machine", &format!("{},memory-backend=ram", spec.machine.qemu())]);
    if spec.machine == Machine::Q35 {
        // A display's memory: a second hole below 1 MiB, and RAM in the dump that is not in the RAM file.
        qemu.args(["-device", "VGA"]);
    }
    if *spec == DEMO {
        // The smaller firmware; the dump holds it.
        qemu.args(["-bios", "bios.bin"]);
    } else {
        qemu.args(["-device", "virtio-rng-pci"]);
    }
    qemu.args(["-device", "vmcoreinfo"]);
    qemu.args(["-qmp", "unix:qmp.sock,server=on,wait=off", "-serial", "file:console.log"]);
    qemu.args(["-device", "virtio-serial-pci"]);
    qemu.args(["-chardev", "socket,id=agent,path=agent.sock,server=on,wait=off"]);
    qemu.args(["-device", "virtserialport,chardev=agent,name=agent"]);
    qemu.arg("-kernel").arg(&boot.kernel).arg("-initrd").arg(&boot.initrd);
    qemu.args(["-append", &spec.kernel_command_line()]);
    qemu
}
