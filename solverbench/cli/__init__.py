"""The command line's commands, a file for each group of them; `solverbench.cli.main` assembles them."""
