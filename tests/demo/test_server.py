import socket
import subprocess
import sys

import pytest
import tiny
from demo_site import picture, small_model

from lightning_gancompress import UserError
from lightning_gancompress.cli import main
from lightning_gancompress.demo import serve
from lightning_gancompress.demo.server import address, listen

uvicorn = pytest.importorskip("uvicorn")


@pytest.fixture
def model(tmp_path):
    return small_model(tmp_path / "small.pth", 2)


@pytest.fixture
def at_once(monkeypatch):
    """Ends a server as it begins, by Ctrl-C."""

    def run(self, sockets):
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)


def test_the_demo_loads_no_lightning(model):
    code = "import sys, uvicorn; uvicorn.Server.run = lambda *_, **__: None; "
    code += f"from lightning_gancompress.demo import serve; serve({str(model)!r}, port=0); "
    code += "sys.exit(bool({'lightning', 'torchmetrics', 'matplotlib'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, "The demo is at http://127.0.0.1:" in done.stdout) == (0, True), done.stderr


def test_the_command_serves_this_machine_alone_unless_told_otherwise(model, capsys, at_once):
    main(["demo", f"--model={model}", "--port=0"])
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("The demo is at http://127.0.0.1:")
    assert "password" not in said
    main(["demo", f"--model={model}", "--port=0", "--host=0.0.0.0"])
    said = capsys.readouterr().out
    assert said.startswith("The demo is at http://localhost:")
    assert "It answers whoever reaches 0.0.0.0, without a password" in said


def test_samples_are_a_folder_of_pictures(model, tmp_path, at_once, capsys):
    (tmp_path / "photos").mkdir()
    words = ["demo", f"--model={model}", "--port=0", f"--samples={tmp_path / 'photos'}"]
    code, said = tiny.fail_code(capsys, words)
    assert (code, "No pictures to translate" in said) == (2, True)
    picture().save(tmp_path / "photos" / "a.png")
    main(words)


def test_a_busy_port_is_told_before_a_model_is_loaded(capsys):
    with listen("127.0.0.1", 0) as busy:
        port = busy.getsockname()[1]
        code, said = tiny.fail_code(capsys, ["demo", "--model=nothing.pth", f"--port={port}"])
    expected = f"error: port {port} of 127.0.0.1 can't be had (Address already in use): give --port another "
    assert (code, said) == (2, f"{expected}number, or 0 for any free one.\n")


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("no-such-host.invalid", "host no-such-host.invalid is no name or address that is known here"),
        ("192.0.2.1", "port 8000 of 192.0.2.1 can't be had"),
    ],
)
def test_a_host_of_another_machine_is_refused(host, words):
    with pytest.raises(UserError, match=words):
        listen(host, 8000)


def test_the_port_is_closed_when_a_model_cannot_be_opened(tmp_path):
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="nothing"):
        serve(tmp_path / "nothing.onnx", port=port)
    listen("127.0.0.1", port).close()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs starlette and uvicorn: run `pip install starlette uvicorn`"):
        serve("small.onnx")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_an_address_of_version_6_is_written_in_brackets():
    try:
        listening = listen("::1", 0)
    except UserError as error:
        pytest.skip(str(error))
    with listening:
        assert address(listening) == f"http://[::1]:{listening.getsockname()[1]}/"
