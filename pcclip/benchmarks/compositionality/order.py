"""ARO's COCO order and Flickr30k order (Yuksekgonul et al., ICLR 2023): a caption among its own words, shuffled.

Their folders hold the test captions of https://github.com/mertyg/vision-language-models-are-bows and the images:

    coco_karpathy_test.json   [{"image": "val2014/COCO_val2014_000000391895.jpg", "caption": ["...", four more]}]
    val2014/...               of COCO
    flickr30k_test.json       [{"image": "flickr30k-images/1007129816.jpg", "caption": [...]}]
    flickr30k-images/...      on request

The shuffled captions are not published but made, here as there: of each caption one with its nouns and its adjectives
each among themselves, one with all other words, one with the words within each three, one with the threes themselves;
lower case, without . ! " ( ) * # : ; ~ and with at most 30 words. They differ from those of the original code:

- its tagger is spaCy's en_core_web_sm; ours is parts_of_speech.py, a word list with a few rules, the same everywhere;
- its draw depends on all captions before, ours on the image and the caption alone;
- its shuffles may leave a caption as it was, and then the caption counts as found; ours are drawn again until the words
  stand otherwise, and a shuffle that has nothing to move is left out (so an item may have fewer than five options).
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.compositionality.parts_of_speech import parts_of_speech
from pcclip.benchmarks.compositionality.reading import entries, place, row

_SITE = "https://storage.googleapis.com/sfr-vision-language-research/datasets/"
_COCO = "http://images.cocodataset.org/zips/val2014.zip"
_FLICKR = "https://shannon.cs.illinois.edu/DenotationGraph/"
_SEED, _WORDS, _DRAWS = 1, 30, 20
_GONE = re.compile(r"""[.!"()*#:;~]""")
TOKEN = re.compile(r"\w+(?:-\w+)*?(?=n't)|n't|'\w+|\w+(?:-\w+)*|[^\w\s]")


@dataclass(frozen=True)
class _Order:
    """One of the two sets: its captions, and the folder of its images with where to get it."""

    file: str
    images: str
    source: str
    FORM: str = "choices"

    def missing(self, path: Path) -> list[str]:
        """Whether the captions and the images are there, and where to get them."""
        lines = []
        if not (path / self.file).is_file():
            lines.append(f"{path / self.file}: not there; download {_SITE}{self.file}")
        if not (path / self.images).is_dir():
            lines.append(f"{path / self.images}: not there; get the images from {self.source}, unpacked in {path}")
        return lines

    def read(self, path: Path) -> pd.DataFrame:
        """One row per caption; text_0 is the caption. Raises PcclipError when the file is no list."""
        rows = []
        for k, entry in enumerate(entries(path / self.file, _SITE + self.file)):
            entry = entry if isinstance(entry, dict) else {}
            image, captions = entry.get("image"), entry.get("caption")
            name = f"{self.file}, entry {k + 1}"
            for caption in captions if isinstance(captions, list) and captions else [None]:
                options = [""] * 5 if not isinstance(caption, str) else options_of(caption, str(image))
                found = row(name, [image], options)
                nothing = options[0] and not any(options[1:])
                rows.append({**found, "reason": found["reason"] or ("nothing to shuffle" if nothing else "")})
        return place(pd.DataFrame(rows), [path])


COCO = _Order("coco_karpathy_test.json", "val2014", _COCO)
FLICKR30K = _Order("flickr30k_test.json", "flickr30k-images", _FLICKR)


def options_of(caption: str, image: str) -> list[str]:
    """The caption, and its words shuffled in four ways ('' where that has nothing to move)."""
    tokens = TOKEN.findall(caption)
    kinds, threes = parts_of_speech(tokens), [range(k, min(k + 3, len(tokens))) for k in range(0, len(tokens), 3)]
    places = {kind: [k for k, one in enumerate(kinds) if one == kind] for kind in ("noun", "adjective", "other")}

    def among(*groups: Sequence[int]) -> Callable[[random.Random], list[int]]:
        def drawn(lot: random.Random) -> list[int]:
            order = list(range(len(tokens)))
            for group in groups:
                for here, there in zip(group, lot.sample(list(group), len(group)), strict=True):
                    order[here] = there
            return order

        return drawn

    shuffles = {
        "nouns and adjectives": among(places["noun"], places["adjective"]),
        "all but nouns and adjectives": among(places["other"]),
        "within threes": among(*threes),
        "threes": lambda lot: [k for three in lot.sample(threes, len(threes)) for k in three],
    }
    as_it_was = tidied(" ".join(tokens))
    found = [tidied(caption)]
    for name, shuffle in shuffles.items():
        lot = random.Random(f"{_SEED}\0{image}\0{caption}\0{name}")
        drawn = (tidied(" ".join(tokens[k] for k in shuffle(lot))) for _ in range(_DRAWS))
        found.append(next((text for text in drawn if text != as_it_was), ""))
    return found


def tidied(caption: str) -> str:
    """Lower case, without some punctuation, at most 30 words."""
    return " ".join(_GONE.sub(" ", caption.lower()).split()[:_WORDS])
