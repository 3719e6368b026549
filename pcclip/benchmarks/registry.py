"""All public sets by family and name: loading those that the parameters name, and saying which files are missing."""

from collections import namedtuple
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pcclip.benchmarks import change_captions, classification, composed_retrieval, compositionality, relative_attributes
from pcclip.benchmarks.benchmark import Benchmark, Reader
from pcclip.benchmarks.change_captions import birds_to_words, compbench, fashion_iq, spot_the_diff
from pcclip.benchmarks.classification import awa2, cifar, cub, eurosat, flowers, folders, food101, imagenet, sun397
from pcclip.benchmarks.composed_retrieval import cirr, fashion_iq as composed_fashion_iq, simat
from pcclip.benchmarks.compositionality import (
    eqben,
    mmvp,
    naturalbench,
    order,
    sugarcrepe,
    visual_genome,
    vl_checklist,
    winoground,
)
from pcclip.benchmarks.relative_attributes import koniq, lfw10, parikh, utkface, zap50k
from pcclip.config import Config, resolve
from pcclip.data.rows import reasons
from pcclip.errors import PcclipError
from pcclip.runs.files import cache_folder
from pcclip.runs.progress import say

_MAX_BAD = 0.05  # of families without the parameter max_bad


# a family of sets: the parameter that names them, the function that draws a sample of a set, and the readers by name
Family = namedtuple("Family", "block draw readers")
FAMILIES = {
    family.FAMILY: Family(block, family.draw, {reader.name: reader for reader in readers})
    for family, block, readers in (
        (
            classification,
            "evaluate.labelled",
            (
                cifar.CIFAR10,
                cifar.CIFAR100,
                eurosat.EUROSAT,
                flowers.FLOWERS,
                sun397.SUN397,
                food101.FOOD101,
                cub.CUB,
                awa2.AWA2,
                *imagenet.READERS,
                folders.FOLDERS,
            ),
        ),
        (
            change_captions,
            "evaluate.changes",
            (spot_the_diff.SPOT_THE_DIFF, birds_to_words.BIRDS_TO_WORDS, fashion_iq.FASHION_IQ, compbench.COMPBENCH),
        ),
        (
            relative_attributes,
            "evaluate.relative",
            (
                zap50k.ZAP50K,
                parikh.PUBFIG,
                parikh.OSR,
                lfw10.LFW10,
                awa2.AWA2_STRENGTHS,
                utkface.UTKFACE,
                koniq.KONIQ,
            ),
        ),
        (
            compositionality,
            "evaluate.compositional",
            (
                winoground.WINOGROUND,
                visual_genome.VG_RELATION,
                visual_genome.VG_ATTRIBUTION,
                order.COCO_ORDER,
                order.FLICKR30K_ORDER,
                sugarcrepe.SUGARCREPE,
                sugarcrepe.SUGARCREPE_PP,
                vl_checklist.VL_CHECKLIST,
                eqben.EQBEN,
                mmvp.MMVP,
                naturalbench.NATURALBENCH,
            ),
        ),
        (composed_retrieval, "arithmetic.composed", (composed_fashion_iq.FASHION_IQ, cirr.CIRR, simat.SIMAT)),
    )
}


def load_benchmarks(config: Config, family: str) -> dict[str, Benchmark]:
    """The sets of a family that the parameters name, by name. Raises PcclipError as `load_benchmark`."""
    return {
        name: load_benchmark(family, name, settings, config.seed)
        for name, settings in settings_of(config, family).items()
    }


def settings_of(config: Config, family: str) -> dict[str, Any]:
    """The parameters of a family's sets, by name."""
    block, key = FAMILIES[family].block.split(".")
    return getattr(getattr(config, block), key)


def vectors_folder(config: Config, family: str) -> Path:
    """The folder, below the run's, that has a folder with the image vectors of each set of a family."""
    return config.home / FAMILIES[family].block.split(".")[1]


