//! What a guest's command line says about it.
//!
//! Owns: name, uuid, machine, memory and its backends, monitors. Must not know: processes, files, how memory is laid out.
//! Keeps: foreign text; an option that is unknown or malformed is skipped, as only QEMU can judge it.
//! Source: qemu(1).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    monitor::{MonitorAddress, MonitorConfig, Protocol},
    option::{QemuOption, size},
};

const MIB: u64 = 1 << 20;
/// NUMA nodes, backends or monitors beyond so many are not looked at; QEMU itself takes 128 nodes.
const MAX_ITEMS: usize = 256;
/// What libvirt calls the monitor that it is connected to, in all its releases.
const LIBVIRT_MONITOR: &str = "charmonitor";
/// Where the libvirt of the system keeps its files of a guest; one of a user keeps them in the user's folder.
const LIBVIRT_SYSTEM: &str = "/var/lib/libvirt/";

/// How the host holds a part of the guest's memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackendKind {
    /// Anonymous memory of the process.
    Anonymous,
    /// A file, or one in this folder (of huge pages).
    File {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A memfd.
    Memfd,
}

/// A memory backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Its id.
    pub id: String,
    /// How the host holds it.
    pub kind: BackendKind,
    /// Bytes.
    pub size: u64,
}

/// What a command line says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommandLine {
    /// Name of the guest.
    pub name: Option<String>,
    /// Its uuid, from `-uuid` or the SMBIOS system table.
    pub uuid: Option<String>,
    /// The machine type as it was given (`q35`, `pc-i440fx-8.1`, `virt-6.2`).
    pub machine: Option<String>,
    /// The first accelerator that was asked for.
    pub accelerator: Option<String>,
    /// RAM at start, in bytes.
    pub memory: Option<u64>,
    /// Most RAM below 4 GiB, in bytes, if it was limited.
    pub max_ram_below_4g: Option<u64>,
    /// The machine's only backend, if it was named.
    pub memory_backend: Option<String>,
    /// File or folder for RAM without a backend.
    pub mem_path: Option<PathBuf>,
    /// Memory backends.
    pub backends: Vec<Backend>,
    /// Backends of the NUMA nodes, by number of the node.
    pub nodes: Vec<String>,
    /// Memory devices that are there from the start.
    pub memory_devices: usize,
    /// Monitors that can be connected to.
    pub monitors: Vec<MonitorConfig>,
}

/// What cannot be told before all options were seen.
#[derive(Default)]
struct Open {
    characters: BTreeMap<String, MonitorAddress>,
    monitors: Vec<(String, Protocol)>,
    nodes: BTreeMap<u64, String>,
    /// A file that libvirt made for the guest.
    libvirt_file: Option<String>,
}

