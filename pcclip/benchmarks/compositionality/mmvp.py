"""MMVP-VLM (Tong et al., CVPR 2024): pairs of images that CLIP sees as alike, nine visual patterns of 15 pairs.

Its folder is that of https://huggingface.co/datasets/MMVP/MMVP_VLM:

    Questions.csv                                   Question ID, Type, Statement; two rows, 1 and 2, 3 and 4, are a pair
    MLLM_VLM Images/Orientation and Direction/1.jpg

As in the released scorer a text is 'a photo of ' and the statement. Its own measure asks which of the two images a text
fits better, and wants both texts right: that is the image score. The patterns are parts.
"""

from pathlib import Path

from pcclip.benchmarks.benchmark import Benchmark, Reader, read_table
from pcclip.benchmarks.compositionality import item, located, matching_set
from pcclip.errors import PcclipError

_SOURCE = "https://huggingface.co/datasets/MMVP/MMVP_VLM"
_TABLE, _IMAGES = "Questions.csv", "MLLM_VLM Images"


def read(place: Path) -> Benchmark:
    """One item per pair. Raises PcclipError when the table is none of three columns."""
    advice, options = f"fetch it again from {_SOURCE}", {"dtype": str, "keep_default_na": False, "usecols": range(3)}
    table = read_table(place / _TABLE, [], advice, encoding="utf-8-sig", **options)
    if table.empty or table.isna().any(axis=None):
        raise PcclipError(f"{place / _TABLE}: not a table of question, type and statement; {advice}")
    lines, items = [line for line in table.to_numpy().tolist() if any(line)], []
    for k in range(0, len(lines), 2):
        pair = [[cell.strip() for cell in line] for line in lines[k : k + 2]]
        pair += [["", "", ""]] * (2 - len(pair))
        kind = pair[0][1]
        images = [f"{kind}/{number}.jpg" for number, *_ in pair]
        texts = [f"a photo of {statement}" if statement else "" for _, _, statement in pair]
        reason = "" if _is_pair(*pair) else "not a pair"
        items.append(item(f"{_TABLE}, line {k + 2}", images, texts, part=kind, reason=reason))
    return matching_set("mmvp_vlm", "groups", located(items, [place / _IMAGES]), place)


def _is_pair(first: list[str], second: list[str]) -> bool:
    """Two questions of one type, an odd number and the next, as the released scorer takes for granted."""
    numbered = first[0].isdecimal() and second[0].isdecimal()
    return numbered and int(first[0]) % 2 == 1 and int(second[0]) == int(first[0]) + 1 and first[1] == second[1]


MMVP = Reader("mmvp_vlm", read, {f"get it from {_SOURCE}": [_TABLE, f"{_IMAGES}/"]})
