/* A host in C, which the tests build against headers of earlier versions: it loads a plugin, uses it and prints what it gets.
 *
 *     host connector PLUGIN ENTRY TARGET KEY=VALUE ADDRESS…   reads 16 bytes at each address, in one batch
 *     host short     PLUGIN ENTRY TARGET KEY=VALUE ADDRESS…   the same, with a request that ends before `report`
 *     host os        PLUGIN ENTRY                             looks for a system in 1 MiB of zeros
 *
 * Whatever it passes by pointer ends where a page ends, before one that cannot be touched, in a page that is filled otherwise: who reads
 * or writes behind a structure of this version faults, who writes before it is found out. */
#define _DEFAULT_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memflow_plugin.h"

#define FILLED 0xa5
#define LEN 16
#define MOST 16

static void refuse(const char *why) {
    printf("refused: %s\n", why);
    exit(1);
}

/* A page with something at its end. */
struct Guarded {
    uint8_t *page;
    size_t page_size;
    void *at;
};

static struct Guarded guarded(const void *bytes, size_t size) {
    struct Guarded made;
    made.page_size = (size_t)sysconf(_SC_PAGESIZE);
    made.page = mmap(NULL, 2 * made.page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made.page == MAP_FAILED || mprotect(made.page + made.page_size, made.page_size, PROT_NONE) != 0) {
        refuse("no memory");
    }
    memset(made.page, FILLED, made.page_size);
    made.at = made.page + made.page_size - size;
    if (bytes != NULL) {
        memcpy(made.at, bytes, size);
    }
    return made;
}

static void check(struct Guarded guarded) {
    for (const uint8_t *at = guarded.page; at < (const uint8_t *)guarded.at; at++) {
        if (*at != FILLED) {
            refuse("the plugin wrote before what it was given");
        }
    }
}

static void print_text(const char *what, memflow_Text text) {
    printf("%s %.*s\n", what, (int)text.len, (const char *)text.ptr);
}

static void take_failure(void *context, const memflow_Failure *failure) {
    printf("%s %u, for version %d.%d\n", (const char *)context, (unsigned)failure->kind, MEMFLOW_MAJOR, MEMFLOW_MINOR);
}

static void take_format(void *context, memflow_Text text) {
    (void)context;
    print_text("format", text);
}

static void take_other(void *context, memflow_Text text) {
    (void)context;
    (void)text;
}

static void take_log(const memflow_LogMessage *message) {
    if (!MEMFLOW_HAS(message, message) || message->header.major != MEMFLOW_MAJOR) {
        refuse("a log message of another version");
    }
}

static int32_t take_step(void *context, memflow_Text stage, uint64_t done, uint64_t total) {
    (void)context;
    (void)stage;
    (void)done;
    (void)total;
    return 0;
}

/* The entry of a plugin, checked as the header says. */
static const memflow_PluginEntry *load(const char *path, const char *name) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const memflow_PluginEntry *entry = library == NULL ? NULL : dlsym(library, name);
    if (entry == NULL) {
        refuse(dlerror());
    }
    if (entry->header.major != MEMFLOW_MAJOR) {
        printf("ABI %u.%u, this host takes %d.x\n", entry->header.major, entry->header.minor, MEMFLOW_MAJOR);
        exit(1);
    }
    if (MEMFLOW_HAS(entry, attach) && entry->attach != NULL) {
        memflow_Host offer = { MEMFLOW_HEADER(memflow_Host), take_log, { (const uint8_t *)"host", 4 } };
        entry->attach(guarded(&offer, sizeof offer).at);
    }
    if (MEMFLOW_HAS(entry, set_log_level) && entry->set_log_level != NULL) {
        entry->set_log_level(MEMFLOW_LOG_LEVEL_TRACE);
    }
    return entry;
}

