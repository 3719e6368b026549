"""The report of a run: one HTML page that opens offline, with figures, photos and style inside it.

It reads the files of the stages, and captions from the image set where that is here. report.html.j2 has the page's
sections and words; a function here makes what one section shows, or None where the run has nothing for it. The template
escapes every text of the run; the page forbids scripts and loads nothing. The same files give the same bytes.
"""

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from pcclip import plots
from pcclip.arithmetic import geometry, stage as arithmetic
from pcclip.comparisons import stage as comparisons
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Config
from pcclip.data.image_set import load_images, missing, to_fetch
from pcclip.embedding import stage as embedding, vectors as embedding_vectors
from pcclip.errors import PcclipError
from pcclip.evaluation import left_out, stage as evaluation
from pcclip.evaluation.protocols import NOTES
from pcclip.finetuning import stage as finetuning
from pcclip.images import BadImage, data_url, thumbnail
from pcclip.runs.files import atomic
from pcclip.runs.stage import changed_output, read_manifest, read_output
from pcclip.stats.metrics import deciding

STAGES = (comparisons.FOLDER, embedding.FOLDER, finetuning.FOLDER, evaluation.FOLDER, arithmetic.FOLDER)
_STRIP, _PAIRS = 8, 3  # photos in a strip, pairs of a data set
_SIDE = 160  # pixels of a photo
_TILES = 4  # of tasks, and of rankings
_SHOWN = ("accuracy", "macro_accuracy", "pairwise_accuracy", "mean_score")  # metrics whose tables are not folded
_ESTIMATOR = "two_prompt"  # shows an attribute's ranking
_BLOCKS = ("seed", "generate", "finetune", "evaluate", "arithmetic")  # the parameters that manifests record
_COLOURS = {"#262626": "currentColor", "#000000": "currentColor", "#cccccc": "var(--grid)", "#ffffff": "var(--back)"}
_NUMBER = re.compile(r"<?[-+−]?[\d,]*\.?\d+(e-?\d+)?( \[.*\])?( \*| tied)?")
_RIVALS = {
    "difference_order": "for its swapped twin",
    "difference_classification": "to be right",
}  # tasks with failures
_CLAUSES = {  # task -> what the summary says of a share of its items
    "difference_classification": "a sentence about two images points along their difference for",
    "difference_order": "it points there more than with its sides exchanged for",
    "zero_shot": "the right one of all classes is named for",
    "ranking": "of two images the one with more {} comes first for",
}

Part = dict[str, Any]  # what the template shows of one thing


def write(config: Config, folder: Path) -> Path:
    """Write FOLDER/report.html about the run in `folder`, whose parameters are `config`. Returns the page's path.

    Raises:
        PcclipError: no stage of the run has finished, or a file of a finished stage cannot be read.
    """
    run = _Run(config, Path(folder))
    if not run.manifests:
        raise PcclipError(f"{folder}: no stage has finished here, so there is nothing to report; run notebook 01 first")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"words": plots.words, "minus": minus}
    with plt.rc_context():
        plots.style()
        plt.rcParams["legend.frameon"] = False
        parts = {make.__name__: make(run) for make in _PARTS}
    with atomic(run.folder / evaluation.PAGE) as temporary:
        page = environment.get_template("report.html.j2").render(run=run, stages=STAGES, **parts)
        temporary.write_text(page, encoding="utf8")
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
        self.metrics = self.table(evaluation.FOLDER, f"../{evaluation.METRICS}")
        self.predictions = self.table(evaluation.FOLDER, evaluation.PREDICTIONS)
        self.paired = self.table(evaluation.FOLDER, evaluation.DIFFERENCES)
        self.claims = self.table(arithmetic.FOLDER, "claims.parquet")
        self.values, self.changed = _parameters(config, self.manifests)
        paths = self.table(embedding.FOLDER, embedding_vectors.TABLE, ["id", "path"])
        self.paths = {} if paths is None else dict(zip(paths["id"], paths["path"], strict=True))
        self.captions, self.classes = _captions_and_classes(config)

    @property
    def date(self) -> str:
        """The day on which the last stage finished, e.g. 30 November 2026."""
        last = max(manifest.get("finished", "") for manifest in self.manifests.values())
        return f"{pd.Timestamp(last):%-d %B %Y}" if last else ""

    @property
    def rankings(self) -> dict[str, str]:
        """The data sets of the shown rankings, one for each true value, and the value in words."""
        columns = {key.column or name: name for name, key in reversed(self.config.evaluate.attributes.items())}
        source = self.config.data.source
        return {f"{source}/{columns[column]}/{_ESTIMATOR}": plots.words(column) for column in reversed(columns)}

    def count(self, stage: str, name: str) -> int | None:
        """A count of a stage's manifest."""
        return self.manifests.get(stage, {}).get("counts", {}).get(name)

    def place(self, stage: str) -> Path:
        """The stage's folder, in this run or in the run whose stages this one reuses."""
        config = self.config
        if stage in (comparisons.FOLDER, embedding.FOLDER) and (config.reuse or config.tuned):
            return config.source_folder / stage
        return config.tuned_folder / stage if stage == finetuning.FOLDER and config.tuned else self.folder / stage

    def table(self, stage: str, name: str, columns: list[str] | None = None) -> pd.DataFrame | None:
        """A file of a finished stage; None when the stage has not finished or wrote no such file."""
        if name not in self.manifests.get(stage, {}).get("outputs", {}):
            return None
        return read_output(self.place(stage), name, columns)

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

    @property
    def spoilt(self) -> dict[str, list[str]]:
        """Stage -> its files that are not as its manifest records them."""
        outputs = {name: manifest["outputs"].items() for name, manifest in self.manifests.items()}
        return {
            name: files
            for name, records in outputs.items()
            if (files := [file for file, record in records if changed_output(self.place(name), {file: record})])
        }


