"""Ranking: rank() on photos, runs and stored vectors by words, examples and votes, and the command line."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pcclip import config as params
from pcclip.cli import main
from pcclip.comparisons.llm import Reply, Template
from pcclip.config import Generate
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed
from pcclip.embedding.vectors import load_vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.ranking.axes import ESTIMATORS, Query, agreeing, attribute_axis
from pcclip.ranking.cache import VectorCache
from pcclip.ranking.examples import Examples, read_examples
from pcclip.ranking.paraphrases import paraphrases
from pcclip.ranking.rank import rank
from pcclip.ranking.votes import Vote, VoteFile
from pcclip.runs.stage import Stage, finished

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
    axis = (texts[0] - texts[1]) / np.linalg.norm(texts[0] - texts[1])
    scores = tiny_encoder.encode_images(list(table.path)) @ axis
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


@pytest.mark.parametrize(
    ("photos_of", "expected"),
    [
        (lambda few: few / "deep", {"dot-red.PNG", "wedge-blue.jpg"}),
        (
            lambda few: str(few / "*e*.png"),
            {"disc-red.png", "bar-blue.png", "ring-green.png", "a-broken.png", "b-empty.png"},
        ),
        (lambda few: str(few / "**" / "d*"), {"disc-red.png", "dot-red.PNG"}),
        (lambda few: [few / "disc-red.png", str(few / "missing.png")], {"disc-red.png", "missing.png"}),
        (lambda few: few / "disc-red.png", {"disc-red.png"}),
    ],
    ids=["folder", "glob", "deep glob", "list", "one file"],
)
def test_photos_may_be_a_folder_a_glob_or_a_list(few, tiny_encoder, photos_of, expected):
    assert set(names(rank(photos_of(few), MORE, LESS, tiny_encoder))) == expected


def test_a_runs_stored_vectors_are_used(run_folder, photos, tiny_encoder, monkeypatch):
    fresh = rank(photos, MORE, LESS, tiny_encoder)
    monkeypatch.setattr(Encoder, "encode_pixels", None)
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


@pytest.mark.parametrize(
    "photos_of",
    [lambda folder: folder, lambda folder: folder / "nowhere", lambda folder: str(folder / "*.png"), lambda folder: []],
)
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


def test_cli_json_is_alone_on_stdout(few, tiny_model, own_cache, capfd):
    status, out, err = cli(capfd, "rank", few, "--more", MORE, "--model", tiny_model, "--json")
    rows = json.loads(out)
    assert status == 0
    assert [set(row) for row in rows] == [{"position", "path", "score", "problem"}] * 7
    assert rows[-1]["score"] is None
    assert "photos: 7/7" in err


def test_cli_top_and_sheet(few, tiny_model, tmp_path, capfd):
    sheet = tmp_path / "sheet.png"
    status, out, _ = cli(capfd, "rank", few, "--more", MORE, "--model", tiny_model, "--top", 2, "--sheet", sheet)
    assert (status, len(out.splitlines())) == (0, 2)
    assert Image.open(sheet).format == "PNG"
    assert Image.open(sheet).width == 2 * 166 + 6


@pytest.mark.parametrize(
    "arguments",
    [
        ["--more", MORE, "--model", "ViT-Z"],
        ["--more", MORE, "--model", "ViT-B-32:nope"],
        ["--more", " "],
        ["--more", MORE, "--alpha", "1.5"],
    ],
    ids=["model", "tag", "text", "alpha"],
)
def test_cli_mistake_is_one_line(few, capfd, arguments):
    status, out, err = cli(capfd, "rank", few, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("pcclip: ")
    assert len(err.splitlines()) == 1


def test_cli_interrupted(few, tiny_model, own_cache, monkeypatch, capfd):
    def interrupt(self, pixels):
        raise KeyboardInterrupt

    monkeypatch.setattr(Encoder, "encode_pixels", interrupt)
    try:
        status, _, err = cli(capfd, "rank", few, "--more", MORE, "--model", tiny_model)
    except KeyboardInterrupt:  # it would end the session of pytest
        pytest.fail("Ctrl-C is not caught")
    assert (status, err) == (130, "pcclip: interrupted; run the same command again to continue\n")


def test_cli_names_that_are_not_utf8(few, tiny_model, tmp_path, capfd):
    os.rename(few / "disc-red.png", os.fsencode(few) + b"/disc-\xe9.png")
    csv = tmp_path / "t.csv"
    status, out, _ = cli(capfd, "rank", few, "--more", MORE, "--model", tiny_model, "--csv", csv, "--top", 9)
    assert (status, len(out.splitlines())) == (0, 7)
    assert "/disc-\uf7e9.png," in csv.read_text(encoding="utf8")  # as images.as_text writes it
    examples = Examples([few / "disc-\udce9.png"])
    assert names(rank(few, examples=examples, model=tiny_model))[0] == "disc-\uf7e9.png"


def test_cli_cache(few, tiny_model, own_cache, capfd):
    cli(capfd, "rank", few, "--more", MORE, "--model", tiny_model)
    status, out, _ = cli(capfd, "cache")
    assert (status, out.splitlines()[1].split()[:2]) == (0, ["5", "vectors"])
    assert "at most 4000 MB" in out
    assert "vectors of" not in cli(capfd, "cache", "--limit", 0)[1]


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
    code = (
        "import sys\nfrom pcclip.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "False\n")
    assert "pcclip" in done.stdout


# ---- examples, votes, estimators -------------------------------------------------------------------------------------


def paths_of(photos, *stems) -> list[str]:
    return [str(photos / f"{stem}.png") for stem in stems]


def test_the_estimator_changes_the_axis(photos, tiny_encoder):
    query = Query(MORE, LESS)
    for estimator in ESTIMATORS:
        axis = attribute_axis(tiny_encoder, query.attribute(), estimator)
        table = rank(photos, MORE, LESS, tiny_encoder, estimator=estimator)
        assert table.score.to_numpy() == pytest.approx(tiny_encoder.encode_images(list(table.path)) @ axis, abs=1e-5)


def test_one_example_each_is_enough(photos, tiny_encoder):
    most, least = paths_of(photos, "disc-red", "bar-blue")
    table = rank(photos, model=tiny_encoder, examples=Examples([most], [least])).set_index("path")
    vectors = tiny_encoder.encode_images([most, least])
    axis = (vectors[0] - vectors[1]) / np.linalg.norm(vectors[0] - vectors[1])
    assert table.score[most] - table.score[least] == pytest.approx(axis @ (vectors[0] - vectors[1]), abs=1e-5)
    assert (table.deviation > 0).all()


def test_examples_need_not_be_among_the_photos(few, photos, tiny_encoder):
    most, least = paths_of(photos, "disc-green", "square-blue")
    table = rank(few, MORE, LESS, tiny_encoder, examples=Examples([most], [least]))
    assert len(table) == 7
    with pytest.raises(PcclipError, match=r"example .*a-broken\.png: unreadable image"):
        rank(photos, model=tiny_encoder, examples=Examples([few / "a-broken.png"]))


@pytest.mark.parametrize(
    "text",
    ["path,side\n{a},most\n{b},least\n", '{{"path": "{a}", "side": "most"}}\n{{"path": "{b}", "side": "least"}}\n'],
)
def test_an_examples_file(tmp_path, text):
    file = tmp_path / ("e.csv" if text.startswith("path") else "e.jsonl")
    file.write_text(text.format(a="x/1.png", b="2"))
    examples = read_examples(file)
    assert (examples.most, examples.least) == (["x/1.png"], ["2"])


@pytest.mark.parametrize(
    "text",
    [
        "side,path\nmost,000000397133\nleast,null\n",
        '{"path": "000000397133", "side": "most"}\n{"path": "null", "side": "least"}\n',
    ],
)
def test_ids_that_look_like_something_else(tmp_path, text):
    file = tmp_path / ("e.csv" if text.startswith("side") else "e.jsonl")
    file.write_text(text)
    examples = read_examples(file)
    assert (examples.most, examples.least) == (["000000397133"], ["null"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,what\na,most\n", "it needs path and side"),
        ("path,side\na,more\n", "side 'more'; it must be most or least"),
        ("", "cannot be read as CSV"),
        ("path,side\n", "no examples"),
        ("path,side\na,most\na,least\n", "most and as least"),
    ],
)
def test_an_examples_file_that_is_none(tmp_path, text, message):
    (tmp_path / "e.csv").write_text(text)
    with pytest.raises(PcclipError, match=message):
        read_examples(tmp_path / "e.csv")
    with pytest.raises(PcclipError, match="cannot be read as CSV"):
        read_examples(tmp_path / "none.csv")


@pytest.fixture
def votes(photos, tmp_path):
    """A file with thirty votes for red over blue photos."""
    file, label = VoteFile(tmp_path / "votes.jsonl"), Query(MORE, LESS).label
    for shape in ("disc", "bar", "ring", "cross", "wedge", "dot") * 5:
        file.append(Vote(*paths_of(photos, f"{shape}-red", f"{shape}-blue"), "first"), attribute=label)
    return file


def test_votes_order_the_photos(photos, tiny_encoder, votes):
    table = rank(photos, model=tiny_encoder, votes=votes.path).set_index("path")
    for shape in ("disc", "ring", "cross"):
        red, blue = paths_of(photos, f"{shape}-red", f"{shape}-blue")
        assert table.score[red] > table.score[blue]


def test_votes_move_the_texts_order(photos, tiny_encoder, votes):
    words, both = (
        rank(photos, LESS, MORE, tiny_encoder, votes=given).set_index("path") for given in (None, votes.read())
    )
    red, blue = paths_of(photos, "ring-red", "ring-blue")
    assert both.score[red] - both.score[blue] > words.score[red] - words.score[blue]


def test_a_file_of_votes_on_two_attributes_is_asked_for_one(photos, tiny_encoder, votes):
    expected = rank(photos, MORE, LESS, tiny_encoder, votes=votes.path)
    votes.append(Vote(*paths_of(photos, "disc-blue", "disc-red"), "first"), attribute="a blue thing")
    assert rank(photos, MORE, LESS, tiny_encoder, votes=votes.path).equals(expected)
    with pytest.raises(PcclipError, match=r"votes on .* \(30\), 'a blue thing' \(1\); ask for one of these"):
        rank(photos, "something else", model=tiny_encoder, votes=votes.path)


def test_votes_on_another_attribute_are_not_used(photos, tiny_encoder, votes, tmp_path):
    with pytest.raises(PcclipError, match=r"votes on .* \(30\); ask for one of these with the same words"):
        rank(photos, "something else", model=tiny_encoder, votes=votes.path)
    plain = VoteFile(tmp_path / "plain.jsonl")
    for vote in votes.read():
        plain.append(vote, attribute=None)
    expected = rank(photos, "something else", model=tiny_encoder, votes=votes.read())
    assert rank(photos, "something else", model=tiny_encoder, votes=plain.path).equals(expected)


def test_votes_that_cancel_without_words(photos, tiny_encoder):
    one, other = paths_of(photos, "disc-red", "bar-blue")
    cast = [Vote(one, other, "first"), Vote(other, one, "first")]
    with pytest.raises(PcclipError, match="votes: they are ties, or cancel out, and there are no words"):
        rank(photos, model=tiny_encoder, votes=cast)
    assert np.isfinite(rank(photos, MORE, model=tiny_encoder, votes=cast).deviation).all()


def test_votes_and_examples_travel(few, photos, tiny_encoder, tmp_path, monkeypatch):
    """By the photos' bytes: the folder is renamed, its photos too, and the shell stands elsewhere."""
    paths = [str(few / "disc-red.png"), str(few / "bar-blue.png")]
    file, contents = VoteFile(tmp_path / "v.jsonl"), VectorCache().contents(paths)
    file.append(Vote("disc-red.png", "bar-blue.png", "second", *contents), attribute=MORE)
    examples = Examples([paths[0]], ["deep/wedge-blue.jpg"])
    before = rank(few, MORE, model=tiny_encoder, votes=file.path, examples=examples)
    few.rename(tmp_path / "moved")
    (tmp_path / "moved" / "bar-blue.png").rename(tmp_path / "moved" / "deep" / "stripe.png")
    monkeypatch.chdir(tmp_path)
    after = rank(
        "moved", MORE, model=tiny_encoder, votes=file.path, examples=Examples(["disc-red.png"], examples.least)
    )
    np.testing.assert_allclose(after.score, before.score, atol=1e-3)
    assert [name.replace("stripe.png", "bar-blue.png") for name in names(after)] == names(before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"votes": [Vote("x", "y", "first")]}, "votes: none is on these photos"),
        ({"examples": Examples(["x.png"])}, "example x.png: neither a file nor one of the photos; give its path"),
        ({"examples": Examples(["a-broken.png"])}, "example a-broken.png: unreadable image"),
        ({"more": MORE, "sheet": "/no/such/s.png"}, "/no/such: no such folder; make it first"),
    ],
)
def test_errors_are_told_before_any_photo_is_encoded(few, tiny_encoder, own_cache, monkeypatch, given, message):
    monkeypatch.setattr(Encoder, "encode_pixels", None)
    with pytest.raises(PcclipError, match=message):
        rank(few, model=tiny_encoder, **given)


