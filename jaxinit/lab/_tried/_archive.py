"""Reads arrays from users' .npz files, checking what a file claims before unpacking."""

import math
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxinit import _check as check
from jaxinit.lab._atomic import open_file

MOST = 2**28  # entries of an array: 2 GiB in float64, which data are standardized in
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that NumPy uses
_ENCRYPTED = 1  # a flag of a member
_SAVE = "np.savez(path, x=x, y=y)."
_SHOWN = 8  # names of arrays in a message


class _Refused(Exception):
    """The file cannot be used; the message says why, and what to do."""


def read(path: str | Path, *names: str) -> list[np.ndarray]:
    """Reads arrays from an .npz file.

    Args:
      path: the file; pipes and devices, which may never end, are refused.
      *names: the names of the arrays.

    Raises:
      Unfit: if the file cannot be read, is not an .npz file, is broken, or lacks an
        array.
    """
    try:
        with open_file(path) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers with odd literals
            return _read_arrays(stream, names)
    except OSError as error:
        rule = f"cannot read the file: {error.strerror or error}."
    except _Refused as error:
        rule = str(error)
    raise check.Unfit(rule, data=str(path))


def _read_arrays(stream: BinaryIO, names: tuple[str, ...]) -> list[np.ndarray]:
    try:
        archive = zipfile.ZipFile(stream)
    except Exception:  # a broken list of members raises many kinds
        raise _Refused(_describe_other(stream)) from None
    with archive:
        members: dict[str, list[zipfile.ZipInfo]] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            members.setdefault(name, []).append(member)
        missing = [name for name in names if name not in members]
        if missing:
            shown = [n if n.isprintable() else repr(n) for n in members][:_SHOWN]
            dots = ", ..." if len(members) > _SHOWN else "."
            rule = f"the file lacks {' and '.join(missing)}; it has "
            raise _Refused(rule + (", ".join(shown) or "nothing") + dots)
        try:
            return [_read_array(archive, name, members[name]) for name in names]
        except _Refused:
            raise
        except Exception as error:  # as many kinds as there are kinds of damage
            rule = f"broken .npz file ({check.brief(error)})."
            raise _Refused(rule) from None


def _describe_other(stream: BinaryIO) -> str:
    """Says what a file is if it is not an archive."""
    stream.seek(0)
    first = stream.read(6)
    if first == b"\x93NUMPY":
        return f"the file holds one array. Write it by {_SAVE}"
    if not first or first.startswith(b"PK"):
        return f"no .npz file. Write it by {_SAVE}"
    rule = (
        "refused: the file is pickled, or no .npz file at all. Unpickling runs code: "
    )
    return f"{rule}save plain arrays by {_SAVE}"


def _read_array(
    archive: zipfile.ZipFile, name: str, members: list[zipfile.ZipInfo]
) -> np.ndarray:
    """Reads one array, after checking that its header and the archive agree."""
    if len(members) > 1:
        raise _Refused(f"the file has {name} {len(members)} times.")
    (member,) = members
    if member.compress_type not in _METHODS or member.flag_bits & _ENCRYPTED:
        rule = f"{name} is encrypted, or packed by a method that NumPy does not use. "
        raise _Refused(f"{rule}Write the file by {_SAVE}")
    with archive.open(member) as stream:
        shape, by_column, dtype = _read_header(stream)
        if dtype.hasobject:
            rule = f"refused: the file is pickled, as {name} holds objects of Python. "
            rule += f"Unpickling runs code: save plain arrays by {_SAVE}"
            raise _Refused(rule)
        entries = math.prod(shape)
        size = entries * dtype.itemsize
        if max(entries, size // 8) > MOST:
            rule = f"{name} has {entries} entries, {size / 2**30:.3g} GiB; compare "
            raise _Refused(f"{rule}takes {MOST} entries at most.")
        if stream.tell() + size != member.file_size:
            rule = f"broken .npz file ({name} is {member.file_size} bytes long, and "
            raise _Refused(f"{rule}{stream.tell() + size} by its header).")
        data = stream.read()  # to the end, where the checksum is compared
    return np.ndarray(shape, dtype, data, order="F" if by_column else "C")


def _read_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads the header of an array: shape, whether by column, and dtype."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise _Refused("x and y must hold numbers or strings, and not records.")
