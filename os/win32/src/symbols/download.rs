//! Files of symbols from a server.
//!
//! Owns: one file's way from a server into a store: requests, repetition, limits. Must not know: which server, why it is asked.
//! Keeps: what is in the store under its own name was verified; what is not yet complete has the ending `.part` and is gone on with.
//! Each wait has an end, as has the number of bytes. One program at a time writes a file.
//! Source: RFC 9110, 14 (ranges); Microsoft, "SymStore": a server's folders are those of a store.

use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError, create_dir_all, remove_file, rename},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    pdb::Pdb,
    store::{self, MAX_FILE},
};
use crate::{kernel::ProgressFn, pe::CodeView};

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;
/// Requests for one file, as long as each brings something.
const MAX_REQUESTS: u32 = 32;
/// Requests in a row that bring nothing.
const MAX_IDLE: u32 = 2;
const MAX_REDIRECTS: u32 = 5;
const STAGE: &str = "downloading symbols";

/// How long is waited, and how much is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For a connection, with names and keys.
    pub(super) connect: Duration,
    /// For the first line of an answer.
    pub(super) answer: Duration,
    /// For the next bytes.
    pub(super) bytes: Duration,
    /// For one request in all; the file is gone on with by the next.
    pub(super) request: Duration,
    /// Bytes of a file.
    pub(super) file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(30),
            bytes: Duration::from_secs(30),
            request: Duration::from_secs(300),
            file: MAX_FILE,
        }
    }
}

/// Why there is no file.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server has none.
    NotThere,
    /// It answered otherwise than expected.
    Status(u16),
    /// The connection, its keys, or a wait that was too long.
    Connection(Box<ureq::Error>),
    /// It stopped in the middle, again and again: bytes that are kept for the next time.
    Incomplete(u64, String),
    /// More bytes than any file has.
    TooLarge(u64),
    /// What came is not what was asked for.
    Wrong(String),
    /// This machine cannot keep it.
    Io(PathBuf, io::Error),
    /// Another program is at it.
    Busy(PathBuf),
    /// The caller wants to stop.
    Cancelled,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere => write!(f, "the server has no symbols of this build"),
            Self::Status(status) => write!(f, "the server answers with status {status}"),
            Self::Connection(error) => write!(f, "{error}"),
            Self::Incomplete(kept, why) => {
                write!(
                    f,
                    "the server stopped before the end ({why}); {kept} bytes are kept, the next time goes on there"
                )
            }
            Self::TooLarge(limit) => write!(f, "more than {} MiB, which no file of symbols has", limit >> 20),
            Self::Wrong(why) => write!(f, "the server sent something else: {why}"),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Busy(path) => write!(f, "{}: another program downloads this file", path.display()),
            Self::Cancelled => write!(f, "cancelled"),
        }
    }
}

/// What one request brought.
enum Brought {
    /// The file is complete.
    All,
    /// There is more, for this reason it did not come.
    Part(String),
}

/// A download in progress.
struct Download<'a> {
    agent: ureq::Agent,
    url: String,
    limits: &'a Limits,
    progress: Option<&'a ProgressFn<'a>>,
    path: PathBuf,
    file: File,
    /// Bytes that are in the file.
    have: u64,
}

/// Fetches a file into a store, to `path`.
///
/// # Errors
/// Why there is none. Nothing is at `path` then; what came so far may be beside it, for the next time.
pub(super) fn fetch(
    server: &str,
    wanted: &CodeView,
    path: &Path,
    limits: &Limits,
    progress: Option<&ProgressFn<'_>>,
) -> Result<Pdb, Failure> {
    let url =
        format!("{}/{}/{}{:X}/{}", server.trim_end_matches('/'), wanted.name, wanted.guid, wanted.age, wanted.name);
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // What begins under protection stays there.
        .https_only(server.to_ascii_lowercase().starts_with("https://"))
        .max_redirects(MAX_REDIRECTS)
        // A connection that waits may have been closed by the other side.
        .max_idle_connections(0)
        .timeout_resolve(Some(limits.connect))
        .timeout_connect(Some(limits.connect))
        .timeout_recv_response(Some(limits.answer))
        .timeout_per_read(Some(limits.bytes))
        .timeout_global(Some(limits.request))
        .tls_config(ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build())
        .user_agent(concat!("memflow/", env!("CARGO_PKG_VERSION")))
        .build();
    let part = part_of(path);
    let io_error = |error| Failure::Io(part.clone(), error);
    if let Some(folder) = part.parent() {
        create_dir_all(folder).map_err(io_error)?;
    }
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part).map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Failure::Busy(part)),
        Err(TryLockError::Error(error)) => return Err(io_error(error)),
    }
    let have = file.seek(SeekFrom::End(0)).map_err(io_error)?;
    let mut download = Download { agent: config.new_agent(), url, limits, progress, path: part.clone(), file, have };
    let fetched = download.verified(wanted);
    match fetched {
        Ok(pdb) => {
            download.file.sync_all().map_err(io_error)?;
            rename(&part, path).map_err(|error| Failure::Io(path.to_owned(), error))?;
            Ok(pdb)
        }
        Err(failure) => {
            // What can be gone on with stays, all else goes.
            let keep = matches!(failure, Failure::Incomplete(..) | Failure::Connection(_) | Failure::Cancelled);
            if !keep || download.have == 0 {
                drop(remove_file(&part));
            }
            Err(failure)
        }
    }
}

