/*
 * memflow_plugin.h: the binary interface between memflow and its plugins, for C11 and C++17.
 *
 * It says the same as the Rust crate `memflow-abi`; a test of that crate compares every size, offset and number. Names are the
 * crate's with a prefix: structure `ReadOp` is `memflow_ReadOp`, number `status::DONE` is `MEMFLOW_STATUS_DONE`.
 *
 * A PLUGIN IN THREE STEPS
 *
 * 1. A descriptor: text in a section of the file, which memflow reads before it runs anything of the plugin.
 *
 *        MEMFLOW_DESCRIPTOR(my_descriptor) =
 *            MEMFLOW_PLUGIN_BEGIN
 *            MEMFLOW_FIELD("kind", "connector")
 *            MEMFLOW_FIELD("name", "mine")
 *            MEMFLOW_FIELD("version", "0.1.0")
 *            MEMFLOW_FIELD("entry", "my_entry")
 *            MEMFLOW_FIELD("description", "one line for people");
 *
 * 2. An entry: an exported constant with the functions that memflow calls. It refers to the descriptor, and so keeps any linker from
 *    throwing that away.
 *
 *        MEMFLOW_EXPORT const memflow_PluginEntry my_entry = {
 *            MEMFLOW_HEADER(memflow_PluginEntry),
 *            MEMFLOW_TEXT_OF(my_descriptor), // descriptor
 *            NULL,                           // layout: only for plugins in Rust
 *            NULL,                           // attach
 *            NULL,                           // set_log_level
 *            my_open,                        // open_connector
 *            NULL,                           // open_os
 *            NULL,                           // targets
 *        };
 *
 *    (C may name the fields: `.header = MEMFLOW_HEADER(memflow_PluginEntry), .open_connector = my_open`.)
 *
 * 3. A shared library of the two: `cc -std=c11 -shared -fPIC -I include mine.c -o mine.so`.
 *
 * RULES
 *
 * Growing structures start with a `memflow_Header`: their size in bytes and the version that their maker was built for. A later minor
 * version appends fields and changes nothing before them. Whoever reads one takes `size` bytes at most and treats what is missing as
 * zero: a null pointer, an absent function, "unknown". `MEMFLOW_HAS` asks whether a field is there. Whoever makes one sets the header
 * with `MEMFLOW_HEADER`. They are always passed by pointer.
 *
 * Fixed structures (those without a header) lie in arrays or are passed by value; they change with the major version only.
 *
 * Versions: the same major version fits, whatever the minor ones of the two sides. memflow refuses a plugin of another major version
 * before it loads it.
 *
 * Threads: every function may be called from any thread, and those of one object from several at once. Use `pread`, not `lseek` and
 * `read`; guard what changes.
 *
 * Ownership: memory is freed by the side that made it. A `drop` function gives up one handle, `clone` makes another for the same
 * object: an atomic count will do. What a function returns by pointer belongs to the object and stays as it is until the object's last
 * handle is dropped, unless its description says otherwise. What is passed to a function is borrowed for the call: copy what is needed
 * later. The exception are handles that are passed by value (`input` and `memory` of the requests), which the callee owns from then
 * on, whatever it returns: it drops them when it is done, also after a failure.
 *
 * Failures: functions that can fail return zero for success. Before they return anything else they call the `memflow_FailureSink`
 * once; `memflow_fail` does. Nothing unwinds across the boundary: no C++ exception, no `longjmp`.
 *
 * Function pointers may be null where a description says "absent"; the others have to be there. Loaded libraries stay loaded until the
 * process ends.
 *
 * Numbers may get further names in a minor version: pass an unknown one on as "unknown", never take it for another.
 *
 * Addresses, offsets and lengths are in bytes.
 */
#ifndef MEMFLOW_PLUGIN_H
#define MEMFLOW_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__APPLE__)
#include <TargetConditionals.h>
#endif

/* ---- Versions ---- */

/* The major version: both sides must have the same. */
#define MEMFLOW_MAJOR 1
/* The minor version: raised when something is appended. */
#define MEMFLOW_MINOR 2
/* Both, as the descriptor has them. */
#define MEMFLOW_ABI_TEXT "1.2"

/* ---- The target triple of this build ----
 *
 * Define it yourself (`-DMEMFLOW_TARGET='"…"'`) where this does not recognise the compiler, or takes it for another: the triple is the
 * one that `rustc -vV` prints as "host" for the memflow that is to load the plugin. Clang for MinGW is taken for a toolchain with LLVM's
 * libraries ("gnullvm"). */
#if !defined(MEMFLOW_TARGET)
#if defined(__ANDROID__)
#if defined(__x86_64__)
#define MEMFLOW_TARGET "x86_64-linux-android"
#elif defined(__i386__)
#define MEMFLOW_TARGET "i686-linux-android"
#elif defined(__aarch64__)
#define MEMFLOW_TARGET "aarch64-linux-android"
#elif defined(__arm__)
#define MEMFLOW_TARGET "armv7-linux-androideabi"
#endif
/* The GNU library says who it is in the headers above; musl has no such macro. */
#elif defined(__linux__) && defined(__GLIBC__) && !defined(__UCLIBC__)
#if defined(__x86_64__) && !defined(__ILP32__)
#define MEMFLOW_TARGET "x86_64-unknown-linux-gnu"
#elif defined(__i386__)
#define MEMFLOW_TARGET "i686-unknown-linux-gnu"
#elif defined(__aarch64__) && !defined(__AARCH64EB__) && !defined(__ILP32__)
#define MEMFLOW_TARGET "aarch64-unknown-linux-gnu"
#elif defined(__arm__) && !defined(__ARMEB__) && defined(__ARM_PCS_VFP)
#define MEMFLOW_TARGET "arm-unknown-linux-gnueabihf"
#elif defined(__arm__) && !defined(__ARMEB__) && defined(__ARM_EABI__)
#define MEMFLOW_TARGET "arm-unknown-linux-gnueabi"
#elif defined(__riscv) && __riscv_xlen == 64 && defined(__riscv_float_abi_double)
#define MEMFLOW_TARGET "riscv64gc-unknown-linux-gnu"
#elif defined(__loongarch__) && defined(__loongarch_lp64) && defined(__loongarch_double_float)
#define MEMFLOW_TARGET "loongarch64-unknown-linux-gnu"
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__) && defined(_CALL_ELF) && _CALL_ELF == 2
#define MEMFLOW_TARGET "powerpc64le-unknown-linux-gnu"
#elif defined(__s390x__)
#define MEMFLOW_TARGET "s390x-unknown-linux-gnu"
#endif
#elif defined(__linux__) && !defined(__UCLIBC__)
#if defined(__x86_64__) && !defined(__ILP32__)
#define MEMFLOW_TARGET "x86_64-unknown-linux-musl"
#elif defined(__i386__)
#define MEMFLOW_TARGET "i686-unknown-linux-musl"
#elif defined(__aarch64__) && !defined(__AARCH64EB__) && !defined(__ILP32__)
#define MEMFLOW_TARGET "aarch64-unknown-linux-musl"
#elif defined(__arm__) && !defined(__ARMEB__) && defined(__ARM_PCS_VFP)
#define MEMFLOW_TARGET "arm-unknown-linux-musleabihf"
#elif defined(__arm__) && !defined(__ARMEB__) && defined(__ARM_EABI__)
#define MEMFLOW_TARGET "arm-unknown-linux-musleabi"
#elif defined(__riscv) && __riscv_xlen == 64 && defined(__riscv_float_abi_double)
#define MEMFLOW_TARGET "riscv64gc-unknown-linux-musl"
#elif defined(__loongarch__) && defined(__loongarch_lp64) && defined(__loongarch_double_float)
#define MEMFLOW_TARGET "loongarch64-unknown-linux-musl"
#endif
#elif defined(__FreeBSD__)
#if defined(__x86_64__) && !defined(__ILP32__)
#define MEMFLOW_TARGET "x86_64-unknown-freebsd"
#elif defined(__aarch64__)
#define MEMFLOW_TARGET "aarch64-unknown-freebsd"
#endif
#elif defined(__MINGW32__)
#if defined(__x86_64__) && defined(__clang__)
#define MEMFLOW_TARGET "x86_64-pc-windows-gnullvm"
#elif defined(__x86_64__)
#define MEMFLOW_TARGET "x86_64-pc-windows-gnu"
#elif defined(__i386__)
#define MEMFLOW_TARGET "i686-pc-windows-gnu"
#elif defined(__aarch64__) && defined(__clang__)
#define MEMFLOW_TARGET "aarch64-pc-windows-gnullvm"
#endif
#elif defined(_MSC_VER) && !defined(_M_ARM64EC)
#if defined(_M_X64)
#define MEMFLOW_TARGET "x86_64-pc-windows-msvc"
#elif defined(_M_IX86)
#define MEMFLOW_TARGET "i686-pc-windows-msvc"
#elif defined(_M_ARM64)
#define MEMFLOW_TARGET "aarch64-pc-windows-msvc"
#endif
#elif defined(__APPLE__) && TARGET_OS_OSX
#if defined(__x86_64__)
#define MEMFLOW_TARGET "x86_64-apple-darwin"
#elif defined(__aarch64__)
#define MEMFLOW_TARGET "aarch64-apple-darwin"
#endif
#endif
#endif

