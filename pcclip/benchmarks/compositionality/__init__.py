"""Images and texts made of the same things, put together in another way: which text is of which image?

Benchmark.items have image_0 (an id; image_1 too in the form 'groups'), text_0, text_1, ..., part (the authors' own, ''
where there is one only), group (a macro average gives each group the same weight; '' belongs to none) and tags (names
of further subsets that the item is in). Benchmark.form is one of FORMS and says which text belongs to which image;
measures.py scores each form.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, benchmark_of_items, first_existing
from pcclip.config import Matcher, PublicSet

FAMILY = "compositionality"
FORMS = {
    "groups": "two images and two texts: text k belongs to image k and to no other",
    "choices": "one image; the first text is right and all others are wrong ('' is no text)",
    "triples": "one image; the first two texts are right, in different words, and the third is wrong",
}


def item(row: str, images: Sequence[Any], texts: Sequence[Any], **columns: Any) -> dict[str, Any]:
    """An item as read: `row` is its name in reports; `columns` may be part, group, tags, box and reason.

    An image that is no text, or empty, makes it unusable; a text that is none becomes ''.
    """
    names = [image if isinstance(image, str) else "" for image in images]
    tidied = [" ".join(text.split()) if isinstance(text, str) else "" for text in texts]
    return {
        "row": row,
        **{f"image_{k}": name for k, name in enumerate(names)},
        **{f"text_{k}": text for k, text in enumerate(tidied)},
        "part": "",
        "group": "",
        "tags": (),
        **columns,
        "reason": columns.get("reason", "") if all(names) else "no image",
    }


def matching_set(name: str, form: str, items: Sequence[dict[str, Any]] | pd.DataFrame, below: Path) -> Benchmark:
    """The set of items with paths; items without a text, without any wrong text or without a file are left out.

    Args:
        below: the folder that the ids of images leave out.
    """
    benchmark = Benchmark(name, FAMILY, pd.DataFrame(), pd.DataFrame(items), form=form)
    table = benchmark.items
    absent = table[benchmark.columns("text_")] == ""
    lacking = absent.text_0 | absent.iloc[:, 1:].all(axis=1) if form == "choices" else absent.any(axis=1)
    table.loc[(table.reason == "") & lacking, "reason"] = "no text"
    return benchmark_of_items(benchmark, below)


def located(items: Sequence[dict[str, Any]], folders: Sequence[Path], suffixes: Sequence[str] = ("",)) -> pd.DataFrame:
    """The items with each image as a path: in the first of the folders, with the first suffix, that has it."""
    table = pd.DataFrame(items)
    for column in [column for column in ("image_0", "image_1") if column in table]:
        table[column] = first_existing(
            [f"{folder}/" + table[column] + suffix for folder in folders for suffix in suffixes]
        )
    return table


def draw(benchmark: Benchmark, settings: PublicSet | Matcher, seed: int) -> Benchmark:
    """At most settings.limit items of each part, and their images."""
    items = benchmark.items
    if settings.limit is not None:
        order = np.random.default_rng(seed).permutation(len(items))
        place = items.part.iloc[order].groupby(items.part.iloc[order]).cumcount()
        items = items.iloc[np.sort(order[place.to_numpy() < settings.limit])]
    return benchmark.with_items(items)
