"""Broken and hostile .npz files: each is read right, or refused in one line."""

import io
import os
import struct
import warnings
import zipfile

import numpy as np
import pytest
from marks import slow_but

from jaxinit.cli import main
from jaxinit.lab._tried import _archive as archive
from jaxinit.lab._tried.data import load

GENERATOR = np.random.default_rng(0)
Y = np.arange(40) % 3
X = GENERATOR.normal(size=(40, 3)) + Y[:, None]
KINDS = ["bit", "bits", "cut", "page", "doubled", "removed", "header", "number"]


def packed(save):
    file = io.BytesIO()
    save(file, x=X, y=Y)
    return file.getvalue()


SAVED = [packed(np.savez), packed(np.savez_compressed)]


def npy(array, change=lambda data: data):
    file = io.BytesIO()
    np.save(file, array)
    return change(file.getvalue())


def zipped(method=zipfile.ZIP_STORED, **members):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(file, "w", method) as found:
            for name, data in members.items():
                found.writestr(name.replace("_", "."), data)
    return file.getvalue()


def header(text, version=1):
    """The beginning of an array that says this of itself."""
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text


def damaged(kind, generator):
    """A file with one damage of a kind, and whether what is read must be the old."""
    data = bytearray(SAVED[generator.integers(2)])
    place = int(generator.integers(len(data)))
    if kind in ("bit", "bits"):
        for _ in range(1 if kind == "bit" else 9):
            data[int(generator.integers(len(data)))] ^= 1 << generator.integers(8)
    elif kind == "cut":
        del data[place:]
    elif kind == "page":
        data[place : place + 64] = bytes(len(data[place : place + 64]))
    elif kind == "doubled":
        data[place:place] = data[place : place + 40]
    elif kind == "removed":
        del data[place : place + int(generator.integers(1, 40))]
    elif kind == "header":  # with a checksum that fits
        array = bytearray(npy(X))
        for _ in range(generator.integers(1, 4)):
            array[int(generator.integers(128))] = generator.integers(256)
        return zipped(x_npy=bytes(array), y_npy=npy(Y)), False
    else:  # sizes, offsets and counts of the directory at the end
        first = data.rindex(b"PK\x01\x02")
        place = first + int(generator.integers(len(data) - first - 4))
        data[place : place + 4] = generator.choice([b"\xff" * 4, b"\0\0\0\x7f"])
    return bytes(data), True


def assert_read_right_or_refused(path, must_be_old=True):
    """Returns whether the file was read."""
    try:
        x, y = archive.read(path, "x", "y")
        if must_be_old:
            np.testing.assert_array_equal(x, X)
            np.testing.assert_array_equal(y, Y)
        load(path)
    except (archive.check.Unfit, ValueError) as error:
        assert isinstance(error, archive.check.Unfit) or str(error).startswith(
            "compare(data="
        )
        assert "\n" not in str(error) and len(str(error)) < 600
        return False
    return True


def sweep(path, kind, times):
    generator = np.random.default_rng(KINDS.index(kind))
    read = 0
    for _ in range(times):
        content, must_be_old = damaged(kind, generator)
        path.write_bytes(content)
        read += assert_read_right_or_refused(path, must_be_old)
    assert read < times  # some damage is seen


@pytest.mark.parametrize("times", slow_but([7], [7, 100]))
@pytest.mark.parametrize("kind", KINDS)
def test_damage(tmp_path, kind, times):
    sweep(tmp_path / "data.npz", kind, times)


def test_files_that_are_whole_are_read(tmp_path):
    path = tmp_path / "data.npz"
    for content in SAVED:
        path.write_bytes(content)
        assert assert_read_right_or_refused(path)
    path.write_bytes(zipped(x_npy=npy(np.asfortranarray(X)), y=npy(Y)))
    assert assert_read_right_or_refused(path)
    path.write_bytes(zipped(x_npy=npy(X.astype(">f8")), y_npy=npy(Y), other=b"text"))
    assert assert_read_right_or_refused(path)


HUGE = header(b"{'descr':'<f8','fortran_order':False,'shape':(10000000,10000000)}\n")
OBJECT = header(b"{'descr':'|O','fortran_order':False,'shape':(40,)}\n") + b"cos\n"
RECORD = npy(np.zeros(40, [("a", "f8"), ("b", "i4")]))
UTF8 = header(b"{'descr':'<f8','fortran_order':False,'shape':(40,3)}\n", 3)


def encrypted():
    data = bytearray(SAVED[0])
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(magic)
        while start >= 0:
            data[start + place] |= 1
            start = data.find(magic, start + 4)
    return bytes(data)


