/* A connector over two runs of bytes that follow from their addresses. The tests build it against headers of several versions.
 *
 * -DMINOR=9 -DABI='"1.9"' -DLATER  as of a version that does not exist yet: longer structures and unknown numbers.
 * -DMAJOR=2 -DABI='"2.0"'          as of another major version.
 * -DMARKER='"path"'                writes that file as soon as the library is loaded. */
#include <stdio.h>
#include <stdlib.h>

#include "memflow_plugin.h"

/* What the header has, whatever version the plugin then says it is of. */
#if MEMFLOW_MINOR >= 1
#define HAS_POPULATED_RUNS
#endif
#if MEMFLOW_MINOR >= 2
#define HAS_CONTROL
#endif

#if defined(ABI)
#undef MEMFLOW_ABI_TEXT
#define MEMFLOW_ABI_TEXT ABI
#endif
#if defined(MAJOR)
#undef MEMFLOW_MAJOR
#define MEMFLOW_MAJOR MAJOR
#endif
#if defined(MINOR)
#undef MEMFLOW_MINOR
#define MEMFLOW_MINOR MINOR
#endif

#if defined(LATER)
/* Nobody of an earlier version calls what a later one appends. */
static void never(void) {
    abort();
}
#define APPENDED void (*appended[6])(void);
#define APPENDED_VALUES , { never, never, never, never, never, never }
#define LIVENESS UINT32_C(77)
#define MACHINE UINT32_C(99)
#define HOLE UINT32_C(55)
#define NO_SUCH_TARGET UINT32_C(999)
#define RUN_STATE UINT32_C(88)
#else
#define APPENDED
#define APPENDED_VALUES
#define LIVENESS MEMFLOW_LIVENESS_FROZEN
#define MACHINE MEMFLOW_MACHINE_X86_64
#define HOLE MEMFLOW_STATUS_NOT_IN_IMAGE
#define NO_SUCH_TARGET MEMFLOW_FAILURE_NOT_FOUND
#define RUN_STATE (paused ? MEMFLOW_RUN_STATE_PAUSED : MEMFLOW_RUN_STATE_RUNNING)
#endif

#if defined(MARKER)
__attribute__((constructor)) static void loaded(void) {
    FILE *file = fopen(MARKER, "w");
    if (file != NULL) {
        fclose(file);
    }
}
#endif

struct Table {
    memflow_MemoryTable known;
    APPENDED
};
struct Info {
    memflow_MemoryInfo known;
    APPENDED
};
struct Facts {
    memflow_Facts known;
    APPENDED
};
struct Entry {
    memflow_PluginEntry known;
    APPENDED
};

/* Counts handles; what they lead to is the same for all. */
static int handles;
static const memflow_Host *the_host;
static uint32_t most_verbose;

static const memflow_Run runs[] = {{0x1000, 0x1000, 0}, {0x8000, 0x800, 0x1000}};

static void say(const char *message) {
    const memflow_Header header = MEMFLOW_HEADER(memflow_LogMessage);
    memflow_LogMessage record;
    memset(&record, 0, sizeof record);
    record.header = header;
    record.level = MEMFLOW_LOG_LEVEL_INFO;
    record.target = memflow_text("older_c");
    record.message = memflow_text(message);
    if (the_host != NULL && most_verbose >= MEMFLOW_LOG_LEVEL_INFO && MEMFLOW_HAS(the_host, log)) {
        the_host->log(&record);
    }
}

static void attach(const memflow_Host *host) {
    the_host = host;
}

static void set_log_level(uint32_t level) {
    most_verbose = level;
}

static void *clone_handle(void *context) {
    __atomic_add_fetch(&handles, 1, __ATOMIC_RELAXED);
    return context;
}

static void drop_handle(void *context) {
    (void)context;
    if (__atomic_sub_fetch(&handles, 1, __ATOMIC_RELAXED) < 0) {
        abort();
    }
}

static int is_there(uint64_t address) {
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        if (address - runs[i].start < runs[i].len) {
            return 1;
        }
    }
    return 0;
}

static int32_t read_batch(void *context, memflow_ReadOp *ops, size_t count) {
    (void)context;
    for (size_t i = 0; i < count; i++) {
        ops[i].outcome = memflow_done();
        for (size_t at = 0; at < ops[i].len; at++) {
            uint64_t address = ops[i].address + at;
            if (!is_there(address)) {
                ops[i].outcome = memflow_not_in_image(ops[i].address, at);
                ops[i].outcome.status = HOLE;
                break;
            }
            ops[i].buffer[at] = (uint8_t)(address ^ address >> 8);
        }
    }
    return 0;
}

