"""`pcclip app` from the network's side, photos that come in while the page is open, and rankings with a name."""

import json
import struct
import threading
from http.client import HTTPConnection
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pcclip import cli
from pcclip.config import Rank
from pcclip.errors import PcclipError
from pcclip.ranking import app as app_module, cache, saved
from pcclip.ranking.app import App
from pcclip.ranking.rank import rank
from pcclip.ranking.votes import Example, Vote, VoteFile
from pcclip.ranking.widget.photos import growing_photos
from pcclip.ranking.widget.ranker import Ranker

MORE, LESS = "something red", "something blue"


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """The user's data folder."""
    monkeypatch.setenv("PCCLIP_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def ranker(photos, tiny_encoder, data) -> Ranker:
    *_, (album, _) = growing_photos(str(photos), {"base": tiny_encoder})
    return Ranker(album, Rank(more=MORE, less=LESS), data / "answers.jsonl")


@pytest.fixture
def app(ranker):
    server = App(ranker)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def request(app: App, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, bytes, dict]:
    connection = HTTPConnection("127.0.0.1", app.server_port)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.read(), dict(response.headers)


def message(app: App, **content) -> list[tuple[dict, list[bytes]]]:
    """The answers of the page's server to one message."""
    status, body, _ = request(app, "POST", "/message", json.dumps(content), X_Token=app.token)
    assert status == 200
    size = struct.unpack("<I", body[:4])[0]
    at, answers = 4 + size, []
    for answer, sizes in json.loads(body[4:at]):
        ends = [*accumulate(sizes, initial=at)]
        answers.append((answer, [body[start:end] for start, end in pairwise(ends)]))
        at = ends[-1]
    assert at == len(body)
    return answers


def test_the_page_loads_nothing_from_elsewhere(app):
    status, body, headers = request(app, "GET", app.address.partition(str(app.server_port))[2])
    html = body.decode()
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "import " not in html
    assert "export " not in html.replace("`export", "")


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),
        ("GET", "/?token=wrong", {}),
        ("GET", "/?token={token}", {"Host": "evil.example"}),
        ("GET", "/?token={token}", {"Host": "evil.example:{port}"}),
        ("GET", "/?token={token}", {"Origin": "http://evil.example"}),
        ("POST", "/message", {}),
        ("POST", "/message", {"X_Token": "wrong"}),
        ("POST", "/message?token={token}", {"X_Token": "w\u00e4hrung"}),
        ("POST", "/message", {"X_Token": "{token}", "Host": "evil.example"}),
        ("POST", "/message", {"X_Token": "{token}", "Content_Length": "99999999"}),
    ],
)
def test_requests_of_others_are_refused(app, ranker, method, path, headers):
    names = {"token": app.token, "port": app.server_port}
    filled = {name: value.format(**names) for name, value in headers.items()}
    body = '{"do": "example", "row": 1, "likes": 1}' if method == "POST" else None
    assert request(app, method, path.format(**names), body, **filled)[0] in (400, 403, 413)
    assert ranker.examples == {}


def test_messages_are_answered_with_buffers_or_a_problem(app, capsys):
    [(state, (scores, deviations, _))] = message(app, do="hello")
    assert (state["is"], state["photos"], len(scores), deviations) == ("ranking", 24, 96, b"")
    [(_, jpegs)] = message(app, do="thumbnails", rows=[3, 1])
    assert [jpeg[:2] for jpeg in jpegs] == [b"\xff\xd8"] * 2
    [(problem, _)] = message(app, do="rank", more=" ", less="", estimator="two_prompt", show="base")
    assert "the attribute text is empty" in problem["text"]
    [(problem, _)] = message(app, do="dance")
    assert "KeyError" in problem["text"]
    assert "Traceback" in capsys.readouterr().err


