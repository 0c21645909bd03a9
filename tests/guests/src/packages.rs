//! Debian packages for guests, fetched and unpacked beside the host's own.
//!
//! Owns: a private apt configuration, the choice of versions at run time, the cache of packages.
//! Must not know: what is done with an unpacked package.
//! Keeps: the host's apt configuration, lists and installed packages are never touched; no mirror is named here,
//! it comes from the host's own configuration or from `MEMFLOW_DEBIAN_MIRROR`.
//! Source: sources.list(5), apt.conf(5), apt-get(8).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result, WithPath, unexpected};
use crate::spec::{Arch, Spec};
use crate::tool;

/// Suites looked into; a later one only has what an earlier one lacks.
const SUITES: [&str; 3] = ["bookworm", "bookworm-backports", "trixie"];
/// Suite of security updates, only where the host names a mirror for it.
const SECURITY: &str = "bookworm-security";
/// Keyring that proves the lists.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Lists older than this are fetched again before a package is looked up.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// The private apt configuration and the cache of packages.
#[derive(Debug)]
pub(crate) struct Packages {
    apt: PathBuf,
    debs: PathBuf,
    unpacked: PathBuf,
}

/// One downloaded package.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    /// `name_version_arch`, from the file's name.
    pub(crate) identity: String,
    file: PathBuf,
}

impl Packages {
    /// Prepares the configuration in `root` and fetches the lists if they are missing or old.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        tool::require("apt-get", "apt")?;
        tool::require("dpkg-deb", "dpkg")?;
        let this = Self { apt: root.join("apt"), debs: root.join("debs"), unpacked: root.join("unpacked") };
        for folder in ["lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d"] {
            let folder = this.apt.join(folder);
            std::fs::create_dir_all(&folder).at(folder)?;
        }
        std::fs::create_dir_all(&this.debs).at(&this.debs)?;
        let status = this.apt.join("status");
        std::fs::write(&status, "").at(status)?;
        this.configure()?;
        this.update()?;
        Ok(this)
    }

    /// The kernel package of a series: what the metapackage's newest version of that series depends on.
    pub(crate) fn kernel(&self, spec: &Spec) -> Result<Package> {
        self.kernel_of(spec.metapackage, spec.series, spec.arch.debian())
    }

    /// The same, for an architecture as Debian names it.
    pub(crate) fn kernel_of(&self, metapackage: &str, series: &str, arch: &str) -> Result<Package> {
        let meta = format!("{metapackage}:{arch}");
        let shown = self.apt("apt-cache", &["show", &meta])?;
        let prefix = format!("linux-image-{series}.");
        let (name, version) = newest_dependency(&shown, &prefix).ok_or_else(|| Error::NoPackage {
            package: format!("{prefix}* (through {meta})"),
            suites: SUITES.join(", "),
            hint: "the mirror may have moved on; MEMFLOW_DEBIAN_MIRROR can name an archive that still has it".into(),
        })?;
        self.fetch(&format!("{name}:{arch}={version}"))
    }

    /// A package of the oldest suite, for the guest's architecture.
    pub(crate) fn stable(&self, name: &str, arch: Arch) -> Result<Package> {
        self.stable_of(name, arch.debian())
    }

    /// The same, for an architecture as Debian names it.
    pub(crate) fn stable_of(&self, name: &str, arch: &str) -> Result<Package> {
        self.fetch(&format!("{name}:{arch}/{}", SUITES[0]))
    }

    /// Puts a package's files into a folder. They are unpacked once and hard-linked ever after: do not write to them.
    pub(crate) fn unpack(&self, package: &Package, into: &Path) -> Result<()> {
        let unpacked = self.unpacked.join(&package.identity);
        if !unpacked.exists() {
            let part = self.unpacked.join("partial");
            if part.exists() {
                std::fs::remove_dir_all(&part).at(&part)?;
            }
            std::fs::create_dir_all(&part).at(&part)?;
            tool::run(Command::new("dpkg-deb").arg("-x").arg(&package.file).arg(&part))?;
            std::fs::rename(&part, &unpacked).at(part)?;
        }
        std::fs::create_dir_all(into).at(into)?;
        tool::run(Command::new("cp").arg("-al").arg(unpacked.join(".")).arg(into)).map(drop)
    }

    /// Downloads what is not there yet.
    fn fetch(&self, request: &str) -> Result<Package> {
        let uris = self.apt("apt-get", &["download", "--print-uris", request]).map_err(|error| Error::NoPackage {
            package: request.into(),
            suites: SUITES.join(", "),
            hint: error.to_string(),
        })?;
        // 'ADDRESS' FILE SIZE HASH
        let file_name = uris
            .lines()
            .find_map(|line| line.strip_prefix('\'')?.split_once("' ")?.1.split(' ').next())
            .ok_or_else(|| unexpected("apt-get download --print-uris", "'ADDRESS' FILE SIZE HASH", &uris))?;
        let file = self.debs.join(file_name);
        if !file.exists() {
            // apt-get checks size and hash, and writes into its working folder.
            let part = self.debs.join("partial");
            std::fs::create_dir_all(&part).at(&part)?;
            let mut command = self.command("apt-get", &["download", request]);
            command.current_dir(&part);
            tool::run(&mut command)?;
            let got = part.join(file_name);
            std::fs::rename(&got, &file).at(got)?;
        }
        let identity = file_name.strip_suffix(".deb").unwrap_or(file_name).replace("%3a", ":");
        Ok(Package { identity, file })
    }

    /// Writes sources and configuration.
    fn configure(&self) -> Result<()> {
        if !Path::new(KEYRING).exists() {
            return Err(Error::MissingFile {
                path: KEYRING.into(),
                hint: "apt-get install debian-archive-keyring".into(),
            });
        }
        let mirror = Mirror::find()?;
        let mut sources = String::new();
        for suite in SUITES {
            sources.push_str(&format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror.main));
        }
        if let Some(security) = &mirror.security {
            sources.push_str(&format!("deb [signed-by={KEYRING}] {security} {SECURITY} main\n"));
        }
        let here = self.apt.display();
        let conf = format!(
            "Dir::State \"{here}\";\nDir::State::status \"{here}/status\";\nDir::State::lists \"{here}/lists\";\n\
             Dir::Cache \"{here}/cache\";\nDir::Etc \"{here}/etc\";\nDir::Etc::sourcelist \"{here}/sources.list\";\n\
             Dir::Etc::sourceparts \"-\";\nAPT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; \"i386\"; \"arm64\"; }};\nAcquire::Languages \"none\";\n\
             Acquire::Check-Valid-Until \"false\";\nAPT::Sandbox::User \"\";\n"
        );
        for (name, text) in [("sources.list", sources), ("apt.conf", conf)] {
            let file = self.apt.join(name);
            if std::fs::read_to_string(&file).ok().as_deref() != Some(&text) {
                std::fs::write(&file, text).at(file)?;
                // The lists are of other suites or architectures than those that are wanted.
                let _ = std::fs::remove_file(self.apt.join("updated"));
            }
        }
        Ok(())
    }

    /// Fetches the lists. One list that fails is not fatal: what it had is then missing, and that error is clear.
    fn update(&self) -> Result<()> {
        let stamp = self.apt.join("updated");
        let age = std::fs::metadata(&stamp).and_then(|meta| meta.modified()).ok();
        if age.and_then(|at| SystemTime::now().duration_since(at).ok()).is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        let outcome = self.apt("apt-get", &["update", "-q"]);
        let any = std::fs::read_dir(self.apt.join("lists"))
            .at(self.apt.join("lists"))?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"));
        match outcome {
            Err(error) if !any => Err(error),
            _ => std::fs::write(&stamp, "").at(stamp),
        }
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.apt.join("apt.conf")).env("LC_ALL", "C").args(args);
        command
    }

    fn apt(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = tool::run(&mut self.command(program, args))?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }
}

