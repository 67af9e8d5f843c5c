"""Features of CLIP and DINOv2, CLIP's agreement of an image with its prompt, and PickScore.

The networks are those of the transformers package, imported on use; images are prepared here, by PIL.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from solverbench import extras, userdata
from solverbench.errors import MissingError, RecordError
from solverbench.metrics.extractors import inception as fid
from solverbench.metrics.extractors.inception import BATCH, exactly, three
from solverbench.wording import one_line

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the weight files, either of which is read; transformers reads the second without executing its content."""

PIXELS = 224
"""Height and width of both networks' input, in pixels."""

LARGE_PIXELS = 336
"""Height and width of the input of `CLIPLarge`, in pixels."""

VOCABULARY = ("vocab.json", "merges.txt")
"""Files of a tokenizer, if it has no tokenizer.json."""

TOKENS = 77
"""Number of tokens of a prompt; a longer one is truncated."""

CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CLIP:
    """CLIP ViT-B/32 features as clean-fid's clip_vit_b_32: projected, not normalised.

    Args:
        device: device of the network.

    Raises:
        MissingError: transformers or the network's folder is missing.
        RecordError: the folder holds another network.

    Source: Kynkäänniemi et al. 2023, arXiv:2203.06026, for the distance; Radford et al. 2021, arXiv:2103.00020, for
    the network. The shorter side is resized to 224 by PIL's bicubic filter and the centre cropped, as in clean-fid's
    clip_features.py.
    """

    folder = "clip-vit-base-patch32"
    repository = "https://huggingface.co/openai/clip-vit-base-patch32"
    called, pixels = "ViT-B/32", 32
    """Name of the network, and height and width of its patches in pixels."""
    words = words_repository = ""
    """Folder and address of its tokenizer, if its own folder has none."""

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.path = device, _weights(self.folder, self.repository, self.words_repository)
        told = _config(self.path, "clip")
        self.size = int(told.get("projection_dim", 512))
        patch = told.get("vision_config", {}).get("patch_size", 32)
        if patch != self.pixels:
            raise RecordError(
                asked=self.path.parent,
                wrong=f"its patches have {patch} pixels instead of {self.called}'s {self.pixels}",
                remedy=_put(self),
            )
        self._lock = threading.Lock()
        self._loaded: Any = None
        self._words: Any = None

    @property
    def identity(self) -> str:
        """The extractor's name in a metric, with the sha256 of its weights, shortened."""
        return f"{self.folder}@{fid.sha(self.path)[:12]}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, 512] float32 on the CPU of images [B, C, H, W] uint8.

        Raises:
            FeatureError: not uint8 images with one to four channels.
            RecordError: the weights are of another network.
        """
        network = self._network()

        def features(x: Tensor) -> Tensor:
            return torch.as_tensor(network.visual_projection(network.vision_model(pixel_values=x).pooler_output))

        return _embedded(images, lambda image: _cut(image, self.cut), CLIP_MEAN, CLIP_DEVIATION, features, self.device)

    def cut(self, surplus: int) -> int:
        """Return how many of the pixels beyond 224 are cut at the left or top; a half is rounded to the even number."""
        return round(surplus / 2)

    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return 100 max(cos, 0) of the features of each image and its prompt, [B] float64 on the CPU.

        Raises:
            MissingError: the folder has no tokenizer.

        Source: Hessel et al. 2021, arXiv:2104.08718, equation 1, with a weight of 100 in place of 2.5, as in
        torchmetrics and in text-to-image papers.
        """
        seen = self(images).double()
        return 100 * torch.cosine_similarity(seen, self.read(prompts), dim=1).clamp(min=0)

    def read(self, prompts: Sequence[str]) -> Tensor:
        """Return the projected features of prompts, [B, D] float64 on the CPU.

        Raises:
            MissingError: there is no tokenizer.
            RecordError: the weights are of another network.
        """
        network = self._network()
        with self._lock:  # a tokenizer stores lengths in itself
            if self._words is None:
                self._words = self._tokenizer()
            tokens = self._words(
                list(prompts), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
            )
        with exactly():
            said = network.text_model(
                input_ids=tokens["input_ids"].to(self.device), attention_mask=tokens["attention_mask"].to(self.device)
            )
            return torch.as_tensor(network.text_projection(said.pooler_output)).double().cpu()

    def check_words(self) -> Path:
        """Return the folder of the tokenizer, which `scores` needs.

        Raises:
            MissingError: there is none.
        """
        places = [self.path.parent, *([userdata.data() / self.words] if self.words else [])]
        for place in places:
            if (place / "tokenizer.json").is_file() or all((place / name).is_file() for name in VOCABULARY):
                return place
        repository = self.words_repository or self.repository
        raise MissingError(
            asked=f"the tokenizer of {self.folder}",
            wrong=f"tokenizer.json, or {' and '.join(VOCABULARY)}, are missing in {' and '.join(map(str, places))}",
            remedy=f"put them there from {repository}, as by '{_command(repository, places[-1])}'",
        )

    def _tokenizer(self) -> Any:
        return _transformers().CLIPTokenizer.from_pretrained(str(self.check_words()), local_files_only=True)

    def _network(self) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = _loaded("CLIPModel", self.path, self.device, _put(self))
            return self._loaded


