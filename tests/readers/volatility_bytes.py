"""Bytes of physical memory as volatility3's layers read them.

Takes the name of a layer and a file; reads lines with an address and a length, and writes the bytes one after the other.
"""

import pathlib
import sys

from volatility3.framework import contexts
from volatility3.framework.layers import crash, elf, lime, physical

LAYERS = {
    "lime": lime.LimeLayer,
    "elf": elf.Elf64Layer,
    "crash32": crash.WindowsCrashDump32Layer,
    "crash64": crash.WindowsCrashDump64Layer,
}


def main(kind, path):
    context = contexts.Context()
    context.config["file.location"] = pathlib.Path(path).resolve().as_uri()
    context.add_layer(physical.FileLayer(context, "file", "file"))
    context.config["memory.base_layer"] = "file"
    context.add_layer(LAYERS[kind](context, "memory", "memory"))
    memory = context.layers["memory"]
    for line in sys.stdin:
        address, length = line.split()
        sys.stdout.buffer.write(memory.read(int(address), int(length)))


main(sys.argv[1], sys.argv[2])
