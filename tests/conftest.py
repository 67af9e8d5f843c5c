"""What every test shares: one thread, so that tests don't fight for cores, and nobody's own zoo."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_data(tmp_path_factory):
    """An empty folder: the teachers and trained solvers that a developer keeps in theirs never matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLVERBENCH_DATA", str(tmp_path_factory.mktemp("own") / "data"))
        yield
