"""Files of a store, a report and a trained solver as a stranger could write them: right checksums, and nonsense.

`change` alters one file below a folder, by a seeded source of chance; `benchmarks/foreign.py` and the tests use it.
"""

import copy
import csv
import hashlib
import io
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from solverbench import files

ODD = (
    "\x1b[2J\x07",
    "a\nno damaged files",
    "\u202egnp",
    "=cmd|' /C calc'!A0",
    "../../elsewhere/mine.txt",
    "",
    "x" * 5000,
)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 3.5, 1e308, -1e-320, 10**40, 2**63, [], {}, [[]], [None], {"": 0}, list(range(1000)), *ODD,
)  # fmt: skip
SHAPES = ((), (0,), (1,), (3, 0), (1, 1, 1, 1), (2, 3, 4, 4), (7, 7))
DTYPES = ("u1", "i8", "f4", "f8", "c16", "U3", "S4", "M8[s]", "?", "f2")


def change(root: Path, chance: Random) -> str:
    """Alter a file below `root`, or what stands at its place; return what was done."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    path = chance.choice(sorted(paths, key=lambda each: each.name)[chance.randrange(4) :] or paths)
    own = {".json": _json, ".npz": _npz, ".safetensors": _safetensors, ".csv": _csv}.get(path.suffix)
    how = chance.choice([own] * 6 + [_bytes, _bytes, _place]) if own else chance.choice([_bytes, _bytes, _place])
    try:
        what = how(path, chance)
    except Exception:  # changed before, so that it can't be read
        what = _bytes(path, chance)
    return f"{path.relative_to(root).as_posix()[-60:]!r}: {what}"


def _bytes(path: Path, chance: Random) -> str:
    content = bytearray(path.read_bytes() if path.is_file() else b"")
    kind = chance.choice(["cut", "flip", "noise", "repeat"])
    if kind == "cut":
        content = content[: chance.randrange(len(content) + 1)]
    elif kind == "flip" and content:
        for _ in range(chance.choice([1, 3, 50])):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif kind == "noise":
        content = bytearray(chance.randbytes(chance.choice([0, 1, 64, 5000])))
    else:
        content = content * 3
    path.write_bytes(content)
    return kind


def _place(path: Path, chance: Random) -> str:
    """Put something else at the file's place, or a copy of it beside under an odd name."""
    kind = chance.choice(
        ["pipe", "link", "link to a folder", "folder", "device", "gone", "odd name", "link of a folder"]
    )
    if kind == "odd name":
        name = chance.choice(["\x1b[2J", "a\nb", "\u202e", "caf\udce9", "-rf", "=x"])
        shutil.copyfile(path, path.with_name(name + path.name))
        return kind
    if kind == "link of a folder" and not (path.parents[1] / "elsewhere").is_dir():
        elsewhere = _elsewhere(path) / "moved"
        shutil.rmtree(path.parent)
        path.parent.symlink_to(elsewhere, target_is_directory=True)
        return kind
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(_elsewhere(path) / "mine.txt")
    elif kind == "link to a folder":
        path.symlink_to(_elsewhere(path), target_is_directory=True)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    return kind


def _elsewhere(path: Path) -> Path:
    """The sentinel folder, which lies beside the folder of the case."""
    return next(parent / "elsewhere" for parent in path.parents if (parent / "elsewhere").is_dir())


def elsewhere(place: Path) -> Path:
    """Make the sentinel folder in `place`."""
    folder = place / "elsewhere"
    (folder / "moved" / "deep").mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    (folder / "moved" / ".x.part").write_text("mine")
    (folder / "moved" / "deep" / "0-1.npz").write_text("mine")
    return folder


def seen(folder: Path) -> dict[str, tuple[float, bytes]]:
    """Everything below a folder: time of change and content by name."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_mtime, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def _altered(value: Any, chance: Random) -> Any:
    """A JSON value with one change anywhere in it."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        each = waiting.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each))
        for key in keys:
            places.append((each, key))
            if isinstance(each[key], dict | list):
                waiting.append(each[key])
    if not places:
        return chance.choice(VALUES)
    # Evenly over the levels: else nearly all changes hit a long list of numbers.
    holder, key = chance.choice(places[: chance.choice([8, 64, len(places)])])
    kind = chance.choice(["value", "value", "value", "gone", "name", "deep", "twice"])
    if kind == "gone":
        del holder[key]
    elif kind == "name" and isinstance(holder, dict):
        holder[chance.choice(ODD)] = holder.pop(key)
    elif kind == "deep":
        for _ in range(chance.choice([3, 60, 900])):
            holder[key] = [holder[key]]
    elif kind == "twice" and isinstance(holder, list):
        holder.extend(holder[:200])
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))
    return value


def _json(path: Path, chance: Random) -> str:
    body = json.loads(path.read_text())
    sealed = isinstance(body, dict) and body.pop("checksum", None) is not None
    body = _altered(body, chance)
    if sealed and isinstance(body, dict):
        body = {**body, "checksum": hashlib.sha256(_canonical(body)).hexdigest()}
    text = json.dumps(body)
    if chance.random() < 0.1:
        text = text.replace("0", chance.choice(["NaN", "1e400", "-Infinity", "9" * 5000]), 1)
    path.write_text(text)
    return "JSON"


