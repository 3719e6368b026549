"""The report of a run: one HTML page that opens offline, with figures, photos and style inside it.

It reads what the stages left behind, and captions from the image set where that is here. A stage that has not finished
is named where its part would be. All text of the run reaches the page through a template that escapes it, and the page
itself forbids scripts and any loading. The same files give the same bytes.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from pcclip import plots
from pcclip.arithmetic import stage as arithmetic
from pcclip.comparisons import stage as generate
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Config
from pcclip.data.image_set import ImageSet, load_images, missing, to_fetch
from pcclip.embedding import stage as embed
from pcclip.embedding import vectors as embed_vectors
from pcclip.errors import PcclipError
from pcclip.evaluation import page
from pcclip.evaluation import stage as report
from pcclip.evaluation.protocols import NOTES
from pcclip.finetuning import stage as trainer
from pcclip.runs.files import atomic, read_parquet
from pcclip.runs.stage import read_manifest
from pcclip.stats import metrics as statistics

STAGES = (generate.FOLDER, embed.FOLDER, trainer.FOLDER, report.FOLDER, arithmetic.FOLDER)
_STRIP, _PAIRS, _ROWS = 8, 3, 40  # photos a strip, pairs a data set, rows of a long table
_ESTIMATORS = ("two_prompt", "antisymmetric", "one_sided")  # the first that there is shows an attribute's ranking
_BLOCKS = ("seed", "generate", "finetune", "evaluate", "arithmetic")  # what manifests have of the parameters
_NUMBERS = (
    "value",
    "ci_low",
    "ci_high",
    "finetuned_minus_base",
    "difference",
    "p_mcnemar",
    "p_bootstrap",
    "p_holm",
    "plain",
    "comparative",
    "tokens_in",
    "tokens_out",
    "money",
)


def write(config: Config, folder: Path) -> Path:
    """Write FOLDER/report.html about the run in `folder`, of which `config` holds the parameters. Returns its path.

    Raises:
        PcclipError: no stage of the run has finished, or a finished one's file cannot be read.
    """
    run = _Run(config, Path(folder))
    if not run.manifests:
        raise PcclipError(f"{folder}: no stage has finished here, so there is nothing to report; run notebook 01 first")
    with plt.rc_context():
        plots.style()
        plt.rcParams["legend.frameon"] = False
        parts = (
            _what_was_run,
            _data,
            _training,
            _results,
            _comparative,
            _judge,
            _rankings,
            _failures,
            _arithmetic,
            _protocols,
            _provenance,
        )
        sections = [found for part in parts if (found := part(run))]
        text = page.render(run=config.run, lead=run.lead, warnings=run.warnings, tiles=_tiles(run), sections=sections)
    with atomic(run.folder / report.PAGE) as temporary:
        temporary.write_text(text, encoding="utf8")
    return run.folder / report.PAGE


class _Run:
    """What a run left behind: `manifests` of the stages that finished, and tables, None for those of the others."""

    def __init__(self, config: Config, folder: Path):
        self.config, self.folder = config, folder
        self.stages = STAGES[:-1] if config.tuned else STAGES  # of another run's finetuned model 05 is not run
        self.early = config.source_folder if config.reuse or config.tuned else folder
        self.tuned = config.tuned_folder if config.tuned else folder
        others = sorted(path.parent.name for path in folder.glob("[0-9][0-9]_*/manifest.json"))
        found = {name: read_manifest(self.place(name)) for name in dict.fromkeys([*self.stages, *others])}
        self.manifests = {name: manifest for name, manifest in found.items() if manifest}
        self.comparisons = self.table(generate.FOLDER, generate.TABLE)
        self.left_out = self.table(generate.FOLDER, generate.LEFT_OUT)
        self.bad = self.table(embed.FOLDER, embed.BAD)
        self.curves = self.table(trainer.FOLDER, "curves.csv")
        self.metrics = self.table(report.FOLDER, f"../{report.METRICS}")
        self.predictions = self.table(report.FOLDER, report.PREDICTIONS)
        self.arithmetic = self.table(arithmetic.FOLDER, arithmetic.ITEMS)
        self.values, changed = _parameters(config, self.manifests)
        self.paired = self._paired()
        places = self.table(embed.FOLDER, embed_vectors.TABLE, ["id", "path"])
        self.paths = {} if places is None else dict(zip(places["id"], places["path"], strict=True))
        self.images = _image_set(config)
        table = self.images.table if self.images else pd.DataFrame({"id": [], "caption": []})
        self.captions = dict(zip(table["id"], table["caption"], strict=True))
        self.warnings = self._warnings(changed)

    @property
    def lead(self) -> str:
        images = self.manifests.get(embed.FOLDER, {}).get("counts", {}).get("images")
        counted = f", {images:,} images" if images else ""
        return f"{self.config.model} on {self.config.data.source}{counted}, seed {self.values['seed']}"

    def place(self, stage: str) -> Path:
        homes = {generate.FOLDER: self.early, embed.FOLDER: self.early, trainer.FOLDER: self.tuned}
        return homes.get(stage, self.folder) / stage

    def table(self, stage: str, name: str, columns: list[str] | None = None) -> pd.DataFrame | None:
        """A file of a finished stage; None when it has not finished or wrote no such file."""
        if name not in self.manifests.get(stage, {}).get("outputs", {}):
            return None
        path = self.place(stage) / name
        if not name.endswith(".csv"):
            table = read_parquet(path)
            return (table.select(columns) if columns else table).to_pandas()
        try:
            return pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in _NUMBERS})
        except (OSError, ValueError) as error:
            raise PcclipError(f"{path}: cannot be read ({error}); run the notebook of {stage} again") from None

    def photo(self, image: str, value: str = "") -> dict:
        return page.photo(self.paths.get(image), self.captions.get(image) or str(image), value)

    def pair(self, first: str, second: str, sentence: str, note: str = "") -> dict:
        return {"first": self.photo(first), "second": self.photo(second), "sentence": sentence, "note": note}

    def _paired(self) -> pd.DataFrame | None:
        """Differences with p values: as stored, else from the predictions by the run's own draws."""
        stored = self.table(report.FOLDER, report.DIFFERENCES)
        if stored is None or "p_holm" in stored or not {"base", "finetuned"} <= set(self.predictions.model):
            return stored
        return statistics.compare(
            self.predictions, "finetuned", "base", self.values["evaluate.bootstrap"], self.values["seed"]
        )

    def _warnings(self, changed: list[str]) -> list[str]:
        found = [f"{name} has not finished; its part is missing." for name in self.stages if name not in self.manifests]
        for name, manifest in self.manifests.items():
            sizes = {file: told["bytes"] for file, told in manifest["outputs"].items()}
            other = [file for file, size in sizes.items() if not _has_size(self.place(name) / file, size)]
            found += [f"{name}: {', '.join(other)}: not as the stage left it."] if other else []
        if changed:
            found.append(f"The parameters have changed since ({'; '.join(changed)} now); below are those of the run.")
        return found