def load_benchmark(family: str, name: str, settings: Any, seed: int = 0) -> Benchmark:
    """Read a set, check it, and draw from it if it is to be smaller.

    Args:
        family, name: as in FAMILIES.
        settings: the set's parameters: path (None looks in the folder `name` of the cache, ~/.cache/pcclip), limit and,
            where the family has them, tune_limit and max_bad.
        seed: of the draw.

    Raises:
        PcclipError: no such set, something missing, nothing usable or nothing to test, duplicate ids, labels that are
            no class, or more than the share max_bad of the rows unusable.
    """
    reader, title = _reader(family, name), _title(family, name)
    root = set_root(name, settings)
    if lines := reader.missing(root):
        raise PcclipError(f"{title}: {'; '.join(lines)}")
    benchmark = replace(reader.read(reader.place(root)), max_bad=getattr(settings, "max_bad", _MAX_BAD))
    _check(title, benchmark)
    rows = len(benchmark.scored)
    if len(benchmark.left_out):
        say(
            f"{title}: left out {reasons(benchmark.left_out)}, e.g. {benchmark.left_out.path.iloc[0]}; {rows} rows are scored"
        )
    if reader.published not in (None, rows + len(benchmark.left_out)):
        say(f"{name}: {rows} rows and {len(benchmark.left_out)} left out, of {reader.published} as published")
    drawn = FAMILIES[family].draw(benchmark, settings, seed)
    if drawn.scored.empty or ("split" in drawn.scored and not (drawn.scored["split"] == "test").any()):
        raise PcclipError(f"{title}: nothing to test; unpack it again")
    return drawn


def missing_benchmarks(config: Config, families: Iterable[str] = FAMILIES) -> list[str]:
    """One line for each thing that is missing of a set that the parameters name, and for each set that is unusable."""
    lines = []
    for family in families:
        for name, settings in settings_of(config, family).items():
            try:
                missing = _reader(family, name).missing(set_root(name, settings))
                lines += [f"{_title(family, name)}: {line}" for line in missing]
                if not missing:
                    load_benchmark(family, name, settings, config.seed)
            except PcclipError as error:
                lines.append(str(error))
    return lines


def _reader(family: str, name: str) -> Reader:
    readers = FAMILIES[family].readers
    if name not in readers:
        raise PcclipError(f"{_title(family, name)}: no such set; there are: {', '.join(readers)}")
    return readers[name]


def set_root(name: str, settings: Any) -> Path:
    """The folder where a set is looked for, in it or in the folders that its Reader names."""
    return (resolve(settings.path) if settings.path else cache_folder() / name).resolve()


def _title(family: str, name: str) -> str:
    """The parameter that names the set, which says in an error where to look."""
    return f"{FAMILIES[family].block}.{name}"


def _check(title: str, benchmark: Benchmark) -> None:
    usable, bad, images = len(benchmark.scored), benchmark.bad, benchmark.images
    if "gallery" in images:  # missing images count beside the queries that cannot be used
        usable += len(images)
    left_out = reasons(benchmark.left_out)
    if not usable or benchmark.scored.empty:
        raise PcclipError(f"{title}: no usable row; left out: {left_out or 'nothing'}; fetch what is missing")
    if bad > benchmark.max_bad * (usable + bad):
        raise PcclipError(
            f"{title}: {bad} of {usable + bad} rows are bad ({left_out}, e.g. {benchmark.left_out.path.iloc[0]}), more "
            f"than {benchmark.max_bad:.0%}; fetch what is missing, or raise max_bad where the set has it"
        )
    repeated = images["id"][images.duplicated(["id", "gallery"] if "gallery" in images else "id")]
    if len(repeated):
        raise PcclipError(f"{title}: duplicate ids, e.g. {repeated.iloc[0]!r}; unpack it again")
    if len(set(benchmark.classes)) < len(benchmark.classes):
        raise PcclipError(f"{title}: two classes share a name; unpack it again")
    if (
        "label" in images
        and not (
            images.label.between(0, len(benchmark.classes) - 1) & images["split"].isin(classification.SPLITS)
        ).all()
    ):
        raise PcclipError(f"{title}: labels or splits that do not exist; unpack it again")