/* Reads of one batch, each into the end of a page. */
static void read_all(const memflow_Memory *memory, const uint64_t *addresses, size_t count, int print) {
    memflow_ReadOp ops[MOST];
    struct Guarded buffers[MOST];
    memset(ops, 0, sizeof ops);
    for (size_t i = 0; i < count; i++) {
        buffers[i] = guarded(NULL, LEN);
        memset(buffers[i].at, 0, LEN);
        ops[i].address = addresses[i];
        ops[i].buffer = buffers[i].at;
        ops[i].len = LEN;
    }
    struct Guarded batch = guarded(ops, count * sizeof ops[0]);
    if (memory->table->read(memory->context, batch.at, count) != 0) {
        refuse("the batch as a whole failed");
    }
    check(batch);
    const memflow_ReadOp *done = batch.at;
    for (size_t i = 0; i < count; i++) {
        check(buffers[i]);
        if (print) {
            printf("read %#llx: %u %llu ", (unsigned long long)addresses[i], (unsigned)done[i].outcome.status,
                   (unsigned long long)done[i].outcome.offset);
            for (size_t at = 0; at < LEN; at++) {
                printf("%02x", ((const uint8_t *)buffers[i].at)[at]);
            }
            printf("\n");
        }
    }
}

/* What a thread of its own does. */
struct Work {
    memflow_Memory memory;
    const uint64_t *addresses;
    size_t count;
};

static void *work(void *argument) {
    const struct Work *work = argument;
    for (int i = 0; i < 20; i++) {
        read_all(&work->memory, work->addresses, work->count, 0);
    }
    work->memory.table->drop(work->memory.context);
    return NULL;
}

static int32_t take_target(void *context, const memflow_Header *record) {
    (void)context;
    if (record->size < sizeof(memflow_TargetRecord)) {
        refuse("a record is shorter than that of the first version");
    }
    print_text("target", ((const memflow_TargetRecord *)record)->name);
    return 0;
}

static int connect(const memflow_PluginEntry *entry, int whole, char **arguments, int count) {
    memflow_FailureSink sink = { (void *)"failure", take_failure };
    memflow_ConnectorRequest request;
    const memflow_Header header = MEMFLOW_HEADER(memflow_ConnectorRequest);
    uint64_t addresses[MOST];
    size_t reads = 0;
    if (!MEMFLOW_HAS(entry, open_connector) || entry->open_connector == NULL || count < 3 || count - 2 > MOST) {
        refuse("no connector, or no addresses");
    }
    if (MEMFLOW_HAS(entry, targets) && entry->targets != NULL) {
        memflow_RecordSink records = { NULL, take_target, NULL };
        entry->targets(records, sink);
    }
    char *value = strchr(arguments[1], '=');
    if (value == NULL) {
        refuse("no argument");
    }
    *value = 0;
    memflow_Argument argument = { memflow_text(arguments[1]), memflow_text(value + 1) };
    for (int i = 2; i < count; i++) {
        addresses[reads++] = strtoull(arguments[i], NULL, 0);
    }
    memset(&request, 0, sizeof request);
    request.header = header;
    request.target = memflow_text(arguments[0]);
    request.arguments = guarded(&argument, sizeof argument).at;
    request.argument_count = 1;
    request.progress.step = take_step;
    memflow_OpenReport report = { NULL, take_format, take_other, take_other };
    request.report = report;
    if (!whole) {
        request.header.size = (uint32_t)offsetof(memflow_ConnectorRequest, report);
    }
    struct Guarded passed = guarded(&request, request.header.size);
    struct Guarded out = guarded(NULL, sizeof(memflow_Memory));
    memset(out.at, 0, sizeof(memflow_Memory));
    if (entry->open_connector(passed.at, out.at, sink) != 0) {
        return 1;
    }
    check(passed);
    check(out);
    memflow_Memory memory = *(memflow_Memory *)out.at;
    if (memory.table->header.major != MEMFLOW_MAJOR || !MEMFLOW_HAS(memory.table, info)) {
        refuse("a table of another version");
    }
    const memflow_MemoryInfo *info = memory.table->info(memory.context);
    print_text("name", info->name);
    for (size_t i = 0; i < info->run_count; i++) {
        printf("run %#llx %#llx %#llx\n", (unsigned long long)info->runs[i].start, (unsigned long long)info->runs[i].len,
               (unsigned long long)info->runs[i].offset);
    }
    read_all(&memory, addresses, reads, 1);
    const memflow_DirectMap *map = NULL;
    if (MEMFLOW_HAS(memory.table, direct_map) && memory.table->direct_map != NULL) {
        map = memory.table->direct_map(memory.context);
    }
    for (size_t i = 0; map != NULL && i < map->region_count; i++) {
        printf("direct %#llx %#llx begins with %02x\n", (unsigned long long)map->regions[i].start,
               (unsigned long long)map->regions[i].len, map->regions[i].pointer[0]);
    }
    pthread_t threads[4];
    struct Work parts[4];
    for (size_t i = 0; i < 4; i++) {
        struct Work part = { { memory.table->clone(memory.context), memory.table }, addresses, reads };
        parts[i] = part;
        if (pthread_create(&threads[i], NULL, work, &parts[i]) != 0) {
            refuse("no thread");
        }
    }
    /* The first handle goes while the others are at work. */
    memory.table->drop(memory.context);
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("dropped\n");
    return 0;
}