#if !defined(MEMFLOW_TARGET)
#error "memflow plugins are not known for this target: define MEMFLOW_TARGET as the triple that rustc prints for it"
#endif

/* ---- The descriptor ----
 *
 * NUL-terminated UTF-8 strings `key=value`. A file may hold several plugins; each begins with MEMFLOW_PLUGIN_BEGIN.
 *
 *   kind         `connector` or `os`, once
 *   name         a lower-case letter or digit, then up to 31 of those, `_` and `-`; once
 *   version      the plugin's own version (MAJOR.MINOR.PATCH, semver), once
 *   entry        name of the exported memflow_PluginEntry, a C identifier, once
 *   description  one line, once
 *   accepts      `content` or `os`: what a connector opens besides named targets; any number
 *   arg          an argument that it takes; up to 256
 *   help         text of any number of lines, at most once
 *
 * MEMFLOW_PLUGIN_BEGIN writes the others: `memflow_plugin` (the format's version), `abi` and `target`.
 * An `arg` is `name:kind[!]:default:help`, with `!` for one that must be given; `default` may be empty, and `help` is one line. The
 * kinds are `text`, `path`, `flag`, `number`, `size`, `time` and `choice(a|b|c)`. */

/* One string of a descriptor; both parts are string literals. */
#define MEMFLOW_FIELD(key, value) key "=" value "\0"

/* The strings that every descriptor begins with. */
#define MEMFLOW_PLUGIN_BEGIN                                                                                                           \
    MEMFLOW_FIELD("memflow_plugin", "1") MEMFLOW_FIELD("abi", MEMFLOW_ABI_TEXT) MEMFLOW_FIELD("target", MEMFLOW_TARGET)

/* Keeps linkers that drop what nothing refers to (`--gc-sections`) from doing so; `used` is for the compiler alone. */
#if defined(__has_attribute)
#if __has_attribute(retain) && defined(__ELF__)
#define MEMFLOW_RETAIN , retain
#endif
#endif
#if !defined(MEMFLOW_RETAIN)
#define MEMFLOW_RETAIN
#endif

/* Places what it stands before in the section that memflow looks for. */
#if defined(_MSC_VER)
#define MEMFLOW_SECTION __pragma(section(".memflow", read)) __declspec(allocate(".memflow"))
#elif defined(_WIN32)
#define MEMFLOW_SECTION __attribute__((used, section(".memflow")))
#elif defined(__APPLE__)
#define MEMFLOW_SECTION __attribute__((used, section("__DATA,__memflow")))
#else
#define MEMFLOW_SECTION __attribute__((used MEMFLOW_RETAIN, section("memflow_plugin")))
#endif

/* Defines an array of char with a descriptor in it: follow it by `= … ;`. */
#define MEMFLOW_DESCRIPTOR(name) MEMFLOW_SECTION static const char name[]

/* Stands before the definition of the entry: other files see its name as it is written. */
#if defined(__cplusplus)
#define MEMFLOW_EXTERN_C extern "C"
#else
#define MEMFLOW_EXTERN_C
#endif
#if defined(_WIN32)
#define MEMFLOW_EXPORT MEMFLOW_EXTERN_C __declspec(dllexport)
#else
#define MEMFLOW_EXPORT MEMFLOW_EXTERN_C __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Names of the structures ---- */

typedef struct memflow_Text memflow_Text;
typedef struct memflow_Outcome memflow_Outcome;
typedef struct memflow_ReadOp memflow_ReadOp;
typedef struct memflow_WriteOp memflow_WriteOp;
typedef struct memflow_Failure memflow_Failure;
typedef struct memflow_FailureSink memflow_FailureSink;
typedef struct memflow_RecordSink memflow_RecordSink;
typedef struct memflow_TextRecord memflow_TextRecord;
typedef struct memflow_Run memflow_Run;
typedef struct memflow_RunSink memflow_RunSink;
typedef struct memflow_MemoryInfo memflow_MemoryInfo;
typedef struct memflow_X86Vcpu memflow_X86Vcpu;
typedef struct memflow_AArch64Vcpu memflow_AArch64Vcpu;
typedef struct memflow_DumpHeader memflow_DumpHeader;
typedef struct memflow_VcpuRecord memflow_VcpuRecord;
typedef struct memflow_Facts memflow_Facts;
typedef struct memflow_DirectRegion memflow_DirectRegion;
typedef struct memflow_DirectMap memflow_DirectMap;
typedef struct memflow_Memory memflow_Memory;
typedef struct memflow_MemoryTable memflow_MemoryTable;
typedef struct memflow_SoftFault memflow_SoftFault;
typedef struct memflow_SoftFaults memflow_SoftFaults;
typedef struct memflow_SoftFaultsTable memflow_SoftFaultsTable;
typedef struct memflow_SpaceRecord memflow_SpaceRecord;
typedef struct memflow_ViewInfo memflow_ViewInfo;
typedef struct memflow_View memflow_View;
typedef struct memflow_ViewTable memflow_ViewTable;
typedef struct memflow_KernelRecord memflow_KernelRecord;
typedef struct memflow_ProcessRecord memflow_ProcessRecord;
typedef struct memflow_ThreadRecord memflow_ThreadRecord;
typedef struct memflow_RegionRecord memflow_RegionRecord;
typedef struct memflow_ModuleRecord memflow_ModuleRecord;
typedef struct memflow_SymbolRecord memflow_SymbolRecord;
typedef struct memflow_LogRecord memflow_LogRecord;
typedef struct memflow_Os memflow_Os;
typedef struct memflow_OsTable memflow_OsTable;
typedef struct memflow_Process memflow_Process;
typedef struct memflow_ProcessTable memflow_ProcessTable;
typedef struct memflow_LogMessage memflow_LogMessage;
typedef struct memflow_Host memflow_Host;
typedef struct memflow_Argument memflow_Argument;
typedef struct memflow_Progress memflow_Progress;
typedef struct memflow_OpenReport memflow_OpenReport;
typedef struct memflow_ConnectorRequest memflow_ConnectorRequest;
typedef struct memflow_OsRequest memflow_OsRequest;
typedef struct memflow_TargetRecord memflow_TargetRecord;
typedef struct memflow_PluginEntry memflow_PluginEntry;

/* ---- Growing structures ---- */

/* The start of every growing structure. */
typedef struct memflow_Header {
    /* Size of the whole structure in bytes, as its maker knows it. */
    uint32_t size;
    /* Major version of the ABI that its maker was built for. */
    uint16_t major;
    /* Minor version of the ABI that its maker was built for. */
    uint16_t minor;
} memflow_Header;

/* Initialises the header of a structure of that type. */
#define MEMFLOW_HEADER(type) { (uint32_t)sizeof(type), MEMFLOW_MAJOR, MEMFLOW_MINOR }

/* Whether the growing structure that `pointer` points to has `field`; if not, take it for zero. */
#define MEMFLOW_HAS(pointer, field)                                                                                                    \
    ((pointer)->header.size >= (size_t)((const char *)&(pointer)->field - (const char *)(pointer)) + sizeof((pointer)->field))

