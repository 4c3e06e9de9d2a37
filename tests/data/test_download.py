"""Fetching of data sets from a server of this test."""

import errno
import hashlib
import io
import os
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lightning_gancompress.cli import main
from lightning_gancompress.data import download
from lightning_gancompress.data.download import download_set
from lightning_gancompress.data.known_sets import SETS
from lightning_gancompress.errors import UserError


def tar(members, mode="w:gz"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:  # a kind, and where a link leads
                info.type, info.linkname = content
                archive.addfile(info)
    return file.getvalue()


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


FILES = {f"set/train/{n}.png": bytes([n]) * 20_000 + os.urandom(100) for n in range(9)}
GOOD = tar(FILES)


class Server:
    """A server of one file, with faults by choice; notes what was asked."""

    def __init__(self, content):
        self.content, self.ranges, self.breaks, self.status, self.asked = content, True, [], 200, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                outer.asked.append(asked)
                if outer.status != 200:
                    self.send_error(outer.status)
                    return
                start = int(asked[6:-1]) if asked and outer.ranges else 0
                if start and start >= len(outer.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(outer.content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if start and self.headers.get("If-Range") not in (None, outer.tag):
                    start = 0
                body = outer.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", outer.tag)
                self.end_headers()
                self.wfile.write(body[: outer.breaks.pop(0)] if outer.breaks else body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def tag(self):
        return f'"{hashlib.sha256(self.content).hexdigest()[:8]}"'

    def url(self, name="set.tar.gz"):
        return f"http://127.0.0.1:{self.server.server_port}/{name}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    made = Server(GOOD)
    yield made
    made.server.shutdown()
    made.server.server_close()


def fetched(server, folder, name="set.tar.gz", sha256=None):
    said = []
    download_set(
        "mine", folder / "mine", server.url(name), sha256, lambda text, fleeting=False: said.append(text)
    )
    return said


def holds(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["mine"]  # and no archive, draft or tag
    return {f"set/{p.relative_to(folder / 'mine')}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
def test_a_set_is_unpacked_and_its_digest_told(server, tmp_path, kind):
    server.content = {"tar.gz": GOOD, "tar": tar(FILES, "w"), "zip": zipped(FILES)}[kind]
    digest = hashlib.sha256(server.content).hexdigest()
    said = fetched(server, tmp_path, f"set.{kind}")
    assert holds(tmp_path) == FILES
    assert any(digest in line and "no digest of this archive is published" in line for line in said)
    assert any("Licence" in line for line in said)
    (tmp_path / "again").mkdir()
    assert any("as it must be" in line for line in fetched(server, tmp_path / "again", f"set.{kind}", digest))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_goes_on(server, tmp_path, ranges):
    server.ranges, server.breaks = ranges, [len(GOOD) // 3, len(GOOD) // 3]
    fetched(server, tmp_path)
    assert holds(tmp_path) == FILES
    assert server.asked[0] is None
    assert server.asked[1] == f"bytes={len(GOOD) // 3}-"


def test_a_stopped_download_goes_on_with_the_next_command(server, tmp_path):
    server.breaks = [len(GOOD) // 5] * download.TRIES
    with pytest.raises(UserError, match=r"broke after \d+ of \d+ bytes.* goes on where this one stopped"):
        fetched(server, tmp_path)
    part = tmp_path / "mine.tar.gz.part"
    assert part.read_bytes() == GOOD[: part.stat().st_size]
    part.write_bytes(GOOD)  # all but the unpacking is done
    fetched(server, tmp_path)
    assert holds(tmp_path) == FILES


def test_a_file_that_has_changed_is_fetched_anew(server, tmp_path):
    server.breaks = [len(GOOD) // 5] * download.TRIES
    with pytest.raises(UserError):
        fetched(server, tmp_path)
    other = {name: content[::-1] for name, content in FILES.items()}
    server.content = tar(other)
    fetched(server, tmp_path)
    assert holds(tmp_path) == other


def test_a_wrong_digest(server, tmp_path):
    with pytest.raises(UserError, match=r"has the SHA-256 \w{64}, not 00.*removed"):
        fetched(server, tmp_path, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [404, 403, 503])
def test_a_server_that_refuses(server, tmp_path, status):
    server.status = status
    with pytest.raises(UserError, match=rf"can't be fetched \({status} .*give a mirror as --url"):
        fetched(server, tmp_path)
    assert len(server.asked) == (download.TRIES if status == 503 else 1)
    assert list(tmp_path.iterdir()) == []


HOSTILE = {
    "../outside": b"x",
    "/tmp/outside": b"x",
    "set/../../outside": b"x",
    "..\\outside": b"x",
    "link": (tarfile.SYMTYPE, "/etc/passwd"),
    "hard": (tarfile.LNKTYPE, "set/train/0.png"),
    "device": (tarfile.CHRTYPE, ""),
    "pipe": (tarfile.FIFOTYPE, ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members(server, tmp_path, name):
    server.content = tar({"set/train/0.png": b"good", name: HOSTILE[name]})
    with pytest.raises(UserError, match=r"lies outside of it|is no plain file"):
        fetched(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"no archive", GOOD[:-9000], tar({}), tar({"a": b"x", "./a": b"y"})],
    ids=["none", "cut short", "empty", "a name twice"],  # gzip has the time in it
)
def test_damaged_archives(server, tmp_path, content):
    server.content = content
    with pytest.raises(UserError, match=r"is damaged|holds no files"):
        fetched(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_a_zip(server, tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    server.content = file.getvalue()
    with pytest.raises(UserError, match="no plain file"):
        fetched(server, tmp_path, "set.zip")


def test_a_disk_that_fills_up_is_no_broken_connection(server, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_copy", full)
    with pytest.raises(UserError, match=r"part can't be written \(No space left on device\): mend that, or"):
        fetched(server, tmp_path)


def test_a_disk_that_is_too_small(server, tmp_path, monkeypatch):
    room = download.ROOM
    monkeypatch.setattr(download, "ROOM", 2**60)
    with pytest.raises(UserError, match=r"GB free, but .* more are needed"):
        fetched(server, tmp_path)
    part = tmp_path / "mine.tar.gz.part"
    part.write_bytes(GOOD)
    with pytest.raises(UserError, match=r"GB free, but .* more are needed"):
        fetched(server, tmp_path)
    assert part.exists()  # it is not fetched again
    monkeypatch.setattr(download, "ROOM", room)
    fetched(server, tmp_path)
    assert holds(tmp_path) == FILES


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nothing"], "is no known data set: give one of facades, maps"),
        (["cityscapes"], "register at https://www.cityscapes-dataset.com"),
        (["mine", "--url=ftp://host/a.zip"], "no http or https address"),
        (["mine", "--url=http://host/a.rar"], "no http or https address"),
    ],
)
def test_names_and_addresses_that_are_none(tmp_path, capsys, options, words):
    with pytest.raises(SystemExit) as stop:
        main(["data", "download", *options, f"--output={tmp_path / 'x'}"])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_the_command_line(server, tmp_path, capsys):
    main(["data", "download"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in SETS)
    main(["data", "download", "mine", f"--url={server.url()}", f"--output={tmp_path / 'mine'}"])
    assert "Unpacked 9 files" in capsys.readouterr().out
    assert holds(tmp_path) == FILES
    with pytest.raises(SystemExit):
        main(["data", "download", "mine", f"--url={server.url()}", f"--output={tmp_path / 'mine'}"])
    assert "is there already" in capsys.readouterr().err


def test_options_of_a_set_need_its_name(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "download", "--url=http://127.0.0.1/a.zip"])
    assert stop.value.code == 2
    assert "url is for one set: give its name too" in capsys.readouterr().err


def test_digests_are_whole():
    assert {len(known.sha256) for known in SETS.values()} == {0, 64}
