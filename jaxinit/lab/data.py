"""Tasks: real data, split and standardised once, the same for every initializer."""

import zipfile
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jaxinit import _check as check

TEST_SHARE = 0.25
_SPLIT_SEED = 0  # the split is part of the task: no initializer seed changes it
_VALID_SHARE, _VALID_ROWS = 0.2, 1000  # of the training rows; the most that it takes
_VALID_SEED = 1


class Task(NamedTuple):
    """Data to train on and to test on.

    Attributes:
      name: what the data is.
      kind: "classification" (y: class indices; -1 counts for nothing) or "regression"
        (y: standardised targets).
      x_train: inputs of mean 0 and variance 1, per feature for tables and on average
        for images; or tokens. # [rows, features], or [rows, length]
      y_train: targets. # [rows], [rows, outputs], or [rows, length] for tokens
      x_test: as x_train, standardised by the training rows.
      y_test: as y_train.
      outputs: number of classes or targets.
      chance: training loss of the best constant prediction: the entropy of the classes
        in nats, or the variance of the targets; in the results, of the loss trained by.
      shape: of an example, where it is an image; else empty.
      tokens: how many tokens there are, where inputs are such; else 0.
      x_valid: as x_train, of rows held out for early stopping; None without.
      y_valid: as y_train.
    """

    name: str
    kind: Literal["classification", "regression"]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    outputs: int
    chance: float
    shape: tuple[int, ...] = ()
    tokens: int = 0
    x_valid: np.ndarray | None = None
    y_valid: np.ndarray | None = None


