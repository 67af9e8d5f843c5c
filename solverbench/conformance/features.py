"""Checks of a feature extractor: a vector for each image, which depends on that image alone."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from solverbench.conformance.trials import Failed
from solverbench.errors import PluginError, UserError
from solverbench.metrics.extractors import plugin
from solverbench.metrics.extractors.plugin import APART, Plugged, difference

SIDES = (32, 28, 64, 16, 8, 224)
"""Heights and widths of the images that an extractor is tried on, until it takes one."""

COUNT = 6
"""Number of images of a check."""


def images(extractor: Plugged) -> Tensor:
    """Return images [6, channels, H, W] uint8 of the first size that the extractor takes: smooth, and all different.

    Raises:
        Failed: it takes none of `SIDES`.
    """
    first: UserError | None = None
    for side in SIDES:
        coarse = torch.rand(COUNT, extractor.made.channels, 4, 4, generator=torch.Generator().manual_seed(0))
        smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
        drawn = (255 * smooth).to(torch.uint8).to(extractor.made.device)
        try:
            extractor.plain(drawn)
        except PluginError as error:
            first = first or error
        except UserError:
            return drawn  # of another shape, which `vectors` says
        else:
            return drawn
    sizes = ", ".join(f"{side} x {side}" for side in SIDES)
    raise Failed(f"takes no images of {sizes} ({first.wrong if first else ''}); resize them in `features`")


def documented(extractor: Plugged) -> str:
    """Raise unless the class has a docstring, whose first line describes it."""
    line = (type(extractor.made).__doc__ or "").strip().partition("\n")[0]
    if not line or line == (plugin.Extractor.__doc__ or "").partition("\n")[0]:
        raise Failed("has no docstring; say in its first line what the features are")
    return line


def identity(extractor: Plugged) -> str:
    """Raise unless a second instance has the same identity, which distinguishes its results."""
    again = Plugged(type(extractor.made)(extractor.made.device)).identity
    if again != extractor.identity:
        raise Failed(f"another instance is {again}, not {extractor.identity}; use sb.fingerprint(network), no id()")
    assert re.fullmatch(r"[a-z][a-z0-9_]*@[0-9a-f]{12}", again)
    return again


def vectors(extractor: Plugged) -> str:
    """Raise unless it returns a finite vector of at least two features for each image."""
    drawn = images(extractor)
    try:
        found = extractor.plain(drawn)
    except UserError as error:
        raise Failed(f"{error.wrong}; {error.remedy}") from None
    if found.shape[1] < 2:
        raise Failed(f"returned {found.shape[1]} feature for each image; a distance needs at least 2")
    if not found.isfinite().all():
        raise Failed("returned features that are not finite; scale the images before its network")
    return f"{found.shape[1]} features of images {'x'.join(map(str, drawn.shape[1:]))}"


def batch(extractor: Plugged) -> str:
    """Raise unless an image has the same features alone, in a batch, and in another order."""
    drawn = images(extractor)
    whole = extractor.plain(drawn)
    alone = torch.cat([extractor.plain(each[None]) for each in drawn])
    turned = extractor.plain(drawn.flip(0)).flip(0)
    if (apart := max(difference(whole, alone), difference(whole, turned))) > APART:
        raise Failed(f"an image's features differ by {apart:.0%} with its batch; call .eval() on its network")
    return "an image's features are the same alone and in a batch"


def repeatable(extractor: Plugged) -> str:
    """Raise unless the same images have the same features again, by another instance too."""
    drawn = images(extractor)
    found, other = extractor.plain(drawn), Plugged(type(extractor.made)(extractor.made.device))
    if (apart := difference(found, extractor.plain(drawn))) > APART:
        raise Failed(f"the second call's features differ by {apart:.0%}; use no random numbers")
    if (apart := difference(found, other.plain(drawn))) > APART:
        raise Failed(f"another instance's features differ by {apart:.0%}; load its weights, or give them a seed")
    return "the same twice, and by another instance"


def inputs(extractor: Plugged) -> str:
    """Raise unless the images are left as they were."""
    drawn = images(extractor)
    kept = drawn.clone()
    extractor.plain(drawn)
    if not drawn.equal(kept):
        raise Failed("changes its images in place; work on a copy, such as images.float()")
    return "the images are left unchanged"


def distinguishes(extractor: Plugged) -> str:
    """Raise unless different images have different features."""
    found = extractor.plain(images(extractor))
    if bool((found == found[:1]).all()):
        raise Failed("different images have the same features; return values from inside the network")
    return "different images have different features"
