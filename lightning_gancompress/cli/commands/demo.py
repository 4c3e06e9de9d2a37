"""The command `demo`."""

from __future__ import annotations

from lightning_gancompress.demo import serve
from lightning_gancompress.options import PortOrAny, checked


@checked
def demo(
    model: str,
    teacher: str | None = None,
    samples: str | None = None,
    host: str = "127.0.0.1",
    port: PortOrAny = 8000,
) -> None:
    """Serve a page on which a compressed generator and its teacher translate pictures side by side.

    Needs the packages starlette and uvicorn.

    Args:
        model: The small model: `generator.safetensors` of a run, or any other file that `predict --model`
            takes, such as an ONNX file of `export`.
        teacher: The generator that it was made of, to compare with; leave it out to see the small one alone.
        samples: Folder of pictures to choose from.
        host: Address at which the page is served; others than the default let other machines use it.
        port: Port at which the page is served; 0 for any free one.
    """
    serve(model, teacher, samples, host, port)
