"""The surface of notebook 06 from the kernel's side: what it answers, what it keeps, what it never loads."""

import html
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pcclip import config as params, load_model
from pcclip.arithmetic.texts import TextMemory
from pcclip.config import Rank
from pcclip.data.sources import folder as captioned
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.ranking.axes import Query
from pcclip.ranking.rank import ranked_sheet
from pcclip.ranking.separation import NONSENSE, doubt, without_negation
from pcclip.ranking.votes import Vote, VoteFile
from pcclip.ranking.widget import surface as ranking, thumbnails as small
from pcclip.ranking.widget.photos import Photos, load_photos, votes_file
from pcclip.ranking.widget.ranker import BOTH, Ranker
from pcclip.ranking.widget.surface import Conversation, RankingSurface, surface
from pcclip.stats.vectors import unit

HOSTILE = "<img src=x onerror=alert(1)> & \"'{0}"
ASKED = Rank(more="something red", less="something blue")


@pytest.fixture(scope="module")
def models(tiny_model):
    other = load_model(tiny_model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in other.transformer().parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    return {"base": load_model(tiny_model), "finetuned": other}


def photos_of(paths, matrix, captions, models) -> Photos:
    ids = [path.rpartition("/")[2] for path in paths]
    return Photos(Vectors(ids, paths, matrix), captions, models, pd.DataFrame(columns=["id", "path", "reason"]))


@pytest.fixture(scope="module")
def some(photos, models) -> Photos:
    paths = sorted(map(str, photos.glob("*.png")))
    captions = [HOSTILE, *(f"no. {k}" for k in range(1, len(paths)))]
    return photos_of(paths, models["base"].encode_images(paths), captions, models)


@pytest.fixture
def ranker(some, tmp_path) -> Ranker:
    return Ranker(some, ASKED, tmp_path / "votes.jsonl")


class Page:
    """What the browser would get."""

    def __init__(self, ranker: Ranker):
        self.got = []
        self.conversation = Conversation(ranker, lambda content, buffers=(): self.got.append((content, [*buffers])))

    def do(self, what: str, **more) -> dict[str, tuple[dict, list[bytes]]]:
        """The answers to one message, by what they are."""
        self.got.clear()
        self.conversation.receive({"do": what, **more})
        json.dumps([content for content, _ in self.got])  # as it travels
        return {content["is"]: (content, buffers) for content, buffers in self.got}


@pytest.fixture
def page(ranker) -> Page:
    return Page(ranker)


def ordered(answer) -> list[int]:
    _, buffers = answer["ranking"]
    return list(np.argsort(-np.frombuffer(buffers[0], "<f4"), kind="stable"))


# ---- the order -------------------------------------------------------------------------------------------------------


def test_hello_is_answered_with_scores_of_the_shown_model(page, some, models):
    answer = page.do("hello")
    state, buffers = answer["ranking"]
    assert (state["photos"], state["panels"], state["models"]) == (24, ["finetuned"], ["base", "finetuned"])
    red, blue = models["finetuned"].encode_texts(["a photo of something red", "a photo of something blue"])
    expected = some.vectors.matrix @ unit((red - blue)[None])[0]
    np.testing.assert_allclose(np.frombuffer(buffers[0], "<f4"), expected, atol=1e-5)
    assert buffers[1] == b"", "nothing is known to be uncertain before anything was learnt"


def test_captions_and_files_are_searched(page, some):
    (answer, _), last = page.do("search", text="NO. 1")["found"], Path(some.vectors.paths[-1]).name
    assert answer["rows"] == [row for row, caption in enumerate(some.captions) if "no. 1" in caption]
    assert len(answer["rows"]) == 11
    assert page.do("search", text=last)["found"][0]["rows"] == [23]


def test_a_photo_comes_in_full_size(page, some):
    sizes = [Image.open(BytesIO(page.do("look", row=3, **side)["photo"][1][0])).size for side in ({"side": 9}, {})]
    assert max(sizes[0]) == 9 < max(sizes[1]) <= max(Image.open(some.vectors.paths[3]).size)


def test_nonsense_and_negations_are_doubted(rng):
    """Photos of which a tenth show a thing: its word stands out, other directions do not."""
    photos = unit(rng.standard_normal((400, 64)).astype(np.float32))
    thing, other, *nonsense = unit(rng.standard_normal((2 + len(NONSENSE), 64)).astype(np.float32))
    photos[:40] = unit(photos[:40] + 2 * thing)
    nonsense[0] = unit((other + 0.4 * thing)[None])[0]
    deaf = unit((thing + 0.1 * other)[None])[0]
    vectors = {"thing": thing, "other": other, "not thing": deaf, "never other": thing}
    vectors |= zip(NONSENSE, nonsense, strict=True)

    class Planted:
        def encode_texts(self, texts):
            return np.stack([vectors[text.removeprefix("a photo of ")] for text in texts])

    def reason(more, less=None):
        return doubt(photos, Query(more, less), TextMemory(Planted()))

    assert reason("thing") == ""
    assert reason("other", "thing") == "", "one side is enough"
    assert reason("other").startswith("No photo stands out for these words more than for nonsense (0.")
    assert "negation" in reason("not thing")
    assert reason("never other") == "", "a negation that the model hears"
    queries = ("not a dog", "a dog", "No", "a knot", "a dog without a tail", "don't show dogs")
    assert [without_negation(Query(words)) for words in queries] == ["a dog", "", "", "", "a dog a tail", "show dogs"]


def test_the_page_shows_a_doubt(page):
    words = {"less": "", "estimator": "two_prompt", "show": "base"}
    assert "nonsense" in page.do("rank", more="blorf", **words)["ranking"][0]["doubt"], "a word that sets the threshold"
    assert isinstance(page.do("rank", more="not red", **words)["ranking"][0]["doubt"], str)


def test_words_estimator_and_model_change_the_order(page):
    asked = {"more": "something red", "less": "something blue", "estimator": "two_prompt", "show": "finetuned"}
    first = ordered(page.do("rank", **asked))
    for change in ({"more": "a green ring"}, {"less": ""}, {"estimator": "antisymmetric"}, {"show": "base"}):
        other = ordered(page.do("rank", **{**asked, **change}))
        assert other != first, change
        assert sorted(other) == sorted(first)


def test_side_by_side_has_both_models(page):
    asked = {"more": "something red", "less": "something blue", "estimator": "two_prompt"}
    alone = [page.do("rank", **asked, show=model)["ranking"][1][0] for model in ("base", "finetuned")]
    state, buffers = page.do("rank", **asked, show=BOTH)["ranking"]
    assert state["panels"] == ["base", "finetuned"]
    assert [buffers[0], buffers[3]] == alone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": "  "}, "the attribute text is empty"),
        ({"less": "something red"}, "both 'something red'"),
        ({"estimator": "magic"}, "unknown estimator 'magic'"),
    ],
)
def test_what_cannot_be_ranked_is_told_in_one_line_and_changes_nothing(page, change, message):
    before = ordered(page.do("hello"))
    asked = {"more": "something red", "less": "x", "estimator": "two_prompt", "show": "base", **change}
    answer = page.do("rank", **asked)
    assert list(answer) == ["problem"]
    assert message in answer["problem"][0]["text"]
    assert "\n" not in answer["problem"][0]["text"]
    assert ordered(page.do("hello")) == before


