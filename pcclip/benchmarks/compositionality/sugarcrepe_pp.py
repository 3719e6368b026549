"""SugarCrepe++ (Dumpala et al., NeurIPS 2024): two right captions in different words, and a wrong one near the first.

Its folder is https://github.com/Sri-Harsha/scpp with COCO's val2017 in it, as SugarCrepe's:

    data/swap_obj.json           [{"id": 0, "filename": "000000222235.jpg", "caption": "...", "caption2": "...",
                                 "negative_caption": "..."}]; also replace_att, replace_obj, replace_rel and swap_att
    val2017/000000222235.jpg     or in images/val2017/ or images/

A few wrong captions are the right one word for word; as in the released scorer, nobody can be right about these.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.compositionality import sugarcrepe

FORM = "triples"
PARTS = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
_SOURCE = "https://github.com/Sri-Harsha/scpp"


def missing(path: Path) -> list[str]:
    """Which of the five files is not there, and whether the images are."""
    return sugarcrepe.lacking(path, PARTS, _SOURCE)


def read(path: Path) -> pd.DataFrame:
    """One row per triple of captions. Raises PcclipError when a file is not what it should be."""
    return sugarcrepe.captioned(path, PARTS, _SOURCE, ("caption", "caption2", "negative_caption"))
