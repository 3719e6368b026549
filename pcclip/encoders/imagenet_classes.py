"""ImageNet's class names and prompt templates as open_clip ships them, without the seconds that importing it takes."""

from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def imagenet_names() -> list[str]:
    """The names of the 1000 classes in their order: 398 animals, then everything else."""
    return list(_shipped().IMAGENET_CLASSNAMES)


@cache
def _shipped() -> ModuleType:
    """open_clip's file of plain texts, which needs nothing else of the package."""
    package = find_spec("open_clip")
    if package is None or package.origin is None:
        raise ImportError("open_clip, which pcclip requires, is not installed")
    file = Path(package.origin).parent / "zero_shot_metadata.py"
    spec = spec_from_file_location(f"{__name__}._shipped", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file}: cannot be read as Python")
    texts = module_from_spec(spec)
    spec.loader.exec_module(texts)
    return texts
