"""`solverbench reproduce`."""

from __future__ import annotations

import click


@click.command()
def reproduce() -> None:
    """x"""
