//! `cargo xtask plugins install` and `uninstall`: the tree's connectors and OS layers as files that `memflow` finds.
//!
//! Owns: which packages are plugins, building them, and putting their files in place.
//! Must not know: any one plugin; cargo says which there are.
//! Keeps: a file under its final name is whole, and one that a running program has mapped stays as it was: files are written
//! beside their place and renamed.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use memflow_core::plugin::Inventory;
use serde_json::Value;

use crate::tidy;

/// The folders of the tree in which packages are plugins.
const FOLDERS: &[&str] = &["connectors", "os"];
const USAGE: &str =
    "usage: cargo xtask plugins install [--dir DIR] [--debug], or cargo xtask plugins uninstall [--dir DIR]";

/// What is to be done.
#[derive(PartialEq, Eq, Debug)]
enum Action {
    Install { release: bool },
    Uninstall,
}

/// What was asked for.
#[derive(PartialEq, Eq, Debug)]
struct Request {
    action: Action,
    /// The user's own, unless named.
    folder: Option<PathBuf>,
}

/// A package of the tree that is a plugin.
#[derive(PartialEq, Eq, Debug)]
struct Package {
    name: String,
    /// The file's name.
    file: String,
}

/// Installs or removes the tree's plugins.
pub(crate) fn plugins(args: &[String]) -> Result<(), String> {
    let request = parse(args)?;
    let folder = match request.folder {
        Some(folder) => std::path::absolute(&folder).map_err(|error| format!("{}: {error}", folder.display()))?,
        None => user_folder()?,
    };
    let packages = packages(&metadata()?)?;
    match request.action {
        Action::Install { release } => install(&packages, &folder, release),
        Action::Uninstall => uninstall(&packages, &folder),
    }
}

fn parse(args: &[String]) -> Result<Request, String> {
    let mut args = args.iter();
    let (mut action, mut folder) = match args.next().map(String::as_str) {
        Some("install") => (Action::Install { release: true }, None),
        Some("uninstall") => (Action::Uninstall, None),
        Some(other) => return Err(format!("unknown action {other}; {USAGE}")),
        None => return Err(USAGE.to_owned()),
    };
    while let Some(arg) = args.next() {
        match (arg.as_str(), &mut action) {
            ("--dir", _) if folder.is_none() => match args.next() {
                Some(path) if !path.is_empty() => folder = Some(PathBuf::from(path)),
                _ => return Err(format!("--dir needs a folder; {USAGE}")),
            },
            ("--debug", Action::Install { release }) => *release = false,
            _ => return Err(format!("unexpected argument {arg}; {USAGE}")),
        }
    }
    Ok(Request { action, folder })
}

/// The folder of a user's plugins: one of those that `memflow` searches.
fn user_folder() -> Result<PathBuf, String> {
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let home = home.ok_or("the home folder is not known; name a folder with --dir")?;
    Ok(home.join(".local").join("lib").join("memflow"))
}

fn cargo() -> Command {
    // Set by the cargo that runs this program.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(tidy::root()).stderr(Stdio::inherit());
    cargo
}

/// What a command writes to its standard output.
fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.output().map_err(|error| format!("cargo: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    // cargo has said why.
    let line: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    Err(format!("cargo {}: {}", line.join(" "), output.status))
}

fn metadata() -> Result<Value, String> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    serde_json::from_slice(&text).map_err(|error| format!("cargo metadata: {error}"))
}

/// The packages in the folders of plugins that make a shared library.
fn packages(metadata: &Value) -> Result<Vec<Package>, String> {
    let root = metadata["workspace_root"].as_str().ok_or("cargo metadata names no workspace")?;
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let Ok(inside) = manifest.strip_prefix(root) else { continue };
        if !FOLDERS.iter().any(|folder| inside.starts_with(folder)) {
            continue;
        }
        for target in package["targets"].as_array().into_iter().flatten().filter(|target| is_library(target)) {
            let (Some(name), Some(library)) = (package["name"].as_str(), target["name"].as_str()) else { continue };
            let file = format!("{DLL_PREFIX}{}{DLL_SUFFIX}", library.replace('-', "_"));
            found.push(Package { name: name.to_owned(), file });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    if found.is_empty() { Err(format!("no package in {} makes a cdylib", FOLDERS.join(" or "))) } else { Ok(found) }
}

/// True for a target that a shared library is made of. Of examples and tests none is installed.
fn is_library(target: &Value) -> bool {
    target["kind"].as_array().into_iter().flatten().any(|kind| kind == "cdylib")
}

/// Builds the packages; says where the file of each is, in their order.
fn build(packages: &[Package], release: bool) -> Result<Vec<PathBuf>, String> {
    let mut command = cargo();
    command.args(["build", "--lib", "--locked", "--message-format=json-render-diagnostics"]);
    if release {
        command.arg("--release");
    }
    for package in packages {
        command.args(["--package", &package.name]);
    }
    let messages = output(&mut command)?;
    let messages = String::from_utf8(messages).map_err(|error| format!("output of cargo: {error}"))?;
    let built = artifacts(&messages)?;
    let file_of = |package: &Package| {
        let found = built.iter().find(|path| path.file_name().is_some_and(|name| name == &*package.file));
        found.cloned().ok_or_else(|| format!("cargo built no {} for {}", package.file, package.name))
    };
    packages.iter().map(file_of).collect()
}

/// The files that cargo says it made, from its messages, one a line.
fn artifacts(messages: &str) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).map_err(|error| format!("message of cargo: {error}"))?;
        if message["reason"] == "compiler-artifact" && is_library(&message["target"]) {
            files.extend(
                message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from),
            );
        }
    }
    Ok(files)
}

