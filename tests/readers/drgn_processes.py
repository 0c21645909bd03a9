"""The processes of a Linux dump as drgn sees it: a line for each, id and name.

drgn reads the file, finds the kernel's symbols and walks its page tables. It needs no debug information for that; the three offsets
that the list of tasks takes come from the kernel's own types, which are read here (Linux, Documentation/bpf/btf.rst).
"""

import struct
import sys

import drgn
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

STRUCT, UNION = 4, 5
# Bytes behind each kind of type: fixed, and for each of its members.
TAILS = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12), 17: (4, 0), 19: (0, 12)}


def types(data):
    """The structures by name and by number: a list of (name, type, offset in bits)."""
    magic, _, _, header, type_at, type_len, names_at, _ = struct.unpack_from("<HBBIIIII", data)
    assert magic == 0xEB9F, hex(magic)

    def name(at):
        start = header + names_at + at
        return data[start : data.index(b"\0", start)].decode()

    by_name, by_number, at, number = {}, {}, header + type_at, 1
    while at < header + type_at + type_len:
        name_at, info, _ = struct.unpack_from("<III", data, at)
        kind, count, wide = info >> 24 & 0x1F, info & 0xFFFF, info >> 31
        at += 12
        if kind in (STRUCT, UNION):
            members = []
            for index in range(count):
                member, member_type, offset = struct.unpack_from("<III", data, at + 12 * index)
                members.append((name(member), member_type, offset & 0xFFFFFF if wide else offset))
            by_number[number] = members
            by_name.setdefault(name(name_at), members)
        fixed, each = TAILS.get(kind, (0, 0))
        at += fixed + each * count
        number += 1
    return by_name, by_number


def offset(members, by_number, wanted):
    """Where a member lies, in bytes; those of members without a name are members too."""
    for name, number, bits in members:
        if name == wanted:
            return bits // 8
        if not name and number in by_number:
            inner = offset(by_number[number], by_number, wanted)
            if inner is not None:
                return bits // 8 + inner
    return None


def main(path):
    prog = drgn.Program()
    prog.set_core_dump(path)
    prog.register_symbol_finder("kernel", load_vmlinux_kallsyms(prog), enable_index=0)
    start, stop = (prog.symbol(name).address for name in ("__start_BTF", "__stop_BTF"))
    by_name, by_number = types(prog.read(start, stop - start))
    tasks, pid, comm = (offset(by_name["task_struct"], by_number, name) for name in ("tasks", "pid", "comm"))
    first = prog.symbol("init_task").address
    task, seen = prog.read_u64(first + tasks) - tasks, set()
    while task != first and task not in seen:
        seen.add(task)
        name = prog.read(task + comm, 16).split(b"\0")[0].decode()
        print(prog.read_u32(task + pid), name)
        task = prog.read_u64(task + tasks) - tasks


main(sys.argv[1])