def test_votes_on_other_photos(few, tiny_encoder, tmp_path, capsys):
    cast = [Vote("x", "y", "first"), Vote("y", "z", "tie")]
    with pytest.raises(PcclipError, match="votes: none is on these photos"):
        rank(few, MORE, model=tiny_encoder, votes=cast)
    known = Vote(str(few / "disc-red.png"), str(few / "bar-blue.png"), "first")
    rank(few, MORE, model=tiny_encoder, votes=[*cast, known])
    assert "2 of 3 are on photos that are not here" in capsys.readouterr().out
    with pytest.raises(PcclipError, match="no votes there"):
        rank(few, MORE, model=tiny_encoder, votes=tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to rank by"),
        ({"less": "x"}, "`less` needs `more`"),
        ({"more": "x", "estimator": "best"}, "known: o"),
        ({"more": "x", "bottom": 0}, "bottom = 0"),
        ({"more": "x", "less": "x"}, "more and less are both"),
        ({"more": "x", "writer": Generate()}, "'two_prompt' uses no paraphrases"),
        ({"votes": [], "writer": Generate()}, "`writer` need words"),
        ({"votes": [], "estimator": "ensemble"}, "`estimator` and `writer` need words"),
    ],
)
def test_what_makes_no_sense(few, tiny_encoder, given, message):
    with pytest.raises(PcclipError, match=message):
        rank(few, **{"model": tiny_encoder, **given})