/// Where packages come from.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    main: String,
    security: Option<String>,
}

impl Mirror {
    fn find() -> Result<Self> {
        if let Ok(main) = std::env::var("MEMFLOW_DEBIAN_MIRROR") {
            return Ok(Self { main, security: None });
        }
        let format = "$(SITE) $(RELEASE) $(COMPONENT)";
        let targets = tool::run(Command::new("apt-get").args(["indextargets", "--format", format]))?;
        Self::among(&String::from_utf8_lossy(&targets)).ok_or(Error::NoMirror)
    }

    /// Picks from lines of "address release component".
    fn among(targets: &str) -> Option<Self> {
        let mut by_kind = BTreeMap::new();
        for line in targets.lines() {
            let mut words = line.split_whitespace();
            let (Some(site), Some(release), Some("main")) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let last = site.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let security = release.ends_with("-security");
            if last == "debian" && !security || last == "debian-security" && security {
                by_kind.entry(security).or_insert_with(|| site.to_owned());
            }
        }
        Some(Self { main: by_kind.remove(&false)?, security: by_kind.remove(&true) })
    }
}

/// Among stanzas of one package (newest first), the first dependency that starts with `prefix`, and its version.
fn newest_dependency(stanzas: &str, prefix: &str) -> Option<(String, String)> {
    stanzas.lines().filter_map(|line| line.strip_prefix("Depends: ")).find_map(|depends| {
        let dependency = depends.split(", ").find(|one| one.starts_with(prefix))?;
        let (name, rest) = dependency.split_once(" (= ")?;
        Some((name.to_owned(), rest.strip_suffix(')')?.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_6_1_does_not_match_6_12() {
        let stanzas = "Package: linux-image-amd64\nVersion: 6.12.9-1\nDepends: linux-image-6.12.9-amd64 (= 6.12.9-1)\n\n\
                       Package: linux-image-amd64\nVersion: 6.1.7-1\nDepends: linux-image-6.1.0-50-amd64 (= 6.1.7-1)\n";
        let found = newest_dependency(stanzas, "linux-image-6.1.");
        assert_eq!(found, Some(("linux-image-6.1.0-50-amd64".into(), "6.1.7-1".into())));
        assert_eq!(newest_dependency(stanzas, "linux-image-5.10."), None);
    }

    #[test]
    fn the_mirror_is_the_hosts_debian_and_no_other_archive() {
        let targets = "http://one.example/linux/debian-extra bookworm main\nhttp://two.example/debian bookworm main\n\
                       http://two.example/debian-security bookworm-security main\nhttp://three.example/ubuntu noble main\n";
        let found = Mirror::among(targets);
        let main = "http://two.example/debian".to_owned();
        assert_eq!(found, Some(Mirror { main, security: Some("http://two.example/debian-security".into()) }));
        assert_eq!(Mirror::among("http://three.example/ubuntu noble main\n"), None);
    }
}