def _canonical(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _npz(path: Path, chance: Random) -> str:
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
        sealed = len(archive.comment) == files.HEX
    place = chance.randrange(len(entries))
    name, content = entries[place]
    kind = chance.choice(
        ["array", "array", "array", "numbers", "gone", "name", "claim", "bomb", "twice", "more", "header"]
    )
    compression = zipfile.ZIP_STORED
    if kind == "array":
        array = np.zeros(chance.choice(SHAPES), chance.choice(DTYPES))
        entries[place] = name, _npy(array)
    elif kind == "numbers":
        array = np.load(io.BytesIO(content)).copy()
        if array.dtype.kind == "f" and array.size:
            array.flat[chance.randrange(array.size)] = chance.choice(
                [np.nan, np.inf, -1, 1e300 if array.itemsize > 4 else 1e38]
            )
        elif array.size:
            array.flat[chance.randrange(array.size)] = chance.choice([0, 1, 255 if array.itemsize == 1 else 10**9])
        entries[place] = name, _npy(array)
    elif kind == "gone":
        del entries[place]
    elif kind == "name":
        entries[place] = chance.choice(["../x.npy", "a/b.npy", "\x1b.npy", "x", "x" * 300 + ".npy"]), content
    elif kind == "claim":
        entries[place] = name, _npy(np.zeros(3), chance.choice([(10**12,), (2**40, 2**40), (-3,), (3.5,), ("a",)]))
    elif kind == "bomb":
        entries[place], compression = (name, _npy(np.zeros(10**7, np.uint8))), zipfile.ZIP_DEFLATED
    elif kind == "more":
        entries += [(f"x{number}.npy", _npy(np.zeros(1))) for number in range(chance.choice([1, 5000]))]
    elif kind == "header":
        entries[place] = name, b"\x93NUMPY\x01\x00\x10\x27" + chance.choice([b"(" * 10000, b"{" * 10000, b"[" * 10000])
    else:
        entries.append(entries[place])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.comment = b"0" * files.HEX if sealed else b""
        for each, body in entries:
            archive.writestr(zipfile.ZipInfo(each) if compression == zipfile.ZIP_STORED else each, body)
    content = buffer.getvalue()
    if sealed:
        content = content[: -files.HEX]
        content += hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(content)
    return f"npz, {kind}"


def bomb(path: Path) -> None:
    """Write an .npz of 100 MB of zeros in 100 kB, with the right checksum."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"0" * files.HEX
        archive.writestr("images.npy", _npy(np.zeros(10**8, np.uint8)))
    content = buffer.getvalue()[: -files.HEX]
    path.write_bytes(content + hashlib.sha256(content).hexdigest().encode())


def _npy(array: Any, claimed: Any = None) -> bytes:
    buffer = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array) | ({"shape": claimed} if claimed else {})
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


def _safetensors(path: Path, chance: Random) -> str:
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    head, tail = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
    kind = chance.choice(["record", "record", "record", "header", "numbers", "size"])
    told = json.loads(head["__metadata__"]["solverbench"])
    if kind == "header":
        head = _altered(head, chance)
    elif kind == "numbers":
        spot = 8 * chance.randrange(max(len(tail) // 8, 1))
        tail[spot : spot + 8] = struct.pack("<d", chance.choice([float("nan"), float("inf"), -1.0, 0.0, 1e300]))
    elif kind == "record":
        told.pop("checksum")
        told = _altered(told, chance)
    if kind in ("numbers", "record") and isinstance(told, dict):  # with the checksum of `tensors.write`
        told.pop("checksum", None)
        digest = hashlib.sha256(_canonical(told))
        names = {"F64": "torch.float64", "F32": "torch.float32"}
        for name, about in sorted(
            (each for each in head.items() if each[0] != "__metadata__"), key=lambda each: each[0]
        ):
            first, last = about["data_offsets"]
            digest.update(f"{name} {names[about['dtype']]} {about['shape']}".encode() + tail[first:last])
        told = {**told, "checksum": digest.hexdigest()}
    if isinstance(head.get("__metadata__"), dict) and kind != "header":
        head["__metadata__"]["solverbench"] = _canonical(told).decode()
    text = json.dumps(head).encode()
    size = chance.choice([0, 2**40, 2**63]) if kind == "size" else len(text)
    path.write_bytes(struct.pack("<Q", size) + text + tail)
    return f"safetensors, {kind}"


def _csv(path: Path, chance: Random) -> str:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    row = chance.randrange(len(rows)) if rows else 0
    kind = chance.choice(["cell", "cell", "cell", "column", "row", "rows", "name"])
    column = chance.randrange(len(rows[row]))
    if kind == "cell":
        rows[row][column] = str(
            chance.choice([*ODD, "nan", "-1", "1e308", "1e400", "3.5", "done", "failed", "True", "0"])
        )
    elif kind == "column":
        for each in rows:
            del each[column]
    elif kind == "row":
        del rows[row]
    elif kind == "rows":
        rows += 3 * rows[1:]
    else:
        rows[0][column] = chance.choice([*ODD, rows[0][0]])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return f"CSV, {kind}"
