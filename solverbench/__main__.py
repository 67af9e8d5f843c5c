"""`python -m solverbench` is the command line."""

from solverbench.cli import main

main(prog_name="solverbench")
