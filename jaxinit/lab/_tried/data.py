"""Tasks: real data, split and standardized once, the same for every initializer."""

import importlib.util
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxinit import _check as check
from jaxinit.lab._tried import _archive as archive
from jaxinit.lab._tried._standardize import name_first, standardize

TEST_SHARE = 0.25
_SPLIT_SEED = 0  # the split is part of the task: no initializer seed changes it
_VALID_SHARE, _VALID_ROWS = 0.2, 1000  # of the training rows, and the most rows
_VALID_SEED = 1


class Task(NamedTuple):
    """Data to train on and to test on.

    Attributes:
      name: what the data is, in words.
      kind: "classification" (y: class indices; -1 is ignored) or "regression" (y:
        standardized targets).
      x_train: inputs of mean 0 and variance 1, per feature for tables and on average
        for images; or tokens. # [rows, features], or [rows, length]
      y_train: targets. # [rows], [rows, outputs], or [rows, length] for tokens
      x_test: as x_train, standardized by the training rows.
      y_test: as y_train.
      outputs: number of classes or targets.
      chance: training loss of the best constant prediction: the entropy of the classes
        in nats, or the variance of the targets; in results, that of the loss in use.
      shape: the shape of an example that is an image; otherwise empty.
      tokens: how many different tokens the inputs have; 0 for inputs of numbers.
      x_valid: as x_train, the rows held out for early stopping; None without it.
      y_valid: as y_train.
      example: the shape in which users' models get an example; empty to leave it as is.
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
    example: tuple[int, ...] = ()

    def __repr__(self) -> str:  # a tuple's would print the arrays
        rows = f"{len(self.x_train)} training rows, {len(self.x_test)} test rows"
        return f"Task({self.name!r}, {self.kind}, {rows})"


def digits() -> Task:
    """Loads scikit-learn's bundled digits: 1797 scans of 8 x 8 pixels, ten classes.

    Example:
      >>> jaxinit.lab.digits().x_train.shape
      (1347, 64)
    """
    task = make_task("digits (1797 scans of 8 x 8)", *_read_digits())
    return task._replace(shape=(8, 8, 1), example=())  # flat for every model


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Reads scikit-learn's file, which takes a tenth of the time to import the package.

    Returns:
      Images, [rows, 8, 8], and digits.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(int)
    from sklearn.datasets import load_digits

    bundled = load_digits()
    return bundled.images, bundled.target


def load(path: str | Path) -> Task:
    """Reads a task from an .npz file with arrays x and y.

    Args:
      path: the file. x has a row per example: features, or an image (more axes), which
        is flattened except for users' models; y has one entry per row, where integers,
        booleans and strings are classes and floats are real targets, in one column or
        several.

    Returns:
      The task.

    Raises:
      ValueError: if the file is missing, not an .npz file, pickled, or lacks an array,
        or its arrays have the wrong shape or type, are too large, or are not finite.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
      ...     np.savez(file, x=np.eye(40), y=["cat", "dog"] * 20)
      ...     file.flush()
      ...     jaxinit.lab.load(file.name).outputs
      2
    """
    try:
        return make_task(Path(path).name, *archive.read(path, "x", "y"))
    except check.Unfit as error:
        raise check.Unfit(str(error), data=str(path)).at("compare") from None


def make_task(name: str, x: np.ndarray, y: np.ndarray) -> Task:
    """Splits and standardizes arrays, raising `Unfit` with the rule that they break."""
    x, y = _check_inputs(x), _make_array(y, "y")
    y = np.squeeze(y, axis=1) if y.ndim == 2 and y.shape[1] == 1 else y
    classes = y.dtype.kind in "iubUS"
    if not classes and y.dtype.kind != "f":
        rule = f"y must hold classes or real targets, not {y.dtype}."
        cure = " Give names of classes as y.astype(str)." if y.dtype == object else ""
        raise check.Unfit(rule + cure, data=name)
    _refuse_codes(y, name)
    if y.ndim not in ((1,) if classes else (1, 2)) or len(y) != len(x):
        rule = f"y must have an entry for each of the {len(x)} rows of x, "
        raise check.Unfit(rule + f"not shape {y.shape}.", data=name)
    split = _split_classes if classes else _split_targets
    train, test, targets = split(y, name)
    x_train, x_test = standardize(x, train, test, "x", common=x.ndim > 2)
    return Task(
        name,
        "classification" if classes else "regression",
        x_train=x_train,
        x_test=x_test,
        shape=x.shape[1:] if x.ndim == 4 else (),
        example=x.shape[1:] if x.ndim > 2 else (),
        **targets,
    )


def _split_classes(y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray, Any]:
    """Returns training rows, test rows, and the fields of the task about classes."""
    names, y = np.unique(y, return_inverse=True)
    if len(names) < 2 or np.bincount(y).min() < 2:
        rule = "y must have two classes or more, each of two rows or more."
        raise check.Unfit(rule, data=name)
    train, test = _split(y)
    y = y.astype(np.int32)
    fields = {"y_train": y[train], "y_test": y[test], "outputs": len(names)}
    return train, test, {**fields, "chance": entropy(y[train])}


def _split_targets(y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray, Any]:
    """Returns training rows, test rows, and the fields of the task about targets."""
    if not np.isfinite(y).all():
        rule = "y has NaN or infinite entries. The first is "
        raise check.Unfit(f"{rule}{name_first(~np.isfinite(y), 'y')}.", data=name)
    y = y.reshape(len(y), -1)
    train, test = _split(np.zeros(len(y), int))
    for rows in (slice(None), train):
        if y.size == 0 or (y[rows] == y[rows][0]).all(axis=0).any():
            what = "" if rows is not train else " in the training rows"
            rule = f"y must have a column or more, each with two values or more{what}."
            raise check.Unfit(rule, data=name)
    y_train, y_test = standardize(y, train, test, "y")
    fields = {"y_train": y_train, "y_test": y_test, "outputs": y.shape[1]}
    return train, test, {**fields, "chance": float(y_train.var(axis=0).mean())}


def _refuse_codes(y: np.ndarray, name: str) -> None:
    """Raises for classes that are written like targets: 0.0 and 1.0, or one-hot.

    A network could be trained on either as on targets, which is not what was meant.
    """
    if y.ndim not in (1, 2) or y.dtype.kind not in "iubf" or y.size == 0:
        return
    if y.ndim == 2 and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        rule = "y is one-hot. Give the classes, y.argmax(axis=1)"
    elif y.ndim == 1 and y.dtype.kind == "f" and set(np.unique(y)) == {0, 1}:
        rule = "y is 0.0 or 1.0. Give the classes, y.astype(int)"
    else:
        return
    raise check.Unfit(f"{rule}; or for real targets 2 * y, as floats.", data=name)


def entropy(classes: np.ndarray) -> float:
    """Computes the entropy of the classes, by their frequencies, in nats."""
    counts = np.bincount(classes)
    share = counts[counts > 0] / len(classes)
    return float(-(share * np.log(share)).sum())


def _make_array(array: Any, name: str) -> np.ndarray:
    """Makes a NumPy array, refusing masked entries and ragged lists."""
    if np.ma.is_masked(array):
        rule = f"{name} is masked. Fill its gaps, or leave those rows out."
        raise check.Unfit(rule, data=name)
    try:
        return np.asarray(array)
    except ValueError:  # NumPy's answer to lists of different lengths
        rule = f"{name} must be an array, with rows of equal shape."
        raise check.Unfit(rule, data=name) from None


def _check_inputs(x: Any) -> np.ndarray:  # [rows, ...]
    """Checks that x is finite real numbers; booleans become integers."""
    x = _make_array(x, "x")
    if x.dtype.kind not in "fiub":
        raise check.Unfit(f"x must hold real numbers, not {x.dtype}.", data="x")
    if x.ndim < 2 or len(x) < 8 or x[0].size == 0:
        rule = f"x must be [rows, features] with 8 rows or more, not shape {x.shape}."
        raise check.Unfit(rule, data="x")
    wrong = ~np.isfinite(x)
    if wrong.any():
        rows = int(wrong.reshape(len(x), -1).any(axis=1).sum())
        rule = f"x has NaN or infinite entries, in {rows} rows. The first is "
        raise check.Unfit(f"{rule}{name_first(wrong, 'x')}.", data="x")
    numbers: np.ndarray = x.astype(np.uint8) if x.dtype == bool else x
    return numbers


def hold_out(task: Task) -> Task:
    """Holds a fifth of the training rows out for validation, a thousand at most.

    The rows are the same for every cell. A class with a single row keeps it.
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
