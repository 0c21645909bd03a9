/*
 * A connector in C: serves a raw memory image, which is a file with the bytes of physical memory in their order.
 *
 * Build it and put it where memflow looks for plugins (from this folder, on Linux):
 *
 *     cc -std=c11 -O2 -shared -fPIC -I ../../memflow-abi/include raw_file.c -o libmemflow_craw.so
 *     memflow ps --plugin libmemflow_craw.so craw:IMAGE
 *
 * Every rule that the functions follow is at the top of memflow_plugin.h. Needs POSIX: pread, which leaves no position behind in the
 * file and so may be called by several threads at once.
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memflow_plugin.h"

MEMFLOW_DESCRIPTOR(craw_descriptor) =
    MEMFLOW_PLUGIN_BEGIN
    MEMFLOW_FIELD("kind", "connector")
    MEMFLOW_FIELD("name", "craw")
    MEMFLOW_FIELD("version", "0.1.0")
    MEMFLOW_FIELD("entry", "craw_entry")
    MEMFLOW_FIELD("description", "raw memory image, read by a connector in C")
    MEMFLOW_FIELD("arg", "base:number:0:physical address of the first byte of the file");

/* An opened file; what `info` returns lies in it, and stays until the last handle is dropped. */
typedef struct {
    atomic_size_t handles;
    int fd;
    memflow_Run run;
    memflow_MemoryInfo info;
    char name[256];
} Image;

static void *image_clone(void *context) {
    Image *image = context;
    atomic_fetch_add_explicit(&image->handles, 1, memory_order_relaxed);
    return image;
}

static void image_drop(void *context) {
    Image *image = context;
    /* Whoever frees it must see what the other handles' threads did before. */
    if (atomic_fetch_sub_explicit(&image->handles, 1, memory_order_acq_rel) == 1) {
        close(image->fd);
        free(image);
    }
}

/* Carries out one read: the part of it that lies in the run, and the first byte that failed, if any. */
static memflow_Outcome image_read_one(const Image *image, const memflow_ReadOp *op) {
    const uint64_t len = op->len;
    if (len == 0) {
        return memflow_done();
    }
    if (op->address + (len - 1) < op->address) {
        return memflow_outcome(MEMFLOW_STATUS_OUT_OF_RANGE);
    }
    /* Offsets in the operation: [first, end) lies in the run. */
    const uint64_t before = op->address < image->run.start ? image->run.start - op->address : 0;
    const uint64_t first = before < len ? before : len;
    const uint64_t position = op->address + first - image->run.start;
    if (first == len || position >= image->run.len) {
        return memflow_not_in_image(op->address, 0);
    }
    const uint64_t left = image->run.len - position;
    const uint64_t end = left < len - first ? first + left : len;

    memflow_Outcome outcome = memflow_done();
    for (uint64_t at = first; at < end;) {
        const size_t most = (size_t)1 << 30;
        const size_t want = end - at < most ? (size_t)(end - at) : most;
        const ssize_t got = pread(image->fd, op->buffer + at, want, (off_t)(position + (at - first)));
        if (got > 0) {
            at += (uint64_t)got;
        } else if (got == 0) {
            outcome = memflow_truncated(op->address, at);
            break;
        } else if (errno != EINTR) {
            outcome = memflow_io_error(errno, at);
            break;
        }
    }
    /* The first byte that failed counts: one before the run comes before any other. */
    if (first > 0) {
        return memflow_not_in_image(op->address, 0);
    }
    if (outcome.status == MEMFLOW_STATUS_DONE && end < len) {
        return memflow_not_in_image(op->address, end);
    }
    return outcome;
}

static int32_t image_read(void *context, memflow_ReadOp *ops, size_t count) {
    for (size_t i = 0; i < count; i++) {
        ops[i].outcome = image_read_one(context, &ops[i]);
    }
    return 0;
}

static const memflow_MemoryInfo *image_info(void *context) {
    return &((const Image *)context)->info;
}

static const memflow_MemoryTable image_table = {
    .header = MEMFLOW_HEADER(memflow_MemoryTable),
    .clone = image_clone,
    .drop = image_drop,
    .read = image_read,
    .info = image_info,
};

/* A text as a string that the caller frees; null if it has a NUL in it or there is no memory. */
static char *string_of(memflow_Text text) {
    if (memchr(text.ptr, 0, text.len) != NULL) {
        return NULL;
    }
    char *string = malloc(text.len + 1);
    if (string != NULL) {
        memcpy(string, text.ptr, text.len);
        string[text.len] = 0;
    }
    return string;
}

