"""The report: one page that holds the run's numbers, opens offline, and lets nothing of the data act."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from helpers.faults import flipped
from PIL import Image

from pcclip import config as params, plots
from pcclip.arithmetic.stage import analyze
from pcclip.errors import PcclipError
from pcclip.evaluation import report as html, stage as report
from pcclip.runs import stage as stages
from pcclip.runs.files import file_digest
from pcclip.stats import metrics as statistics

ATTACKS = ["<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", '" onload="alert(3)']
SIZE = "<u>size"  # an attribute's name is the user's own
_EMPTY = {"meta", "img", "br", "hr", "input", "link"}
_FORBIDDEN = {"script", "iframe", "object", "embed", "link", "form", "base", "input", "foreignobject"}


def recorded(folder):
    """Make the manifest that of the files as they are now."""
    manifest = stages.read_manifest(folder)
    for name, record in manifest["outputs"].items():
        record.update(sha256=file_digest(folder / name), bytes=(folder / name).stat().st_size)
    stages._write_manifest(folder, manifest)


class Page(HTMLParser):
    """Tags with attributes, texts, and tables as lists of rows; refuses a tag that is not closed where it should be."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts, self.tables, self.photos = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = "\n".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        if tag not in _EMPTY:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] != "style":
            self.texts.append(text)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += text

    def table(self, *head) -> list[list[str]]:
        """The rows of the table with this head."""
        [found] = [rows for rows in self.tables if [cell.strip() for cell in rows[0]] == list(head)]
        return found[1:]

    def images(self) -> list[Image.Image]:
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                kind, data = attributes["src"].split(",", 1)
                assert kind == "data:image/jpeg;base64"
                found.append(Image.open(BytesIO(base64.b64decode(data, validate=True))))
        return found


def hostile(photos, tmp_path) -> None:
    """The tiny photos in another folder, with captions that would act; one caption without a photo, one not a photo."""
    shutil.copytree(photos, tmp_path / "photos")
    table = pd.read_csv(tmp_path / "photos" / "captions.csv").rename(columns={"size": SIZE})
    table["concept"] = [path.split("-")[0] for path in table.path]
    table["caption"] = [f"{caption[:-1]} {ATTACKS[k % 3]}." for k, caption in enumerate(table.caption)]
    (tmp_path / "photos" / "<i>.png").write_bytes(b"no picture")
    extra = pd.DataFrame(
        {
            "path": ["gone.png", "<i>.png"],
            "caption": ["A red moon.", "A blue moon."],
            "label": "round",
            SIZE: 3.0,
            "concept": "moon",
        }
    )
    pd.concat([table, extra]).to_csv(tmp_path / "photos" / "captions.csv", index=False)


@pytest.fixture(scope="module")
def made(photos, tiny_model, tmp_path_factory) -> SimpleNamespace:
    """A whole run on the hostile photos: its config, folder, metrics and page."""
    from helpers.runs import run_values, up_to_03

    from pcclip import load_model

    place = tmp_path_factory.mktemp("report")
    hostile(photos, place)
    given = run_values(place / "photos", tiny_model, place)
    given["data"]["max_bad"] = 0.5
    given["finetune"] |= {"epochs": 1, "keep_epochs": []}
    given["arithmetic"] |= {"triples": 10, "quadruples": 10}
    given["evaluate"]["attributes"] = {SIZE: given["evaluate"]["attributes"]["size"]}
    config = params.check(given)
    run = up_to_03(config, load_model(tiny_model))
    models = report.load_models(config)
    metrics, _ = report.evaluate(config, run.images, run.vectors, run.comparisons, models)
    analyze(config, run.images, run.vectors, models)
    path = html.write(config, config.folder)
    return SimpleNamespace(
        config=config,
        folder=config.folder,
        metrics=metrics,
        images=run.images,
        path=path,
        page=Page(path.read_text(encoding="utf8")),
    )


