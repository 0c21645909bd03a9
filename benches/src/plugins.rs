//! An image through plugins: linked in, loaded, and loaded without a direct map.
//!
//! Owns: building the tree's plugins and its command, loading plugins, and counting calls. Must not know: what is done with the memory.
//! Keeps: plugins are built by the same cargo and in the same profile as the program that loads them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use memflow_core::{
    MemoryView, VirtAddr,
    memory::ViewRead,
    paging::TranslateOp,
    plugin::{ConnectOptions, Inventory, Layered, args::Args, args::ConnectorSpec},
};

use crate::{Order, Result, image::Image};

/// One image, opened in three ways.
#[derive(Debug)]
pub struct Plugins {
    /// By the connector that is linked in.
    pub linked: Image,
    /// By the same one from its file.
    pub loaded: Image,
    /// By one from a file that offers no direct map, so every access is a call.
    pub called: Image,
    /// That one, with its calls counted.
    counted: Layered,
}

/// Calls of a connector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Calls {
    /// To translate a batch.
    pub translate: u64,
    /// To read eight bytes at each address of a batch.
    pub read: u64,
}

impl Plugins {
    /// Builds what is not built yet, and opens an image with it.
    ///
    /// # Errors
    /// cargo fails, or a plugin cannot be loaded.
    pub fn open(path: &Path) -> Result<Self> {
        let [snapshot, called] = build()?;
        let linked = Inventory::builder().connector::<memflow_snapshot::Plugin>()?.build();
        let loaded = Inventory::builder().file(snapshot).file(called).build();
        if let Some(rejected) = loaded.rejected().first() {
            return Err(format!("{rejected:?}").into());
        }
        let target = path.to_str().ok_or("the path of the image is no text")?;
        let connect = |inventory: &Inventory, name: &str, args: Args| -> Result<Layered> {
            let spec = ConnectorSpec::new(name)?.with_target(target).with_args(args);
            Ok(inventory.connect(&spec, &ConnectOptions::default())?)
        };
        let frozen = || Args::new().with("live", "false");
        let image = Image::open(path)?;
        let with = |layered: Layered| image.with_memory(layered.connection.memory);
        Ok(Self {
            linked: with(connect(&linked, "snapshot", frozen())?),
            loaded: with(connect(&loaded, "snapshot", frozen())?),
            called: with(connect(&loaded, "called", Args::new())?),
            counted: connect(&loaded, "called", Args::new().with("metrics", "true"))?,
        })
    }

    /// Counts the calls that a batch of `count` random addresses takes without a direct map.
    ///
    /// # Errors
    /// The reads fail, or the calls are not counted.
    pub fn calls(&self, count: usize) -> Result<Calls> {
        let metrics = self.counted.metrics.as_ref().ok_or("the calls are not counted")?;
        let image = self.linked.with_memory(self.counted.connection.memory.clone());
        let addresses = image.addresses(Order::Random, count, 8);
        let before = metrics.snapshot();
        let mut ops: Vec<_> = addresses.iter().map(|address| TranslateOp::new(VirtAddr::new(*address))).collect();
        image.space.translate_batch(&*image.memory, &mut ops);
        let between = metrics.snapshot();
        let mut bytes = vec![[0; 8]; count];
        let addresses = addresses.iter().map(|address| VirtAddr::new(*address));
        let mut ops: Vec<_> = addresses.zip(&mut bytes).map(|(address, buf)| ViewRead::new(address, buf)).collect();
        image.view().read_batch(&mut ops)?;
        Ok(Calls {
            translate: between.since(&before).reads.calls,
            read: metrics.snapshot().since(&between).reads.calls,
        })
    }
}

/// The shared libraries of the connectors `snapshot` and `called`.
fn build() -> Result<[PathBuf; 2]> {
    let folder = cargo_build(&["-p", "memflow-snapshot", "-p", "memflow-benches", "--lib", "--example", "called"])?;
    Ok([folder.join("libmemflow_snapshot.so"), folder.join("examples").join("libcalled.so")])
}

/// The command `memflow`, built as this program was.
///
/// # Errors
/// cargo fails.
pub fn program() -> Result<PathBuf> {
    let folder = cargo_build(&["-p", "memflow-cli", "--bin", "memflow"])?;
    Ok(folder.join("memflow").with_extension(std::env::consts::EXE_EXTENSION))
}

/// Builds in this program's profile, and says where the results are.
fn cargo_build(what: &[&str]) -> Result<PathBuf> {
    // The folder of this program's profile; tests and benchmarks lie one deeper.
    let program = std::env::current_exe()?;
    let folder = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).ok_or("no target folder")?;
    let target = folder.parent().ok_or("no target folder")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked"]).args(what);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env("CARGO_TARGET_DIR", target);
    if !cargo.status()?.success() {
        return Err(format!("cargo could not build {}", what.join(" ")).into());
    }
    Ok(folder.to_owned())
}
