"""Fashion-IQ (Wu et al., CVPR 2021) as composed retrieval; change_captions/fashion_iq.py describes its folder.

The validation queries of each category search that category's validation images, which the authors list:

    image_splits/split.{dress,shirt,toptee}.val.json     ["B0084Y8XIU", ...]

Where those lists are not there, a category's gallery is all images of its validation queries, which is smaller. The
candidate is an answer like any other, as is usual for this set.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, find, json_values
from pcclip.benchmarks.change_captions import fashion_iq
from pcclip.benchmarks.composed_retrieval import FAMILY, queries_of


def read(place: Path) -> Benchmark:
    """The validation queries. Raises PcclipError when a file is no list."""
    pairs = fashion_iq.read_pairs(place)
    pairs = pairs[pairs.part == "val"].reset_index(drop=True)
    pairs = pairs.assign(
        start=[Path(path).stem for path in pairs["first"]], target=[Path(path).stem for path in pairs["second"]]
    )
    galleries = []
    for category, own in pairs.groupby("category"):
        listed = find(place, f"image_splits/split.{category}.val.json")
        names = json_values(listed, fashion_iq.SOURCE) if listed else sorted({*own.start, *own.target} - {""})
        ids = pd.Series(list(dict.fromkeys(map(str, names))), dtype=object)
        paths = fashion_iq.photographs(place, ids, str(category))
        galleries.append(pd.DataFrame({"id": ids, "path": paths, "gallery": category}))
    queries = pairs[["row", "start", "text", "reason"]].assign(
        right=[(name,) for name in pairs.target], gallery=pairs.category
    )
    template = Benchmark("fashion_iq", FAMILY, pd.concat(galleries, ignore_index=True), recalls=(10, 50))
    return queries_of(template, queries)


FASHION_IQ = replace(fashion_iq.FASHION_IQ, read=read)
