"""Stage 05: does the embedding space obey arithmetic, how much did finetuning change that, and what is it good for?

Alignment: where f(d) points, against the image difference and the caption difference, right way round and reversed.
Geometry: whether it adds up, makes parallelograms, fills the space. Retrieval: does image + f(difference) land on the
image that was meant? Claims: which of them hold here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import pandas as pd

from pcclip.arithmetic import claims as claim_table
from pcclip.arithmetic import composed, explain, geometry, pictures
from pcclip.arithmetic.retrieval import changes, forms, neighbours_of, rank_share, sweep, sweep_table
from pcclip.arithmetic.texts import Remembered
from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.registry import missing_benchmarks
from pcclip.comparisons import stage as generate
from pcclip.comparisons.attributes import load_bank
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.stage import FOLDER as EMBED
from pcclip.embedding.stage import shared_inputs
from pcclip.embedding.vectors import Vectors
from pcclip.encoders import identify, load_model
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.finetuning.stage import FOLDER as FINETUNE
from pcclip.runs.files import atomic, disk_errors, read_parquet, write_parquet
from pcclip.runs.progress import say
from pcclip.runs.stage import Stage, built_on
from pcclip.stats import metrics as statistics
from pcclip.stats.vectors import cosines, image_differences, unit

__all__ = [
    "CHANGES",
    "FOLDER",
    "ITEMS",
    "Tables",
    "analyze",
    "bank",
    "changes",
    "check_changes",
    "measures",
    "neighbours_of",
    "rank_share",
    "read",
    "remembered",
    "shown_pairs",
    "stage",
    "summary",
]

FOLDER, ITEMS, CHANGES = "05_arithmetic", "items.parquet", "changes.parquet"
_FORMAT = 3
_MADE = "pictures"  # a folder beside the tables


@dataclass(frozen=True)
class Tables:
    """What the stage wrote, beside items and changes; each is a file of that name.

    Attributes:
        geometry: metric, model, control, value, ci_low, ci_high, n.
        spectra: what, model, component, share.
        sweep: model, form, alpha, metric, value, ci_low, ci_high, n.
        claims: claim, of, number, ci_low, ci_high, holds, how, n.
        explanations: pair, first, second, model, position, of, text, source, score, own.
        calibration: model, confidence, accuracy, ci_low, ci_high, n.
        composed: dataset, model, form, alpha, metric, value, ci_low, ci_high, n; empty where no set was asked for.
        pictures: row, what, model, kind, picture, start, wanted, before, clip_score, directional.
    """

    geometry: pd.DataFrame
    spectra: pd.DataFrame
    sweep: pd.DataFrame
    claims: pd.DataFrame
    explanations: pd.DataFrame
    calibration: pd.DataFrame
    composed: pd.DataFrame
    pictures: pd.DataFrame


def stage(config: Config, images: ImageSet | None = None, sets: Mapping[str, Benchmark] | None = None) -> Stage:
    """`sets` are those of composed retrieval, read here when None.

    Raises PcclipError when an earlier stage has not finished, or a named set, judge or attribute bank is missing.
    """
    asks, settings = {}, config.arithmetic
    if settings.composed:
        sets = composed.load(config) if sets is None else sets
        asks["sets"] = {name: found.identity() for name, found in sets.items()}
    if config.generate.attributes:
        asks["attributes"] = load_bank(config.generate.attributes).hash
    if settings.judge:
        asks["judge"] = _judge_identity(config)
    return Stage(
        config.folder / FOLDER,
        {
            "format": _FORMAT,
            "arithmetic": settings.model_dump(),
            "alpha": config.evaluate.alpha,
            "bootstrap": config.evaluate.bootstrap,
            "temperature": config.finetune.temperature,
            **asks,
            **built_on(
                (config.source_folder / generate.FOLDER, config.source_folder / EMBED, config.folder / FINETUNE),
                shared_inputs(config, images),
            ),
        },
    )


def analyze(
    config: Config, images: ImageSet, vectors: Vectors, models: dict[str, Encoder]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the stage, or read it when done; `read` has its other tables.

    `vectors` are those of `embed.own_vectors`: each model sees by its own image tower. Of `models` base and finetuned
    are analyzed: peers, which 04 compares, are not, so adding one leaves this as it is.

    Returns:
        items: one row per held-out pair, model and measure (columns first, second, model, measure, value);
        changes: the photos nearest to image + text difference (columns model, start, text, position, id, path, cosine).
    """
    sets = composed.load(config)
    this = stage(config, images, sets)
    if this.done():
        say(f"{FOLDER}: done already, read from {this.folder}")
        return tuple(read_parquet(this.folder / name).to_pandas() for name in (ITEMS, CHANGES))
    models = {which: models[which] for which in ("base", "finetuned")}
    vectors.check(models)
    with this.work():
        known = remembered(models)
        pairs = generate.template_pairs(vectors.of(images.held_out), config.arithmetic.pairs, config.seed)
        items = pd.concat(
            [
                measures(model, vectors.seen_by(which), images, pairs, config.arithmetic.strength).assign(model=which)
                for which, model in known.items()
            ],
            ignore_index=True,
        )
        changed = pd.concat(
            [
                changes(config, images, vectors.seen_by(which), model).assign(model=which)
                for which, model in known.items()
            ],
            ignore_index=True,
        )
        tables = _tables(config, images, vectors, pairs, known, sets)
        shown, made = _pictures(config, images, vectors, known, this)
        for name, table in {
            ITEMS: items,
            CHANGES: changed,
            **{_file(name): table for name, table in tables.items()},
            _file("pictures"): shown,
        }.items():
            write_parquet(this.folder / name, table)
        this.finish(
            [ITEMS, CHANGES, *map(_file, Tables.__dataclass_fields__), *made],
            {
                "pairs": len(pairs),
                "changes": len(config.arithmetic.changes),
                "claims": len(tables["claims"]),
                "pictures": len(made),
            },
        )
    return items, changed


