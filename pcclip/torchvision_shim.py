"""Let torchvision import beside a torch build that its compiled operators were not made for.

PyPI's torchvision is a CUDA build; with the CPU build of torch its library does not load, and `import torchvision`
(hence open_clip) fails because two operators are unknown. Declaring them is enough: nothing here calls them.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

_KEEP: list[torch.library.Library] = []  # a Library's declarations live as long as the object


def declare_missing() -> None:
    """Declare torchvision::nms and ::qnms unless torchvision's own library loads. Call before importing torchvision."""
    torchvision = find_spec("torchvision")
    if torchvision is None or torchvision.origin is None or _KEEP:
        return
    try:
        for path in sorted(Path(torchvision.origin).parent.glob("_C*.so")):
            torch.ops.load_library(str(path))
        loaded = hasattr(torch.ops.torchvision, "nms")
    except OSError:
        loaded = False
    if not loaded:
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEEP.append(library)