def test_photos_come_in_while_the_page_is_open(photos, tmp_path, tiny_model, own_cache, monkeypatch):
    (tmp_path / "mine").mkdir()
    for k, path in enumerate(sorted(photos.glob("*.png"))[:6]):
        Image.open(path).save(tmp_path / "mine" / f"{k}.png")
    (tmp_path / "mine" / "2.png").write_bytes(b"no picture")
    cache.embed_photos([str(tmp_path / "mine" / "5.png")], app_module.load_model(tiny_model))
    monkeypatch.setattr(cache, "_FIRST", 1)
    monkeypatch.setattr(cache, "_PART", 2)
    steps = list(growing_photos(str(tmp_path / "mine"), {"base": app_module.load_model(tiny_model)}))
    counts = [(len(album.captions), coming) for album, coming in steps]
    assert counts == [(1, 5), (2, 4), (3, 2), (5, 0)], "the first photo is not kept waiting"
    whole = steps[-1][0]
    for album, _ in steps:
        assert album.vectors.ids == whole.vectors.ids[: len(album.captions)], "rows stay where they are"
    assert list(whole.unreadable.reason) == ["unreadable image (UnidentifiedImageError)"]
    ranker = Ranker(steps[0][0], Rank(), tmp_path / "v.jsonl")
    ranker.example(0, 1)
    ranker.grow(*steps[2])
    assert (len(ranker.standing("base").scores), ranker.examples, ranker.coming) == (3, {0: 1}, 2)