@pytest.fixture
def copy(made, tmp_path, monkeypatch) -> SimpleNamespace:
    """The run's files in a folder of their own, to be spoilt; figures, the same as those of `made`, are not drawn."""
    shutil.copytree(made.folder, tmp_path / "copy")
    for name in ("curves", "forest", "distributions"):
        monkeypatch.setattr(plots, name, lambda *given: None)
    monkeypatch.setattr(html, "svg", lambda drawn: "")

    def write(config=made.config):
        return Page(html.write(config, tmp_path / "copy").read_text(encoding="utf8"))

    return SimpleNamespace(folder=tmp_path / "copy", write=write)


# the page


def test_the_page_is_whole_and_loads_nothing(made):
    assert made.path == made.folder / "report.html"
    ids = [attributes["id"] for _, attributes in made.page.tags if "id" in attributes]
    assert len(ids) > 8
    for tag, attributes in made.page.tags:
        assert tag not in _FORBIDDEN
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                assert value.startswith("data:image/jpeg;base64,") or value.removeprefix("#") in ids, (tag, name, value)
            assert "http://" not in value, (tag, name)
            assert "https://" not in value, (tag, name)
            assert all(target in ids for target in re.findall(r"url\(#?(.*?)\)", value)), (tag, name, value)
    assert not re.search(r"@import|url\(", re.search("<style>.*?</style>", made.path.read_text(), re.DOTALL)[0])
    policy = [a["content"] for tag, a in made.page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_ids_are_unique_in_each_figure(made):
    for found in re.findall("<svg.*?</svg>", made.path.read_text(encoding="utf8"), re.DOTALL):
        ids = re.findall(r'\bid="(.*?)"', found)
        assert len(ids) == len(set(ids))


def test_texts_of_the_data_do_nothing(made):
    for attack in ATTACKS:
        assert attack in made.page.text, "shown as it is written"
    assert f"{SIZE}, one text" in made.page.text
    assert made.path.read_text().count("<script") == 0
    assert {a.get("src", "data:")[:5] for tag, a in made.page.tags if tag == "img"} == {"data:"}
    alts = [a["alt"] for tag, a in made.page.tags if tag == "img"]
    assert any(ATTACKS[0] in alt for alt in alts)
    assert any(ATTACKS[2] in alt for alt in alts)
    assert "unreadable image (UnidentifiedImageError)" in made.page.text
    assert any(text.endswith("/<i>.png") for text in made.page.texts)


def test_the_same_run_gives_the_same_bytes(made, copy):
    """A figure's own bytes are compared in test_a_figure_takes_its_colours_from_the_page_and_keeps_texts_texts."""
    pages = [copy.write() and (copy.folder / "report.html").read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]
    assert len(made.path.read_bytes()) < 3e6


def test_every_value_stands_in_the_results(made):
    cells = {cell.strip() for table in made.page.tables for row in table for cell in row}
    for row in made.metrics.itertuples():
        cell = f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]".replace("-", "−")
        assert cell + " tied" * row.tied in cells, row
    zero_shot = [row for table in made.page.tables for row in table if row[0] == "folder"]
    values = made.metrics[made.metrics.task == "zero_shot"].set_index("model").value
    assert [row[1].split()[0] for row in zero_shot] == [f"{values['base']:.3f}"]
    assert [row[2].split()[0] for row in zero_shot] == [f"{values['finetuned']:.3f}"]


def test_what_was_run_is_told(made):
    stages = made.page.table("stage", "state", "seconds", "finished (UTC)", "counts")
    assert [row[:2] for row in stages] == [[name, "finished"] for name in html.STAGES]
    manifest = json.loads((made.folder / "03_finetune" / "manifest.json").read_text())
    assert stages[2][3] == manifest["finished"][:16].replace("T", " ")
    assert f"steps {manifest['counts']['steps']}" in stages[2][4]
    own, everything = (table[1:] for table in made.page.tables if table[0] == ["parameter", "value"])
    assert ["finetune.lr", "0.001"] in own
    assert ["finetune.weight_decay", "0.0"] in everything
    assert ["finetune.weight_decay", "0.0"] not in own
    versions = made.page.table("program", "version", "stages")
    assert ["numpy", manifest["versions"]["numpy"], ", ".join(html.STAGES)] in versions
    hashes = made.page.table("stage", "file", "bytes", "hash")
    told = manifest["outputs"]["curves.csv"]
    assert ["03_finetune", "curves.csv", str(told["bytes"]), told["sha256"][:16]] in hashes
    assert ["03_finetune", "images", made.images.identity()[:16]] in made.page.table("stage", "input", "hash")


