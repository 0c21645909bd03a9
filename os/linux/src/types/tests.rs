//! Type information of every kind, read back. Expected offsets are those that a C compiler gives the structures in the comments.

use memflow_core::Error;

use super::{Field, Types, synthetic::Builder};

fn at(offset: u64, size: u64) -> Option<Field> {
    Some(Field { offset, size, bits: None })
}

/// Every kind, in one section.
///
/// ```c
/// struct list_head { struct list_head *next, *prev; };
/// typedef struct { int counter; } atomic_t;
/// struct task {
///     atomic_t usage;                         // 0
///     union { struct list_head sibling;       // 8
///             struct { long a; const volatile char comm[16]; }; };   // a 8, comm 16
///     struct memory { void *base; unsigned size; } mem[3];           // 32, 16 bytes each
///     unsigned flags : 3, wide : 7;           // bits 0 and 3 of the word at 80
/// };
/// ```
fn everything() -> Builder {
    let mut b = Builder::new();
    let int = b.int("int", 4, 32);
    let long = b.int("long int", 8, 64);
    let char = b.int("char", 1, 8);
    let unsigned = b.int("unsigned int", 4, 32);
    let void_pointer = b.pointer(0);
    let list_pointer = b.pointer(int + 6);
    let list = b.structure("list_head", 16, &[("next", list_pointer, 0, 0), ("prev", list_pointer, 64, 0)]);
    assert_eq!(list, int + 6);
    let counter = b.structure("", 4, &[("counter", int, 0, 0)]);
    let atomic = b.modifier(8, "atomic_t", counter);
    let comm = b.array(char, int, 16);
    let volatile = b.modifier(9, "", comm);
    let constant = b.modifier(10, "", volatile);
    let restrict = b.modifier(11, "", constant);
    let tagged = b.modifier(18, "user", restrict);
    let inner = b.structure("", 24, &[("a", long, 0, 0), ("comm", tagged, 64, 0)]);
    let either = b.union("", 24, &[("sibling", list, 0, 0), ("", inner, 0, 0)]);
    let memory = b.structure("memory", 16, &[("base", void_pointer, 0, 0), ("size", unsigned, 64, 0)]);
    let memories = b.array(memory, int, 3);
    b.structure(
        "task",
        88,
        &[
            ("usage", atomic, 0, 0),
            ("", either, 64, 0),
            ("mem", memories, 256, 0),
            ("flags", unsigned, 640, 3),
            ("wide", unsigned, 643, 7),
        ],
    );
    let (minus, plus) = (b.name("MINUS_ONE"), b.name("PLUS"));
    b.record("level", 6, true, 2, 4, &[minus, u32::MAX, plus, 7]);
    let big = b.name("BIG");
    b.record("", 6, false, 1, 4, &[big, u32::MAX]);
    let huge = b.name("HUGE");
    let wide = b.record("wide_level", 19, false, 1, 8, &[huge, 1, 0x8000_0000]);
    b.modifier(8, "wide_t", wide);
    b.record("absent", 7, false, 0, 0, &[]);
    let proto = b.record("", 13, false, 2, int, &[0, int, 0, 0]);
    b.record("main", 12, false, 1, proto, &[]);
    let variable = b.record("jiffies", 14, false, 0, long, &[1]);
    b.record(".data..percpu", 15, false, 1, 8, &[variable, 0, 8]);
    b.record("double", 16, false, 0, 8, &[]);
    b.record("tag", 17, false, 0, list, &[u32::MAX]);
    b
}

#[test]
fn every_kind_is_read_and_members_lie_where_a_compiler_puts_them() {
    let types = Types::parse(everything().section()).unwrap();
    assert_eq!(types.find_field("task", "usage"), at(0, 4));
    assert_eq!(types.find_field("task", "usage.counter"), at(0, 4));
    assert_eq!(types.find_field("task", "sibling"), at(8, 16));
    assert_eq!(types.find_field("task", "sibling.prev"), at(16, 8));
    assert_eq!(types.find_field("task", "a"), at(8, 8));
    assert_eq!(types.find_field("task", "comm"), at(16, 16));
    assert_eq!(types.find_field("task", "comm[5]"), at(21, 1));
    assert_eq!(types.find_field("task", "mem"), at(32, 48));
    assert_eq!(types.find_field("task", "mem.size"), at(40, 4));
    assert_eq!(types.find_field("task", "mem[2].size"), at(72, 4));
    assert_eq!(types.find_field("task", "flags"), Some(Field { offset: 80, size: 1, bits: Some((0, 3)) }));
    assert_eq!(types.find_field("task", "wide"), Some(Field { offset: 80, size: 2, bits: Some((3, 7)) }));
    assert_eq!(types.find_field("atomic_t", "counter"), at(0, 4));
    for (name, size) in
        [("task", 88), ("list_head", 16), ("atomic_t", 4), ("int", 4), ("double", 8), ("wide_level", 8), ("wide_t", 8)]
    {
        assert_eq!(types.size_of(name).unwrap(), size, "{name}");
    }
}