/* A number in decimal, or in hexadecimal after 0x. Zero when it is one. */
static int parse_number(memflow_Text text, uint64_t *number) {
    const int hexadecimal = text.len > 2 && text.ptr[0] == '0' && (text.ptr[1] == 'x' || text.ptr[1] == 'X');
    const uint64_t radix = hexadecimal ? 16 : 10;
    size_t i = hexadecimal ? 2 : 0;
    uint64_t value = 0;
    if (i == text.len) {
        return -1;
    }
    for (; i < text.len; i++) {
        const uint8_t c = text.ptr[i];
        uint64_t digit = 16;
        if (c >= '0' && c <= '9') {
            digit = (uint64_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (uint64_t)(c - 'a') + 10;
        } else if (c >= 'A' && c <= 'F') {
            digit = (uint64_t)(c - 'A') + 10;
        }
        if (digit >= radix || value > (UINT64_MAX - digit) / radix) {
            return -1;
        }
        value = value * radix + digit;
    }
    *number = value;
    return 0;
}

/* Opens the file at `path`: what is wrong goes into the sink. */
static int32_t open_image(const char *path, uint64_t base, memflow_Memory *memory, memflow_FailureSink failure) {
    /* A pipe must not keep the caller waiting for its other end before it is refused. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return memflow_fail_io(failure, errno, "the image cannot be opened; check that it exists and may be read");
    }
    struct stat status;
    if (fstat(fd, &status) != 0) {
        const int32_t failed = memflow_fail_io(failure, errno, "the image's size cannot be asked for");
        close(fd);
        return failed;
    }
    if (!S_ISREG(status.st_mode) || status.st_size <= 0) {
        close(fd);
        return memflow_fail(failure, MEMFLOW_FAILURE_FILE, "the image is empty or no regular file, expected a raw memory image");
    }
    const uint64_t size = (uint64_t)status.st_size;
    if (base > UINT64_MAX - (size - 1)) {
        close(fd);
        return memflow_fail(failure, MEMFLOW_FAILURE_ARGUMENT,
                            "argument base is too high: the image would leave the address space; give a lower one");
    }
    Image *image = calloc(1, sizeof *image);
    if (image == NULL) {
        close(fd);
        return memflow_fail(failure, MEMFLOW_FAILURE_OTHER, "no memory is left for the connector craw");
    }
    atomic_init(&image->handles, 1);
    image->fd = fd;
    image->run.start = base;
    image->run.len = size;
    const char *slash = strrchr(path, '/');
    const int written = snprintf(image->name, sizeof image->name, "craw %s", slash == NULL ? path : slash + 1);
    /* Names of files may be cut off in the middle of a character: then the name is left away. */
    const int whole = written > 0 && (size_t)written < sizeof image->name;
    const memflow_Header header = MEMFLOW_HEADER(memflow_MemoryInfo);
    image->info.header = header;
    image->info.name = memflow_text(whole ? image->name : "craw");
    image->info.runs = &image->run;
    image->info.run_count = 1;
    /* The file may be the memory of a machine that runs: nobody promises otherwise. */
    image->info.liveness = MEMFLOW_LIVENESS_LIVE;
    image->info.read_only = 1;
    memory->context = image;
    memory->table = &image_table;
    return 0;
}

static int32_t craw_open(const memflow_ConnectorRequest *request, memflow_Memory *memory, memflow_FailureSink failure) {
    /* Only for connectors that accept `os`; a handle that comes nevertheless is this side's to give up. */
    if (MEMFLOW_HAS(request, input) && request->input.table != NULL && request->input.table->drop != NULL) {
        request->input.table->drop(request->input.context);
    }
    uint64_t base = 0;
    for (size_t i = 0; i < request->argument_count; i++) {
        const memflow_Argument *argument = &request->arguments[i];
        if (!memflow_text_is(argument->name, "base")) {
            return memflow_fail(failure, MEMFLOW_FAILURE_ARGUMENT, "an argument of craw is unknown, expected base=NUMBER");
        }
        if (parse_number(argument->value, &base) != 0) {
            return memflow_fail(failure, MEMFLOW_FAILURE_ARGUMENT,
                                "argument base is no number below 2^64, expected decimal, or hexadecimal with 0x");
        }
    }
    if (request->target.ptr == NULL || request->target.len == 0) {
        return memflow_fail(failure, MEMFLOW_FAILURE_ARGUMENT, "no target was given, expected the path of a raw memory image");
    }
    char *path = string_of(request->target);
    if (path == NULL) {
        return memflow_fail(failure, MEMFLOW_FAILURE_ARGUMENT, "the target cannot be used as a path, expected one without NUL");
    }
    const int32_t result = open_image(path, base, memory, failure);
    free(path);
    if (result == 0 && MEMFLOW_HAS(request, report) && request->report.format != NULL) {
        request->report.format(request->report.context, memflow_text("raw image"));
    }
    return result;
}

MEMFLOW_EXPORT const memflow_PluginEntry craw_entry = {
    .header = MEMFLOW_HEADER(memflow_PluginEntry),
    .descriptor = MEMFLOW_TEXT_OF(craw_descriptor),
    .open_connector = craw_open,
};
