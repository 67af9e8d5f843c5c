"""Pickles written to hurt: each is refused by one clear line, quickly, in little memory, and nothing in it is run."""

import io
import re
import struct
import warnings
import zipfile

import forks
import pytest
import torch

RECONSTRUCT = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
TENSOR, STORAGE = b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch.storage\n_load_from_bytes\n"


def storage(count=4):
    """What torch writes for a storage of float32."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(torch.zeros(count).storage(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def zipped(size):
    """A storage as torch's newer format writes it, compressed: small on disk, `size` bytes in memory."""
    plain = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(torch.zeros(1, dtype=torch.uint8).storage(), plain)
    buffer = io.BytesIO()
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        for name in source.namelist():
            with bomb.open(name, "w") as sink:
                if not name.endswith("data/0"):
                    sink.write(source.read(name))
                    continue
                for _ in range(size >> 20):
                    sink.write(bytes(1 << 20))
    return buffer.getvalue()


def binary(content):
    return b"B" + struct.pack("<I", len(content)) + content


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def tensor(size, stride=1, offset=0, count=4):
    """A tensor of one axis, claimed."""
    loaded = STORAGE + tuple_of(binary(storage(count))) + b"R"
    return (
        TENSOR
        + tuple_of(loaded, number(offset), tuple_of(number(size)), tuple_of(number(stride)), b"I00\n", b"N")
        + b"R"
    )


def ema(content):
    """A pickle {"ema": content}."""
    return b"\x80\x04}X\x03\x00\x00\x00ema" + content + b"s."


def nested_ids(depth):
    """Persistent ids whose id is a persistent id, and so on."""
    return ema(b"Vx\n" + b"Q" * depth)


def with_setstate(mark):
    """BUILD on an object of ours with the state ({}, {"__setstate__": ..}), which copyreg's slots would set."""
    return ema(b"ctorch.nn.modules.container\nSequential\n)\x81(}}V__class__\nV" + str(mark).encode() + b"\nstb")


def doubled(levels):
    """A list of two of a list of two of .., by memo: 2^levels leaves if anyone walked it."""
    text = b"]q\x00"
    for level in range(levels):
        get = b"h" + bytes([level])
        text += b"0](" + get + get + b"eq" + bytes([level + 1])
    return text


def pair_of_pairs(levels):
    """Tuples alike, which are hashed when they are a key."""
    return b"N" + b"2\x86" * levels


def arguments(content):
    """An EDM network made with one argument."""
    state = b"}(V_init_kwargs\n}Vdeep\n" + content + b"su"
    return ema(RECONSTRUCT + tuple_of(b"}(Vtype\nVclass\nVclass_name\nVEDMPrecond\nVstate\n" + state + b"u") + b"R")


def cyclic():
    """A network whose module holds itself."""
    state = b"}(V_init_kwargs\n}V_parameters\n}V_buffers\n}V_modules\n}q\x01u"
    meta = b"}(Vtype\nVclass\nVclass_name\nVEDMPrecond\nVstate\n" + state + b"u"
    return ema(RECONSTRUCT + tuple_of(meta) + b"Rq\x02h\x01Vself\nh\x02s0")


def out_of_band():
    """Protocol 5: a buffer that lies outside of the file, made writable or not."""
    return b"\x80\x05}X\x03\x00\x00\x00ema\x97\x98s."


