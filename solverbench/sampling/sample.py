"""Samples of given seeds from a teacher by a plan, counted and checked; bitwise equal for any number of workers."""

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
"""Default number of images per call of the denoiser."""


class SampleError(UserError):
    """A sample that cannot be used; the text is the reason."""

    exit_code = 1


class BatchLimit:
    """The number of images per call: as requested, halved each time the device's memory runs out.

    Args:
        most: requested images per call; it never grows again.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def halve(self, size: int, error: torch.OutOfMemoryError) -> None:
        """Halve the limit, because `size` images did not fit.

        Raises:
            SampleError: `size` is one image.
        """
        if size <= 1:
            raise SampleError(
                asked="batch of 1 image",
                wrong=f"the device's memory is too small ({_first_sentence(error)})",
                remedy="free the memory, or use another --device",
            ) from error
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

    They are one batch, halved as often as needed if the device's memory runs out. A row's noise and condition depend
    only on its seed, so halving does not change them.

    Args:
        plan: the plan, with the scale of the teacher's prior.
        nfe: number of calls that the solver claims.
        watch: wrapper applied to the teacher's denoiser before it is called.
        fit: limit on images per call; lowered here when memory runs out.

    Raises:
        SampleError: another number of calls was counted, a value is not finite, or one image alone does not fit.
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
        raise SampleError(
            asked=f"nfe={nfe}",
            wrong=f"{counter.calls} calls of the denoiser were counted",
            remedy="report this as a bug of SolverBench",
        )
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
    """Yield the result of `sample` for each wanted sample of `tree`, or its error; a shared call is made once.

    They are one batch; if the device's memory runs out, it is halved as often as needed for the samples still missing.

    Args:
        start: seeds -> (the denoiser of their images, as `walk` calls it; their unit noise).
        wanted: polled between calls; an end that is no longer wanted is skipped.
        fit: limit on images per call; lowered here when memory runs out.
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
            lack = error.with_traceback(None)  # its frames hold tensors that should be freed
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
            asked=f"seeds {seeds.label(chosen)}",
            wrong=(
                f"{int(finite.logical_not().sum())} of {len(chosen)} samples are not finite, the first has seed {first}"
            ),
            remedy="leave the cell out, or check solver and teacher with 'solverbench check'",
        )


@torch.no_grad()
def decoded(teacher: Teacher, states: Tensor, fit: BatchLimit) -> Tensor:
    """Return the images [B, C, H, W] of final states [B, *shape], in as large parts as fit; a decoder's are float32.

    Raises:
        SampleError: one image alone does not fit.
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
    """Yield a block's seeds in batches of `batch`; the last one may be shorter."""
    for begin in range(0, len(block), batch):
        yield block[begin : begin + batch]


class Cancel(threading.Event):
    """An event that makes workers stop at the next batch."""

    def check(self) -> None:
        """Raise `Cancelled` if the event is set."""
        if self.is_set():
            raise Cancelled


class Cancelled(Exception):
    """The run is ending; the worker's unfinished work is dropped."""
