"""SIGKILL of a training, three times at random moments: it ends with the same bytes as one that nothing happened to."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import forks
import pytest
import toys

from solverbench.learned import recipes
from solverbench.learned.training import train as training

SETTINGS = {
    "gas": [
        "iterations=32",
        "adversarial_weight=0.5",
        "widths=8+8",
        "cardinalities=2+2",
        "blocks=1",
        "discriminator_pretrain=8",
    ],
    "ld3": ["iterations=40", "radius=0.1", "noise_lr=300", "validate_every=3", "stages=times:1,times+offsets:2"],
}
COMMON = ["batch=8", "train_size=40", "validation_size=20"]

CHILD = """
import json, os, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)  # a process forked after several have worked would wait for them for ever
torch.optim.SGD([torch.zeros(1)])  # the first optimiser imports torch._dynamo: once, not in each fork
sys.path.insert(0, {tests!r})
import toys
from solverbench.learned import recipes
from solverbench.learned.training import train as training

out = Path({out!r})
recipe = recipes.load({solver!r}, "toy").override({settings!r})
teacher = toys.teacher(lambda x, sigma: toys.denoise(x, sigma.detach()))

def train(after, latest, seconds):
    begun = time.perf_counter()

    def progress(iteration, total, loss, validation):
        # At the latest at `latest`, however fast the machine is.
        if iteration >= latest or iteration >= after and time.perf_counter() - begun > seconds:
            os.kill(os.getpid(), signal.SIGKILL)

    training.train({solver!r}, 3, teacher, recipe, seed=0, out=out, progress=progress, checkpoint_every=4)

ends = []
for moment in {moments}:
    if not (pid := os.fork()):
        try:
            train(*moment)
        finally:
            os._exit(1)
    ends.append([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(list(out.rglob("checkpoint.safetensors")))])
print(json.dumps(ends))
"""
"""Each training is a process of its own, forked so that torch is imported once."""


@pytest.mark.parametrize("solver", SETTINGS)
def test_a_training_killed_three_times_at_random_equals_one_that_was_not(solver: str, tmp_path: Path) -> None:
    settings = COMMON + SETTINGS[solver]
    recipe = recipes.load(solver, "toy").override(settings)
    teacher = toys.teacher(lambda x, sigma: toys.denoise(x, sigma.detach()))
    straight = training.train(solver, 3, teacher, recipe, seed=0, out=tmp_path / "a")
    chance = random.Random(f"killed {solver}")
    moments = [(12 * third + chance.randrange(1, 12), 12 * third + 12, chance.uniform(0, 0.05)) for third in range(3)]
    script = CHILD.format(
        tests=str(Path(toys.__file__).parent), solver=solver, settings=settings, out=str(tmp_path / "b"),
        moments=moments,
    )  # fmt: skip
    child = forks.run(["-c", script])
    assert child.returncode == 0, child.stderr
    codes, begun = zip(*json.loads(child.stdout), strict=True)
    assert codes == (-signal.SIGKILL,) * 3, child.stderr
    assert begun[-1] == 1
    resumed = training.train(solver, 3, teacher, recipe, seed=0, out=tmp_path / "b")
    assert resumed.identity == straight.identity
    for name in ("history.csv", "path.csv"):
        one, two = (next((tmp_path / side).rglob(name)).read_bytes() for side in "ab")
        assert one == two
