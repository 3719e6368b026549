"""Stage 05: does the embedding space obey arithmetic, how much did finetuning change that, and what can one do with it?

Each measure module makes its own tables; this module decides when, and stores them. The tables are

    items           first, second, measure, value, model, first_unit, second_unit: every measure of every held-out pair
    changes         start, text, position, id, path, cosine, model: photos nearest to image + text difference
    geometry        metric, model, control, value, ci_low, ci_high, n, detectable
    sweep           model, form, alpha, metric, value, ci_low, ci_high, n, detectable
    claims          claim, of, number, ci_low, ci_high, holds, how, n, detectable, p_holm
    composed        dataset, model, form, alpha, metric, value, ci_low, ci_high, n, detectable
    composed_left_out  dataset, reason, rows, example: what the composed sets lack
    pictures        row, what, model, kind, picture, start
"""

import pandas as pd

from pcclip.arithmetic import claims, composed, geometry, pictures, retrieval
from pcclip.arithmetic.differences import held_out_pairs
from pcclip.arithmetic.texts import with_memory
from pcclip.comparisons import stage as generate
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.data.rows import by_reason
from pcclip.embedding.stage import FOLDER as EMBED, left_out, shared_inputs
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.finetuning.stage import FOLDER as FINETUNE
from pcclip.runs.files import write_parquet
from pcclip.runs.progress import say
from pcclip.runs.stage import Stage, built_on, once, read_output

FOLDER = "05_arithmetic"
TABLES: tuple[str, ...] = (
    "items",
    "changes",
    "geometry",
    "sweep",
    "claims",
    "composed",
    "composed_left_out",
    "pictures",
)
ALPHAS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)  # lengths of the text difference in the sweep
_FORMAT = 6


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    """Stage 05 of a run. Raises PcclipError when an earlier stage or a composed set is missing."""
    return Stage(
        config.folder / FOLDER,
        {
            "format": _FORMAT,
            "arithmetic": config.arithmetic.model_dump(),
            "alpha": config.evaluate.alpha,
            "bootstrap": config.evaluate.bootstrap,
            **composed.inputs(config),
            **built_on(
                (config.source_folder / generate.FOLDER, config.source_folder / EMBED, config.folder / FINETUNE),
                shared_inputs(config, images),
            ),
        },
    )


def check(config: Config, images: ImageSet) -> None:
    """Check, before any work, that everything stage 05 needs is there.

    Raises PcclipError when a change starts from a concept that the image set lacks, a composed set is incomplete, or
    a decoder is named without diffusers.
    """
    composed.check(config)
    pictures.check(config)
    retrieval.check_changes(config, images)


@once
def analyze(config: Config, images: ImageSet, vectors: Vectors, models: dict[str, Encoder]) -> dict[str, pd.DataFrame]:
    """Run the stage, or read it when done. Returns its tables by name, as the module's docstring lists them.

    Args:
        vectors: of `embedding.stage.own_vectors`, by the image tower of each model.
        models: base and finetuned are analyzed. Peers, which stage 04 compares, are not, so that adding one leaves
            this stage done.
    """
    arithmetic_stage = stage(config, images)
    if arithmetic_stage.done():
        say(f"{FOLDER}: done already, read from {arithmetic_stage.folder}")
        return read(config)
    vectors.check({name: models[name] for name in ("base", "finetuned")})
    with arithmetic_stage.work():
        tables, picture_files = _tables(config, images, vectors, models, arithmetic_stage)
        for name, table in tables.items():
            write_parquet(arithmetic_stage.folder / f"{name}.parquet", table)
        counts = {
            "pairs": len(tables["items"].drop_duplicates(["first", "second"])),
            "changes": len(config.arithmetic.changes),
            "claims": len(tables["claims"]),
            "pictures": len(picture_files),
            "left_out": by_reason(tables["composed_left_out"]),
        }
        arithmetic_stage.finish([*(f"{name}.parquet" for name in TABLES), *picture_files], counts)
    return tables


def read(config: Config) -> dict[str, pd.DataFrame]:
    """The tables of the finished stage by name. Raises PcclipError when one is missing or has changed."""
    return {name: read_output(config.folder / FOLDER, f"{name}.parquet") for name in TABLES}


def _tables(
    config: Config, images: ImageSet, vectors: Vectors, models: dict[str, Encoder], arithmetic_stage: Stage
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Every table, and the names of the picture files."""
    settings, held_out, readers = config.arithmetic, held_out_pairs(config, images, vectors), with_memory(models)
    items = geometry.item_table(held_out, readers, settings.strength)
    changes = retrieval.change_table(config, held_out, readers)
    measures = geometry.measure(held_out, readers)
    alphas = sorted({0.0, settings.strength, *ALPHAS, float("inf")})
    sweeps = retrieval.sweeps(held_out, readers, alphas)
    sets = composed.load(config)
    picture_table, picture_files = pictures.picture_table(config, held_out, readers, arithmetic_stage.folder)
    return {
        "items": items,
        "changes": changes,
        "geometry": geometry.table(measures),
        "sweep": retrieval.table(sweeps),
        "claims": claims.table(measures, sweeps, settings.strength),
        "composed": composed.table(config, sets, readers, alphas),
        "composed_left_out": left_out(config, sets),
        "pictures": picture_table,
    }, picture_files
