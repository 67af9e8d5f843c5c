"""A diffusers pipeline as a network: its own call for one step, with a probe in place of its scheduler.

Prompts, guidance of any kind, packing, control inputs and decoding stay the pipeline's own code. A state enters as
`latents` (one-step form). Where the pipeline changes what it is given there, or takes none, it makes two steps: the
first one's network is skipped, and its `step` returns the state (two-step form).
"""

from __future__ import annotations

import inspect
import itertools
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from solverbench import seeds as noise
from solverbench.errors import RecordError, SpecError
from solverbench.teachers.families import assembly
from solverbench.teachers.families.pipelines import memory, probe
from solverbench.teachers.families.pipelines.decoding import Decoded, capture, plain_images
from solverbench.teachers.families.pipelines.networks import Watched
from solverbench.teachers.families.pipelines.probe import Call, Stop
from solverbench.wording import one_line

SEED = 0
"""Seed of what a pipeline draws itself, such as codes of an image that it is given: the same in every call."""


class Adapter:
    """A pipeline with a scheduler, its call's arguments, and the states that it takes.

    Args:
        name: name of the teacher, for messages.
        pipe: the pipeline, on its device, with its prompts remembered.
        networks: its networks.
        given: arguments of its call.
        negative: negative prompt; none is told if None.
        negatives: prompt to its own negative prompt.
        prompts: prompts with which it is tried out; empty if its call takes none.
        frame: frame of a video that is its image; the middle one if None.
        offloading: whether parts leave the device when others run.

    Raises:
        SpecError: the pipeline's call fails with these arguments.
        RecordError: it calls no network, or no state can be handed to it.
    """

    def __init__(
        self,
        name: str,
        pipe: Any,
        networks: Watched,
        given: Mapping[str, Any],
        *,
        negative: str | None = None,
        negatives: Mapping[str, str] | None = None,
        prompts: Sequence[str] = (),
        frame: int | None = None,
        offloading: bool = False,
    ) -> None:
        self.name, self.pipe, self.given, self.negative, self.frame = name, pipe, dict(given), negative, frame
        self.negatives = negatives or {}
        self.offloading = offloading
        self.kind = type(pipe).__name__
        self.networks = networks
        self.scheduler = pipe.scheduler
        self.turned = turned(pipe.scheduler)
        self.parameters = arguments(type(pipe))
        self.prompts = tuple(prompts)
        self.lock = threading.RLock()
        self.alone = self.text = False
        self.steps = 1
        capture(pipe, lambda: networks.call is not None)
        pipe.set_progress_bar_config(disable=True)
        self.sample = self._first()
        self.entered = self.sample.dtype
        self.forms = self._forms()
        self.steps = self.forms[0]

    @property
    def state(self) -> tuple[int, ...]:
        """The shape of one image's state as the pipeline keeps it."""
        return tuple(self.sample.shape[1:])

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image's state as a teacher has it: [N, D] is (1, N, D), [F, C, H, W] is (F, C H, W)."""
        state = (1,) * (3 - len(self.state)) + self.state
        return state[0], math.prod(state[1:-1]), state[-1]

    @property
    def single(self) -> bool:
        """Whether a call takes one image: batches change them, or the pipeline takes one prompt as a text."""
        return self.alone or self.text

    @property
    def format(self) -> torch.dtype:
        """The coarser number format of the states' and the network's."""
        networks = [module.dtype for module in self.networks.modules.values()]
        found: torch.dtype = max((self.sample.dtype, *networks), key=lambda dtype: torch.finfo(dtype).eps)
        return found

    @property
    def device(self) -> torch.device:
        """The device of states."""
        return self.sample.device

    def output(self, y: Tensor, told: float | Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the network's output with guidance applied, of y's shape; a learned variance is left out.

        Args:
            y: states [B, C, H, W] in the network's frame.
            told: time of the state, as a number or 0-d, through which gradients go; told to the network, but that of
                a turned scheduler is told what is left of it, and its output's sign is turned back.
            prompts: prompts [B]; empty if the call takes none.
        """
        if self.offloading and y.requires_grad and len(self.networks.modules) > 1:
            memory.refuse_gradients(self.name, self.kind)
        if self.single and len(y) > 1:
            rows = [self.output(y[n : n + 1], told, prompts[n : n + 1]) for n in range(len(y))]
            return torch.cat(rows)
        entered = y.reshape(-1, *self.state).to(self.entered)
        told = self.count - told if self.turned else told
        call = Call(told, float(torch.as_tensor(told).detach()) / self.count, self.steps, entered)
        self.run(call, len(y), prompts)
        assert call.output is not None
        found = _first_half(call.output, entered).reshape(y.shape)
        return -found if self.turned else found

    def decode(self, states: Tensor) -> Tensor:
        """Return the images [B, 3, H, W] on [-1, 1] of final states [B, C, H, W], `assembly.DECODED` at a time."""
        return torch.cat([self._decode(part) for part in torch.split(states, 1 if self.single else assembly.DECODED)])

    def levels(self, steps: int) -> tuple[Tensor, Tensor]:
        """Return the result of the pipeline's own `set_timesteps` for a number of steps: told times [N], sigmas [N+1].

        The sigmas are empty for a scheduler that has none. Those of a turned one are turned back.
        """
        found: list[tuple[Tensor, Tensor]] = []

        def began(scheduler: Any) -> None:
            sigmas = getattr(scheduler, "sigmas", None)
            kept = torch.empty(0) if sigmas is None else torch.as_tensor(sigmas).double().cpu()
            found.append((torch.as_tensor(scheduler.timesteps).double().cpu(), kept))
            raise Stop

        self.watched(probe.watched(self.scheduler, began=began), steps, self.prompts[:1])
        times, sigmas = found[0]
        return (self.count - times, 1 - sigmas) if self.turned else (times, sigmas)

    def watched(self, scheduler: Any, steps: int, prompts: Sequence[str]) -> None:
        """Run the pipeline's own call for one image with a scheduler, from the noise that it draws itself."""
        with self.lock, self._scheduler(scheduler), assembly.quiet():
            self._called(steps, 1, prompts, {}, "latent")

    def run(self, call: Call, count: int, prompts: Sequence[str]) -> Tensor | None:
        """Run the pipeline's own call with the probe of `call`; return the decoded images, if it came to that.

        Where it decodes it draws a first state of its own, so that random numbers drawn later are those of a whole run.
        """
        more: dict[str, Any] = {}
        if call.steps == 1 and call.entered is not None and call.final is None:
            more["latents"] = call.entered
        with self.lock, self._scheduler(probe.one_call(self.scheduler, call)), assembly.quiet():
            self.networks.call = call
            try:
                found = self._called(call.steps, count, prompts, more, "latent" if call.final is None else "pt")
            except Decoded as decoded:
                return decoded.images
            finally:
                self.networks.call = None
        if call.output is None:
            raise RecordError(
                asked=self.name, wrong=f"{self.kind} ended its call without a step of its scheduler",
                remedy="use sb.Teacher around its network",
            )  # fmt: skip
        return None if found is None else plain_images(found)

    @property
    def count(self) -> int:
        """The number of training steps of the scheduler."""
        return int(self.scheduler.config.get("num_train_timesteps", 1000))

    def _called(self, steps: int, count: int, prompts: Sequence[str], more: Mapping[str, Any], kind: str) -> Any:
        """Return what the pipeline's call returns; None if it was stopped."""
        told: dict[str, Any] = {"num_inference_steps": steps, "output_type": kind, "return_dict": False, **self.given}
        if "generator" in self.parameters:
            generators = [torch.Generator("cpu").manual_seed(SEED) for _ in range(count)]
            told["generator"] = generators[0] if self.text else generators
        if prompts:
            told["prompt"] = prompts[0] if self.text else list(prompts)
        else:  # the number of images is that of the inputs, or given
            told |= {key: [value] * count for key, value in self.given.items() if not is_plain(value)}
            told["batch_size"] = count
        if self.negative is not None or self.negatives:
            said = [self.negatives.get(prompt) or self.negative or "" for prompt in prompts]
            told["negative_prompt"] = said[0] if self.text and said else said or [self.negative] * count
        function = type(self.pipe).__call__
        function = getattr(function, "__wrapped__", function)  # without its no_grad
        devices = [self.pipe.device] if self.pipe.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):  # of what draws without the generator it is given
                torch.manual_seed(SEED)
                return function(
                    self.pipe, **{key: value for key, value in told.items() if key in self.parameters}, **more
                )
        except Stop:
            return None

    def _first(self) -> Tensor:
        """Return the first state of one image that the pipeline draws itself, and learn what its network returns."""
        said = ""
        for text, steps in itertools.product((False, True) if self.prompts else (False,), (1, 2)):
            self.text = text
            call = Call(self.count - 1, (self.count - 1) / self.count, steps)
            try:
                with torch.no_grad():
                    self.run(call, 1, self.prompts[:1])
            except Exception as error:  # a pipeline that dislikes its arguments raises nearly anything
                said = said or one_line(error, typed=True)
                continue
            assert call.sample is not None
            self.steps = steps
            if not self.networks.rows:
                break
            return call.sample.detach()
        if not said:
            raise RecordError(
                asked=self.name, wrong=f"{self.kind} calls no unet or transformer, so there is no network to sample",
                remedy="use sb.Teacher around its network",
            )  # fmt: skip
        halved = any(module.dtype != torch.float32 for module in self.networks.modules.values())
        raise SpecError(
            asked=self.name, wrong=f"{self.kind}'s call fails with its arguments ({said})",
            remedy="give them in a [call] table of a description, or behind the folder as in :height=512:width=512"
            + "; or leave dtype out" * halved,
        )  # fmt: skip

    def _forms(self) -> tuple[int, ...]:
        """Return the numbers of steps with which states arrive unchanged, 1 before 2.

        Raises:
            RecordError: there is none.
        """
        drawn = noise.noise([1], self.sample.shape[1:], str(self.device))
        test = drawn.to(self.format).to(self.sample.dtype)  # some round states that they step in float32
        found, said = [], "changes the states that it is given"
        for steps in range(1 if "latents" in self.parameters else 2, 3):
            call = Call(self.count / 2, 0.5, steps, test)
            try:
                with torch.no_grad():
                    self.run(call, 1, self.prompts[:1])
            except Exception as error:
                said = f"fails with a state of its own shape ({one_line(error, typed=True)})"
                continue
            assert call.sample is not None
            assert call.output is not None
            if call.sample.shape != test.shape or not torch.equal(call.sample, test):
                continue
            if _first_half(call.output, test).shape == test.shape:
                found.append(steps)
            else:
                said = f"gives an output of shape {list(call.output.shape)} for states of {list(test.shape)}"
        if not found:
            raise RecordError(asked=self.name, wrong=f"{self.kind} {said}", remedy="use sb.Teacher around its network")
        return tuple(found)

    def _decode(self, states: Tensor) -> Tensor:
        final = states.reshape(-1, *self.state).to(self.sample.dtype)
        count = len(final)
        call = Call(1.0, 1 / self.count, self.steps, final, final=final)
        if self.offloading and final.requires_grad:
            memory.refuse_gradients(self.name, self.kind)
        images = self.run(call, count, self.prompts[:1] * count)
        assert images is not None
        if self.offloading:
            memory.release(self.pipe)
        if images.ndim == 5:  # [B, C, F, H, W]
            images = images[:, :, images.shape[2] // 2 if self.frame is None else self.frame]
        return images

    @contextmanager
    def _scheduler(self, scheduler: Any) -> Iterator[None]:
        """Put a scheduler into the pipeline for a while."""
        self.pipe.scheduler = scheduler
        try:
            yield
        finally:
            self.pipe.scheduler = self.scheduler


def arguments(cls: Any) -> dict[str, Any]:
    """Return the arguments of a pipeline's call by name, with their defaults."""
    found = inspect.signature(cls.__call__).parameters.values()
    return {each.name: each.default for each in found if each.name != "self" and each.kind is not each.VAR_KEYWORD}


def turned(scheduler: Any) -> bool:
    """Return whether a flow's time runs from noise at 0 to data, and its network predicts x0 - n, as Mochi's."""
    return bool(scheduler.config.get("invert_sigmas"))


def is_plain(value: Any) -> bool:
    """Return whether an argument of a call is plain data, not an image."""
    return value is None or isinstance(value, (bool, int, float, str, list, dict))


def _first_half(output: Tensor, sample: Tensor) -> Tensor:
    """Return the prediction in a network's output, which may hold a learned variance in as many channels again."""
    if output.ndim > 1 and output.shape[1] == 2 * sample.shape[1] and output.shape[2:] == sample.shape[2:]:
        return output[:, : sample.shape[1]]
    return output
