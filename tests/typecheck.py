"""The checker for `--jaxtyping-packages=pcclip,typecheck.checked`: shapes and kinds of arrays alone.

Other types are mypy's: tests hand over small doubles of encoders, sets and paths, which beartype would refuse.
"""

from collections.abc import Callable
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray


def checked(function: Callable) -> Callable:
    """beartype on the parameters and the result that have a shape."""
    annotations = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in annotations.items() if _has_shape(hint)}
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)  # an int is a float, as for mypy


def _has_shape(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_has_shape, get_args(hint)))
