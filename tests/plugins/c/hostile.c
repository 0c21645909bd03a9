/*
 * A connector and an OS layer that break the rules of the plugin interface: argument `how` says which. Compiled by tests/hostile.rs.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "memflow_plugin.h"

MEMFLOW_DESCRIPTOR(hostile_descriptor) =
    MEMFLOW_PLUGIN_BEGIN
    MEMFLOW_FIELD("kind", "connector")
    MEMFLOW_FIELD("name", "hostile")
    MEMFLOW_FIELD("version", "0.1.0")
    MEMFLOW_FIELD("entry", "hostile_entry")
    MEMFLOW_FIELD("description", "breaks the rules")
    MEMFLOW_FIELD("arg", "how:text::what to do")
    MEMFLOW_PLUGIN_BEGIN
    MEMFLOW_FIELD("kind", "os")
    MEMFLOW_FIELD("name", "hostile-os")
    MEMFLOW_FIELD("version", "0.1.0")
    MEMFLOW_FIELD("entry", "hostile_os_entry")
    MEMFLOW_FIELD("description", "breaks the rules")
    MEMFLOW_FIELD("arg", "how:text::what to do");

/* What was asked for last; tests of one kind do not run at the same time. */
static char how[64];

static int is(const char *name) {
    return strcmp(how, name) == 0;
}

static void take_how(const memflow_Argument *arguments, size_t count) {
    how[0] = 0;
    for (size_t i = 0; i < count; i++) {
        if (memflow_text_is(arguments[i].name, "how") && arguments[i].value.len < sizeof how) {
            memcpy(how, arguments[i].value.ptr, arguments[i].value.len);
            how[arguments[i].value.len] = 0;
        }
    }
}

#define TOO_MANY ((size_t)1 << 63)

static const memflow_Text huge_text = { (const uint8_t *)"x", (size_t)1 << 62 };
static uint8_t bytes[0x10000];
static memflow_Run runs[2] = { { 0, 0x8000, 0 }, { 0x8000, 0x8000, 0x8000 } };
static memflow_MemoryInfo info;
static memflow_Facts facts;
static memflow_DirectRegion region;
static memflow_DirectMap map;
static memflow_MemoryTable memory_table;

static void *same(void *context) {
    return context;
}

static void nothing(void *context) {
    (void)context;
}

static int32_t memory_read(void *context, memflow_ReadOp *ops, size_t count) {
    (void)context;
    for (size_t i = 0; i < count; i++) {
        memset(ops[i].buffer, 0x77, ops[i].len);
        ops[i].outcome = memflow_done();
        if (is("outcome_status")) {
            ops[i].outcome.status = 0xdeadbeef;
        } else if (is("outcome_offset")) {
            ops[i].outcome = memflow_not_in_image(ops[i].address, UINT64_MAX);
            ops[i].len = SIZE_MAX;
        } else if (is("outcome_level")) {
            ops[i].outcome = memflow_outcome(MEMFLOW_STATUS_NOT_MAPPED);
            ops[i].outcome.level = ops[i].outcome.cause = UINT32_MAX;
        } else if (is("fewer") && i + 1 == count) {
            ops[i].outcome = memflow_outcome(MEMFLOW_STATUS_NOT_ATTEMPTED);
        } else if (is("moved")) {
            ops[i].buffer = NULL;
            ops[i].address = 1;
            ops[i].len = 0;
        }
    }
    return is("call_status") ? (int32_t)0x80000000 : 0;
}

static const memflow_MemoryInfo *memory_info(void *context) {
    (void)context;
    return is("info_null") ? NULL : &info;
}

static const memflow_Facts *memory_facts(void *context) {
    (void)context;
    return &facts;
}

static const memflow_DirectMap *memory_map(void *context) {
    (void)context;
    return strncmp(how, "map", 3) == 0 ? &map : NULL;
}

static void memory_populated(void *context, memflow_RunSink sink) {
    (void)context;
    memflow_Run run = { 0, 0x1000, 0 };
    if (is("populated_bad")) {
        run.start = UINT64_MAX;
        run.len = 2;
    }
    if (is("populated_overlap")) {
        sink.run(sink.context, run);
    }
    if (is("populated_endless")) {
        for (run.len = 1; sink.run(sink.context, run) == 0; run.start += 2) {
        }
    }
    sink.run(sink.context, run);
}

static void memory_excluded(void *context, memflow_RunSink sink) {
    (void)context;
    memflow_Run run = { 0x10000, 0x1000, 0 };
    if (is("excluded_bad")) {
        run.start = UINT64_MAX;
        run.len = 2;
    }
    if (is("excluded_overlap")) {
        sink.run(sink.context, run);
    }
    if (is("excluded_endless")) {
        for (run.len = 1; sink.run(sink.context, run) == 0; run.start += 2) {
        }
    }
    sink.run(sink.context, run);
}

