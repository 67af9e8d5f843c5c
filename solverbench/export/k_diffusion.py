"""A few-step solver as a sampling function of k-diffusion; needs torch alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from solverbench.export.sums import combine
from solverbench.method.thresholding import threshold


@dataclass(frozen=True, eq=False)
class Sampler:
    """N calls of a model; each input is a weighted sum of the start and all images predicted so far.

        x_k     = weights[k][0] x + sum_{j<k} weights[k][1+j] d_j          d_k = model(x_k, told[k])
        sample  = weights[N][0] x + sum_{j<N} weights[N][1+j] d_j

    Args:
        name: name of the function, for errors.
        told: noise level that the model is told at each call, [N].
        weights: rows of 1 to N+1 numbers.
        sigmas: levels of the start, the states and the end, for callers that need levels.
        scale: factor from unit noise to x.
        thresholding: whether each predicted image is thresholded dynamically to [-1, 1].
    """

    name: str
    told: list[float]
    weights: list[list[float]]
    sigmas: list[float]
    scale: float
    thresholding: bool = False

    @torch.no_grad()
    def __call__(
        self,
        model: Callable[..., torch.Tensor],
        x: torch.Tensor,
        sigmas: torch.Tensor | None = None,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
    ) -> torch.Tensor:
        """Return the sample.

        Args:
            model: (x [B, ...], sigma [B], **extra_args) -> the denoised images.
            x: start [B, ...], `scale` times unit noise.
            sigmas: None, or the levels of this sampler.
            callback: called after each model call, as in k-diffusion.
            disable: unused; there is no progress bar.

        Raises:
            ValueError: `sigmas` are other levels.
        """
        self._check(sigmas)
        history = [x]
        for i, level in enumerate(self.told):
            state, sigma = combine(self.weights[i], history), x.new_full((len(x),), level)
            denoised = model(state, sigma, **(extra_args or {})).to(x.dtype)
            if self.thresholding:
                denoised = threshold(denoised)
            history.append(denoised)
            if callback is not None:
                callback({"x": state, "i": i, "sigma": sigma[0], "sigma_hat": sigma[0], "denoised": denoised})
        return combine(self.weights[-1], history)

    def _check(self, sigmas: torch.Tensor | None) -> None:
        """Refuse levels other than those of the weights."""
        if sigmas is None:
            return
        own, given = torch.tensor(self.sigmas, dtype=torch.float64), torch.as_tensor(sigmas).double().cpu()
        if own.shape != given.shape or not torch.allclose(own, given, rtol=1e-4, atol=1e-6):
            shown = "+".join(f"{level:g}" for level in given.flatten().tolist()[:12])
            raise ValueError(
                f"{self.name}: sigmas {shown}, but its weights hold only for its own {len(own)} levels; leave sigmas "
                "out, or give SIGMAS"
            )
