"""Types and ranges of the content of a store's files. A checksum proves a file whole, not its content meaningful."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from solverbench.errors import RecordError
from solverbench.method.tableau import Plan

_Body = TypeVar("_Body")

CALLS = 1_000_000
"""Largest number of calls per image."""

LEVELS = 10_000
"""Largest number of noise levels in a plan."""

TEXT = 20_000
"""Largest number of characters in a name or a reason."""


def checked(path: Path, check: Callable[[_Body], None], body: _Body) -> _Body:
    """Return `body`, the content of the file at `path`, once `check` accepts it.

    Raises:
        RecordError: `check` refuses it.
    """
    try:
        check(body)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        what = f"has no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        remedy = "delete this file and run again, to compute it again"
        raise RecordError(asked=path, wrong=f"damaged, {what}", remedy=remedy) from None
    return body


def cell(body: Mapping[str, Any]) -> None:
    """Check the content of cell.json. All functions of this module raise ValueError, TypeError or KeyError."""
    key, names = _mapping("key", body["key"]), _mapping("names", body["names"])
    told = {**key, **names}  # format 1 had some of the names in the key
    for name in ("teacher", "solver", "spec", "seeds"):
        _text(name, told[name])
    _whole("nfe", told["nfe"], CALLS)
    _whole("samples", told["samples"])
    _whole("block", told["block"])
    if told.get("trained") is not None:
        _mapping("trained", told["trained"]) if isinstance(told["trained"], dict) else _text("trained", told["trained"])
    if "plan" in body:
        plan(body["plan"])


def plan(body: Mapping[str, Any]) -> None:
    """Check a plan as `Plan.as_dict` gives it."""
    if len(body["sigmas"]) > LEVELS:
        raise ValueError(f"a plan of {len(body['sigmas'])} noise levels, more than {LEVELS}")
    Plan.of(dict(body))


def metrics(body: Mapping[str, Any]) -> None:
    """Check the content of metrics.json."""
    _whole("nfe", body["nfe"], CALLS, least=0)
    for name, each in _mapping("measures", body["measures"]).items():
        _text("metric", name)
        numbers = {part: _number(f"{name}: {part}", each[part]) for part in ("value", "std_error", "low", "high")}
        _whole(f"{name}: n", each["n"])
        for part in ("over", "reference"):
            _text(f"{name}: {part}", each[part])
        replicates, left = (np.array(each[part], dtype=np.float64) for part in ("replicates", "leave_one_out"))
        if replicates.ndim != 1 or left.ndim != 2 or len(left) != len(replicates) or 0 in left.shape:
            raise ValueError(f"{name}: replicates {list(replicates.shape)}, leave_one_out {list(left.shape)}")
        if not math.isclose(numbers["value"], replicates.mean(), rel_tol=1e-9, abs_tol=1e-12):
            raise ValueError(
                f"{name}: the value {numbers['value']:g} isn't the mean {replicates.mean():g} of its replicates"
            )
        if not numbers["low"] <= numbers["value"] <= numbers["high"]:
            raise ValueError(f"{name}: the value {numbers['value']:g} lies outside its own interval")
    for name, why in _mapping("failed", body.get("failed", {})).items():
        _text("metric", name)
        _text(f"{name}: reason", why)
    _statistics(_mapping("statistics", body.get("statistics", {})))


def _statistics(told: Mapping[str, Any]) -> None:
    """Check what `bench.statistics.summary` found; results of earlier versions have nothing."""
    if not told:
        return
    for whose in ("images", "teacher") if "teacher" in told else ("images",):
        numbers = _mapping(f"statistics: {whose}", told[whose])
        _whole(f"statistics: {whose}: n", numbers["n"])
        for name in ("lowest", "highest", "mean", "deviation", "outside", "constant"):
            _number(f"statistics: {whose}: {name}", numbers[name])
    intervals = {"square": told["square"]} if "square" in told else {}
    if differences := _mapping("differences", told.get("differences", {})):
        intervals |= {name: differences[name] for name in ("deviation", "mean", "outside", "constant")}
    for name, ends in intervals.items():
        if not isinstance(ends, list) or len(ends) != 3:
            raise ValueError(f"statistics: {name} is no value with the ends of its interval")
        for end in ends:
            _number(f"statistics: {name}", end)


def timing(body: Mapping[str, Any]) -> None:
    """Check the content of timing.json."""
    if not isinstance(body["attempts"], list) or not all(isinstance(each, dict) for each in body["attempts"]):
        raise ValueError("its attempts are no list of objects")
    for label, block in _mapping("blocks", body["blocks"]).items():
        for name, value in _mapping(label, block).items():
            _text(name, value) if isinstance(value, str) else _number(f"{label}: {name}", value)


def origin(body: Mapping[str, Any]) -> None:
    """Check the content of origin.json."""
    if not isinstance(body["merged"], list):
        raise ValueError("merged is no list")
    for each in body["merged"]:
        for name in ("from", "date", "metrics", "sampled_again"):
            _text(name, _mapping("merged", each)[name])


def block(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Check the arrays of a block."""
    pictures(arrays["images"])
    calls = arrays["nfe"]
    if calls.shape != () or calls.dtype.kind != "i" or not 0 <= int(calls) <= CALLS:
        raise ValueError("nfe is no number of calls")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} is {array.dtype}, not an array of numbers")
    if "n" in arrays:
        count, size = arrays["n"], arrays["total"].size
        triangle = size * (size + 1) // 2
        if count.shape != () or arrays["total"].ndim != 1 or arrays["outer"].shape not in ((size, size), (triangle,)):
            raise ValueError("its sums of features have other shapes than n, total [D] and outer [D, D]")


def samples(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Check a file of the teacher's own samples or of exact solutions."""
    if arrays["images"].dtype.kind != "f" or arrays["images"].ndim < 2:
        raise ValueError(f"images are {arrays['images'].dtype} {list(arrays['images'].shape)}, not samples [n, ...]")


def differences(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Check a file of the mean squared differences between a teacher sampler's images and others, and their names."""
    for name, array in arrays.items():
        if array.dtype == np.uint8 and array.ndim == 1:
            continue  # a text
        if array.dtype.kind != "f" or array.ndim != 1 or not len(array) or (array < 0).any():
            raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not mean squared differences [n]")


def pictures(images: NDArray[Any]) -> None:
    """Check the images of a block."""
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images are {images.dtype} {list(images.shape)}, not uint8 [k, C, H, W]")


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return value


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) > TEXT:
        raise ValueError(f"{name} is no text of at most {TEXT} characters")


def _whole(name: str, value: Any, most: int = 1 << 53, *, least: int = 1) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} is no whole number from {least} to {most}")


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name} is no finite number")
    return float(value)
