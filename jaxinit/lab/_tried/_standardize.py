"""Columns of mean 0 and variance 1, from numbers of any real type and any size.

Numbers are standardized in float64. Squares of numbers near 1e-170 or 1e170 leave its
range, and sums lose small differences between large numbers. So a column is divided by
a power of two, which rounds nothing; then the squares are taken of its distances from
the first row, as shares of the largest distance.
"""

import numpy as np

from jaxinit import _check as check


def standardize(
    array: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    name: str,
    common: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Gives columns of the training rows mean 0 and variance 1; constants become 0.

    Args:
      array: real numbers. # [rows, ...]
      train: indices of the training rows.
      test: indices of the test rows, which are standardized by the training rows. A
        column that is constant in the training rows has no scale: there, distances from
        the constant are shares of the largest.
      name: the array's name, for messages.
      common: whether the variance is 1 on average instead, so that the pixels of an
        image keep their contrast and a pixel that is hardly ever lit is not blown up.

    Returns:
      The training rows and the test rows, flat. # float32 [rows, columns]

    Raises:
      Unfit: if float32 cannot hold the result: a test row lies too far off, or pixels
        vary too little beside others.
    """
    flat = array.reshape(len(array), -1)
    axis = None if common else 0
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are refused
        here, there = _scale_down(flat[train], flat[test], axis)
        mean, variance = here.mean(axis=0), here.var(axis=0)
        if common:
            variance = np.full_like(variance, variance.mean())
        scale = np.sqrt(np.where(variance > 0, variance, 1))
        wide, far = (here - mean) / scale, (there - mean) / scale
        x_train, x_test = wide.astype(np.float32), far.astype(np.float32)
    lost = (np.ptp(wide, axis=0) > 0) & (np.ptp(x_train, axis=0) == 0)
    if lost.any():
        where = _write_index(":", int(lost.argmax()), array)
        rule = f"{name}{where} varies too little beside the other entries for float32. "
        raise check.Unfit(f"{rule}Look for outliers in {name}.", data=name)
    if not np.isfinite(x_test).all():
        row, column = np.argwhere(~np.isfinite(x_test))[0]
        where = _write_index(test[row], int(column), array)
        value = flat[test[row], column]
        rule = f"{name}{where} is {value}, too far from the other rows for float32. "
        raise check.Unfit(f"{rule}Leave the row out.", data=name)
    return x_train, x_test


def name_first(wrong: np.ndarray, name: str) -> str:
    """Names the first entry that is wrong, such as ``x[0, 3]``."""
    place = np.argwhere(wrong)[0]
    return f"{name}[{', '.join(map(str, place))}]"


def _write_index(row: object, column: int, array: np.ndarray) -> str:
    """Writes an entry's index in the array, from its row and its flattened column."""
    place = np.unravel_index(column, array.shape[1:])
    return f"[{', '.join(map(str, (row, *place)))}]"


def _scale_down(
    train: np.ndarray, test: np.ndarray, axis: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns distances from the first training row, the largest of which is 1.

    # float64 [rows, columns]
    """
    if train.dtype.kind == "f":
        wide = np.promote_types(train.dtype, np.float64)  # a long double stays one
        train, test = train.astype(wide), test.astype(wide)
        exponent = np.frexp(np.abs(train).max(axis=axis))[1]
        train, test = np.ldexp(train, -exponent), np.ldexp(test, -exponent)
        here, there = train - train[0], test - train[0]
    else:
        here, there = (_subtract_integers(part, train[0]) for part in (train, test))
    largest = np.abs(here).max(axis=axis)
    largest = np.where(largest > 0, largest, np.abs(there).max(axis=axis))
    largest = np.where(largest > 0, largest, 1)
    return (here / largest).astype(np.float64), (there / largest).astype(np.float64)


def _subtract_integers(whole: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Subtracts integers before they become float64, which has no room for 64 bits."""
    above = whole.astype(np.uint64) - origin.astype(np.uint64)  # modulo 2^64
    below = origin.astype(np.uint64) - whole.astype(np.uint64)
    up = whole >= origin
    return np.where(up, above.astype(np.float64), -below.astype(np.float64))
