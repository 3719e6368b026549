"""Ranking: rank() on photos and runs, the command line, and the box in the notebook."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import pcclip
from pcclip import params
from pcclip.axes import ESTIMATORS, attribute_axis
from pcclip.cli import main
from pcclip.data import load_images
from pcclip.embed import embed
from pcclip.errors import PcclipError
from pcclip.models.encoder import DualEncoder
from pcclip.ranking import axis, embed_photos, find_photos, order, rank
from pcclip.widgets.ranking import RankingBox

MORE, LESS = "a red disc", "a blue square"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """A model this small only waits for its threads."""
    torch.set_num_threads(1)


@pytest.fixture
def few(photos, tmp_path):
    """Five photos in a folder with a subfolder, a captions file and two unreadable ones."""
    (tmp_path / "few" / "deep").mkdir(parents=True)
    names = ["disc-red.png", "bar-blue.png", "ring-green.png", "deep/dot-red.PNG", "deep/wedge-blue.jpg"]
    for name in names:
        source = photos / name.split("/")[-1].replace(".PNG", ".png").replace(".jpg", ".png")
        Image.open(source).save(tmp_path / "few" / name)
    (tmp_path / "few" / "a-broken.png").write_text("no image")
    (tmp_path / "few" / "b-empty.png").touch()
    (tmp_path / "few" / "captions.csv").write_text("path,caption\n")
    return tmp_path / "few"


@pytest.fixture
def run_folder(values, tiny_encoder):
    """The folder of a run whose photos have been embedded."""
    config = params.check(values)
    embed(config, load_images(config), tiny_encoder)
    return config.folder


def names(table) -> list[str]:
    return [path.rsplit("/", 1)[-1] for path in table.path]


# ---- rank() ----------------------------------------------------------------------------------------------------------

def test_order_is_that_of_the_projection(photos, tiny_encoder):
    table = rank(photos, MORE, LESS, tiny_encoder)
    texts = tiny_encoder.encode_texts([f"a photo of {MORE}", f"a photo of {LESS}"])
    scores = tiny_encoder.encode_images(list(table.path)) @ (texts[0] - texts[1])
    assert list(table.columns) == ["position", "path", "score", "problem"]
    assert list(table.position) == list(range(1, 25))
    assert (np.diff(table.score) <= 0).all()
    assert table.score.to_numpy() == pytest.approx(scores, abs=1e-5)


def test_without_less_it_is_likeness(photos, tiny_encoder):
    table = rank(photos, MORE, model=tiny_encoder)
    text = tiny_encoder.encode_texts([f"a photo of {MORE}"])[0]
    assert table.score.to_numpy() == pytest.approx(tiny_encoder.encode_images(list(table.path)) @ text, abs=1e-5)


def test_swapping_more_and_less_reverses_the_order(photos, tiny_encoder):
    one, other = (rank(photos, *texts, tiny_encoder) for texts in ((MORE, LESS), (LESS, MORE)))
    assert one.score.nunique() == 24
    assert list(one.path) == list(other.path)[::-1]
    assert one.score.to_numpy() == pytest.approx(-other.score.to_numpy()[::-1], abs=1e-6)


def test_unreadable_photos_come_last_with_their_problem(few, tiny_encoder):
    table = rank(few, MORE, LESS, tiny_encoder)
    assert len(table) == 7
    assert names(table)[5:] == ["a-broken.png", "b-empty.png"]
    assert table.score[:5].notna().all()
    assert table.score[5:].isna().all()
    assert list(table.problem[:5]) == [""] * 5
    assert table.problem[5].startswith("unreadable image")
    assert table.problem[6] == "empty file"


@pytest.mark.parametrize(("photos_of", "expected"), [
    (lambda few: few / "deep", {"dot-red.PNG", "wedge-blue.jpg"}),
    (lambda few: str(few / "*e*.png"), {"disc-red.png", "bar-blue.png", "ring-green.png", "a-broken.png",
                                        "b-empty.png"}),
    (lambda few: str(few / "**" / "d*"), {"disc-red.png", "dot-red.PNG"}),
    (lambda few: [few / "disc-red.png", str(few / "missing.png")], {"disc-red.png", "missing.png"}),
    (lambda few: few / "disc-red.png", {"disc-red.png"}),
], ids=["folder", "glob", "deep glob", "list", "one file"])
def test_photos_may_be_a_folder_a_glob_or_a_list(few, tiny_encoder, photos_of, expected):
    assert set(names(rank(photos_of(few), MORE, LESS, tiny_encoder))) == expected


def test_a_runs_stored_vectors_are_used(run_folder, photos, tiny_encoder, monkeypatch):
    fresh = rank(photos, MORE, LESS, tiny_encoder)
    monkeypatch.setattr(DualEncoder, "encode_pixels", None)
    stored = rank(run_folder, MORE, LESS, tiny_encoder)
    assert names(stored) == names(fresh)
    assert stored.score.to_numpy() == pytest.approx(fresh.score.to_numpy(), abs=1e-5)


def test_a_run_that_has_not_embedded_yet(values, tiny_encoder):
    folder = params.check(values).folder
    (folder / "02_embed").mkdir(parents=True)
    with pytest.raises(PcclipError, match=r"02_embed: this stage has not finished"):
        rank(folder, MORE, LESS, tiny_encoder)


@pytest.mark.parametrize("texts", [("", None), ("  ", "x"), ("x", ""), ("x", " \n")])
def test_empty_text(few, tiny_encoder, texts):
    with pytest.raises(PcclipError, match="the attribute text is empty"):
        rank(few, *texts, tiny_encoder)


@pytest.mark.parametrize("photos_of", [
    lambda folder: folder, lambda folder: folder / "nowhere", lambda folder: str(folder / "*.png"), lambda folder: []])
def test_no_photos(tmp_path, tiny_encoder, photos_of):
    with pytest.raises(PcclipError, match="no photos there"):
        rank(photos_of(tmp_path), MORE, LESS, tiny_encoder)


def test_none_readable(tmp_path, tiny_encoder):
    (tmp_path / "a.png").touch()
    with pytest.raises(PcclipError, match=r"none of the 1 photos can be read, e\.g\. .*a\.png: empty file"):
        rank(tmp_path, MORE, LESS, tiny_encoder)


def test_unknown_model(few):
    with pytest.raises(PcclipError, match="unknown model 'ViT-Z'"):
        rank(few, MORE, LESS, "ViT-Z")


def test_one_file_with_brackets_in_its_name(few, tiny_encoder):
    (few / "disc-red.png").rename(few / "disc [2].png")
    assert names(rank(few / "disc [2].png", MORE, LESS, tiny_encoder)) == ["disc [2].png"]


def test_pcclip_rank_is_the_function_whatever_was_imported_before():
    code = "import pcclip.ranking, pcclip.widgets.ranking, pcclip; assert callable(pcclip.rank)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- axes ------------------------------------------------------------------------------------------------------------

def test_axes_are_differences_of_the_attributes_texts(config, tiny_encoder):
    size = config.evaluate.attributes["size"]
    more, less, comparison, swapped = tiny_encoder.encode_texts(
        [size.more, size.less, size.comparison, size.comparison_swapped])
    expected = {"one_sided": comparison, "antisymmetric": comparison - swapped, "two_prompt": more - less}
    assert set(expected) == set(ESTIMATORS)
    for estimator, direction in expected.items():
        assert attribute_axis(tiny_encoder, size, estimator) == pytest.approx(direction, abs=1e-6)


# ---- command line ----------------------------------------------------------------------------------------------------

def cli(capfd, *arguments) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    return status, *capfd.readouterr()


def test_cli_prints_a_table(few, tiny_model, tiny_encoder, capfd):
    status, out, _ = cli(capfd, "rank", few, "--more", MORE, "--less", LESS, "--model", tiny_model)
    lines = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    expected = rank(few, MORE, LESS, tiny_encoder)
    assert status == 0
    assert [line[0] for line in lines] == [str(k) for k in range(1, 8)]
    assert [line[2] for line in lines] == list(expected.path)
    assert [float(line[1]) for line in lines[:5]] == pytest.approx(list(expected.score[:5]), abs=1e-4)
    assert lines[6][1] == "empty file"


def test_cli_json_is_alone_on_stdout(few, tiny_model, capfd):
    status, out, err = cli(capfd, "rank", few, "--more", MORE, "--model", tiny_model, "--json")
    rows = json.loads(out)
    assert status == 0
    assert [set(row) for row in rows] == [{"position", "path", "score", "problem"}] * 7
    assert rows[-1]["score"] is None
    assert "photos: 7/7" in err


def test_cli_top_and_sheet(few, tiny_model, tmp_path, capfd):
    sheet = tmp_path / "sheet.png"
    status, out, _ = cli(
        capfd, "rank", few, "--more", MORE, "--model", tiny_model, "--top", 2, "--sheet", sheet)
    assert (status, len(out.splitlines())) == (0, 2)
    assert Image.open(sheet).format == "PNG"
    assert Image.open(sheet).width == 2 * 166 + 6


@pytest.mark.parametrize("arguments", [
    ["--more", MORE, "--model", "ViT-Z"], ["--more", MORE, "--model", "ViT-B-32:nope"], ["--more", " "],
    ["--more", MORE, "--alpha", "1.5"],
], ids=["model", "tag", "text", "alpha"])
def test_cli_mistake_is_one_line(few, capfd, arguments):
    status, out, err = cli(capfd, "rank", few, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("pcclip: ")
    assert len(err.splitlines()) == 1


def test_cli_interrupted(few, tiny_model, monkeypatch, capfd):
    def interrupt(self, pixels):
        raise KeyboardInterrupt

    monkeypatch.setattr(DualEncoder, "encode_pixels", interrupt)
    status, _, err = cli(capfd, "rank", few, "--more", MORE, "--model", tiny_model)
    assert (status, err) == (130, "pcclip: interrupted; run the same command again to continue\n")


def test_cli_sheet_in_a_missing_folder(few, tiny_model, tmp_path, capfd):
    sheet = tmp_path / "nowhere" / "sheet.png"
    status, _, err = cli(capfd, "rank", few, "--more", MORE, "--model", tiny_model, "--sheet", sheet)
    assert sheet.is_file() or (status == 1 and "sheet.png" in err)


@pytest.mark.parametrize("top", ["0", "-2"])
def test_cli_top_must_be_positive(few, tiny_model, capfd, top):
    try:
        status, out, _ = cli(capfd, "rank", few, "--more", MORE, "--model", tiny_model, f"--top={top}")
    except SystemExit as stop:  # argparse's own way to say so
        status, out = stop.code, ""
    assert status != 0
    assert not out


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_does_not_import_torch(argument):
    code = ("import sys\nfrom pcclip.cli import main\n"
            "try:\n    main(sys.argv[1:])\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "False\n")
    assert "pcclip" in done.stdout


# ---- the box ---------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def other_encoder(tiny_model):
    """The tiny model with another text tower, as finetuning leaves it."""
    model = pcclip.load_model(tiny_model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in model.transformer().parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    return model


@pytest.fixture(scope="module")
def vectors(photos, tiny_encoder):
    return embed_photos(find_photos(photos), tiny_encoder)[0]


@pytest.fixture
def box(vectors, tiny_encoder, other_encoder):
    captions = {path: f"no. {i}" for i, path in enumerate(vectors.ids)}
    captions[vectors.ids[0]] = "<img src=x onerror=alert(1)> & \"'{0}"
    return RankingBox(vectors, captions, {"base": tiny_encoder, "finetuned": other_encoder}, MORE, LESS)


def shown(box) -> list[str]:
    return re.findall(r"<figcaption[^>]*>\d+\. (.*?)<br>", box.gallery.value)


def test_box_shows_the_order_of_its_model(box, vectors, other_encoder):
    assert box.model.value == "finetuned"
    table = order(vectors, axis(other_encoder, MORE, LESS))
    rank_of = {path: i for i, path in enumerate(vectors.paths)}
    plain = [caption for caption in shown(box) if caption.startswith("no.")]
    assert plain == [f"no. {rank_of[path]}" for path in table.path if rank_of[path]]
    assert box.gallery.value.count("data:image/jpeg;base64,/9j/") == 24


@pytest.mark.parametrize(("control", "value"), [
    ("more", "a green ring"), ("less", "a green ring"), ("less", ""), ("model", "base"), ("direction", "least first")])
def test_box_follows_every_control(box, control, value):
    before = shown(box)
    getattr(box, control).value = value
    assert shown(box) != before
    assert sorted(shown(box)) == sorted(before)


def test_box_least_first_is_the_reverse(box):
    before = shown(box)
    box.direction.value = "least first"
    assert shown(box) == before[::-1]


def test_box_escapes_captions(box):
    html = box.gallery.value
    assert "<img src=x" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt; &amp; &quot;&#x27;{0}") == 2  # caption and alt


def test_box_asks_for_a_text_when_there_is_none(box):
    box.more.value = "  "
    assert "Type what" in box.problem.value
    box.more.value = "a red disc"
    assert box.problem.value == ""


def test_box_survives_a_photo_that_is_gone(photos, tiny_encoder, tmp_path):
    Image.open(photos / "disc-red.png").save(tmp_path / "a.png")
    vectors, _ = embed_photos([str(tmp_path / "a.png")], tiny_encoder)
    (tmp_path / "a.png").unlink()
    assert shown(RankingBox(vectors, {}, {"base": tiny_encoder})) == [str(tmp_path / "a.png")]
