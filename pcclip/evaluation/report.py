"""The report of a run: one HTML page that opens offline, with figures, photos and style inside it.

It reads the files of the stages, and captions from the image set where that is here. A section of a stage that has not
finished says so. Every text of the run reaches the page through report.html.j2, which escapes it; the page forbids
scripts and loads nothing. The same files give the same bytes.
"""

import json
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from pcclip import plots
from pcclip.arithmetic import geometry
from pcclip.arithmetic import stage as arithmetic
from pcclip.comparisons import stage as comparisons
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Config
from pcclip.data.image_set import ImageSet, load_images, missing, to_fetch
from pcclip.embedding import stage as embedding
from pcclip.embedding import vectors as embedding_vectors
from pcclip.errors import PcclipError
from pcclip.evaluation import left_out
from pcclip.evaluation import stage as evaluation
from pcclip.evaluation.protocols import NOTES
from pcclip.finetuning import stage as finetuning
from pcclip.images import BadImage, data_url, thumbnail
from pcclip.runs.files import atomic, read_parquet
from pcclip.runs.stage import read_manifest

STAGES = (comparisons.FOLDER, embedding.FOLDER, finetuning.FOLDER, evaluation.FOLDER, arithmetic.FOLDER)
_STRIP, _PAIRS = 8, 3  # photos in a strip, pairs of a data set
_SIDE = 160  # pixels of a photo
_ESTIMATOR = "two_prompt"  # shows an attribute's ranking
_BLOCKS = ("seed", "generate", "finetune", "evaluate", "arithmetic")  # the parameters that manifests record
_COLOURS = {"#262626": "currentColor", "#000000": "currentColor", "#cccccc": "var(--grid)", "#ffffff": "var(--back)"}
_NUMBER = re.compile(r"<?[-+−]?[\d,]*\.?\d+(e-?\d+)?( \[.*\])?( \*)?")

Part = dict[str, Any]  # one element of the page: its kind, and the values that the template shows


def write(config: Config, folder: Path) -> Path:
    """Write FOLDER/report.html about the run in `folder`, whose parameters are `config`. Returns the page's path.

    Raises:
        PcclipError: no stage of the run has finished, or a file of a finished stage cannot be read.
    """
    run = _Run(config, Path(folder))
    if not run.manifests:
        raise PcclipError(f"{folder}: no stage has finished here, so there is nothing to report; run notebook 01 first")
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    ).get_template("report.html.j2")
    with plt.rc_context():
        plots.style()
        plt.rcParams["legend.frameon"] = False
        sections = [section for make in _SECTIONS if (section := make(run))]
        text = template.render(
            run=config.run, lead=run.lead, warnings=run.warnings, tiles=_tiles(run), sections=sections
        )
    with atomic(run.folder / evaluation.PAGE) as temporary:
        temporary.write_text(text, encoding="utf8")
    return run.folder / evaluation.PAGE