def test_the_app_serves_a_folder_or_a_run_from_its_address(photos, tiny_model, tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(app_module.webbrowser, "open", opened.append)
    monkeypatch.setattr(App, "serve_forever", lambda server: opened.append(server))
    monkeypatch.chdir(photos.parent)
    assert cli.main(["app", photos.name, "--model", tiny_model]) == 0
    address, server = opened
    assert list(server.ranker.models) == [Path(tiny_model).name], "exports name the model that ranks"
    assert server.ranker.photos.place == str(photos), "a relative path is the shell's"
    assert address == server.address
    assert address in capsys.readouterr().out
    server.server_close()
    opened.clear()
    run = tmp_path / "moved" / "renamed"
    run.mkdir(parents=True)
    values = yaml.safe_load((Path(__file__).parents[3] / "params" / "demo.yaml").read_text())
    values |= {"run": "tiny", "model": tiny_model, "rank": {"photos": str(photos), "more": MORE, "less": LESS}}
    (run / "parameters.yaml").write_text(yaml.safe_dump(values))
    assert cli.main(["app", str(run)]) == 0
    assert opened[1].ranker.query.label == f"{MORE} / {LESS}"
    opened[1].ranker.vote(0, 1, "first")
    assert (run / "06_rank" / "votes.jsonl").is_file(), "in the run's folder, wherever it is now"
    opened[1].server_close()
    assert cli.main(["app", str(photos / "nowhere"), "--model", tiny_model]) == 1
    assert "no photos there" in capsys.readouterr().err


def test_rank_without_words_opens_the_app_where_there_is_a_display(photos, tiny_model, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(app_module, "open_app", lambda *given: opened.append(given[0]))
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert cli.main(["rank", str(photos)]) == 0
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert cli.main(["rank", str(photos)]) == 1
    assert opened == [str(photos)]
    assert "nothing to rank by" in capsys.readouterr().err


# ---- rankings --------------------------------------------------------------------------------------------------------


@pytest.fixture
def dangerous(ranker) -> Ranker:
    """A ranker with one vote and two examples, saved as 'dangerous'."""
    ranker.vote(0, 1, "first")
    ranker.example(3, 1)
    ranker.example(4, -1)
    ranker.save("dangerous")
    return ranker


def test_a_ranking_is_saved_resumed_and_left(dangerous, ranker, data):
    order = list(ranker.standing("base").order)
    ranker.ask("something green", "", "two_prompt", "base")
    assert (ranker.name, ranker.examples, ranker.votes) == ("", {}, [])
    ranker.open("dangerous")
    assert (ranker.name, ranker.query.more, ranker.examples) == ("dangerous", MORE, {3: 1, 4: -1})
    assert list(ranker.standing("base").order) == order
    ranker.vote(2, 5, "second")
    assert len(VoteFile(data / "answers.jsonl").read()) == 1, "further answers are the ranking's own"
    assert len(saved.summary("dangerous")["votes"]) == 2


def test_everything_survives_a_restart(ranker, data):
    ranker.ask("something green", "a red disc", "antisymmetric", "base")
    ranker.example(2, 1)
    again = Ranker(ranker.photos, Rank(more=MORE, less=LESS), data / "answers.jsonl")
    assert (again.query.label, again.estimator, again.examples) == (
        "something green / a red disc",
        "antisymmetric",
        {2: 1},
    )
    other = Ranker(ranker.photos, Rank(more="a disc"), data / "answers.jsonl")
    assert other.query.more == "a disc", "a parameter that changed counts more than what was typed before"


def test_a_ranking_orders_any_folder_that_has_the_photos(dangerous, photos, tmp_path, tiny_encoder, capsys):
    expected = rank(photos, ranking="dangerous", model=tiny_encoder)
    assert list(expected.score) == pytest.approx(sorted(dangerous.standing("base").scores, reverse=True), abs=1e-6)
    assert "deviation" in expected
    (tmp_path / "other").mkdir()
    for k, path in enumerate(sorted(photos.glob("*.png"))[:4]):
        Image.open(path).save(tmp_path / "other" / f"{k}.bmp")
    capsys.readouterr()
    table = rank(tmp_path / "other", ranking="dangerous", model=tiny_encoder)
    assert "1 of 1 are on photos that are not here" in capsys.readouterr().out
    assert len(table) == 4
    with pytest.raises(PcclipError, match="a ranking has its own words"):
        rank(photos, MORE, ranking="dangerous", model=tiny_encoder)


def test_rankings_on_the_command_line(dangerous, photos, data, capsys):
    assert cli.main(["rankings"]) == 0
    assert capsys.readouterr().out.startswith(f"dangerous: {MORE} / {LESS}; 2 examples, 1 votes, ")
    assert cli.main(["rankings", "--rename", "dangerous", "wild & ../free"]) == 0
    assert cli.main(["rankings", "--export", "wild & ../free"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert [set(exported), len(exported["examples"][0]["content"])] == [
        {"name", "changed", "more", "less", "estimator", "model", "begun", "photos", "examples", "votes"},
        64,
    ]
    assert cli.main(["rank", str(photos), "--ranking", "wild & ../free", "--top", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert cli.main(["export-page", "wild & ../free", "--to", str(data / "page.html"), "--most", "5"]) == 0
    html = (data / "page.html").read_text()
    values = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    assert len(values["photos"]) == 5
    assert values["logits"] == sorted(values["logits"], reverse=True)
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert cli.main(["rankings", "--delete", "wild & ../free"]) == 0
    assert cli.main(["rankings", "--delete", "wild & ../free"]) == 1
    assert "no ranking 'wild & ../free'; there are: none" in capsys.readouterr().err


def test_rankings_on_the_page(app, ranker):
    message(app, do="example", row=2, likes=1)
    state = message(app, do="save", name=" my  reds ")[0][0]
    assert (state["ranking"], state["rankings"], state["examples"]) == ("my reds", ["my reds"], [[2, 1]])
    assert "already" in message(app, do="save", name="my reds")[0][0]["text"]
    assert "short name" in message(app, do="save", name=" ")[0][0]["text"]
    assert message(app, do="rename", name="reds")[0][0]["ranking"] == "reds"
    [(file, [content])] = message(app, do="export", kind="json")
    assert (file["name"], json.loads(content)["name"]) == ("reds.json", "reds")
    state = message(app, do="delete")[0][0]
    assert (state["ranking"], state["rankings"], state["examples"]) == ("", [], [[2, 1]])


def test_a_file_of_votes_alone_is_no_ranking(data):
    file = VoteFile(data / "rankings" / "odd.jsonl")
    file.append(Vote("a", "b", "first"))
    file.append(Example("a", 1))
    with pytest.raises(PcclipError, match="has no words, so it is no ranking"):
        saved.summary("odd")
