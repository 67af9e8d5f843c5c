"""Reader of EDM's network pickles as data: tensors, plain containers, class names. Nothing in them is executed.

Upstream's files contain their classes' source code, and upstream executes it to rebuild them. Here every callable that
a file may name is replaced by one that only stores its arguments. The source code is dropped; other names are refused.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from solverbench import files, userdata
from solverbench.errors import MissingError, RecordError, StoreError
from solverbench.wording import one_line

FORMAT, VERSION = "solverbench-edm", 1
MOST = 100_000
"""Largest number of values in a network's arguments or in any tuple; real files have less than a hundredth."""
NAMES = ("torch_utils.persistence", "_reconstruct_persistent_obj")
"""Names near the beginning of upstream's pickles."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network as data.

    Args:
        class_name: name of upstream's class, such as EDMPrecond.
        init_kwargs: constructor arguments, as plain JSON values.
        tensors: state dict under upstream's names.
        source: file it came from, for information.
    """

    class_name: str
    init_kwargs: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    source: Mapping[str, str]


class Refused(Exception):
    """The pickle contains something that is not data; the text names it."""


class Record:
    """An object of a foreign class, as class name and state without the class itself."""

    def __init__(self, class_name: str, state: Mapping[str, Any]) -> None:
        self.class_name, self.state = class_name, state


def read(path: Path) -> Network:
    """Return the network of a pickle, or of a file written by `write`.

    A pickle is converted once: its tensors are stored in the user's data folder under the sha256 of its bytes.

    Raises:
        MissingError: the file cannot be read.
        RecordError: it contains anything but data, is damaged, or is not an EDM network.
    """
    if path.suffix == ".safetensors":
        return _converted(path)
    try:
        address = files.sha256(path)
    except StoreError as error:
        raise MissingError(asked=path, wrong=error.wrong, remedy="give a readable file") from None
    kept = userdata.data() / "converted" / f"{address}.safetensors"
    if kept.is_file():
        try:
            return _converted(kept)
        except RecordError:
            pass  # a damaged copy is rewritten below
    with path.open("rb") as file:
        network = _network(path, _unpickled(path, file), {"file": path.name, "sha256": address})
    with contextlib.suppress(StoreError):  # without a writable folder, every load converts again
        write(network, kept)
    return network


