"""Keeps compiled programs in the user's cache folder: the next command starts at once.

They are kept by JAX's own persistent cache, which believes what it reads. So each entry
has its digest beside it, and what was damaged, left half written or made elsewhere is
removed before JAX looks. One command at a time uses the folder.
"""

import contextlib
import hashlib
import importlib
import os
import platform
import shutil
import stat
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jaxinit._lock import Lock

_MOST = 2**29  # bytes of all entries; the ones written first go first
_ZSTANDARD = b"\x28\xb5\x2f\xfd"  # with which its data begin
_DIGEST, _ORIGIN = ".sha256", "origin"


def find_folder() -> Path:
    """Returns the folder of programs, in XDG_CACHE_HOME or else in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return home / "jaxinit" / "programs"


@contextlib.contextmanager
def keep_programs() -> Iterator[None]:
    """Lets JAX read and write compiled programs in the user's cache folder.

    Nothing is kept if JAX has a cache already, or is told to have none; if the folder
    cannot be written, belongs to somebody else, or is used by another command.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        yield
        return
    lock = None
    try:
        folder = find_folder()
        str(folder).encode()  # as JAX needs it
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder):
            raise PermissionError
        lock = Lock(folder)
        _remove_unsound(folder)
    except (OSError, RuntimeError, UnicodeError):  # no home, right, space or text
        if lock is not None:
            lock.close()
        yield
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _vouch(folder)
        lock.close()


def _is_private(folder: Path) -> bool:
    """Returns whether only this user can write to a folder: programs are run."""
    if not hasattr(os, "getuid"):
        return True
    found = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return found.st_uid == os.getuid() and not found.st_mode & others


def _remove_unsound(folder: Path) -> None:
    """Removes all entries of another machine or JAX, and those without their digest."""
    origin, entries = folder / _ORIGIN, _list_entries(folder)
    mine = origin.is_file() and origin.read_text(errors="replace") == _describe_here()
    for entry in entries:
        told = entry.with_name(entry.name + _DIGEST)
        files = entry.is_file() and told.is_file()
        if not (mine and files and told.read_bytes() == _digest(entry.read_bytes())):
            _remove(entry)
    if not mine:
        _erase(origin)
        origin.write_text(_describe_here())
    left = [(entry.stat(), entry) for entry in entries if entry.exists()]
    total = sum(found.st_size for found, _ in left)
    for found, entry in sorted(left, key=lambda each: each[0].st_mtime):
        if total <= _MOST:
            break
        total -= found.st_size
        _remove(entry)


def _vouch(folder: Path) -> None:
    """Writes the digests of new entries that are whole."""
    for entry in _list_entries(folder):
        told = entry.with_name(entry.name + _DIGEST)
        if (
            entry.is_file()
            and not told.exists()
            and _is_whole(data := entry.read_bytes())
        ):
            told.write_bytes(_digest(data))


def _is_whole(data: bytes) -> bool:
    """Returns whether a compressed entry was written to its end."""
    if data[:4] == _ZSTANDARD:  # JAX takes this instead of zlib where it is installed
        with contextlib.suppress(Exception):
            return bool(importlib.import_module("zstandard").decompress(data))
        return False
    reader = zlib.decompressobj()
    try:
        reader.decompress(data)
    except zlib.error:
        return False
    return reader.eof


def _list_entries(folder: Path) -> list[Path]:
    """Lists all but digests and origin, whatever it is."""
    names = (path for path in folder.iterdir() if path.name != _ORIGIN)
    return [path for path in names if path.suffix != _DIGEST]


def _remove(entry: Path) -> None:
    _erase(entry)
    _erase(entry.with_name(entry.name + _DIGEST))


def _erase(path: Path) -> None:
    """Removes a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _describe_here() -> str:
    """Describes what makes the entries: JAX, and the machine with its instructions."""
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith("flags")), "")
    versions = (metadata.version(name) for name in ("jax", "jaxlib", "jaxinit"))
    kinds = *versions, platform.machine(), platform.processor()
    return "\n".join((*kinds, flags))