class _Run:
    """The files of a run: `manifests` of the finished stages, and their tables; None for a table that is not there."""

    def __init__(self, config: Config, folder: Path):
        self.config, self.folder = config, folder
        self.stages = STAGES[:-1] if config.tuned else STAGES  # 05 is not run of another run's finetuned model
        others = sorted(path.parent.name for path in folder.glob("[0-9][0-9]_*/manifest.json"))
        manifests = {name: read_manifest(self.place(name)) for name in dict.fromkeys([*self.stages, *others])}
        self.manifests = {name: manifest for name, manifest in manifests.items() if manifest}
        self.comparisons = self.table(comparisons.FOLDER, comparisons.TABLE)
        self.curves = self.table(finetuning.FOLDER, "curves.csv")
        self.metrics = self.table(evaluation.FOLDER, f"../{evaluation.METRICS}")
        self.predictions = self.table(evaluation.FOLDER, evaluation.PREDICTIONS)
        self.paired = self.table(evaluation.FOLDER, evaluation.DIFFERENCES)
        self.arithmetic = self.table(arithmetic.FOLDER, "items.parquet")
        self.values, changed = _parameters(config, self.manifests)
        paths = self.table(embedding.FOLDER, embedding_vectors.TABLE, ["id", "path"])
        self.paths = {} if paths is None else dict(zip(paths["id"], paths["path"], strict=True))
        self.images = _image_set(config)
        table = self.images.table if self.images else pd.DataFrame({"id": [], "caption": []})
        self.captions = dict(zip(table["id"], table["caption"], strict=True))
        self.warnings = self._warnings(changed)

    @property
    def lead(self) -> str:
        images = self.manifests.get(embedding.FOLDER, {}).get("counts", {}).get("images")
        counted = f", {images:,} images" if images else ""
        return f"{self.config.model} on {self.config.data.source}{counted}, seed {self.values['seed']}"

    def place(self, stage: str) -> Path:
        """The stage's folder, in this run or in the run whose stages this one reuses."""
        config = self.config
        if stage in (comparisons.FOLDER, embedding.FOLDER) and (config.reuse or config.tuned):
            return config.source_folder / stage
        if stage == finetuning.FOLDER and config.tuned:
            return config.tuned_folder / stage
        return self.folder / stage

    def table(self, stage: str, name: str, columns: list[str] | None = None) -> pd.DataFrame | None:
        """A file of a finished stage; None when the stage has not finished or wrote no such file."""
        if name not in self.manifests.get(stage, {}).get("outputs", {}):
            return None
        path = self.place(stage) / name
        if not name.endswith(".csv"):
            return read_parquet(path, columns).to_pandas()
        try:
            table = pd.read_csv(path, keep_default_na=False, na_values=[""])
        except (OSError, ValueError) as error:
            raise PcclipError(f"{path}: cannot be read ({error}); run the notebook of {stage} again") from None
        return table.assign(protocol=table.protocol.fillna("")) if "protocol" in table else table

    def photo(self, image: str, value: str = "") -> Part:
        """A small photo with its caption and a value below it; one that cannot be read says why."""
        part = {"caption": self.captions.get(image) or str(image), "value": value, "data": "", "problem": ""}
        if image not in self.paths:
            return part | {"problem": "this photo has no vector"}
        try:
            return part | {"data": data_url(thumbnail(self.paths[image], _SIDE, quality=80))}
        except BadImage as error:
            return part | {"problem": str(error)}

    def pair(self, first: str, second: str, sentence: str, note: str = "") -> Part:
        """Two photos, a sentence, and a note below it."""
        return {"first": self.photo(first), "second": self.photo(second), "sentence": sentence, "note": note}

    def _warnings(self, changed: list[str]) -> list[str]:
        lines = [f"{name} has not finished; its part is missing." for name in self.stages if name not in self.manifests]
        for name, manifest in self.manifests.items():
            sizes = {file: output["bytes"] for file, output in manifest["outputs"].items()}
            other = [file for file, size in sizes.items() if not _has_size(self.place(name) / file, size)]
            if other:
                lines.append(f"{name}: {', '.join(other)}: not as the stage left it.")
        if changed:
            lines.append(f"The parameters have changed since ({'; '.join(changed)} now); below are those of the run.")
        return lines


# sections


def _run_section(run: _Run) -> Part:
    defaults = _flat(Config().model_dump())
    stages = [[name, *_state(run.manifests.get(name))] for name in dict.fromkeys([*run.stages, *run.manifests])]
    rows = [[key, _shown(value)] for key, value in run.values.items()]
    changed = [row for row in rows if run.values[row[0]] != defaults.get(row[0])]
    parts = [
        table(["stage", "state", "seconds", "finished (UTC)", "counts"], stages),
        _wrapped("tight", table(["parameter", "value"], changed, "Parameters that are not the defaults")),
        _wrapped("details", table(["parameter", "value"], rows), "All parameters"),
    ]
    return _section("What was run", parts)


def _data_section(run: _Run) -> Part:
    parts = [_unfinished(comparisons.FOLDER)]
    if run.comparisons is not None:
        counts = pd.crosstab(run.comparisons.verdict, run.comparisons["split"])
        order = sorted(counts.index, key=lambda name: (name != "kept", -counts.loc[name].sum(), name))
        parts = [
            table(
                ["verdict", *map(plots.words, counts.columns)],
                [[name, *counts.loc[name]] for name in order],
                "Sentences: kept, and dropped by the first rule that they broke",
            )
        ]
        kept = comparisons.kept(run.comparisons, "held_out").head(_PAIRS)
        if len(kept):
            pairs = [run.pair(row.first, row.second, row.difference) for row in kept.itertuples()]
            parts += [
                _text("heading", "The first held-out pairs with a sentence that was kept"),
                {"kind": "pairs", "pairs": pairs},
            ]
    return _section("Images and comparisons", parts, key="data")


