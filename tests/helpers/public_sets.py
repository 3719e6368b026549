"""Public sets as tests read them: by family and name, whole or as the parameters would draw them."""

from pathlib import Path

import pytest

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.registry import FAMILIES, load_benchmark
from pcclip.config import Changes, Labelled, PublicSet, Relative
from pcclip.torchvision_shim import declare_missing

_SETTINGS = {
    "classification": Labelled,
    "change_captions": Changes,
    "relative_attributes": Relative,
    "compositionality": PublicSet,
    "composed_retrieval": PublicSet,
}


def flower_names() -> list[str]:
    """torchvision's names of the 102 flowers; skips the test where it is too old to have them."""
    declare_missing()
    from torchvision.datasets import Flowers102

    return list(getattr(Flowers102, "classes", [])) or pytest.skip("this torchvision has no names of the flowers")


class PublicSets:
    """The sets of one family."""

    def __init__(self, family: str):
        self.family, self.readers = family, FAMILIES[family].readers

    def read(self, name: str, root) -> Benchmark:
        """The whole set, unchecked."""
        reader = self.readers[name]
        return reader.read(reader.place(Path(root).resolve()))

    def missing(self, name: str, root) -> list[str]:
        return self.readers[name].missing(Path(root))

    def load(self, name: str, path=None, seed: int = 0, **settings) -> Benchmark:
        """The set, checked and drawn."""
        values = {"limit": None, "tune_limit": None, "max_bad": 0.05, **settings}
        settings_of_family = _SETTINGS[self.family].model_construct(path=path and str(path), **values)
        return load_benchmark(self.family, name, settings_of_family, seed)


def reasons(benchmark: Benchmark) -> dict[str, str]:
    """Why a row was left out, by the last part of its path."""
    left_out = benchmark.left_out
    return {Path(path).name: reason for path, reason in zip(left_out.path, left_out.reason, strict=True)}
