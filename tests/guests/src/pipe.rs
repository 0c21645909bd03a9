//! What another program writes to a file, taken as it comes: the file is a pipe with a name.
//!
//! Owns: the pipe's life, and copies with holes. Must not know: who writes, and what.
//! Keeps: of what goes through, nothing lies on a disk but what the reader puts there; nobody waits for a writer that never came.
//! Source: fifo(7), `open(2)` of one for reading and writing does not wait.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use crate::error::{Result, WithPath};
use crate::tool;

const PAGE: usize = 4096;

/// Has `write` make another program write to the path that it is given, and `take` read that meanwhile. The pipe is made in `folder`
/// and removed.
///
/// # Errors
/// What `write` or `take` says; the pipe cannot be made.
pub fn piped<T: Send>(
    folder: &Path,
    write: impl FnOnce(&Path) -> Result<()>,
    take: impl FnOnce(&mut File) -> io::Result<T> + Send,
) -> Result<T> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let path = folder.join(format!("pipe-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    tool::run(Command::new("mkfifo").arg(&path))?;
    let (opened, open) = mpsc::channel();
    let (written, taken) = std::thread::scope(|scope| {
        let reader = &path;
        let taking = scope.spawn(move || {
            let mut pipe = File::open(reader)?;
            // Nobody listens any more only where the writer is through.
            let _ = opened.send(());
            let taken = take(&mut pipe);
            // A reader that gave up would leave the writer waiting.
            io::copy(&mut pipe, &mut io::sink())?;
            taken
        });
        let end = End(&path, open);
        let written = write(&path);
        drop(end);
        (written, taking.join().unwrap_or_else(|_| Err(io::Error::other("the reader of the pipe panicked"))))
    });
    let removed = std::fs::remove_file(&path);
    written?;
    let taken = taken.at(&path)?;
    removed.at(path)?;
    Ok(taken)
}

/// Ends the wait of a reader whose writer did not come, also when it was to be made to come by something that panicked.
struct End<'a>(&'a Path, mpsc::Receiver<()>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        // Held until the reader is there: one that came later would wait for the next writer.
        let writer = File::options().read(true).write(true).open(self.0);
        if writer.is_ok() {
            let _ = self.1.recv();
        }
    }
}

/// All that comes, in memory.
pub(crate) fn in_memory(pipe: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).map(|_| bytes)
}

/// Writes all that comes to a new file, with holes for pages of zeros.
///
/// # Errors
/// Reading or writing fails.
pub fn keep_sparse(from: &mut impl Read, to: &Path) -> io::Result<()> {
    let file = File::create(to)?;
    let mut block = vec![0; 16 * PAGE];
    let mut at = 0;
    loop {
        let mut len = 0;
        while let Some(room) = block.get_mut(len..).filter(|room| !room.is_empty()) {
            match from.read(room) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Some(filled) = block.get(..len).filter(|filled| !filled.is_empty()) else { break };
        for (number, page) in (0u64..).zip(filled.chunks(PAGE)) {
            if [0; PAGE].get(..page.len()) != Some(page) {
                file.write_all_at(page, at + number * PAGE as u64)?;
            }
        }
        at += len as u64;
    }
    file.set_len(at)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::error::unexpected;

    #[test]
    fn what_is_written_arrives_and_zeros_take_no_room() {
        let folder = std::env::temp_dir().join(format!("memflow-pipe-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut bytes = vec![0; 40 << 20];
        bytes[5 << 20..][..4].copy_from_slice(b"some");
        bytes.push(7);
        let kept = folder.join("kept");
        let write = |path: &Path| std::fs::write(path, &bytes).at(path);
        piped(&folder, write, |pipe| keep_sparse(pipe, &kept)).unwrap();
        assert!(std::fs::read(&kept).unwrap() == bytes);
        assert!(std::fs::metadata(&kept).unwrap().blocks() * 512 < 1 << 20);

        // A writer that never comes, and one that is read no further.
        let refused = piped(&folder, |_| Err(unexpected("a writer", "a word", "")), in_memory).unwrap_err().to_string();
        assert!(refused.contains("a writer"), "{refused}");
        let gave_up = piped(&folder, write, |_| Err::<(), _>(io::Error::other("enough"))).unwrap_err().to_string();
        assert!(gave_up.contains("enough"), "{gave_up}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "no pipe is left");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
