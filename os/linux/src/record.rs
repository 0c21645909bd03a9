//! Structures of the kernel, read by field.
//!
//! Owns: [`Span`], the part of a structure that holds a set of its fields, and [`Record`], that part of one instance, read once.
//! Must not know: which structures there are, how their fields were found.
//! Keeps: one read per instance, one batch for many; a number is only taken from bytes that were read.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryView, VirtAddr,
    error::{Error, Result},
    memory::{Outcome, ViewRead},
};

use crate::types::{Field, Types};

/// No structure of the kernel that is read here comes near this size; type information that claims more is damaged.
const MAX_SPAN: u64 = 64 << 10;

/// Largest structure of the kernel that is read in arrays; those that are have below 100 bytes.
const MAX_ENTRY: u64 = 512;

/// Size in bytes of a structure that lies in arrays.
///
/// # Errors
/// [`Error::NotFound`] when there is no such type, [`Error::Unsupported`] when it is larger than any: a length that is a multiple
/// of it must neither wrap nor ask for all memory.
pub(crate) fn entry_size(types: &Types, structure: &'static str) -> Result<u64> {
    let size = types.size_of(structure)?;
    if size > MAX_ENTRY {
        return Err(Error::Unsupported {
            what: format!("a kernel whose {structure} has {size} bytes"),
            why: format!("at most {MAX_ENTRY} are expected; its type information looks damaged"),
        });
    }
    Ok(size)
}

/// The part of a structure that holds a set of its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    structure: &'static str,
    start: u64,
    len: u64,
}

impl Span {
    /// The smallest part of `structure` that holds all of `fields`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the fields lie further apart than any structure of the kernel is large.
    pub(crate) fn of(structure: &'static str, fields: impl IntoIterator<Item = Field>) -> Result<Self> {
        let mut start = u64::MAX;
        let mut end = 0;
        for field in fields {
            start = start.min(field.offset);
            end = end.max(field.offset.saturating_add(field.size));
        }
        let len = end.saturating_sub(start);
        if len > MAX_SPAN {
            return Err(Error::Unsupported {
                what: format!("a kernel whose {structure} has {len} bytes"),
                why: format!("at most {MAX_SPAN} are expected; its type information looks damaged"),
            });
        }
        Ok(Self { structure, start: start.min(end), len })
    }
}

/// The fields of one structure of the kernel, as read.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    address: VirtAddr,
    span: Span,
    bytes: Vec<u8>,
}

impl Record {
    /// Reads `span` of the structure at `address`.
    pub(crate) fn read(view: &dyn MemoryView, address: VirtAddr, span: Span) -> Result<Self> {
        read_each(view, [(address, span)]).pop().unwrap_or_else(|| Err(Self::unanswered(0)))
    }

    fn unanswered(index: usize) -> Error {
        Error::Unanswered { who: "kernel view".to_owned(), index }
    }

    /// The address of the structure.
    pub(crate) fn address(&self) -> VirtAddr {
        self.address
    }

    /// `len` bytes at `offset` of the structure.
    pub(crate) fn slice(&self, offset: u64, len: u64) -> Result<&[u8]> {
        let inside = || {
            let from = usize::try_from(offset.checked_sub(self.span.start)?).ok()?;
            let to = from.checked_add(usize::try_from(len).ok()?)?;
            self.bytes.get(from..to)
        };
        inside().ok_or_else(|| Error::Range { address: self.address.wrapping_add(offset).into(), len })
    }

    /// The bytes of a field.
    pub(crate) fn bytes(&self, field: Field) -> Result<&[u8]> {
        self.slice(field.offset, field.size)
    }

    /// `len` bytes at an address that lies in the part that was read; `None` when it does not.
    pub(crate) fn bytes_at(&self, address: VirtAddr, len: u64) -> Option<&[u8]> {
        self.slice(address.offset_from(self.address)?, len).ok()
    }

    /// The number in a field of up to eight bytes (little-endian, as on every supported architecture).
    pub(crate) fn number(&self, field: Field) -> Result<u64> {
        let bytes = self.bytes(field)?;
        let mut value = [0; 8];
        match value.get_mut(..bytes.len()) {
            Some(low) if !bytes.is_empty() => low.copy_from_slice(bytes),
            _ => {
                return Err(Error::Corrupt {
                    what: self.span.structure,
                    address: self.address.wrapping_add(field.offset).into(),
                    expected: "a field of 1 to 8 bytes".into(),
                    found: format!("{} bytes", field.size).into(),
                });
            }
        }
        Ok(u64::from_le_bytes(value))
    }

    /// The number in a field of at most four bytes.
    pub(crate) fn u32(&self, field: Field) -> Result<u32> {
        let value = self.number(field)?;
        u32::try_from(value).map_err(|_| Error::Corrupt {
            what: self.span.structure,
            address: self.address.wrapping_add(field.offset).into(),
            expected: "a 32-bit number".into(),
            found: format!("{value:#x}").into(),
        })
    }

    /// The address in a pointer field.
    pub(crate) fn pointer(&self, field: Field) -> Result<VirtAddr> {
        self.number(field).map(VirtAddr::new)
    }

    /// The number at `index` of an array of numbers of `size` bytes.
    pub(crate) fn element(&self, array: Field, index: u64, size: u64) -> Result<u64> {
        let offset = index.checked_mul(size).and_then(|at| at.checked_add(array.offset));
        let offset = offset.ok_or(Error::Range { address: self.address.into(), len: size })?;
        self.number(Field { offset, size, bits: None })
    }

