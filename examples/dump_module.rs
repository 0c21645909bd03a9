//! Writes a module of the kernel to standard output, as it lies in memory:
//! `cargo run -p memflow-examples --bin dump_module -- demo > module.bin`
#![expect(clippy::print_stderr, reason = "a program for a terminal")]

use std::{
    error::Error,
    io::{Read, Seek, SeekFrom, Write, stdout},
};

use memflow_core::{PageSize, VirtRange, os::Os, view::Cursor};

fn main() -> Result<(), Box<dyn Error>> {
    let os = memflow_examples::os()?;
    let modules = os.modules()?.into_complete()?;
    let module = modules.iter().max_by_key(|module| module.size).ok_or("the kernel has no modules")?;
    let range = VirtRange::new(module.base, module.size).ok_or("a module that leaves the address space")?;

    // A range of memory as a file. What is not there is written as zeros, and told.
    let mut file = Cursor::new(os.kernel_view(), range);
    let (mut out, mut missing) = (stdout().lock(), 0);
    let mut buf = vec![0; 1 << 16];
    loop {
        match file.read(&mut buf) {
            Ok(0) => break,
            Ok(read) => out.write_all(buf.get(..read).unwrap_or_default())?,
            Err(_) => {
                let page = PageSize::KIB_4.bytes() - file.address().map_or(0, |at| at.page_offset(PageSize::KIB_4));
                let gap = page.min(range.len() - file.stream_position()?);
                out.write_all(&vec![0; usize::try_from(gap)?])?;
                file.seek(SeekFrom::Current(i64::try_from(gap)?))?;
                missing += gap;
            }
        }
    }
    eprintln!("{}: {} bytes from {}, {missing} missing", module.name, range.len(), module.base);
    Ok(())
}
