"""Files of weights: what is in one, and whether it is one at all, without reading its values."""

import os
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor

from pcclip.errors import PcclipError, one_line
from pcclip.torchvision_shim import declare_missing

_NESTED_UNDER = (  # where training scripts put the weights within a checkpoint
    "state_dict model_state_dict model module net network weights params model_state checkpoint clip".split()
)


def read(file: Path, device: str = "cpu") -> Any:
    """What a file of weights holds; values are read when they are needed, of a pickle on device 'meta' never.

    Raises PcclipError when the file is none, or damaged; pickle.UnpicklingError when it would run code.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with file.open("rb") as opened:
            start = opened.read(64)
        if b"version https://git-lfs" in start:
            raise PcclipError(f"{file} is a pointer of Git LFS and not the weights; run `git lfs pull` in its folder")
        if min(start, default=9) >= 9:  # every file of weights has smaller bytes there
            raise PcclipError(f"{file} is empty, or text such as a web page, and not the weights; download it again")
        if is_zipfile(file) and any("/code/" in name for name in ZipFile(file).namelist()):
            raise PcclipError(
                f"{file} is a TorchScript program; save its weights with "
                "torch.save(torch.jit.load(FILE).state_dict(), OTHER_FILE) and give that file"
            )
        return load_file(file) if start[8:9] == b"{" else torch.load(file, device, weights_only=True)
    except (OSError, SafetensorError) as error:
        raise PcclipError(f"{file}: cannot be read ({one_line(error)}); fetch or make it again") from None


def read_weights(file: Path, device: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without the nesting and prefixes of training scripts. Raises as `read`."""
    state = read(file, device)
    while inside := next((key for key in _NESTED_UNDER if isinstance(state, Mapping) and key in state), None):
        state = state[inside]
    tensors = state.items() if isinstance(state, Mapping) else ()
    state = {str(name).replace("_orig_mod.", ""): value for name, value in tensors if isinstance(value, Tensor)}
    if not state:
        raise PcclipError(f"{file} holds no weights by name; save the model's state_dict()")
    wrapper = os.path.commonpath([name.replace(".", "/") for name in state]).replace("/", ".")
    return {name.removeprefix(f"{wrapper}."): value for name, value in state.items()}


@contextmanager
def loading(spec: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads a model into a PcclipError of one line."""
    declare_missing()
    try:
        yield
    except PcclipError as error:
        raise PcclipError(f"model {spec!r}: {str(error).removeprefix(f'model {spec!r}: ')}") from None
    except pickle.UnpicklingError as error:
        class_name = re.search(r"GLOBAL (\S+)", str(error))
        raise PcclipError(
            f"model {spec!r}: refused, its file holds a pickled {class_name[1] if class_name else 'object'}; only "
            "tensors are loaded: use a plain state dict or safetensors"
        ) from None
    except Exception as error:  # open_clip, transformers, safetensors, pickle and the hub each raise their own
        raise PcclipError(f"model {spec!r}: cannot be loaded ({type(error).__name__}: {one_line(error)})") from error


def check_folder(folder: Path) -> None:
    """Raise PcclipError unless each safetensors file below a folder is whole."""
    for file in sorted(folder.rglob("*.safetensors")):
        read(file)


def from_folder(kind: Any, place: str, **options: Any) -> Any:
    """A model of a class of transformers or diffusers, by its from_pretrained.

    Raises PcclipError when its files lack tensors, which the library would draw at random.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # a report of the same over many lines
    model, report = kind.from_pretrained(place, output_loading_info=True, **options)
    if missing := sorted(report["missing_keys"]):
        raise PcclipError(
            f"{place}: its files lack {len(missing)} tensors of a {kind.__name__} ({', '.join(missing[:3])} ...); "
            "fetch them again, or those of the right model"
        )
    return model