    /// The two pointers of a `struct list_head`: next, previous.
    pub(crate) fn links(&self, node: Field) -> Result<(VirtAddr, VirtAddr)> {
        let size = node.size.checked_div(2).unwrap_or_default();
        let next = self.element(node, 0, size)?;
        let previous = self.element(node, 1, size)?;
        Ok((VirtAddr::new(next), VirtAddr::new(previous)))
    }

    /// The text in a character array, up to its first zero byte.
    pub(crate) fn text(&self, field: Field) -> Result<String> {
        self.bytes(field).map(text)
    }
}

/// Text up to the first zero byte; bytes that are not UTF-8 become replacement characters.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// Reads many structures with one batch; one answer for each request, in its order.
pub(crate) fn read_each(
    view: &dyn MemoryView,
    requests: impl IntoIterator<Item = (VirtAddr, Span)>,
) -> Vec<Result<Record>> {
    let mut records: Vec<Record> = requests
        .into_iter()
        // A span has at most `MAX_SPAN` bytes.
        .map(|(address, span)| Record { address, span, bytes: vec![0; usize::try_from(span.len).unwrap_or_default()] })
        .collect();
    let mut ops: Vec<ViewRead<'_>> = records
        .iter_mut()
        .map(|record| ViewRead::new(record.address.wrapping_add(record.span.start), &mut record.bytes))
        .collect();
    // Each failure is in its own outcome; an operation without one is told apart below.
    let _ = view.read_batch(&mut ops);
    let outcomes: Vec<Outcome> = ops.iter().map(|op| op.outcome).collect();
    records
        .into_iter()
        .zip(outcomes)
        .enumerate()
        .map(|(index, (record, outcome))| match outcome {
            Outcome::Done => Ok(record),
            Outcome::Failed { reason, .. } => Err(Error::Access {
                kind: memflow_core::error::AccessKind::Read,
                address: record.address.wrapping_add(record.span.start).into(),
                len: record.span.len,
                reason,
            }
            .context(record.span.structure)),
            Outcome::NotAttempted => Err(Record::unanswered(index)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

    use super::*;
    use crate::testing::Memory;

    const fn field(offset: u64, size: u64) -> Field {
        Field { offset, size, bits: None }
    }

    #[test]
    fn span_is_what_the_fields_need_and_no_more() {
        let span = Span::of("s", [field(0x20, 8), field(0x10, 4)]).unwrap();
        assert_eq!((span.start, span.len), (0x10, 0x18));
        let mut memory = Memory::default();
        memory.put_u32(0x1010, 7).zero(0x1014, 12).put_u64(0x1020, u64::MAX);
        let record = Record::read(&memory, VirtAddr::new(0x1000), span).unwrap();
        assert_eq!(record.u32(field(0x10, 4)).unwrap(), 7);
        assert_eq!(record.number(field(0x20, 8)).unwrap(), u64::MAX);
        assert!(matches!(record.u32(field(0x20, 8)), Err(Error::Corrupt { .. })));
        assert!(matches!(record.number(field(0x28, 1)), Err(Error::Range { .. })));
        assert!(matches!(record.number(field(0x8, 8)), Err(Error::Range { .. })));
        assert!(matches!(record.number(field(0x10, 16)), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn damaged_type_information_is_not_allocated_for() {
        assert!(matches!(Span::of("s", [field(0, 8), field(1 << 40, 8)]), Err(Error::Unsupported { .. })));
        assert!(matches!(Span::of("s", [field(0, 8), field(u64::MAX, 8)]), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn entries_of_arrays_have_a_sane_size() {
        use crate::types::synthetic::Builder;
        let mut b = Builder::new();
        let int = b.int("int", 4, 32);
        let row = b.array(int, int, u32::MAX);
        let table = b.array(row, int, 1 << 29);
        b.modifier(8, "prb_desc", table);
        b.structure("printk_info", 88, &[]);
        b.structure("kernel_symbol", 513, &[]);
        let types = Types::parse(b.section()).unwrap();
        assert_eq!(entry_size(&types, "printk_info").unwrap(), 88);
        // A typedef of an array has any size; times a count it would not fit 64 bits.
        assert!(types.size_of("prb_desc").unwrap() > u64::MAX / 4);
        assert!(matches!(entry_size(&types, "prb_desc"), Err(Error::Unsupported { .. })));
        assert!(matches!(entry_size(&types, "kernel_symbol"), Err(Error::Unsupported { .. })));
        assert!(matches!(entry_size(&types, "printk_log"), Err(Error::NotFound { .. })));
    }

    #[test]
    fn many_records_are_one_batch_and_each_has_its_own_answer() {
        let span = Span::of("s", [field(0, 8)]).unwrap();
        let mut memory = Memory::default();
        memory.put_u64(0x1000, 1).put_u64(0x3000, 3);
        let records = read_each(&memory, [0x1000, 0x2000, 0x3000].map(|at| (VirtAddr::new(at), span)));
        assert_eq!(memory.calls(), 1);
        assert_eq!(records[0].as_ref().unwrap().number(field(0, 8)).unwrap(), 1);
        assert_eq!(records[1].as_ref().unwrap_err().reason(), Some(memflow_core::Reason::OutOfRange));
        assert_eq!(records[2].as_ref().unwrap().number(field(0, 8)).unwrap(), 3);
    }

    #[test]
    fn text_ends_at_the_terminator_or_with_the_field() {
        assert_eq!(text(b"init\0rest"), "init");
        assert_eq!(text(b"full"), "full");
        assert_eq!(text(b"a\xffb\0"), "a\u{fffd}b");
    }
}
