"""`solverbench serve`."""

from __future__ import annotations

from pathlib import Path

import click

from solverbench.cli.flags import out_option


@click.command()
@out_option
@click.option("--port", type=int, default=8732, show_default=True, help="Port of the server; 0 chooses a free one.")
def serve(out: str, port: int) -> None:
    """Show the runs in DIR as web pages on this machine.

    The pages follow active runs. Only this machine (127.0.0.1) can open them; from another machine, use
    ssh -L 8732:127.0.0.1:8732 HOST. Ctrl-C stops the server.
    """
    from solverbench.cli import server

    pages = server.serve(Path(out), port)
    click.echo(f"http://{server.HOST}:{pages.server_address[1]}/  shows {out}; Ctrl-C stops the server")
    try:
        pages.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        click.echo()
    finally:
        pages.server_close()