HOSTILE = {
    "nested persistent ids": (lambda mark: nested_ids(3), r"persistent id"),
    "a hundred thousand of them": (lambda mark: nested_ids(100_000), r"persistent id"),
    "a buffer outside the file": (lambda mark: out_of_band(), "not a complete pickle"),
    "an extension code": (lambda mark: ema(b"\x82\x01"), "not a complete pickle|extension"),
    "a wide extension code": (lambda mark: ema(b"\x84\x01\x00\x00\x00"), "not a complete pickle|extension"),
    "an instance by INST": (lambda mark: ema(b"(V" + str(mark).encode() + b"\nios\nmkdir\n"), r"os\.mkdir"),
    "an instance by OBJ": (lambda mark: ema(b"(cos\nmkdir\nV" + str(mark).encode() + b"\no"), r"os\.mkdir"),
    "NEWOBJ_EX": (lambda mark: ema(b"cbuiltins\nopen\n(V" + str(mark).encode() + b"\nVw\nt}\x92"), r"builtins\.open"),
    "a name on the stack": (lambda mark: ema(b"Vos\nVsystem\n\x93"), r"os\.system"),
    "a dotted name": (lambda mark: ema(b"Vtorch\nVload.__globals__\n\x93"), r"torch\.load\.__globals__"),
    "a dotted name of one that is known": (
        lambda mark: ema(b"Vtorch._utils\nV_rebuild_tensor_v2.__globals__\n\x93"), r"_rebuild_tensor_v2\.__globals__",
    ),
    "a state that sets the class": (with_setstate, "as the state of a Sequential"),
    "a tensor of 2^60 numbers": (lambda mark: ema(tensor(1 << 60)), "a tensor of"),
    "a tensor of 2^60 numbers, all one": (lambda mark: ema(tensor(1 << 60, stride=0)), "a tensor of"),
    "a tensor beyond its storage": (lambda mark: ema(tensor(4, stride=1 << 40)), "asks for a tensor of"),
    "a tensor before its storage": (lambda mark: ema(tensor(2, offset=-(1 << 40))), "asks for a tensor of"),
    "a tensor of negative size": (lambda mark: ema(tensor(-4)), "asks for a tensor of"),
    "bytes that are claimed": (lambda mark: ema(b"\x8e" + struct.pack("<Q", 1 << 60)), "not a complete pickle"),
    "a text that is claimed": (lambda mark: ema(b"\x8d" + struct.pack("<Q", 1 << 50)), "not a complete pickle"),
    "a number that is claimed": (lambda mark: ema(b"\x8b" + struct.pack("<i", 2**31 - 1)), "not a complete pickle"),
    "a frame that is claimed": (lambda mark: b"\x80\x04\x95" + struct.pack("<Q", 1 << 62), "not a complete pickle"),
    "a memo of 2^31": (lambda mark: ema(b"Nr" + struct.pack("<I", (1 << 31) - 1)), "not an EDM network"),
    "a memo that isn't there": (lambda mark: ema(b"h\x07"), "not a complete pickle"),
    "a memo of 2^27": (lambda mark: ema(b"Nr" + struct.pack("<I", 1 << 27)), "not an EDM network"),
    "a list that doubles": (lambda mark: ema(doubled(200)), "not an EDM network"),
    "arguments that double": (lambda mark: arguments(doubled(200)), "arguments of more than 100000 values"),
    "arguments within themselves": (lambda mark: arguments(b"]q\x07h\x07a"), "arguments of more than|too deep"),
    "deep arguments": (lambda mark: arguments(b"]" * 20_000 + b"a" * 19_999), "nested too deeply"),
    "a key that doubles": (lambda mark: ema(b"}" + pair_of_pairs(200) + b"Ns"), "a tuple of more than 100000 values"),
    "a set of what doubles": (lambda mark: ema(b"\x8f(" + pair_of_pairs(200) + b"\x90"), "a tuple of more than"),
    "a frozen set": (lambda mark: ema(b"(N\x91"), "not a complete pickle"),
    "a module within itself": (lambda mark: cyclic(), "is there twice"),
    "deep tuples": (lambda mark: ema(b")" + b"\x85" * 300_000), "a tuple of more than"),
    "a storage that inflates": (
        lambda mark: ema(STORAGE + tuple_of(binary(zipped(1 << 30))) + b"R"), "an archive inside a tensor's bytes",
    ),
    "nothing": (lambda mark: b"", "not a complete pickle"),
    "only a protocol": (lambda mark: b"\x80\x04", "not a complete pickle"),
}  # fmt: skip

READ = """
import resource, sys
from pathlib import Path
import solverbench as sb
from solverbench.errors import RecordError
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
for path in sorted(Path(sys.argv[1]).glob("*.pkl"), key=lambda path: int(path.stem)):
    before = peak()
    try:
        sb.load_teacher(str(path))
        print("loaded", 0, sep="\\t")
    except RecordError as error:
        print(error, peak() - before, sep="\\t")
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each file is answered with, by name: the line, the memory it took in MiB, and whether it ran.

    They are read in a process of their own: a reader that falls over would take the tests with it.
    """
    folder = tmp_path_factory.mktemp("hostile")
    for n, (make, _) in enumerate(HOSTILE.values()):
        (folder / f"{n}.pkl").write_bytes(make(folder / f"{n}.ran"))
    done = forks.run(["-c", READ, folder])
    assert done.returncode == 0, done.stderr[-1000:]
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == len(HOSTILE), done.stdout
    return {
        name: (line, int(memory), (folder / f"{n}.ran").exists())
        for n, (name, (line, memory)) in enumerate(zip(HOSTILE, lines, strict=True))
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_in_one_line_and_little_memory(told, name):
    line, memory, ran = told[name]
    assert re.search(HOSTILE[name][1], line), line
    assert ".pkl: " in line
    assert memory < 150
    assert not ran