# ---- the first screen ------------------------------------------------------------------------------------------------


def tiles(run: _Run) -> list[Part]:
    """Finetuned beside base at a glance: the run's first tasks, and a ranking by each true value."""
    if run.metrics is None or run.paired is None or not len(run.paired):
        return []
    keys = ["task", "dataset", "protocol", "metric"]
    change = plots.differences(run.paired)
    change = change[(change.name == "finetuned - base") & ~change.dataset.str.contains("/structures/")]
    tasks = change[(change.metric == "accuracy") & change.task.isin(list(plots.TABLES))].drop_duplicates("task")
    rankings = change[(change.metric == "pairwise_accuracy") & change.dataset.isin(list(run.rankings))]
    values = run.metrics.pivot(index=keys, columns="model", values="value")
    rows = pd.concat([tasks.head(_TILES), rankings.head(_TILES)]).join(values[["base", "finetuned"]], on=keys)
    return [
        {
            "name": plots.TABLES.get(row.task, plots.words(row.task)),
            "kind": run.rankings.get(row.dataset) or _label(row.dataset),
            "clause": _CLAUSES.get(row.task, "").format(run.rankings.get(row.dataset, "")),
            "before": row.base,
            "after": row.finetuned,
            "difference": row.difference,
            "interval": f"[{row.ci_low:+.3f}, {row.ci_high:+.3f}]",
            "differs": not row.ci_low <= 0 <= row.ci_high,
            "sure": row.p_holm < 0.05,
        }
        for row in rows.itertuples()
    ]


