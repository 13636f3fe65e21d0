"""Tasks by name; none needs a network connection."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxinit import _check as check
from jaxinit.lab._atomic import open_file
from jaxinit.lab._tried._archive import MOST
from jaxinit.lab._tried.data import TEST_SHARE, Task, digits, entropy, load, make_task

_COARSE = 8  # one pixel of the photograph in this many is kept, in each direction
_LENGTH = 64  # characters of a row of text
_RECALLED, _DELAY, _SYMBOLS = 5, 20, 8  # of the memory task
_ROWS = 1024
_SEED = 0  # of the memory task, and part of it


def diabetes() -> Task:
    """Loads scikit-learn's bundled diabetes study: 442 patients, ten measurements."""
    from sklearn.datasets import load_diabetes

    bundled = load_diabetes()
    return make_task("diabetes (442 patients)", bundled.data, bundled.target)


def photograph() -> Task:
    """Loads scikit-learn's bundled photograph: colors by coordinates.

    Every eighth pixel in each direction; a quarter of them are test rows.
    """
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg")[::_COARSE, ::_COARSE] / 255.0
    rows, columns = np.indices(image.shape[:2])
    places = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(float)
    name = f"photograph ({image.shape[0]} x {image.shape[1]} pixels)"
    return make_task(name, places, image.reshape(-1, 3))


def text(path: str | Path | None = None) -> Task:
    """Makes the task of predicting the next character of a text.

    Rows are pieces of 64 characters; the last quarter of the text is for the test.

    Args:
      path: a text file; by default the descriptions of scikit-learn's bundled data.

    Raises:
      ValueError: if the file cannot be read as text, or is too short.
    """
    if path is None:
        from sklearn import datasets

        names = ("iris", "wine", "digits", "diabetes", "breast_cancer", "linnerud")
        parts = [getattr(datasets, f"load_{name}")().DESCR for name in names]
        content, name = "\n".join(parts), "text (descriptions of data)"
    else:
        content, name = _read_text(path), Path(path).name
    alphabet, codes = np.unique(list(content), return_inverse=True)
    rows = (len(codes) - 1) // _LENGTH
    if rows < 8 or len(alphabet) < 2:
        rule = f"the text must have {8 * _LENGTH + 1} characters or more, of two kinds."
        raise check.Unfit(rule, data=str(path)).at("compare")
    x = codes[: rows * _LENGTH].reshape(rows, _LENGTH).astype(np.int32)
    y = codes[1 : rows * _LENGTH + 1].reshape(rows, _LENGTH).astype(np.int32)
    first = rows - max(1, round(TEST_SHARE * rows))
    return _make_sequences(name, x, y, first=first, tokens=len(alphabet))


def _read_text(path: str | Path) -> str:
    """Reads a text file."""
    try:
        with io.TextIOWrapper(open_file(path), "utf-8") as stream:
            content = stream.read(MOST + 1)
        if len(content) <= MOST:
            return content
        reason = f"it has more than {MOST} characters"
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        reason = "no text in UTF-8"
    rule = f"cannot read the file: {reason}."
    raise check.Unfit(rule, data=str(path)).at("compare")


def memory() -> Task:
    """Makes the task of recalling five symbols after twenty blanks.

    References:
      Hochreiter, Schmidhuber. Long Short-Term Memory. 1997.
      Arjovsky, Shah, Bengio. Unitary Evolution Recurrent Neural Networks. 2016.
      https://arxiv.org/abs/1511.06464
    """
    generator = np.random.default_rng(_SEED)
    symbols = generator.integers(0, _SYMBOLS, (_ROWS + _ROWS // 4, _RECALLED))
    length = 2 * _RECALLED + _DELAY
    x = np.full((len(symbols), length), _SYMBOLS, np.int32)  # blanks
    x[:, :_RECALLED] = symbols
    x[:, -_RECALLED - 1] = _SYMBOLS + 1  # the sign to begin
    y = np.full(x.shape, -1, np.int32)
    y[:, -_RECALLED:] = symbols
    name = f"memory ({_RECALLED} symbols after {_DELAY} blanks)"
    task = _make_sequences(name, x, y, first=_ROWS, tokens=_SYMBOLS + 2)
    return task._replace(outputs=_SYMBOLS, chance=math.log(_SYMBOLS))


def _make_sequences(
    name: str, x: np.ndarray, y: np.ndarray, *, first: int, tokens: int
) -> Task:
    """Makes a task of sequences; the rows from ``first`` on are for the test."""
    return Task(
        name,
        "classification",
        x_train=x[:first],
        y_train=y[:first],
        x_test=x[first:],
        y_test=y[first:],
        outputs=tokens,
        chance=entropy(y[:first][y[:first] >= 0]),
        tokens=tokens,
    )


TASKS: dict[str, Callable[[], Task]] = {
    "digits": digits,
    "diabetes": diabetes,
    "photograph": photograph,
    "text": text,
    "memory": memory,
}


def load_task(name: str | None, data: str | Path | None) -> Task:
    """Loads a task by name, or from a user's file: .npz arrays, or a text.

    Raises:
      ValueError: if the file does not suit the task.
      Unfit: if there is no such task, or it takes no file.
    """
    if data is None:
        name = "digits" if name is None else name
        return TASKS[check.choice(tuple(TASKS), task=name)]()
    if name == "text" or (name is None and Path(data).suffix == ".txt"):
        return text(data)
    if name is not None:
        check.choice(tuple(TASKS), task=name)
        raise check.Unfit("takes no file of yours; leave out one of both.", task=name)
    return load(data)
