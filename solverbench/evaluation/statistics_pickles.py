"""Reader of pickled statistics as data: numpy arrays, plain containers and numbers. Nothing in them is executed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench.errors import RecordError
from solverbench.evaluation import contents
from solverbench.teachers.families.edm_pickles import Call, Reader, Refused, _Dtype


def read(path: Path) -> Any:
    """Return the content of a pickle: dicts, lists, numbers and numpy arrays.

    Every other class or function that it names is refused.

    Raises:
        RecordError: it contains anything else, or is damaged.
    """
    try:
        with path.open("rb") as file:
            return _plain(_Statistics(file).load())
    except Refused as error:
        wrong = f"asks for {error}, which is neither arrays nor plain values, and nothing in it was run"
        remedy = "give statistics as EDM2 pickles them, or an .npz of mu and sigma"
        raise RecordError(asked=path, wrong=wrong, remedy=remedy) from None
    except Exception as error:  # a foreign file makes a reader raise nearly anything
        remedy = "download or make it again"
        raise contents.unreadable(path, contents.head(path), "not a whole pickle", error, remedy) from None


class _Array:
    """A numpy array, filled by its state."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: NDArray[Any] | None = None) -> None:
        self.numbers = numbers

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("an array without its state")
        _, shape, dtype, fortran, content = state
        self.numbers = _numbers(content, dtype, shape, "F" if fortran else "C")


def _numbers(content: Any, dtype: Any, shape: Any, order: Any = "C") -> NDArray[Any]:
    if not isinstance(content, bytes | bytearray) or not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise Refused("an array whose content isn't numbers")
    kind = np.dtype(dtype.name)
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise Refused("an array without a shape")
    if math.prod(shape) * kind.itemsize != len(content):
        raise Refused(f"an array of shape {shape} from {len(content)} bytes")
    return np.frombuffer(bytes(content), kind).reshape(shape, order=order)


def _empty(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> _Array:
    return _Array(_numbers(content, dtype, shape, order))


_ARRAYS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _empty,
    "numpy._core.multiarray._reconstruct": _empty,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.ndarray": _empty,
}
_VALUES = frozenset(
    {
        "_codecs.encode",
        "collections.OrderedDict",
        "dnnlib.util.EasyDict",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
    }
)
"""The names that a pickle of statistics may mention."""


class _Statistics(Reader):
    """The reader of EDM's networks, with arrays, and without networks."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _ARRAYS:
            return Call(_ARRAYS[full])
        if full not in _VALUES:
            raise Refused(full)
        return super().find_class(module, name)


def _plain(content: Any, depth: int = 0) -> Any:
    """Return content with arrays in place of their stand-ins.

    Raises:
        Refused: it is nested deeper than statistics are, or holds half an array.
    """
    if depth > 4:
        raise Refused("containers inside containers")
    if isinstance(content, _Array):
        if content.numbers is None:
            raise Refused("an array without its state")
        return content.numbers
    if isinstance(content, dict):
        return {key: _plain(value, depth + 1) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value, depth + 1) for value in content]
    if content is None or isinstance(content, bool | int | float | str):
        return content
    raise Refused(f"a {type(content).__name__}")