def test_a_fault_of_ours_is_told_on_the_page_and_in_the_log(page):
    with pytest.raises(KeyError):
        page.do("dance")
    assert "KeyError" in page.got[0][0]["text"]


def test_examples_pull_what_is_like_them_up(page):
    def standard(answer) -> np.ndarray:
        scores = np.frombuffer(answer["ranking"][1][0], "<f4")
        return (scores - scores.mean()) / scores.std()

    start = page.do("hello")
    before, last = ordered(start), int(ordered(start)[-1])
    answer = page.do("example", row=last, likes=1)
    assert standard(answer)[last] > standard(start)[last]
    assert answer["ranking"][0]["examples"] == [(last, 1)]
    assert len(answer["ranking"][1][1]) == 4 * 24, "the order is uncertain, and says how much"
    assert ordered(page.do("learn", on=False)) == before
    page.do("learn", on=True)
    assert ordered(page.do("forget")) == before


# ---- votes -----------------------------------------------------------------------------------------------------------


def test_a_vote_is_on_disk_before_the_answer(page, ranker, some, tmp_path):
    left, right = (item["row"] for item in page.do("pair")["pair"][0]["items"])
    answer = page.do("vote", first=left, second=right, choice="second")
    line = json.loads((tmp_path / "votes.jsonl").read_text())
    assert (line["first"], line["second"], line["choice"]) == (
        some.vectors.ids[left],
        some.vectors.ids[right],
        "second",
    )
    assert line["attribute"] == "something red / something blue"
    state = answer["ranking"][0]
    assert state["votes"] == 1
    assert 0.5 <= state["expected"] <= 1
    scores = np.frombuffer(answer["ranking"][1][0], "<f4")
    before = ranker.photos.vectors.matrix @ ranker.text_axis("finetuned")
    assert scores[right] - scores[left] > before[right] - before[left]
    asked = {frozenset((left, right))}
    assert frozenset(item["row"] for item in answer["pair"][0]["items"]) not in asked