static int32_t memory_run_state(void *context, uint32_t *state, memflow_FailureSink failure) {
    (void)context;
    (void)failure;
    if (is("state_unknown")) {
        *state = 3;
    } else if (!is("state_unset")) {
        *state = MEMFLOW_RUN_STATE_RUNNING;
    }
    return is("state_status") ? 5 : 0;
}

static int32_t memory_change(void *context, memflow_FailureSink failure) {
    (void)context;
    if (is("change_nothing")) {
        failure.set(failure.context, NULL);
    }
    return is("change_silently") || is("change_nothing") ? -1 : 0;
}

#define SET_HEADER(structure, type) do { const memflow_Header header = MEMFLOW_HEADER(type); (structure).header = header; } while (0)

static int32_t memory_registers(void *context, memflow_RecordSink sink, memflow_FailureSink failure) {
    (void)context;
    (void)failure;
    memflow_VcpuRecord record;
    memflow_X86Vcpu x86;
    memset(&record, 0, sizeof record);
    memset(&x86, 0xff, sizeof x86);
    SET_HEADER(record, memflow_VcpuRecord);
    record.x86 = &x86;
    if (is("vcpu_null")) {
        sink.item(sink.context, NULL);
    } else if (is("vcpu_of_no_kind")) {
        record.x86 = NULL;
        sink.item(sink.context, &record.header);
    } else if (is("vcpu_misaligned")) {
        record.x86 = (const memflow_X86Vcpu *)(const void *)((const char *)&x86 + 1);
        sink.item(sink.context, &record.header);
    } else if (is("vcpu_short")) {
        record.header.size = sizeof record.header;
        sink.item(sink.context, &record.header);
    } else if (is("vcpus_endless")) {
        while (sink.item(sink.context, &record.header) == 0) {
        }
        /* Deaf to the request to stop. */
        for (int i = 0; i < 1000; i++) {
            sink.item(sink.context, &record.header);
        }
    } else {
        sink.item(sink.context, &record.header);
    }
    return 0;
}

static void prepare(void) {
    memset(&info, 0, sizeof info);
    memset(&facts, 0, sizeof facts);
    memset(&map, 0, sizeof map);
    memset(&memory_table, 0, sizeof memory_table);
    SET_HEADER(info, memflow_MemoryInfo);
    SET_HEADER(facts, memflow_Facts);
    SET_HEADER(map, memflow_DirectMap);
    SET_HEADER(memory_table, memflow_MemoryTable);
    info.name = memflow_text("hostile machine");
    info.runs = runs;
    info.run_count = 2;
    region.start = 0;
    region.len = sizeof bytes;
    region.pointer = bytes;
    region.offset = 0;
    map.regions = &region;
    map.region_count = 1;
    memory_table.clone = same;
    memory_table.drop = nothing;
    memory_table.read = memory_read;
    memory_table.info = memory_info;
    memory_table.facts = memory_facts;
    memory_table.direct_map = memory_map;
    memory_table.populated_runs = memory_populated;
    memory_table.excluded_runs = memory_excluded;
    memory_table.run_state = memory_run_state;
    memory_table.pause = memory_table.resume = memory_change;
    memory_table.registers = memory_registers;
    runs[1].start = is("runs_overlap") ? 0x4000 : 0x8000;
    runs[1].len = is("runs_leave") ? UINT64_MAX : 0x8000;
    if (is("table_size_0")) {
        memory_table.header.size = 0;
    } else if (is("table_size_odd")) {
        memory_table.header.size = 20;
    } else if (is("table_size_huge")) {
        memory_table.header.size = UINT32_MAX;
    } else if (is("table_major")) {
        memory_table.header.major++;
    } else if (is("table_short")) {
        memory_table.header.size = 24;
    } else if (is("drop_null")) {
        memory_table.drop = NULL;
    } else if (is("read_null")) {
        memory_table.read = NULL;
    } else if (is("info_function_null")) {
        memory_table.info = NULL;
    } else if (is("info_size")) {
        info.header.size = 3;
    } else if (is("runs_null")) {
        info.runs = NULL;
    } else if (is("runs_many")) {
        info.run_count = TOO_MANY;
    } else if (is("runs_misaligned")) {
        info.runs = (const memflow_Run *)(const void *)((const char *)runs + 1);
    } else if (is("name_huge")) {
        info.name = huge_text;
    } else if (is("name_not_utf8")) {
        info.name = memflow_text("\xff\xfe machine");
    } else if (is("vcpus_many")) {
        facts.x86_vcpus = (const memflow_X86Vcpu *)(const void *)runs;
        facts.x86_vcpu_count = TOO_MANY;
    } else if (is("arm_vcpus_many")) {
        facts.aarch64_vcpus = (const memflow_AArch64Vcpu *)(const void *)runs;
        facts.aarch64_vcpu_count = TOO_MANY;
    } else if (is("arm_vcpus_null")) {
        facts.aarch64_vcpu_count = 1;
    } else if (is("control_without_pause")) {
        memory_table.pause = NULL;
    } else if (is("control_without_state")) {
        memory_table.run_state = NULL;
    } else if (is("control_cut")) {
        memory_table.header.size = offsetof(memflow_MemoryTable, resume);
    } else if (is("control_absent")) {
        memory_table.header.size = offsetof(memflow_MemoryTable, run_state);
    } else if (is("registers_absent")) {
        memory_table.registers = NULL;
    } else if (is("vmcoreinfo_huge")) {
        facts.vmcoreinfo = huge_text;
    } else if (is("map_many")) {
        map.region_count = TOO_MANY;
    } else if (is("map_null")) {
        region.pointer = NULL;
    } else if (is("map_len")) {
        region.len = (uint64_t)1 << 63;
    } else if (is("map_wraps")) {
        region.pointer = (uint8_t *)(UINTPTR_MAX - 0x10);
    } else if (is("map_hole")) {
        region.len = 0x1000;
    } else if (is("map_lost")) {
        map.lost_from = (const uint64_t *)(const void *)(bytes + 1);
    }
}