# sections


def _what_was_run(run: _Run) -> dict:
    names, defaults = dict.fromkeys([*run.stages, *run.manifests]), _flat(Config().model_dump())
    stages = [[name, *_state(run.manifests.get(name))] for name in names]
    rows = [[key, _shown(value)] for key, value in run.values.items()]
    own = [row for row in rows if run.values[row[0]] != defaults.get(row[0])]
    return page.section(
        "run",
        "What was run",
        "",
        [
            page.table(["stage", "state", "seconds", "finished (UTC)", "counts"], stages),
            page.tight(page.table(["parameter", "value"], own, "Parameters that are not the defaults")),
            page.folded("All parameters", page.table(["parameter", "value"], rows)),
        ],
    )


def _data(run: _Run) -> dict:
    parts = [_unfinished(generate.FOLDER)]
    if run.comparisons is not None:
        counts = pd.crosstab(run.comparisons.verdict, run.comparisons["split"])
        order = sorted(counts.index, key=lambda name: (name != "kept", -counts.loc[name].sum(), name))
        rows = [[name, *counts.loc[name]] for name in order]
        parts = [
            page.table(
                ["verdict", *map(plots.words, counts.columns)],
                rows,
                "Sentences: kept, and dropped by the first rule that they broke",
            )
        ]
        kept = generate.kept(run.comparisons, "held_out").head(_PAIRS)
        if len(kept):
            parts += [
                page.heading("The first held-out pairs with a sentence that was kept"),
                page.pairs([run.pair(row.first, row.second, row.difference) for row in kept.itertuples()]),
            ]
    return page.section(
        "data",
        "Images and comparisons",
        "",
        [
            *parts,
            page.heading("Left out of the image set"),
            *_reasons(run, run.left_out, generate.FOLDER),
            page.heading("Images that could not be read"),
            *_reasons(run, run.bad, embed.FOLDER),
        ],
    )