/* ---- What both sides tell each other ---- */

/* UTF-8 text, or bytes where a description says so. Not terminated. A null `ptr` means that there is none. */
struct memflow_Text {
    /* First byte. */
    const uint8_t *ptr;
    /* Number of bytes. */
    size_t len;
};

/* What became of an operation: values of `memflow_Outcome.status`. */

/* Nobody has tried yet. */
#define MEMFLOW_STATUS_NOT_ATTEMPTED UINT32_C(0)
/* Every byte was copied. */
#define MEMFLOW_STATUS_DONE UINT32_C(1)
/* The page tables stop before a page: `level`, `cause`, `address` (of the table), `entry`. */
#define MEMFLOW_STATUS_NOT_MAPPED UINT32_C(2)
/* The page lies in swap or in a file: `entry`. */
#define MEMFLOW_STATUS_PAGED_OUT UINT32_C(3)
/* No run of the target holds the byte: `address` (physical). */
#define MEMFLOW_STATUS_NOT_IN_IMAGE UINT32_C(4)
/* The file was cut short while it was open: `address` (physical). */
#define MEMFLOW_STATUS_TRUNCATED UINT32_C(5)
/* The operation leaves the address space. */
#define MEMFLOW_STATUS_OUT_OF_RANGE UINT32_C(6)
/* The target does not take writes. */
#define MEMFLOW_STATUS_READ_ONLY UINT32_C(7)
/* The operating system refused: `os_error`. */
#define MEMFLOW_STATUS_IO UINT32_C(8)
/* The code that was called panicked. */
#define MEMFLOW_STATUS_PANICKED UINT32_C(9)
/* Whoever wrote the dump left the byte out on purpose: `address` (physical). Since 1.2. */
#define MEMFLOW_STATUS_EXCLUDED UINT32_C(10)
/* The dump is damaged where it holds the byte: `address` (physical). Since 1.2. */
#define MEMFLOW_STATUS_DAMAGED UINT32_C(11)

/* What stopped a page walk: values of `memflow_Outcome.cause`. */

/* The address has bits that the paging mode does not translate. */
#define MEMFLOW_CAUSE_NOT_CANONICAL UINT32_C(1)
/* The entry is not present. */
#define MEMFLOW_CAUSE_NOT_PRESENT UINT32_C(2)
/* The entry has a bit set that must be zero. */
#define MEMFLOW_CAUSE_RESERVED_BIT UINT32_C(3)
/* The table lies where the target holds nothing. */
#define MEMFLOW_CAUSE_TABLE_NOT_IN_IMAGE UINT32_C(4)
/* The table could not be read for another reason. */
#define MEMFLOW_CAUSE_TABLE_UNREADABLE UINT32_C(5)

/* What became of an operation. Fields that the status does not use are zero. */
struct memflow_Outcome {
    /* One of MEMFLOW_STATUS_*. */
    uint32_t status;
    /* Level of the entry that stopped a page walk: 1 for base pages, 0 when the walk did not start. */
    uint32_t level;
    /* One of MEMFLOW_CAUSE_*. */
    uint32_t cause;
    /* Error number of the operating system (`errno`). */
    int32_t os_error;
    /* Bytes from the start of the operation to the first one that failed. */
    uint64_t offset;
    /* An address, as the status says. */
    uint64_t address;
    /* A page-table entry. */
    uint64_t entry;
};

/* One read of a batch. */
struct memflow_ReadOp {
    /* First address. */
    uint64_t address;
    /* Where the bytes go: `len` bytes that nobody else touches during the call. After a failure it holds the bytes that
     * could be read, the others are left as they were. */
    uint8_t *buffer;
    /* Number of bytes; may be zero. */
    size_t len;
    /* What became of it. The caller sets it to zero, the callee fills it in for every operation of the batch. */
    memflow_Outcome outcome;
};

/* One write of a batch. */
struct memflow_WriteOp {
    /* First address. */
    uint64_t address;
    /* The bytes. */
    const uint8_t *buffer;
    /* Number of bytes; may be zero. */
    size_t len;
    /* What became of it, as for `memflow_ReadOp`. */
    memflow_Outcome outcome;
};

/* What failed: values of `memflow_Failure.kind`. */

/* None of the others. */
#define MEMFLOW_FAILURE_OTHER UINT32_C(0)
/* Bytes could not be read or written; the fields after `message` say which. */
#define MEMFLOW_FAILURE_ACCESS UINT32_C(1)
/* An address and a length leave the address space. */
#define MEMFLOW_FAILURE_RANGE UINT32_C(2)
/* The other side broke its contract. */
#define MEMFLOW_FAILURE_CONTRACT UINT32_C(3)
/* A file does not say what its format demands. */
#define MEMFLOW_FAILURE_FORMAT UINT32_C(4)
/* A file cannot be used as a whole. */
#define MEMFLOW_FAILURE_FILE UINT32_C(5)
/* The operating system refused; `os_error` of the outcome says how. */
#define MEMFLOW_FAILURE_IO UINT32_C(6)
/* Runs of physical memory overlap. */
#define MEMFLOW_FAILURE_OVERLAP UINT32_C(7)
/* No operating system was recognised. */
#define MEMFLOW_FAILURE_NOT_RECOGNISED UINT32_C(8)
/* Something was recognised that cannot be worked with. */
#define MEMFLOW_FAILURE_UNSUPPORTED UINT32_C(9)
/* A named thing does not exist in the target. */
#define MEMFLOW_FAILURE_NOT_FOUND UINT32_C(10)
/* An option or argument is not what it must be. */
#define MEMFLOW_FAILURE_ARGUMENT UINT32_C(11)
/* A structure in the target contradicts itself. */
#define MEMFLOW_FAILURE_CORRUPT UINT32_C(12)
/* A list or table went on past its limit. */
#define MEMFLOW_FAILURE_LIMIT UINT32_C(13)
/* A list comes back to an entry that it passed before. */
#define MEMFLOW_FAILURE_CYCLE UINT32_C(14)
/* The caller asked to stop. */
#define MEMFLOW_FAILURE_CANCELLED UINT32_C(15)
/* The code of the plugin panicked. */
#define MEMFLOW_FAILURE_PANIC UINT32_C(16)

/* What was asked of memory: values of `memflow_Failure.access`. */

/* A read. */
#define MEMFLOW_ACCESS_READ UINT32_C(1)
/* A write. */
#define MEMFLOW_ACCESS_WRITE UINT32_C(2)

/* The kind of an address: values of `memflow_Failure.space`. */

/* Physical. */
#define MEMFLOW_ADDRESS_SPACE_PHYSICAL UINT32_C(1)
/* Virtual. */
#define MEMFLOW_ADDRESS_SPACE_VIRTUAL UINT32_C(2)

/* Why something failed. */
struct memflow_Failure {
    /* Size and version. */
    memflow_Header header;
    /* One of MEMFLOW_FAILURE_*. */
    uint32_t kind;
    /* One of MEMFLOW_ACCESS_*, for MEMFLOW_FAILURE_ACCESS. */
    uint32_t access;
    /* The whole message for a person: what failed, expected and found, the way out. */
    memflow_Text message;
    /* One of MEMFLOW_ADDRESS_SPACE_*, for MEMFLOW_FAILURE_ACCESS. */
    uint32_t space;
    /* Zero. */
    uint32_t reserved;
    /* First address of the operation, for MEMFLOW_FAILURE_ACCESS. */
    uint64_t address;
    /* Bytes of the operation, for MEMFLOW_FAILURE_ACCESS. */
    uint64_t len;
    /* Why, for MEMFLOW_FAILURE_ACCESS; for MEMFLOW_FAILURE_IO its `os_error`. */
    memflow_Outcome outcome;
};

/* Where a function puts the reason of its failure. */
struct memflow_FailureSink {
    /* First argument of `set`. */
    void *context;
    /* Takes the reason; everything it points to is borrowed for the call. A second call replaces the first. */
    void (*set)(void *context, const memflow_Failure *failure);
};