#[test]
fn constants_keep_their_sign_and_width() {
    let types = Types::parse(everything().section()).unwrap();
    assert_eq!(types.enum_value("level", "MINUS_ONE"), Some(-1));
    assert_eq!(types.enum_value("level", "PLUS"), Some(7));
    assert_eq!(types.enum_value("", "BIG"), Some(0xffff_ffff));
    assert_eq!(types.enum_value("wide_level", "HUGE"), Some(i64::MIN + 1));
    assert_eq!(types.enum_value("wide_t", "HUGE"), Some(i64::MIN + 1));
    assert_eq!(types.enum_value("", "HUGE"), Some(i64::MIN + 1));
    assert_eq!(types.enum_value("level", "BIG"), None);
    assert_eq!(types.enum_value("task", "BIG"), None);
}

#[test]
fn what_does_not_exist_is_named() {
    let types = Types::parse(everything().section()).unwrap();
    for path in ["", ".", "comm.", "nothing", "usage.nothing", "mem[3].base", "mem[x].base", "mem[", "comm[0][0]"] {
        let error = types.field("task", path).unwrap_err();
        assert_eq!(error.to_string(), format!("no field task.{path} in this target"));
    }
    // A pointer leads to another structure, whose members have no offset in this one.
    assert_eq!(types.find_field("list_head", "next.prev"), None);
    assert_eq!(types.field("nothing", "comm").unwrap_err().to_string(), "no type nothing in this target");
    assert_eq!(types.size_of("nothing").unwrap_err().to_string(), "no type nothing in this target");
    assert!(types.has("level") && !types.has("absent") && !types.has("main"));
}

#[test]
fn old_bit_fields_are_described_by_their_integer() {
    let mut b = Builder::new();
    // Without the flag, a member of a 3-bit integer at bit 5 is a bit-field.
    let narrow = b.record("unsigned int", 1, false, 0, 4, &[3]);
    let shifted = b.record("unsigned int", 1, false, 0, 4, &[2 << 16 | 4]);
    b.structure("old", 8, &[("narrow", narrow, 5, 0), ("shifted", shifted, 32, 0)]);
    let types = Types::parse(b.section()).unwrap();
    assert_eq!(types.find_field("old", "narrow"), Some(Field { offset: 0, size: 1, bits: Some((5, 3)) }));
    assert_eq!(types.find_field("old", "shifted"), Some(Field { offset: 4, size: 1, bits: Some((2, 4)) }));
}

#[test]
fn structures_of_one_name_are_all_searched() {
    let mut b = Builder::new();
    let int = b.int("int", 4, 32);
    b.modifier(8, "thing", int);
    b.structure("thing", 4, &[("first", int, 0, 0)]);
    b.structure("thing", 8, &[("second", int, 32, 0)]);
    let types = Types::parse(b.section()).unwrap();
    assert_eq!(types.find_field("thing", "first"), at(0, 4));
    assert_eq!(types.find_field("thing", "second"), at(4, 4));
}

#[test]
fn longer_header_of_later_versions_is_skipped() {
    let types = Types::parse(everything().section_with_header(32)).unwrap();
    assert_eq!(types.find_field("task", "sibling.prev"), at(16, 8));
}

#[test]
fn types_that_refer_to_themselves_end() {
    let mut b = Builder::new();
    let int = b.int("int", 4, 32);
    b.modifier(8, "self", int + 1);
    b.modifier(8, "ping", int + 3);
    b.modifier(8, "pong", int + 2);
    // An anonymous member that is the structure itself, twice, so that the ways double with each level.
    let own = int + 4;
    b.structure("nest", 8, &[("", own, 0, 0), ("", own, 32, 0), ("found", int, 0, 0)]);
    b.array(own + 1, int, 2);
    b.structure("holder", 8, &[("loop", own + 1, 0, 0)]);
    let types = Types::parse(b.section()).unwrap();
    assert!(types.size_of("self").is_err());
    assert!(types.size_of("ping").is_err());
    assert_eq!(types.find_field("nest", "missing"), None);
    assert_eq!(types.find_field("nest", "found"), at(0, 4));
    assert_eq!(types.find_field("holder", "loop"), None);
    assert_eq!(types.find_field("holder", "loop.x"), None);
}