def test_top_and_bottom(photos, tiny_encoder):
    whole = rank(photos, MORE, LESS, tiny_encoder)
    ends = rank(photos, MORE, LESS, tiny_encoder, top=3, bottom=2)
    assert list(ends.position) == [1, 2, 3, 23, 24]
    assert list(ends.path) == [*whole.path[:3], *whole.path[-2:]]
    assert list(rank(photos, MORE, LESS, tiny_encoder, bottom=2).path) == list(whole.path[-2:])


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"top": 20}, [1, 2, 3, 4, 5, 6]),
        ({"bottom": 9}, [19, 20, 21, 22, 23, 24]),
        ({"top": 9, "bottom": 9}, [1, 2, 3, 22, 23, 24]),
        ({"top": 9, "bottom": 1}, [1, 2, 3, 4, 5, 24]),
        ({"top": 1, "bottom": 9}, [1, 20, 21, 22, 23, 24]),
        ({"top": 1, "bottom": 1}, [1, 24]),
    ],
)
def test_a_sheet_keeps_both_ends_and_numbers_them_by_position(photos, tiny_encoder, tmp_path, monkeypatch, ends, shown):
    drawn = {}

    def noted(paths, captions, numbers):
        drawn.update(zip(numbers, paths, strict=True))
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr("pcclip.ranking.rank.contact_sheet", noted)
    monkeypatch.setattr("pcclip.ranking.rank.SHEET_PHOTOS", 6)
    table = rank(photos, MORE, LESS, tiny_encoder, sheet=tmp_path / "s.png", **ends).set_index("position")
    assert drawn == {position: table.path[position] for position in shown}
    assert list(drawn) == shown


