"""Torch's files with foreign objects beside the tensors: a restricted unpickler that skips them by name.

No name in a file is ever looked up: each is replaced by a class or function of this package that only stores or drops
what it is given. Names whose only use in a checkpoint is to run something are refused.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import RecordError
from solverbench.teachers.families import edm_pickles
from solverbench.teachers.families.edm_pickles import Refused
from solverbench.wording import one_line

RUNS = {
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "shutil",
    "socket",
    "runpy",
    "importlib",
    "pty",
    "ctypes",
    "io",
    "_io",
}
"""Modules that no checkpoint needs."""

RUN = {f"builtins.{name}" for name in ("eval", "exec", "open", "compile", "__import__", "breakpoint")}
RUN |= {"torch.load", "torch.serialization.load", "torch.hub.load", "numpy.load", "pickle.loads", "pickle.load"}

KNOWN = {
    "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "collections.OrderedDict", "builtins.set",
    "__builtin__.set", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "_codecs.encode",
}  # fmt: skip
"""Names that the reader replaces by its own functions; see `edm_pickles.MEANINGS`."""

QUIET = ("torch.", "numpy.", "collections.", "builtins.", "__builtin__.", "pathlib.", "_codecs.", "typing.", "enum.")
"""Packages whose objects are skipped without a note: numbers, types, paths and containers."""


class Foreign:
    """A placeholder for an object, class or function of a foreign package. It accepts any arguments, without effect."""

    name = ""

    def __new__(cls, *_: Any, **__: Any) -> Foreign:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Drop the arguments."""

    def __call__(self, *_: Any, **__: Any) -> Foreign:
        return self

    def __setstate__(self, state: Any) -> None:
        """Drop the state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop the item."""

    def append(self, value: Any) -> None:
        """Drop the value."""

    extend = add = append


class _Storage:
    """The mark of a storage type: its number type."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        raise Refused("the state of a storage type")


class _Reader(edm_pickles.Reader):
    """The restricted unpickler of EDM's files, extended by torch's storages and placeholders for foreign names."""

    def __init__(self, content: bytes, storages: _Storages) -> None:
        super().__init__(io.BytesIO(content))
        self.storages, self.skipped = storages, dict[str, None]()

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if module.partition(".")[0] in RUNS or full.replace("__builtin__", "builtins") in RUN:
            raise Refused(full)
        if full == "torch._utils._rebuild_tensor_v2":
            return edm_pickles.Call(_view)
        if full in KNOWN:
            return super().find_class(module, name)
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _Storage(_STORAGES[name])
        if not full.startswith(QUIET):
            self.skipped[full] = None
        return type("Skipped", (Foreign,), {"name": full})

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], _Storage):
            raise Refused(f"a persistent id ({one_line(pid)})")
        return self.storages.get(pid[1].dtype, pid[2], pid[4])


_STORAGES = {**torch.storage._storage_type_to_dtype_map(), "UntypedStorage": torch.uint8}


_untyped: Any = torch.UntypedStorage
_typed: Any = torch.storage.TypedStorage


def _bytes(file: Any, name: str) -> int:
    """Return the length of a record; torch 2.6 can tell it only by reading the record."""
    if hasattr(file, "get_record_size"):
        return int(file.get_record_size(name))
    return len(file.get_record(name))


class _Storages:
    """The storages of a torch archive, each read once; on the meta device if only shapes matter."""

    def __init__(self, path: Path, mapped: bool) -> None:
        self.file: Any = torch._C.PyTorchFileReader(str(path))
        self.mapped = mapped
        self.found: dict[str, Any] = {}

    def get(self, dtype: torch.dtype, key: Any, count: Any) -> Any:
        """Return the typed storage of a record.

        Raises:
            Refused: no such record, or one of another length.
        """
        if not isinstance(key, str) or type(count) is not int or not self.file.has_record(f"data/{key}"):
            raise Refused(f"a storage {one_line(key)} that isn't there")
        size = count * torch.empty(0, dtype=dtype).element_size()
        if count < 0 or _bytes(self.file, f"data/{key}") < size:
            raise Refused(f"a storage of {count} numbers, more than its record has")
        if key not in self.found:
            if self.mapped:
                self.found[key] = _untyped(size, device="meta")
            else:
                self.found[key] = self.file.get_storage_from_record(
                    f"data/{key}", size, _untyped
                )._typed_storage()._untyped_storage  # fmt: skip
        return _typed(wrap_storage=self.found[key], dtype=dtype, _internal=True)


def read(path: Path, *, mapped: bool = False) -> tuple[Any, tuple[str, ...]]:
    """Return the content of a torch archive, with `Foreign` in place of foreign objects, and their names in order.

    Args:
        mapped: whether only names and shapes matter: the tensors are on the meta device.

    Raises:
        RecordError: it asks for something that would run, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                raise Refused("compressed records, which torch never writes")
        storages = _Storages(path, mapped)
        if storages.file.has_record("byteorder") and storages.file.get_record("byteorder") != b"little":
            raise Refused("numbers in big-endian order")
        reader = _Reader(storages.file.get_record("data.pkl"), storages)
        return reader.load(), tuple(reader.skipped)
    except Refused as error:
        raise RecordError(
            asked=path,
            wrong=f"not a plain checkpoint of tensors (it asks for {error}), and nothing in it was run",
            remedy="give a checkpoint that holds tensors only, such as .safetensors",
        ) from None
    except Exception as error:  # a foreign file makes a reader raise nearly anything
        raise RecordError(
            asked=path, wrong=f"not a complete torch file ({one_line(error, typed=True)})", remedy="download it again"
        ) from None


def _view(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    return edm_pickles.view(storage, offset, size, stride)
