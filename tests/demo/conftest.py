"""A demo that is being served."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from demo_site import Site, picture, small_model

from lightning_gancompress.demo.server import listen


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    uvicorn = pytest.importorskip("uvicorn")
    from lightning_gancompress.demo.app import Demo
    from lightning_gancompress.demo.models import DemoModel

    folder = tmp_path_factory.mktemp("demo")
    student, teacher = small_model(folder / "small.pth", 2), small_model(folder / "teacher.pth", 8)
    samples = [folder / "first.png", folder / "<b>second.png", folder / "broken.png"]
    for path in samples[:2]:
        picture().save(path)
    samples[2].write_bytes(samples[0].read_bytes()[:200])
    demo = Demo([DemoModel("student", student), DemoModel("teacher", teacher)], samples)
    with listen("127.0.0.1", 0) as listening:
        config = uvicorn.Config(demo.app("127.0.0.1"), log_level="warning", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Site(listening.getsockname()[1], student, teacher)
        server.should_exit = True
        thread.join()
