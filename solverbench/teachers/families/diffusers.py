"""Folders of pipelines or models saved by diffusers: the networks, and the noise process from the scheduler."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solverbench.errors import MissingError, RecordError, SpecError
from solverbench.method.schedules import NoiseSchedule, RectifiedFlow, VPDiscrete
from solverbench.teachers import adaptors
from solverbench.teachers.families import assembly, networks, schedulers, text
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

RENAMED = {"Transformer2DModel": "DiTTransformer2DModel"}
"""Class names in older folders to current ones."""


@dataclass(frozen=True)
class Settings:
    """The family's own options.

    Args:
        size: side of the state, if the network's configuration does not give it.
        null_class: class for no condition, if the configuration does not give it.
        distilled: guidance told to a network distilled from a guided one (FLUX.1-dev).
        text_length: number of tokens for T5; as upstream if None.
        variant: variant of the weight files, such as fp16.
        checkpointing: whether to use gradient checkpointing.
    """

    size: int | None = None
    null_class: int | None = None
    distilled: float = 3.5
    text_length: int | None = None
    variant: str | None = None
    checkpointing: bool = False


def recognises(path: Path) -> bool:
    """Return whether `path` is the folder of a diffusers pipeline or model."""
    return (path / INDEX).is_file() or "_class_name" in _peek(path / CONFIG)


def load(description: Description, device: str = "cpu") -> Teacher:
    """Return the teacher of a folder; the description's `files` may name folders of parts stored elsewhere.

    Raises:
        MissingError: diffusers or a part is missing.
        RecordError: a part is damaged, of an unsupported kind, or would execute code of its own.
        SpecError: an option is missing or does not fit.
        UserError: see `Description.condition`.
    """
    given = description.settings(Settings)
    assembly.require(description.name)
    folder = Folder(description, given.variant)
    scheduler = folder.scheduler()
    prediction = schedulers.prediction(scheduler)
    model = folder.model(folder.network, description.arithmetic.torch)
    size = given.size or _size(description, model)
    network = networks.read(model, null_class=given.null_class, distilled=given.distilled)
    # Conditions are checked before the other parts are read, which takes long.
    description.condition(count=network.classes, text=network.text, absent=network.absent is not None or network.text)
    weights = {"network": adaptors.fingerprint(model)}
    facts: dict[str, Any] = {"scheduler": _facts(scheduler), "network": _plain(model.config)}
    if type(model).__name__ == "FluxTransformer2DModel":
        facts["distilled"] = given.distilled
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
        encode = _encoder(description, model, parts, folder, given.text_length)
        facts["text_length"] = given.text_length
        if network.pooled:
            facts["zeros"] = folder.zeros
        if network.pooled or getattr(model, "use_additional_conditions", False):
            facts["pixels"] = _told_size(description, model, network, parts, pixels)
    if given.checkpointing:
        assembly.checkpointed(model)
    prepared = assembly.prepare(model, device, description.arithmetic)
    made = assembly.Parts(
        network=networks.read(prepared, null_class=given.null_class, distilled=given.distilled, pixels=pixels),
        prediction=prediction,
        schedule=_schedule(scheduler),
        told=_told(scheduler),
        size=size,
        weights=weights,
        encode=encode,
        decode=decode,
        facts=facts,
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
        if self.index is not None:
            self._check(self.index)
            found = [name for name in NETWORKS if self._named(name)]
            if len(found) != 1:
                kind = self.index.get("_class_name")
                raise RecordError(f"{self.path}: {kind} has no one unet or transformer; this pipeline isn't read")
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
                f"{self.description.name}: a network alone doesn't say its noise process; give its {SCHEDULER} as "
                "files.scheduler in a TOML description, or put it into the folder"
            )
        return _read(path)

    def model(self, name: str, dtype: torch.dtype) -> Any:
        """Return a complete diffusers network, on the CPU."""
        import diffusers

        path = self._place(name)
        kind = str(_peek(path / CONFIG).get("_class_name", ""))
        self._known(name, "diffusers", kind)
        cls = getattr(diffusers, RENAMED.get(kind, kind))
        with assembly.quiet():
            how = {"torch_dtype": dtype, "variant": self.variant, "low_cpu_mem_usage": False}
            found, said = self._made(name, cls, path, {**how, "output_loading_info": True})
        self._whole(path, said)
        return found.eval()

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
                    f"{self.description.name}: a {network} is told prompts, but there is no {name}; give the whole "
                    f"pipeline's folder, or files.{name} in a TOML description"
                )
            if name.startswith("tokenizer"):
                kind = kind or str(_peek(path / "tokenizer_config.json").get("tokenizer_class", "CLIPTokenizer"))
                self._known(name, "transformers", kind)
                made[name] = self._made(name, getattr(transformers, kind), path, {})
            else:
                kind = kind or (_peek(path / CONFIG).get("architectures") or [""])[0]
                self._known(name, "transformers", kind)
                with assembly.quiet():
                    made[name], said = self._made(
                        name, getattr(transformers, kind), path, {"dtype": torch.float32, "output_loading_info": True}
                    )
                self._whole(path, said)
        return made

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
                    f"{path}: {len(found)} {what.replace('_keys', '')} tensors, the first is {found[0]}; its files are "
                    "another network's than its configuration, download it again"
                )

    def _place(self, name: str) -> Path:
        """Return a part's folder: the described one, the subfolder of its name, or the checkpoint folder itself."""
        if name and (described := self.description.file(name)) is not None:
            return described
        own = self.path / name
        return own if own.is_dir() else self.path

    def _named(self, name: str) -> bool:
        return self._kind(name) is not None

    def _kind(self, name: str) -> str | None:
        """Return the class name of a part in the index; None if it has none."""
        entry = (self.index or {}).get(name)
        return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None else None

    def _check(self, index: Mapping[str, Any]) -> None:
        """Refuse a pipeline that needs its own code or unsupported classes."""
        kind = index.get("_class_name")
        if not isinstance(kind, str):
            raise RecordError(
                f"{self.path}: pipeline {kind} is code of its own, which isn't run; use sb.Teacher around it"
            )
        for name in (*NETWORKS, *FIRST_STAGES):
            if self._named(name):
                library, cls = index[name]
                self._known(name, str(library), str(cls))

    def _known(self, name: str, library: str, kind: str) -> None:
        if kind not in KINDS.get(library, set()):
            raise RecordError(
                f"{self.path}: {name or 'network'} is {library}.{kind or 'unknown'}, which isn't read, nor is any code "
                f"of its own run; it may be {', '.join(sorted(KINDS['diffusers']))}"
            )


