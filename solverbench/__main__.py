"""`python -m solverbench` is the command line."""

from solverbench.cli.main import main

main(prog_name="solverbench")
