"""Fashion-IQ (Wu et al., CVPR 2021) as composed retrieval; its folder is described in data/changes/fashion_iq.py.

The validation queries of each category search that category's validation images, which the authors list:

    image_splits/split.{dress,shirt,toptee}.val.json     ["B0084Y8XIU", ...]

Where those lists are not there, a category's gallery is all images of its validation queries, which is smaller. The
candidate is an answer like any other, as is usual for this set.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.change_captions import fashion_iq
from pcclip.benchmarks.change_captions.reading import first_there, json_list

START_IS_CANDIDATE = True
RECALLS = (10, 50)
_SOURCE = "https://github.com/XiaoxiaoGuo/fashion-iq"

missing = fashion_iq.missing


def read(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Raises PcclipError when a file is no list."""
    pairs = fashion_iq.read(path)
    pairs = pairs[pairs.part == "val"].reset_index(drop=True)
    names = {side: pairs[side].map(lambda found: Path(found).stem) for side in ("first", "second")}
    images = pd.concat(
        [
            _gallery(path, category, {*names["first"][rows], *names["second"][rows]})
            for category, rows in pairs.groupby("category").groups.items()
        ],
        ignore_index=True,
    )
    return images, pd.DataFrame(
        {
            "row": pairs["row"],
            "start": names["first"],
            "right": [(name,) for name in names["second"]],
            "text": pairs.text,
            "before": "",
            "gallery": pairs.category,
            "members": [()] * len(pairs),
            "weight": 1.0,
            "reason": pairs.reason,
        }
    )


def _gallery(path: Path, category: str, queried: set[str]) -> pd.DataFrame:
    listed = path / "image_splits" / f"split.{category}.val.json"
    names = pd.Series(list(map(str, json_list(listed, _SOURCE))) if listed.is_file() else sorted(queried - {""}))
    names = names.drop_duplicates().reset_index(drop=True)
    places = [
        f"{path}/images/{below}" + names + f".{suffix}" for below in ("", f"{category}/") for suffix in ("jpg", "png")
    ]
    return pd.DataFrame({"id": names, "path": first_there(places), "gallery": category})
