/* Calls the connector in C as a host does, and prints what it answers. */
#include "raw_file.c"

static void print_failure(void *context, const memflow_Failure *failure) {
    printf("%s %u: %.*s\n", (const char *)context, (unsigned)failure->kind, (int)failure->message.len, (const char *)failure->message.ptr);
}

static int32_t open_at(const char *what, const char *path, const char *base, memflow_Memory *memory) {
    char name[16];
    snprintf(name, sizeof name, "%s", what);
    memflow_Argument argument = {memflow_text("base"), memflow_text(base)};
    memflow_FailureSink sink = {name, print_failure};
    memflow_ConnectorRequest request;
    memset(&request, 0, sizeof request);
    const memflow_Header header = MEMFLOW_HEADER(memflow_ConnectorRequest);
    request.header = header;
    request.target = memflow_text(path);
    request.arguments = &argument;
    request.argument_count = 1;
    return craw_entry.open_connector(&request, memory, sink);
}

static void read_at(const memflow_Memory *memory, uint64_t address) {
    uint8_t bytes[] = "....";
    memflow_ReadOp op;
    memset(&op, 0, sizeof op);
    op.address = address;
    op.buffer = bytes;
    op.len = 4;
    memory->table->read(memory->context, &op, 1);
    printf("at %llu: %u %llu %llu %s\n", (unsigned long long)address, (unsigned)op.outcome.status,
           (unsigned long long)op.outcome.offset, (unsigned long long)op.outcome.address, (const char *)bytes);
}

int main(int count, char **arguments) {
    memflow_Memory memory;
    if (count != 2 || open_at("open", arguments[1], "0x10", &memory) != 0) {
        return 1;
    }
    /* The first handle may go before the second. */
    memflow_Memory second = {memory.table->clone(memory.context), memory.table};
    memory.table->drop(memory.context);
    const memflow_MemoryInfo *info = second.table->info(second.context);
    printf("name %.*s, from %llu, %llu bytes\n", (int)info->name.len, (const char *)info->name.ptr,
           (unsigned long long)info->runs[0].start, (unsigned long long)info->runs[0].len);
    const uint64_t addresses[] = {16, 22, 24, 26, 14, UINT64_MAX - 1};
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        read_at(&second, addresses[i]);
    }
    memflow_ReadOp none;
    memset(&none, 0, sizeof none);
    second.table->read(second.context, &none, 1);
    printf("of none at 0: %u\n", (unsigned)none.outcome.status);
    if (truncate(arguments[1], 3) != 0) {
        return 1;
    }
    printf("cut short, ");
    read_at(&second, 18);
    second.table->drop(second.context);

    int failed = open_at("argument", arguments[1], "0x", &memory) != 0;
    failed += open_at("argument", arguments[1], "18446744073709551614", &memory) != 0;
    failed += open_at("argument", NULL, "0", &memory) != 0;
    failed += open_at("folder", "/", "0", &memory) != 0;
    failed += open_at("absent", "/nowhere/at/all", "0", &memory) != 0;
    return failed == 5 ? 0 : 1;
}