def parameters(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a pickle of objects with source code, by their attributes' names joined with dots.

    Nothing in the file is run.

    Raises:
        OSError: the file cannot be read.
        RecordError: it contains anything but data, or is damaged.
    """
    with path.open("rb") as file:
        content = _unpickled(path, file, "objects with source code, as EDM's own files are")
    try:
        _count(content.state if isinstance(content, Record) else content)
        return dict(_tensors(content, "", set()))
    except (ValueError, RecursionError) as error:
        wrong = f"its content isn't valid ({one_line(error, typed=True)})"
        raise RecordError(asked=path, wrong=wrong, remedy="give another file") from None


def _tensors(found: Any, prefix: str, above: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in an object read as data; what torch's modules keep under _parameters is theirs by name.

    Raises:
        ValueError: an object is within itself.
    """
    if isinstance(found, Tensor):
        yield prefix.removesuffix("."), found
    if not isinstance(found, Record | dict | list | tuple):
        return
    if id(found) in above:
        raise ValueError(f"the object at {prefix or 'its top'} is within itself")
    state = found.state if isinstance(found, Record) else found
    for name, each in state.items() if isinstance(state, Mapping) else enumerate(state):
        own = "" if isinstance(found, Record) and name in _MODULES_OWN else f"{name}."
        yield from _tensors(each, f"{prefix}{own}", above | {id(found)})


_MODULES_OWN = ("_parameters", "_buffers", "_modules")


def write(network: Network, path: Path) -> None:
    """Write a network as safetensors, with its description in the header and in a JSON file next to it."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.tensors.items()}
    described = {"class_name": network.class_name, "init_kwargs": network.init_kwargs, "source": network.source}
    body = {"format": FORMAT, "version": VERSION, **described}
    text = json.dumps(body, indent=1, sort_keys=True)
    files.write_bytes(path.with_suffix(".json"), (text + "\n").encode())
    files.write_bytes(path, save(tensors, {"solverbench": text}))


def written(path: Path) -> bool:
    """Return whether `path` was written by `write`."""
    try:
        return _header(path).get("format") == FORMAT
    except (SafetensorError, ValueError, OSError):
        return False


def _header(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        found: dict[str, Any] = json.loads((file.metadata() or {}).get("solverbench", "{}"))
        return found


def _converted(path: Path) -> Network:
    try:
        body = _header(path)
        if body.get("format") != FORMAT or body.get("version") != VERSION:
            raise RecordError(
                asked=path,
                wrong="not an EDM network as this version converts it",
                remedy="give the pickle it came from",
            )
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Network(body["class_name"], body["init_kwargs"], tensors, body["source"])
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise RecordError(asked=path, wrong=f"damaged ({error})", remedy="give the pickle it came from") from None


def _unpickled(path: Path, file: BinaryIO, kind: str = "an EDM network") -> Any:
    """Return the pickle's content as data; `kind` is what it should be, for messages."""
    try:
        return Reader(file).load()
    except Refused as error:
        raise RecordError(
            asked=path,
            wrong=(
                f"refused, and nothing in it was run: it asks for {error}, which is neither a tensor nor a plain value"
            ),
            remedy="give a network pickle as EDM publishes them",
        ) from None
    except Exception as error:  # a foreign file makes a reader raise nearly anything
        raise RecordError(
            asked=path,
            wrong=f"not a complete pickle of {kind} ({one_line(error, typed=True)})",
            remedy="download it again",
        ) from None


class Reader(pickle._Unpickler):
    """An unpickler that knows a few names, each bound to a callable that stores data.

    It uses Python's implementation, because the C one allocates as many memo entries as a file claims. Tuples are
    limited in size: tuples nested through the memo grow exponentially, and hashing one as a key would never end.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._weights: dict[int, tuple[tuple[Any, ...], int]] = {}

    def _weigh(self) -> None:
        """Refuse the tuple on top of the stack if it holds too many values, counting repeated ones each time."""
        found = self.stack[-1]  # type: ignore[attr-defined]
        weight = 1 + sum(self._weights[id(each)][1] if type(each) is tuple else 1 for each in found)
        if weight > MOST:
            raise Refused(f"a tuple of more than {MOST} values")
        self._weights[id(found)] = found, weight

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _CONTAINERS:
            # A new class per mention, so that a file cannot leave state on it.
            return type("Container", (_Container,), {"kind": name})
        if full == "dnnlib.util.EasyDict":
            return type("Mapping", (dict,), {})
        if full in _DROPPED or _number_type(module, name):
            return type("Dropped", (_Dropped,), {"kind": name})
        if full not in _MEANINGS:
            raise Refused(full)
        return Call(_MEANINGS[full])

    def persistent_load(self, pid: Any) -> Any:
        raise Refused(f"a persistent id ({one_line(pid)})")


def _weighed(load: Callable[[Any], None]) -> Callable[[Any], None]:
    def weighed(reader: Any) -> None:
        load(reader)
        reader._weigh()

    return weighed


_TUPLES = (pickle.TUPLE, pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
Reader.dispatch = {
    code: _weighed(load) if bytes([code]) in _TUPLES else load
    for code, load in pickle._Unpickler.dispatch.items()
    if bytes([code]) != pickle.FROZENSET  # it would hash its values too
}


class Call:
    """A function that a pickle may call; it has no settable attributes."""

    __slots__ = ("_function",)

    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused(f"the attribute {name} of a function")

    def __setstate__(self, state: Any) -> None:
        raise Refused("the state of a function")


class _Container(Record):
    """One of torch's module containers, which upstream pickles by class; only their state matters."""

    kind = ""

    def __new__(cls) -> _Container:
        made = super().__new__(cls)
        made.class_name, made.state = cls.kind, {}
        return made

    def __init__(self) -> None:
        """Do nothing: a pickle creates the object by `__new__`."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise Refused(f"a {type(state).__name__} as the state of a {self.kind}")
        self.state = state


def _object(meta: Any) -> Record:
    """Return an instance of one of upstream's classes as a record, without its source code."""
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("class_name"), str):
        raise Refused("an object without a class name")
    state = meta.get("state")
    if not isinstance(state, dict):
        raise Refused(f"a {type(state).__name__} as the state of a {meta['class_name']}")
    return Record(meta["class_name"], state)


def _mapping(items: Any = ()) -> dict[Any, Any]:
    if not isinstance(items, dict | list | tuple):
        raise Refused(f"a mapping of a {type(items).__name__}")
    return dict(items)


def _set(items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple | set):
        raise Refused(f"a set of a {type(items).__name__}")
    return set(items)


def _storage(content: Any) -> Any:
    """Return the storage in torch's bytes; they are an inner pickle, so torch's restricted reader reads them."""
    if not isinstance(content, bytes):
        raise Refused(f"a storage of a {type(content).__name__}")
    if zipfile.is_zipfile(io.BytesIO(content)):  # torch never writes one here; a small one can expand to gigabytes
        raise Refused("an archive inside a tensor's bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(
            r"GLOBAL ([\w.]+)|(?:[Uu]nsupported|[Tt]rying to \w+)\s+(?:\w+ )*?([\w]+\.[\w.]+)", str(error)
        )
        name = next((part for part in (wanted.groups() if wanted else ()) if part), one_line(error))
        raise Refused(f"{name} inside a tensor's bytes") from None
    if not isinstance(found, torch.storage.TypedStorage | torch.UntypedStorage):
        raise Refused(f"a {type(found).__name__} inside a tensor's bytes")
    return found


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    return view(storage, offset, size, stride).clone()