def strips(run: _Run) -> list[Part]:
    """Both ends of the rankings by each model, the finetuned model's first; none of photos that are not the run's own."""
    if run.predictions is None:
        return []
    own = run.predictions[run.predictions.dataset.isin(list(run.rankings))]
    own = own[own["first"].isin(list(run.paths)) & own.model.isin(list(plots.MODELS))]
    parts = []
    for (dataset, model), items in own.groupby(["dataset", "model"], sort=False):
        unit = plots.UNITS.get(f"{run.config.data.source}/{run.rankings[str(dataset)]}", "")
        items, size = items.sort_values("score", ascending=False, kind="stable"), min(_STRIP, len(items) // 2)
        ends = {
            end: [run.photo(row.first, f"{row.reference:.4g} {unit}".strip()) for row in photos.itertuples()]
            for end, photos in (("most", items.head(size)), ("least", items.tail(size)))
        }
        parts += [{"attribute": run.rankings[str(dataset)], "model": model, "ends": ends}] if size else []
    return sorted(parts, key=lambda part: part["model"] != "finetuned")


# ---- sections --------------------------------------------------------------------------------------------------------


def results(run: _Run) -> Part | None:
    """The tables of metrics, in detail of other measures and single sentence structures; paired differences; p values."""
    if run.metrics is None:
        return None
    folded = run.metrics.dataset.str.contains("/structures/") | (run.metrics.task == "specificity")
    is_shown = run.metrics.metric.isin(_SHOWN) & ~folded
    part: Part = {"forest": None, "p_values": None}
    for kind, rows in (("tables", run.metrics[is_shown]), ("details", run.metrics[~is_shown])):
        part[kind] = [
            table(frame.T.rename_axis("").reset_index(), title)
            for title, frame in plots.tables(rows, run.paired).items()
        ]
    part["has_shares"] = run.metrics.metric.str.endswith("_share").any()
    if run.paired is not None and len(run.paired):
        change, shown = plots.differences(run.paired), plots.headline(run.paired)
        part["forest"] = svg(plots.forest(shown if len(shown) else run.paired))
        columns = {
            "": change.what.map(_label),
            "metric": change.metric.map(plots.words),
            "difference": _signed(change.difference),
            "detectable": change.detectable.map("{:.3f}".format),
            "McNemar p": change.p_mcnemar.map(_p),
            "bootstrap p": change.p_bootstrap.map(_p),
            "the one that counts": change.test.map(plots.words),
            "adjusted by Holm": change.p_holm.map(_p),
        }
        part["p_values"] = table(pd.DataFrame(columns))
    return part


def comparative(run: _Run) -> Part | None:
    """Comparative prompting: its gains with tests, and the choice of alpha."""
    gains = run.table(evaluation.FOLDER, evaluation.GAINS)
    sweep = run.table(evaluation.FOLDER, evaluation.COMPARATIVE)
    if gains is None or sweep is None or not len(gains):
        return None
    columns = {
        "data set": gains.dataset,
        "form": gains.form,
        "protocol": gains.protocol.map(plots.words),
        "model": gains.model,
        "plain": gains.plain.map("{:.3f}".format),
        "comparative": gains.comparative.map("{:.3f}".format),
        "helped": gains.helped,
        "hurt": gains.hurt,
        "difference": _signed(gains.difference) + " " + _interval(gains),
        "detectable": gains.detectable.map("{:.3f}".format),
        "p": deciding(gains).map(_p),
        "adjusted by Holm": gains.p_holm.map(_p),
    }
    sweep = sweep.assign(dataset=sweep.dataset + ", " + sweep.form)
    return {"gains": table(pd.DataFrame(columns)), "figure": svg(plots.alpha_sweep(sweep))}


def claims(run: _Run) -> Part | None:
    """The claims of stage 05 with their numbers, those that hold first; and how many do."""
    if run.claims is None:
        return None
    order = run.claims.iloc[run.claims.holds.map({"yes": 0, "no": 1}).fillna(2).argsort(kind="stable")]
    columns = {
        "claim": order.claim,
        "of": order.of,
        "holds": order.holds,
        "number": _signed(order.number),
        "95% interval": _interval(order),
        "the number": order.how,
        "n": order.n,
    }
    return {
        "table": table(pd.DataFrame(columns)),
        "counts": run.claims.holds.value_counts().to_dict(),
        "total": len(run.claims),
    }


def geometry_of_differences(run: _Run) -> Part | None:
    """Stage 05's mean cosines and ranks, and the distribution of the cosines."""
    items = run.table(arithmetic.FOLDER, "items.parquet")
    if items is None:
        return None
    summary = geometry.summary(items, run.values["evaluate.bootstrap"], run.values["seed"])
    frame = plots.paper_table(summary.rename(columns={"measure": "dataset"})).T.rename_axis("").reset_index()
    title = "Mean cosine; and rank of the image that was meant, as a share: 0 is first, 0.5 is chance"
    measures = ["image difference", "image difference, reversed text"]
    return {"table": table(frame, title), "figure": svg(plots.distributions(items, measures))}


def failures(run: _Run) -> Part | None:
    """The pairs that one model got most wrong, and the classes that it took for each other."""
    if run.predictions is None:
        return None
    model = "finetuned" if "finetuned" in set(run.predictions.model) else run.predictions.model.iloc[-1]
    own = run.predictions[run.predictions.model == model]
    kept = pd.DataFrame() if run.comparisons is None else comparisons.kept(run.comparisons, "held_out")
    written = {(row.first, row.second): row.difference for row in kept.itertuples()}
    shown = own.task.isin(list(_RIVALS)) & ~own.dataset.str.contains("/structures/")
    pairs = own[shown & own["first"].isin(list(run.paths))]
    groups = [
        _worst_pairs(run, items, written if str(dataset).endswith("/llm") else {})
        for (_, dataset), items in pairs.groupby(["task", "dataset"], sort=False)
    ]
    confused = _confusions(run, own[(own.task == "zero_shot") & (own.dataset == run.config.data.source)])
    return {"model": model, "groups": groups, "confusions": confused} if groups or confused else None


def sentences(run: _Run) -> Part | None:
    """Sentences by verdict, and the first held-out pairs whose sentence was kept."""
    if run.comparisons is None:
        return None
    counts = pd.crosstab(run.comparisons.verdict, run.comparisons["split"]).rename(columns=plots.words)
    order = sorted(counts.index, key=lambda name: (name != "kept", -counts.loc[name].sum(), name))
    kept = comparisons.kept(run.comparisons, "held_out").head(_PAIRS)
    return {
        "counts": table(counts.loc[order].reset_index()),
        "pairs": [run.pair(row.first, row.second, row.difference) for row in kept.itertuples()],
    }


def training(run: _Run) -> Part | None:
    """The curves, and the held-out ones in numbers."""
    curves = run.table(finetuning.FOLDER, "curves.csv")
    if curves is None:
        return None
    held_out = curves[curves["split"] == "held_out"].sort_values("step", kind="stable")
    ends = held_out.groupby("metric", sort=False).value.agg(["first", "last"]).map("{:.3f}".format)
    ends = ends.rename(index=plots.words, columns="{} step".format).rename_axis("held out").reset_index()
    return {"figure": svg(plots.curves(curves)), "table": table(ends)}


def unused(run: _Run) -> Part | None:
    """What the stages left out, by reason."""
    rows = left_out.of_stages(run.place(name) for name in run.manifests)
    rows = rows.rename(columns={"dataset": "data set", "example": "for example"})
    return table(rows) if len(rows) else None


def protocols(run: _Run) -> list[str]:
    """What was corrected of the released protocols that this run's results used."""
    if run.metrics is None:
        return []
    tasks, named = run.metrics.task, run.metrics[run.metrics.protocol != ""]
    names = {*tasks[tasks.str.startswith("difference_")], *named.task, *named.dataset}
    return [note for start, note in NOTES.items() if any(name.startswith(start) for name in names)]


def parameters(run: _Run) -> Part:
    """The stages, and the parameters: those that are not the defaults, and all."""
    stages = [[name, *_state(run.manifests.get(name))] for name in dict.fromkeys([*run.stages, *run.manifests])]
    defaults = _flat(Config().model_dump())
    rows = pd.DataFrame({"parameter": run.values.keys(), "value": map(_shown, run.values.values())})
    changed = rows[[run.values[key] != defaults.get(key) for key in rows.parameter]]
    head = ["stage", "state", "seconds", "finished (UTC)", "counts"]
    return {"stages": table(pd.DataFrame(stages, columns=head)), "changed": table(changed), "all": table(rows)}


def provenance(run: _Run) -> Part:
    """Programs, and the first digits of the hashes of inputs and files, from the manifests."""
    stages = run.manifests.items()
    inputs = [
        [name, key, value[:16]]
        for name, manifest in stages
        for key, value in _flat(manifest["inputs"]).items()
        if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{12,64}", value)
    ]
    outputs = [
        [name, file, f"{record['bytes']:,}", record["sha256"][:16]]
        for name, manifest in stages
        for file, record in manifest["outputs"].items()
    ]
    versions = [
        [program, version or "none", name]
        for name, manifest in stages
        for program, version in manifest.get("versions", {}).items()
    ]
    programs = pd.DataFrame(versions, columns=["program", "version", "stages"])
    return {
        "programs": table(programs.groupby(["program", "version"], sort=False).stages.agg(", ".join).reset_index()),
        "inputs": table(pd.DataFrame(inputs, columns=["stage", "input", "hash"])),
        "outputs": table(pd.DataFrame(outputs, columns=["stage", "file", "bytes", "hash"])),
    }


_PARTS: tuple[Callable[[_Run], Any], ...] = (
    tiles,
    strips,
    results,
    comparative,
    claims,
    geometry_of_differences,
    failures,
    sentences,
    training,
    unused,
    protocols,
    parameters,
    provenance,
)


# ---- parts of sections -----------------------------------------------------------------------------------------------


def _worst_pairs(run: _Run, items: pd.DataFrame, written: dict[tuple[str, str], str]) -> Part:
    """The pairs of a task and data set that were most wrong, with their sentence."""
    task, dataset = items.task.iloc[0], items.dataset.iloc[0]
    wrong = items[~items.correct.astype(bool)]
    worst = wrong.loc[(wrong.score - wrong.reference).nsmallest(_PAIRS).index]
    pairs = [
        run.pair(
            row.first,
            row.second,
            written.get((row.first, row.second)) or _template_sentence(run, row.first, row.second),
            minus(f"cosine {row.score:.3f}, against {row.reference:.3f} {_RIVALS[task]}"),
        )
        for row in worst.itertuples()
    ]
    return {
        "title": f"{plots.TABLES[task]}, {_label(dataset)}",
        "wrong": len(wrong),
        "total": len(items),
        "pairs": pairs,
    }


def _confusions(run: _Run, items: pd.DataFrame) -> Part | None:
    """The classes of the run's own images that were taken for each other most often."""
    wrong = items[~items.correct.astype(bool)]
    if not len(wrong) or wrong[["score", "reference"]].max(axis=None) >= len(run.classes):
        return None  # no error, or the image set has changed
    counts = wrong.groupby(["reference", "score"]).size().sort_values(ascending=False, kind="stable").head(_STRIP)
    sizes = items.groupby("reference").size()
    rows = [
        [run.classes[int(label)], run.classes[int(predicted)], f"{n} of {sizes[label]}"]
        for (label, predicted), n in counts.items()
    ]
    shown = table(pd.DataFrame(rows, columns=["class", "taken for", "images"]), "Most often")
    return {"table": shown, "wrong": len(wrong), "total": len(items)}


def _template_sentence(run: _Run, first: str, second: str) -> str:
    captions = [run.captions.get(image, "") for image in (first, second)]
    return from_captions(*captions) if all(captions) else ""


# ---- a run's files ---------------------------------------------------------------------------------------------------


def _captions_and_classes(config: Config) -> tuple[dict[str, str], list[str]]:
    """The captions by image, and the classes; none where the set is not on this machine, because nothing is fetched."""
    try:
        images = None if missing(config.data) or to_fetch(config.data) else load_images(config)
    except PcclipError:
        images = None
    return ({}, []) if images is None else (images.table.set_index("id").caption.to_dict(), images.classes)


def _parameters(config: Config, manifests: dict) -> tuple[dict, list[str]]:
    """All parameters by dotted names, as the stages recorded them; and a line for each that `config` has otherwise."""
    values, stages = _flat(config.model_dump()), [manifests[stage]["inputs"] for stage in STAGES if stage in manifests]
    recorded = {
        key: value
        for inputs in stages
        for key, value in _flat({name: inputs[name] for name in _BLOCKS if name in inputs}).items()
        if key in values
    }
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
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _p(value: float) -> str:
    return "" if pd.isna(value) else "<0.0001" if value < 0.0001 else f"{value:.4f}"


# ---- elements of the page --------------------------------------------------------------------------------------------


def table(frame: pd.DataFrame, caption: str = "") -> Part:
    """A table of the frame's columns as text; columns of numbers are aligned to the right and get true minus signs."""
    cells = frame.astype(str)
    numeric = [
        len(cells) > 0 and cells[name].map(lambda cell: not cell or bool(_NUMBER.fullmatch(cell))).all()
        for name in cells
    ]
    for name, is_numeric in zip(cells, numeric, strict=True):
        cells[name] = cells[name].map(minus) if is_numeric else cells[name]
    return {"caption": caption, "head": list(cells), "rows": cells.to_numpy().tolist(), "numeric": numeric}


def _label(name: str) -> str:
    """The name of a data set in words: stamps, body mass, two prompt."""
    return ", ".join(map(plots.words, name.split("/")))


def _signed(values: pd.Series) -> pd.Series:
    """Numbers with their signs, in the page's three decimals."""
    return values.map("{:+.3f}".format).map(minus)


def _interval(rows: pd.DataFrame) -> pd.Series:
    """The 95% interval of each row."""
    return "[" + _signed(rows.ci_low) + ", " + _signed(rows.ci_high) + "]"


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