def read(config: Config) -> Tables:
    """The tables of the finished stage. Raises PcclipError when one is not there."""
    folder = config.folder / FOLDER
    return Tables(**{name: read_parquet(folder / _file(name)).to_pandas() for name in Tables.__dataclass_fields__})


def remembered(models: dict[str, Encoder]) -> dict[str, Remembered]:
    """The models, each with a memory for the texts it has read."""
    return {which: Remembered(model) for which, model in models.items()}


def bank(config: Config) -> explain.Bank:
    """The sentences that explain a difference, from 01's table and the run's attribute bank. Raises PcclipError."""
    return explain.bank_of(_comparisons(config), config.generate.attributes, config.arithmetic.sentences, config.seed)


def shown_pairs(config: Config) -> pd.DataFrame:
    """The pairs that are explained, with 01's sentences: what the map draws arrows for."""
    found = read(config).explanations.drop_duplicates("pair")
    kept = generate.kept(_comparisons(config), "held_out").drop_duplicates(["first", "second"])
    return found[["first", "second"]].merge(kept, on=["first", "second"])


def measures(
    model: Remembered | Encoder, vectors: Vectors, images: ImageSet, pairs: pd.DataFrame, strength: float
) -> pd.DataFrame:
    """Every measure of every pair: cosines with the image and the caption difference, and the target's rank share."""
    first, second = vectors.rows(pairs["first"]), vectors.rows(pairs["second"])
    v = image_differences(vectors.matrix, first, second)
    right, reverse = model.encode_texts(list(pairs.difference)), model.encode_texts(list(pairs.swapped))
    captions = unit(model.encode_texts(list(pairs.first_caption)) - model.encode_texts(list(pairs.second_caption)))
    pool = vectors.rows(vectors.of(images.held_out)["id"])
    values = {
        "image difference": cosines(right, v),
        "image difference, reversed text": cosines(reverse, v),
        "caption difference": cosines(right, captions),
        "caption difference, reversed text": cosines(reverse, captions),
        "retrieval rank, image alone": rank_share(vectors.matrix, pool, first, second, 0 * right),
        "retrieval rank, image + text": rank_share(vectors.matrix, pool, first, second, strength * right),
    }
    return pd.concat(
        [
            pd.DataFrame(
                {"first": pairs["first"], "second": pairs["second"], "measure": name, "value": value.astype(float)}
            )
            for name, value in values.items()
        ]
    )


def check_changes(config: Config, images: ImageSet) -> None:
    """What stage 05 is asked for is there, told before any work.

    Raises PcclipError when a change starts from a concept that the image set does not have, a composed set is not
    there, the judge is no model or the run's own, or a decoder is asked for without diffusers.
    """
    if lines := missing_benchmarks(config, ["composed_retrieval"]):
        raise PcclipError("; ".join(lines))
    if config.arithmetic.decoder:
        pictures.check_installed()
    _judge_identity(config)
    known = sorted(set(images.table.concept))
    for change in config.arithmetic.changes:
        if change.start not in known:
            near = get_close_matches(change.start, known, n=3) or known[:10]
            raise PcclipError(f"arithmetic.changes: {images.name} has no {change.start!r}; it has: {', '.join(near)}")


