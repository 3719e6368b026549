"""README and docs: their commands, code and parameters work, their links lead somewhere, their numbers are the golden ones."""

import ast
import re
import shlex
import shutil
import textwrap
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers.runs import ROOT, run_values, up_to_03

import pcclip
from pcclip import cli, config
from pcclip.benchmarks.registry import FAMILIES
from pcclip.data.image_set import SOURCES
from pcclip.ranking import saved
from pcclip.ranking.votes import Words
from pcclip.stats.metrics import MEASURES, METRICS_OF
from pcclip.workbook import notebooks
from pcclip.workbook.sweep import read_sweep

PAGES = [ROOT / name for name in ("README.md", "LOG.md", "CONTRIBUTING.md", "params/README.md", "notebooks/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)( \w+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GOLDEN = pd.read_csv(ROOT / "tests" / "golden" / "demo_metrics.csv")
TEXTS = {"text", ""}  # what a command prints, folder layouts, diagrams
README_ROWS = {  # the first cell of README's table -> task, data set, metric
    "classification, sentences from a template": ("difference_classification", "stamps/template", "accuracy"),
    "order, the same sentences": ("difference_order", "stamps/template", "accuracy"),
    "order, the second image mentioned first": (
        "difference_order",
        "stamps/structures/trained/reversed",
        "accuracy",
    ),
    "zero-shot classification into 15 kinds": ("zero_shot", "stamps", "accuracy"),
    "photos whose caption is among the nearest 5 of 125": ("recall_at_5", "stamps/captions", "accuracy"),
    "body mass, pairwise (size is trained)": ("ranking", "stamps/body_mass/two_prompt", "pairwise_accuracy"),
    "top speed, pairwise (never trained)": ("ranking", "stamps/top_speed/two_prompt", "pairwise_accuracy"),
}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(*languages: str) -> list:
    """The code blocks in these languages, as parameters called PAGE:LINE."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf8")
        for match in BLOCK.finditer(text):
            if match[1] in languages and not match[2]:  # a named block is CONTRIBUTING's, run by test_contributing
                line = text.count("\n", 0, match.start()) + 1
                found.append(pytest.param(textwrap.dedent(match[3]), id=f"{name(page)}:{line}"))
    return found


def commands() -> list:
    """The lines of all shell blocks without their comments, as parameters."""
    return [
        pytest.param(line, id=f"{block.id} {line[:40]}")
        for block in blocks("bash")
        for line in (re.sub(r"\s+# .*", "", line) for line in block.values[0].splitlines())
        if line
    ]


def row(task: str, dataset: str, metric: str, model: str) -> pd.Series:
    rows = GOLDEN[(GOLDEN[["task", "dataset", "metric", "model"]] == [task, dataset, metric, model]).all(axis=1)]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.fixture(scope="module")
def tiny_workbook(photos, tiny_model, tiny_encoder, tmp_path_factory):
    """A workbook in which params/demo.yaml is tiny and has been trained; ~/Photos and the pictures of README's examples."""
    root = tmp_path_factory.mktemp("workbook")
    values = run_values(photos, tiny_model, root) | {"run": "demo", "outputs": "outputs"}
    (root / "params").mkdir()
    (root / "params" / "demo.yaml").write_text(yaml.safe_dump(values))
    shutil.copyfile(ROOT / "params" / "paper_coco.yaml", root / "params" / "paper_coco.yaml")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(photos, root / "Photos")
    pictures = sorted(photos.glob("*.png"))
    for file, picture in zip(("cat.jpg", "dog.jpg", "big.jpg", "small.jpg"), pictures, strict=False):
        shutil.copyfile(picture, root / file)
    (root / "votes.jsonl").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PCCLIP_ROOT", str(root))
        up_to_03(config.check(values), tiny_encoder)
    return root


@pytest.fixture
def inside(tiny_workbook, tiny_model, monkeypatch):
    """The tiny workbook as root, current folder and home; the tiny model takes the place of every other."""
    from pcclip import encoders

    load = encoders.load_model
    monkeypatch.setenv("PCCLIP_ROOT", str(tiny_workbook))
    monkeypatch.setenv("HOME", str(tiny_workbook))
    for name in ("PCCLIP_CACHE", "PCCLIP_DATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    if not saved.names():
        words = Words("a red disc", "a blue square", "two_prompt", photos=str(tiny_workbook / "Photos"))
        saved.ranking("dangerous", exists=False).append(words)
    monkeypatch.chdir(tiny_workbook)

    def load_tiny(spec, *others, **named):
        return load(spec if re.search("outputs|exported", spec) else tiny_model, *others, **named)

    for module in ("pcclip.encoders", "pcclip.ranking.rank"):
        monkeypatch.setattr(f"{module}.load_model", load_tiny)
    monkeypatch.setitem(vars(pcclip), "load_model", load_tiny)
    return tiny_workbook


# ---- code ------------------------------------------------------------------------------------------------------------


def test_every_block_has_a_language_that_is_tried():
    languages = {match[1] for page in PAGES for match in BLOCK.finditer(page.read_text(encoding="utf8"))}
    assert languages <= {"python", "yaml", "bash", *TEXTS}


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block, inside, monkeypatch, capsys):
    """A whole run is checked and not run: tests/notebooks run it."""
    monkeypatch.setattr(pcclip, "run", partial(notebooks.run, check_only=True))
    exec(compile(block, "block", "exec"), {})
    assert ("params/demo.yaml: fine" in capsys.readouterr().out) == ("run(" in block)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_parameters_are_accepted(block, tmp_path):
    (tmp_path / "mine.yaml").write_text(block, encoding="utf8")
    assert read_sweep(tmp_path / "mine.yaml")


@pytest.mark.parametrize("command", commands())
def test_commands_exist(command):
    """What takes minutes is parsed by the command line's own parser, and its files are there."""
    program, *words = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[0] in targets
    elif program.endswith("pcclip"):
        assert callable(cli.parser().parse_args(words).command)
    else:
        assert program.split("/")[-1] in ("papermill", "pre-commit", "sky")
    files = [word for word in words if re.match(r"(params|notebooks|speed)/", word)]
    assert all((ROOT / file).exists() for file in files)


QUICK = re.compile(r"pcclip (rank|params|cache|plan|export-page|export .*--to [^:]+$|run params/demo.yaml --check)")


@pytest.mark.parametrize("command", [c for c in commands() if QUICK.search(c.values[0])])
def test_quick_commands_run(command, inside, capsys):
    words = [word.replace("~", str(inside)) for word in shlex.split(command)[1:]]
    if "--votes" in words:
        del words[words.index("--votes") : words.index("--votes") + 2]  # nobody has voted yet
    assert cli.main(words) == 0
    assert capsys.readouterr().out.strip()


# ---- what the pages say ----------------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    for target in targets:
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


def test_readme_is_short_and_has_the_golden_numbers():
    text = (ROOT / "README.md").read_text(encoding="utf8")
    assert len(text.splitlines()) < 150
    table = re.findall(r"^\| ([^|]+) \| (\d[^|]+) \| ([^|]+) \| (\d+) \w+ \|$", text, re.MULTILINE)
    assert {cells[0] for cells in table} == set(README_ROWS)
    for title, *numbers, n in table:
        for model, number in zip(("base", "finetuned"), numbers, strict=True):
            golden = row(*README_ROWS[title], model)
            interval = f"{golden.value:.3f} [{golden.ci_low:.3f}, {golden.ci_high:.3f}]"
            assert number == (f"{interval}, tied" if golden.tied and model == "finetuned" else interval), title
            assert int(n) == golden.n
    free = row("difference_classification", "stamps/structures/captions subtracted", "accuracy", "base")
    forward = row("difference_classification", "stamps/structures/trained/forward", "accuracy", "finetuned")
    sentence = f"classifies {free.value:.3f} of {free.n} pairs, the finetuned sentence {forward.value:.3f} of the same"
    assert sentence in " ".join(text.split())


def test_every_set_and_source_has_an_example():
    page = [yaml.safe_load(block.values[0]) for block in blocks("yaml") if block.id.startswith("docs/data.md")]
    assert {values["data"]["source"] for values in page if "data" in values} == set(SOURCES)
    for family in FAMILIES.values():
        block, key = family.block.split(".")
        assert {name for values in page for name in values.get(block, {}).get(key, {})} == set(family.readers), key


def test_layouts_are_those_of_the_readers():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf8")
    for path in sorted((ROOT / "pcclip" / "benchmarks").rglob("*.py")):
        lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf8"))) or "").splitlines()
        for layout in [line[4:].rstrip() for line in lines if line.startswith("    ")]:
            assert layout in page, f"{path.name}: {layout}"


def test_everything_has_a_status_and_a_meaning():
    status, metrics = ((ROOT / "docs" / page).read_text(encoding="utf8") for page in ("status.md", "metrics.md"))
    files = {path.name for path in (ROOT / "params").glob("*.yaml")}
    assert set(re.findall(r"\w+\.yaml", status)) == files
    backends = config.Generate.model_fields["backend"].annotation.__args__
    sets = [name for family in FAMILIES.values() for name in family.readers]
    assert [word for word in [*backends, *sets, *SOURCES] if f"`{word}`" not in status] == []
    words = {*GOLDEN.task, *GOLDEN.metric, *METRICS_OF, *MEASURES} - {"sugarcrepe_pp_tot"}
    assert [word for word in words if f"`{word}`" not in metrics] == []