#[test]
fn damaged_headers_say_what_is_wrong() {
    let good = everything().section();
    let damage = |at: usize, word: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        Types::parse(bytes).unwrap_err().to_string()
    };
    assert!(damage(0, 0x0001_9feb).contains("expected magic number 0xeb9f, found 0x9feb"));
    assert!(damage(0, 0x0002_eb9f).contains("expected version 1, found 2"));
    assert!(damage(4, 8).contains("a header of at least 24 bytes"));
    assert!(damage(12, u32::MAX).contains("expected types inside"));
    assert!(damage(20, u32::MAX).contains("expected strings inside"));
    assert!(damage(16, 4).contains("strings that start and end with a zero byte"));
    for len in 0..24 {
        assert!(matches!(Types::parse(&good[..len]), Err(Error::Corrupt { .. })), "{len}");
    }
    let mut b = Builder::new();
    b.record("future", 31, false, 0, 0, &[]);
    let error = Types::parse(b.section()).unwrap_err().to_string();
    assert!(error.contains("kind 31, which this version does not know"), "{error}");
    let mut b = Builder::new();
    b.record("long", 4, false, 5, 8, &[0; 12]);
    let error = Types::parse(b.section()).unwrap_err().to_string();
    assert!(error.contains("expected a type record inside the types"), "{error}");
}

#[test]
fn mutated_sections_end_in_an_answer() {
    let good = everything().section();
    let mut state = 7u64;
    let mut random = move |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    let mut parsed = 0;
    for _ in 0..12_000 {
        let mut bytes = good.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        if random(8) == 0 {
            bytes.truncate(random(bytes.len()));
        }
        let Ok(types) = Types::parse(bytes) else { continue };
        parsed += 1;
        for path in ["comm", "sibling.prev", "mem[2].size", "wide", "usage.counter", "missing"] {
            let _ = types.find_field("task", path);
        }
        let _ = types.size_of("task");
        let _ = types.enum_value("", "HUGE");
    }
    assert!(parsed > 1000, "{parsed} of the mutated sections were readable");
}

#[test]
fn names_that_share_one_long_string_take_no_longer_than_short_ones() {
    let mut b = Builder::new();
    b.int(&"x".repeat(512), 4, 32);
    b.int(&"y".repeat(513), 4, 32);
    let types = Types::parse(b.section()).unwrap();
    assert!(types.has(&"x".repeat(512)));
    // No kernel has such a name (KSYM_NAME_LEN).
    assert!(!types.has(&"y".repeat(513)));

    let mut b = Builder::new();
    b.int(&"z".repeat(1 << 20), 4, 32);
    let count = 1 << 15;
    let record: Vec<u8> = [1u32, 1 << 24, 4, 32].iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut section = b.section();
    section.splice(24..40, record.repeat(count));
    for (at, len) in [(12, 16 * count), (16, 16 * count)] {
        section[at..at + 4].copy_from_slice(&(len as u32).to_le_bytes());
    }
    let started = std::time::Instant::now();
    assert!(!Types::parse(section).unwrap().has("z"));
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

/// Structures whose anonymous members are themselves, many of the same name, and typedefs of one large enumeration.
#[test]
fn same_name_many_times_is_given_up_soon() {
    let mut b = Builder::new();
    let minus = b.name("MINUS");
    let constants: Vec<u32> = [minus, 0].repeat(1 << 14);
    let large = b.record("", 6, false, 1 << 14, 4, &constants);
    for _ in 0..1 << 13 {
        b.modifier(8, "level", large);
    }
    for id in large + (1 << 13)..large + (1 << 14) {
        b.structure("task", 8, &[("", id + 1, 0, 0), ("", id + 1, 0, 0)]);
    }
    let types = Types::parse(b.section()).unwrap();
    let started = std::time::Instant::now();
    assert_eq!(types.find_field("task", "comm"), None);
    assert_eq!(types.enum_value("level", "PLUS"), None);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}