def _training(run: _Run) -> dict:
    if run.curves is None:
        return page.section("training", "Training", "", [_unfinished(trainer.FOLDER)])
    held_out = run.curves[run.curves["split"] == "held_out"].sort_values("step", kind="stable")
    rows = [
        [plots.words(metric), f"{part.value.iloc[0]:.3f}", f"{part.value.iloc[-1]:.3f}"]
        for metric, part in held_out.groupby("metric", sort=False)
    ]
    return page.section(
        "training",
        "Training",
        "",
        [
            page.figure(
                plots.curves(run.curves),
                "Training and held-out curves. Nothing is chosen by them: the last step is the model.",
            ),
            page.table(["held out", "first step", "last step"], rows),
        ],
    )


def _results(run: _Run) -> dict:
    text = (
        "Held-out images, the same texts for every model. In brackets 95% intervals from resampled images. A star: "
        "the difference's p value, adjusted by Holm's method for the data sets of its task, is below 0.05."
    )
    if run.metrics is None:
        return page.section("results", "Results", "", [_unfinished(report.FOLDER)])
    parts = [page.results(title, table.T) for title, table in plots.tables(run.metrics, run.paired).items()]
    if run.metrics.metric.str.endswith("_share").any():
        parts.append(
            page.text(
                "A share is what a text axis reaches of the supervised axis, which is fitted to the "
                "true values of training photos, seen by the base's image tower: 1 is as good, and "
                "there is none where that axis may itself be at chance. Of pairwise accuracy, chance is "
                "taken off both."
            )
        )
    if run.paired is not None and len(run.paired):
        parts += [
            page.heading("Paired differences"),
            page.figure(
                plots.forest(run.paired),
                "Differences on the same items and resamples, with 95% intervals. One that does "
                "not hold 0 is a change that these images support; what another training seed would do is not in it.",
            ),
        ]
    if run.paired is not None and "test" in run.paired:
        rows = [
            [
                row.what,
                plots.words(row.metric),
                f"{row.difference:+.3f}",
                *map(_p, (row.p_mcnemar, row.p_bootstrap)),
                plots.words(row.test),
                _p(row.p_holm),
            ]
            for row in plots.differences(run.paired).itertuples()
        ]
        head = ["", "metric", "difference", "McNemar p", "bootstrap p", "the one that counts", "adjusted by Holm"]
        parts += [
            page.text(
                "Items that share images, as pairs do, are not independent, and McNemar's test is too sure "
                "of itself there: for them, and for rankings, the bootstrap over images counts."
            ),
            page.folded("All p values", page.table(head, rows)),
        ]
    return page.section("results", "Results", text, parts)


def _comparative(run: _Run) -> dict | None:
    """What comparative prompting is worth: tested, what was tried, and where and why it helps and hurts."""
    gains, tried = run.table(report.FOLDER, report.GAINS), run.table(report.FOLDER, report.COMPARATIVE)
    if gains is None or not len(gains):
        return None
    head = [
        "data set",
        "form",
        "protocol",
        "model",
        "plain",
        "comparative",
        "helped",
        "hurt",
        "difference",
        "p",
        "adjusted by Holm",
    ]
    rows = [
        [
            row.dataset,
            row.form,
            plots.words(row.protocol),
            row.model,
            f"{row.plain:.3f}",
            f"{row.comparative:.3f}",
            row.helped,
            row.hurt,
            page.minus(f"{row.difference:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}]"),
            _p(row.p_mcnemar if row.test == "mcnemar" else row.p_bootstrap),
            _p(row.p_holm),
        ]
        for row in gains.itertuples()
    ]
    parts = [page.table(head, rows)]
    parts.append(
        page.figure(
            plots.alpha_sweep(tried.assign(dataset=tried.dataset + ", " + tried.form)),
            "Accuracy on tune images at each alpha, with a ring around the chosen one. Alpha 1 is plain zero-shot.",
        )
    )
    classes = run.table(report.FOLDER, report.CLASSES)
    pairs = run.table(report.FOLDER, report.PAIRS)
    pairs = pairs.assign(name=pairs["first"] + ", " + pairs.second)
    for table, what, fits in ((classes, "class", []), (pairs, "pair", ["names_fit", "text_fit"])):
        parts += (
            [
                page.table(
                    [
                        "data set",
                        "model",
                        what,
                        "images",
                        "plain",
                        "comparative",
                        "helped",
                        "hurt",
                        *map(plots.words, fits),
                    ],
                    [
                        [
                            row.dataset,
                            row.model,
                            row.name,
                            row.n,
                            _share(row.plain),
                            _share(row.comparative),
                            row.helped,
                            row.hurt,
                            *(f"{getattr(row, fit):.2f}" for fit in fits),
                        ]
                        for row in _ends(table).itertuples(index=False)
                    ],
                    f"Each {what} that it hurts and helps most",
                )
            ]
            if len(table)
            else []
        )
    text = (
        "The same model with comparative prompting and without, on the same images: those newly right (helped), "
        "newly wrong (hurt), and the paired difference. Pairs of classes are chosen on one half of the tune "
        "images, alpha on the other. A pair's images are those of its two classes that both ways take "
        "for one of the two; names fit and text fit "
        "are the cosines of the names' difference, and of the text's, with that of the classes' mean images."
    )
    return page.section("comparative", "Comparative prompting", text, parts)