/* Where a list goes, one record after another. */
struct memflow_RecordSink {
    /* First argument of both functions. */
    void *context;
    /* Takes a record of the kind that the function which got this sink names; it points to the record's header, and
     * everything is borrowed for the call. Anything but zero asks for an end of the list: the function that lists returns
     * success soon. */
    int32_t (*item)(void *context, const memflow_Header *record);
    /* Takes something that kept the list from being complete. */
    void (*problem)(void *context, const memflow_Failure *problem);
};

/* A text as a record of a list. */
struct memflow_TextRecord {
    /* Size and version. */
    memflow_Header header;
    /* The text. */
    memflow_Text text;
};

/* ---- Physical memory ---- */

/* Consecutive physical memory. */
struct memflow_Run {
    /* First address. */
    uint64_t start;
    /* Number of bytes, not zero. */
    uint64_t len;
    /* Offset of the first byte in the source; zero where that means nothing. */
    uint64_t offset;
};

/* Where runs go. */
struct memflow_RunSink {
    /* First argument of `run`. */
    void *context;
    /* Takes one run. Anything but zero asks for an end. */
    int32_t (*run)(void *context, memflow_Run run);
};

/* Whether bytes change while they are read: values of `liveness` fields. An unknown value means MEMFLOW_LIVENESS_LIVE. */

/* A running system. */
#define MEMFLOW_LIVENESS_LIVE UINT32_C(1)
/* A snapshot. */
#define MEMFLOW_LIVENESS_FROZEN UINT32_C(2)

/* What a target holds. */
struct memflow_MemoryInfo {
    /* Size and version. */
    memflow_Header header;
    /* The connector and its target, for messages ("snapshot core.elf"). */
    memflow_Text name;
    /* The physical addresses that can be read, without overlaps. */
    const memflow_Run *runs;
    /* Number of runs. */
    size_t run_count;
    /* One of MEMFLOW_LIVENESS_*. */
    uint32_t liveness;
    /* Not zero when writes are refused. */
    uint32_t read_only;
    /* Operations per call at which the source works best; zero for "any". */
    uint64_t ideal_batch;
};

/* Kinds of machines: values of `memflow_Facts.machine`. */

/* Not known. */
#define MEMFLOW_MACHINE_UNKNOWN UINT32_C(0)
/* 32-bit x86. */
#define MEMFLOW_MACHINE_X86 UINT32_C(1)
/* 64-bit x86. */
#define MEMFLOW_MACHINE_X86_64 UINT32_C(2)
/* 64-bit Arm. */
#define MEMFLOW_MACHINE_AARCH64 UINT32_C(3)

/* Bits of `memflow_X86Vcpu.known`: which registers were recorded. */

/* Control register 0. */
#define MEMFLOW_X86_REGISTER_CR0 UINT64_C(1)
/* Control register 2. */
#define MEMFLOW_X86_REGISTER_CR2 (UINT64_C(1) << 1)
/* Control register 3. */
#define MEMFLOW_X86_REGISTER_CR3 (UINT64_C(1) << 2)
/* Control register 4. */
#define MEMFLOW_X86_REGISTER_CR4 (UINT64_C(1) << 3)
/* The extended feature register. */
#define MEMFLOW_X86_REGISTER_EFER (UINT64_C(1) << 4)
/* Target of `syscall`. */
#define MEMFLOW_X86_REGISTER_LSTAR (UINT64_C(1) << 5)
/* Base of the interrupt descriptor table. */
#define MEMFLOW_X86_REGISTER_IDTR_BASE (UINT64_C(1) << 6)
/* Base of the global descriptor table. */
#define MEMFLOW_X86_REGISTER_GDTR_BASE (UINT64_C(1) << 7)
/* Base of GS. */
#define MEMFLOW_X86_REGISTER_GS_BASE (UINT64_C(1) << 8)
/* The GS base that `swapgs` would bring in. */
#define MEMFLOW_X86_REGISTER_KERNEL_GS_BASE (UINT64_C(1) << 9)
/* Instruction pointer. */
#define MEMFLOW_X86_REGISTER_RIP (UINT64_C(1) << 10)
/* Stack pointer. */
#define MEMFLOW_X86_REGISTER_RSP (UINT64_C(1) << 11)

/* Registers of an x86 vCPU. */
struct memflow_X86Vcpu {
    /* Bits of MEMFLOW_X86_REGISTER_* for the registers that are known. */
    uint64_t known;
    /* Control register 0. */
    uint64_t cr0;
    /* Control register 2. */
    uint64_t cr2;
    /* Control register 3. */
    uint64_t cr3;
    /* Control register 4. */
    uint64_t cr4;
    /* The extended feature register. */
    uint64_t efer;
    /* Target of `syscall`. */
    uint64_t lstar;
    /* Base of the interrupt descriptor table. */
    uint64_t idtr_base;
    /* Base of the global descriptor table. */
    uint64_t gdtr_base;
    /* Base of GS. */
    uint64_t gs_base;
    /* The GS base that `swapgs` would bring in. */
    uint64_t kernel_gs_base;
    /* Instruction pointer. */
    uint64_t rip;
    /* Stack pointer. */
    uint64_t rsp;
};

/* Bits of `memflow_AArch64Vcpu.known`: which registers were recorded. Since 1.2. */

/* Root of the page tables of the lower half, with the ASID in its high 16 bits. */
#define MEMFLOW_AARCH64_REGISTER_TTBR0_EL1 UINT64_C(1)
/* Root of the page tables of the upper half, with the ASID in its high 16 bits. */
#define MEMFLOW_AARCH64_REGISTER_TTBR1_EL1 (UINT64_C(1) << 1)
/* Translation control. */
#define MEMFLOW_AARCH64_REGISTER_TCR_EL1 (UINT64_C(1) << 2)
/* System control. */
#define MEMFLOW_AARCH64_REGISTER_SCTLR_EL1 (UINT64_C(1) << 3)
/* Meaning of the memory attributes in page-table entries. */
#define MEMFLOW_AARCH64_REGISTER_MAIR_EL1 (UINT64_C(1) << 4)
/* Base of the exception vectors. */
#define MEMFLOW_AARCH64_REGISTER_VBAR_EL1 (UINT64_C(1) << 5)
/* Software's own. */
#define MEMFLOW_AARCH64_REGISTER_TPIDR_EL1 (UINT64_C(1) << 6)
/* Stack pointer of EL0. */
#define MEMFLOW_AARCH64_REGISTER_SP_EL0 (UINT64_C(1) << 7)
/* Program counter. */
#define MEMFLOW_AARCH64_REGISTER_PC (UINT64_C(1) << 8)
/* Stack pointer of the current exception level. */
#define MEMFLOW_AARCH64_REGISTER_SP (UINT64_C(1) << 9)
/* Process state, laid out as SPSR_EL1. */
#define MEMFLOW_AARCH64_REGISTER_PSTATE (UINT64_C(1) << 10)

/* Registers of a 64-bit Arm vCPU. Since 1.2. */
struct memflow_AArch64Vcpu {
    /* Bits of MEMFLOW_AARCH64_REGISTER_* for the registers that are known. */
    uint64_t known;
    /* Root of the page tables of the lower half, with the ASID in its high 16 bits. */
    uint64_t ttbr0_el1;
    /* Root of the page tables of the upper half, with the ASID in its high 16 bits. */
    uint64_t ttbr1_el1;
    /* Translation control. */
    uint64_t tcr_el1;
    /* System control. */
    uint64_t sctlr_el1;
    /* Meaning of the memory attributes in page-table entries. */
    uint64_t mair_el1;
    /* Base of the exception vectors. */
    uint64_t vbar_el1;
    /* Software's own. */
    uint64_t tpidr_el1;
    /* Stack pointer of EL0. */
    uint64_t sp_el0;
    /* Program counter. */
    uint64_t pc;
    /* Stack pointer of the current exception level. */
    uint64_t sp;
    /* Process state, laid out as SPSR_EL1. */
    uint64_t pstate;
};

/* The registers of one vCPU. Since 1.2. One of the pointers is not null; with none of those that it knows, the receiver has a
 * vCPU of a kind that it does not know. */
