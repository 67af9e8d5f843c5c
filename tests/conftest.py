"""What every test shares: one thread, so that tests don't fight for cores, and nobody's own zoo."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_zoo(tmp_path_factory):
    """An empty one: what a developer keeps in theirs never matters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLVERBENCH_ZOO", str(tmp_path_factory.mktemp("own") / "zoo"))
        yield
