"""ARO's Visual Genome Relation and Attribution (Yuksekgonul et al., ICLR 2023): which way round, and which has which.

Their folder holds what https://github.com/mertyg/vision-language-models-are-bows fetches:

    visual_genome_relation.json      [{"image_path": "2320930.jpg", "bbox_x": 10, "bbox_y": 5, "bbox_w": 200,
                                     "bbox_h": 150, "relation_name": "on", "true_caption": "the man is on the horse",
                                     "false_caption": "the horse is on the man"}]
    visual_genome_attribution.json   the same with "attributes": ["white", "green"] for the relation's name
    images/2320930.jpg

Only the box is shown. The published numbers are macro averages, which the original notebook takes over relations,
leaving out those that are symmetric or rare (_NOT_COUNTED, its own list), and over pairs of attributes with 25 cases or
more.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

from pcclip.benchmarks.benchmark import Benchmark, Box, Reader, json_rows
from pcclip.benchmarks.compositionality import item, located, matching_set

_SITE = "https://github.com/mertyg/vision-language-models-are-bows"
_DRIVE = "https://drive.google.com/file/d"
_FEWEST = 25  # cases of a pair of attributes that counts
_NOT_COUNTED = frozenset(
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


def _read(name: str, file: str, place: Path) -> Benchmark:
    """One item per case of `file`. Raises PcclipError when the file is no list."""
    items = []
    for row, entry in json_rows(place / file, _SITE):
        attributes = entry.get("attributes")
        pair = "_".join(map(str, attributes[:2])) if isinstance(attributes, list) else ""
        group = entry.get("relation_name") if name == "vg_relation" else pair
        box, captions = _box(entry), [entry.get("true_caption"), entry.get("false_caption")]
        columns = {"group": group if isinstance(group, str) else "", "box": box, "reason": "" if box else "no box"}
        items.append(item(row, [entry.get("image_path")], captions, **columns))
    table = located(items, [place / "images"])
    if name == "vg_relation":
        uncounted = table.group.isin(_NOT_COUNTED)
    else:
        uncounted = table.groupby("group").group.transform("size") < _FEWEST
    table.loc[uncounted, "group"] = ""
    return matching_set(name, "choices", table, place)


def _box(entry: dict[str, Any]) -> Box | None:
    """The box of a case; None where there is none."""
    sides = [entry.get(f"bbox_{side}") for side in "xywh"]
    numbers = [side for side in sides if isinstance(side, int | float) and math.isfinite(side)]
    if len(numbers) < len(sides) or min(numbers[2:]) <= 0:
        return None
    left, top, width, height = map(round, numbers)
    return left, top, left + max(width, 1), top + max(height, 1)


def _reader(name: str, file: str, drive: str) -> Reader:
    needs = {
        f"download {_DRIVE}/{drive} (as {_SITE} does)": [file],
        f"download {_DRIVE}/1qaPlrwhGNMrR3a11iopZUT_GPP_LrgP9 and unpack it there": ["images/"],
    }
    return Reader(name, partial(_read, name, file), needs)


VG_RELATION = _reader("vg_relation", "visual_genome_relation.json", "1kX2iCHEv0CADL8dSO1nMdW-V0NqIAiP3")
VG_ATTRIBUTION = _reader("vg_attribution", "visual_genome_attribution.json", "13tWvOrNOLHxl3Rm9cR3geAdHx2qR3-Tw")
