"""Animals with Attributes 2 by the strengths of its 85 attributes, from 0 to 100, as its labelled set has them.

A strength is an animal's, not an image's: images of one animal are tied, and the 10 animals that are tested are other
ones than the 40 of the tune split. A predicate that the release counts as unknown for an animal (-1) is unknown here.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.classification import awa2
from pcclip.benchmarks.relative_attributes import RelativeSet, of_values

PUBLISHED = 37322
missing = awa2.missing


def read(root: Path) -> RelativeSet:
    """All its images. Raises PcclipError when a list or the strengths are not as published."""
    found = awa2.read(root)
    labels = found.table.label.to_numpy()
    table = pd.DataFrame(
        {
            "id": found.table["id"],
            "path": found.images,
            "split": found.table["split"],
            "group": [found.classes[label] for label in labels],
            "reason": "",
        }
    )
    whole = of_values("awa2", table, found.attributes.iloc[labels].reset_index(drop=True))
    return RelativeSet(
        "awa2", whole.images, whole.values, whole.pairs, pd.concat([found.left_out, whole.left_out], ignore_index=True)
    )