static int32_t hostile_open(const memflow_ConnectorRequest *request, memflow_Memory *memory, memflow_FailureSink failure) {
    take_how(request->arguments, request->argument_count);
    prepare();
    memory->context = NULL;
    memory->table = &memory_table;
    if (is("nothing_filled")) {
        memory->table = NULL;
    } else if (is("table_misaligned")) {
        memory->table = (const memflow_MemoryTable *)(const void *)((const char *)&memory_table + 4);
    } else if (is("fails_silently")) {
        return 77;
    } else if (is("fails_with_nothing")) {
        failure.set(failure.context, NULL);
        return -5;
    } else if (is("fails_often")) {
        for (int i = 0; i < 100000; i++) {
            memflow_fail(failure, 0xffffff, "again");
        }
        return memflow_fail(failure, 0xffffff, "\xff last");
    } else if (is("fails_at_length")) {
        memflow_Failure wire;
        memset(&wire, 0, sizeof wire);
        SET_HEADER(wire, memflow_Failure);
        wire.message = huge_text;
        failure.set(failure.context, &wire);
        return 1;
    } else if (is("notes")) {
        for (int i = 0; i < 1000000; i++) {
            request->report.note(request->report.context, memflow_text("note"));
        }
    } else if (is("alternative")) {
        request->report.alternative(request->report.context, memflow_text("===,,,"));
    }
    return 0;
}

static int32_t hostile_targets(memflow_RecordSink sink, memflow_FailureSink failure) {
    (void)failure;
    memflow_TargetRecord record;
    memset(&record, 0, sizeof record);
    SET_HEADER(record, memflow_TargetRecord);
    record.name = record.description = memflow_text("target");
    if (is("targets_null")) {
        sink.item(sink.context, NULL);
    } else if (is("targets_size")) {
        record.header.size = 4;
        sink.item(sink.context, &record.header);
    } else if (is("targets_endless")) {
        while (sink.item(sink.context, &record.header) == 0) {
        }
        /* Deaf to the request to stop. */
        for (int i = 0; i < 1000; i++) {
            sink.item(sink.context, &record.header);
        }
    } else if (is("targets_problem")) {
        sink.problem(sink.context, NULL);
    } else if (is("targets_text")) {
        record.name = huge_text;
        sink.item(sink.context, &record.header);
    }
    return 0;
}

MEMFLOW_EXPORT const memflow_PluginEntry hostile_entry = {
    .header = MEMFLOW_HEADER(memflow_PluginEntry),
    .descriptor = { (const uint8_t *)hostile_descriptor, sizeof hostile_descriptor },
    .open_connector = hostile_open,
    .targets = hostile_targets,
};

static memflow_KernelRecord kernel;
static memflow_SpaceRecord space;
static memflow_SoftFaultsTable answers_table;
static memflow_OsTable os_table;
static memflow_ProcessTable process_table;
static memflow_ProcessRecord process_record;
static memflow_ViewTable view_table;

static const memflow_KernelRecord *os_kernel(void *context) {
    (void)context;
    return is("kernel_null") ? NULL : &kernel;
}

static const memflow_SpaceRecord *os_space(void *context) {
    (void)context;
    return is("space_null") ? NULL : &space;
}

static void answer(void *context, memflow_SoftFault *faults, size_t count) {
    (void)context;
    for (size_t i = 0; i < count; i++) {
        memset(&faults[i], 0xff, sizeof faults[i]);
        if (is("answer_page")) {
            faults[i].answer = MEMFLOW_SOFT_FAULT_ANSWER_PAGE;
        }
    }
}

