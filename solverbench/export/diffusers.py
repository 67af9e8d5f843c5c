"""A few-step solver as a scheduler for diffusers pipelines; needs torch and diffusers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils import logging

from solverbench.export.sums import combine
from solverbench.method.thresholding import threshold

PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")
UNSCALED = 1e-5, 1e-2
"""Largest deviations of an unscaled start from unit noise that are ignored, or only give a warning."""


class TableauScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """N calls of a network; each input is a weighted sum of the initial noise and all images predicted so far.

        y_k     = alphas[k] (weights[k][0] noise + sum_{j<k} weights[k][1+j] d_j)        k = 0 .. N-1
        d_k     = the image predicted by the network's output for y_k at timesteps[k]
        sample  = weights[N][0] noise + sum_{j<N} weights[N][1+j] d_j

    The network's state is y = alpha (x0 + sigma n). With s = alpha sigma, its output e and the predicted image d are

        epsilon          n                 d = (y - s e)/alpha
        v_prediction     alpha n - s x0    d = (alpha y - s e)/(alpha^2 + s^2)
        sample           x0                d = e
        flow_prediction  n - x0            d = (y - s e)/(alpha + s)

    Each call is one step: num_inference_steps is N, also for a method with two calls per interval. `set_timesteps`,
    which pipelines call first, clears the history.

    Args:
        timesteps: times told to the network, [N]; fractional training steps are intended.
        alphas, sigmas: alpha and sigma of each input, [N].
        weights: rows of 1 to N+1 numbers; the first of each row is the weight of unit noise.
        prediction_type: type of the network's output, one of `PREDICTIONS`.
        thresholding: whether each predicted image is thresholded dynamically to [-1, 1].
        num_train_timesteps: number of the network's training steps, by which some pipelines divide.
        spec, teacher, teacher_identity: solver, and network that the numbers were made for.

    Raises:
        ValueError: the numbers are inconsistent.
    """

    order = 1

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        timesteps: list[float] | tuple[float, ...] = (),
        alphas: list[float] | tuple[float, ...] = (),
        sigmas: list[float] | tuple[float, ...] = (),
        weights: list[list[float]] | tuple[list[float], ...] = (),
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        num_train_timesteps: int = 1000,
        spec: str = "",
        teacher: str = "",
        teacher_identity: str = "",
    ) -> None:
        calls, shapes = len(timesteps), [len(row) for row in weights]
        if not calls or {len(alphas), len(sigmas)} != {calls} or shapes != list(range(1, calls + 2)):
            raise ValueError(
                f"TableauScheduler: {calls} timesteps, {len(alphas)} alphas, {len(sigmas)} sigmas, rows of {shapes} "
                "weights; load an exported scheduler_config.json with from_pretrained"
            )
        if prediction_type not in PREDICTIONS:
            raise ValueError(f"TableauScheduler: prediction_type {prediction_type!r}; use {', '.join(PREDICTIONS)}")
        # Not every device has float64, and the network computes its embedding in float32.
        self.timesteps = torch.tensor(timesteps, dtype=torch.float32)
        start = alphas[0] * weights[0][0]
        self._start = 1.0 if abs(start - 1) < UNSCALED[0] else start
        self._asked = False
        self._history: list[torch.Tensor] = []
        self._calls = 0

    @property
    def init_noise_sigma(self) -> float:
        """The factor by which a pipeline multiplies its unit noise."""
        self._asked = True
        return self._start

    @property
    def step_index(self) -> int:
        """The number of calls made since `set_timesteps`."""
        return self._calls

    @property
    def begin_index(self) -> int:
        """The first call of a run: always 0, because runs are complete."""
        return 0

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Accept 0.

        Raises:
            ValueError: another index, as for images that do not start from pure noise.
        """
        if begin_index:
            raise ValueError(
                f"TableauScheduler: begin at call {begin_index}: its weights hold only for whole runs; use strength=1"
            )

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Start a run.

        Args:
            num_inference_steps: N or None.
            sigmas, mu: equally spaced times from 1 to 1/N or 1/M, M the number of training steps, and their shift,
                which flow pipelines pass to every scheduler. They are ignored, because the levels are fixed.
            timesteps: whole times from the last training step to 1, which CogView4's pipeline passes with their
                sigmas; ignored, too.

        Raises:
            ValueError: a number of steps other than N, or other times.
        """
        calls = len(self.config.timesteps)
        if timesteps is not None:
            count, last = len(timesteps), self.config.num_train_timesteps
            spaced = [last + (1 - last) * n / max(count - 1, 1) for n in range(count)]
            if any(abs(t - even) > 1 for t, even in zip(timesteps, spaced, strict=True)):
                raise ValueError(
                    f"TableauScheduler: timesteps {list(map(float, timesteps))}: its times are fixed; leave them out"
                )
            num_inference_steps = num_inference_steps or count
        elif sigmas is not None:
            num_inference_steps = num_inference_steps or len(sigmas)
            steps, whole = len(sigmas), 1 / self.config.num_train_timesteps

            def evenly(end: float, within: float) -> bool:
                """Return whether the times are equally spaced from 1 to `end`."""
                even = [1 + (end - 1) * n / max(steps - 1, 1) for n in range(steps)]
                return all(abs(t - each) <= within for t, each in zip(sigmas, even, strict=True))

            if not evenly(1 / steps, 1e-6) and not evenly(whole, whole):
                raise ValueError(
                    f"TableauScheduler: sigmas {list(map(float, sigmas))}: its levels are fixed; leave them out"
                )
        if num_inference_steps not in (None, calls):
            raise ValueError(
                f"TableauScheduler: {num_inference_steps} steps are requested, but its numbers are for "
                f"{calls} calls; give "
                f"num_inference_steps={calls}, or export the solver for {num_inference_steps}"
            )
        self.num_inference_steps = calls
        self.timesteps = torch.tensor(self.config.timesteps, dtype=torch.float32, device=device)
        self._history, self._calls = [], 0

    def scale_model_input(self, sample: torch.Tensor, timestep: float | torch.Tensor | None = None) -> torch.Tensor:
        """Return `sample`: `step` already returns the network's next input."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """Return the input of the next call, or after the last call the sample, not scaled by alpha.

        Args:
            model_output: the network's output [B, ...] with guidance applied; learned variances, as in [B, 2C, ...],
                are dropped.
            timestep: the entry of `timesteps` told to the network.
            sample: the network's input, [B, ...].
            generator, use_clipped_model_output: unused; nothing is random or clipped.
            eta: 0, which pipelines of DDIM pass.

        Raises:
            ValueError: another eta, another timestep than the next one, more calls than N, or an output of another
                shape.
        """
        config, k = self.config, self._calls
        if eta:
            raise ValueError(f"TableauScheduler: eta={eta:g}: nothing is random in its steps; leave eta out")
        self._check(timestep)
        # The history of a half precision run is float32: only the network rounds to half precision.
        y = sample.to(torch.promote_types(sample.dtype, torch.float32))
        if k == 0:
            self._history = [y / self._start]
        if model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]
        if model_output.shape != sample.shape:
            raise ValueError(
                f"TableauScheduler: the output has the shape {tuple(model_output.shape)}, but the sample "
                f"{tuple(sample.shape)}"
            )
        d = self._image(y, model_output.to(y.dtype), config.alphas[k], config.alphas[k] * config.sigmas[k])
        self._history.append(threshold(d) if config.thresholding else d)
        self._calls += 1
        found = combine(config.weights[k + 1], self._history)
        if self._calls < len(config.timesteps):
            found = found * config.alphas[k + 1]
        else:
            self._history = []
        found = found.to(sample.dtype)
        return SchedulerOutput(prev_sample=found) if return_dict else (found,)

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return images [B, ...] noised to `timesteps` [B], which must be the scheduler's own.

        Raises:
            ValueError: a time that is not in `timesteps`.
        """
        known, noisy = list(map(float, self.timesteps)), []
        for image, added, t in zip(original_samples, noise, timesteps.flatten().tolist(), strict=True):
            if t not in known:
                raise ValueError(f"TableauScheduler: add_noise at {t:g}; only the timesteps {known} are known")
            k = known.index(t)
            noisy.append(self.config.alphas[k] * (image + self.config.sigmas[k] * added))
        return torch.stack(noisy)

    def scale_noise(self, sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return `add_noise`, as flow pipelines call it."""
        return self.add_noise(sample, noise, timestep.expand(len(sample)))

    def _check(self, timestep: float | torch.Tensor) -> None:
        """Refuse a call out of order, and a start that the pipeline did not scale."""
        told, calls = self.config.timesteps, self._calls
        if calls == len(told):
            raise ValueError(f"TableauScheduler: all {calls} calls are made; call set_timesteps before another run")
        if not math.isclose(float(timestep), told[calls], rel_tol=1e-3, abs_tol=1e-6):
            raise ValueError(
                f"TableauScheduler: call {calls + 1} is at timestep {float(timestep):g}, but its weights "
                f"are for {told[calls]:g}; use all timesteps in order"
            )
        away = abs(self._start - 1)
        if calls or self._asked or away == 0:
            return
        said = (
            f"TableauScheduler: its first input must be {self._start:.6g} times unit noise, but this pipeline "
            "doesn't scale its noise; give it latents=noise * scheduler.init_noise_sigma"
        )
        if away > UNSCALED[1]:
            raise ValueError(said)
        logging.get_logger(__name__).warning(said)

    def _image(self, y: torch.Tensor, output: torch.Tensor, alpha: float, s: float) -> torch.Tensor:
        """Return the image predicted by an output."""
        if self.config.prediction_type == "epsilon":
            return (y - s * output) / alpha
        if self.config.prediction_type == "v_prediction":
            return (alpha * y - s * output) / (alpha**2 + s**2)
        if self.config.prediction_type == "flow_prediction":
            return (y - s * output) / (alpha + s)
        return output
