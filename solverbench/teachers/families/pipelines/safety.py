"""Checks of a pipeline's folder: it may hold classes of diffusers and transformers, no code, no quantised weights.

Everything is checked from JSON and file names before diffusers reads the folder, so that nothing in it is executed.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from solverbench import files
from solverbench.errors import MissingError, RecordError
from solverbench.wording import one_line

INDEX = "model_index.json"

CODE = (".py", ".pyc", ".pyd", ".so")
"""Endings of files that hold code."""

REMOTE = ("auto_map", "custom_pipelines", "trust_remote_code")
"""Entries of configurations by which transformers and diffusers load code from a folder."""

LIBRARIES = ("diffusers", "transformers")

PACKAGES = {"opencv": "opencv-python", "vision": "pillow", "note_seq": "note-seq"}
"""Names of packages at PyPI, where they aren't those that the libraries use."""


def index(path: Path) -> dict[str, Any]:
    """Return the content of a folder's `INDEX`.

    Raises:
        RecordError: it is no JSON object.
    """
    return _json(path / INDEX)


def check(path: Path) -> dict[str, Any]:
    """Return a folder's index after all checks that need no code of diffusers.

    Raises:
        RecordError: custom code, a class from elsewhere, or quantised weights; it is named.
    """
    found = index(path)
    kind = found.get("_class_name")
    if not isinstance(kind, str) or not kind.isidentifier():
        raise RecordError(
            asked=path, wrong=f"pipeline {kind} is custom code, which is not run", remedy="use sb.Teacher around it"
        )
    for file in sorted(path.rglob("*")):
        if file.suffix in CODE:
            raise RecordError(
                asked=path, wrong=f"{file.relative_to(path)} is code, which is not run",
                remedy="delete it if the pipeline does without it",
            )  # fmt: skip
    for file in _configurations(path):
        _check_configuration(file)
    for name, entry in found.items():
        if name.startswith("_") or not _names_class(entry):
            continue
        library, cls = entry
        if not isinstance(library, str) or not isinstance(cls, str) or not cls.isidentifier():
            raise RecordError(
                asked=path, wrong=f"{name} is {library}.{cls}, which names no class", remedy="download it again"
            )
    return found


def parts(found: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the parts of an index that exist: name to (library, class)."""
    named = {name: entry for name, entry in found.items() if not name.startswith("_") and _names_class(entry)}
    return {name: (str(entry[0]), str(entry[1])) for name, entry in named.items()}


def pipeline_class(path: Path, found: Mapping[str, Any]) -> Any:
    """Return the pipeline's class after its own and its parts' classes were found in diffusers or transformers.

    Raises:
        MissingError: a class that needs a package that isn't installed.
        RecordError: a class that neither of them has.
    """
    import diffusers

    kind = str(found["_class_name"])
    cls = getattr(diffusers, kind, None)
    _check_packages(path, kind, cls)
    if not (isinstance(cls, type) and issubclass(cls, diffusers.DiffusionPipeline)):
        raise RecordError(
            asked=path, wrong=f"{kind} isn't a pipeline of diffusers {diffusers.__version__}, and other code isn't run",
            remedy="install the version of diffusers that the folder's _diffusers_version names",
        )  # fmt: skip
    taken = inspect.signature(cls).parameters
    for name, (library, part) in parts(found).items():
        if name not in taken:
            raise RecordError(
                asked=path, wrong=f"its {kind} takes no part {name} ({library}.{part})",
                remedy=f"take it out of {INDEX} if the pipeline does without it",
            )  # fmt: skip
        found_part = resolved(library, part)
        _check_packages(path, f"{name}, a {part},", found_part)
        if found_part is None:
            raise RecordError(
                asked=path, wrong=f"{name} is {library}.{part}, and only classes of diffusers and transformers are run",
                remedy="use sb.Teacher around the pipeline",
            )  # fmt: skip
    return cls


def _check_packages(path: Path, what: str, cls: Any) -> None:
    """Raise `MissingError` for a class that diffusers or transformers replaces, as it needs packages beside them."""
    lacking = [name for name in getattr(cls, "_backends", ()) if name not in ("torch", *LIBRARIES)]
    if lacking:
        raise MissingError(
            asked=path, wrong=f"{what} needs {' and '.join(lacking)}, which isn't installed",
            remedy=f"pip install {' '.join(PACKAGES.get(name, name) for name in lacking)}",
        )  # fmt: skip


def resolved(library: str, part: str) -> Any:
    """Return a part's class if it is defined in diffusers or transformers, else None; nothing else is imported."""
    import diffusers.pipelines

    if library in LIBRARIES:
        home: Any = importlib.import_module(library)
    elif library.isidentifier() and _is_pipeline_module(library):
        home = getattr(diffusers.pipelines, library)
    else:
        return None
    found = getattr(home, part, None)
    ours = isinstance(found, type) and found.__module__.partition(".")[0] in LIBRARIES
    return found if ours else None


def _is_pipeline_module(name: str) -> bool:
    import diffusers.pipelines

    return any((Path(place) / name / "__init__.py").is_file() for place in diffusers.pipelines.__path__)


def _names_class(entry: Any) -> bool:
    """Return whether an entry of an index is [library, class]; lists of numbers are plain settings."""
    return isinstance(entry, list) and len(entry) == 2 and any(isinstance(each, str) for each in entry)


def _configurations(path: Path) -> Iterator[Path]:
    """Yield the configurations of a folder and its parts."""
    for file in sorted(path.rglob("*.json")):
        if file.name.endswith("config.json") or file.name == INDEX:
            yield file


def _check_configuration(file: Path) -> None:
    found = _json(file)
    for key in REMOTE:
        if found.get(key):
            raise RecordError(
                asked=file, wrong=f"{key} names custom code, which is not run", remedy="use sb.Teacher around it"
            )
    if (how := found.get("quantization_config")) is not None:
        method = how.get("quant_method", "unknown") if isinstance(how, dict) else how
        raise RecordError(
            asked=file.parent, wrong=f"its weights are quantised by {method}, which isn't read",
            remedy="give the folder of the model that it was quantised from",
        )  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        RecordError: the file can't be read, is too large, or holds no JSON object.
    """
    try:
        found = json.loads(files.read(path, files.JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise RecordError(
            asked=path, wrong=f"not a JSON file ({one_line(error)})", remedy="download the folder again"
        ) from None
    if not isinstance(found, dict):
        raise RecordError(asked=path, wrong="not a configuration", remedy="download the folder again")
    return found
