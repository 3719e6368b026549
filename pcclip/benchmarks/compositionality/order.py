"""ARO's COCO order and Flickr30k order (Yuksekgonul et al., ICLR 2023): a caption among its own words, shuffled.

Their folders hold the test captions of https://github.com/mertyg/vision-language-models-are-bows and the images:

    coco_karpathy_test.json   [{"image": "val2014/COCO_val2014_000000391895.jpg", "caption": ["...", four more]}]
    val2014/...               of COCO
    flickr30k_test.json       [{"image": "flickr30k-images/1007129816.jpg", "caption": [...]}]
    flickr30k-images/...      on request

The shuffled captions are not published but made, here as there: of each caption one with its nouns and its adjectives
each among themselves, one with all other words, one with the words within each three, one with the threes themselves;
lower case, without . ! " ( ) * # : ; ~ and with at most 30 words. They differ from the original code's:

- its tagger is spaCy's en_core_web_sm; ours is parts_of_speech.py, a word list with a few rules, the same everywhere;
- its draw depends on all captions before, ours on the image and the caption alone;
- its shuffles may leave a caption as it was, and then the caption counts as found; ours are drawn again until the words
  stand otherwise, and a shuffle that has nothing to move is left out (so an item may have fewer than five options).
"""

import random
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pcclip.benchmarks.benchmark import Benchmark, Reader, json_rows
from pcclip.benchmarks.compositionality import item, located, matching_set
from pcclip.data.parts_of_speech import parts_of_speech

_SITE = "https://storage.googleapis.com/sfr-vision-language-research/datasets/"
_SEED, _WORDS, _DRAWS = 1, 30, 20
_DROPPED = re.compile(r"""[.!"()*#:;~]""")
TOKEN = re.compile(r"\w+(?:-\w+)*?(?=n't)|n't|'\w+|\w+(?:-\w+)*|[^\w\s]")


def _read(name: str, file: str, place: Path) -> Benchmark:
    """One item per caption; text_0 is the caption. Raises PcclipError when the file is no list."""
    items = []
    for row, entry in json_rows(place / file, _SITE + file):
        image, captions = entry.get("image"), entry.get("caption")
        for caption in captions if isinstance(captions, list) and captions else [None]:
            texts = shuffled_options(caption, str(image)) if isinstance(caption, str) else [""] * 5
            unmoved = texts[0] and not any(texts[1:])
            items.append(item(row, [image], texts, reason="nothing to shuffle" if unmoved else ""))
    return matching_set(name, "choices", located(items, [place]), place)


def shuffled_options(caption: str, image: str) -> list[str]:
    """The caption, and its words shuffled in four ways ('' where that has nothing to move)."""
    tokens = TOKEN.findall(caption)
    kinds = parts_of_speech(tokens)
    places = {kind: [k for k, own in enumerate(kinds) if own == kind] for kind in ("noun", "adjective", "other")}
    threes = [range(k, min(k + 3, len(tokens))) for k in range(0, len(tokens), 3)]
    groups: dict[str, list[Sequence[int]]] = {
        "nouns and adjectives": [places["noun"], places["adjective"]],
        "all but nouns and adjectives": [places["other"]],
        "within threes": [*threes],
        "threes": [],
    }
    original, options = tidied(" ".join(tokens)), [tidied(caption)]
    for name, moved in groups.items():
        lot = random.Random(f"{_SEED}\0{image}\0{caption}\0{name}")
        orders = (_within(moved, len(tokens), lot) if moved else _whole(threes, lot) for _ in range(_DRAWS))
        shuffled = (tidied(" ".join(tokens[k] for k in order)) for order in orders)
        options.append(next((text for text in shuffled if text != original), ""))
    return options


def _whole(groups: list[range], lot: random.Random) -> list[int]:
    """An order of the words: the groups of places are shuffled among themselves."""
    return [k for group in lot.sample(groups, len(groups)) for k in group]


def _within(groups: list[Sequence[int]], count: int, lot: random.Random) -> list[int]:
    """An order of `count` words: each group of places is shuffled within itself."""
    order = list(range(count))
    for group in groups:
        for place, source in zip(group, lot.sample(list(group), len(group)), strict=True):
            order[place] = source
    return order


def tidied(caption: str) -> str:
    """Lower case, without some punctuation, at most 30 words."""
    return " ".join(_DROPPED.sub(" ", caption.lower()).split()[:_WORDS])


def _reader(name: str, file: str, folder: str, source: str) -> Reader:
    needs = {
        f"download {_SITE}{file}": [file],
        f"get the images from {source}, unpacked there": [f"{folder}/"],
    }
    return Reader(name, partial(_read, name, file), needs)


COCO_ORDER = _reader(
    "coco_order", "coco_karpathy_test.json", "val2014", "http://images.cocodataset.org/zips/val2014.zip"
)
FLICKR30K_ORDER = _reader(
    "flickr30k_order", "flickr30k_test.json", "flickr30k-images", "https://shannon.cs.illinois.edu/DenotationGraph/"
)
