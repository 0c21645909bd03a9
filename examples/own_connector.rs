//! A connector of one's own: memory that keeps equal pages once, and a kernel that is found in it.
//! `cargo run -p memflow-examples --bin own_connector -- demo`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{
    collections::{BTreeMap, HashSet},
    error::Error,
    sync::Arc,
};

use memflow_core::{
    MemoryViewExt, PageSize, PhysAddr, PhysicalMemory, Reason, Result,
    memory::{
        Liveness, Metadata, Outcome, PhysRead, PhysWrite, PhysicalMemoryExt, RunMap, TargetFacts, finish_reads,
        finish_writes,
    },
    os::Os,
};
use memflow_linux::{LinuxOptions, LinuxOs};

const PAGE: PageSize = PageSize::KIB_4;

/// Pages by address; those with the same bytes are the same page.
struct SharedPages {
    pages: BTreeMap<PhysAddr, Arc<[u8]>>,
    runs: Arc<RunMap>,
    facts: TargetFacts,
}

impl SharedPages {
    /// Copies other memory page by page; its runs begin and end with a page.
    fn copy_of(memory: &dyn PhysicalMemory) -> Result<Self> {
        let runs = memory.metadata().runs;
        let mut known: HashSet<Arc<[u8]>> = HashSet::new();
        let mut pages = BTreeMap::new();
        let mut page = vec![0; PAGE.bytes() as usize];
        for run in runs.runs() {
            for offset in (0..run.range.len()).step_by(page.len()) {
                let at = run.range.start().wrapping_add(offset);
                memory.read_into(at, &mut page)?;
                let shared = match known.get(&*page) {
                    Some(shared) => shared.clone(),
                    None => Arc::from(&*page),
                };
                known.insert(shared.clone());
                pages.insert(at, shared);
            }
        }
        println!("{} pages, {} of them different", pages.len(), known.len());
        Ok(Self { pages, runs, facts: memory.facts().clone() })
    }

    /// Reads one range. Bytes that are not there are an outcome, never zeros.
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Outcome {
        let mut outcome = Outcome::Done;
        let (mut at, mut offset) = (addr, 0);
        let (first, rest) = buf.split_at_mut(buf.len().min((PAGE.bytes() - addr.page_offset(PAGE)) as usize));
        for part in std::iter::once(first).chain(rest.chunks_mut(PAGE.bytes() as usize)) {
            let inside = at.page_offset(PAGE) as usize;
            match self.pages.get(&at.page_base(PAGE)) {
                Some(page) => part.copy_from_slice(&page[inside..inside + part.len()]),
                None => outcome.fail(offset, Reason::NotInImage { phys: at }),
            }
            offset += part.len() as u64;
            at = at.wrapping_add(part.len() as u64);
        }
        outcome
    }
}

impl PhysicalMemory for SharedPages {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        for op in &mut *ops {
            op.outcome = self.read(op.addr, op.buf);
        }
        finish_reads("shared pages", ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        for op in &mut *ops {
            op.outcome.fail(0, Reason::ReadOnly);
        }
        finish_writes("shared pages", ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: "shared pages".into(),
            runs: self.runs.clone(),
            liveness: Liveness::Frozen,
            read_only: true,
            ideal_batch: usize::MAX,
        }
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let memory = Arc::new(SharedPages::copy_of(&*memflow_examples::memory()?)?);

    // Everything works on it as on any other memory.
    let os = LinuxOs::open(memory.clone(), &LinuxOptions::default())?;
    let symbols = os.symbols_named("linux_banner")?;
    let banner = symbols.first().ok_or("the kernel has no banner")?.address;
    match os.kernel_space().translate(&*memory, banner) {
        Ok(found) => println!("linux_banner: {banner} is at physical {} in a page of {}", found.phys, found.page),
        Err(reason) => println!("linux_banner: {reason}"),
    }
    println!("{}", os.kernel_view().read_utf8_lossy(banner, 512)?.trim_end());
    Ok(())
}
