"""Score the demo's models on photographs that no choice saw, as docs/results.md has it: make final, after make demo.

docs/final_split.csv lists the photos; they are in Debian's package gcompris-qt-data, which `make final` unpacks.
Settings and texts are those of params/demo.yaml; tables go to outputs/final_split.
"""

import hashlib
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from pcclip.comparisons.stage import load as load_comparisons  # noqa: E402
from pcclip.config import check, load_yaml  # noqa: E402
from pcclip.data.image_set import ImageSet, load_images  # noqa: E402
from pcclip.embedding.stage import embed, own_vectors  # noqa: E402
from pcclip.encoders import load_model  # noqa: E402
from pcclip.evaluation import own_images, specificity  # noqa: E402
from pcclip.evaluation.predictions import Predictions, summarise  # noqa: E402

LIST = DOCS / "final_split.csv"
SHA256 = "3127e63799c55bfba28c5103217b936ed2b04bfd92bf7d8669c2b4cd4e4c8e2a"  # of all photos, one after the other
PREFIX = "gcompris/src/activities/"
_DIRECTORY, _ZLIB, _ZSTD = 2, 1, 4  # a node's flags


def files_of(rcc: bytes) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file of a Qt resource file.

    Its tree has nodes of fixed size: a name's offset, flags, and either (children, first child) or the content's offset.
    Raises ValueError for another kind of file, or a compression that Python's library does not have.
    """
    magic, version, tree, contents, names = struct.unpack_from(">4s4i", rcc)
    if magic != b"qres":
        raise ValueError("no Qt resource file")
    size = 14 if version == 1 else 22

    def walk(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        name, flags, first, second = struct.unpack_from(">IHII", rcc, tree + node * size)
        length = struct.unpack_from(">H", rcc, names + name)[0]
        path = f"{folder}/{rcc[names + name + 6 :][: 2 * length].decode('utf-16-be')}" if node else ""
        if flags & _DIRECTORY:
            for child in range(second, second + first):
                yield from walk(child, path)
            return
        if flags & _ZSTD:
            raise ValueError(f"{path} is compressed with zstd")
        start = contents + second + 4
        content = rcc[start:][: struct.unpack_from(">I", rcc, start - 4)[0]]
        yield path.lstrip("/"), zlib.decompress(content[4:]) if flags & _ZLIB else content

    yield from walk(0, "")


def unpack(resources: Path, folder: Path, listed: pd.DataFrame, sha256: str = SHA256) -> None:
    """Write the listed photos, each activity's licences (README) and captions.csv into `folder`. Raises ValueError."""
    found = {}
    for activity in sorted(set(listed.path.str.split("/").str[0])):
        for path, content in files_of((resources / f"{activity}.rcc").read_bytes()):
            found[path.removeprefix(PREFIX)] = content
    photos = {path: found.get(path, b"") for path in listed.path}
    if hashlib.sha256(b"".join(photos.values())).hexdigest() != sha256:
        raise ValueError(f"{resources}: other photos than those of gcompris-qt-data 3.1-2")
    licences = {path: content for path, content in found.items() if path.endswith("/README")}
    for path, content in {**photos, **licences}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    listed.to_csv(folder / "captions.csv", index=False)


def score(folder: Path, demo: str, outputs: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Metrics, paired differences and the specificity table of base and finetuned; all photos are held out."""
    values = load_yaml(DOCS.parent / "params" / "demo.yaml")
    evaluate = values["evaluate"]
    del evaluate["attributes"]["top_speed"]
    evaluate["attributes"]["unnamed"] = {**evaluate["attributes"]["body_mass"], "column": "body_mass_unnamed"}
    shared = {key: values[key] for key in ("seed", "model")} | {"outputs": str(outputs), "evaluate": evaluate}
    data = {"source": "folder", "path": str(folder), "held_out": 0.99}
    config = check({**shared, "run": "final_split", "data": data})
    images = load_images(config)
    images = ImageSet("final", images.table.assign(split="held_out"), images.left_out)
    models = {"base": load_model(config.model), "finetuned": load_model(demo)}
    embed(config, images, models["base"])
    sentences = load_comparisons(check({**values, "outputs": str(Path(demo).parent), "run": Path(demo).name})).head(0)
    held_out = own_images.HeldOut(config, images, own_vectors(config, models), sentences)
    predictions = Predictions()
    own_images.score(held_out, models, predictions)
    metrics, paired = summarise(predictions.table(), config.evaluate.bootstrap, config.seed)
    return metrics, paired, specificity.score(held_out, models)


def main(cache: str, demo: str = str(DOCS.parent / "outputs" / "demo")) -> None:
    folder, outputs = Path(cache), DOCS.parent / "outputs"
    if not (folder / "captions.csv").is_file():
        unpack(folder / "part" / "usr/share/gcompris-qt/rcc", folder, pd.read_csv(LIST, keep_default_na=False))
    tables = dict(zip(("metrics", "differences", "specificity"), score(folder, demo, outputs), strict=True))
    for name, table in tables.items():
        table.to_csv(outputs / "final_split" / f"{name}.csv", index=False, float_format="%.6f")
    keys = ["task", "dataset", "metric"]
    rows = tables["metrics"].assign(value=lambda t: t.value.map("{:.3f}".format))
    rows["value"] += " [" + rows.ci_low.map("{:.3f}".format) + ", " + rows.ci_high.map("{:.3f}".format) + "]"
    rows.loc[rows.tied.astype(bool), "value"] += ", tied"
    wide = rows.pivot(index=[*keys, "n"], columns="model", values="value")
    print(wide.fillna("").to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
