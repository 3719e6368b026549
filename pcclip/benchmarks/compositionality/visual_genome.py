"""ARO's Visual Genome Relation and Attribution (Yuksekgonul et al., ICLR 2023): which way round, and which has which.

Their folder holds what https://github.com/mertyg/vision-language-models-are-bows fetches:

    visual_genome_relation.json      [{"image_path": "2320930.jpg", "bbox_x": 10, "bbox_y": 5, "bbox_w": 200,
                                     "bbox_h": 150, "relation_name": "on", "true_caption": "the man is on the horse",
                                     "false_caption": "the horse is on the man"}]
    visual_genome_attribution.json   the same with "attributes": ["white", "green"] for the relation's name
    images/2320930.jpg

Only the box is shown. The published numbers are macro averages, which the original notebook takes over relations,
leaving out those that are symmetric or rare (_LEFT_OUT, its own list), and over pairs of attributes with 25 cases or
more.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.compositionality.reading import entries, place, row

_SITE = "https://github.com/mertyg/vision-language-models-are-bows"
_DRIVE = "https://drive.google.com/file/d/"
_IMAGES = f"{_DRIVE}1qaPlrwhGNMrR3a11iopZUT_GPP_LrgP9"
_FEWEST = 25  # cases of a pair of attributes that counts
_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
_LEFT_OUT = frozenset(
    """
adjusting, attached to, between, bigger than, biting, boarding, brushing, chewing, cleaning, climbing, close to,
coming from, coming out of, contain, crossing, dragging, draped over, drinking, drinking from, driving, driving down,
driving on, eating from, eating in, enclosing, exiting, facing, filled with, floating in, floating on, flying,
flying above, flying in, flying over, flying through, full of, going down, going into, going through, grazing in,
growing in, growing on, guiding, hanging from, hanging in, hanging off, hanging over, higher than, holding onto,
hugging, in between, jumping off, jumping on, jumping over, kept in, larger than, leading, leaning over, leaving,
licking, longer than, looking in, looking into, looking out, looking over, looking through, lying next to,
lying on top of, making, mixed with, mounted on, moving, on the back of, on the edge of, on the front of,
on the other side of, opening, painted on, parked at, parked beside, parked by, parked in, parked in front of,
parked near, parked next to, perched on, petting, piled on, playing, playing in, playing on, playing with, pouring,
reaching for, reading, reflected on, riding on, running in, running on, running through, seen through, sitting behind,
sitting beside, sitting by, sitting in front of, sitting near, sitting next to, sitting under, skiing down, skiing on,
sleeping in, sleeping on, smiling at, sniffing, splashing, sprinkled on, stacked on, standing against, standing around,
standing behind, standing beside, standing in front of, standing near, standing next to, staring at, stuck in,
surrounding, swimming in, swinging, talking to, topped with, touching, traveling down, traveling on, tying, typing on,
underneath, wading in, waiting for, walking across, walking by, walking down, walking next to, walking through,
working in, working on, worn on, wrapped around, wrapped in, by, of, near, next to, with, beside, on the side of,
around""".replace("\n", " ")
    .strip()
    .split(", ")
)


@dataclass(frozen=True)
class _VisualGenome:
    """One of the two sets: its file, and where that is."""

    file: str
    drive: str
    relation: bool
    FORM: str = "choices"

    def missing(self, path: Path) -> list[str]:
        """Whether the annotations and the images are there, and where to get them."""
        lines = []
        if not (path / self.file).is_file():
            lines.append(f"{path / self.file}: not there; download {_DRIVE}{self.drive} (as {_SITE} does)")
        if not (path / "images").is_dir():
            lines.append(f"{path / 'images'}: not there; download {_IMAGES} and unpack it in {path}")
        return lines

    def read(self, path: Path) -> pd.DataFrame:
        """One row per case. Raises PcclipError when the file is no list."""
        rows = [self._row(k, entry) for k, entry in enumerate(entries(path / self.file, _SITE))]
        table = place(pd.DataFrame(rows), [path / "images"])
        if self.relation:
            table.loc[table.group.isin(_LEFT_OUT), "group"] = ""
        else:
            table.loc[table.groupby("group").group.transform("size") < _FEWEST, "group"] = ""
        return table

    def _row(self, k: int, entry) -> dict:
        entry = entry if isinstance(entry, dict) else {}
        group = entry.get("relation_name") if self.relation else _joined(entry.get("attributes"))
        found = row(
            f"{self.file}, entry {k + 1}",
            [entry.get("image_path")],
            [entry.get("true_caption"), entry.get("false_caption")],
            group=group if isinstance(group, str) else "",
            box=_box(entry),
        )
        return {**found, "reason": found["reason"] or ("" if found["box"] else "no box")}


RELATION = _VisualGenome("visual_genome_relation.json", "1kX2iCHEv0CADL8dSO1nMdW-V0NqIAiP3", True)
ATTRIBUTION = _VisualGenome("visual_genome_attribution.json", "13tWvOrNOLHxl3Rm9cR3geAdHx2qR3-Tw", False)


def _box(entry: dict) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom; None where there is none."""
    sides = [entry.get(side) for side in _BOX]
    if not all(isinstance(side, int | float) and math.isfinite(side) for side in sides) or min(sides[2:]) <= 0:
        return None
    left, top, width, height = (round(side) for side in sides)
    return left, top, left + max(width, 1), top + max(height, 1)


def _joined(attributes) -> str:
    return "_".join(map(str, attributes[:2])) if isinstance(attributes, list) else ""