struct memflow_VcpuRecord {
    /* Size and version. */
    memflow_Header header;
    /* Those of an x86 vCPU. */
    const memflow_X86Vcpu *x86;
    /* Those of a 64-bit Arm vCPU. */
    const memflow_AArch64Vcpu *aarch64;
};

/* Whether the vCPUs of a target execute. Since 1.2. */

/* They do. */
#define MEMFLOW_RUN_STATE_RUNNING UINT32_C(1)
/* They do not. */
#define MEMFLOW_RUN_STATE_PAUSED UINT32_C(2)

/* Bits of `memflow_DumpHeader.known`: what the header of a dump says. That of Windows says at least BUILD. Since 1.2. */

/* The value of the register that leads to the page tables. */
#define MEMFLOW_HEADER_FACT_DIRECTORY_TABLE UINT64_C(1)
/* Windows: the build number. */
#define MEMFLOW_HEADER_FACT_BUILD (UINT64_C(1) << 1)
/* Windows: one when page tables are in the format of PAE, else zero. */
#define MEMFLOW_HEADER_FACT_PAE (UINT64_C(1) << 2)
/* Windows: number of processors. */
#define MEMFLOW_HEADER_FACT_PROCESSORS (UINT64_C(1) << 3)
/* Windows: `KdDebuggerDataBlock`. */
#define MEMFLOW_HEADER_FACT_DEBUGGER_DATA (UINT64_C(1) << 4)
/* Windows: `PsLoadedModuleList`. */
#define MEMFLOW_HEADER_FACT_LOADED_MODULES (UINT64_C(1) << 5)
/* Windows: `PsActiveProcessHead`. */
#define MEMFLOW_HEADER_FACT_ACTIVE_PROCESSES (UINT64_C(1) << 6)
/* Windows: `MmPfnDatabase`. */
#define MEMFLOW_HEADER_FACT_PFN_DATABASE (UINT64_C(1) << 7)
/* Windows: why the machine stopped, with four parameters. */
#define MEMFLOW_HEADER_FACT_BUG_CHECK (UINT64_C(1) << 8)
/* Windows: when, in units of 100 ns since 1601-01-01 00:00 UTC. */
#define MEMFLOW_HEADER_FACT_SYSTEM_TIME (UINT64_C(1) << 9)

/* What the header of a dump says. Since 1.2. */
struct memflow_DumpHeader {
    /* Bits of MEMFLOW_HEADER_FACT_* for what is known. */
    uint64_t known;
    /* The value of the register that leads to the page tables. */
    uint64_t directory_table;
    /* Windows: the build number. */
    uint64_t build;
    /* Windows: one when page tables are in the format of PAE, else zero. */
    uint64_t pae;
    /* Windows: number of processors. */
    uint64_t processors;
    /* Windows: `KdDebuggerDataBlock`. */
    uint64_t debugger_data;
    /* Windows: `PsLoadedModuleList`. */
    uint64_t loaded_modules;
    /* Windows: `PsActiveProcessHead`. */
    uint64_t active_processes;
    /* Windows: `MmPfnDatabase`. */
    uint64_t pfn_database;
    /* Windows: why the machine stopped, with four parameters. */
    uint64_t bug_check;
    /* First parameter of `bug_check`. */
    uint64_t bug_check_parameter_1;
    /* Second parameter of `bug_check`. */
    uint64_t bug_check_parameter_2;
    /* Third parameter of `bug_check`. */
    uint64_t bug_check_parameter_3;
    /* Fourth parameter of `bug_check`. */
    uint64_t bug_check_parameter_4;
    /* Windows: when, in units of 100 ns since 1601-01-01 00:00 UTC. */
    uint64_t system_time;
};

/* What a target knows about itself. */
struct memflow_Facts {
    /* Size and version. */
    memflow_Header header;
    /* One of MEMFLOW_MACHINE_*. */
    uint32_t machine;
    /* Zero. */
    uint32_t reserved;
    /* The registers of each vCPU of an x86 machine. */
    const memflow_X86Vcpu *x86_vcpus;
    /* Number of vCPUs. */
    size_t x86_vcpu_count;
    /* Bytes of the guest kernel's VMCOREINFO note. */
    memflow_Text vmcoreinfo;
    /* The registers of each vCPU of a 64-bit Arm machine. Since 1.2. */
    const memflow_AArch64Vcpu *aarch64_vcpus;
    /* Number of them. Since 1.2. */
    size_t aarch64_vcpu_count;
    /* Null, or what the header of a dump says. Since 1.2. */
    const memflow_DumpHeader *dump_header;
};

/* Consecutive physical memory in this process. */
struct memflow_DirectRegion {
    /* First physical address. */
    uint64_t start;
    /* Number of bytes. */
    uint64_t len;
    /* Where the first byte lies. */
    uint8_t *pointer;
    /* Offset of that byte from the base of what backs it, for `lost_from`. */
    uint64_t offset;
};

/* Physical memory that lies in this process. It stays readable (and writable if so marked) at its addresses until the last
 * handle of the memory is dropped. With MEMFLOW_LIVENESS_FROZEN nobody writes to it. */
struct memflow_DirectMap {
    /* Size and version. */
    memflow_Header header;
    /* The regions, without overlaps. */
    const memflow_DirectRegion *regions;
    /* Number of regions. */
    size_t region_count;
    /* One of MEMFLOW_LIVENESS_*. */
    uint32_t liveness;
    /* Not zero when the bytes may be written to. */
    uint32_t writable;
    /* Null, or a number that is read atomically after each access: the offset from which on bytes turned out to be missing
     * (a file that was cut short), 2^64 - 1 while none did. Such bytes read as anything, but reading them must not fault. */
    const uint64_t *lost_from;
};

/* A handle of physical memory. */
struct memflow_Memory {
    /* First argument of every function of the table. */
    void *context;
    /* The functions. */
    const memflow_MemoryTable *table;
};

/* The functions of physical memory. */
struct memflow_MemoryTable {
    /* Size and version. */
    memflow_Header header;
    /* The context of another handle for the same memory; may be the same pointer. */
    void *(*clone)(void *context);
    /* Gives up a handle. */
    void (*drop)(void *context);
    /* Reads `count` operations in any order and records an outcome in each. Returns zero when that was done, whatever the
     * outcomes. */
    int32_t (*read)(void *context, memflow_ReadOp *ops, size_t count);
    /* Writes `count` operations in the order given, as `read`. Absent when the memory cannot be written to. */
    int32_t (*write)(void *context, memflow_WriteOp *ops, size_t count);
    /* What the target holds: the same for as long as it is open. */
    const memflow_MemoryInfo *(*info)(void *context);
    /* What the target knows about itself: the same for as long as it is open. Absent or null for nothing. */
    const memflow_Facts *(*facts)(void *context);
    /* The target's bytes, if they lie in this process: then nothing is read through `read`. Absent or null if they do not. */
    const memflow_DirectMap *(*direct_map)(void *context);
    /* The runs without what is known to be all zeros, in order; asked anew each time. Absent: all runs. Since 1.1. */
    void (*populated_runs)(void *context, memflow_RunSink runs);
    /* Whether the target runs: one of MEMFLOW_RUN_STATE_*. Absent, together with `pause` and `resume`: the target cannot be
     * controlled. Since 1.2. */
    int32_t (*run_state)(void *context, uint32_t *state, memflow_FailureSink failure);
    /* Stops all vCPUs and returns when they stand; nothing happens to a target that is paused. There if `run_state` is. Since
     * 1.2. */
    int32_t (*pause)(void *context, memflow_FailureSink failure);
    /* Lets all vCPUs run; nothing happens to a target that runs. There if `run_state` is. Since 1.2. */
    int32_t (*resume)(void *context, memflow_FailureSink failure);
    /* Lists the registers of each vCPU now, as `memflow_VcpuRecord`. Absent: they cannot be told. Since 1.2. */
    int32_t (*registers)(void *context, memflow_RecordSink sink, memflow_FailureSink failure);
    /* What the machine had and whoever wrote the dump left out on purpose, in order; in none of the runs, and offsets mean
     * nothing. Absent: nothing is known to be left out. Since 1.2. */
    void (*excluded_runs)(void *context, memflow_RunSink runs);
};