FILES = {
    "huge": (zipped(x_npy=HUGE, y_npy=npy(Y)), "x has 100000000000000 entries, 7.45e+"),
    "long": (
        zipped(x_npy=npy(X) + b"more", y_npy=npy(Y)),
        "bytes long, and 1088 by",
    ),
    "short": (
        zipped(x_npy=npy(X)[:-8], y_npy=npy(Y)),
        "x is 1080 bytes long, and 108",
    ),
    "object": (zipped(x_npy=OBJECT, y_npy=npy(Y)), "x holds objects of Python. Unpick"),
    "record": (
        zipped(x_npy=RECORD, y_npy=npy(Y)),
        "x must hold real numbers, not [",
    ),
    "utf8": (zipped(x_npy=UTF8, y_npy=npy(Y)), "must hold numbers or strings, and not"),
    "version": (zipped(x_npy=b"\x93NUMPY\x09\0", y_npy=npy(Y)), "numbers or strings"),
    "encrypted": (encrypted(), "x is encrypted, or packed by a method that NumPy does"),
    "bzip2": (
        zipped(zipfile.ZIP_BZIP2, x_npy=npy(X), y_npy=npy(Y)),
        "x is encrypted, or packed by a method that NumPy does not use. Write the file",
    ),
    "lzma": (
        zipped(zipfile.ZIP_LZMA, x_npy=npy(X), y_npy=npy(Y)),
        "NumPy does not use",
    ),
    "twice": (zipped(x_npy=npy(X), x=npy(X), y=npy(Y)), "the file has x 2 times."),
    "names": (zipped(**{f"a{i}": b"" for i in range(99)}), "it has a0, a1, a2, a3, a4"),
    "line": (zipped(**{"a\nb": b""}), r"the file lacks x and y; it has 'a\nb'."),
    "keys": (zipped(X_npy=npy(X), Y_npy=npy(Y)), "lacks x and y; it has X, Y."),
    "lengths": (
        zipped(x=npy(X), y=npy(Y[1:])),
        "for each of the 40 rows of x",
    ),
    "no rows": (zipped(x=npy(X[:0]), y=npy(Y[:0])), "8 rows or more, not shape (0, 3)"),
    "no columns": (zipped(x=npy(X[:, :0]), y=npy(Y)), "not shape (40, 0)"),
    "empty": (b"", "no .npz file. Write it by np.savez(path, x=x, y=y)."),
    "zip": (b"PK\x05\x06" + bytes(18), "the file lacks x and y; it has nothing."),
    "pickle": (b"\x80\x04cos\nsystem\n.", "refused: the file is pickled, or no .npz f"),
    "array": (npy(X), "the file holds one array."),
    "text": (b"x,y\n1,2\n", "no .npz file at all."),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_none(tmp_path, capsys, name):
    content, rule = FILES[name]
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    assert_refused(path, capsys, rule)


def assert_refused(path, capsys, rule):
    assert main(["compare", "--data", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("jaxinit: compare(data=") and rule in said.err


@pytest.mark.parametrize("suffix", ["npz", "txt"])
def test_what_has_no_end_is_not_opened(tmp_path, capsys, suffix):
    pipe = tmp_path / f"pipe.{suffix}"
    os.mkfifo(pipe)
    rule = "cannot read the file: it is a pipe or a device, and no file."
    assert_refused(pipe, capsys, rule)
    endless = tmp_path / f"zero.{suffix}"
    endless.symlink_to("/dev/zero")
    assert_refused(endless, capsys, rule)
    folder = tmp_path / f"folder.{suffix}"
    folder.mkdir()
    assert_refused(folder, capsys, "cannot read the file: Is a directory.")


def test_an_array_is_measured_before_it_is_unpacked(tmp_path, monkeypatch):
    """A thousand zeros pack into a few bytes, and a thousand millions do, too."""
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.zeros((100, 10)), y=np.zeros(100))
    monkeypatch.setattr(archive, "MOST", 999)
    monkeypatch.setattr(zipfile.ZipExtFile, "read1", None)
    rule = r"x has 1000 entries, 7.45e-06 GiB; compare takes 999 entries at most\."
    with pytest.raises(ValueError, match=rule):
        load(path)
    monkeypatch.setattr("jaxinit.lab._tried.tasks.MOST", 999)
    words = tmp_path / "words.txt"
    words.write_text("ab" * 500)
    with pytest.raises(ValueError, match="it has more than 999 characters"):
        from jaxinit.lab._tried.tasks import text

        text(words)