fn install(packages: &[Package], folder: &Path, release: bool) -> Result<(), String> {
    // What can be refused is, before anybody waits for a build.
    fs::create_dir_all(folder).map_err(|error| format!("{} cannot be created: {error}", folder.display()))?;
    let built = build(packages, release)?;
    let mut installed = Vec::new();
    for (package, from) in packages.iter().zip(&built) {
        let to = folder.join(&package.file);
        put(from, &to).map_err(|error| format!("{} cannot be installed: {error}", to.display()))?;
        println!("installed {} as {}", package.name, to.display());
        installed.push(to);
    }
    inspect(folder, &installed)
}

/// Copies a file so that its place holds the old one or the whole new one at any time.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let mut source = fs::File::open(from)?;
    // Not called like a plugin, so that nobody takes it for one before its time; gone if something fails.
    let mut copy = tempfile::Builder::new().prefix(".memflow-").tempfile_in(folder)?;
    io::copy(&mut source, copy.as_file_mut())?;
    copy.as_file().set_permissions(source.metadata()?.permissions())?;
    copy.as_file().sync_all()?;
    copy.persist(to).map_err(|error| error.error)?;
    Ok(())
}

/// Says what `memflow` thinks of what was installed.
fn inspect(folder: &Path, installed: &[PathBuf]) -> Result<(), String> {
    let inventory = Inventory::builder().folder(folder).build();
    let mut good = Vec::new();
    for plugin in inventory.plugins() {
        let descriptor = plugin.descriptor();
        println!("good      {} {} {}, {}", descriptor.kind, descriptor.name, descriptor.version, plugin.origin());
        good.extend(plugin.origin().path().map(Path::to_owned));
    }
    for rejected in inventory.rejected() {
        println!("rejected  {rejected}");
    }
    match installed.iter().find(|path| !good.contains(path)) {
        None => Ok(()),
        Some(path) => Err(format!("{} was installed, but memflow does not take it", path.display())),
    }
}

fn uninstall(packages: &[Package], folder: &Path) -> Result<(), String> {
    for package in packages {
        let path = folder.join(&package.file);
        match fs::remove_file(&path) {
            Ok(()) => println!("removed   {}", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => println!("not there {}", path.display()),
            Err(error) => return Err(format!("{} cannot be removed: {error}", path.display())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(line: &str) -> Result<Request, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read() {
        let install = |release, folder: Option<&str>| Request {
            action: Action::Install { release },
            folder: folder.map(PathBuf::from),
        };
        assert_eq!(request("install"), Ok(install(true, None)));
        assert_eq!(request("install --dir a --debug"), Ok(install(false, Some("a"))));
        let uninstall = Request { action: Action::Uninstall, folder: Some("b".into()) };
        assert_eq!(request("uninstall --dir b"), Ok(uninstall));
    }

    #[test]
    fn wrong_arguments_are_told_what_is_right() {
        for (line, problem) in [
            ("remove", "unknown action remove; "),
            ("install --dir", "--dir needs a folder; "),
            ("install --dir a --dir b", "unexpected argument --dir; "),
            ("install here", "unexpected argument here; "),
            ("uninstall --debug", "unexpected argument --debug; "),
        ] {
            assert_eq!(request(line), Err(format!("{problem}{USAGE}")));
        }
    }

    #[test]
    fn plugins_are_the_shared_libraries_in_their_folders() {
        let package = |name: &str, folder: &str, kind: &[&str]| {
            json!({"name": name, "manifest_path": format!("/tree/{folder}/Cargo.toml"),
                "targets": [{"name": name.replace('-', "_"), "kind": kind}, {"name": "plugin", "kind": ["example"]}]})
        };
        let metadata = json!({"workspace_root": "/tree", "packages": [
            package("memflow-b", "os/b", &["rlib", "cdylib"]),
            package("memflow-a", "connectors/a", &["cdylib"]),
            package("memflow-c", "connectors/c", &["lib"]),
            package("memflow-ffi", "memflow-ffi", &["cdylib"]),
        ]});
        let file = |name: &str| format!("{DLL_PREFIX}{name}{DLL_SUFFIX}");
        let expected = [("memflow-a", "memflow_a"), ("memflow-b", "memflow_b")]
            .map(|(name, library)| Package { name: name.to_owned(), file: file(library) });
        assert_eq!(packages(&metadata).unwrap(), expected);
    }

    #[test]
    fn plugins_of_this_tree_are_found() {
        let names: Vec<String> =
            packages(&metadata().unwrap()).unwrap().into_iter().map(|package| package.name).collect();
        for name in ["memflow-linux", "memflow-snapshot"] {
            assert!(names.iter().any(|found| found == name), "{names:?}");
        }
    }

    #[test]
    fn file_that_is_replaced_stays_for_those_who_have_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        let before = fs::File::open(&to).unwrap();
        put(&from, &to).unwrap();
        assert_eq!(
            (io::read_to_string(before).unwrap().as_str(), fs::read_to_string(&to).unwrap().as_str()),
            ("old", "new")
        );
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 2, "nothing but the two is left");
    }
}