/* ---- Address spaces ---- */

/* What an entry that is not present means: values of `memflow_SoftFault.answer`. */

/* Nothing: the address is not mapped. */
#define MEMFLOW_SOFT_FAULT_ANSWER_NOT_MAPPED UINT32_C(0)
/* A page in physical memory at `base`. */
#define MEMFLOW_SOFT_FAULT_ANSWER_PAGE UINT32_C(1)
/* A page in swap or in a file. */
#define MEMFLOW_SOFT_FAULT_ANSWER_PAGED_OUT UINT32_C(2)
/* Nobody knows: the code that answers panicked. */
#define MEMFLOW_SOFT_FAULT_ANSWER_PANICKED UINT32_C(3)

/* What page tables say of a page: bits of `memflow_SoftFault.flags`. */

/* Writes are allowed. */
#define MEMFLOW_PAGE_FLAG_WRITABLE UINT32_C(1)
/* User mode is allowed. */
#define MEMFLOW_PAGE_FLAG_USER (UINT32_C(1) << 1)
/* Instruction fetches are refused. */
#define MEMFLOW_PAGE_FLAG_NO_EXECUTE (UINT32_C(1) << 2)
/* The page was used. */
#define MEMFLOW_PAGE_FLAG_ACCESSED (UINT32_C(1) << 3)
/* The page was written. */
#define MEMFLOW_PAGE_FLAG_DIRTY (UINT32_C(1) << 4)
/* The translation survives a change of address space. */
#define MEMFLOW_PAGE_FLAG_GLOBAL (UINT32_C(1) << 5)

/* One walk that stopped at an entry that is not present and not zero. */
struct memflow_SoftFault {
    /* The virtual address. */
    uint64_t address;
    /* Physical address of the table. */
    uint64_t table;
    /* The entry. */
    uint64_t entry;
    /* Level of the entry: 1 for base pages. */
    uint32_t level;
    /* Size of what the entry covers, as a power of two. */
    uint32_t page_shift;
    /* The answer: one of MEMFLOW_SOFT_FAULT_ANSWER_*; zero when asked. */
    uint32_t answer;
    /* For a page: bits of MEMFLOW_PAGE_FLAG_*. */
    uint32_t flags;
    /* For a page: physical address of the first byte of what the entry covers. */
    uint64_t base;
};

/* Who is asked about entries that are not present. */
struct memflow_SoftFaults {
    /* First argument of every function of the table. */
    void *context;
    /* The functions; null for nobody. */
    const memflow_SoftFaultsTable *table;
};

/* The functions of `memflow_SoftFaults`. */
struct memflow_SoftFaultsTable {
    /* Size and version. */
    memflow_Header header;
    /* The context of another handle; may be the same pointer. */
    void *(*clone)(void *context);
    /* Gives up a handle. */
    void (*drop)(void *context);
    /* Answers `count` questions; those left as they are mean "not mapped". */
    void (*resolve)(void *context, memflow_SoftFault *faults, size_t count);
};

/* An address space in the physical memory of an operating system. */
struct memflow_SpaceRecord {
    /* Size and version. */
    memflow_Header header;
    /* Name of the paging mode ("x86-64 4-level"). */
    memflow_Text architecture;
    /* Value of the root register. */
    uint64_t root;
    /* Borrowed; whoever keeps it clones it. */
    memflow_SoftFaults soft_faults;
};

/* ---- Views: memory by other addresses ---- */

/* What a view covers. */
struct memflow_ViewInfo {
    /* The highest address that can be asked for. */
    uint64_t last_address;
    /* Size of a pointer in bytes: 4 or 8. */
    uint32_t pointer_size;
    /* Not zero when writes are refused. */
    uint32_t read_only;
};

/* A handle of a view. */
struct memflow_View {
    /* First argument of every function of the table. */
    void *context;
    /* The functions. */
    const memflow_ViewTable *table;
};

/* The functions of a view. */
struct memflow_ViewTable {
    /* Size and version. */
    memflow_Header header;
    /* The context of another handle for the same view; may be the same pointer. */
    void *(*clone)(void *context);
    /* Gives up a handle. */
    void (*drop)(void *context);
    /* As `read` of physical memory, with the view's addresses. */
    int32_t (*read)(void *context, memflow_ReadOp *ops, size_t count);
    /* As `write` of physical memory, with the view's addresses. */
    int32_t (*write)(void *context, memflow_WriteOp *ops, size_t count);
    /* Fills in what the view covers. */
    void (*info)(void *context, memflow_ViewInfo *info);
};

/* ---- Operating systems and processes ---- */

/* The kernel that was found. */
struct memflow_KernelRecord {
    /* Size and version. */
    memflow_Header header;
    /* The operating system ("Linux"). */
    memflow_Text system;
    /* Its release. */
    memflow_Text release;
    /* Its full version text. */
    memflow_Text version;
    /* The host name, if known. */
    memflow_Text hostname;
    /* Name of the paging mode. */
    memflow_Text architecture;
    /* Where the kernel's code starts. */
    uint64_t base;
    /* Build identification in hexadecimal, if known. */
    memflow_Text build_id;
    /* How the kernel was found, for people. */
    const memflow_Text *evidence;
    /* Number of texts in `evidence`. */
    size_t evidence_count;
};

/* Bits of `memflow_ProcessRecord.present`. */

/* `uid` is known. */
#define MEMFLOW_PROCESS_PRESENT_UID UINT32_C(1)
/* `gid` is known. */
#define MEMFLOW_PROCESS_PRESENT_GID (UINT32_C(1) << 1)
/* `root` is known: the process has an address space. */
#define MEMFLOW_PROCESS_PRESENT_ROOT (UINT32_C(1) << 2)
/* It is a thread of the kernel. */
#define MEMFLOW_PROCESS_PRESENT_KERNEL_THREAD (UINT32_C(1) << 3)

/* States of processes and threads. */

/* On a CPU or ready for one. */
#define MEMFLOW_PROCESS_STATE_RUNNING UINT32_C(1)
/* Waiting, can be woken by a signal. */
#define MEMFLOW_PROCESS_STATE_SLEEPING UINT32_C(2)
/* Waiting, cannot be woken by a signal. */
#define MEMFLOW_PROCESS_STATE_DISK_SLEEP UINT32_C(3)
/* Stopped by a signal. */
#define MEMFLOW_PROCESS_STATE_STOPPED UINT32_C(4)
/* Stopped by a debugger. */
#define MEMFLOW_PROCESS_STATE_TRACED UINT32_C(5)
/* Ended, not yet waited for. */
#define MEMFLOW_PROCESS_STATE_ZOMBIE UINT32_C(6)
/* Being removed. */
#define MEMFLOW_PROCESS_STATE_DEAD UINT32_C(7)
/* A kernel thread with nothing to do. */
#define MEMFLOW_PROCESS_STATE_IDLE UINT32_C(8)
/* Parked. */
#define MEMFLOW_PROCESS_STATE_PARKED UINT32_C(9)

/* A process. */
struct memflow_ProcessRecord {
    /* Size and version. */
    memflow_Header header;
    /* The kernel's object. */
    uint64_t address;
    /* Process id. */
    uint32_t pid;
    /* Process id of the parent, 0 for none. */
    uint32_t parent_pid;
    /* Effective user id. */
    uint32_t uid;
    /* Effective group id. */
    uint32_t gid;
    /* Bits of MEMFLOW_PROCESS_PRESENT_*. */
    uint32_t present;
    /* One of MEMFLOW_PROCESS_STATE_*. */
    uint32_t state;
    /* Number of threads. */
    uint32_t threads;
    /* Zero. */
    uint32_t reserved;
    /* The kernel's name of the process. */
    memflow_Text name;
    /* Nanoseconds from boot to its start. */
    uint64_t start_time;
    /* Value of the root register. */
    uint64_t root;
};