# ---- paraphrases -----------------------------------------------------------------------------------------------------


class Writer(Template):
    """Says what it is told to, in turn, and counts."""

    identity = "told"

    def __init__(self, *texts):
        self.texts, self.asked = texts, 0

    def __call__(self, settings, prompt):
        return self

    def answers(self, questions):
        for question in questions:
            yield question, Reply(self.texts[self.asked % len(self.texts)], "stop")
            self.asked += 1


def test_paraphrases_are_sorted_out_and_asked_once(tmp_path, monkeypatch):
    monkeypatch.setattr("pcclip.ranking.paraphrases.backend_identity", lambda settings: "told")
    writer = Writer("A huge beast | a tiny creature.", "no pair", "one | one", "a|b|c", "a huge beast|a tiny creature")
    found = paraphrases(Query("large", "small"), Generate(), tmp_path, 5, start=writer)
    assert found == [("a huge beast", "a tiny creature")]
    assert paraphrases(Query("large", "small"), Generate(), tmp_path, 5, start=Writer()) == found
    paraphrases(Query("large"), Generate(), tmp_path, 1, start=writer)
    assert writer.asked == 6


def test_no_paraphrase_that_can_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr("pcclip.ranking.paraphrases.backend_identity", lambda settings: "told")
    with pytest.raises(PcclipError, match=r"none of 2 replies is a pair of phrases \(stop: 'I cannot'\)"):
        paraphrases(Query("large", "small"), Generate(), tmp_path, 2, start=Writer("I cannot"))
    with pytest.raises(PcclipError, match="template writes no paraphrases"):
        paraphrases(Query("large", "small"), Generate(backend="template"), tmp_path)