def test_votes_teach_the_axis_what_the_words_do_not_say(some, tmp_path, rng):
    """A person who sorts by something else: after some votes most other pairs are ordered as they would."""
    truth = some.vectors.matrix @ rng.standard_normal(some.vectors.matrix.shape[1])
    ranker = Ranker(some, ASKED, tmp_path / "votes.jsonl")

    def agreement() -> float:
        gaps = np.subtract.outer(truth, truth) * np.subtract.outer(*[ranker.standing("finetuned").scores] * 2)
        return float((gaps > 0).sum() / (len(truth) * (len(truth) - 1)))

    before = agreement()
    for _ in range(25):
        first, second = ranker.pair()
        ranker.vote(first, second, "first" if truth[first] > truth[second] else "second")
    assert agreement() > max(0.8, before + 0.1)
    standing = ranker.standing("finetuned")
    assert standing.agree >= 20
    assert standing.expected > 0.7


def test_undo_takes_back_and_asks_again(page, ranker):
    before = ordered(page.do("hello"))
    left, right = (item["row"] for item in page.do("pair")["pair"][0]["items"])
    page.do("vote", first=left, second=right, choice="first")
    answer = page.do("undo")
    assert [item["row"] for item in answer["pair"][0]["items"]] == [left, right]
    assert ordered(answer) == before
    assert ranker.file.read() == []
    assert "no answer to take back" in page.do("undo")["pair"][0]["said"]


def test_a_skipped_pair_teaches_nothing_and_is_not_asked_again(page, ranker):
    before = ordered(page.do("hello"))
    left, right = (item["row"] for item in page.do("pair")["pair"][0]["items"])
    answer = page.do("vote", first=left, second=right, choice="skip")
    assert ordered(answer) == before
    assert answer["ranking"][0]["votes"] == 0
    assert {item["row"] for item in answer["pair"][0]["items"]} != {left, right}


def test_votes_are_found_again_and_only_those_on_the_words(some, ranker, tmp_path):
    ranker.vote(0, 1, "first")
    ranker.vote(2, 3, "tie")
    again = Ranker(some, ASKED, tmp_path / "votes.jsonl")
    assert again.votes == ranker.votes
    assert again.table().equals(ranker.table())
    again.ask("something else", "", "two_prompt", "base")
    assert again.votes == []
    again.ask(ASKED.more, ASKED.less, "antisymmetric", "base")
    assert len(again.votes) == 2


def test_votes_on_photos_that_are_gone_are_kept_and_not_counted(some, tmp_path):
    gone = Vote("gone.png", some.vectors.ids[0], "first")
    VoteFile(tmp_path / "v.jsonl").append(gone, attribute="something red / something blue")
    ranker = Ranker(some, ASKED, tmp_path / "v.jsonl")
    assert len(ranker.votes) == 1
    state, _ = Page(ranker).do("hello")["ranking"]
    assert (state["votes"], state["elsewhere"]) == (0, 1)
    assert sorted(ranker.undo()) != []


