"""The server of the demo."""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import closing
from pathlib import Path

from lightning_gancompress.data.listing import evenly
from lightning_gancompress.errors import UserError
from lightning_gancompress.options import PortOrAny, checked
from lightning_gancompress.packages import require
from lightning_gancompress.translation.translator import pictures_in

MOST_SAMPLES = 12  # on the page
MOST_CONNECTIONS = 32  # each may hold an upload in memory


@checked
def serve(
    model: str | Path,
    teacher: str | Path | None = None,
    samples: str | Path | None = None,
    host: str = "127.0.0.1",
    port: PortOrAny = 8000,
) -> None:
    """Serve the demo until Ctrl-C.

    Args:
        model: The small model: any file that `Translator` takes.
        teacher: The model that it was made of, to compare with.
        samples: Folder of pictures to choose from; of many, some.
        host: Name or address at which the server listens.
        port: Port; 0 for any free one.

    Raises:
        UserError: A package or a file is missing, a file is no such model, or the port is taken.
    """
    require("The demo", "starlette", "uvicorn")
    import uvicorn

    from lightning_gancompress.demo.app import Demo
    from lightning_gancompress.demo.models import DemoModel

    with closing(listen(host, port)) as listening:  # first, since models take a while
        shown = evenly(pictures_in(samples), MOST_SAMPLES) if samples is not None else []
        files = {"student": model} if teacher is None else {"student": model, "teacher": teacher}
        demo = Demo([DemoModel(role, path) for role, path in files.items()], shown)
        print(f"The demo is at {address(listening)} until Ctrl-C.", flush=True)
        if not _is_loopback(listening):
            print(
                f"It answers whoever reaches {host}, without a password and unencrypted: leave --host out to "
                "answer this machine alone.",
                flush=True,
            )
        config = uvicorn.Config(
            demo.app(host),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # raised again when everything is closed
            print("The demo has ended.")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: The host isn't of this machine, or the port can't be had.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"host {host} is no name or address that is known here: leave it out, or give 0.0.0.0 for all of "
            "this machine."
        ) from error
    try:
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        raise UserError(
            f"port {port} of {host} can't be had ({os.strerror(error.errno or 0)}): give --port another "
            "number, or 0 for any free one."
        ) from error


def address(listening: socket.socket) -> str:
    """The address for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    own = ipaddress.ip_address(host)
    if own.is_unspecified:
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback
