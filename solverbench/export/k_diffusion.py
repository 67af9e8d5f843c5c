"""A few-step solver as a sampling function of k-diffusion; needs torch alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from solverbench.export.sums import combine
from solverbench.method.thresholding import threshold


@dataclass(frozen=True, eq=False)
class Sampler:
    """N calls of a model, each input a sum of the start and of all images predicted so far.

        x_k     = weights[k][0] x + sum_{j<k} weights[k][1+j] d_j          d_k = model(x_k, told[k])
        sample  = weights[N][0] x + sum_{j<N} weights[N][1+j] d_j

    Args:
        name: of the function, for errors.
        told: [N], the noise level that the model is told at each call.
        weights: rows of 1 to N+1 numbers.
        sigmas: the levels of the start, the states and the end, for callers that want levels.
        scale: what unit noise is multiplied by to make x.
        thresholding: each predicted image is kept within [-1, 1] by its own largest values.
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
            x: [B, ...], `scale` times unit noise.
            sigmas: none, or those of this sampler.
            callback: called after each call of the model, as k-diffusion does.
            disable: not used; there is no progress bar.

        Raises:
            ValueError: other levels.
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
        """Refuse levels that the weights don't hold for."""
        if sigmas is None:
            return
        own, given = torch.tensor(self.sigmas, dtype=torch.float64), torch.as_tensor(sigmas).double().cpu()
        if own.shape != given.shape or not torch.allclose(own, given, rtol=1e-4, atol=1e-6):
            shown = "+".join(f"{level:g}" for level in given.flatten().tolist()[:12])
            raise ValueError(
                f"{self.name}: sigmas {shown}, but its weights hold for its own {len(own)} levels alone; leave sigmas "
                "out, or give SIGMAS"
            )