def _left_out_section(run: _Run) -> Part:
    text = (
        "Rows and images that cannot be used, with one path that was looked for. The stages' tables list all of them."
    )
    rows = left_out.of_stages(run.place(name) for name in run.manifests)
    rows.columns = ["stage", "data set", "reason", "rows", "for example"]
    parts = [_columns(rows) if len(rows) else _text("text", "Nothing was left out.")]
    return _section("Left out", parts, text, key="left-out")


def _training_section(run: _Run) -> Part:
    if run.curves is None:
        return _section("Training", [_unfinished(finetuning.FOLDER)])
    held_out = run.curves[run.curves["split"] == "held_out"].sort_values("step", kind="stable")
    rows = [
        [plots.words(metric), f"{part.value.iloc[0]:.3f}", f"{part.value.iloc[-1]:.3f}"]
        for metric, part in held_out.groupby("metric", sort=False)
    ]
    parts = [
        _figure(
            plots.curves(run.curves),
            "Training and held-out curves. Nothing is chosen by them: the last step is the model.",
        ),
        table(["held out", "first step", "last step"], rows),
    ]
    return _section("Training", parts)


def _results_section(run: _Run) -> Part:
    text = (
        "Held-out images, the same texts for every model. In brackets 95% intervals from resampled images. A star: "
        "the difference's p value, adjusted by Holm's method for the data sets of its task, is below 0.05."
    )
    if run.metrics is None:
        return _section("Results", [_unfinished(evaluation.FOLDER)])
    parts = [_frame(title, frame.T) for title, frame in plots.tables(run.metrics, run.paired).items()]
    if run.metrics.metric.str.endswith("_share").any():
        share = (
            "A share is the part of the supervised axis's result that a text axis reaches. The supervised axis is "
            "fitted to the true values of training photos, seen by the base's image tower. 1 means as good; there is "
            "no share where the supervised axis may itself be at chance. Chance is subtracted from pairwise accuracies."
        )
        parts.append(_text("text", share))
    if run.paired is not None and len(run.paired):
        change = plots.differences(run.paired)
        columns = {"": change.what, "metric": change.metric.map(plots.words), "difference": _signed(change.difference)}
        columns |= {"McNemar p": change.p_mcnemar.map(_p), "bootstrap p": change.p_bootstrap.map(_p)}
        columns |= {"the one that counts": change.test.map(plots.words), "adjusted by Holm": change.p_holm.map(_p)}
        parts += [
            _text("heading", "Paired differences"),
            _figure(
                plots.forest(run.paired),
                "Differences on the same items and resamples, with 95% intervals. One that does not hold 0 is a change "
                "that these images support; what another training seed would do is not in it.",
            ),
            _text(
                "text",
                "Items that share images, as pairs do, are not independent, and McNemar's test is too sure "
                "of itself there: for them, and for rankings, the bootstrap over images counts.",
            ),
            _wrapped("details", _columns(pd.DataFrame(columns)), "All p values"),
        ]
    return _section("Results", parts, text)


def _comparative_section(run: _Run) -> Part | None:
    """Comparative prompting: its gains with tests, and the choice of alpha."""
    gains = run.table(evaluation.FOLDER, evaluation.GAINS)
    sweep = run.table(evaluation.FOLDER, evaluation.COMPARATIVE)
    if gains is None or sweep is None or not len(gains):
        return None
    deciding = gains.p_mcnemar.where(gains.test == "mcnemar", gains.p_bootstrap)
    interval = _signed(gains.difference) + " [" + _signed(gains.ci_low) + ", " + _signed(gains.ci_high) + "]"
    columns = {"data set": gains.dataset, "form": gains.form, "protocol": gains.protocol.map(plots.words)}
    columns |= {"model": gains.model, "plain": gains.plain.map("{:.3f}".format)}
    columns |= {"comparative": gains.comparative.map("{:.3f}".format), "helped": gains.helped, "hurt": gains.hurt}
    columns |= {"difference": interval, "p": deciding.map(_p), "adjusted by Holm": gains.p_holm.map(_p)}
    parts = [
        _columns(pd.DataFrame(columns)),
        _figure(
            plots.alpha_sweep(sweep.assign(dataset=sweep.dataset + ", " + sweep.form)),
            "Accuracy on tune images at each alpha, with a ring around the chosen one. Alpha 1 is plain zero-shot.",
        ),
    ]
    return _section(
        "Comparative prompting",
        parts,
        "The same model with comparative prompting and without, on the same images: those newly right (helped), "
        "newly wrong (hurt), and the paired difference. Pairs of classes are chosen on one half of the tune "
        "images, alpha on the other. Notebook 04 has the gains by class and by pair.",
        key="comparative",
    )


