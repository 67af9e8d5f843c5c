"""Samples of given seeds from a teacher by a plan: counted, timed, checked, the same bits for any number of workers."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from solverbench import seeds
from solverbench.errors import UserError
from solverbench.method.execution import Counter, execute, walk
from solverbench.method.prefixes import Call, End, Tree
from solverbench.method.tableau import Plan
from solverbench.teachers.teacher import Teacher
from solverbench.wording import one_line

BATCH = 500
"""Images per call of the denoiser, unless asked otherwise."""


class SampleError(UserError):
    """A sample that can't be used; the text is the reason."""

    exit_code = 1


class BatchLimit:
    """How many images go through a network at once: as asked, and half as many each time the device's memory runs out.

    Args:
        most: images of a call, as asked; it never grows again.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def halve(self, size: int, error: torch.OutOfMemoryError) -> None:
        """Note that `size` images didn't fit.

        Raises:
            SampleError: it was one image.
        """
        if size <= 1:
            raise SampleError(f"the device's memory is too small for one image ({_first_sentence(error)})") from error
        self.most = max(1, size // 2)
        torch.cuda.empty_cache()


def sample(
    plan: Plan,
    teacher: Teacher,
    chosen: range,
    *,
    nfe: int,
    watch: Callable[[Callable[[Tensor, Tensor], Tensor]], Callable[[Tensor, Tensor], Tensor]] | None = None,
    fit: BatchLimit | None = None,
) -> Tensor:
    """Return the final states [B, *shape] float32 on the teacher's device of the images with seeds `chosen`.

    One batch, unless the device's memory runs out: then halves of it, as often as it takes. A row's noise and condition
    are its seed's own, so that they stay what they were.

    Args:
        plan: made with the scale of the teacher's prior.
        nfe: calls that the solver claims.
        watch: what is to be called in place of each of the teacher's denoisers.
        fit: told how many images fitted; asked for no more than it knows to fit.

    Raises:
        SampleError: another number of calls was counted, a value isn't finite, or one image alone doesn't fit.
    """
    fit, made, begin = fit or BatchLimit(len(chosen)), [], 0
    while begin < len(chosen):
        part = chosen[begin : begin + fit.most]
        try:
            made.append(_sampled(plan, teacher, part, nfe, watch))
        except torch.OutOfMemoryError as error:
            fit.halve(len(part), error)
        else:
            begin += len(part)
    return made[0] if len(made) == 1 else torch.cat(made)


@torch.no_grad()
def _sampled(
    plan: Plan,
    teacher: Teacher,
    chosen: range,
    nfe: int,
    watch: Callable[[Callable[[Tensor, Tensor], Tensor]], Callable[[Tensor, Tensor], Tensor]] | None,
) -> Tensor:
    denoise = teacher.denoiser(chosen)
    counter = Counter(watch(denoise) if watch else denoise)
    states = execute(plan, counter, seeds.noise(chosen, teacher.shape, teacher.device))
    if counter.calls != nfe:
        raise SampleError(f"claims nfe={nfe}, but {counter.calls} calls of the denoiser were counted")
    _check_finite(states, chosen)
    return states


@torch.no_grad()
def samples(
    tree: Tree,
    teacher: Teacher,
    chosen: range,
    start: Callable[[range], tuple[Callable[[Call, Tensor, Tensor], Tensor], Tensor]],
    wanted: Callable[[End], bool],
    fit: BatchLimit,
) -> Iterator[tuple[End, Tensor | Exception]]:
    """Yield what `sample` returns for each wanted sample of `tree`, or why there is none; a shared call is made once.

    One batch, unless the device's memory runs out: then halves of it, as often as it takes, for the samples that are
    still missing.

    Args:
        start: seeds -> what is called for the images with these, as `walk` does it, and their unit noise.
        wanted: asked again and again: what isn't any more is left out from there on.
        fit: told how many images fitted; asked for no more than it knows to fit.
    """

    def walked(part: range, left: Callable[[End], bool]) -> Iterator[tuple[End, Tensor | Exception]]:
        for end, found in walk(tree, *start(part), left):
            yield end, found if isinstance(found, Exception) else _finite(found, part)

    met: set[End] = set()
    kept: defaultdict[End, list[Tensor]] = defaultdict(list)

    def left(end: End) -> bool:
        return end not in met and wanted(end)

    begin = 0
    while begin < len(chosen):
        part = chosen[begin : begin + fit.most]
        here: dict[End, Tensor] = {}
        lack = None
        try:
            for end, found in walked(part, left):
                if isinstance(found, Exception) or len(part) == len(chosen):
                    met.add(end)
                    yield end, found
                else:
                    here[end] = found.cpu()
        except torch.OutOfMemoryError as error:
            lack = error.with_traceback(None)  # its frames hold what should be freed
        if lack is None:
            begin += len(part)
            for end, states in here.items():
                kept[end].append(states)
            continue
        try:
            fit.halve(len(part), lack)
        except SampleError as error:
            yield from [(end, error) for end in tree.ends if left(end)]
            return
    for end, parts in kept.items():
        if left(end):
            yield end, torch.cat(parts).to(teacher.device)


def _finite(states: Tensor, chosen: range) -> Tensor | SampleError:
    try:
        _check_finite(states, chosen)
    except SampleError as error:
        return error
    return states


def _check_finite(states: Tensor, chosen: range) -> None:
    finite = states.isfinite().flatten(1).all(1).cpu()
    if not finite.all():
        first = chosen[int(finite.logical_not().nonzero()[0])]
        raise SampleError(
            f"{int(finite.logical_not().sum())} of {len(chosen)} samples are not finite, the first has seed {first}"
        )


@torch.no_grad()
def decoded(teacher: Teacher, states: Tensor, fit: BatchLimit) -> Tensor:
    """Return the images [B, C, H, W] of final states [B, *shape], in as large parts as fit; a decoder's are float32.

    Raises:
        SampleError: one image alone doesn't fit.
    """
    if teacher.decode is None:
        return states
    made: list[Tensor] = []
    begin = 0
    while begin < len(states):
        part = states[begin : begin + fit.most]
        try:
            made.append(teacher.images(part.to(teacher.device, torch.float32)).float())
        except torch.OutOfMemoryError as error:
            fit.halve(len(part), error)
        else:
            begin += len(part)
    return torch.cat(made)


def _first_sentence(error: BaseException) -> str:
    return one_line(error).partition(". ")[0]


def batches(block: range, batch: int) -> Iterator[range]:
    """Yield a block's seeds in batches: always cut at the same places, the last one may be shorter."""
    for begin in range(0, len(block), batch):
        yield block[begin : begin + batch]


class Cancel(threading.Event):
    """Set to make workers leave at the next batch."""

    def check(self) -> None:
        """Raise `Cancelled` if it is set."""
        if self.is_set():
            raise Cancelled


class Cancelled(Exception):
    """The run is ending; what this worker had begun is dropped."""