def test_what_was_left_out_is_counted(made):
    rows = {(row[0], row[2]): row[3:] for row in made.page.table("stage", "data set", "reason", "rows", "for example")}
    assert rows["01_generate", "missing file"][0] == "1"
    assert rows["01_generate", "missing file"][1].endswith("gone.png")
    assert rows["02_embed", "unreadable image (UnidentifiedImageError)"][0] == "1"
    manifest = json.loads((made.folder / "01_generate" / "manifest.json").read_text())
    assert manifest["counts"]["left_out"] == {"missing file": 1}


def test_sentences_are_counted_by_verdict(made):
    comparisons = pd.read_parquet(made.folder / "01_generate" / "comparisons.parquet")
    kept = [row for row in made.page.table("verdict", "held out", "training") if row[0] == "kept"]
    counts = comparisons[comparisons.verdict == "kept"]["split"].value_counts()
    assert kept == [["kept", str(counts["held_out"]), str(counts["train"])]]


def test_photos_are_small_and_in_the_order_of_their_ranking(made):
    images = made.page.images()
    assert images
    assert all(max(image.size) <= 160 for image in images)
    items = report.read(made.config, report.PREDICTIONS)
    items = items[(items.dataset == f"folder/{SIZE}/two_prompt") & (items.model == "finetuned")]
    ranked = items.sort_values("score", ascending=False).head(8)
    captions = made.images.table.set_index("id").caption
    after = made.path.read_text().split("most &lt;u&gt;size, says finetuned")[1].split("<h4>")[0]
    shown = [a["alt"] for tag, a in Page(after[after.index("<div") :]).tags if tag == "img"]
    size = min(8, len(items) // 2)
    assert shown == [captions[image] for image in ranked["first"][:size]]
    assert size >= 3


def test_the_worst_failure_comes_first(made):
    items = report.read(made.config, report.PREDICTIONS)
    items = items[(items.task == "difference_order") & (items.model == "finetuned")]
    wrong = items[~items.correct.astype(bool)]
    worst = wrong.loc[(wrong.score - wrong.reference).idxmin()]
    title = f"Order: a text beats its swapped twin, folder, template sentences: {len(wrong)} of {len(items)} wrong"
    after = made.page.text.split(title)[1]
    first = next(line for line in after.split("\n") if line.startswith("cosine"))
    assert first == f"cosine {worst.score:.3f}, against {worst.reference:.3f} for its swapped twin".replace("-", "−")


def test_the_first_sentence_says_what_was_done_and_what_came_out(made):
    manifest = json.loads((made.folder / "03_finetune" / "manifest.json").read_text())
    text = " ".join(made.page.text.split())
    [lead] = re.findall(r"On \d+ \w+ \d{4} local-dir:\S+ was finetuned on .*? decided\.", text)
    assert f"on {manifest['counts']['train']} sentences about how two images differ (folder, 24 images, seed 0)" in lead
    values = made.metrics.set_index(["task", "dataset", "model", "metric"]).value
    changes = pd.read_csv(made.folder / "04_evaluate" / "differences.csv").set_index(["task", "dataset", "metric"])
    changes = changes[(changes.after == "finetuned") & (changes.before == "base")]
    for clause, key in (
        ("points along their difference for", ("difference_classification", "folder/template", "accuracy")),
        (f"the one with more {SIZE} comes first for", ("ranking", f"folder/{SIZE}/two_prompt", "pairwise_accuracy")),
    ):
        task, dataset, metric = key
        after, before = (values[task, dataset, model, metric] for model in ("finetuned", "base"))
        change = changes.loc[[key]].iloc[0]
        doubt = "" if change.p_holm < 0.05 else ", not proven among so many rows"
        doubt = ", no difference that these images show" if change.ci_low <= 0 <= change.ci_high else doubt
        assert f"{clause} {100 * after:.0f}% ({100 * before:.0f}% before{doubt})" in lead
    claims = pd.read_parquet(made.folder / "05_arithmetic" / "claims.parquet")
    assert f"Of {len(claims)} claims about embedding arithmetic {(claims.holds == 'yes').sum()} hold" in lead


def test_the_claims_stand_with_their_numbers(made):
    claims = pd.read_parquet(made.folder / "05_arithmetic" / "claims.parquet")
    rows = made.page.table("claim", "of", "holds", "number", "95% interval", "the number", "n")
    assert {(row[0], row[2], row[3]) for row in rows} == {
        (claim.claim, claim.holds, html.minus(f"{claim.number:+.3f}")) for claim in claims.itertuples()
    }
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), key=["yes", "no", "undecided"].index)