/* A thread. */
struct memflow_ThreadRecord {
    /* Size and version. */
    memflow_Header header;
    /* The kernel's object. */
    uint64_t address;
    /* Thread id. */
    uint32_t tid;
    /* Process id. */
    uint32_t pid;
    /* One of MEMFLOW_PROCESS_STATE_*. */
    uint32_t state;
    /* Zero. */
    uint32_t reserved;
    /* Name. */
    memflow_Text name;
};

/* Bits of `memflow_RegionRecord.permissions`. */

/* Reads. */
#define MEMFLOW_PERMISSION_READ UINT32_C(1)
/* Writes. */
#define MEMFLOW_PERMISSION_WRITE (UINT32_C(1) << 1)
/* Instruction fetches. */
#define MEMFLOW_PERMISSION_EXECUTE (UINT32_C(1) << 2)
/* Shared with other processes. */
#define MEMFLOW_PERMISSION_SHARED (UINT32_C(1) << 3)

/* What a region is. */

/* Memory without a file. */
#define MEMFLOW_REGION_KIND_ANONYMOUS UINT32_C(1)
/* A file: `name` is its path. */
#define MEMFLOW_REGION_KIND_FILE UINT32_C(2)
/* Memory with a name that the system gives: `name`, with its brackets. */
#define MEMFLOW_REGION_KIND_SPECIAL UINT32_C(3)

/* A region of a process' address space. */
struct memflow_RegionRecord {
    /* Size and version. */
    memflow_Header header;
    /* First address. */
    uint64_t start;
    /* Number of bytes. */
    uint64_t len;
    /* Bits of MEMFLOW_PERMISSION_*. */
    uint32_t permissions;
    /* One of MEMFLOW_REGION_KIND_*. */
    uint32_t kind;
    /* Path or name, as the kind says. */
    memflow_Text name;
    /* Offset of the first byte in the file. */
    uint64_t file_offset;
    /* Inode number. */
    uint64_t inode;
    /* Device number, major. */
    uint32_t device_major;
    /* Device number, minor. */
    uint32_t device_minor;
};

/* A module. */
struct memflow_ModuleRecord {
    /* Size and version. */
    memflow_Header header;
    /* The kernel's object. */
    uint64_t address;
    /* Where the image starts. */
    uint64_t base;
    /* Bytes in memory. */
    uint64_t size;
    /* Name. */
    memflow_Text name;
    /* State in the system's words, if it has such. */
    memflow_Text state;
    /* Names of the modules that use this one. */
    const memflow_Text *used_by;
    /* Number of texts in `used_by`. */
    size_t used_by_count;
};

/* A symbol. */
struct memflow_SymbolRecord {
    /* Size and version. */
    memflow_Header header;
    /* Its address. */
    uint64_t address;
    /* Type letter, as `nm` prints it: a Unicode code point. */
    uint32_t kind;
    /* Zero. */
    uint32_t reserved;
    /* Its name. */
    memflow_Text name;
    /* Its module; none for the kernel itself. */
    memflow_Text module;
};

/* A record of the kernel's log. */
struct memflow_LogRecord {
    /* Size and version. */
    memflow_Header header;
    /* Nanoseconds since boot. */
    uint64_t time;
    /* Sequence number. */
    uint64_t sequence;
    /* Facility. */
    uint32_t facility;
    /* Level. */
    uint32_t level;
    /* Text without a line end. */
    memflow_Text text;
};

/* A handle of an operating system. */
struct memflow_Os {
    /* First argument of every function of the table. */
    void *context;
    /* The functions; null where there is no operating system. */
    const memflow_OsTable *table;
};

/* The functions of an operating system. Those that list put records of the named kind into the sink. */
struct memflow_OsTable {
    /* Size and version. */
    memflow_Header header;
    /* The context of another handle; may be the same pointer. */
    void *(*clone)(void *context);
    /* Gives up a handle. */
    void (*drop)(void *context);
    /* The kernel: the same for as long as the handle lives. */
    const memflow_KernelRecord *(*kernel)(void *context);
    /* The kernel's address space: the same for as long as the handle lives. */
    const memflow_SpaceRecord *(*kernel_space)(void *context);
    /* Fills in a new handle of the physical memory that the system lies in. */
    int32_t (*memory)(void *context, memflow_Memory *memory, memflow_FailureSink failure);
    /* `memflow_ProcessRecord`s in the order of the system's list. */
    int32_t (*processes)(void *context, memflow_RecordSink sink, memflow_FailureSink failure);
    /* Opens a process that was listed. */
    int32_t (*open_process)(void *context, const memflow_ProcessRecord *record, memflow_Process *process, memflow_FailureSink failure);
    /* `memflow_ModuleRecord`s of the kernel. */
    int32_t (*modules)(void *context, memflow_RecordSink sink, memflow_FailureSink failure);
    /* `memflow_SymbolRecord`s of the kernel and its modules. */
    int32_t (*symbols)(void *context, memflow_RecordSink sink, memflow_FailureSink failure);
    /* `memflow_SymbolRecord`s of that exact name. */
    int32_t (*symbols_named)(void *context, memflow_Text name, memflow_RecordSink sink, memflow_FailureSink failure);
    /* At most one `memflow_SymbolRecord`: the one at or before the address, and the distance to it in bytes. */
    int32_t (*symbol_at)(void *context, uint64_t address, uint64_t *distance, memflow_RecordSink sink, memflow_FailureSink failure);
    /* `memflow_LogRecord`s of the kernel, oldest first. */
    int32_t (*kernel_log)(void *context, memflow_RecordSink sink, memflow_FailureSink failure);
};

/* A handle of an opened process. */
struct memflow_Process {
    /* First argument of every function of the table. */
    void *context;
    /* The functions. */
    const memflow_ProcessTable *table;
};

/* The functions of a process. */
struct memflow_ProcessTable {
    /* Size and version. */
    memflow_Header header;
    /* Gives up the handle; a process has one. */
    void (*drop)(void *context);
    /* The process as it was when it was opened: the same for as long as the handle lives. */
    const memflow_ProcessRecord *(*record)(void *context);
    /* Its own address space, null for none: the same for as long as the handle lives. */
    const memflow_SpaceRecord *(*space)(void *context);
    /* The address space that the process' memory is read through, if a walk of it over the system's physical memory is all
     * there is to it: then `view` is not called. Null or absent if there is more. */
    const memflow_SpaceRecord *(*walk)(void *context);
    /* Fills in a new handle of the process' memory. */
    int32_t (*view)(void *context, memflow_View *view, memflow_FailureSink failure);
    /* At most one `memflow_TextRecord`: the path of the executable. */
    int32_t (*executable)(void *context, memflow_RecordSink sink, memflow_FailureSink failure);
    /* `memflow_TextRecord`s: the arguments. */
    int32_t (*command_line)(void *context, memflow_RecordSink sink, memflow_FailureSink failure);
    /* `memflow_TextRecord`s: the environment, as `NAME=value`. */
    int32_t (*environment)(void *context, memflow_RecordSink sink, memflow_FailureSink failure);
    /* `memflow_RegionRecord`s by address. */
    int32_t (*memory_map)(void *context, memflow_RecordSink sink, memflow_FailureSink failure);
    /* `memflow_ThreadRecord`s. */
    int32_t (*threads)(void *context, memflow_RecordSink sink, memflow_FailureSink failure);
};

/* ---- The entry of a plugin ---- */

/* Levels of log messages; as a most verbose level, 0 turns the log off. */

/* Nothing is logged. */
#define MEMFLOW_LOG_LEVEL_OFF UINT32_C(0)
/* Something failed. */
#define MEMFLOW_LOG_LEVEL_ERROR UINT32_C(1)
/* A result is worse than asked for. */
#define MEMFLOW_LOG_LEVEL_WARN UINT32_C(2)
/* What a person follows. */
#define MEMFLOW_LOG_LEVEL_INFO UINT32_C(3)
/* Choices. */
#define MEMFLOW_LOG_LEVEL_DEBUG UINT32_C(4)
/* Everything. */
#define MEMFLOW_LOG_LEVEL_TRACE UINT32_C(5)

