//! The folder of guests: prepared once, handed out ever after.
//!
//! Owns: names to folders, stamps, locks, and the way from a spec to a captured or running guest.
//! Must not know: what a capture consists of.
//! Keeps: a folder under its final name is complete; work happens beside it and is renamed. One process prepares a guest,
//! others wait for it. A guest is prepared anew when its spec or the guest's sources change; newer packages alone do not.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::addition::Addition;
use crate::capture;
use crate::error::{Error, Result, WithPath};
use crate::inner::{self, Inner};
use crate::live::Live;
use crate::machine::RunningGuest;
use crate::meta::Meta;
use crate::packages::Packages;
use crate::program::{self, Boot};
use crate::spec::{self, NESTED, Spec};
use crate::truth::Truth;

/// Changes when captures mean something else than before.
const FORMAT: u32 = 2;
/// How a guest is built, booted and captured; a change makes another guest.
const RECIPE: &[(&str, &str)] = &[
    ("program.rs", include_str!("program.rs")),
    ("modules.rs", include_str!("modules.rs")),
    ("initramfs.rs", include_str!("initramfs.rs")),
    ("qemu.rs", include_str!("qemu.rs")),
    ("capture.rs", include_str!("capture.rs")),
];
/// Boots of one guest before its death is reported. QEMU 7.2 now and then hands an emulated kernel wrong flags after an interrupt,
/// in about one boot of ten, and with one thread for all vCPUs in one of three.
const BOOTS: u32 = 8;

/// The folder of guests.
#[derive(Debug, Clone)]
pub struct Guests {
    root: PathBuf,
}

/// A captured guest.
#[derive(Debug, Clone)]
pub struct CapturedGuest {
    folder: PathBuf,
    /// What is known about it from outside.
    pub meta: Meta,
    /// What it said about itself.
    pub truth: Truth,
}