static int32_t os_modules(void *context, memflow_RecordSink sink, memflow_FailureSink failure) {
    (void)context;
    (void)failure;
    memflow_ModuleRecord record;
    memset(&record, 0, sizeof record);
    SET_HEADER(record, memflow_ModuleRecord);
    record.used_by = &huge_text;
    record.used_by_count = TOO_MANY;
    sink.item(sink.context, &record.header);
    return 0;
}

static int32_t os_processes(void *context, memflow_RecordSink sink, memflow_FailureSink failure) {
    (void)context;
    (void)failure;
    sink.item(sink.context, &process_record.header);
    return 0;
}

static int32_t os_symbol_at(void *context, uint64_t address, uint64_t *distance, memflow_RecordSink sink, memflow_FailureSink failure) {
    (void)context;
    (void)failure;
    memflow_SymbolRecord record;
    memset(&record, 0, sizeof record);
    SET_HEADER(record, memflow_SymbolRecord);
    record.address = address + 0x1000;
    record.kind = UINT32_MAX;
    record.name = memflow_text("\x80");
    *distance = 3;
    sink.item(sink.context, &record.header);
    return 0;
}

static const memflow_ProcessRecord *record_of_process(void *context) {
    (void)context;
    return is("process_null") ? NULL : &process_record;
}

static int32_t view_read(void *context, memflow_ReadOp *ops, size_t count) {
    (void)context;
    (void)ops;
    (void)count;
    return 0;
}

static void view_info(void *context, memflow_ViewInfo *covers) {
    (void)context;
    covers->last_address = UINT64_MAX;
    covers->pointer_size = is("pointer_size") ? 3 : 8;
    covers->read_only = 0;
}

static int32_t process_view(void *context, memflow_View *view, memflow_FailureSink failure) {
    (void)context;
    (void)failure;
    view->context = NULL;
    view->table = is("view_null") ? NULL : &view_table;
    return 0;
}

static int32_t os_open_process(void *context, const memflow_ProcessRecord *record, memflow_Process *process, memflow_FailureSink failure) {
    (void)context;
    (void)record;
    (void)failure;
    process_record.pid = is("process_other") ? 99 : 7;
    process_record.state = is("process_state") ? 1234 : MEMFLOW_PROCESS_STATE_RUNNING;
    process->context = NULL;
    process->table = is("process_table") ? NULL : &process_table;
    return 0;
}

static int32_t hostile_recognise(const memflow_OsRequest *request, memflow_Os *os, memflow_FailureSink failure) {
    (void)failure;
    take_how(request->arguments, request->argument_count);
    request->memory.table->drop(request->memory.context);
    memset(&kernel, 0, sizeof kernel);
    memset(&space, 0, sizeof space);
    SET_HEADER(kernel, memflow_KernelRecord);
    SET_HEADER(space, memflow_SpaceRecord);
    SET_HEADER(os_table, memflow_OsTable);
    SET_HEADER(answers_table, memflow_SoftFaultsTable);
    SET_HEADER(process_table, memflow_ProcessTable);
    SET_HEADER(process_record, memflow_ProcessRecord);
    SET_HEADER(view_table, memflow_ViewTable);
    kernel.system = kernel.release = kernel.version = memflow_text("x");
    kernel.architecture = space.architecture = memflow_text(is("architecture") ? "abacus" : "x86-64 4-level");
    space.root = 0x1000;
    answers_table.clone = same;
    answers_table.drop = nothing;
    answers_table.resolve = is("answer_null") ? NULL : answer;
    space.soft_faults.table = &answers_table;
    os_table.drop = nothing;
    os_table.kernel = os_kernel;
    os_table.kernel_space = os_space;
    os_table.processes = os_processes;
    os_table.open_process = os_open_process;
    os_table.modules = os_modules;
    os_table.symbol_at = os_symbol_at;
    process_record.pid = 7;
    process_record.state = MEMFLOW_PROCESS_STATE_RUNNING;
    process_table.drop = nothing;
    process_table.record = record_of_process;
    process_table.view = process_view;
    view_table.drop = nothing;
    view_table.read = view_read;
    view_table.info = view_info;
    if (is("evidence_many")) {
        kernel.evidence = &huge_text;
        kernel.evidence_count = TOO_MANY;
    } else if (is("system_huge")) {
        kernel.system = huge_text;
    }
    os->context = NULL;
    os->table = is("os_table") ? NULL : &os_table;
    return 0;
}

MEMFLOW_EXPORT const memflow_PluginEntry hostile_os_entry = {
    .header = MEMFLOW_HEADER(memflow_PluginEntry),
    .descriptor = { (const uint8_t *)hostile_descriptor, sizeof hostile_descriptor },
    .open_os = hostile_recognise,
};