static const memflow_MemoryInfo *info(void *context) {
    static const struct Info this_one = {
        { { sizeof this_one, MEMFLOW_MAJOR, MEMFLOW_MINOR }, { (const uint8_t *)"older machine", 13 }, runs, 2, LIVENESS, 1, 0 }
        APPENDED_VALUES
    };
    (void)context;
    return &this_one.known;
}

static const memflow_Facts *facts(void *context) {
    static const struct Facts this_one = {
        { .header = { sizeof this_one, MEMFLOW_MAJOR, MEMFLOW_MINOR }, .machine = MACHINE } APPENDED_VALUES
    };
    (void)context;
    return &this_one.known;
}

#if defined(HAS_POPULATED_RUNS)
/* As if the second run were all zeros: whoever asks can tell that the answer came from here. */
static void populated_runs(void *context, memflow_RunSink sink) {
    (void)context;
    sink.run(sink.context, runs[0]);
}
#endif

#if defined(HAS_CONTROL)
static int paused;

static int32_t run_state(void *context, uint32_t *state, memflow_FailureSink failure) {
    (void)context;
    (void)failure;
    (void)paused;
    *state = RUN_STATE;
    return 0;
}

static int32_t pause_target(void *context, memflow_FailureSink failure) {
    (void)context;
    (void)failure;
    paused = 1;
    return 0;
}

static int32_t resume_target(void *context, memflow_FailureSink failure) {
    (void)context;
    (void)failure;
    paused = 0;
    return 0;
}

static int32_t registers(void *context, memflow_RecordSink sink, memflow_FailureSink failure) {
    const memflow_Header header = MEMFLOW_HEADER(memflow_VcpuRecord);
    memflow_VcpuRecord record;
    memflow_AArch64Vcpu arm;
    (void)context;
    (void)failure;
    memset(&record, 0, sizeof record);
    memset(&arm, 0, sizeof arm);
    arm.known = MEMFLOW_AARCH64_REGISTER_TTBR1_EL1;
    arm.ttbr1_el1 = 0x1000;
    record.header = header;
#if !defined(LATER)
    record.aarch64 = &arm;
#endif
    sink.item(sink.context, &record.header);
    return 0;
}
#endif

static const struct Table table = {
    {
        .header = { sizeof table, MEMFLOW_MAJOR, MEMFLOW_MINOR },
        .clone = clone_handle,
        .drop = drop_handle,
        .read = read_batch,
        .info = info,
        .facts = facts,
#if defined(HAS_POPULATED_RUNS)
        .populated_runs = populated_runs,
#endif
#if defined(HAS_CONTROL)
        .run_state = run_state,
        .pause = pause_target,
        .resume = resume_target,
        .registers = registers,
#endif
    } APPENDED_VALUES
};

static int32_t open_target(const memflow_ConnectorRequest *request, memflow_Memory *memory, memflow_FailureSink failure) {
    say("opening");
    if (!memflow_text_is(request->target, "machine")) {
        return memflow_fail(failure, NO_SUCH_TARGET, "the only target is called machine");
    }
    if (request->report.note != NULL) {
        request->report.note(request->report.context, memflow_text("built against ABI " MEMFLOW_ABI_TEXT));
    }
    memory->context = clone_handle(NULL);
    memory->table = &table.known;
    return 0;
}

static int32_t targets(memflow_RecordSink sink, memflow_FailureSink failure) {
    const memflow_Header header = MEMFLOW_HEADER(memflow_TargetRecord);
    memflow_TargetRecord record;
    (void)failure;
    memset(&record, 0, sizeof record);
    record.header = header;
    record.name = memflow_text("machine");
    record.description = memflow_text("bytes that follow from their addresses");
    if (sink.item != NULL) {
        sink.item(sink.context, &record.header);
    }
    return 0;
}

MEMFLOW_DESCRIPTOR(descriptor) = MEMFLOW_PLUGIN_BEGIN
    MEMFLOW_FIELD("kind", "connector")
    MEMFLOW_FIELD("name", "older_c")
    MEMFLOW_FIELD("version", "0.1.0")
    MEMFLOW_FIELD("entry", "older_c_entry")
    MEMFLOW_FIELD("description", "a connector for tests of versions");

MEMFLOW_EXPORT const struct Entry older_c_entry = {
    {
        .header = { sizeof older_c_entry, MEMFLOW_MAJOR, MEMFLOW_MINOR },
        .descriptor = MEMFLOW_TEXT_OF(descriptor),
        .attach = attach,
        .set_log_level = set_log_level,
        .open_connector = open_target,
        .targets = targets,
    } APPENDED_VALUES
};
