"""Conditions of images as data: a seed determines the class or prompt, so it is the same for every solver."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from solverbench import seeds
from solverbench.errors import UserError

UNIFORM = "torch.randint by the seed's own CPU generator after its noise"
"""Generator of the policy `uniform`: that of EDM's public generate.py when it draws on the CPU."""


@dataclass(frozen=True)
class Condition:
    """The class or prompt of each seed, and the guidance weight.

    Args:
        classes: `seed` (class = seed mod count), `uniform` (drawn from the seed, see `UNIFORM`) or `fixed:K`; None
            for a model without classes.
        count: number of classes.
        prompts: prompts, one per line of the user's file; an image gets line (seed mod length). Empty for a model
            without text.
        negative: negative prompt, from which guidance leads away.
        negatives: the negative prompt of each prompt; "" for one that has `negative`. Empty if all have that.
        guidance: w in e_u + w (e_c - e_u), at least 0; 1 is no guidance.
        rescale: share of the guided prediction that is rescaled to the conditional one's deviation, 0 to 1; see
            `Guided`.

    Raises:
        UserError: an unknown policy, a class beyond the last, a guidance that is not a finite number of at least 0, or
            a rescaling outside [0, 1] or without guidance.
    """

    classes: str | None = None
    count: int = 0
    prompts: tuple[str, ...] = field(default=(), repr=False)
    negative: str = ""
    guidance: float = 1.0
    rescale: float = 0.0
    negatives: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.classes is not None:
            match = re.fullmatch(r"seed|uniform|fixed:(\d+)", self.classes)
            if match is None:
                raise UserError(
                    asked=f"classes {self.classes!r}", wrong="not a policy", remedy="use seed, uniform or fixed:K"
                )
            if match[1] is not None and int(match[1]) >= self.count:
                raise UserError(
                    asked=f"classes {self.classes!r}",
                    wrong=f"the network has {self.count}",
                    remedy=f"use 0 to {self.count - 1}",
                )
        if not 0 <= self.guidance < float("inf"):
            raise UserError(
                asked=f"guidance {self.guidance:g}",
                wrong="not a finite number of at least 0",
                remedy="use 1 for none, or 7.5 for strong guidance",
            )
        if not 0 <= self.rescale <= 1:
            raise UserError(
                asked=f"guidance_rescale {self.rescale:g}",
                wrong="not a share",
                remedy="0 is none, 0.7 is common, 1 is all",
            )
        if self.rescale and self.guidance == 1:
            raise UserError(
                asked=f"guidance_rescale {self.rescale:g}", wrong="there is no guidance to rescale",
                remedy="give guidance, too, or leave it out",
            )  # fmt: skip

    def labels(self, chosen: Sequence[int], shape: Sequence[int]) -> list[int]:
        """Return the class of each image with these seeds.

        Args:
            shape: shape of one image's noise, which `uniform` draws first.
        """
        assert self.classes is not None
        if self.classes == "seed":
            return [seed % self.count for seed in chosen]
        if self.classes == "uniform":
            return [_drawn(seed, shape, self.count) for seed in chosen]
        return [int(self.classes.removeprefix("fixed:"))] * len(chosen)

    def lines(self, chosen: Sequence[int]) -> list[str]:
        """Return the prompt of each image with these seeds."""
        return [self.prompts[seed % len(self.prompts)] for seed in chosen]

    def negative_lines(self, chosen: Sequence[int]) -> list[str]:
        """Return the negative prompt of each image with these seeds."""
        if not self.negatives:
            return [self.negative] * len(chosen)
        return [self.negatives[seed % len(self.prompts)] or self.negative for seed in chosen]

    @property
    def key(self) -> dict[str, Any]:
        """The facts that the images depend on, as plain JSON values: part of a cell's key."""
        found: dict[str, Any] = {"guidance": self.guidance}
        if self.rescale:
            found["guidance_rescale"] = self.rescale
        if self.classes is not None:
            found |= {"classes": self.classes, "count": self.count}
        if self.classes == "uniform":
            found["generator"] = UNIFORM
        if self.prompts:
            text = "\n".join(self.prompts)
            found["prompts"] = hashlib.sha256(text.encode()).hexdigest()
            found |= {"lines": len(self.prompts), "negative": self.negative}
        if self.negatives:
            found["negatives"] = hashlib.sha256("\n".join(self.negatives).encode()).hexdigest()
        return found

    def __str__(self) -> str:
        said = []
        if self.classes is not None:
            rules = {"seed": f"seed mod {self.count}", "uniform": f"drawn from the seed among {self.count}"}
            said.append(f"class {rules.get(self.classes, self.classes.removeprefix('fixed:'))}")
        if self.prompts:
            said.append(f"prompt line seed mod {len(self.prompts)}")
            said += [f"negative prompt {self.negative!r}"] if self.negative else []
            said += ["negative prompts of their own"] if self.negatives else []
        said.append(f"guidance {self.guidance:g}")
        return ", ".join([*said, *([f"rescaled by {self.rescale:g}"] if self.rescale else [])])


class Guided:
    """A guided prediction: e_u + w (e_c - e_u), both in one batch with the unconditional rows first.

    Args:
        predict: (x [B, ...], t 0-d, condition, each tensor [B, ...]) -> a prediction of x's shape that is affine in
            the noise: eps, v, x0 or flow.
        given: condition of the batch.
        absent: tensors for no condition or the negative prompt, shaped as `given`; None if the network has none.
        guidance: weight w. With w = 1 or no `absent`, only the conditional rows are computed.
        rescale: share r in (1 - r + r std(e_c)/std(guided)) guided, with the deviations of each image.

    Source: Ho & Salimans 2022, arXiv:2207.12598, equation 6, with w counted from 1; Lin et al. 2023, arXiv:2305.08891,
    section 3.4, for the rescaling of the network's output.
    """

    def __init__(
        self,
        predict: Callable[[Tensor, Tensor, tuple[Tensor, ...]], Tensor],
        given: tuple[Tensor, ...],
        absent: tuple[Tensor, ...] | None,
        guidance: float,
        rescale: float = 0.0,
    ) -> None:
        self.predict, self.given, self.guidance, self.rescale = predict, given, guidance, rescale
        self.both: tuple[Tensor, ...] | None = None
        if passes(guidance, absent is not None) == 2:
            assert absent is not None
            self.both = tuple(torch.cat(pair) for pair in zip(absent, given, strict=True))

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.both is None:
            return self.predict(x, t, self.given)
        free, led = self.predict(torch.cat((x, x)), t, self.both).chunk(2)
        found = free + self.guidance * (led - free)
        if not self.rescale:
            return found
        axes = tuple(range(1, found.ndim))
        ratio = led.std(axes, keepdim=True) / found.std(axes, keepdim=True)
        return found * (1 - self.rescale + self.rescale * ratio)


def passes(guidance: float, absent: bool) -> int:
    """Return the number of rows through the network per image and call.

    Args:
        absent: whether the network has an unconditional input.
    """
    return 2 if absent and guidance != 1 else 1


def _drawn(seed: int, shape: Sequence[int], count: int) -> int:
    generator = torch.Generator("cpu").manual_seed(seed)
    seeds.draw(generator, shape)
    return int(torch.randint(count, (), generator=generator))