def _judge(run: _Run) -> dict | None:
    """What the language model cost that was asked as a judge."""
    cost = run.table(report.FOLDER, report.JUDGE)
    if cost is None or not len(cost):
        return None
    rows = [
        [plots.words(name), "" if pd.isna(value) else value if isinstance(value, str) else f"{value:,.10g}"]
        for name, value in cost.iloc[0].items()
    ]
    text = (
        "The language model as one more row of the results. Tokens and money are of the replies that said how many "
        "tokens they took (metered); seconds are summed over requests in flight at the same time."
    )
    return page.section("judge", "The judge's cost", text, [page.table(["", ""], rows)])


def _rankings(run: _Run) -> dict | None:
    """The ends of each attribute's ranking, before and after; nothing where the photos are not the run's own."""
    if run.predictions is None:
        return None
    ranked, parts = run.predictions[run.predictions.task == "ranking"], []
    ranked = ranked[ranked["first"].isin(list(run.paths))]
    for dataset in _one_for_each_attribute(dict.fromkeys(ranked.dataset)):
        parts.append(page.heading(dataset))
        for model in plots.MODELS:
            items = ranked[(ranked.dataset == dataset) & (ranked.model == model)]
            items = items.sort_values("score", ascending=False, kind="stable")
            size = min(_STRIP, len(items) // 2)
            for end, part in (("most", items.head(size)), ("least", items.tail(size))):
                parts += (
                    [
                        page.heading(f"{end}, says {model}", 2),
                        page.photos([run.photo(row.first, f"{row.reference:.4g}") for row in part.itertuples()]),
                    ]
                    if size
                    else []
                )
    text = (
        "Held-out photos whose true value is known (below each photo), from the largest projection on the axis of "
        "the attribute to the smallest."
    )
    return page.section("rankings", "Rankings", text, parts) if parts else None


def _failures(run: _Run) -> dict | None:
    """The pairs that the finetuned model got most wrong, and the classes it took for each other."""
    if run.predictions is None:
        return None
    model = "finetuned" if "finetuned" in set(run.predictions.model) else run.predictions.model.iloc[-1]
    own, parts = run.predictions[run.predictions.model == model], []
    written = (
        {}
        if run.comparisons is None
        else {
            (row.first, row.second): row.difference for row in generate.kept(run.comparisons, "held_out").itertuples()
        }
    )
    for task, what in (("difference_order", "for its swapped twin"), ("difference_classification", "to be right")):
        mine = own[(own.task == task) & own["first"].isin(list(run.paths))]
        for dataset, items in mine.groupby("dataset", sort=False):
            wrong = items[~items.correct.astype(bool)]
            worst = wrong.loc[(wrong.score - wrong.reference).nsmallest(_PAIRS).index]
            sentences = written if dataset.endswith("/llm") else {}
            title = f"{plots.TABLES[task]}, {dataset}: {len(wrong):,} of {len(items):,} wrong"
            parts += [
                page.heading(title),
                page.pairs(
                    [
                        run.pair(
                            row.first,
                            row.second,
                            sentences.get((row.first, row.second)) or _from_template(run, row),
                            page.minus(f"cosine {row.score:.3f}, against {row.reference:.3f} {what}"),
                        )
                        for row in worst.itertuples()
                    ]
                ),
            ]
    parts += _confusions(run, own[(own.task == "zero_shot") & (own.dataset == run.config.data.source)])
    text = f"What {model} judged most wrongly: held-out pairs by how far the wrong side was ahead."
    return page.section("failures", "Failures", text, parts) if parts else None


def _arithmetic(run: _Run) -> dict | None:
    if run.config.tuned:
        return None
    if run.arithmetic is None:
        return page.section("arithmetic", "Embedding arithmetic", "", [_unfinished(arithmetic.FOLDER)])
    summary = arithmetic.summary(run.arithmetic, run.values["evaluate.bootstrap"], run.values["seed"])
    shown = ["image difference", "image difference, reversed text"]
    text = (
        "Does the text of a difference lie along the difference of the images, and does an image plus that text "
        "find the image that was meant?"
    )
    return page.section(
        "arithmetic",
        "Embedding arithmetic",
        text,
        [
            page.results(
                "Mean cosine; and rank of the image that was meant, as a share: 0 is first, 0.5 is chance",
                plots.paper_table(summary.rename(columns={"measure": "dataset"})).T,
            ),
            page.figure(
                plots.distributions(run.arithmetic, shown),
                "Cosine of the text with the image difference. A model "
                "that knows which image is which has the reversed text on the other side of 0.",
            ),
        ],
    )


def _protocols(run: _Run) -> dict | None:
    if run.metrics is None:
        return None
    metrics = run.metrics.assign(protocol=run.metrics.get("protocol", ""))
    names = {*metrics.task[metrics.task.str.startswith("difference_")]}  # each of these is one of the protocols
    names |= {*metrics[["task", "dataset"]][metrics.protocol != ""].to_numpy().ravel()}
    notes = [note for start, note in NOTES.items() if any(name.startswith(start) for name in names)]
    text = "What the paper's released code scores, and what is done here beside it or instead."
    return page.section("protocols", "Protocols", text, [page.lines(notes)]) if notes else None


def _provenance(run: _Run) -> dict:
    came_in, came_out, programs = [], [], {}
    for name, manifest in run.manifests.items():
        came_in += [
            [name, key, value[:16]]
            for key, value in _flat(manifest["inputs"]).items()
            if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{12,64}", value)
        ]
        came_out += [
            [name, file, f"{told['bytes']:,}", told["sha256"][:16]] for file, told in manifest["outputs"].items()
        ]
        for program, version in manifest.get("versions", {}).items():
            programs.setdefault(program, {}).setdefault(version or "none", []).append(name)
    rows = [
        [
            program,
            "; ".join(
                version if len(found) == 1 else f"{version} ({', '.join(stages)})" for version, stages in found.items()
            ),
        ]
        for program, found in programs.items()
    ]
    return page.section(
        "provenance",
        "Provenance",
        "From the stages' manifests; of each hash the first 16 digits.",
        [
            page.table(["program", "version"], rows),
            page.folded("Hashes of what went in", page.table(["stage", "input", "hash"], came_in)),
            page.folded("SHA-256 of what came out", page.table(["stage", "file", "bytes", "hash"], came_out)),
        ],
    )


# parts of sections


def _tiles(run: _Run) -> list[dict]:
    """Accuracies at a glance: finetuned against base, task by task, rankings aside."""
    if run.metrics is None or run.paired is None:
        return []
    keys = [key for key in ("task", "dataset", "protocol") if key in run.metrics and key in run.paired]
    change = plots.differences(run.paired)
    change = change[(change.metric == "accuracy") & (change.name == "finetuned - base")].head(8)
    values = run.metrics[run.metrics.metric == "accuracy"].pivot(index=keys, columns="model", values="value")
    both = change.join(values[["base", "finetuned"]], on=keys) if len(change) else change
    return [
        {
            "name": row.what,
            "before": f"{row.base:.3f}",
            "after": f"{row.finetuned:.3f}",
            "difference": page.minus(f"{row.difference:+.3f}"),
            "sure": row.p_holm < 0.05,
            "interval": page.minus(f"[{row.ci_low:+.3f}, {row.ci_high:+.3f}]"),
        }
        for row in both.itertuples()
    ]


def _ends(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that lost most and that won most, the worst first; those where nothing changed are left out."""
    gain = table.helped - table.hurt
    table = table[gain != 0].assign(gain=gain).sort_values("gain", kind="stable")
    return table if len(table) <= 2 * _STRIP else pd.concat([table.head(_STRIP), table.tail(_STRIP)])


def _share(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def _unfinished(stage: str) -> dict:
    return page.warning(f"{stage} has not finished: run its notebook, then write this report again.")


def _reasons(run: _Run, table: pd.DataFrame | None, stage: str) -> list[dict]:
    """How many images for each reason, and which."""
    if stage not in run.manifests:
        return [_unfinished(stage)]
    if table is None:
        return [page.text("This run did not record them.")]
    if not len(table):
        return [page.text("None.")]
    counts = table.reason.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    more = f", the first {_ROWS} of {len(table):,}" if len(table) > _ROWS else ""
    return [
        page.table(["reason", "images"], list(counts.items())),
        page.folded(
            f"Which ones{more}",
            page.table(["file", "reason"], table.head(_ROWS)[["path", "reason"]].to_numpy().tolist()),
        ),
    ]


def _confusions(run: _Run, items: pd.DataFrame) -> list[dict]:
    """The classes of the run's own images that were most often taken for each other."""
    classes, wrong = run.images.classes if run.images else [], items[~items.correct.astype(bool)]
    if not len(wrong) or wrong[["score", "reference"]].max(axis=None) >= len(classes):
        return []  # none, or the image set is not here as it was
    counts = wrong.groupby(["reference", "score"]).size().sort_values(ascending=False, kind="stable").head(_STRIP)
    of = items.groupby("reference").size()
    rows = [[classes[int(right)], classes[int(found)], f"{n} of {of[right]}"] for (right, found), n in counts.items()]
    return [
        page.heading(f"Zero-shot classification: {len(wrong):,} of {len(items):,} wrong"),
        page.table(["class", "taken for", "images"], rows, "Most often"),
    ]


def _from_template(run: _Run, row) -> str:
    captions = [run.captions.get(image) for image in (row.first, row.second)]
    return from_captions(*captions) if all(captions) else ""


def _one_for_each_attribute(datasets: Iterable[str]) -> list[str]:
    """Of the rankings NAME/ATTRIBUTE/ESTIMATOR one for each attribute."""
    found = {}
    for dataset in datasets:
        found.setdefault(dataset.rpartition("/")[0], []).append(dataset)
    return [
        min(some, key=lambda name: [*_ESTIMATORS, name.rpartition("/")[2]].index(name.rpartition("/")[2]))
        for some in found.values()
    ]


# what a run's files say


def _image_set(config: Config) -> ImageSet | None:
    """The image set, for captions and classes; None where it is not here, for nothing is fetched."""
    try:
        return None if missing(config.data) or to_fetch(config.data) else load_images(config)
    except PcclipError:
        return None


def _parameters(config: Config, manifests: dict) -> tuple[dict, list[str]]:
    """All parameters by dotted names, those that a stage recorded as it did; and which of them config has otherwise."""
    values, recorded = _flat(config.model_dump()), {}
    for stage in STAGES:
        inputs = manifests.get(stage, {}).get("inputs", {})
        recorded |= _flat({name: inputs[name] for name in _BLOCKS if name in inputs})
    recorded = {key: value for key, value in recorded.items() if key in values}
    return values | recorded, [f"{key} = {_shown(values[key])}" for key in recorded if values[key] != recorded[key]]


def _flat(values: dict, start: str = "") -> dict:
    """Nested mappings as one, with dotted names."""
    found = {}
    for name, value in values.items():
        found |= _flat(value, f"{start}{name}.") if isinstance(value, dict) and value else {f"{start}{name}": value}
    return found


def _state(manifest: dict | None) -> list:
    if manifest is None:
        return ["not finished", "", "", ""]
    counts = ", ".join(f"{plots.words(name)} {n:,}" for name, n in manifest.get("counts", {}).items())
    return ["finished", manifest.get("seconds", ""), manifest.get("finished", "")[:16].replace("T", " "), counts]


def _shown(value) -> str:
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return "; ".join(", ".join(map(_shown, item.values())) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _p(value: float) -> str:
    if pd.isna(value):
        return ""
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
