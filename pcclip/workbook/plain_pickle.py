"""Pickles of plain data, read without running what they say: containers, strings, numbers, arrays, tensors.

While a pickle is read nothing is imported or called. A global that arrays and tensors need becomes a record; any other
is refused by name. The records are made into arrays afterwards, by the functions of this file only.
"""

import pickle
import re
from io import BytesIO
from pathlib import Path

import numpy as np

from pcclip.errors import PcclipError


def read(path: Path | str):
    """What the pickle holds, tensors as numpy arrays on the CPU (bfloat16 as float32).

    Raises PcclipError when it holds anything but plain data, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            return _plain(_Reader(file).load(), {})
    except OSError as error:
        raise PcclipError(f"{path}: cannot be read ({error.strerror}); name a pickle of the release") from None
    except _Refused as error:
        raise PcclipError(f"{path}: refused, it holds {error}, which is no plain data; do not unpickle it") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split())[:200]
        raise PcclipError(
            f"{path}: not a whole pickle of arrays ({type(error).__name__}: {reason}); fetch it again"
        ) from None


class _Refused(Exception):
    """Carries the global's name."""


class _Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) not in _MADE_BY and (module, name) not in _NAMES:
            raise _Refused(repr(f"{module}.{name}"[:80]))
        return _Global((module, name))


class _Global:
    """A global of the pickle that was not looked up. Calling it only takes down with what."""

    __slots__ = ("name",)

    def __init__(self, name: tuple[str, str]):
        self.name = name

    def __call__(self, *arguments):
        return _Record(self.name, arguments)


class _Record:
    """A call that was not made, and the state that was to be put into its result."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: tuple[str, str], arguments: tuple):
        self.name, self.arguments, self.state = name, arguments, None

    def __setstate__(self, state):
        self.state = state


def _plain(value, made: dict):
    """`value` with every record inside it made. `made` holds what is finished by id, for what occurs twice."""
    if isinstance(value, _Global):
        return ".".join(value.name)
    if not isinstance(value, (dict, list, tuple, _Record)):
        return value
    if id(value) not in made:
        if isinstance(value, dict):
            result = {_plain(k, made): _plain(v, made) for k, v in value.items()}
        elif isinstance(value, _Record):
            result = _MADE_BY[value.name](_plain(value.arguments, made), _plain(value.state, made))
        else:
            result = type(value)(_plain(v, made) for v in value)
        made[id(value)] = result
    return made[id(value)]


def _bytes(arguments, state) -> bytes:
    """Before protocol 3 bytes are written as a string of the same codes."""
    text, coding = arguments
    if coding != "latin1":
        raise ValueError(f"bytes as {coding!r}")
    return text.encode("latin1")


def _dtype(arguments, state) -> np.dtype:
    """Simple ones only: the state could describe one that reads outside its memory."""
    if not re.fullmatch(r"[biufcUSO]\d{1,6}", arguments[0]):
        raise ValueError(f"dtype {arguments[0]!r}")
    return np.dtype(arguments[0]).newbyteorder(state[1])


def _array(arguments, state) -> np.ndarray:
    _, shape, dtype, fortran, data = state
    if dtype.hasobject:
        flat = np.empty(len(data), dtype=object)
        for i, item in enumerate(data):
            flat[i] = item
    else:
        flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _array_of_buffer(arguments, state) -> np.ndarray:
    """Protocol 5."""
    data, dtype, shape, order = arguments[:4]
    if order == "K":
        return np.frombuffer(data, dtype).reshape(shape).transpose(arguments[4])
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _scalar(arguments, state) -> np.generic:
    dtype, data = arguments
    return np.frombuffer(data, dtype)[0]


def _storage(arguments, state):
    """torch keeps a file of its own inside the pickle; weights_only refuses everything but numbers in it."""
    import torch

    try:
        return torch.load(BytesIO(arguments[0]), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise _Refused(repr(found[1]) if found else "a storage that is none") from None


def _tensor(arguments, state) -> np.ndarray:
    import torch

    storage, offset, size, stride = arguments[:4]
    flat = torch.empty(0, dtype=storage.dtype).set_(storage)
    tensor = flat.as_strided(size, stride, offset)  # checks that it stays inside the storage
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


_MADE_BY = {
    ("_codecs", "encode"): _bytes,
    ("numpy", "dtype"): _dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array for core in ("_core", "core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("_core", "core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_of_buffer for core in ("_core", "core")},
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda arguments, state: arguments[0],
    ("torch", "Size"): lambda arguments, state: tuple(arguments[0]),
    ("torch", "device"): lambda arguments, state: "cpu",
}
_NAMES = {("numpy", "ndarray")} | {
    ("torch", kind)
    for kind in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
