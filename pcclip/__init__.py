"""pcclip: teach CLIP to reason about the difference between two images, and rank images by any attribute.

The public surface is three calls, imported on first use so that `import pcclip` stays light:
`load_model(spec)`, `rank(photos, more, less)` and `run(params_file)`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcclip.encoders import load_model
    from pcclip.ranking.rank import rank
    from pcclip.workbook.notebooks import run

__version__ = "0.1.0"
__all__ = ["load_model", "rank", "run"]
_HOME = {"load_model": "pcclip.encoders", "rank": "pcclip.ranking.rank", "run": "pcclip.workbook.notebooks"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pcclip' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
