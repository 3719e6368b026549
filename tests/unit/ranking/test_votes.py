"""Votes: their file, and the votes on photos that are here as numbers."""

import hashlib
import json
import os

import pytest

from pcclip.errors import PcclipError
from pcclip.ranking.photo_index import PhotoIndex
from pcclip.ranking.posterior import ballot
from pcclip.ranking.votes import Example, Vote, VoteFile

# ---- the file --------------------------------------------------------------------------------------------------------


def test_votes_come_back_in_order(tmp_path):
    file, votes = VoteFile(tmp_path / "new" / "votes.jsonl"), [Vote("a", "b", "first"), Vote("ä b", "c", "skip")]
    assert file.read() == []
    for vote in votes:
        file.append(vote, attribute="large", model="m")
    assert VoteFile(file.path).read() == votes
    row = json.loads(file.path.read_text("utf8").splitlines()[0])
    assert (row["attribute"], row["model"]) == ("large", "m")
    assert row["time"].endswith("+00:00")


def test_undo_takes_back_the_last_and_then_the_one_before(tmp_path):
    file, votes = VoteFile(tmp_path / "v.jsonl"), [Vote("a", str(k), "tie") for k in range(3)]
    file.undo()
    for vote in votes:
        file.append(vote)
    file.undo()
    file.undo()
    assert file.read() == votes[:1]
    file.append(votes[2])
    assert file.read() == [votes[0], votes[2]]
    assert len(file.path.read_text().splitlines()) == 7  # nothing is rewritten


def test_votes_on_one_attribute(tmp_path):
    file = VoteFile(tmp_path / "v.jsonl")
    file.append(Vote("a", "b", "first"), attribute="large")
    file.append(Vote("a", "c", "second"), attribute="red")
    file.append(Vote("c", "d", "second"))
    file.undo(attribute="large")
    assert file.read(attribute="red") == [Vote("a", "c", "second")]
    assert file.read(attribute="large") == []
    file.append(Vote("c", "d", "second"), attribute=None)
    assert file.attributes() == {"red": 1, "": 2}


def test_a_line_that_is_no_vote_costs_itself_alone(tmp_path, capsys):
    file, votes = VoteFile(tmp_path / "v.jsonl"), [Vote("a", str(k), "first") for k in range(3)]
    for vote in votes:
        file.append(vote)
    whole = file.path.read_bytes().splitlines(keepends=True)
    for bad in (
        b"{}",
        b"",
        b'{"first": "a", "second": "b", "choice": "left"}',
        b'{"first": "a", "second": "a", "choice": "tie"}',
        b'{"first": 1, "second": 2, "choice": "tie"}',
        b'{"first": "a", "second": "b", "choice": ["tie"]}',
        b'{"first": "B0", "time": "2026-11-2{"first": "A0", "second": "z", "choice": "first"}',
    ):
        file.path.write_bytes(b"".join([whole[0], bad + b"\n", *whole[1:]]))
        assert VoteFile(file.path).read() == votes
        assert "1 of 4 lines cannot be read and are left out, the first is line 2" in capsys.readouterr().out
    assert len((tmp_path / "v.jsonl.bad").read_bytes().splitlines()) == 7


@pytest.mark.parametrize("half", [b'{"first": "a", "sec', '{"first": "a", "second": "ä'.encode()[:-1], b"\0\0"])
def test_a_line_cut_short_is_said_and_does_not_spoil_the_next(tmp_path, capsys, half):
    file = VoteFile(tmp_path / "v.jsonl")
    file.append(Vote("a", "b", "first"))
    with open(file.path, "ab") as cut:
        cut.write(half)
    assert file.read() == [Vote("a", "b", "first")]
    assert "line 2 was cut short" in capsys.readouterr().out
    file.append(Vote("b", "c", "tie"))
    assert file.read() == [Vote("a", "b", "first"), Vote("b", "c", "tie")]
    assert capsys.readouterr().out == ""


def test_undo_takes_time_in_proportion_to_the_lines(tmp_path):
    """20,000 lines are read in a second or two; looking back at each undo would take minutes."""
    file, votes = VoteFile(tmp_path / "v.jsonl"), 5000
    lines = [{"first": "a", "second": str(k), "choice": "tie", "attribute": "red"} for k in range(votes)]
    lines += [{"undo": True, "attribute": "large"}] * votes + [{"undo": True}] * 3
    file.path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"undo": True, "attribute": "red"}]))
    assert [vote.second for vote in file.read()] == [str(k) for k in range(votes - 4)]


