"""Schedulers that stand in for a pipeline's own: one that hands states in and outputs back, one that only watches.

Pipelines check the class of their scheduler and call its methods, so both are subclasses, made at run time, of the
pipeline's own scheduler class with the same configuration.
"""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class Stop(BaseException):
    """Ends a pipeline's call; no `except Exception` of a pipeline takes it."""


class Answer(tuple[Any, ...]):
    """The result of `step` for a pipeline, which reads it as a tuple or by attributes."""

    @property
    def prev_sample(self) -> Any:
        """The next state."""
        return self[0]

    @property
    def pred_original_sample(self) -> Any:
        """The second result, which some schedulers return."""
        return self[-1]


@dataclass
class Call:
    """The inputs and results of one call of the pipeline.

    Args:
        told: time told to the network, as a number or 0-d; gradients go through it.
        level: entry of `sigmas` for this time, for pipelines that read it.
        steps: number of steps that the pipeline makes: the last one counts, the others are only passed.
        entered: state that the step before the last one returns; None if the pipeline is given it as `latents`.
        final: state that the last step returns, so that the pipeline decodes it; None ends the call there.
        sample: the state that reached the last step.
        output: the network's output, with guidance applied, at the last step.
        step: steps made so far.
    """

    told: float | Tensor
    level: float = 0.0
    steps: int = 1
    entered: Tensor | None = None
    final: Tensor | None = None
    sample: Tensor | None = field(default=None, repr=False)
    output: Tensor | None = field(default=None, repr=False)
    step: int = 0

    @property
    def last(self) -> bool:
        """Whether the next step is the last one."""
        return self.step == self.steps - 1


def arguments(cls: type, given: tuple[Any, ...], more: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a scheduler's `step` by name."""
    signature = inspect.signature(cls.step)  # type: ignore[attr-defined]
    kept = {key: value for key, value in more.items() if key in signature.parameters}
    return dict(signature.bind_partial(None, *given, **kept).arguments)


def state(named: dict[str, Any]) -> Tensor:
    """Return the state among the arguments of `step`."""
    found: Tensor = named["sample"] if "sample" in named else named["model_input"]
    return found


def one_call(scheduler: Any, call: Call) -> Any:
    """Return the probe of one call: a scheduler whose last step keeps the output in `call`."""
    cls = type(scheduler)

    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        device = kwargs.get("device")
        device = device if device is not None else next((a for a in args if isinstance(a, (str, torch.device))), None)
        self.timesteps = torch.as_tensor(call.told, dtype=torch.float32).to(device).expand(call.steps)
        self.sigmas = torch.tensor([call.level] * call.steps + [0.0])
        self.num_inference_steps = call.steps
        self._step_index, self._begin_index = None, None

    def step(self: Any, *args: Any, **kwargs: Any) -> Answer:
        named = arguments(cls, args, kwargs)
        sample, last = state(named), call.last
        call.step += 1
        if not last:
            entered = sample if call.entered is None or call.step < call.steps - 1 else call.entered
            return Answer((entered, entered))
        call.sample, call.output = sample, named["model_output"]
        if call.final is None:
            raise Stop
        return Answer((call.final, call.final))

    return _made(scheduler, {"set_timesteps": set_timesteps, "step": step, **_UNSCALED})


def watched(
    scheduler: Any,
    *,
    began: Callable[[Any], None] = lambda scheduler: None,
    stepped: Callable[[Any, dict[str, Any], Any], None] = lambda scheduler, named, found: None,
) -> Any:
    """Return the scheduler itself, watched.

    Args:
        began: called after `set_timesteps` with the scheduler; may raise `Stop`.
        stepped: called after each step with the scheduler, the arguments by name, and the result; may raise `Stop`.
    """
    cls = type(scheduler)

    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = cls.set_timesteps(self, *args, **kwargs)
        began(self)
        return made

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        named = arguments(cls, args, kwargs)
        kept = {key: value.clone() if isinstance(value, Tensor) else value for key, value in named.items()}
        generators = _generators(named.get("generator"))
        kept["generator states"] = [each.get_state() for each in generators]
        found = cls.step(self, *args, **kwargs)
        stepped(self, kept, found)
        return found

    return _made(scheduler, {"set_timesteps": set_timesteps, "step": step})  # no property: of the same class


def unwatched(scheduler: Any) -> Any:
    """Return a copy of a watched scheduler, in its present state, that isn't watched."""
    found = copy.copy(scheduler)
    for name in ("set_timesteps", "step"):
        vars(found).pop(name, None)
    return copy.deepcopy(found)


def _generators(given: Any) -> list[torch.Generator]:
    found = given if isinstance(given, (list, tuple)) else [given]
    return [each for each in found if isinstance(each, torch.Generator)]


def _ignored(self: Any, value: Any) -> None:
    """Discard a value that the scheduler's class assigns."""


_UNSCALED = {
    "init_noise_sigma": property(lambda self: 1.0, _ignored),
    "scale_model_input": lambda self, sample, *args, **kwargs: sample,
}
"""Members by which a pipeline hands its state to the network as it is."""


def _made(scheduler: Any, members: dict[str, Any]) -> Any:
    """Return a copy of the scheduler with `members`; signatures and the class's name stay, which pipelines read.

    The members are the copy's own, so that its class stays what it is. Where the class computes one of them, as Euler's
    methods do the scale of the noise, they are a subclass's.
    """
    cls = type(scheduler)
    made = {
        name: functools.wraps(getattr(cls, name))(member) if callable(member) and hasattr(cls, name) else member
        for name, member in members.items()
    }
    found = copy.deepcopy(scheduler)
    if any(isinstance(getattr(cls, name, None), property) for name in members):
        found.__class__ = type(cls.__name__, (cls,), {**made, "__module__": cls.__module__})
        return found
    for name, member in made.items():
        if not hasattr(scheduler, name):
            continue
        vars(found)[name] = types.MethodType(member, found) if callable(member) else 1.0
    return found