def view(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """Return a tensor on a storage, after checks.

    Raises:
        Refused: it isn't a storage, or has fewer numbers.
    """
    if not isinstance(storage, torch.storage.TypedStorage):
        raise Refused(f"a tensor of a {type(storage).__name__}")
    flat = torch.empty(0, dtype=storage.dtype, device=storage._untyped_storage.device).set_(storage)
    asked = f"a tensor of {one_line(size)} numbers from {flat.numel()}"
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise Refused(asked)
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise Refused(asked)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > flat.numel() or (all(size) and last >= flat.numel()):
        raise Refused(asked)
    return flat.as_strided(size, stride, offset)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise Refused(f"a parameter of a {type(data).__name__}")
    return data


def _dtype(name: Any, *_: Any) -> _Dtype:
    if not isinstance(name, str) or not re.fullmatch(r"[<>|=]?[biuf][1248]", name):
        raise Refused(f"numpy.dtype({one_line(name)})")
    return _Dtype(name)


class _Dtype:
    """A numpy number type; its state gives the byte order, and big-endian is refused."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            raise Refused("numbers in big-endian order")


def _number(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
        raise Refused("a number of numpy's without its type or bytes")
    return np.frombuffer(content, dtype=np.dtype(dtype.name), count=1)[0].item()


def _array(*_: Any) -> _Array:
    return _Array()


class _Array:
    """A numpy array, dropped: networks have none, but other objects in a pickle may."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Drop the state."""


class _Dropped(Record):
    """An object that a training leaves beside the network, without its content: a path, a device, a size, a type."""

    kind = ""

    def __new__(cls, *_: Any) -> _Dropped:
        made = super().__new__(cls)
        made.class_name, made.state = cls.kind, {}
        return made

    def __init__(self, *_: Any) -> None:
        """Drop the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Drop the state."""


def _number_type(module: str, name: str) -> bool:
    return module == "torch" and name in _NUMBER_TYPES


_NUMBER_TYPES = frozenset(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))
_DROPPED = frozenset(
    {"torch.device", "torch.Size", "argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath",
     "pathlib.PurePosixPath", "pathlib.PureWindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath"}
)  # fmt: skip


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes that pickle protocol 2 wrote as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("_codecs.encode of something else than latin1 text")
    return text.encode("latin1")


_CONTAINERS = frozenset(f"torch.nn.modules.container.{name}" for name in ("ModuleDict", "ModuleList", "Sequential"))
_MEANINGS: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _object,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage._load_from_bytes": _storage,
    "collections.OrderedDict": _mapping,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.core.numeric._frombuffer": _array,
    "numpy._core.numeric._frombuffer": _array,
    "numpy.ndarray": _array,
    "_codecs.encode": _encoded,
}
"""Every name that a pickle may mention, to the callable that replaces it."""


def _network(path: Path, content: Any, source: Mapping[str, str]) -> Network:
    """Return the network in a pickle's content: the moving average `ema`, or the content itself."""
    found = content.get("ema") if isinstance(content, dict) else content
    if not isinstance(found, Record) or "_init_kwargs" not in found.state:
        what = f"a dict of {', '.join(map(str, list(content)[:6]))}" if isinstance(content, dict) else _kind(content)
        raise RecordError(
            asked=path, wrong=f"holds {what}, not an EDM network under 'ema'", remedy="give a network pickle of EDM"
        )
    arguments = found.state.get("_init_args") or ()
    given = dict(zip(("img_resolution", "img_channels", "label_dim", "use_fp16"), arguments, strict=False))
    kwargs = {**given, **found.state["_init_kwargs"]}
    try:
        _count(kwargs)
        plain = json.loads(json.dumps(kwargs))
        tensors = dict(_flattened(found, "", set()))
    except (TypeError, ValueError, AttributeError) as error:
        raise RecordError(
            asked=path, wrong=f"its network isn't valid ({one_line(error)})", remedy="give another file"
        ) from None
    except RecursionError:
        raise RecordError(asked=path, wrong="its network is nested too deeply", remedy="give another file") from None
    return Network(found.class_name, plain, tensors, source)


def _count(value: Any, left: int = MOST) -> int:
    """Return how many of `left` values remain after those in `value`, counting repeated ones each time.

    Raises:
        ValueError: `value` holds more.
    """
    left -= 1
    if left < 0:
        raise ValueError(f"arguments of more than {MOST} values")
    if isinstance(value, dict | list | tuple | set):
        for each in value.values() if isinstance(value, dict) else value:
            left = _count(each, left)
    return left


def _flattened(module: Record, prefix: str, seen: set[int]) -> list[tuple[str, Tensor]]:
    """Return the state dict of a module read as data.

    Raises:
        ValueError: a module occurs twice, within itself or elsewhere.
    """
    if id(module) in seen:
        raise ValueError(f"the module at {prefix or 'its top'} is there twice")
    seen.add(id(module))
    state = module.state
    hidden = state.get("_non_persistent_buffers_set") or ()
    own = {**(state.get("_parameters") or {}), **(state.get("_buffers") or {})}
    made = [(f"{prefix}{name}", t) for name, t in own.items() if isinstance(t, Tensor) and name not in hidden]
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, Record):
            made += _flattened(child, f"{prefix}{name}.", seen)
    return made


def _kind(content: Any) -> str:
    return f"a {content.class_name if isinstance(content, Record) else type(content).__name__}"
