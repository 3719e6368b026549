"""Fields of MATLAB files (up to version 7.2; scipy reads them, and no pickles are in them)."""

from pathlib import Path
from zlib import error as zlib_error

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from pcclip.errors import PcclipError, one_line

_UNREADABLE = (  # raised for damaged files, for those without the field, and (not implemented) for version 7.3
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    NotImplementedError,
    MatReadError,
    zlib_error,
)


def fields(path: Path, names: list[str], source: str) -> list[np.ndarray]:
    """The fields of a file, in the order of their names.

    Raises:
        PcclipError: the file cannot be read or lacks a field; says to fetch it from `source` again.
    """
    try:
        contents = loadmat(path, variable_names=names, appendmat=False)
        return [np.asarray(contents[name]) for name in names]
    except _UNREADABLE as error:
        reason = one_line(error)
        raise PcclipError(
            f"{path}: no fields {', '.join(names)} that can be read ({reason}); download it again from {source}"
        ) from None


def texts(cells: np.ndarray) -> list[str]:
    """The texts of a cell array, in MATLAB's order; an empty cell is ''."""
    return ["".join(map(str, np.ravel(cell))) for cell in np.ravel(cells, order="F")]


def table(cell: np.ndarray, columns: int) -> np.ndarray:
    """A cell's matrix of at least `columns` columns, (m, c) in float64; without rows where it has another shape."""
    matrix = np.asarray(cell)
    if matrix.dtype == object or matrix.ndim != 2 or matrix.shape[1] < columns:
        return np.empty((0, columns))
    return matrix.astype(np.float64)