# runs that lack something


def test_a_stage_that_is_missing_is_named(copy):
    for name in ("03_finetune", "04_evaluate", "05_arithmetic"):
        (copy.folder / name / "manifest.json").unlink()
    found = copy.write()
    for name in ("03_finetune", "04_evaluate", "05_arithmetic"):
        assert f"{name} has not finished: run its notebook" in found.text
    assert "01_generate has not finished" not in found.text
    rows = found.table("stage", "state", "seconds", "finished (UTC)", "counts")
    assert [row[1] for row in rows] == ["finished"] * 2 + ["not finished"] * 3
    assert "Rankings" not in found.text


@pytest.mark.parametrize("name", html.STAGES[:2])
def test_any_one_stage_may_be_missing(copy, name):
    (copy.folder / name / "manifest.json").unlink()
    assert f"{name} has not finished" in copy.write().text


def test_nothing_to_report(made, tmp_path):
    with pytest.raises(PcclipError, match="no stage has finished here"):
        html.write(made.config, tmp_path)


def test_a_cut_table_says_what_to_do(copy):
    (copy.folder / "02_embed" / "vectors.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        PcclipError, match=r"vectors.parquet: missing or changed since 02_embed wrote it; run its notebook again"
    ):
        copy.write()
    recorded(copy.folder / "02_embed")
    with pytest.raises(PcclipError, match="delete it and run its notebook again"):
        copy.write()


def test_a_file_that_changed_is_named(copy, made):
    assert "not as the stage left it" not in made.page.text
    weights = copy.folder / "03_finetune" / "text_tower.safetensors"
    weights.write_bytes(flipped(weights.read_bytes(), 12345))
    assert "03_finetune: text_tower.safetensors: not as the stage left it." in copy.write().text


