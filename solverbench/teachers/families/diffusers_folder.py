"""A folder that diffusers saved: its index, scheduler, networks, tokenizers and text encoders, loaded on demand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from solverbench.errors import MissingError, RecordError, SpecError
from solverbench.teachers.families import assembly, folders, networks, tensor_files
from solverbench.wording import one_line

if TYPE_CHECKING:
    from solverbench.teachers.families.description import Description

INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"

NETWORKS = ("unet", "transformer")
FIRST_STAGES = ("vae", "vqvae")
"""Names of a pipeline's parts: the sampled network (`NETWORKS`) and the decoder (`FIRST_STAGES`)."""

KINDS = {
    "diffusers": {*networks.READERS, "Transformer2DModel", "AutoencoderKL", "VQModel"},
    "transformers": {
        "CLIPTextModel",
        "CLIPTextModelWithProjection",
        "T5EncoderModel",
        "CLIPTokenizer",
        "CLIPTokenizerFast",
        "T5Tokenizer",
        "T5TokenizerFast",
    },
}
"""Supported classes, by the package that defines them. No other class named in a folder is imported."""


class Folder:
    """A folder's parts, each loaded only if its class is supported.

    Args:
        description: names the folder, and folders of further parts.
        variant: variant of the weight files.
    """

    def __init__(self, description: Description, variant: str | None) -> None:
        self.description, self.variant = description, variant
        self.path = description.checkpoint
        if not self.path.is_dir():
            raise RecordError(
                asked=self.path,
                wrong="a file, but family diffusers takes a folder",
                remedy=f"give the folder that holds {INDEX}, or leave family out",
            )
        self.index = _read(self.path / INDEX) if (self.path / INDEX).is_file() else None
        self.taken: set[str | None] = set()
        self.notes: list[str] = []
        if self.index is not None:
            self._check(self.index)
            found = [name for name in NETWORKS if self._named(name)]
            if len(found) != 1:
                kind = self.index.get("_class_name")
                raise RecordError(
                    asked=self.path,
                    wrong=f"{kind} doesn't have exactly one unet or transformer, so it isn't supported",
                    remedy="give the folder of a pipeline with one network, or of the network alone",
                )
            self.network = found[0]
        elif "_class_name" in peek(self.path / CONFIG):
            self.network = ""
        else:
            raise RecordError(
                asked=self.path,
                wrong=f"has neither {INDEX} nor a {CONFIG} of diffusers",
                remedy="give a folder that diffusers saved",
            )

    @property
    def first_stage(self) -> str | None:
        """The name of the decoder part, if there is one."""
        named = [name for name in FIRST_STAGES if self._named(name) or name in self.description.files]
        return named[0] if named else None

    def scheduler(self) -> dict[str, Any]:
        """Return the scheduler's configuration."""
        where = self.description.file("scheduler") or self._place("scheduler")
        path = where / SCHEDULER if where.is_dir() else where
        if not path.is_file():
            raise MissingError(
                asked=self.description.name,
                wrong="a network alone doesn't define its noise process",
                remedy=f"give its {SCHEDULER} as files.scheduler in a TOML description, or put it into the folder",
            )
        return _read(path)

    def model(self, name: str, dtype: torch.dtype) -> Any:
        """Return a complete diffusers network, on the CPU."""
        import diffusers

        path = self._place(name)
        kind = folders.actual(path, peek(path / CONFIG))
        self._known(name, "diffusers", kind)
        cls = getattr(diffusers, kind)
        variant = self._variant(path, "diffusers")
        with assembly.quiet():
            said: Mapping[str, Any]
            if (index := folders.pickled_shards(path, variant)) is not None:
                found, said = self._assembled(cls, path, dtype, tensor_files.sharded(index).tensors)
            else:
                how = {"torch_dtype": dtype, "variant": variant, "low_cpu_mem_usage": False}
                try:
                    found, said = self._made(name, cls, path, {**how, "output_loading_info": True})
                except RecordError:
                    found, said = self._with_foreign(cls, path, dtype, variant)
                found, said = self._unwrapped(cls, path, dtype, variant, found, said)
        self._whole(path, said)
        return found.eval()

    def _assembled(
        self, cls: Any, path: Path, dtype: torch.dtype, state: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the network of a configuration with tensors that upstream does not load itself."""
        found = cls.from_config(cls.load_config(path, local_files_only=True))
        try:
            missing, unexpected = found.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise RecordError(
                asked=path, wrong=f"its tensors don't fit its configuration ({one_line(error)})",
                remedy="download it again",
            ) from None  # fmt: skip
        return found.to(dtype), {"missing_keys": missing, "unexpected_keys": unexpected}

    def _with_foreign(self, cls: Any, path: Path, dtype: torch.dtype, variant: str | None) -> tuple[Any, Any]:
        """Return the network of a .bin file with foreign objects beside its tensors, which upstream refuses.

        Raises:
            RecordError: the error being handled, if the file has none, or another one about the file.
        """
        file = folders.single(path, variant)
        if file is None or file.suffix != ".bin":
            raise
        read = tensor_files.contents(file)
        if not read.skipped:
            raise
        self.notes += read.notes
        return self._assembled(cls, path, dtype, read.tensors)

    def _unwrapped(
        self, cls: Any, path: Path, dtype: torch.dtype, variant: str | None, found: Any, said: Mapping[str, Any]
    ) -> tuple[Any, Mapping[str, Any]]:
        """Return the network; if a wrapper's prefix made all names unknown, read again without it and note that."""
        extra, missing = (sorted(map(str, said.get(key) or [])) for key in ("unexpected_keys", "missing_keys"))
        file = folders.single(path, variant)
        if not extra or file is None:
            return found, said
        tensors = tensor_files.read(file)
        if not missing:  # what a .bin file holds beside tensors is no tensor that is unexpected
            return found, {**said, "unexpected_keys": [key for key in extra if key in tensors]}
        state, removed = tensor_files.unwrapped(tensors, missing[0])
        if not removed:
            return found, said
        self.notes.append(f"{file.name}: {' and '.join(removed)} removed from its tensors' names")
        return self._assembled(cls, path, dtype, state)

    @property
    def pipeline(self) -> str:
        """The class name of the pipeline that wrote the folder; empty for the folder of a single network."""
        return str((self.index or {}).get("_class_name", ""))

    @property
    def zeros(self) -> bool:
        """Whether a missing negative prompt is encoded as zeros, as Stable Diffusion XL's index says."""
        return bool((self.index or {}).get("force_zeros_for_empty_prompt", True))

    def text(self, model: Any) -> dict[str, Any]:
        """Return a network's tokenizers and text encoders by part name; the third ones may be None."""
        import transformers

        network = type(model).__name__
        numbers = {"SD3Transformer2DModel": ("", "_2", "_3"), "FluxTransformer2DModel": ("", "_2")}.get(network, ("",))
        if network == "UNet2DConditionModel" and model.config.get("addition_embed_type") is not None:
            numbers = "", "_2"
        made: dict[str, Any] = {}
        for name in [f"{part}{n}" for n in numbers for part in ("tokenizer", "text_encoder")]:
            kind = self._kind(name)
            if kind is None and name.endswith("_3") and name not in self.description.files:
                made[name] = None
                continue
            path = self.description.file(name) or self.path / name
            if kind is None and name not in self.description.files:
                raise MissingError(
                    asked=self.description.name,
                    wrong=f"a {network} takes prompts, but {name} is missing",
                    remedy=f"give the whole pipeline's folder, or files.{name} in a TOML description",
                )
            if name.startswith("tokenizer"):
                kind = kind or str(peek(path / "tokenizer_config.json").get("tokenizer_class", "CLIPTokenizer"))
                self._known(name, "transformers", kind)
                folders.check_words(path)
                made[name] = self._made(name, getattr(transformers, kind), path, {})
            else:
                config = peek(path / CONFIG)
                kind = kind or (config.get("architectures") or [""])[0]
                self._known(name, "transformers", kind)
                folders.actual(path, config)
                how = {"dtype": torch.float32, "variant": self._variant(path, "transformers")}
                with assembly.quiet():
                    made[name], said = self._made(
                        name, getattr(transformers, kind), path, {**how, "output_loading_info": True}
                    )
                self._whole(path, said)
        return made

    def unused(self) -> None:
        """Raise `SpecError` if no part that was read has the variant."""
        if self.variant and self.variant not in self.taken:
            raise SpecError(
                asked=self.description.name, wrong=f"variant={self.variant}, but no part has weights of this variant",
                remedy="leave variant out, or download these files, too",
            )  # fmt: skip

    def _variant(self, path: Path, library: str) -> str | None:
        if not path.is_dir():
            return None  # `_made` says so
        found = folders.chosen(path, library, self.variant)
        self.taken.add(found)
        if self.variant and found is None:
            self.notes.append(f"{path.name}: no weights of variant {self.variant}; its base weights are read")
        return found

    def _made(self, name: str, cls: Any, path: Path, how: Mapping[str, Any]) -> Any:
        """Return the part as upstream loads it, from local files only: safetensors first, others by weights_only."""
        if not path.is_dir():
            raise MissingError(
                asked=self.path,
                wrong=f"has no folder {name}",
                remedy=f"download it again, or give files.{name} in a TOML description",
            )
        try:
            return cls.from_pretrained(path, local_files_only=True, **how)
        except Exception as error:  # upstream's kinds of refusal are many
            raise RecordError(
                asked=path, wrong=f"can't be loaded ({one_line(error, typed=True)})", remedy="download it again"
            ) from error

    def _whole(self, path: Path, said: Mapping[str, Any]) -> None:
        for what in "missing_keys", "mismatched_keys", "unexpected_keys":
            if found := sorted(map(str, said.get(what) or [])):
                raise RecordError(
                    asked=path,
                    wrong=(
                        f"{len(found)} {what.replace('_keys', '')} tensors, such as {found[0]}, so its weights don't "
                        "match its configuration"
                    ),
                    remedy="download it again",
                )

    def _place(self, name: str) -> Path:
        """Return a part's folder: the described one, the subfolder of its name, or the checkpoint folder itself."""
        if name and (described := self.description.file(name)) is not None:
            return described
        own = self.path / name
        if self.index is not None and name and not own.is_dir():
            raise MissingError(
                asked=self.path, wrong=f"has no folder {name}, which its {INDEX} names",
                remedy=f"download it again, or give files.{name} in a TOML description",
            )  # fmt: skip
        return own if own.is_dir() else self.path

    def _named(self, name: str) -> bool:
        return self._kind(name) is not None

    def _kind(self, name: str) -> str | None:
        """Return the class name of a part in the index; None if it has none."""
        entry = (self.index or {}).get(name)
        return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None else None

    def _check(self, index: Mapping[str, Any]) -> None:
        """Refuse a pipeline that needs its own code or unsupported classes."""
        folders.check(self.path, index)
        for name in (*NETWORKS, *FIRST_STAGES):
            if self._named(name):
                library, cls = index[name]
                self._known(name, str(library), str(cls))

    def _known(self, name: str, library: str, kind: str) -> None:
        if kind not in KINDS.get(library, set()):
            raise RecordError(
                asked=self.path,
                wrong=(
                    f"{name or 'network'} is {library}.{kind or 'unknown'}, which isn't supported, and custom code "
                    "isn't run"
                ),
                remedy=f"use one of {', '.join(sorted(KINDS['diffusers']))}",
            )


def peek(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; empty if it cannot be read."""
    try:
        return _read(path)
    except (RecordError, MissingError):
        return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingError(
            asked=path, wrong=f"can't be read ({error.strerror})", remedy="download the folder again"
        ) from None
    except ValueError as error:
        raise RecordError(asked=path, wrong=f"not a JSON file ({error})", remedy="download the folder again") from None
    if not isinstance(content, dict):
        raise RecordError(asked=path, wrong="not a configuration", remedy="download the folder again")
    return content
