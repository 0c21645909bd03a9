//! The C header says what the crate says: compilers of both languages are asked.
//!
//! Owns: the comparison of names, layouts and numbers. Must not know: what the structures are for; types of members, which
//! `signatures.rs` compares.

mod common;

use std::{collections::BTreeSet, fs, process::Command};

use memflow_abi::STRUCTURES;

use crate::common::c::{C, CPP, include, printed, run};

fn header() -> String {
    fs::read_to_string(common::path("include/memflow_plugin.h")).unwrap()
}

#[test]
fn layout_in_both_languages_is_the_recorded_one() {
    let expected = if cfg!(target_pointer_width = "64") { common::golden() } else { common::render() };
    for compiler in [C, CPP] {
        let found = printed(compiler, &include(), "layout", &common::c::program(&common::Record::parse(&expected)));
        let difference = || common::first_difference(&expected, &found);
        assert!(expected == found, "{} sees another layout {}", compiler[0], difference());
    }
}

#[test]
fn header_has_no_structures_or_fields_of_its_own() {
    let header = header();
    let mut found = BTreeSet::new();
    let mut structure = None;
    for line in header.lines().filter(|line| !line.trim_start().starts_with(['/', '*'])) {
        let definition = line.strip_prefix("typedef struct memflow_").or_else(|| line.strip_prefix("struct memflow_"));
        if let Some(name) = definition.and_then(|rest| rest.strip_suffix(" {")) {
            structure = Some(name);
        } else if line.starts_with('}') {
            structure = None;
        } else if let (Some(name), Some(field)) = (structure, line.strip_suffix(';')) {
            // `type (*name)(arguments)` or `type *name`.
            let before = field.split_once(")(").map_or(field, |(before, _)| before);
            let field = before.rsplit([' ', '*']).next().unwrap();
            assert!(found.insert((name.to_owned(), field.to_owned())), "{name}.{field} is there twice");
        }
    }
    let of = |structure: &memflow_abi::Structure| {
        let name = structure.name.to_owned();
        structure.fields.iter().map(move |field| (name.clone(), field.name.to_owned())).collect::<Vec<_>>()
    };
    let expected: BTreeSet<_> = STRUCTURES.iter().flat_map(of).collect();
    let differences: Vec<_> = found.symmetric_difference(&expected).collect();
    assert!(differences.is_empty(), "on one side only: {differences:?}");
}

#[test]
fn target_and_version_are_those_of_this_build() {
    let rustc = run(Command::new("rustc").arg("-vV"));
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let expected = format!("{host} {}.{}", memflow_abi::MAJOR, memflow_abi::MINOR);
    let program = "#include <stdio.h>\n#include \"memflow_plugin.h\"\n\
                   int main(void) { return puts(MEMFLOW_TARGET \" \" MEMFLOW_ABI_TEXT) < 0; }\n";
    for compiler in [C, CPP] {
        assert_eq!(printed(compiler, &include(), "target", program).trim_end(), expected, "{}", compiler[0]);
    }
}

#[test]
fn targets_are_those_that_descriptors_know() {
    let header = header();
    let in_header: BTreeSet<&str> =
        header.lines().filter_map(|line| line.strip_prefix("#define MEMFLOW_TARGET \"")?.strip_suffix('"')).collect();
    let table = fs::read_to_string(common::path("../memflow-core/src/plugin/descriptor/target.rs")).unwrap();
    let rows = table.split_once("\ntargets! {\n").unwrap().1.split_once("\n}").unwrap().0;
    let known: BTreeSet<&str> = rows.lines().map(|row| row.split('"').nth(1).unwrap()).collect();
    assert_eq!(in_header, known);
}

#[test]
fn helpers_do_what_they_say() {
    let program = r##"
#include <stdio.h>
#include "memflow_plugin.h"
MEMFLOW_DESCRIPTOR(descriptor) = MEMFLOW_PLUGIN_BEGIN MEMFLOW_FIELD("kind", "connector") MEMFLOW_FIELD("name", "1st");
static int32_t no_targets(memflow_RecordSink sink, memflow_FailureSink failure) {
    (void)sink;
    return memflow_fail(failure, MEMFLOW_FAILURE_UNSUPPORTED, "nothing here");
}
MEMFLOW_EXPORT const memflow_PluginEntry entry = {
    MEMFLOW_HEADER(memflow_PluginEntry), MEMFLOW_TEXT_OF(descriptor), NULL, NULL, NULL, NULL, NULL, no_targets,
};
static void take(void *context, const memflow_Failure *failure) {
    printf("%s: %.*s, kind %u, errno %d, header %u %u %u\n", (const char *)context, (int)failure->message.len,
           (const char *)failure->message.ptr, (unsigned)failure->kind, (int)failure->outcome.os_error,
           (unsigned)(failure->header.size == sizeof *failure), (unsigned)failure->header.major, (unsigned)failure->header.minor);
}
static void show(memflow_Outcome outcome) {
    printf("%u %llu %llu %d\n", (unsigned)outcome.status, (unsigned long long)outcome.offset,
           (unsigned long long)outcome.address, (int)outcome.os_error);
}
int main(void) {
    char name[] = "sink";
    memflow_FailureSink sink = {name, take};
    memflow_FailureSink nobody = {NULL, NULL};
    memflow_RecordSink records = {NULL, NULL, NULL};
    memflow_PluginEntry older = entry;
    older.header.size = (uint32_t)offsetof(memflow_PluginEntry, targets);
    printf("%d\n", (int)entry.targets(records, sink) != 0);
    printf("%d\n", (int)memflow_fail_io(sink, 13, "refused") != 0);
    printf("%d\n", (int)memflow_fail(nobody, MEMFLOW_FAILURE_OTHER, "unheard") != 0);
    printf("%d %d %d\n", MEMFLOW_HAS(&entry, targets), MEMFLOW_HAS(&older, targets), MEMFLOW_HAS(&older, open_os));
    printf("%d %d %d\n", memflow_text_is(memflow_text("a"), "a"), memflow_text_is(memflow_text("ab"), "a"),
           memflow_text_is(memflow_text(NULL), ""));
    show(memflow_done());
    show(memflow_not_in_image(4096, 7));
    show(memflow_truncated(4096, 8));
    show(memflow_io_error(5, 9));
    for (size_t at = 0; at < entry.descriptor.len; at += strlen((const char *)entry.descriptor.ptr + at) + 1) {
        if (strncmp((const char *)entry.descriptor.ptr + at, "target=", 7) != 0) {
            printf("%s\n", (const char *)entry.descriptor.ptr + at);
        }
    }
    return 0;
}
"##;
    let (major, minor) = (memflow_abi::MAJOR, memflow_abi::MINOR);
    let expected = format!(
        "sink: nothing here, kind 9, errno 0, header 1 {major} {minor}\n1\n\
         sink: refused, kind 6, errno 13, header 1 {major} {minor}\n1\n1\n\
         1 0 1\n1 0 0\n\
         1 0 0 0\n4 7 4103 0\n5 8 4104 0\n8 9 0 5\n\
         memflow_plugin=1\nabi={major}.{minor}\nkind=connector\nname=1st\n"
    );
    for compiler in [C, CPP] {
        assert_eq!(printed(compiler, &include(), "helpers", program), expected, "{}", compiler[0]);
    }
}
