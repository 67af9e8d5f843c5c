"""Fashion-MNIST: the facts on its images that the networks need. The images themselves aren't part of the package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "data"
SHAPE = (1, 28, 28)
NAMES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
"""Names of the classes, in the order of their labels."""
CLASSES = len(NAMES)
