//! The agent's record stream, unpacked into a folder.
//!
//! Owns: record framing and the check that a path stays inside the folder.
//! Must not know: what the files mean.
//! Keeps: a cut or damaged stream is an error; what the guest could not read is listed in `errors.txt`.
//! Source: `guest/agent.c`.

use std::path::{Component, Path};

use crate::error::{Result, WithPath, unexpected};

/// Writes every record of a stream below `folder`; links become files that hold their target.
pub(crate) fn unpack(stream: &[u8], folder: &Path) -> Result<()> {
    let mut rest = stream;
    let mut errors = String::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let (head, tail) = rest.split_at(end);
        let head = String::from_utf8_lossy(head).into_owned();
        let bad = || unexpected("truth stream", "F, L or E, a number and a path", &head);
        let mut words = head.splitn(3, ' ');
        let (Some(kind), Some(number), Some(path)) = (words.next(), words.next(), words.next()) else {
            return Err(bad());
        };
        let number: usize = number.parse().map_err(|_| bad())?;
        let tail = tail.get(1..).ok_or_else(bad)?;
        match kind {
            "F" | "L" => {
                let body = tail.get(..number).ok_or_else(bad)?;
                write(folder, path, body)?;
                rest = tail.get(number..).unwrap_or_default();
            }
            "E" => {
                errors.push_str(&format!("{number} {path}\n"));
                rest = tail;
            }
            _ => return Err(bad()),
        }
    }
    write(folder, "errors.txt", errors.as_bytes())
}

fn write(folder: &Path, path: &str, body: &[u8]) -> Result<()> {
    if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(unexpected("truth stream", "a path inside the folder", path));
    }
    let target = folder.join(path);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).at(parent)?;
    }
    std::fs::write(&target, body).at(target)
}