def summary(items: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Mean of each measure and model with a 95% interval from resampled images: one row per measure and model."""
    rows = []
    for (measure, model), part in items.groupby(["measure", "model"], sort=False):
        values, first, second = (part[name].to_numpy() for name in ("value", "first", "second"))
        estimate = statistics.mean(values, first, second, draws, seed)
        low, high = estimate.interval
        rows.append(
            {
                "measure": measure,
                "model": model,
                "value": estimate.value,
                "ci_low": low,
                "ci_high": high,
                "n": estimate.n,
            }
        )
    return pd.DataFrame(rows)


def _tables(
    config: Config,
    images: ImageSet,
    vectors: Vectors,
    pairs: pd.DataFrame,
    known: dict[str, Remembered],
    sets: Mapping[str, Benchmark],
) -> dict[str, pd.DataFrame]:
    """All tables of Tables but the pictures."""
    settings, draws, seed = config.arithmetic, config.evaluate.bootstrap, config.seed
    held_out = vectors.of(images.held_out)
    triples = geometry.draw_triples(held_out, pairs, settings.triples, seed)
    asked = geometry.Asked(vectors, held_out, pairs, triples, settings.quadruples, draws, seed)
    found = geometry.measure(asked, known)
    alphas = sorted({0.0, settings.strength, *settings.alphas, float("inf")})
    swept = {
        which: sweep(
            vectors.seen_by(which).matrix,
            asked.held_out,
            *asked.sides.T,
            forms(model, pairs, seed),
            draws,
            seed,
            alphas,
        )
        for which, model in known.items()
    }
    comparisons, sentences = _comparisons(config), bank(config)
    calibrated = []
    for which, model in known.items():
        own = vectors.seen_by(which)
        v = image_differences(own.matrix, *asked.sides.T)
        found |= {
            (metric, which, control): one
            for (metric, control), one in explain.own_rank(model, own, comparisons, sentences, draws, seed).items()
        }
        sure = explain.two_way(
            v,
            model.encode_texts(list(pairs.difference)),
            model.encode_texts(list(pairs.swapped)),
            config.finetune.temperature,
        )
        curve, error = explain.calibration(*sure, asked.sides, draws, seed)
        found["calibration error, two texts", which, "none"] = error
        calibrated.append(curve.assign(model=which))
    return {
        "geometry": geometry.table(found),
        "spectra": geometry.spectra(asked, known),
        "sweep": sweep_table(swept),
        "claims": claim_table.judged(found, swept, settings.strength),
        "explanations": explain.explanations(known, vectors, comparisons, sentences, settings.explained, seed),
        "calibration": pd.concat(calibrated, ignore_index=True),
        "composed": composed.score(config, sets, known, alphas),
    }


def _pictures(
    config: Config, images: ImageSet, vectors: Vectors, known: dict[str, Remembered], this: Stage
) -> tuple[pd.DataFrame, list[str]]:
    """The table of pictures, and the files among them that were made, relative to the stage's folder."""
    wanted = pictures.asked(config, images, vectors, known)
    judge = load_model(config.arithmetic.judge) if config.arithmetic.judge else None
    if config.arithmetic.decoder is None:
        return pictures.table(wanted, pictures.stand_ins(wanted, images, vectors), pictures.STAND_IN, judge), []
    decoder = pictures.Decoder(config.arithmetic.decoder, config.arithmetic.decoder_steps)
    names = [f"{_MADE}/{k:03d}.png" for k in range(len(wanted))]
    with disk_errors(this.folder):
        (this.folder / _MADE).mkdir(exist_ok=True)
    for name, picture in zip(names, pictures.made(wanted, decoder, config.seed), strict=True):
        with atomic(this.folder / name) as temporary:
            picture.save(temporary, "PNG")
    shown = pictures.table(wanted, [str(this.folder / name) for name in names], pictures.DECODED, judge)
    return shown, names


def _judge_identity(config: Config) -> str | None:
    """What the judge of the pictures stands for. Raises PcclipError when it is the model whose vectors they are."""
    spec = config.arithmetic.judge
    identity = spec and identify(spec)
    if identity and identity == identify(config.model):
        raise PcclipError(
            f"arithmetic.judge = {spec}: the model whose vectors are decoded; a picture is judged by another one"
        )
    return identity


def _comparisons(config: Config) -> pd.DataFrame:
    return read_parquet(config.source_folder / generate.FOLDER / generate.TABLE).to_pandas()


def _file(name: str) -> str:
    return f"{name}.parquet"