def test_votes_survive_a_killed_process(tmp_path):
    code = textwrap.dedent(f"""
        import os, signal
        from pcclip.ranking.votes import Vote, VoteFile
        file = VoteFile({str(tmp_path / "votes.jsonl")!r})
        for k in range(5):
            file.append(Vote(str(k), str(k + 1), "first"), attribute="x")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert len(VoteFile(tmp_path / "votes.jsonl").read(attribute="x")) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_vote_that_cannot_be_written_is_told(some, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    page = Page(Ranker(some, ASKED, tmp_path / "closed" / "votes.jsonl"))
    assert "cannot write here" in page.do("vote", first=0, second=1, choice="first")["problem"][0]["text"]


def test_a_folder_in_the_place_of_the_votes_is_told(some, tmp_path):
    ranker = Ranker(some, ASKED, tmp_path / "votes.jsonl")
    (tmp_path / "votes.jsonl").mkdir()
    page = Page(ranker)
    answer = page.do("vote", first=0, second=1, choice="first")
    assert "cannot be written" in answer["problem"][0]["text"]
    assert ranker.votes == [], "what is not on disk is not counted"


def test_two_photos_are_soon_all_compared(some, tmp_path, models):
    few = photos_of(some.vectors.paths[:2], some.vectors.matrix[:2], some.captions[:2], models)
    page = Page(Ranker(few, ASKED, tmp_path / "votes.jsonl"))
    answer = page.do("vote", first=0, second=1, choice="first")
    assert "every pair of the 2 photos was asked" in answer["pair"][0]["problem"]


# ---- pictures and files ----------------------------------------------------------------------------------------------


def test_thumbnails_come_as_bytes_with_their_captions(page, some):
    answer, buffers = page.do("thumbnails", rows=[0, 5])["thumbnails"]
    assert [item["caption"] for item in answer["items"]] == [HOSTILE, "no. 5"], "as they are; the page shows text"
    assert [Image.open(BytesIO(one)).size for one in buffers] == [(48, 48)] * 2
    assert all(one.startswith(b"\xff\xd8") for one in buffers)


def test_a_photo_that_is_gone_has_a_reason(some, models, tmp_path):
    paths = [some.vectors.paths[0], str(tmp_path / "gone.png")]
    gone = photos_of(paths, some.vectors.matrix[:2], ["a", "b"], models)
    page = Page(Ranker(gone, ASKED, tmp_path / "votes.jsonl"))
    answer, buffers = page.do("thumbnails", rows=[0, 1])["thumbnails"]
    assert [item["problem"] for item in answer["items"]] == ["", "missing file"]
    assert buffers[1] == b""
    assert page.do("look", row=1)["photo"][0]["item"]["problem"] == "missing file"
    assert {one["problem"] for one in page.do("pair")["pair"][0]["items"]} == {"", "missing file"}
    assert page.do("export", kind="png")["file"][1][0].startswith(b"\x89PNG")


def test_csv_is_the_whole_order(page, some):
    content, (data,) = page.do("export", kind="csv")["file"]
    assert content["name"] == "something_red.csv"
    table = pd.read_csv(BytesIO(data))
    words = ["more", "less", "model", "estimator"]
    assert list(table.columns) == ["rank", "path", "id", "caption", "score", *words]
    assert list(table[words].drop_duplicates().iloc[0]) == [ASKED.more, ASKED.less, "finetuned", "two_prompt"]
    assert [some.vectors.ids[row] for row in ordered(page.do("hello"))] == list(table["id"])
    assert HOSTILE in set(table.caption)


def test_csv_starts_no_formula(some, models, tmp_path):
    captions = ["=1+1", "+a", "-b", "@c", "plain", "\td"]
    few = photos_of(some.vectors.paths[:6], some.vectors.matrix[:6], captions, models)
    data = Page(Ranker(few, ASKED, tmp_path / "v.jsonl")).do("export", kind="csv")["file"][1][0]
    table = pd.read_csv(BytesIO(data)).set_index("id").caption[few.vectors.ids]
    assert list(table) == ["'=1+1", "'+a", "'-b", "'@c", "plain", "'\td"]


def test_a_table_of_the_chosen_photos_keeps_their_ranks(page, some):
    page.do("vote", first=0, second=1, choice="first")
    order = ordered(page.do("hello"))
    _, (data,) = page.do("export", kind="jsonl", model="base", rows=[order[5], order[2]])["file"]
    lines = [json.loads(line) for line in data.splitlines()]
    base = list(page.conversation.ranker.standing("base").order)
    assert [line["rank"] for line in lines] == sorted(base.index(order[k]) + 1 for k in (2, 5))
    assert {line["deviation"] > 0 for line in lines} == {True}


def test_labels_are_a_captions_file_with_an_attribute(page, some, photos, tmp_path):
    content, (data,) = page.do("export", kind="labels", rows=[1, 2])["file"]
    (tmp_path / "captions.csv").write_bytes(data)
    source = params.Data(source="folder", path=str(tmp_path), images=str(photos))
    table, left_out, _ = captioned.read(source)
    assert (content["name"], left_out.empty) == ("something_red.csv", True)
    assert table.set_index("id").something_red[some.vectors.ids].tolist() == [0.0, 1.0, 1.0] + [0.0] * 21


def test_a_sheet_has_both_ends_apart(some):
    many = some.vectors.paths * 3
    table = pd.DataFrame({"path": many, "score": 0.5, "position": range(1, 73), "caption": "x"})
    whole, row, title, margin = ranked_sheet(table, ["most: a", "least: b"], 36), 160 + 42, 26, 6
    assert whole.height == 2 * (5 * row + title + margin), "thirty photos of either end"
    assert ranked_sheet(table, ["most: a"]).height == 10 * row + title + margin
    assert ranked_sheet(table.head(3), ["most: a", "least: b"], 1).height == 2 * (row + title + margin)


@pytest.fixture
def mine(some, models, tmp_path) -> Page:
    """Four photos of a folder that may be moved."""
    (tmp_path / "mine").mkdir()
    paths = [str(shutil.copy(path, tmp_path / "mine")) for path in some.vectors.paths[:4]]
    return Page(
        Ranker(photos_of(paths, some.vectors.matrix[:4], some.captions[:4], models), ASKED, tmp_path / "v.jsonl")
    )


@pytest.mark.parametrize("kind", ["copy", "link", "move"])
def test_files_are_placed_in_a_folder_and_nothing_is_overwritten(mine, tmp_path, kind):
    paths = mine.conversation.ranker.photos.vectors.paths
    before, names = list(paths), [os.path.basename(path) for path in paths]
    bytes_before = Path(before[2]).read_bytes()
    to = tmp_path / "taken"
    to.mkdir()
    (to / names[2]).write_bytes(b"mine already")
    os.unlink(before[3])
    text = mine.do("export", kind=kind, rows=[0, 2, 3], to=str(to))["placed"][0]["text"]
    done = 3 if kind == "link" else 2  # a link to nothing is a link
    assert f"{done} of 3 photos" in text
    assert str(to) in text
    assert (to / names[2]).read_bytes() == b"mine already"
    numbered = Path(names[2]).stem + " (2).png"
    assert (to / numbered).read_bytes() == bytes_before
    assert (to / numbered).is_symlink() == (kind == "link")
    assert Path(before[2]).exists() == (kind != "move")
    table = pd.read_csv(to / "order.csv", keep_default_na=False).set_index("id")
    assert dict(table.path[[names[0], names[2]]]) == {names[k]: before[k] for k in (0, 2)}, "where they were"
    assert dict(table.file[[names[0], names[2]]]) == {names[0]: names[0], names[2]: numbered}
    assert (paths[0] == before[0]) == (kind != "move")
    assert mine.do("thumbnails", rows=[0, 2])["thumbnails"][0]["items"][1]["problem"] == ""
    mine.do("export", kind="copy", rows=[0], to=str(to))
    assert sorted(path.name for path in to.glob("order*")) == ["order (2).csv", "order.csv"]
    assert not (to / f"{Path(names[0]).stem} (2).png").exists(), "the same file is there already"


def test_files_that_must_stay_where_they_are(mine, some, models, tmp_path):
    assert "whole path" in mine.do("export", kind="copy", to="here")["problem"][0]["text"]
    for folder in ("/proc/chosen", mine.conversation.ranker.photos.vectors.paths[0]):
        problem = mine.do("export", kind="copy", to=folder)["problem"][0]["text"]
        assert problem.startswith(f"{folder}: cannot be made (")
    for kind in ("png", "csv", "copy"):
        assert "no photo is shown" in mine.do("export", kind=kind, rows=[], to=str(tmp_path))["problem"][0]["text"]
    mine.conversation.ranker.coming = 1
    assert "stay where they are" in mine.do("export", kind="move", to=str(tmp_path))["problem"][0]["text"]
    packed = photos_of(["/a.tar#0+9#x.png", "/a.tar#9+9#y.png"], some.vectors.matrix[:2], ["x", "y"], models)
    page = Page(Ranker(packed, ASKED, tmp_path / "v.jsonl"))
    assert "inside tar files" in page.do("export", kind="copy", to=str(tmp_path))["problem"][0]["text"]


def test_the_sheet_is_a_picture(page):
    content, (data,) = page.do("export", kind="png")["file"]
    assert (content["name"], Image.open(BytesIO(data)).format) == ("something_red.png", "PNG")


def test_thumbnails_are_kept_in_bounded_memory(some, monkeypatch):
    opened = []
    monkeypatch.setattr("pcclip.images.open_image", lambda path: opened.append(path) or Image.new("RGB", (900, 300)))
    small.cached_thumbnail.cache_clear()
    for _ in range(2):
        jpegs = small.thumbnails(some.vectors.paths[:5])
    assert sorted(opened) == some.vectors.paths[:5], "each is made once"
    assert [Image.open(BytesIO(jpeg)).size for jpeg in jpegs] == [(256, 85)] * 5
    assert small.cached_thumbnail.cache_info().maxsize * max(map(len, jpegs)) < 100e6
    small.cached_thumbnail.cache_clear()


def test_ten_thousand_photos_are_ranked_without_opening_one(models, tmp_path, monkeypatch, rng):
    names = [f"{k}.jpg" for k in range(10_000)]
    many = photos_of(names, unit(rng.standard_normal((10_000, 32)).astype(np.float32)), names, models)
    opened = []
    monkeypatch.setattr("pcclip.images.open_image", lambda path: opened.append(path) or Image.new("RGB", (4, 4)))
    page = Page(Ranker(many, ASKED, tmp_path / "votes.jsonl"))
    answer = page.do("hello")
    assert len(answer["ranking"][1][0]) == 40_000
    assert len(json.dumps(answer["ranking"][0])) < 2_000, "captions come with the thumbnails"
    page.do("vote", first=0, second=1, choice="first")
    assert len(opened) == 2, "the next pair"
    page.do("thumbnails", rows=[7, 8, 9])
    assert sorted(opened[2:]) == ["7.jpg", "8.jpg", "9.jpg"]


def test_little_is_saved_in_a_notebook(ranker):
    """What JupyterLab writes is the widget's state: the surface's code, and nothing of the photos."""
    state = json.dumps(RankingSurface(ranker).get_state())
    assert len(state) < 90_000
    assert "no. 5" not in state


def test_a_saved_notebook_has_a_picture_beside_the_live_page(ranker, monkeypatch):
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda *output, raw=False: outputs.append((output[0], raw)))
    RankingSurface(ranker)._ipython_display_()
    (live, raw), (picture, _) = outputs
    live = live[0] if isinstance(live, tuple) else live
    assert raw
    assert "application/vnd.jupyter.widget-view+json" in live
    table = ranker.table()
    assert picture.data.count("<img src='data:image/jpeg") == 24
    assert f"1. {html.escape(table.caption.iloc[0])}" in picture.data
    assert "<img src=x" not in picture.data
    assert picture.data.index("least: something blue") < picture.data.index("24. ")
    assert len(picture.data) < 300_000


def test_the_page_makes_text_of_captions():
    code = ranking.page_code()
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert dangerous not in code
    assert "http" not in code.replace("http://www.w3.org/2000/svg", ""), "nothing is fetched from elsewhere"


# ---- photos of a run and of a folder ---------------------------------------------------------------------------------


@pytest.fixture
def folder_config(values, photos):
    return params.check({**values, "rank": {"photos": str(photos), "more": "something red"}})


def test_a_folder_is_encoded_once(folder_config, encoded, own_cache):
    first = load_photos(folder_config)
    assert first.captions[first.vectors.ids.index("disc-red.png")] == "A red disc."
    assert (list(first.models), encoded.total) == (["base"], 24)
    again = load_photos(folder_config)
    np.testing.assert_array_equal(first.vectors.matrix, again.vectors.matrix)
    assert encoded.total == 24


@pytest.mark.parametrize("captions", [b"where,when\na.png,x\n", b"\xff\xfe\0path"])
def test_captions_that_cannot_be_read_do_not_stop_a_folder(values, tmp_path, photos, captions, capsys):
    (tmp_path / "mine").mkdir()
    Image.open(photos / "disc-red.png").save(tmp_path / "mine" / "a.png")
    (tmp_path / "mine" / "captions.csv").write_bytes(captions)
    loaded = load_photos(params.check({**values, "rank": {"photos": str(tmp_path / "mine")}}))
    assert loaded.captions == ["a"]
    assert "file names are shown instead" in capsys.readouterr().out


def test_examples_survive_a_restart_and_new_words_start_clean(some, ranker, tmp_path):
    ranker.example(3, 1)
    ranker.example(4, -1)
    ranker.example(5, 1)
    ranker.example(5, 0)
    again = Ranker(some, ASKED, tmp_path / "votes.jsonl")
    assert again.examples == {3: 1, 4: -1}
    again.ask("something else", "", "two_prompt", "base")
    assert again.examples == {}
    again.ask(ASKED.more, ASKED.less, "two_prompt", "base")
    assert again.examples == {3: 1, 4: -1}


def test_a_folder_without_captions_has_file_names(values, tmp_path, photos):
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    Image.open(photos / "disc-red.png").save(tmp_path / "mine" / "deep" / "a <b>.png")
    (tmp_path / "mine" / "bad.jpg").write_bytes(b"")
    found = load_photos(params.check({**values, "rank": {"photos": str(tmp_path / "mine")}}))
    assert (found.vectors.ids, found.captions) == (["deep/a <b>.png"], ["a <b>"])
    assert list(found.unreadable.reason) == ["empty file"]


def test_a_link_to_a_photo_elsewhere(values, tmp_path, photos):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "linked.png").symlink_to(photos / "disc-red.png")
    (tmp_path / "mine" / "captions.csv").write_text("path,caption\nlinked.png,A red disc from elsewhere.\n")
    found = load_photos(params.check({**values, "rank": {"photos": str(tmp_path / "mine")}}))
    assert (found.vectors.ids, found.captions) == (["linked.png"], ["A red disc from elsewhere."])


def test_no_photos(values, tmp_path):
    with pytest.raises(PcclipError, match="no photos there"):
        load_photos(params.check({**values, "rank": {"photos": str(tmp_path)}}))


def test_the_runs_own_photos(values):
    found = load_photos(params.check(values))
    assert len(found.captions) == 24
    assert found.images.attributes == ["size"]
    assert votes_file(params.check(values)).as_posix().endswith("outputs/tiny/06_rank/votes.jsonl")


def test_a_glob(values, photos):
    found = load_photos(params.check({**values, "rank": {"photos": str(photos / "disc-*.png")}}))
    assert found.captions == ["disc-blue", "disc-green", "disc-red"]


# ---- the notebook ----------------------------------------------------------------------------------------------------


def test_live_in_a_kernel_that_a_person_looks_at_else_a_sheet(ranker, monkeypatch):
    monkeypatch.setattr(ranking, "interactive", lambda: True)
    assert isinstance(surface(ranker, 6), RankingSurface)
    monkeypatch.setattr(ranking, "interactive", lambda: False)
    assert surface(ranker, 6).size == ranked_sheet(ranker.table().head(6), [ranker.query.more]).size
