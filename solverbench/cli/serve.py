"""`solverbench serve`."""

from __future__ import annotations

from pathlib import Path

import click

from solverbench.cli.flags import out_option


@click.command()
@out_option
@click.option("--port", type=int, default=8732, show_default=True, help="0: any that is free.")
def serve(out: str, port: int) -> None:
    """Show the runs in DIR as pages on this machine alone (127.0.0.1), fresh while one is going on. Ctrl-C ends it.

    From elsewhere: ssh -L 8732:127.0.0.1:8732 HOST
    """
    from solverbench.cli import server

    pages = server.serve(Path(out), port)
    click.echo(f"http://{server.HOST}:{pages.server_address[1]}/  shows {out}; Ctrl-C ends it")
    try:
        pages.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        click.echo()
    finally:
        pages.server_close()
