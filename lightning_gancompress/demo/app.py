"""The pages of the demo, and the uploads that it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from lightning_gancompress.demo.guard import Guard
from lightning_gancompress.demo.models import DemoModel, Made
from lightning_gancompress.errors import UserError
from lightning_gancompress.options import fits, words
from lightning_gancompress.reporting.page.headline import Tile, figure, ratios
from lightning_gancompress.reporting.page.rendering import environment
from lightning_gancompress.translation.sizes import ResultSize

MOST_BYTES = 20 * 2**20  # of an upload
THUMBNAIL = 200  # pixels
_ASSETS = {"style.css": "text/css", "demo.js": "text/javascript"}
_TEMPLATES = environment("lightning_gancompress.demo")
_TEMPLATES.globals["figure"] = figure


class Demo:
    """The demo as a web application. It keeps no picture: each upload is answered from memory.

    Uploads are `POST /source?size=SIZE` and `POST /ROLE?size=SIZE` with the file as body; the answer is a
    picture, with the milliseconds of the model in `Server-Timing`, or a sentence.

    Args:
        models: The student, and maybe its teacher.
        samples: Pictures to choose from.
    """

    def __init__(self, models: Sequence[DemoModel], samples: Sequence[Path] = ()) -> None:
        self.models: Mapping[str, DemoModel] = {model.role: model for model in models}
        self.samples = samples
        self._turn = asyncio.Lock()  # one picture at a time, first come first served: memory, and latencies

    def app(self, host: str) -> Starlette:
        """The application, for a server that listens at `host`."""
        routes = [
            Route("/", self.page),
            Route("/samples/{number:int}", self.sample),
            Route("/thumbnails/{number:int}", self.thumbnail),
            *(Route(f"/{name}", self.asset) for name in _ASSETS),
            Route("/source", self.source, methods=["POST"]),
            *(Route(f"/{role}", self.translate, methods=["POST"]) for role in self.models),
        ]
        handlers = {UserError: _sentence, HTTPException: _sentence}
        return Starlette(
            routes=routes, middleware=[Middleware(Guard, host=host)], exception_handlers=handlers
        )

    async def page(self, request: Request) -> Response:
        """The page."""
        return HTMLResponse(self.html())

    def html(self) -> str:
        """The text of the page."""
        values = {"models": self.models, "samples": self.samples, "tiles": self._tiles()}
        return _TEMPLATES.get_template("page.html").render(**values, most_bytes=MOST_BYTES)

    async def asset(self, request: Request) -> Response:
        """A file that the page loads."""
        name = request.url.path[1:]
        return Response(files(__package__).joinpath("templates", name).read_bytes(), media_type=_ASSETS[name])

    async def sample(self, request: Request) -> Response:
        """A sample as it is."""
        return Response(await run_in_threadpool(self._read, request), media_type="application/octet-stream")

    async def thumbnail(self, request: Request) -> Response:
        """A small picture of a sample."""
        content = await run_in_threadpool(self._read, request)
        return await self._make(lambda: self.models["student"].source(content, THUMBNAIL))

    async def source(self, request: Request) -> Response:
        """An upload as the student reads it."""
        upload = await _upload(request)
        return await self._make(lambda: self.models["student"].source(upload))

    async def translate(self, request: Request) -> Response:
        """What a model makes of an upload."""
        model, size = self.models[request.url.path[1:]], _size(request)
        upload = await _upload(request)
        return await self._make(lambda: model.translate(upload, size))

    async def _make(self, make: Callable[[], Made]) -> Response:
        async with self._turn:
            made = await run_in_threadpool(make)
        timing = {"Server-Timing": f"model;dur={made.seconds * 1000:.3f}"}
        return Response(made.content, media_type=made.media_type, headers=timing)

    def _read(self, request: Request) -> bytes:
        number: int = request.path_params["number"]
        try:
            return self.samples[number].read_bytes()
        except (IndexError, OSError) as error:
            raise HTTPException(404, "This sample isn't there any more: choose another.") from error

    def _tiles(self) -> list[Tile]:
        if "teacher" not in self.models:
            return []
        return list(ratios(self.models["teacher"].figures, self.models["student"].figures))


def _size(request: Request) -> ResultSize:
    size = request.query_params.get("size", "restored")
    if not fits(size, ResultSize):
        raise UserError(f"size is {size[:40]!r}: give {words(ResultSize)}.")
    return cast(ResultSize, size)


async def _upload(request: Request) -> bytes:
    """The body, as far as it is allowed."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise HTTPException(
                413, f"The file has more than {MOST_BYTES // 2**20} MiB, which is the most here: shrink it."
            )
    return bytes(content)


async def _sentence(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return PlainTextResponse(error.detail, error.status_code)
    return PlainTextResponse(str(error), 400)