def _rankings_section(run: _Run) -> Part | None:
    """Both ends of each attribute's ranking by each model; none where the photos are not the run's own."""
    if run.predictions is None:
        return None
    parts: list[Part] = []
    rankings = run.predictions[run.predictions.task == "ranking"]
    rankings = rankings[rankings["first"].isin(list(run.paths))]
    for dataset in dict.fromkeys(rankings.dataset[rankings.dataset.str.endswith(f"/{_ESTIMATOR}")]):
        parts.append(_text("heading", dataset))
        for model in plots.MODELS:
            items = rankings[(rankings.dataset == dataset) & (rankings.model == model)]
            items = items.sort_values("score", ascending=False, kind="stable")
            size = min(_STRIP, len(items) // 2)
            for end, strip in (("most", items.head(size)), ("least", items.tail(size))) if size else ():
                photos = [run.photo(row.first, f"{row.reference:.4g}") for row in strip.itertuples()]
                parts += [_text("subheading", f"{end}, says {model}"), {"kind": "photos", "photos": photos}]
    return (
        _section(
            "Rankings",
            parts,
            "Held-out photos whose true value is known (below each photo), from the largest projection on the axis of "
            "the attribute to the smallest.",
        )
        if parts
        else None
    )


def _failures_section(run: _Run) -> Part | None:
    """The pairs that one model got most wrong, and the classes that it took for each other."""
    if run.predictions is None:
        return None
    model = "finetuned" if "finetuned" in set(run.predictions.model) else run.predictions.model.iloc[-1]
    own, parts = run.predictions[run.predictions.model == model], []
    written: dict[tuple[str, str], str] = {}
    if run.comparisons is not None:
        kept = comparisons.kept(run.comparisons, "held_out")
        written = {(row.first, row.second): row.difference for row in kept.itertuples()}
    for task, against in (("difference_order", "for its swapped twin"), ("difference_classification", "to be right")):
        for dataset, items in own[(own.task == task) & own["first"].isin(list(run.paths))].groupby(
            "dataset", sort=False
        ):
            wrong = items[~items.correct.astype(bool)]
            worst = wrong.loc[(wrong.score - wrong.reference).nsmallest(_PAIRS).index]
            sentences = written if dataset.endswith("/llm") else {}
            pairs = [
                run.pair(
                    row.first,
                    row.second,
                    sentences.get((row.first, row.second)) or _template_sentence(run, row.first, row.second),
                    minus(f"cosine {row.score:.3f}, against {row.reference:.3f} {against}"),
                )
                for row in worst.itertuples()
            ]
            parts += [
                _text("heading", f"{plots.TABLES[task]}, {dataset}: {len(wrong):,} of {len(items):,} wrong"),
                {"kind": "pairs", "pairs": pairs},
            ]
    parts += _confusions(run, own[(own.task == "zero_shot") & (own.dataset == run.config.data.source)])
    return (
        _section("Failures", parts, f"The worst errors of {model}: held-out pairs by how far the wrong side was ahead.")
        if parts
        else None
    )


def _arithmetic_section(run: _Run) -> Part | None:
    if run.config.tuned:
        return None
    title, key = "Embedding arithmetic", "arithmetic"
    if run.arithmetic is None:
        return _section(title, [_unfinished(arithmetic.FOLDER)], key=key)
    summary = geometry.summary(run.arithmetic, run.values["evaluate.bootstrap"], run.values["seed"])
    text = (
        "Does the text of a difference lie along the difference of the images, and does an image plus that text "
        "find the image that was meant?"
    )
    parts = [
        _frame(
            "Mean cosine; and rank of the image that was meant, as a share: 0 is first, 0.5 is chance",
            plots.paper_table(summary.rename(columns={"measure": "dataset"})).T,
        ),
        _figure(
            plots.distributions(run.arithmetic, ["image difference", "image difference, reversed text"]),
            "Cosine of the text with the image difference. A model that knows which image is which has the reversed text "
            "on the other side of 0.",
        ),
    ]
    return _section(title, parts, text, key)


def _protocols_section(run: _Run) -> Part | None:
    if run.metrics is None:
        return None
    metrics = run.metrics
    names = {*metrics.task[metrics.task.str.startswith("difference_")]}  # each of these tasks is a protocol
    names |= {*metrics[["task", "dataset"]][metrics.protocol != ""].to_numpy().ravel()}
    notes = [note for start, note in NOTES.items() if any(name.startswith(start) for name in names)]
    return (
        _section(
            "Protocols",
            [{"kind": "list", "lines": notes}],
            "What the paper's released code scores, and what is done here beside it or instead.",
        )
        if notes
        else None
    )


def _provenance_section(run: _Run) -> Part:
    inputs: list[list[str]] = []
    outputs: list[list[str]] = []
    programs: dict[tuple[str, str], list[str]] = {}
    for name, manifest in run.manifests.items():
        for key, value in _flat(manifest["inputs"]).items():
            if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{12,64}", value):
                inputs.append([name, key, value[:16]])
        for file, output in manifest["outputs"].items():
            outputs.append([name, file, f"{output['bytes']:,}", output["sha256"][:16]])
        for program, version in manifest.get("versions", {}).items():
            programs.setdefault((program, version or "none"), []).append(name)
    parts = [
        table(["program", "version", "stages"], [[*key, ", ".join(stages)] for key, stages in programs.items()]),
        _wrapped("details", table(["stage", "input", "hash"], inputs), "Hashes of the inputs"),
        _wrapped("details", table(["stage", "file", "bytes", "hash"], outputs), "SHA-256 of the files"),
    ]
    return _section("Provenance", parts, "From the stages' manifests; the first 16 digits of each hash.")


_SECTIONS = (
    _run_section,
    _data_section,
    _left_out_section,
    _training_section,
    _results_section,
    _comparative_section,
    _rankings_section,
    _failures_section,
    _arithmetic_section,
    _protocols_section,
    _provenance_section,
)


# parts of sections


def _tiles(run: _Run) -> list[Part]:
    """Accuracies at a glance: finetuned beside base for the first eight tasks."""
    if run.metrics is None or run.paired is None or not len(run.paired):
        return []
    keys = ["task", "dataset", "protocol"]
    change = plots.differences(run.paired)
    change = change[(change.metric == "accuracy") & (change.name == "finetuned - base")].head(8)
    values = run.metrics[run.metrics.metric == "accuracy"].pivot(index=keys, columns="model", values="value")
    both = change.join(values[["base", "finetuned"]], on=keys) if len(change) else change
    return [
        {
            "name": row.what,
            "before": f"{row.base:.3f}",
            "after": f"{row.finetuned:.3f}",
            "difference": minus(f"{row.difference:+.3f}"),
            "sure": row.p_holm < 0.05,
            "interval": minus(f"[{row.ci_low:+.3f}, {row.ci_high:+.3f}]"),
        }
        for row in both.itertuples()
    ]


def _confusions(run: _Run, items: pd.DataFrame) -> list[Part]:
    """The classes of the run's own images that were taken for each other most often."""
    classes, wrong = run.images.classes if run.images else [], items[~items.correct.astype(bool)]
    if not len(wrong) or wrong[["score", "reference"]].max(axis=None) >= len(classes):
        return []  # no error, or the image set has changed
    counts = wrong.groupby(["reference", "score"]).size().sort_values(ascending=False, kind="stable").head(_STRIP)
    sizes = items.groupby("reference").size()
    rows = [
        [classes[int(label)], classes[int(predicted)], f"{n} of {sizes[label]}"]
        for (label, predicted), n in counts.items()
    ]
    return [
        _text("heading", f"Zero-shot classification: {len(wrong):,} of {len(items):,} wrong"),
        table(["class", "taken for", "images"], rows, "Most often"),
    ]


def _template_sentence(run: _Run, first: str, second: str) -> str:
    captions = [run.captions.get(image, "") for image in (first, second)]
    return from_captions(*captions) if all(captions) else ""


# a run's files


def _image_set(config: Config) -> ImageSet | None:
    """The image set, for captions and classes; None where it is not on this machine, because nothing is fetched."""
    try:
        return None if missing(config.data) or to_fetch(config.data) else load_images(config)
    except PcclipError:
        return None


def _parameters(config: Config, manifests: dict) -> tuple[dict, list[str]]:
    """All parameters by dotted names, as the stages recorded them; and a line for each that `config` has otherwise."""
    values = _flat(config.model_dump())
    recorded: dict[str, Any] = {}
    for stage in STAGES:
        inputs = manifests.get(stage, {}).get("inputs", {})
        recorded |= _flat({name: inputs[name] for name in _BLOCKS if name in inputs})
    recorded = {key: value for key, value in recorded.items() if key in values}
    return values | recorded, [f"{key} = {_shown(values[key])}" for key in recorded if values[key] != recorded[key]]


def _flat(values: dict, start: str = "") -> dict:
    """Nested mappings as one mapping with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{start}{name}.") if isinstance(value, dict) and value else {f"{start}{name}": value}
    return flat


def _state(manifest: dict | None) -> list:
    if manifest is None:
        return ["not finished", "", "", ""]
    counts = _flat(manifest.get("counts", {}))
    numbers = ", ".join(f"{plots.words(name)} {n:,}" for name, n in counts.items() if n != {})
    return ["finished", manifest.get("seconds", ""), manifest.get("finished", "")[:16].replace("T", " "), numbers]


def _shown(value: Any) -> str:
    """A parameter's value as text."""
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


# elements of the page


def _section(title: str, parts: list[Part], text: str = "", key: str = "") -> Part:
    return {"key": key or title.split()[-1].lower(), "title": title, "text": text, "parts": parts}


def _text(kind: str, text: str) -> Part:
    """A heading, subheading, text or warning."""
    return {"kind": kind, "text": text}


def _unfinished(stage: str) -> Part:
    return _text("warning", f"{stage} has not finished: run its notebook, then write this report again.")


def _wrapped(kind: str, inner: Part, text: str = "") -> Part:
    """A table with less room between its rows ('tight'), or one that opens when its line is clicked ('details')."""
    return {"kind": kind, "text": text, "table": inner}


def table(head: Sequence[str], rows: Sequence[Sequence], caption: str = "") -> Part:
    """A table of plain cells; columns of numbers are aligned to the right and get true minus signs."""
    cells = [[str(cell) for cell in row] for row in rows]
    numeric = [bool(rows) and all(_NUMBER.fullmatch(row[k]) or not row[k] for row in cells) for k in range(len(head))]
    signed = [[minus(cell) if right else cell for cell, right in zip(row, numeric, strict=True)] for row in cells]
    return {"kind": "table", "caption": caption, "head": list(head), "rows": signed, "numeric": numeric}


def _frame(caption: str, frame: pd.DataFrame) -> Part:
    """A table with the frame's index as its first column."""
    return table(["", *frame.columns], frame.reset_index().to_numpy().tolist(), caption)


def _columns(frame: pd.DataFrame) -> Part:
    """A table of the frame's columns, without its index."""
    return table(list(frame), frame.to_numpy().tolist())


def _signed(values: pd.Series) -> pd.Series:
    """Numbers with their signs, in the page's three decimals."""
    return values.map("{:+.3f}".format).map(minus)


def _figure(drawn: Figure, caption: str) -> Part:
    return {"kind": "figure", "svg": svg(drawn), "caption": caption}


def svg(drawn: Figure) -> Markup:
    """The figure as inline SVG that takes font, text colour and background from the page, dark or light.

    matplotlib escapes the texts. Only colours, ids and addresses are changed here, so no tag can come in.
    """
    buffer = StringIO()
    with plt.rc_context({"svg.hashsalt": "pcclip", "svg.fonttype": "none"}):
        drawn.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| id="[A-Za-z]\w*?_\d+"', "", text).replace("xlink:href", "href")
    text = re.sub(r"(fill|stroke): (#\w{6})", lambda match: f"{match[1]}: {_COLOURS.get(match[2], match[2])}", text)
    return Markup(re.sub(r"\n\s*\n", "\n", text))


def minus(number: str) -> str:
    """The text of a number with a true minus sign."""
    return re.sub(r"-(?=[\d.])", "−", number)
