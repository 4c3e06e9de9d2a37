"""Fetching and unpacking of data sets: what is interrupted goes on, and nothing half-done looks whole."""

from __future__ import annotations

import errno
import hashlib
import http.client
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from lightning_gancompress.data.known_sets import BY_HAND, SETS, KnownSet
from lightning_gancompress.errors import UserError, first_line
from lightning_gancompress.files import discard, draft_of, require_writable

CHUNK = 2**18  # bytes
SECONDS = 60.0  # without a byte
TRIES = 4  # of a connection that breaks, each going on where the last one stopped
ROOM = 2**26  # bytes that stay free
_ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")

Say = Callable[..., None]  # a line of text; `fleeting` ones replace each other


# of writing: urllib's own errors of a connection have no number
_DISK = {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS}


class NoRoom(UserError):
    """The disk is too small, or can't be written to."""


def download_set(name: str, output: Path, url: str | None, sha256: str | None, say: Say) -> None:
    """Fetch and unpack a data set.

    Args:
        name: A known name, or any with `url`.
        output: Folder to make.
        url: Address in place of the known one.
        sha256: Digest that the archive must have; None is the known one, if there is one.
        say: Tells the user.

    Raises:
        UserError: The set is not known, or can't be fetched, checked or unpacked.
    """
    known = _named(name, url)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"output {output} is there already: remove it, or choose another folder.")
    ending = next((end for end in _ENDINGS if urlsplit(known.url).path.lower().endswith(end)), None)
    if ending is None or urlsplit(known.url).scheme not in ("http", "https"):
        raise UserError(
            f"url {known.url} is no http or https address of a {', '.join(_ENDINGS)} file: give one."
        )
    require_writable(output.parent, "output")
    say(f"{name}: {known.what}. From {known.url}. Licence: {known.licence}.")
    archive = output.with_name(f"{output.name}{ending}.part")
    fetch(known.url, archive, say)
    wanted, found = (sha256 or known.sha256).lower(), _digest(archive)
    if wanted and found != wanted:
        archive.unlink()
        raise UserError(
            f"{known.url} has the SHA-256 {found}, not {wanted}: it is damaged or another file, and was "
            "removed; try again, or give sha256 if you trust it."
        )
    say(f"SHA-256 {found}{', as it must be' if wanted else ': no digest of this archive is published'}.")
    count = unpack(archive, output, ending == ".zip", say)
    archive.unlink()
    say(f"Unpacked {count} files to {output}. Look at them: gancompress data check {output}")


def _named(name: str, url: str | None) -> KnownSet:
    if url is not None:
        licence = SETS[name].licence if name in SETS else "ask whoever gave you the address"
        sha256 = SETS[name].sha256 if name in SETS else ""
        return KnownSet(name, "from a mirror", url, licence, sha256)
    if name in BY_HAND:
        raise UserError(BY_HAND[name])
    if name not in SETS:
        raise UserError(f"name {name} is no known data set: give one of {', '.join(SETS)}, or --url.")
    return SETS[name]


# -- fetching ------------------------------------------------------------------------------------------------


def fetch(url: str, path: Path, say: Say) -> None:
    """Fetch a file, from where an earlier attempt has stopped if the server can.

    Args:
        url: Its address.
        path: File to write; what is there is the beginning of it.
        say: Tells the progress.

    Raises:
        UserError: The server refuses, the connection breaks again and again, or the disk is too small.
    """
    for left in reversed(range(TRIES)):
        try:
            _go_on(url, path, say)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 or not left:
                raise UserError(
                    f"{url} can't be fetched ({error.code} {error.reason}): look whether the address is "
                    "right, or give a mirror as --url."
                ) from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise NoRoom(
                    f"{path} can't be written ({error.strerror}): mend that, or choose another output; the "
                    "same command goes on where this one stopped."
                ) from error
            if not left:
                raise UserError(
                    f"{url} can't be fetched ({first_line(error)}): look whether this machine reaches it, or "
                    "give a mirror as --url; the same command goes on where this one stopped."
                ) from error
        time.sleep(0.1 * 4 ** (TRIES - 1 - left))


def _go_on(url: str, path: Path, say: Say) -> None:
    """Fetch what is missing of a file."""
    start = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "gancompress"})
    tag = path.with_name(f"{path.name}.tag")
    if start:
        request.add_header("Range", f"bytes={start}-")
        if tag.exists():  # a file that has changed is sent whole
            request.add_header("If-Range", tag.read_text())
    try:
        answer = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range", "").endswith(f"/{start}"):
            tag.unlink(missing_ok=True)
            return  # all is there
        if error.code == 416:
            path.unlink()  # more than there is: of another file
            raise ConnectionError("the server's file is shorter than what was fetched") from error
        raise
    with answer:
        if answer.status != 206:
            start = 0
        size = answer.headers.get("Content-Length")
        total = start + int(size) if size and size.isdigit() else None
        _require_room(path.parent, (total or 0) - start)
        if (mark := answer.headers.get("ETag")) and not mark.startswith("W/"):
            tag.write_text(mark)
        else:
            tag.unlink(missing_ok=True)
        with path.open("r+b" if start else "wb") as file:
            file.seek(start)
            _copy(answer, file, start, total, say)
        if total is not None and path.stat().st_size < total:
            raise ConnectionError(f"the connection broke after {path.stat().st_size} of {total} bytes")
    tag.unlink(missing_ok=True)