class CLIPLarge(CLIP):
    """CLIP ViT-L/14 features at 336 x 336 pixels as for CMMD: projected, and normalised to length 1.

    Source: Jayasumana et al. 2024, arXiv:2401.09603. Images are resized by torch's bicubic interpolation of levels on
    [0, 1], without antialiasing and without a crop, as in the public code's embedding.py.
    """

    folder = "clip-vit-large-patch14-336"
    repository = "https://huggingface.co/openai/clip-vit-large-patch14-336"
    called, pixels = "ViT-L/14", 14

    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, 768] float32 on the CPU of images [B, C, H, W] uint8, each of length 1.

        Raises:
            FeatureError: not uint8 images with one to four channels.
            RecordError: the weights are of another network.
        """
        network, found = self._network(), []
        shift, scale = (torch.tensor(each).view(1, 3, 1, 1) for each in (CLIP_MEAN, CLIP_DEVIATION))
        with exactly():
            for part in torch.split(three(images), BATCH):
                levels = part.cpu().float() / 255
                whole = interpolate(levels, size=(LARGE_PIXELS, LARGE_PIXELS), mode="bicubic", align_corners=False)
                ready = ((whole - shift) / scale).to(self.device)
                seen = network.visual_projection(network.vision_model(pixel_values=ready).pooler_output)
                found.append(torch.nn.functional.normalize(torch.as_tensor(seen).float(), dim=1).cpu())
        return torch.cat(found)


class PickScore(CLIP):
    """PickScore: how well people like an image for its prompt, by CLIP ViT-H/14 trained on their choices.

    Images are prepared as by the image processor that its README names: the shorter side is resized to 224 by PIL's
    bicubic filter and the centre cropped, rounded down. Its repository has no tokenizer; that of the network which it
    was trained from is read from a folder of its own, unless the files lie beside the weights.

    Source: Kirstain et al. 2023, arXiv:2305.01569, section 4; its README has the formula.
    """

    folder = "PickScore_v1"
    repository = "https://huggingface.co/yuvalkirstain/PickScore_v1"
    called, pixels = "ViT-H/14", 14
    words = "CLIP-ViT-H-14-laion2B-s32B-b79K"
    words_repository = "https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

    def cut(self, surplus: int) -> int:
        """Return how many of the pixels beyond 224 are cut at the left or top."""
        return surplus // 2

    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return exp(logit_scale) cos of the features of each image and its prompt, [B] float64 on the CPU.

        A difference d of two images' scores means that the first is preferred with the probability 1/(1 + exp(-d)).

        Raises:
            MissingError: there is no tokenizer.
            RecordError: the weights are of another network.
        """
        scale = float(self._network().logit_scale.detach().double().exp())
        return scale * torch.cosine_similarity(self(images).double(), self.read(prompts), dim=1)


