"""Votes: their file, and the votes on photos that are here as numbers."""

import json

import numpy as np
import pytest

from pcclip.errors import PcclipError
from pcclip.ranking import votes as votes_module
from pcclip.ranking.posterior import ballot
from pcclip.ranking.votes import Vote, VoteFile
from pcclip.stats.vectors import unit


def photos(n: int, width: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(n, width))).astype(np.float32)


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
    """Each line is looked at a constant number of times, whatever the undos name; 20,000 lines take a second or two."""
    file, votes = VoteFile(tmp_path / "v.jsonl"), 5000
    lines = [{"first": "a", "second": str(k), "choice": "tie", "attribute": "red"} for k in range(votes)]
    lines += (
        [{"undo": True, "attribute": "large"}] * votes + [{"undo": True}] * 3 + [{"undo": True, "attribute": "red"}]
    )
    file.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    examined = []
    with pytest.MonkeyPatch.context() as patch:
        values = votes_module._values
        patch.setattr(votes_module, "_values", lambda *a: examined.append(1) or values(*a))
        assert [vote.second for vote in file.read()] == [str(k) for k in range(votes - 4)]
    assert len(examined) <= 3 * len(lines)


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
    counted = ballot(votes, photos(2, 8, 0), "ab", ["path/a", "path/b"])
    assert (counted.differences.shape, len(counted.outcomes), counted.asked_pairs, counted.unknown) == (
        (0, 8),
        0,
        set(),
        0,
    )


def test_ballot_is_the_votes_in_numbers():
    matrix = photos(4, 8, 0)
    votes = [Vote("a", "path/c", "second"), Vote("b", "a", "skip"), Vote("a", "gone", "first"), Vote("d", "b", "tie")]
    counted = ballot(votes, matrix, "abcd", [f"path/{name}" for name in "abcd"])
    np.testing.assert_array_equal(counted.differences, [matrix[0] - matrix[2], matrix[3] - matrix[1]])
    assert list(counted.outcomes) == [0, 0.5]
    assert counted.asked_pairs == {(0, 2), (0, 1), (1, 3)}
    assert counted.unknown == 1