def test_the_ensemble_has_the_paraphrases(photos, tiny_encoder, monkeypatch):
    query, written = Query(MORE, LESS), [("a scarlet circle", "a navy box"), ("a navy box", "a scarlet circle")]
    monkeypatch.setattr("pcclip.ranking.rank.paraphrases", lambda *given: written)
    used = agreeing(tiny_encoder, query, written)
    assert len(used) == 1
    expected = attribute_axis(tiny_encoder, query.attribute(), "ensemble", used)
    table = rank(photos, MORE, LESS, tiny_encoder, estimator="ensemble", writer=Generate())
    assert table.score.to_numpy() == pytest.approx(tiny_encoder.encode_images(list(table.path)) @ expected, abs=1e-5)


# ---- stored vectors --------------------------------------------------------------------------------------------------


def test_a_run_that_reuses_anothers_vectors(run_folder, tiny_encoder):
    """Known by the hashes of what its own stage read; the run with the vectors stands beside it."""
    vectors = finished(run_folder / "02_embed")["outputs"]
    other = run_folder.parent / "other"
    stage = Stage(other / "04_evaluate", {"02_embed": {name: file["sha256"] for name, file in vectors.items()}})
    with stage.work():
        stage.finish([], {})
    assert rank(other, MORE, LESS, tiny_encoder).equals(rank(run_folder, MORE, LESS, tiny_encoder))
    (run_folder.parent / "far" / "away").mkdir(parents=True)
    run_folder.rename(run_folder.parent / "far" / "away" / "tiny")
    with pytest.raises(PcclipError, match="it reuses the 02_embed of a run that is not beside it"):
        rank(other, MORE, LESS, tiny_encoder)


def test_a_run_may_be_ranked_by_votes_on_its_ids(run_folder, tiny_encoder):
    ids = load_vectors(run_folder / "02_embed", tiny_encoder).ids
    table = rank(run_folder, MORE, model=tiny_encoder, votes=[Vote(ids[0], ids[1], "first")], top=3)
    assert list(table.position) == [1, 2, 3]
    assert table.deviation.notna().all()