class DINOv2:
    """DINOv2 ViT-L/14 features for the Fréchet DINOv2 distance: the last state of the class token.

    Args:
        device: device of the network.

    Raises:
        MissingError: transformers or the network's folder is missing.
        RecordError: the folder holds another network.

    Source: Stein et al. 2023, arXiv:2306.04675: 224 x 224 by PIL's bicubic filter; Oquab et al. 2023, arXiv:2304.07193,
    for the network. Positions are interpolated to 16 x 16 as in its public code, which differs from transformers.
    """

    folder = "dinov2-large"
    repository = "https://huggingface.co/facebook/dinov2-large"

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.path = device, _weights(self.folder, self.repository)
        told = _config(self.path, "dinov2")
        self.size, patch = int(told.get("hidden_size", 768)), told.get("patch_size", 14)
        if patch != 14:
            raise RecordError(
                asked=self.path.parent,
                wrong=f"its patches have {patch} pixels instead of ViT-L/14's 14",
                remedy=_put(self),
            )
        self._lock = threading.Lock()
        self._loaded: Any = None

    @property
    def identity(self) -> str:
        """The extractor's name in a metric, with the sha256 of its weights, shortened."""
        return f"{self.folder}@{fid.sha(self.path)[:12]}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, 1024] float32 on the CPU of images [B, C, H, W] uint8.

        Raises:
            FeatureError: not uint8 images with one to four channels.
            RecordError: the weights are of another network.
        """
        network = self._network()

        def features(x: Tensor) -> Tensor:
            return torch.as_tensor(network(pixel_values=x).last_hidden_state[:, 0])

        def stretched(image: Image.Image) -> Image.Image:
            return image.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)

        return _embedded(images, stretched, IMAGENET_MEAN, IMAGENET_DEVIATION, features, self.device)

    def _network(self) -> Any:
        with self._lock:
            if self._loaded is None:
                network = _loaded("Dinov2Model", self.path, self.device, _put(self))
                there = network.embeddings.position_embeddings
                there.data = positions(there.data, PIXELS // 14)
                self._loaded = network
            return self._loaded


def positions(stored: Tensor, side: int) -> Tensor:
    """Return the position embeddings [1, 1 + side^2, D] of DINOv2 for side x side patches.

    Args:
        stored: stored embeddings [1, 1 + n^2, D], the first for the class token.

    Source: the public code's interpolate_pos_encoding, which scales by (side + 0.1) / n.
    """
    n = round((stored.shape[1] - 1) ** 0.5)
    if n == side:
        return stored
    grid = stored[:, 1:].float().reshape(1, n, n, -1).permute(0, 3, 1, 2)
    scaled = interpolate(grid, scale_factor=((side + 0.1) / n,) * 2, mode="bicubic").permute(0, 2, 3, 1)
    return torch.cat([stored[:, :1], scaled.reshape(1, side * side, -1).to(stored.dtype)], dim=1)


def _embedded(
    images: Tensor,
    fitted: Callable[[Image.Image], Image.Image],
    mean: Sequence[float],
    deviation: Sequence[float],
    features: Callable[[Tensor], Tensor],
    device: str,
) -> Tensor:
    found = []
    shift, scale = (torch.tensor(each).view(1, 3, 1, 1) for each in (mean, deviation))
    with exactly():
        for part in torch.split(three(images), BATCH):
            rows = [np.array(fitted(Image.fromarray(each.permute(1, 2, 0).numpy()))) for each in part.cpu()]
            levels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float()
            found.append(features(((levels / 255 - shift) / scale).to(device)).float().cpu())
    return torch.cat(found)


def _cut(image: Image.Image, begin: Callable[[int], int]) -> Image.Image:
    """Return the image with its shorter side resized to 224 pixels and its centre cropped.

    Args:
        begin: pixels beyond 224 -> how many of them are cut at the left or top.
    """
    width, height = image.size
    short = min(width, height)
    width, height = int(PIXELS * width / short), int(PIXELS * height / short)
    left, top = begin(width - PIXELS), begin(height - PIXELS)
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + PIXELS, top + PIXELS))


def _weights(folder: str, repository: str, words: str = "") -> Path:
    """Return the file of a network's weights in the data folder.

    Args:
        words: address of its tokenizer, if another repository has it.

    Raises:
        MissingError: transformers or the file is missing.
    """
    _transformers()
    home = userdata.data() / folder
    for name in WEIGHTS:
        if (home / name).is_file() and (home / "config.json").is_file():
            return home / name
    also = f", and its tokenizer by '{_command(words, home.with_name(words.rpartition('/')[2]))}'" if words else ""
    raise MissingError(
        asked=folder,
        wrong=f"config.json and {' or '.join(WEIGHTS)} are missing in {home}",
        remedy=f"put them there from {repository}, as by '{_command(repository, home)}'{also}",
    )


def _command(repository: str, home: Path) -> str:
    """Return the command that downloads a repository of the Hugging Face hub into a folder."""
    return f"hf download {repository.removeprefix('https://huggingface.co/')} --local-dir {home}"


def _config(path: Path, kind: str) -> dict[str, Any]:
    try:
        told = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(
            asked=path.parent / "config.json", wrong=f"can't be read ({one_line(error)})", remedy="download it again"
        ) from None
    if not isinstance(told, dict) or told.get("model_type") != kind:
        found = told.get("model_type") if isinstance(told, dict) else told
        raise RecordError(
            asked=path.parent / "config.json",
            wrong=f"describes a {found} network instead of {kind}",
            remedy="replace the files",
        )
    return told


def _loaded(kind: str, path: Path, device: str, remedy: str) -> Any:
    """Return the network in evaluation mode; refuse an incomplete file, which transformers would fill at random."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # a progress bar
        warnings.simplefilter("ignore")
        try:
            network, told = getattr(_transformers(), kind).from_pretrained(
                str(path.parent), local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
        except Exception as error:  # a damaged file raises what it likes
            raise RecordError(
                asked=path, wrong=f"not the expected network ({one_line(error)})", remedy=remedy
            ) from None
    if told["missing_keys"] or told["mismatched_keys"]:
        lacking = sorted(map(str, told["missing_keys"] or told["mismatched_keys"]))[0]
        raise RecordError(asked=path, wrong=f"not the expected network (no {lacking})", remedy=remedy)
    return network.eval().requires_grad_(False).to(device)


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except Exception as error:  # with a torchvision that doesn't fit torch, it raises RuntimeError
        raise MissingError(
            asked="networks of CLIP and DINOv2",
            wrong=f"the transformers package can't be imported ({one_line(error)})",
            remedy=f"run {extras.install('clip')}",
        ) from None


def _put(network: CLIP | DINOv2) -> str:
    return f"put the files of {network.repository} there"