impl Guests {
    /// The workspace's folder, `target/guests`, or the one `MEMFLOW_GUESTS_DIR` names.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn locate() -> Result<Self> {
        let root = std::env::var_os("MEMFLOW_GUESTS_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests"), PathBuf::from);
        std::fs::create_dir_all(&root).at(&root)?;
        let root = root.canonicalize().at(root)?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The spec of that name.
    ///
    /// # Errors
    /// No such name; the error lists all.
    pub fn spec(name: &str) -> Result<&'static Spec> {
        spec::all().find(|spec| spec.name == name).ok_or_else(|| {
            let known: Vec<&str> = spec::all().map(|spec| spec.name).collect();
            Error::UnknownGuest { name: name.into(), known: known.join(", ") }
        })
    }

    /// Whether a guest is there already.
    pub fn is_prepared(&self, spec: &Spec) -> bool {
        let stamp = std::fs::read_to_string(self.root.join(spec.name).join("stamp"));
        stamp.is_ok_and(|stamp| stamp == key(spec))
    }

    /// A captured guest, prepared now if it is not there.
    ///
    /// # Errors
    /// No such name, or it cannot be prepared; the error says the way out.
    pub fn ensure(&self, name: &str) -> Result<CapturedGuest> {
        let spec = Self::spec(name)?;
        self.prepare(spec, &|_| {})?;
        self.captured(name)
    }

    /// A captured guest that is there.
    ///
    /// # Errors
    /// It is not there.
    pub fn captured(&self, name: &str) -> Result<CapturedGuest> {
        let folder = self.root.join(name);
        if !folder.join("stamp").exists() {
            return Err(Error::MissingFile { path: folder, hint: format!("cargo xtask guests {name}") });
        }
        Ok(CapturedGuest {
            meta: Meta::load(&folder.join("meta.json"))?,
            truth: Truth::load(folder.join("truth"))?,
            folder,
        })
    }

    /// Prepares a guest unless it is there; `progress` hears what happens.
    ///
    /// # Errors
    /// As [`Guests::ensure`].
    pub fn prepare(&self, spec: &Spec, progress: &dyn Fn(&str)) -> Result<()> {
        if self.is_prepared(spec) {
            return Ok(());
        }
        let _lock = self.lock(spec.name)?;
        if self.is_prepared(spec) {
            return Ok(());
        }
        let work = self.root.join(format!(".{}.work", spec.name));
        if work.exists() {
            std::fs::remove_dir_all(&work).at(&work)?;
        }
        std::fs::create_dir_all(&work).at(&work)?;
        let boot = self.build(spec, &work, progress)?;
        let (meta, live) = boots(progress, || {
            let mut guest = RunningGuest::start(spec, &boot, &work)?;
            let meta = capture::capture(&mut guest, &work, &boot.packages)?;
            Ok((meta, guest.ram_path()))
        })?;
        std::fs::remove_file(&live).at(live)?;
        for socket in ["qmp.sock", "agent.sock"] {
            let _ = std::fs::remove_file(work.join(socket));
        }
        if *spec == NESTED {
            inner::unpack_truth(&work)?;
        }
        // QEMU writes dumps for their owner alone.
        let core = work.join("core.elf");
        std::fs::set_permissions(&core, Permissions::from_mode(0o644)).at(core)?;
        meta.save(&work.join("meta.json"))?;
        let stamp = work.join("stamp");
        std::fs::write(&stamp, key(spec)).at(stamp)?;
        let folder = self.root.join(spec.name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).at(&folder)?;
        }
        std::fs::rename(&work, &folder).at(folder)
    }

    /// Boots a guest that stays alive until the value is dropped; its kernel is taken from the captured one's folder.
    ///
    /// # Errors
    /// As [`Guests::ensure`].
    pub fn boot(&self, spec: &Spec) -> Result<RunningGuest> {
        self.boot_by(spec, None, |boot, folder| RunningGuest::start(spec, boot, folder))
    }

    /// As [`Guests::boot`], with files and a script beside the guest's own.
    ///
    /// # Errors
    /// As [`Guests::ensure`].
    pub fn boot_with(&self, spec: &Spec, addition: Addition) -> Result<RunningGuest> {
        self.boot_by(spec, Some(addition), |boot, folder| RunningGuest::start(spec, boot, folder))
    }

    /// As [`boot`](Self::boot), with other memory and monitors than the captured guest has.
    ///
    /// # Errors
    /// As [`Guests::ensure`].
    pub fn boot_live(&self, spec: &Spec, live: &Live) -> Result<RunningGuest> {
        self.boot_by(spec, None, |boot, folder| RunningGuest::run(spec, live.command(spec, boot), folder))
    }

    /// As [`boot_live`](Self::boot_live), with files and a script beside the guest's own.
    ///
    /// # Errors
    /// As [`Guests::ensure`].
    pub fn boot_live_with(&self, spec: &Spec, live: &Live, addition: Addition) -> Result<RunningGuest> {
        self.boot_by(spec, Some(addition), |boot, folder| RunningGuest::run(spec, live.command(spec, boot), folder))
    }

    fn boot_by(
        &self,
        spec: &Spec,
        addition: Option<Addition>,
        start: impl Fn(&Boot, &Path) -> Result<RunningGuest>,
    ) -> Result<RunningGuest> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let live = self.root.join("live");
        remove_leftovers(&live);
        let folder = live.join(format!("{}-{}-{number}", spec.name, std::process::id()));
        std::fs::create_dir_all(&folder).at(&folder)?;
        let prepared = self.root.join(spec.name);
        let mut boot = if self.is_prepared(spec) {
            let packages = Meta::load(&prepared.join("meta.json"))?.packages;
            Boot { kernel: prepared.join("vmlinuz"), initrd: prepared.join("initramfs.cpio"), packages }
        } else {
            self.build(spec, &folder, &|_| {})?
        };
        if let Some(addition) = addition {
            let initrd = folder.join("with-addition.cpio");
            addition.write_behind(&boot.initrd, &initrd)?;
            boot.initrd = initrd;
        }
        let guest = boots(&|_| {}, || {
            let mut guest = start(&boot, &folder)?;
            guest.command("procs")?;
            Ok(guest)
        });
        match guest {
            Ok(guest) => Ok(guest.temporary()),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&folder);
                Err(error)
            }
        }
    }

    fn build(&self, spec: &Spec, folder: &Path, progress: &dyn Fn(&str)) -> Result<Boot> {
        progress("fetching packages");
        self.with_packages(|packages| program::build(packages, spec, folder))
    }

    /// Has `work` use packages; lists and downloads are shared by all guests.
    pub(crate) fn with_packages<T>(&self, work: impl FnOnce(&Packages) -> Result<T>) -> Result<T> {
        let _lock = self.lock("packages")?;
        work(&Packages::open(&self.root)?)
    }

    fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join(format!(".{name}.lock"));
        let file = File::create(&path).at(&path)?;
        file.lock().at(path)?;
        Ok(file)
    }
}

impl CapturedGuest {
    /// The guest's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The RAM file.
    pub fn ram(&self) -> PathBuf {
        self.folder.join("ram.img")
    }

    /// The ELF core of the same instant.
    pub fn core(&self) -> PathBuf {
        self.folder.join("core.elf")
    }

    /// The machine in this guest's process `vmm`; only the guest `nested` has one.
    ///
    /// # Errors
    /// There is none, or what is known about it is not what the guest writes.
    pub fn inner(&self) -> Result<Inner> {
        Inner::load(&self.folder)
    }

    /// One of the texts: `registers.txt`, `tlb.txt`, `mtree.txt`, `gva2gpa.txt`.
    ///
    /// # Errors
    /// The file is missing.
    pub fn text(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        std::fs::read_to_string(&path).at(path)
    }
}

/// Boots until the guest lives through it: under emulation a kernel sometimes dies early, on QEMU's account.
fn boots<T>(progress: &dyn Fn(&str), mut boot: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..BOOTS {
        progress("booting");
        match boot() {
            Err(error @ (Error::Ended { .. } | Error::Timeout { .. })) => progress(&error.to_string()),
            outcome => return outcome,
        }
    }
    progress("booting");
    boot()
}

/// Removes what killed processes left: folders named NAME-PID-NUMBER whose process is gone.
fn remove_leftovers(live: &Path) {
    for entry in std::fs::read_dir(live).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.rsplit('-').nth(1).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// What a guest depends on, as a stamp's text.
fn key(spec: &Spec) -> String {
    // FNV-1a, 64 bits: stable across compilers.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (name, text) in program::sources(spec).chain(RECIPE) {
        for byte in name.bytes().chain(text.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    format!("format {FORMAT}\nsources {hash:016x}\n{spec:?}\n")
}