def test_files_of_vectors(run_folder, tiny_encoder):
    files = str(run_folder / "02_embed" / "vec*.parquet")
    expected = rank(run_folder, MORE, LESS, tiny_encoder, top=4)
    assert rank(files, MORE, LESS, tiny_encoder, top=4).equals(expected)
    shown = Examples([expected.path[0]], [expected.path[3]])
    assert rank(files, MORE, LESS, tiny_encoder, examples=shown).equals(
        rank(run_folder, MORE, LESS, tiny_encoder, examples=shown)
    )
    other = run_folder.parent / "other" / "02_embed"
    other.mkdir(parents=True)
    table = pd.read_parquet(run_folder / "02_embed" / "vectors.parquet")
    table.assign(path=[f"other/{path}" for path in table.path]).to_parquet(other / "vectors.parquet")
    both = str(run_folder.parent / "*" / "02_embed" / "vectors.parquet")
    assert len(rank(both, MORE, LESS, tiny_encoder, examples=shown)) == 2 * len(table)
    empty = run_folder.parent / "empty.parquet"
    pd.read_parquet(run_folder / "02_embed" / "vectors.parquet").head(0).to_parquet(empty)
    for given in ({"examples": shown}, {"more": MORE}):
        with pytest.raises(PcclipError, match=r"empty\.parquet: no vectors there; embed photos first"):
            rank(empty, model=tiny_encoder, **given)
    with pytest.raises(PcclipError, match="no such file of vectors"):
        rank(str(run_folder / "x*.parquet"), MORE, LESS, tiny_encoder)


# ---- the new flags ---------------------------------------------------------------------------------------------------


def test_cli_examples_votes_csv(photos, tiny_model, votes, tmp_path, capfd):
    most, least = paths_of(photos, "disc-red", "bar-blue")
    status, out, _ = cli(
        capfd,
        "rank",
        photos,
        "--model",
        tiny_model,
        "--most",
        most,
        "--least",
        least,
        "--votes",
        votes.path,
        "--top",
        2,
        "--bottom",
        1,
        "--csv",
        tmp_path / "t.csv",
    )
    table = pd.read_csv(tmp_path / "t.csv")
    assert status == 0
    assert list(table.position) == [1, 2, 24]
    assert list(table.columns) == ["position", "path", "score", "problem", "deviation", "best_rank", "worst_rank"]
    for line, row in zip(out.splitlines(), table.itertuples(), strict=True):
        assert f"{row.score:+.4f} +/- {row.deviation:.4f}" in line
        assert row.path in line


def test_words_that_separate_nothing_are_doubted(photos, tiny_encoder, capsys):
    rank(photos, "blorf", model=tiny_encoder)
    assert "than for nonsense" in capsys.readouterr().out, "a word that sets the threshold"


def test_an_unreadable_photo_leaves_ranks_whole_numbers(photos, tiny_encoder, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    files = [*photos.glob("*.png"), tmp_path / "broken.png"]
    table = rank(files, MORE, votes=[Vote(str(files[0]), str(files[1]), "first")], model=tiny_encoder)
    assert list(table.best_rank.isna()) == [False] * 24 + [True]
    assert table.to_csv(columns=["best_rank"], index=False).split()[1].isdigit()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--less", "x"],
        ["--more", "x", "--estimator", "best"],
        ["--examples", "none.csv"],
        ["--votes", "none.jsonl"],
        ["--examples", "none.csv", "--most", "a.png"],
        ["--most", "a.png", "--least", "a.png"],
        ["--more", "x", "--paraphrases"],
        ["--more", "x", "--bottom", "0"],
        ["--most", "a.png", "--paraphrases"],
        ["--most", "a.png", "--estimator", "ensemble"],
        ["--more", "x", "--votes", "."],
    ],
)
def test_cli_what_makes_no_sense_is_one_line(few, tiny_model, capfd, arguments):
    status, out, err = cli(capfd, "rank", few, "--model", tiny_model, *arguments)
    assert (status, out) == (1, "")
    assert re.fullmatch(r"pcclip: .+\n", err.splitlines(keepends=True)[-1])
    assert "Traceback" not in err