def digits() -> Task:
    """Loads scikit-learn's bundled digits: 1797 scans of 8 x 8 pixels, ten classes."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    name = "digits (1797 scans of 8 x 8)"
    return make_task(name, bundled.images, bundled.target)._replace(shape=(8, 8, 1))


def load(path: str | Path) -> Task:
    """Reads a task from an .npz file with arrays x and y.

    Args:
      path: the file. x has a row per example: features, or an image (more axes), which
        is flattened; y has one entry per row, where integers, booleans and strings are
        classes and floats are real targets, of which there may be several columns.

    Returns:
      The task.

    Raises:
      ValueError: if the file is missing, no .npz, pickled, lacks an array, or its
        arrays have the wrong shape or type or are not finite.
    """

    def fail(rule: str) -> Exception:
        return check.Unfit(rule, data=str(path)).at("compare")

    try:
        # Opened here, because np.load leaves a broken archive open.
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            single = isinstance(file, np.ndarray)
            names = [] if single else file.files
            arrays = {name: file[name] for name in ("x", "y") if name in names}
    except OSError as error:
        rule = f"cannot read the file: {error.strerror or 'no .npz file'}."
        raise fail(rule) from None
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise fail("no .npz file. Write it by np.savez(path, x=x, y=y).") from None
    except ValueError as error:
        if "pickle" not in str(error):
            raise fail(f"broken .npz file ({error}).") from None
        rule = "refused: the file is pickled, or no .npz file at all. Unpickling runs "
        rule += "code: save plain arrays by np.savez(path, x=x, y=y)."
        raise fail(rule) from None
    if single:
        raise fail("the file holds one array. Write it by np.savez(path, x=x, y=y).")
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing:
        found = ", ".join(names) or "nothing"
        raise fail(f"the file lacks {' and '.join(missing)}; it has {found}.")
    x, y = arrays["x"], arrays["y"]
    try:
        return make_task(Path(path).name, x, y)
    except check.Unfit as error:
        raise fail(str(error)) from None


def make_task(name: str, x: np.ndarray, y: np.ndarray) -> Task:
    """Splits and standardises arrays, raising `Unfit` with the rule that they break."""
    common = np.ndim(x) > 2
    x, y = _inputs(x), np.asarray(y)
    classes = y.dtype.kind in "iubUS"
    y = np.squeeze(y, axis=1) if y.ndim == 2 and y.shape[1] == 1 else y
    if not classes and y.dtype.kind != "f":
        rule = f"y must hold classes or real targets, not {y.dtype}."
        raise check.Unfit(rule, data=name)
    if y.ndim not in ((1,) if classes else (1, 2)) or len(y) != len(x):
        rule = f"y must have an entry for each of the {len(x)} rows of x, "
        raise check.Unfit(rule + f"not shape {y.shape}.", data=name)
    if classes:
        names, y = np.unique(y, return_inverse=True)
        counts = np.bincount(y)
        if len(names) < 2 or counts.min() < 2:
            rule = "y must have two classes or more, each of two rows or more."
            raise check.Unfit(rule, data=name)
        train, test = _split(y)
    else:
        if not np.isfinite(y).all():
            raise check.Unfit("y has NaN or infinite entries.", data=name)
        if y.size == 0 or (y == y[0]).all(axis=0).any():
            rule = "y must have a column or more, each with two values or more."
            raise check.Unfit(rule, data=name)
        train, test = _split(np.zeros(len(x), int))

    x_train, x_test = _standardise(x[train], x[test], common)
    if classes:
        chance = entropy(y[train])
        y = y.astype(np.int32)
        return Task(
            name,
            "classification",
            x_train,
            y[train],
            x_test,
            y[test],
            len(names),
            chance,
        )
    y = y.reshape(len(y), -1)
    y_train, y_test = _standardise(y[train], y[test])
    chance = float(y_train.var(axis=0).mean())
    return Task(
        name, "regression", x_train, y_train, x_test, y_test, y.shape[1], chance
    )


def entropy(classes: np.ndarray) -> float:
    """Computes the entropy of classes as often as they are there, in nats."""
    counts = np.bincount(classes)
    share = counts[counts > 0] / len(classes)
    return float(-(share * np.log(share)).sum())


def _inputs(x: np.ndarray) -> np.ndarray:  # [rows, features]
    """Returns x as finite floats."""
    x = np.asarray(x)
    if x.dtype.kind not in "fiub":
        raise check.Unfit(f"x must hold real numbers, not {x.dtype}.", data="x")
    if x.ndim < 2 or len(x) < 8 or x[0].size == 0:
        rule = f"x must be [rows, features] with 8 rows or more, not shape {x.shape}."
        raise check.Unfit(rule, data="x")
    x = x.reshape(len(x), -1).astype(np.float64)
    if not np.isfinite(x).all():
        rows = int((~np.isfinite(x)).any(axis=1).sum())
        raise check.Unfit(f"x has NaN or infinite entries, in {rows} rows.", data="x")
    return x


def with_validation(task: Task) -> Task:
    """Holds a fifth of the training rows out for validation, a thousand at most.

    The rows are the same for every cell. Of a class that has one row only, it stays.
    """
    y = task.y_train
    classes = task.kind == "classification" and y.ndim == 1
    share = min(_VALID_SHARE, _VALID_ROWS / max(1, len(y)))
    strata = y if classes else np.zeros(len(y), int)
    train, valid = _split(strata, share, _VALID_SEED)
    x = task.x_train
    return task._replace(
        x_train=x[train], y_train=y[train], x_valid=x[valid], y_valid=y[valid]
    )


def _split(
    strata: np.ndarray, share: float = TEST_SHARE, seed: int = _SPLIT_SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Splits row indices so that each stratum has its share in the second part."""
    generator = np.random.default_rng(seed)
    train, test = [], []
    for stratum in np.unique(strata):
        rows = generator.permutation(np.flatnonzero(strata == stratum))
        held_out = min(len(rows) - 1, max(1, round(share * len(rows))))
        test.append(rows[:held_out])
        train.append(rows[held_out:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def _standardise(
    train: np.ndarray, test: np.ndarray, common: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Gives each column of the training rows mean 0 and variance 1; constants become 0.

    Common: the variance is 1 on average instead, so that the pixels of an image keep
    their contrast and a pixel that is hardly ever lit is not blown up.
    """
    # A constant is its own mean, which a sum in floating point only comes close to.
    constant = (train == train[0]).all(axis=0)
    mean = np.where(constant, train[0], train.mean(axis=0))
    variance = np.where(constant, 0, train.var(axis=0))
    if common:
        variance = np.full_like(variance, variance.mean())
    scale = np.sqrt(np.where(variance > 0, variance, 1))
    return (
        ((train - mean) / scale).astype(np.float32),
        ((test - mean) / scale).astype(np.float32),
    )
