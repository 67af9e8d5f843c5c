"""Loading of a pipeline's parts from its folder, by diffusers and transformers, and their digests."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from solverbench.errors import MissingError, RecordError, UserError
from solverbench.teachers import adaptors
from solverbench.teachers.families import assembly, folders
from solverbench.teachers.families.pipelines import precision, safety
from solverbench.wording import one_line

if TYPE_CHECKING:
    from solverbench.teachers.families.description import Description

LEFT_OUT = ("safety_checker", "image_encoder_safety", "watermark")
"""Parts that look at finished images and are not loaded."""


def load(description: Description, cls: Any, index: Mapping[str, Any], variant: str | None) -> Any:
    """Return the pipeline as diffusers reads it, from local files alone, on the CPU."""
    if getattr(cls, "_load_connected_pipes", False):
        raise RecordError(
            asked=description.checkpoint,
            wrong=f"{cls.__name__} runs other pipelines, whose schedulers aren't replaced",
            remedy="use sb.Teacher around its network",
        )  # fmt: skip
    if "scheduler" not in safety.parts(index):
        raise RecordError(
            asked=description.checkpoint, wrong=f"{cls.__name__} has no part named scheduler, whose steps are replaced",
            remedy="use sb.Teacher around its network",
        )  # fmt: skip
    left = {name: None for name in LEFT_OUT if name in index}
    if "requires_safety_checker" in index:
        left["requires_safety_checker"] = False  # type: ignore[assignment]
    weighty = {
        name: (library, kind) for name, (library, kind) in safety.parts(index).items()
        if name not in left and issubclass(safety.resolved(library, kind), torch.nn.Module)
    }  # fmt: skip
    precision.check(description, weighty)
    networks = {
        name: _part(description, name, safety.resolved(library, kind), library, variant)
        for name, (library, kind) in weighty.items()
    }
    with _named(description.checkpoint), assembly.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of upstream's configurations
        return cls.from_pretrained(
            description.checkpoint, torch_dtype=description.arithmetic.torch, local_files_only=True, **networks, **left
        )


def _part(description: Description, name: str, cls: Any, library: str, variant: str | None) -> Any:
    """Return a network of the pipeline, with all its tensors.

    Raises:
        MissingError: it holds no weights of this variant.
        RecordError: it is damaged, or tensors are missing.
    """
    path = description.checkpoint / name
    if not path.is_dir():
        raise MissingError(
            asked=description.checkpoint, wrong=f"has no folder {name}, which its {safety.INDEX} names",
            remedy="download it again",
        )  # fmt: skip
    if library not in folders.STEMS:  # a class of the pipeline's own module
        library = "transformers" if hasattr(cls, "main_input_name") else "diffusers"
    dtype = {"torch_dtype" if library == "diffusers" else "dtype": precision.of_part(description, name)}
    with _named(path), assembly.quiet():
        found, said = cls.from_pretrained(
            path, local_files_only=True, output_loading_info=True, variant=folders.chosen(path, library, variant),
            **dtype,
        )  # fmt: skip
    for what in "missing_keys", "mismatched_keys":
        if keys := sorted(map(str, said.get(what) or [])):
            raise RecordError(
                asked=path, wrong=f"{len(keys)} {what.replace('_keys', '')} tensors, such as {keys[0]}",
                remedy="its weights don't match its configuration, so download it again",
            )  # fmt: skip
    return found


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what upstream raises into a line about a file or folder; its kinds of refusal are many."""
    try:
        yield
    except UserError:
        raise
    except (ImportError, NameError) as error:  # of a package that a class does without until an object is made
        lacking = _lacking(error) or "a package"
        raise MissingError(
            asked=path, wrong=f"needs {lacking}, which isn't installed ({one_line(error, typed=True)})",
            remedy=f"install {lacking} beside the torch that is here",
        ) from error  # fmt: skip
    except Exception as error:
        raise RecordError(
            asked=path, wrong=f"not loaded ({one_line(error, typed=True)})", remedy="download it again"
        ) from error


def _lacking(error: ImportError | NameError) -> str | None:
    """Return the package that an error is about, None if it is about none; modules guard imports of torchvision."""
    if isinstance(error, NameError):
        return "torchvision" if importlib.util.find_spec("torchvision") is None else None
    told = re.search(r"requires the (\w+) library", str(error))
    return told[1].lower() if told else error.name


def identified(description: Description, pipe: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the digest of each part's weights or files, and the configurations."""
    weights, facts = {}, {}
    for name, part in sorted(pipe.components.items()):
        if part is None:
            continue
        if isinstance(part, torch.nn.Module):
            weights[name] = adaptors.fingerprint(part)
        else:
            weights[name] = _folder_digest(description.checkpoint / name)
        config: Any = getattr(part, "config", None)
        config = config.to_dict() if hasattr(config, "to_dict") else config
        if config is not None and not name.startswith("tokenizer"):
            facts[name] = _plain(config)
    facts["options"] = _plain(pipe.config)
    return weights, facts


def _folder_digest(folder: Path) -> str:
    """Return the sha256 of a folder's files, for parts such as tokenizers."""
    found = hashlib.sha256()
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        found.update(f"{file.relative_to(folder)} ".encode())
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


UNSAID = ("transformers_version", "torch_dtype", "dtype")
"""Entries of configurations that change with the packages, not with the model."""


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without private entries and paths, as plain JSON values."""
    kept = {str(k): v for k, v in dict(config).items() if not str(k).startswith("_") and k not in UNSAID}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str, sort_keys=True), parse_constant=str)
    return plain
