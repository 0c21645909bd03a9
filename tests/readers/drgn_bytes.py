"""Bytes of physical memory as drgn reads them.

Takes a file; reads lines with an address and a length, and writes the bytes one after the other.
"""

import sys

import drgn


def main(path):
    prog = drgn.Program()
    prog.set_core_dump(path)
    for line in sys.stdin:
        address, length = line.split()
        sys.stdout.buffer.write(prog.read(int(address), int(length), physical=True))


main(sys.argv[1])