@pytest.mark.parametrize(
    "name",
    [
        "metrics.csv",
        "01_generate/comparisons.parquet",
        "01_generate/left_out.parquet",
        "02_embed/vectors.parquet",
        "03_finetune/curves.csv",
        "04_evaluate/predictions.parquet",
        "04_evaluate/differences.csv",
        "04_evaluate/left_out.csv",
        "05_arithmetic/claims.parquet",
        "05_arithmetic/composed_left_out.parquet",
    ],
)
def test_a_table_with_a_flipped_bit_is_not_shown(copy, name):
    """Whatever the bit is, and though the file's size is the same."""
    path = copy.folder / name
    path.write_bytes(flipped(path.read_bytes(), 8 * path.stat().st_size // 2))
    with pytest.raises(PcclipError, match=f"{path.name}: missing or changed since .* run its notebook again"):
        copy.write()


def test_other_parameters_are_told(made, copy):
    other = made.config.model_copy(update={"finetune": made.config.finetune.model_copy(update={"lr": 0.5})})
    found = copy.write(other)
    assert "The parameters have changed since (finetune.lr = 0.5 now)" in found.text
    assert ["finetune.lr", "0.001"] in [row for table in found.tables for row in table]


def test_photos_that_are_gone_leave_their_captions(made, copy):
    data = made.config.data.model_copy(update={"path": str(copy.folder / "nowhere")})
    found = copy.write(made.config.model_copy(update={"data": data}))
    alts = {a["alt"] for tag, a in found.tags if tag == "img"}
    assert alts <= set(made.images.table["id"]), "captions are not here, so ids stand for them"
    table = pd.read_parquet(copy.folder / "02_embed" / "vectors.parquet")
    table["path"] = "/nowhere/" + table["id"]
    table.to_parquet(copy.folder / "02_embed" / "vectors.parquet")
    recorded(copy.folder / "02_embed")
    found = copy.write()
    assert found.images() == []
    assert "missing file" in found.text
    assert ATTACKS[0] in found.text


def test_stored_p_values_are_shown_and_absent_ones_found(made, copy):
    predictions = report.read(made.config, report.PREDICTIONS)
    paired = statistics.compare(predictions, "finetuned", "base", made.config.evaluate.bootstrap, made.config.seed)
    head = [
        "",
        "metric",
        "difference",
        "detectable",
        "McNemar p",
        "bootstrap p",
        "the one that counts",
        "adjusted by Holm",
    ]
    assert [row[-1] for row in made.page.table(*head)] == [html._p(value) for value in paired.p_holm]
    paired.assign(p_holm=0.0123).to_csv(copy.folder / "04_evaluate" / "differences.csv", index=False)
    recorded(copy.folder / "04_evaluate")
    assert {row[-1] for row in copy.write().table(*head)} == {"0.0123"}


def test_protocols_that_were_used_are_explained(copy):
    assert "a text has to beat its own twin" in copy.write().text
    metrics = pd.read_csv(copy.folder / "metrics.csv")
    more = metrics.head(2).assign(task="zero_shot", dataset="flowers/colour", protocol=["as_released", "corrected"])
    pd.concat([metrics, more]).to_csv(copy.folder / "metrics.csv", index=False)
    recorded(copy.folder / "04_evaluate")
    found = copy.write()
    assert html.NOTES["flowers/colour"] in found.text
    assert html.NOTES["awa2/"] not in found.text
    told = {row[0] for table in found.tables for row in table}
    assert {"flowers, colour, as released", "flowers, colour, corrected"} <= told


def test_a_run_that_reuses_anothers_comparisons(made, copy):
    for name in ("01_generate", "02_embed"):
        shutil.rmtree(copy.folder / name)
    config = made.config.model_copy(update={"run": "late", "reuse": made.config.run})
    found = copy.write(config)
    assert "has not finished" not in found.text
    assert len(found.images()) == len(made.page.images())


# parts of a page


def test_a_figure_takes_its_colours_from_the_page_and_keeps_texts_texts():
    figure, ax = plt.subplots()
    ax.plot([0, 1], color="black")
    ax.set_title(ATTACKS[0])
    ax.set_xlabel(ATTACKS[1])
    plt.close(figure)
    found = html.svg(figure)
    assert found == html.svg(figure)
    assert "currentColor" in found
    assert "#000000" not in found
    assert "http" not in found
    parsed = Page(found)
    assert [tag for tag, _ in parsed.tags if tag in ("img", "script")] == []
    assert ATTACKS[0] in parsed.text
    assert ATTACKS[1] in parsed.text


def test_columns_of_numbers_are_aligned_with_true_minus_signs():
    found = html.table(pd.DataFrame([["-1", "-0.5", "x-1"], ["y", "", "2"]], columns=["name", "a", "b"]))
    assert found["numeric"] == [False, True, False]
    assert found["rows"] == [["-1", "−0.5", "x-1"], ["y", "", "2"]]
    assert html.table(pd.DataFrame({"p": ["<0.0001", "1e-05"]}))["numeric"] == [True]


def test_numbers_with_intervals_and_stars_are_numbers():
    found = html.table(pd.DataFrame([["set", "-0.1 [-0.2, -0.0] *"], ["other", ""]], columns=["", "change"]))
    assert found["numeric"] == [False, True]
    assert found["rows"][0] == ["set", "−0.1 [−0.2, −0.0] *"]
