"""ImageNet's class names as open_clip ships them, without the seconds that importing open_clip takes."""

from importlib.util import find_spec
from pathlib import Path
from runpy import run_path


def imagenet_names() -> list[str]:
    """The names of the 1000 classes in their order: 398 animals, then everything else."""
    package = find_spec("open_clip")
    assert package is not None, "pcclip requires open_clip"
    assert package.origin is not None, "open_clip is a package with files"
    return list(run_path(str(Path(package.origin).parent / "zero_shot_metadata.py"))["IMAGENET_CLASSNAMES"])
