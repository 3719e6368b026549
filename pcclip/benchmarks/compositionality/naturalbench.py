"""NaturalBench-Retrieval (Li et al., NeurIPS 2024): two images with a caption each that CLIP models mix up.

Its folder is what https://huggingface.co/datasets/BaiqiL/NaturalBench has as NaturalBench-Retrieval.zip, unpacked:

    metadata.json   [{"index": 0, "image_0": "a.jpg", "image_1": "b.jpg", "caption_0": "...", "caption_1": "..."}]
    images/a.jpg
"""

from pathlib import Path

from pcclip.benchmarks.benchmark import Benchmark, Reader, json_rows
from pcclip.benchmarks.compositionality import item, located, matching_set

_SOURCE = "https://huggingface.co/datasets/BaiqiL/NaturalBench (NaturalBench-Retrieval.zip)"


def read(place: Path) -> Benchmark:
    """One item per pair of images. Raises PcclipError when the file is no list."""
    items = [
        item(row, [entry.get("image_0"), entry.get("image_1")], [entry.get("caption_0"), entry.get("caption_1")])
        for row, entry in json_rows(place / "metadata.json", _SOURCE)
    ]
    return matching_set("naturalbench", "groups", located(items, [place / "images"]), place)


NATURALBENCH = Reader(
    "naturalbench",
    read,
    {f"download {_SOURCE} and unpack it there": ["metadata.json", "images/"]},
    folders=("", "NaturalBench-Retrieval"),
)