def test_a_vote_needs_two_photos_and_a_choice():
    with pytest.raises(PcclipError, match="compares 'a' with itself"):
        Vote("a", "a", "tie")
    with pytest.raises(PcclipError, match="'left'; it must be one of first, second, tie, skip"):
        Vote("a", "b", "left")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PcclipError, match="cannot write here"):
        VoteFile(tmp_path / "file" / "v.jsonl").append(Vote("a", "b", "tie"))


def test_a_folder_in_the_files_place(tmp_path):
    with pytest.raises(PcclipError, match="cannot be read .*; name a file of votes"):
        VoteFile(tmp_path).read()
    with pytest.raises(PcclipError, match="cannot be written .*; name a file of votes"):
        VoteFile(tmp_path).append(Vote("a", "b", "tie"))


def test_a_photo_named_in_two_ways_is_not_compared_with_itself():
    votes = [Vote("a", "path/a", "first"), Vote("b", "path/b", "skip")]
    counted = ballot(votes, PhotoIndex("ab", ["path/a", "path/b"]))
    assert (len(counted.pairs), len(counted.outcomes), counted.asked_pairs, counted.unknown) == (0, 0, set(), 0)


def test_ballot_is_the_votes_in_numbers():
    votes = [Vote("a", "path/c", "second"), Vote("b", "a", "skip"), Vote("a", "gone", "first"), Vote("d", "b", "tie")]
    counted = ballot(votes, PhotoIndex("abcd", [f"path/{name}" for name in "abcd"]))
    assert counted.pairs.tolist() == [[0, 2], [3, 1]]
    assert list(counted.outcomes) == [0, 0.5]
    assert counted.asked_pairs == {(0, 2), (0, 1), (1, 3)}
    assert counted.unknown == 1


# ---- one identity of a photo -----------------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path, monkeypatch):
    """Four photos, two of the same name; the shell stands elsewhere."""
    folder = tmp_path / "album"
    for k, name in enumerate(("a.jpg", "deep/b.jpg", "2023/c.jpg", "2024/c.jpg")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes([k]))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def index_of(folder) -> PhotoIndex:
    paths = sorted(map(str, folder.rglob("*.jpg")))
    return PhotoIndex(paths, paths)


def test_bytes_name_a_photo_wherever_it_is(album):
    before = index_of(album)
    rows = {path.rpartition("/")[2] if "/20" not in path else path[-10:]: row for row, path in enumerate(before.paths)}
    contents = {name: before.content(row) for name, row in rows.items()}
    album.rename(album.with_name("moved"))
    (album.with_name("moved") / "a.jpg").rename(album.with_name("moved") / "new name.jpg")
    after = index_of(album.with_name("moved"))
    for name, content in contents.items():
        assert after.content(after.row(name, content)) == content
    assert after.row("a.jpg", hashlib.sha256(b"another photo").hexdigest()) is None
    other = after.row("2023/c.jpg")
    assert after.row("2024/c.jpg", contents["2023/c.jpg"]) == other, "the bytes decide, not the name"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("deep/b.jpg", "deep/b.jpg"),
        ("2023/c.jpg", "2023/c.jpg"),
        ("c.jpg", None),
        ("other/b.jpg", None),
        ("/old/place/deep/b.jpg", "deep/b.jpg"),
        ("/old/2024/c.jpg", "2024/c.jpg"),
        ("/old/c.jpg", None),
        ("", None),
        ("../album/deep/b.jpg", "deep/b.jpg"),
    ],
)
def test_a_name_from_before_bytes_were_kept(album, name, found):
    row = index_of(album).row(name)
    assert (None if row is None else os.path.relpath(index_of(album).paths[row], album)) == found


def test_a_copy_elsewhere_and_another_normal_form(album):
    (album / "a.jpg").rename(album / "caf\u00e9.jpg")
    copy = album.parent / "elsewhere" / "a copy.jpg"
    copy.write_bytes((album / "deep" / "b.jpg").read_bytes())
    index = index_of(album)
    assert index.paths[index.row("cafe\u0301.jpg")].endswith("caf\u00e9.jpg")
    assert index.paths[index.row("a copy.jpg")].endswith("deep/b.jpg")


def test_examples_are_kept_with_the_attribute(tmp_path):
    file = VoteFile(tmp_path / "v.jsonl")
    for name, likes, attribute in (("a", 1, "large"), ("b", -1, "large"), ("c", 1, "red"), ("a", 0, "large")):
        file.append(Example(name, likes, f"bytes of {name}"), attribute=attribute)
    file.append(Vote("a", "b", "first"), attribute="large")
    assert file.examples("large") == [Example("b", -1, "bytes of b")]
    assert file.examples("red") == [Example("c", 1, "bytes of c")]
    assert len(file.read("large")) == 1
