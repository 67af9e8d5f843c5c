"""Prompt encoding: each pipeline's text encoders, combined as in its upstream code."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

Encode = Callable[[Sequence[str]], tuple[Tensor, ...]]

LOCK = threading.Lock()
"""Lock around tokenizers: they store lengths in themselves, so threads cannot share them."""

LENGTH = 77
"""Number of tokens that CLIP takes; longer prompts are truncated, as upstream."""


def stable_diffusion(parts: Mapping[str, Any]) -> Encode:
    """Return the encoder prompts -> (words [B, 77, D],): CLIP's last state.

    Args:
        parts: tokenizer and text_encoder.
    """
    tokenizer, encoder = parts["tokenizer"], parts["text_encoder"]

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> tuple[Tensor, ...]:
        return (encoder(_tokens(tokenizer, prompts, encoder))[0],)

    return encode


def stable_diffusion_xl(parts: Mapping[str, Any], *, zeros: bool) -> Encode:
    """Return the encoder prompts -> (words [B, 77, D], pooled [B, E]) of two CLIPs: their penultimate states.

    `pooled` is the second CLIP's pooled vector.

    Args:
        parts: tokenizer, text_encoder, tokenizer_2, text_encoder_2.
        zeros: whether the empty prompt, which only a missing negative prompt can be, is encoded as zeros.

    Source: Podell et al. 2023, arXiv:2307.01952, section 2.1; the pipeline of diffusers.
    """
    clips = [(parts[f"tokenizer{n}"], parts[f"text_encoder{n}"]) for n in ("", "_2")]

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> tuple[Tensor, ...]:
        made = [clip(_tokens(tokens, prompts, clip), output_hidden_states=True) for tokens, clip in clips]
        words, pooled = torch.cat([each.hidden_states[-2] for each in made], -1), made[-1][0]
        kept = torch.tensor([bool(prompt) or not zeros for prompt in prompts], device=words.device)
        return words * kept[:, None, None], pooled * kept[:, None]

    return encode


def pixart(parts: Mapping[str, Any], length: int) -> Encode:
    """Return the encoder prompts -> (words [B, length, D] of T5, mask [B, length] of the actual tokens).

    Prompts are lowercased, as upstream. Upstream's removal of HTML and addresses, which needs further packages, is not
    done.

    Args:
        parts: tokenizer, text_encoder.
        length: number of tokens.
    """
    tokenizer, t5 = parts["tokenizer"], parts["text_encoder"]

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> tuple[Tensor, ...]:
        ids, mask = _masked(tokenizer, [prompt.lower().strip() for prompt in prompts], t5, length)
        return t5(ids, attention_mask=mask)[0], mask

    return encode


def stable_diffusion_3(parts: Mapping[str, Any], width: int, length: int = 256) -> Encode:
    """Return the encoder prompts -> (words [B, 77 + length, width], pooled [B, D]): two CLIPs, then T5.

    The words are the CLIPs' penultimate states, then T5's last state.

    Args:
        parts: tokenizer, text_encoder, each with _2 and _3; zeros replace the third encoder if it is None.
        width: width of the network's words.
        length: number of tokens for T5.

    Source: Esser et al. 2024, arXiv:2403.03206, figure 2; the pipeline of diffusers.
    """
    clips = [(parts[f"tokenizer{n}"], parts[f"text_encoder{n}"]) for n in ("", "_2")]
    tokenizer, t5 = parts.get("tokenizer_3"), parts.get("text_encoder_3")

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> tuple[Tensor, ...]:
        made = [clip(_tokens(tokens, prompts, clip), output_hidden_states=True) for tokens, clip in clips]
        words = torch.cat([each.hidden_states[-2] for each in made], -1)
        words = pad(words, (0, width - words.shape[-1]))
        if t5 is None:
            more = torch.zeros(len(prompts), length, width, device=words.device, dtype=words.dtype)
        else:
            more = t5(_tokens(tokenizer, prompts, t5, length))[0]
        return torch.cat((words, more), 1), torch.cat([each[0] for each in made], -1)

    return encode


def flux(parts: Mapping[str, Any], length: int = 512) -> Encode:
    """Return the encoder prompts -> (words [B, length, D] of T5, pooled [B, E] of CLIP).

    Args:
        parts: tokenizer, text_encoder, tokenizer_2, text_encoder_2.
        length: number of tokens for T5.
    """
    clip, t5 = parts["text_encoder"], parts["text_encoder_2"]

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> tuple[Tensor, ...]:
        pooled = clip(_tokens(parts["tokenizer"], prompts, clip)).pooler_output
        return t5(_tokens(parts["tokenizer_2"], prompts, t5, length))[0], pooled

    return encode


KEPT = 256 << 20
"""Cache size for encoded prompts, in bytes."""


class Remembered:
    """An encoder with a least-recently-used cache of `kept` bytes.

    Each prompt is encoded alone: in a batch its last bits would depend on the other prompts, and so on earlier calls.
    """

    def __init__(self, encode: Encode, kept: int = KEPT) -> None:
        self.encode, self.kept = encode, kept
        self.found: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()
        self.size = 0
        self.lock = threading.Lock()

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        with self.lock:
            rows = [self._row(prompt) for prompt in prompts]
        return tuple(torch.cat(column) for column in zip(*rows, strict=True))

    def _row(self, prompt: str) -> tuple[Tensor, ...]:
        row = self.found.pop(prompt, None)
        if row is None:
            row = self.encode([prompt])
            self.size += _bytes(row)
        self.found[prompt] = row
        while self.size > self.kept and len(self.found) > 1:
            self.size -= _bytes(self.found.popitem(last=False)[1])
        return row


def _bytes(row: tuple[Tensor, ...]) -> int:
    return sum(each.numel() * each.element_size() for each in row)


def fingerprint(tokenizer: Any) -> str:
    """Return the sha256 of a tokenizer's vocabulary."""
    return hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()


def _tokens(tokenizer: Any, prompts: Sequence[str], encoder: Any, length: int | None = None) -> Tensor:
    """Return token ids [B, length] on the encoder's device; CLIP's own length if none is given."""
    return _masked(tokenizer, prompts, encoder, length)[0]


def _masked(tokenizer: Any, prompts: Sequence[str], encoder: Any, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Return token ids and their mask, 1 for actual tokens, [B, length] each."""
    most = length or min(tokenizer.model_max_length, LENGTH)
    with LOCK:
        tokens = tokenizer(list(prompts), padding="max_length", max_length=most, truncation=True, return_tensors="pt")
    return tokens.input_ids.to(encoder.device), tokens.attention_mask.to(encoder.device)