def _schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    if schedulers.flows(config):
        first, last = schedulers.flow_times(config)
        return RectifiedFlow(t_start=1.0, t_end=last, t_first=first)
    return VPDiscrete.from_alphas_cumprod(schedulers.alphas_cumprod(config)).asked_by(**schedulers.rule(config))


def _told(config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Return the map from the schedule's time to the network's, counted in training steps (a flow's from 0 to M)."""
    count = schedulers.steps(config)
    return (lambda t: count * t) if schedulers.flows(config) else assembly.counted(count)


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
        raise RecordError(f"{type(vae).__name__}: latents_mean: latents with an average of their own aren't read")
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
            f"{description.name}: a {name} is told the size of its images, which its first stage says, but there is no "
            "vae; give the whole pipeline's folder, or files.vae in a TOML description"
        )
    if network.pooled and (made := parts["text_encoder_2"].config.projection_dim) != network.pooled:
        raise RecordError(
            f"{description.checkpoint}: its {name} takes {network.pooled} numbers of a prompt's summary and six sizes, "
            f"but text_encoder_2 makes {made}; a refiner, which is told others, isn't read"
        )
    return pixels


PIXART = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
"""Number of tokens for T5, by pipeline."""


def _encoder(
    description: Description, model: Any, parts: Mapping[str, Any], folder: Folder, length: int | None
) -> text.Encode:
    kind = type(model).__name__
    if kind == "PixArtTransformer2DModel":
        if length is None and folder.pipeline not in PIXART:
            raise SpecError(
                f"{description.name}: of which PixArt it is, the network alone doesn't say; give text_length=120 for "
                "alpha, 300 for sigma"
            )
        return text.pixart(parts, length or PIXART[folder.pipeline])
    if len(parts) == 4 and kind == "UNet2DConditionModel":
        return text.stable_diffusion_xl(parts, zeros=folder.zeros)
    if kind == "SD3Transformer2DModel":
        return text.stable_diffusion_3(parts, model.config["joint_attention_dim"], length or 256)
    if kind == "FluxTransformer2DModel":
        return text.flux(parts, length or 512)
    return text.stable_diffusion(parts)


def _facts(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of the scheduler that belong to the model."""
    made: dict[str, Any] = {"prediction": schedulers.prediction(scheduler), "steps": schedulers.steps(scheduler)}
    if not schedulers.flows(scheduler):
        made["alphas_cumprod"] = schedulers.alphas_cumprod(scheduler).tolist()
    return made


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