impl CommandLine {
    /// Reads the arguments of a process, without the program's name.
    pub fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut this, mut open) = (Self::default(), Open::default());
        let mut arguments = arguments.into_iter().peekable();
        while let Some(argument) = arguments.next() {
            let Some(option) = argument.strip_prefix('-') else { continue };
            let option = option.strip_prefix('-').unwrap_or(option);
            if option == "enable-kvm" {
                this.accelerator = Some("kvm".to_owned());
                continue;
            }
            // What follows is the value, unless the option has none.
            if let Some(value) = arguments.next_if(|next| !next.starts_with('-') || next.len() == 1) {
                this.take(option, value, &mut open);
            }
        }
        // libvirt's own monitor comes last: it is in use as long as libvirt runs.
        open.monitors.sort_by_key(|(id, _)| id == LIBVIRT_MONITOR);
        for (id, protocol) in open.monitors {
            if let Some(address) = open.characters.get(&id) {
                if id == LIBVIRT_MONITOR {
                    this.add_libvirt(open.libvirt_file.as_deref());
                }
                this.add_monitor(MonitorConfig { protocol, address: address.clone() });
            }
        }
        this.nodes = open.nodes.into_values().collect();
        this
    }

    fn take(&mut self, option: &str, value: &str, open: &mut Open) {
        match option {
            "name" => self.name = text(QemuOption::parse(value, "guest").get("guest")),
            "uuid" => self.uuid = Some(value.to_ascii_lowercase()),
            "smbios" if self.uuid.is_none() => {
                self.uuid = QemuOption::parse(value, "file").get("uuid").map(str::to_ascii_lowercase);
            }
            "machine" | "M" => self.machine(&QemuOption::parse(value, "type")),
            "accel" if self.accelerator.is_none() => {
                self.accelerator = text(QemuOption::parse(value, "accel").get("accel"));
            }
            "m" => self.memory = QemuOption::parse(value, "size").get("size").and_then(|text| size(text, MIB)),
            "mem-path" => self.mem_path = Some(PathBuf::from(value)),
            "object" => {
                let object = QemuOption::parse(value, "qom-type");
                if object.get("qom-type") == Some("secret") && object.get("id") == Some("masterKey0") {
                    open.libvirt_file = object.get("file").map(str::to_owned);
                }
                self.object(&object);
            }
            "numa" => node(&QemuOption::parse(value, "type"), open),
            "device" => {
                let driver = QemuOption::parse(value, "driver");
                let memory = ["pc-dimm", "nvdimm", "virtio-mem", "virtio-pmem"];
                if driver.get("driver").is_some_and(|name| memory.iter().any(|known| name.starts_with(known))) {
                    self.memory_devices = self.memory_devices.saturating_add(1);
                }
            }
            "qmp" | "qmp-pretty" => self.monitor(value, Protocol::Qmp, open),
            "monitor" => self.monitor(value, Protocol::Human, open),
            "chardev" => {
                let option = QemuOption::parse(value, "backend");
                if let (Some(id), Some(address)) = (option.get("id"), socket(&option)) {
                    if let (LIBVIRT_MONITOR, Some(path)) = (id, option.get("path")) {
                        open.libvirt_file = Some(path.to_owned());
                    }
                    open.characters.insert(id.to_owned(), address);
                }
            }
            "mon" => {
                let option = QemuOption::parse(value, "chardev");
                let protocol = if option.get("mode") == Some("control") { Protocol::Qmp } else { Protocol::Human };
                if let Some(id) = option.get("chardev").filter(|_| open.monitors.len() < MAX_ITEMS) {
                    open.monitors.push((id.to_owned(), protocol));
                }
            }
            _ => {}
        }
    }

    fn machine(&mut self, option: &QemuOption) {
        let set = |into: &mut Option<String>, key: &str| {
            if let Some(value) = option.get(key) {
                *into = Some(value.to_owned());
            }
        };
        set(&mut self.machine, "type");
        set(&mut self.memory_backend, "memory-backend");
        if let Some(accelerator) = option.get("accel") {
            self.accelerator = text(accelerator.split(':').next());
        }
        if let Some(limit) = option.get("max-ram-below-4g") {
            self.max_ram_below_4g = size(limit, 1);
        }
    }

    fn object(&mut self, option: &QemuOption) {
        let kind = match option.get("qom-type") {
            Some("memory-backend-ram") => BackendKind::Anonymous,
            Some("memory-backend-memfd") => BackendKind::Memfd,
            Some("memory-backend-file") => {
                BackendKind::File { path: option.get("mem-path").unwrap_or_default().into() }
            }
            _ => return,
        };
        let (Some(id), Some(bytes)) = (option.get("id"), option.get("size").and_then(|text| size(text, 1))) else {
            return;
        };
        if self.backends.len() < MAX_ITEMS {
            self.backends.push(Backend { id: id.to_owned(), kind, size: bytes });
        }
    }

    /// A monitor as `-qmp` and `-monitor` describe it.
    fn monitor(&mut self, value: &str, protocol: Protocol, open: &mut Open) {
        if let Some(id) = value.strip_prefix("chardev:") {
            if open.monitors.len() < MAX_ITEMS {
                open.monitors.push((id.to_owned(), protocol));
            }
            return;
        }
        let address = if let Some(rest) = value.strip_prefix("unix:") {
            let option = QemuOption::parse(rest, "path");
            option.get("path").filter(|_| serves(&option)).map(|path| MonitorAddress::Unix(path.into()))
        } else if let Some(rest) = value.strip_prefix("tcp:").or_else(|| value.strip_prefix("telnet:")) {
            let option = QemuOption::parse(rest, "address");
            let place = option.get("address").and_then(|address| address.rsplit_once(':'));
            place.filter(|_| serves(&option)).map(|(host, port)| MonitorAddress::tcp(host, port))
        } else {
            None
        };
        if let Some(address) = address {
            self.add_monitor(MonitorConfig { protocol, address });
        }
    }

    /// The way to the monitor that libvirt holds; libvirt knows the guest by its uuid.
    fn add_libvirt(&mut self, file: Option<&str>) {
        let system = file.is_none_or(|file| file.starts_with(LIBVIRT_SYSTEM));
        let connection = if system { "qemu:///system" } else { "qemu:///session" }.to_owned();
        if let Some(domain) = self.uuid.clone() {
            let address = MonitorAddress::Libvirt { connection, domain };
            self.add_monitor(MonitorConfig { protocol: Protocol::Human, address });
        }
    }

    fn add_monitor(&mut self, monitor: MonitorConfig) {
        if self.monitors.len() < MAX_ITEMS && !self.monitors.contains(&monitor) {
            self.monitors.push(monitor);
        }
    }

    /// The backend of this id.
    pub fn backend(&self, id: &str) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.id == id)
    }
}

