"""Folders of pipelines or models saved by diffusers: the networks, and the noise process from the scheduler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from solverbench.errors import MissingError, RecordError, SpecError
from solverbench.teachers import adaptors
from solverbench.teachers.families import assembly, folders, networks, schedulers, tensor_files, text
from solverbench.wording import one_line

if TYPE_CHECKING:
    from solverbench.teachers.families.description import Description
    from solverbench.teachers.teacher import Teacher

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
"""Supported classes by the package that must hold them; nothing else of a folder is imported or executed."""


@dataclass(frozen=True)
class Settings:
    """The family's own options.

    Args:
        size: side of the state, if the network's configuration does not give it.
        null_class: class for no condition, if the configuration does not give it.
        distilled: guidance told to a network distilled from a guided one (FLUX.1-dev).
        text_length: number of tokens for T5; as upstream if None.
        variant: variant of the weight files, such as fp16; parts without it give their base files.
        checkpointing: whether to use gradient checkpointing.
        clip: bound to which the data prediction is clipped in every call; not clipped if None.
        zeros: whether no negative prompt is told by zeros rather than by the encoded empty prompt, in Stable Diffusion
            XL; as its index says if None.
    """

    size: int | None = None
    null_class: int | None = None
    distilled: float = 3.5
    text_length: int | None = None
    variant: str | None = None
    checkpointing: bool = False
    clip: float | None = None
    zeros: bool | None = None


def recognises(path: Path) -> bool:
    """Return whether `path` is the folder of a diffusers model, or of a pipeline with the parts that are read here."""
    if (path / INDEX).is_file():
        return folders.known(_peek(path / INDEX))
    return "_class_name" in _peek(path / CONFIG)


def load(description: Description, device: str = "cpu") -> Teacher:
    """Return the teacher of a folder; the description's `files` may name folders of parts stored elsewhere.

    Raises:
        MissingError: diffusers or a part is missing.
        RecordError: a part is damaged, of an unsupported kind, or would execute its own code.
        SpecError: an option is missing or does not fit.
        UserError: see `Description.condition`.
    """
    given = description.settings(Settings)
    assembly.require(description.name)
    folder = Folder(description, given.variant)
    asked = folder.scheduler()
    scheduler = schedulers.settled(asked)
    schedule = schedulers.schedule(scheduler)
    model = folder.model(folder.network, description.arithmetic.torch)
    size = given.size or _size(description, model)
    network = networks.read(model, null_class=given.null_class, distilled=given.distilled)
    # Conditions are checked before the other parts are read, which takes long.
    free = network.absent is not None or network.text
    description.condition(count=network.classes, text=network.text, absent=free, rescaled=True)
    weights = {"network": adaptors.fingerprint(model)}
    if given.zeros is not None and not network.pooled:
        raise SpecError(
            asked=description.name, wrong="zeros is Stable Diffusion XL's, and this network isn't one",
            remedy="leave zeros out",
        )  # fmt: skip
    facts: dict[str, Any] = {"scheduler": schedulers.facts(scheduler), "network": _plain(model.config)}
    if type(model).__name__ == "FluxTransformer2DModel":
        facts["distilled"] = given.distilled
    if given.clip is not None:
        facts["clip"] = given.clip
    decode = encode = None
    pixels = 0
    if (stage := folder.first_stage) is not None:
        vae = folder.model(stage, torch.float32)
        weights["first stage"], facts["first stage"] = adaptors.fingerprint(vae), _plain(vae.config)
        decode, pixels = _decoder(assembly.prepare(vae, device)), size * _magnified(vae)
        decode = assembly.recomputed(decode) if given.checkpointing else decode
    if network.text:
        parts = folder.text(model)
        for name, part in parts.items():
            if part is None:
                continue
            if name.startswith("tokenizer"):
                facts[name] = text.fingerprint(part)
            else:
                weights[name] = adaptors.fingerprint(part)
                assembly.prepare(part, device)
        zeros = _zeros(description, folder, given)
        encode = _encoder(description, model, parts, folder, given.text_length, zeros)
        facts["text_length"] = given.text_length
        if network.pooled:
            facts["zeros"] = zeros
        if network.pooled or getattr(model, "use_additional_conditions", False):
            facts["pixels"] = _told_size(description, model, network, parts, pixels)
    folder.unused()
    if given.checkpointing:
        assembly.checkpointed(model)
    prepared = assembly.prepare(model, device, description.arithmetic)
    made = assembly.Parts(
        network=networks.read(prepared, null_class=given.null_class, distilled=given.distilled, pixels=pixels),
        prediction=schedulers.prediction(scheduler),
        schedule=schedule,
        told=schedulers.told(scheduler, schedule),
        size=size,
        weights=weights,
        encode=encode,
        decode=decode,
        facts=facts,
        clip=given.clip,
        notes=(*filter(None, ["" if given.clip else schedulers.dropped(asked)]), *folder.notes),
    )
    return assembly.teacher(description, device, made, load)


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
            raise RecordError(f"{self.path}: a file, but family diffusers takes a folder, the one with {INDEX}")
        self.index = _read(self.path / INDEX) if (self.path / INDEX).is_file() else None
        self.taken: set[str | None] = set()
        self.notes: list[str] = []
        if self.index is not None:
            self._check(self.index)
            found = [name for name in NETWORKS if self._named(name)]
            if len(found) != 1:
                kind = self.index.get("_class_name")
                raise RecordError(
                    f"{self.path}: {kind} doesn't have exactly one unet or transformer; this pipeline isn't supported"
                )
            self.network = found[0]
        elif "_class_name" in _peek(self.path / CONFIG):
            self.network = ""
        else:
            raise RecordError(f"{self.path}: has neither {INDEX} nor a {CONFIG} of diffusers; give such a folder")

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
                f"{self.description.name}: a network alone doesn't define its noise process; give its {SCHEDULER} as "
                "files.scheduler in a TOML description, or put it into the folder"
            )
        return _read(path)

    def model(self, name: str, dtype: torch.dtype) -> Any:
        """Return a complete diffusers network, on the CPU."""
        import diffusers

        path = self._place(name)
        kind = folders.actual(path, _peek(path / CONFIG))
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
                    f"{self.description.name}: a {network} takes prompts, but {name} is missing; give the whole "
                    f"pipeline's folder, or files.{name} in a TOML description"
                )
            if name.startswith("tokenizer"):
                kind = kind or str(_peek(path / "tokenizer_config.json").get("tokenizer_class", "CLIPTokenizer"))
                self._known(name, "transformers", kind)
                folders.check_words(path)
                made[name] = self._made(name, getattr(transformers, kind), path, {})
            else:
                config = _peek(path / CONFIG)
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
            raise MissingError(f"{self.path}: has no folder {name}; download it again, or give files.{name}")
        try:
            return cls.from_pretrained(path, local_files_only=True, **how)
        except Exception as error:  # upstream's kinds of refusal are many
            raise RecordError(f"{path}: not loaded ({one_line(error, typed=True)}); download it again") from error

    def _whole(self, path: Path, said: Mapping[str, Any]) -> None:
        for what in "missing_keys", "mismatched_keys", "unexpected_keys":
            if found := sorted(map(str, said.get(what) or [])):
                raise RecordError(
                    f"{path}: {len(found)} {what.replace('_keys', '')} tensors, such as {found[0]}; its "
                    "weights don't match its configuration, so download it again"
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
                f"{self.path}: {name or 'network'} is {library}.{kind or 'unknown'}, which isn't supported, "
                f"and custom code isn't run; use one of {', '.join(sorted(KINDS['diffusers']))}"
            )


def _size(description: Description, model: Any) -> int:
    size = networks.side(model.config)
    if size is None:
        raise SpecError(
            f"{description.name}: the network's configuration has no sample_size; give size=N, the side of its state"
        )
    return size


def _decoder(vae: Any) -> Any:
    config = vae.config
    if config.get("latents_mean") is not None:
        raise RecordError(f"{type(vae).__name__}: latents_mean: latents with a nonzero mean aren't supported")
    return assembly.first_stage(vae, scale=config["scaling_factor"], shift=config.get("shift_factor") or 0.0)


def _magnified(vae: Any) -> int:
    """Return the number of image pixels per latent pixel, along one side."""
    return int(2 ** (len(vae.config["block_out_channels"]) - 1))


def _told_size(
    description: Description, model: Any, network: networks.Network, parts: Mapping[str, Any], pixels: int
) -> int:
    """Return the side of the image that a network is told, after checks.

    Raises:
        MissingError: there is no first stage, which determines it.
        RecordError: the pooled width of the text encoder differs from the network's.
    """
    name = type(model).__name__
    if not pixels:
        raise MissingError(
            f"{description.name}: a {name} takes the image size, which the vae determines, but there is no "
            "vae; give the whole pipeline's folder, or files.vae in a TOML description"
        )
    if network.pooled and (made := parts["text_encoder_2"].config.projection_dim) != network.pooled:
        raise RecordError(
            f"{description.checkpoint}: its {name} takes pooled prompt embeddings of {network.pooled} "
            f"numbers, but those of text_encoder_2 have {made}; refiners aren't supported"
        )
    return pixels


PIXART = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
"""Number of tokens for T5, by pipeline."""


def _encoder(
    description: Description,
    model: Any,
    parts: Mapping[str, Any],
    folder: Folder,
    length: int | None,
    zeros: bool,
) -> text.Encode:
    kind = type(model).__name__
    if kind == "PixArtTransformer2DModel":
        if length is None and folder.pipeline not in PIXART:
            raise SpecError(
                f"{description.name}: the network alone doesn't tell PixArt-alpha from PixArt-sigma; give "
                "text_length=120 for alpha or 300 for sigma"
            )
        return text.pixart(parts, length or PIXART[folder.pipeline])
    if len(parts) == 4 and kind == "UNet2DConditionModel":
        return text.stable_diffusion_xl(parts, zeros=zeros)
    if kind == "SD3Transformer2DModel":
        return text.stable_diffusion_3(parts, model.config["joint_attention_dim"], length or 256)
    if kind == "FluxTransformer2DModel":
        return text.flux(parts, length or 512)
    return text.stable_diffusion(parts)


def _zeros(description: Description, folder: Folder, given: Settings) -> bool:
    """Return whether an empty negative prompt is told by zeros: an explicit one is encoded, as upstream does."""
    if given.zeros is not None:
        return given.zeros
    return folder.zeros and description.negative != ""


def _plain(config: Any) -> dict[str, Any]:
    """Return a network's configuration without diffusers' private entries."""
    plain: dict[str, Any] = json.loads(json.dumps({k: v for k, v in dict(config).items() if not k.startswith("_")}))
    return plain


def _peek(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; empty if it cannot be read."""
    try:
        return _read(path)
    except (RecordError, MissingError):
        return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingError(f"{path}: can't be read ({error.strerror}); download the folder again") from None
    except ValueError as error:
        raise RecordError(f"{path}: not a JSON file ({error}); download the folder again") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}: not a configuration; download the folder again")
    return content