/* A message for the host's log; borrowed for the call. */
struct memflow_LogMessage {
    /* Size and version. */
    memflow_Header header;
    /* One of MEMFLOW_LOG_LEVEL_*. */
    uint32_t level;
    /* Line in `file`, 0 if unknown. */
    uint32_t line;
    /* Who speaks: a module path. */
    memflow_Text target;
    /* What is said. */
    memflow_Text message;
    /* Source file, if known. */
    memflow_Text file;
    /* Module path, if known. */
    memflow_Text module;
};

/* What the host offers. Valid until the process ends. */
struct memflow_Host {
    /* Size and version. */
    memflow_Header header;
    /* Takes a log message. */
    void (*log)(const memflow_LogMessage *message);
    /* Name and version of the host, for messages. */
    memflow_Text name;
};

/* An argument. */
struct memflow_Argument {
    /* Its name. */
    memflow_Text name;
    /* Its value. */
    memflow_Text value;
};

/* Where progress is told. */
struct memflow_Progress {
    /* First argument of `step`. */
    void *context;
    /* Takes a stage in words, how much is done, and how much there is in all (0 for unknown). Anything but zero asks to
     * stop: the call then fails with MEMFLOW_FAILURE_CANCELLED. Any thread may call it. Absent when nobody listens. */
    int32_t (*step)(void *context, memflow_Text stage, uint64_t done, uint64_t total);
};

/* Where a connector tells what it opened. */
struct memflow_OpenReport {
    /* First argument of every function. */
    void *context;
    /* What the target is, in a few words ("ELF core, zstd"). */
    void (*format)(void *context, memflow_Text format);
    /* Something that a person should know: what is missing, what was assumed. */
    void (*note)(void *context, memflow_Text note);
    /* Arguments (`key=value,…`) to open the target with instead, if no operating system is found in what was opened; the
     * likelier first. */
    void (*alternative)(void *context, memflow_Text arguments);
};

/* What a connector is asked to open. Everything is borrowed for the call, but for `input`. */
struct memflow_ConnectorRequest {
    /* Size and version. */
    memflow_Header header;
    /* What to open, in the connector's own terms; none if it was not said. */
    memflow_Text target;
    /* The bytes of the target instead of a place to find them at; only for connectors that accept `content`. A null pointer
     * means that there are none; `target` is then a name for messages. */
    memflow_Text content;
    /* The arguments. */
    const memflow_Argument *arguments;
    /* Number of arguments. */
    size_t argument_count;
    /* Progress. */
    memflow_Progress progress;
    /* An operating system to look into, only for connectors that accept `os`. The connector owns the handle. */
    memflow_Os input;
    /* Takes notes about what was opened. */
    memflow_OpenReport report;
};

/* What an OS layer is asked to recognise. Everything is borrowed for the call, but for `memory`. */
struct memflow_OsRequest {
    /* Size and version. */
    memflow_Header header;
    /* The physical memory. The OS layer owns the handle. */
    memflow_Memory memory;
    /* The arguments. */
    const memflow_Argument *arguments;
    /* Number of arguments. */
    size_t argument_count;
    /* Progress. */
    memflow_Progress progress;
};

/* A target that a connector could open now. */
struct memflow_TargetRecord {
    /* Size and version. */
    memflow_Header header;
    /* What to give as `target`. */
    memflow_Text name;
    /* For people. */
    memflow_Text description;
};

/* What a plugin exports. */
struct memflow_PluginEntry {
    /* Size and version. */
    memflow_Header header;
    /* The descriptor, as in the section of the file: bytes. */
    memflow_Text descriptor;
    /* Null. Plugins in Rust describe here how they were built; the host compares that only if the descriptor names `layout`. */
    const void *layout;
    /* Called once after loading, before anything else. */
    void (*attach)(const memflow_Host *host);
    /* Sets the most verbose MEMFLOW_LOG_LEVEL_* that the plugin sends; called after `attach` and when the host's changes. */
    void (*set_log_level)(uint32_t level);
    /* For connectors: opens a target and fills in `memory`. */
    int32_t (*open_connector)(const memflow_ConnectorRequest *request, memflow_Memory *memory, memflow_FailureSink failure);
    /* For OS layers: recognises an operating system and fills in `os`. */
    int32_t (*open_os)(const memflow_OsRequest *request, memflow_Os *os, memflow_FailureSink failure);
    /* For connectors: `memflow_TargetRecord`s. Absent when targets cannot be listed. */
    int32_t (*targets)(memflow_RecordSink sink, memflow_FailureSink failure);
};

/* ---- Helpers ---- */

/* The text of an array of char, without the terminator of the string that it was made from; for constants. */
#define MEMFLOW_TEXT_OF(array) { (const uint8_t *)(array), sizeof(array) - 1 }

/* A borrowed text; none for a null pointer. */
static inline memflow_Text memflow_text(const char *string) {
    memflow_Text text;
    text.ptr = (const uint8_t *)string;
    text.len = string == NULL ? 0 : strlen(string);
    return text;
}

/* Whether a text is there and equals a string. */
static inline int memflow_text_is(memflow_Text text, const char *string) {
    size_t len = strlen(string);
    return text.ptr != NULL && text.len == len && memcmp(text.ptr, string, len) == 0;
}

/* Puts the reason of a failure into its sink. The result is what the function that fails returns, never zero:
 * `return memflow_fail(failure, MEMFLOW_FAILURE_ARGUMENT, "…");`. `kind` is not MEMFLOW_FAILURE_ACCESS or MEMFLOW_FAILURE_IO, which
 * have more to say: fill in a memflow_Failure for those, or call memflow_fail_io. */
static inline int32_t memflow_fail(memflow_FailureSink sink, uint32_t kind, const char *message) {
    const memflow_Header header = MEMFLOW_HEADER(memflow_Failure);
    memflow_Failure failure;
    memset(&failure, 0, sizeof failure);
    failure.header = header;
    failure.kind = kind;
    failure.message = memflow_text(message);
    if (sink.set != NULL) {
        sink.set(sink.context, &failure);
    }
    return -1;
}

/* As memflow_fail, where the operating system refused: with its error number. */
static inline int32_t memflow_fail_io(memflow_FailureSink sink, int32_t os_error, const char *message) {
    const memflow_Header header = MEMFLOW_HEADER(memflow_Failure);
    memflow_Failure failure;
    memset(&failure, 0, sizeof failure);
    failure.header = header;
    failure.kind = MEMFLOW_FAILURE_IO;
    failure.message = memflow_text(message);
    failure.outcome.status = MEMFLOW_STATUS_IO;
    failure.outcome.os_error = os_error;
    if (sink.set != NULL) {
        sink.set(sink.context, &failure);
    }
    return -1;
}

/* An outcome with nothing but its status. */
static inline memflow_Outcome memflow_outcome(uint32_t status) {
    memflow_Outcome outcome;
    memset(&outcome, 0, sizeof outcome);
    outcome.status = status;
    return outcome;
}

/* Every byte was copied. */
static inline memflow_Outcome memflow_done(void) {
    return memflow_outcome(MEMFLOW_STATUS_DONE);
}

/* No run holds the byte at `offset` of the operation; `op_address` is the physical address that the operation starts at. */
static inline memflow_Outcome memflow_not_in_image(uint64_t op_address, uint64_t offset) {
    memflow_Outcome outcome = memflow_outcome(MEMFLOW_STATUS_NOT_IN_IMAGE);
    outcome.offset = offset;
    outcome.address = op_address + offset;
    return outcome;
}

/* The file was cut short before the byte at `offset` of the operation, which starts at physical address `op_address`. */
static inline memflow_Outcome memflow_truncated(uint64_t op_address, uint64_t offset) {
    memflow_Outcome outcome = memflow_outcome(MEMFLOW_STATUS_TRUNCATED);
    outcome.offset = offset;
    outcome.address = op_address + offset;
    return outcome;
}

/* The operating system refused the byte at `offset` of the operation. */
static inline memflow_Outcome memflow_io_error(int32_t os_error, uint64_t offset) {
    memflow_Outcome outcome = memflow_outcome(MEMFLOW_STATUS_IO);
    outcome.os_error = os_error;
    outcome.offset = offset;
    return outcome;
}

#ifdef __cplusplus
}
#endif

#endif /* MEMFLOW_PLUGIN_H */