/* The host's own memory, for OS layers. */
#define ZEROS UINT64_C(0x100000)
static int handles = 1;
static unsigned long reads_of_zeros;

static void *clone_zeros(void *context) {
    __atomic_add_fetch(&handles, 1, __ATOMIC_SEQ_CST);
    return context;
}

static void drop_zeros(void *context) {
    (void)context;
    __atomic_sub_fetch(&handles, 1, __ATOMIC_SEQ_CST);
}

static int32_t read_zeros(void *context, memflow_ReadOp *ops, size_t count) {
    (void)context;
    __atomic_add_fetch(&reads_of_zeros, 1, __ATOMIC_SEQ_CST);
    for (size_t i = 0; i < count; i++) {
        uint64_t there = ops[i].address < ZEROS ? ZEROS - ops[i].address : 0;
        size_t len = ops[i].len < there ? ops[i].len : (size_t)there;
        memset(ops[i].buffer, 0, len);
        ops[i].outcome = len == ops[i].len ? memflow_done() : memflow_not_in_image(ops[i].address, len);
    }
    return 0;
}

static const memflow_MemoryInfo *info_of_zeros(void *context) {
    return context;
}

static int recognise(const memflow_PluginEntry *entry) {
    memflow_FailureSink sink = { (void *)"failure", take_failure };
    const memflow_Run run = { 0, ZEROS, 0 };
    memflow_MemoryInfo info = {
        MEMFLOW_HEADER(memflow_MemoryInfo), { (const uint8_t *)"zeros", 5 }, guarded(&run, sizeof run).at, 1,
        MEMFLOW_LIVENESS_FROZEN, 1, 0,
    };
    memflow_MemoryTable table;
    const memflow_Header of_table = MEMFLOW_HEADER(memflow_MemoryTable);
    memset(&table, 0, sizeof table);
    table.header = of_table;
    table.clone = clone_zeros;
    table.drop = drop_zeros;
    table.read = read_zeros;
    table.info = info_of_zeros;
    memflow_OsRequest request;
    const memflow_Header of_request = MEMFLOW_HEADER(memflow_OsRequest);
    memset(&request, 0, sizeof request);
    request.header = of_request;
    request.memory.context = guarded(&info, sizeof info).at;
    request.memory.table = guarded(&table, sizeof table).at;
    if (!MEMFLOW_HAS(entry, open_os) || entry->open_os == NULL) {
        refuse("no OS layer");
    }
    struct Guarded passed = guarded(&request, sizeof request);
    struct Guarded out = guarded(NULL, sizeof(memflow_Os));
    memset(out.at, 0, sizeof(memflow_Os));
    int32_t status = entry->open_os(passed.at, out.at, sink);
    check(passed);
    check(out);
    printf("%s, %s, handles %d\n", status == 0 ? "found" : "not found", reads_of_zeros > 0 ? "after reading" : "unread", handles);
    return 0;
}

int main(int count, char **arguments) {
    if (count < 4) {
        refuse("see the first lines of the source");
    }
    const memflow_PluginEntry *entry = load(arguments[2], arguments[3]);
    if (strcmp(arguments[1], "os") == 0) {
        return recognise(entry);
    }
    return connect(entry, strcmp(arguments[1], "connector") == 0, arguments + 4, count - 4);
}
