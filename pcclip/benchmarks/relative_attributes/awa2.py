"""Animals with Attributes 2 by the strengths of its 85 attributes, from 0 to 100, as its labelled set has them.

A strength is an animal's, not an image's: images of one animal are tied, and the 10 animals that are tested are other
ones than the 40 of the tune split. A predicate that the release counts as unknown for an animal (-1) is unknown here.
"""

from dataclasses import replace
from pathlib import Path

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.classification import awa2
from pcclip.benchmarks.relative_attributes import FAMILY


def read(place: Path) -> Benchmark:
    """All its images. Raises PcclipError when a list or the strengths are not as published."""
    labelled = awa2.read(place)
    labels, strengths = labelled.images.label, labelled.class_attributes
    assert strengths is not None
    return Benchmark(
        "awa2",
        FAMILY,
        labelled.images.assign(group=[labelled.classes[label] for label in labels]).drop(columns="label"),
        left_out=labelled.left_out,
        values=strengths.iloc[labels].reset_index(drop=True),
    )


AWA2 = replace(awa2.AWA2, read=read)