def _copy(answer: IO[bytes], file: IO[bytes], start: int, total: int | None, say: Say) -> None:
    done, began, spoke = start, time.monotonic(), 0.0
    while chunk := answer.read(CHUNK):
        file.write(chunk)
        done += len(chunk)
        if (now := time.monotonic()) - spoke > 0.5:
            spoke, rate = now, (done - start) / max(now - began, 1e-3)
            of = f" of {total / 1e6:.1f}, {(total - done) / rate:.0f} s left" if total else ""
            say(f"{done / 1e6:.1f} MB{of}, {rate / 1e6:.1f} MB a second", fleeting=True)


def _require_room(folder: Path, more: int) -> None:
    free = shutil.disk_usage(folder).free
    if more + ROOM > free:
        raise NoRoom(
            f"{folder} has {free / 1e9:.1f} GB free, but {more / 1e9:.1f} GB more are needed: free some "
            "space, or choose another output."
        )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


# -- unpacking -----------------------------------------------------------------------------------------------

Member = tuple[str, int, Callable[[], IO[bytes]]]  # name, bytes, and what opens it


def unpack(archive: Path, output: Path, zipped: bool, say: Say) -> int:
    """Unpack an archive of plain files; nothing is left if that fails.

    Args:
        archive: The archive.
        output: Folder to make; the one folder in which all files lie in the archive is left out.
        zipped: Whether it is a zip file, else a tar file, maybe compressed.
        say: Tells the progress.

    Returns:
        Number of files.

    Raises:
        UserError: The archive is damaged, holds links or devices, or names places outside of it, or the disk
            is too small.
    """
    draft = draft_of(output)
    discard(draft)
    count, spoke = 0, 0.0
    try:
        with _opened(archive, zipped) as members:
            for name, size, opened in members:
                _require_room(output.parent, size)
                target = draft / _safe(name, archive)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened() as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
                count += 1
                if (now := time.monotonic()) - spoke > 0.5:
                    spoke = now
                    say(f"unpacking: {count} files", fleeting=True)
        if not count:
            raise UserError(f"{archive} holds no files: fetch it again, or give a mirror as --url.")
        inside = list(draft.iterdir())
        whole = inside[0] if len(inside) == 1 and inside[0].is_dir() and _holds_folders(inside[0]) else draft
        if output.is_dir():
            output.rmdir()  # it is empty
        whole.rename(output)
    except NoRoom:
        raise  # the archive stays: the same command unpacks it when there is room
    except UserError:
        archive.unlink(missing_ok=True)
        raise
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno and not isinstance(error, FileExistsError):
            raise
        archive.unlink(missing_ok=True)
        raise UserError(
            f"The archive of {output} is damaged ({first_line(error)}), and was removed: fetch it again."
        ) from error
    finally:
        discard(draft)
    return count


def _holds_folders(folder: Path) -> bool:
    """Whether a folder is that of the set, whose splits are folders, not a split itself."""
    return any(path.is_dir() for path in folder.iterdir())


@contextmanager
def _opened(archive: Path, zipped: bool) -> Iterator[Iterator[Member]]:
    if zipped:
        with zipfile.ZipFile(archive) as file:
            yield _zip_members(file)
    else:
        with tarfile.open(archive) as tar:
            yield _tar_members(tar)


def _zip_members(file: zipfile.ZipFile) -> Iterator[Member]:
    for info in file.infolist():
        kind = info.external_attr >> 28  # of Unix: 4 is a folder, 8 a file
        if kind not in (0, 4, 8):
            raise _refused(file.filename or "", info.filename)
        if not info.is_dir():
            yield info.filename, info.file_size, partial(file.open, info)


def _tar_members(tar: tarfile.TarFile) -> Iterator[Member]:
    for member in tar:
        if not member.isdir() and not member.isfile():
            raise _refused(str(tar.name), member.name)
        if member.isfile():
            yield member.name, member.size, partial(_member, tar, member)


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(member)
    assert source is not None  # it is a plain file
    return source


def _refused(archive: str, name: str) -> UserError:
    return UserError(
        f"{archive} holds {name!r}, which is no plain file and could reach outside: it was removed; give a "
        "mirror as --url."
    )


def _safe(name: str, archive: Path) -> Path:
    """The path of a member within the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name or not path.parts:
        raise UserError(
            f"{archive} holds {name!r}, which lies outside of it: it was removed; give a mirror as --url."
        )
    return Path(*path.parts)
