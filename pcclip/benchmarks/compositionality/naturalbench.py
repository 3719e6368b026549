"""NaturalBench-Retrieval (Li et al., NeurIPS 2024): two images with a caption each that CLIP models mix up.

Its folder is what https://huggingface.co/datasets/BaiqiL/NaturalBench has as NaturalBench-Retrieval.zip, unpacked:

    metadata.json   [{"index": 0, "image_0": "a.jpg", "image_1": "b.jpg", "caption_0": "...", "caption_1": "..."}]
    images/a.jpg
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.compositionality.reading import entries, found, place, row

FORM = "groups"
_SOURCE = "https://huggingface.co/datasets/BaiqiL/NaturalBench (NaturalBench-Retrieval.zip)"
_METADATA = ("metadata.json", "NaturalBench-Retrieval/metadata.json")


def missing(path: Path) -> list[str]:
    """Whether the table and its folder of images are there, and where to get them."""
    file = found(path, _METADATA)
    if file is None:
        return [f"{path / _METADATA[0]}: not there; download {_SOURCE} and unpack it"]
    images = file.parent / "images"
    return [] if images.is_dir() else [f"{images}: not there; unpack all of {_SOURCE}"]


def read(path: Path) -> pd.DataFrame:
    """One row per pair of images. Raises PcclipError when the file is no list."""
    file = found(path, _METADATA)
    rows = []
    for k, entry in enumerate(entries(file, _SOURCE)):
        entry = entry if isinstance(entry, dict) else {}
        rows.append(
            row(
                f"{file.name}, entry {k + 1}",
                [entry.get("image_0"), entry.get("image_1")],
                [entry.get("caption_0"), entry.get("caption_1")],
            )
        )
    return place(pd.DataFrame(rows), [file.parent / "images"])
