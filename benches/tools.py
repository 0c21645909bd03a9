"""Asks a tool written for Python what `compare` asks everyone: translations, reads, the list of processes.

Called as: tools.py MODULE IMAGE ROOT LEVELS FOLDER. FOLDER/addresses holds 64-bit little-endian addresses; FOLDER/translate and
FOLDER/read8 get the answers, all bits set where there is none, and FOLDER/answer what it took, as JSON.
Times are those of the calls from Python, as this is how the tools are used.
"""

import array
import json
import os
import signal
import subprocess
import sys
import time

NONE = 2**64 - 1
# Nobody waits longer for a tool.
PATIENCE_SECONDS = 120


def timed(call, addresses, path):
    """Calls for every address; the second time counts, as others are warmed up too."""
    found = []
    for _ in range(2):
        found = array.array("Q")
        started = time.perf_counter_ns()
        for address in addresses:
            try:
                found.append(call(address))
            except Exception:  # Tools raise errors of many types for an address that they cannot translate.
                found.append(NONE)
        took = time.perf_counter_ns() - started
    with open(path, "wb") as file:
        found.tofile(file)
    return {"ns": took / max(1, len(addresses))}


def memprocfs(image, root, levels, addresses, folder):
    import memprocfs
    from importlib.metadata import version

    answer = {"version": version("memprocfs")}
    if levels != 4:
        reason = {"note": "not supported"}
        return answer | {"translate": reason, "read8": reason, "processes": reason}
    quiet = ["-disable-python", "-disable-symbolserver", "-disable-yara"]
    # Given the root of page tables it opens any x64 memory, as one process without a name.
    vmm = memprocfs.Vmm(["-device", image, "-cr3", hex(root)] + quiet)
    memory = vmm.process(1).memory
    answer["translate"] = timed(memory.virt2phys, addresses, os.path.join(folder, "translate"))
    read = lambda address: int.from_bytes(memory.read(address, 8, memprocfs.FLAG_NOCACHE), "little")
    answer["read8"] = timed(read, addresses, os.path.join(folder, "read8"))
    vmm.close()
    try:
        started = time.perf_counter_ns()
        vmm = memprocfs.Vmm(["-device", image] + quiet)
        found = len(vmm.process_list())
        answer["processes"] = {"ns": time.perf_counter_ns() - started, "found": found}
    except Exception:
        answer["processes"] = {"note": "Windows only"}
    return answer


def volatility3(image, root, levels, addresses, folder):
    from urllib.request import pathname2url

    from volatility3.framework import constants, contexts
    from volatility3.framework.layers import intel, physical

    answer = {"version": constants.PACKAGE_VERSION}
    if levels == 4:
        context = contexts.Context()
        context.config["file.location"] = "file:" + pathname2url(image)
        context.add_layer(physical.FileLayer(context, "file", "file"))
        context.config["space.memory_layer"] = "file"
        context.config["space.page_map_offset"] = root
        space = intel.LinuxIntel32e(context, "space", "space")
        context.add_layer(space)
        answer["translate"] = timed(lambda at: space.translate(at)[0], addresses, os.path.join(folder, "translate"))
        read = lambda at: int.from_bytes(space.read(at, 8), "little")
        answer["read8"] = timed(read, addresses, os.path.join(folder, "read8"))
    else:
        answer["translate"] = answer["read8"] = {"note": "not supported"}
    command = "import sys; from volatility3.cli import main; sys.argv[0] = 'vol'; main()"
    arguments = ["--offline", "-q", "-r", "json", "-f", image, "linux.pslist"]
    started = time.perf_counter_ns()
    run = subprocess.run([sys.executable, "-c", command] + arguments, capture_output=True, text=True)
    took = time.perf_counter_ns() - started
    if run.returncode == 0:
        answer["processes"] = {"ns": took, "found": len(json.loads(run.stdout))}
    elif "symbol_table_name" in run.stdout + run.stderr:
        answer["processes"] = {"note": "no symbols"}
    else:
        answer["processes"] = {"note": "fails"}
    return answer


def main():
    module, image, root, levels, folder = sys.argv[1:]
    signal.alarm(PATIENCE_SECONDS)
    addresses = array.array("Q")
    path = os.path.join(folder, "addresses")
    with open(path, "rb") as file:
        addresses.fromfile(file, os.path.getsize(path) // 8)
    ask = {"memprocfs": memprocfs, "volatility3": volatility3}[module]
    answer = ask(os.path.abspath(image), int(root, 16), int(levels), addresses, folder)
    with open(os.path.join(folder, "answer"), "w") as file:
        json.dump(answer, file)


main()
