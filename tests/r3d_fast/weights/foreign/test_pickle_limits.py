"""Small files of strangers take neither long nor much memory, whatever they describe."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

MAGIC, VERSION, MACHINE = 0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}
MANY = 200_000
# Reads the files that it is given, with 1 GiB of memory and 60 s of the processor for all of them. None of them is
# larger than 4 MB; without limits most would take 2 to the power of 60 steps, or terabytes.
READER = """
import resource, sys
from pathlib import Path
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.state_dict import read_foreign
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30,) * 2)
used = resource.getrusage(resource.RUSAGE_SELF)
resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 60,) * 2)
for path in sys.argv[1:]:
    print(path, end=": ", flush=True)
    try:
        read_foreign(Path(path))
        print("read", flush=True)
    except CheckpointError as error:
        print(str(error).removeprefix(path + ": "), flush=True)
"""

TUPLES = b"K\x01" + b"2\x86" * 60  # DUP, TUPLE2
LISTS = b"]" + b"q\x000](h\x00h\x00e" * 60  # BINPUT, POP, and BINGET twice into a new list
DICTS = b"}" + b"q\x000}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00u" * 60
SHARED = {"tuples": TUPLES, "lists": LISTS, "dicts": DICTS}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<i", len(value)) + value.encode()


def call(name: str, *arguments: bytes) -> bytes:
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n(".encode() + b"".join(arguments) + b"tR"


def often(value: bytes, use: bytes, times: int = MANY) -> bytes:
    """A list of what `use` makes, many times, of one `value`, which is stored as number 5."""
    return value + b"q\x050(" + use * times + b"l"


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def storage(key: bytes = text("0"), count: bytes = b"K\x01") -> bytes:
    return b"(" + text("storage") + b"ctorch\nFloatStorage\n" + key + text("cpu") + count + b"tQ"


def tensor(sides: bytes, strides: bytes) -> bytes:
    return call("torch._utils._rebuild_tensor_v2", storage(), b"K\x00", sides, strides, b"\x89", b"}")


def values() -> dict[str, bytes]:
    """Pickled values of a few kilobytes, up to 4 MB."""
    long_tuple, long_list = b"(" + b"K\x01" * MANY + b"t", b"(" + b"K\x01" * MANY + b"l"
    long_pairs = b"(" + b"K\x01K\x02\x86" * (MANY // 2) + b"l"
    huge = number(1 << 8_000_000)
    dtype = b"cnumpy\ndtype\n" + text("f4") + b"\x89\x88\x87R"
    half = np.zeros(2**15, np.float16)
    found = {f"plain {kind}": b"}" + text("w") + shared + b"s" for kind, shared in SHARED.items()}
    for kind, shared in SHARED.items():
        found |= {
            f"device of {kind}": call("torch.device", shared),
            f"device numbered by {kind}": call("torch.device", text("cuda"), shared),
            f"size of {kind}": call("torch.Size", shared),
            f"key of {kind}": b"}" + shared + b"K\x01s",
            f"pair with a key of {kind}": call("collections.OrderedDict", b"(" + shared + b"K\x01\x86l"),
            f"dtype of {kind}": call("numpy.dtype", shared),
            f"dtype in the order of {kind}": dtype + b"(K\x03" + shared + b"NNNtb",
            f"encoding of {kind}": call("_codecs.encode", text("a"), shared),
            f"encoded {kind}": call("_codecs.encode", shared, text("latin1")),
            f"name of {kind}": text("os") + shared + b"\x93",
            f"module of {kind}": shared + text("os") + b"\x93",
            f"storage called {kind}": storage(key=shared),
            f"storage as long as {kind}": storage(count=shared),
            f"tensor in the shape of {kind}": tensor(shared, b"K\x01\x85"),
            f"tensor in the strides of {kind}": tensor(b"K\x01\x85", shared),
            f"parts called {kind}": b"}" + text("UnpackBigParamInfor@@") + b"}" + text("w") + b"}" + text("slices")
            + b"(" + shared + b"lsss",
        }  # fmt: skip
    return found | {
        "sizes of one list": often(long_list, b"ctorch\nSize\nh\x05\x85R"),
        "devices of one tuple": often(long_tuple, b"ctorch\ndevice\nh\x05R"),
        "parameters of one tuple": often(long_tuple, b"ctorch._utils\n_rebuild_parameter\nh\x05R", 50_000),
        "sets of one list": often(long_list, b"c__builtin__\nset\nh\x05\x85R"),
        "dicts of one list": often(long_pairs, b"ccollections\nOrderedDict\nh\x05\x85R", 50_000),
        "dtypes in one state": often(long_tuple, dtype + b"h\x05b", 50_000),
        "one number as a key": huge + b"q\x050}" + b"h\x05Ns" * MANY,
        "one number as a side": often(huge, b"ctorch\nSize\nh\x05\x85\x85R"),
        "one text as many arrays": dtype + b"q\x060" + often(
            text("x" * 2**20), b"cnumpy.core.numeric\n_frombuffer\n(h\x05h\x06J\x00\x00\x04\x00\x85h\x05tR", 50_000
        ),
        "huge sides": tensor(number(2**62) * 2 + b"\x86", number(1) * 2 + b"\x86"),
        "huge strides": tensor(number(1) * 2 + b"\x86", number(2**62) * 2 + b"\x86"),
        "endless strides": tensor(number(1) + b"\x85", huge + b"\x85"),
        "a text longer than the file": b"\x8d" + struct.pack("<Q", 2**40),
        "one array under many names": pickle.dumps(
            {"a": half, **{str(name): half for name in range(MANY)}}, 2
        )[2:-1],
        "one array in many parts": pickle.dumps({
            **{str(name): half for name in range(50_000)},
            "UnpackBigParamInfor@@": {"w": {"OriginShape": (1,), "slices": [str(name) for name in range(50_000)]}},
        }, 2)[2:-1],
    }  # fmt: skip


def write(folder: Path, form: str) -> dict[Path, str]:
    """The files of all values, by their path, in one of the forms in which weights come."""
    files: dict[Path, str] = {}
    head = [pickle.dumps(part, 2) for part in (MAGIC, VERSION, MACHINE)]
    for name, value in values().items():
        raw = b"\x80\x02" + value + b"."
        path = folder / f"{len(files)}.{'pdparams' if form == 'pdparams' else 'pth'}"
        files[path] = name
        if form == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", raw)
                archive.writestr("archive/data/0", bytes(4))
        else:
            path.write_bytes(raw if form == "pdparams" else b"".join([*head, raw, pickle.dumps([], 2)]))
    if form == "legacy":
        for kind, shared in SHARED.items():
            raw = b"\x80\x02" + shared + b"."
            for place, parts in {
                "version": [head[0], raw], "machine": [*head[:2], raw], "keys": [*head, pickle.dumps({}), raw],
                "key": [*head, pickle.dumps({}), b"\x80\x02(" + shared + b"l."],
            }.items():  # fmt: skip
                path = folder / f"{place}-{kind}.pth"
                path.write_bytes(b"".join([*parts, *[pickle.dumps(0)] * 3]))
                files[path] = f"{place} of {kind}"
    return files


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
@pytest.mark.parametrize("form", ["zip", "legacy", "pdparams"])
def test_what_a_small_file_describes_takes_neither_long_nor_much_memory(tmp_path: Path, form: str) -> None:
    files = write(tmp_path, form)
    assert max(path.stat().st_size for path in files) < 5_000_000
    ran = subprocess.run([sys.executable, "-c", READER, *map(str, files)], capture_output=True, text=True)
    said = dict(line.split(": ", 1) for line in ran.stdout.splitlines())
    last = files[Path(list(said)[-1])]
    assert ran.returncode == 0, f"{last}: {ran.returncode} {ran.stderr[-1000:]}"
    for path, name in files.items():
        assert said[str(path)] != "read", name
        assert len(said[str(path)]) < 500, name
        assert "MemoryError" not in said[str(path)], name