fn text(value: Option<&str>) -> Option<String> {
    value.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Whether QEMU waits for others to connect, and does not connect itself.
fn serves(option: &QemuOption) -> bool {
    option.is_on("server")
}

/// Where a character device can be connected to.
fn socket(option: &QemuOption) -> Option<MonitorAddress> {
    if option.get("backend") != Some("socket") {
        return None;
    }
    // Whoever starts a guest may pass a socket that is already bound; only a server is passed that way without a path.
    if let Some(descriptor) = option.get("fd").and_then(|text| text.parse().ok()) {
        return Some(MonitorAddress::Descriptor(descriptor));
    }
    match (option.get("path"), option.get("port")) {
        _ if !serves(option) => None,
        (Some(path), _) => Some(MonitorAddress::Unix(path.into())),
        (None, Some(port)) => Some(MonitorAddress::tcp(option.get("host").unwrap_or_default(), port)),
        (None, None) => None,
    }
}

/// Notes the backend of a NUMA node.
fn node(option: &QemuOption, open: &mut Open) {
    if option.get("type") != Some("node") || open.nodes.len() >= MAX_ITEMS {
        return;
    }
    let next = open.nodes.keys().next_back().map_or(0, |last| last.saturating_add(1));
    let number = option.get("nodeid").and_then(|text| text.parse().ok()).unwrap_or(next);
    if let Some(id) = option.get("memdev") {
        open.nodes.insert(number, id.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> CommandLine {
        CommandLine::parse(line.split(' '))
    }

    #[test]
    fn guest_of_libvirt() {
        let line = parse(
            "-name guest=web,debug-threads=on -S -machine pc-q35-8.1,usb=off,memory-backend=pc.ram -accel kvm -m size=4194304k \
             -object {\"qom-type\":\"memory-backend-memfd\",\"id\":\"pc.ram\",\"share\":true,\"size\":4294967296} \
             -uuid 4DEA22B3-1D52-4F4C-A1F0-7C2F0E3B8C11 -chardev socket,id=charmonitor,fd=33,server=on,wait=off \
             -mon chardev=charmonitor,id=monitor,mode=control",
        );
        assert_eq!((line.name.as_deref(), line.machine.as_deref()), (Some("web"), Some("pc-q35-8.1")));
        assert_eq!((line.memory, line.accelerator.as_deref()), (Some(4 << 30), Some("kvm")));
        assert_eq!(line.uuid.as_deref(), Some("4dea22b3-1d52-4f4c-a1f0-7c2f0e3b8c11"));
        assert_eq!(line.backend("pc.ram").map(|found| (&found.kind, found.size)), Some((&BackendKind::Memfd, 4 << 30)));
        // libvirt speaks for a monitor that it does not let go of.
        let domain = "4dea22b3-1d52-4f4c-a1f0-7c2f0e3b8c11".to_owned();
        let through = MonitorAddress::Libvirt { connection: "qemu:///system".to_owned(), domain };
        let through = MonitorConfig { protocol: Protocol::Human, address: through };
        let own = MonitorConfig { protocol: Protocol::Qmp, address: MonitorAddress::Descriptor(33) };
        assert_eq!(line.monitors, [through, own]);
    }

    #[test]
    fn guest_of_a_users_own_libvirt_with_a_monitor_beside_it() {
        let line = parse(
            "-name guest=web -object {\"qom-type\":\"secret\",\"id\":\"masterKey0\",\"file\":\"/home/u/.config/libvirt/qemu/lib/domain-1-web/master-key.aes\"} \
             -uuid 0a1b -chardev socket,id=charmonitor,fd=33,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control \
             -qmp unix:/run/web.qmp,server=on,wait=off",
        );
        let places: Vec<String> = line.monitors.iter().map(ToString::to_string).collect();
        assert_eq!(places, ["QMP at /run/web.qmp", "HMP at qemu:///session through virsh", "QMP at descriptor 33"]);
        // Whoever names a monitor so is not libvirt by that alone: without a uuid there is no domain to ask for.
        let line = parse("-chardev socket,id=charmonitor,path=/run/x,server=on -mon chardev=charmonitor,mode=control");
        assert_eq!(line.monitors.len(), 1);
    }

    #[test]
    fn guest_of_proxmox() {
        let line = parse(
            "-id 100 -name web,debug-threads=on -no-shutdown \
             -chardev socket,id=qmp,path=/var/run/qemu-server/100.qmp,server=on,wait=off -mon chardev=qmp,mode=control \
             -chardev socket,id=qmp-event,path=/var/run/qmeventd.sock,reconnect=5 -mon chardev=qmp-event,mode=control \
             -daemonize -smbios type=1,uuid=0a1b -smp 2 -m 2048 -machine type=pc+pve0",
        );
        assert_eq!(
            (line.name.as_deref(), line.uuid.as_deref(), line.memory),
            (Some("web"), Some("0a1b"), Some(2 << 30))
        );
        let address = MonitorAddress::Unix("/var/run/qemu-server/100.qmp".into());
        assert_eq!(line.monitors, [MonitorConfig { protocol: Protocol::Qmp, address }]);
    }

    #[test]
    fn nodes_are_in_the_order_of_their_numbers() {
        let line = parse("-numa node,nodeid=1,memdev=b -numa node,nodeid=0,memdev=a -numa dist,src=0,dst=1,val=20");
        assert_eq!(line.nodes, ["a", "b"]);
    }

    #[test]
    fn monitors_of_every_form() {
        let line =
            parse("-qmp unix:q.sock,server,nowait -qmp tcp:localhost:4444,server=on -monitor telnet::5555,server=on");
        assert_eq!(line.monitors.len(), 3);
        assert_eq!(line.monitors.get(2).map(|one| &one.address), Some(&MonitorAddress::Tcp("127.0.0.1:5555".into())));
        let address = |line: &str| parse(line).monitors.into_iter().next().map(|one| one.address.to_string());
        for (line, expected) in [
            ("-qmp tcp:127.0.0.1:4444,server,nowait", "127.0.0.1:4444"),
            ("-qmp tcp:0.0.0.0:4444,server=on,wait=off", "127.0.0.1:4444"),
            ("-qmp tcp:[::1]:4444,server=on,wait=off", "[::1]:4444"),
            ("-qmp tcp:[::]:4444,server=on,ipv6=on", "[::1]:4444"),
            ("-chardev socket,id=m,host=::1,port=4444,server=on -mon m,mode=control", "[::1]:4444"),
            ("-chardev socket,id=m,port=4444,server=on,wait=off -mon chardev=m", "127.0.0.1:4444"),
            ("-chardev socket,id=m,port=4444,server=on,wait=off -qmp chardev:m", "127.0.0.1:4444"),
        ] {
            assert_eq!(address(line).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(address("-qmp tcp:127.0.0.1:4444"), None, "a client has no place to connect to");
        assert!(parse("-monitor stdio -qmp stdio -serial mon:stdio -qmp unix:client.sock").monitors.is_empty());
    }
}