/// The name of a file that is not complete.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

impl Download<'_> {
    fn io(&self, error: io::Error) -> Failure {
        Failure::Io(self.path.clone(), error)
    }

    /// The whole file, if it is the one that is wanted. What was kept of an earlier time and turns out wrong is fetched once more.
    fn verified(&mut self, wanted: &CodeView) -> Result<Pdb, Failure> {
        let went_on = self.have > 0;
        self.whole()?;
        match self.parse(wanted) {
            Err(Failure::Wrong(_)) if went_on => {
                self.restart()?;
                self.whole()?;
                self.parse(wanted)
            }
            result => result,
        }
    }

    fn parse(&mut self, wanted: &CodeView) -> Result<Pdb, Failure> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0)).map_err(|error| self.io(error))?;
        (&self.file).take(self.limits.file).read_to_end(&mut bytes).map_err(|error| self.io(error))?;
        store::verified(&bytes, wanted).map_err(Failure::Wrong)
    }

    fn restart(&mut self) -> Result<(), Failure> {
        self.have = 0;
        self.file.set_len(0).map_err(|error| self.io(error))
    }

    /// All bytes, by as many requests as that takes.
    fn whole(&mut self) -> Result<(), Failure> {
        let mut idle = 0;
        for _ in 0..MAX_REQUESTS {
            let before = self.have;
            let why = match self.request() {
                Ok(Brought::All) => return Ok(()),
                Ok(Brought::Part(why)) => why,
                // A server that was there a moment ago may be there again.
                Err(Failure::Connection(error)) if before > 0 => error.to_string(),
                Err(failure) => return Err(failure),
            };
            idle = if self.have > before { 0 } else { idle + 1 };
            if idle >= MAX_IDLE {
                return Err(Failure::Incomplete(self.have, why));
            }
        }
        Err(Failure::Incomplete(self.have, format!("{MAX_REQUESTS} requests")))
    }

    /// One request, for what is not there yet.
    fn request(&mut self) -> Result<Brought, Failure> {
        let mut request = self.agent.get(&self.url);
        if self.have > 0 {
            request = request.header("range", format!("bytes={}-", self.have));
        }
        let response = request.call().map_err(|error| Failure::Connection(Box::new(error)))?;
        match response.status().as_u16() {
            200 => self.restart()?,
            206 => {
                let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
                if range.and_then(starts_at) != Some(self.have) {
                    self.restart()?;
                    return Ok(Brought::Part("another range than was asked for".to_owned()));
                }
            }
            // What is kept is as long as the file, or longer: it shows when it is verified.
            416 if self.have > 0 => return Ok(Brought::All),
            404 | 410 => return Err(Failure::NotThere),
            status => return Err(Failure::Status(status)),
        }
        let length = response.headers().get("content-length").and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
        let total = length.map(|length| self.have.saturating_add(length));
        if total.is_some_and(|total| total > self.limits.file) {
            return Err(Failure::TooLarge(self.limits.file));
        }
        self.body(response.into_body().into_with_config().limit(u64::MAX).reader(), total)
    }

    /// The bytes of an answer, behind those that are there.
    fn body(&mut self, mut body: impl Read, total: Option<u64>) -> Result<Brought, Failure> {
        self.file.seek(SeekFrom::Start(self.have)).map_err(|error| self.io(error))?;
        let mut piece = vec![0; PIECE];
        loop {
            if self.progress.is_some_and(|progress| progress(STAGE, self.have, total.unwrap_or(self.have)).is_break()) {
                return Err(Failure::Cancelled);
            }
            let bytes = match body.read(&mut piece) {
                Ok(0) if total.is_some_and(|total| self.have < total) => {
                    return Ok(Brought::Part("the connection ended".to_owned()));
                }
                Ok(0) => return Ok(Brought::All),
                Ok(len) => piece.get(..len).unwrap_or_default(),
                Err(error) => return Ok(Brought::Part(error.to_string())),
            };
            self.have = self.have.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if self.have > self.limits.file {
                return Err(Failure::TooLarge(self.limits.file));
            }
            self.file.write_all(bytes).map_err(|error| Failure::Io(self.path.clone(), error))?;
        }
    }
}

/// The first byte of a range: `bytes 100-199/200`.
fn starts_at(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests;
