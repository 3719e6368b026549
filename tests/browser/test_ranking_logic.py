"""The logic of notebook 06's page under node's own test runner, and the page's code as the browser loads it."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pcclip.ranking.posterior import LEARN, Ballot, learnt_order
from pcclip.ranking.widget import surface
from pcclip.ranking.widget.surface import page_code
from pcclip.stats.vectors import unit

LOGIC = Path(surface.__file__).with_name("ranking_logic.js")

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node on this machine (apt-get install nodejs)")


def test_the_logic_of_the_page():
    tests = Path(__file__).with_name("ranking_logic.test.mjs")
    done = subprocess.run([NODE, "--test", tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_votes_move_the_scores_as_in_python(tmp_path, rng):
    """The exported page's Gaussian process is the posterior of `ranking.posterior`, photo by photo."""
    matrix, text = unit(rng.standard_normal((9, 5))).astype(np.float32), unit(rng.standard_normal((1, 5)))[0]
    pairs, outcomes = np.array([[0, 1], [2, 3], [0, 4], [1, 5]]), np.array([1.0, 0.0, 0.5, 1.0])
    learnt = learnt_order(matrix, Ballot(pairs, outcomes, set()), matrix[:0], text, LEARN)
    prior = learnt_order(matrix, Ballot(pairs[:0], outcomes[:0], set()), matrix[:0], text)
    covariance = prior.width**2 * matrix @ matrix.T + prior.own**2 * np.eye(9)
    values = [prior.logits.tolist(), covariance.tolist(), pairs.tolist(), outcomes.tolist()]
    script = tmp_path / "learn.mjs"
    script.write_text(f"""import {{ learntScores }} from {json.dumps(LOGIC.as_uri())};
        const [prior, covariance, pairs, outcomes] = {json.dumps(values)};
        console.log(JSON.stringify(learntScores(prior, (a, b) => covariance[a][b], pairs, outcomes)));""")
    done = subprocess.run([NODE, script], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), learnt.logits, atol=1e-4)


def test_the_joined_code_is_one_module(tmp_path):
    code = tmp_path / "page.mjs"
    code.write_text(page_code())
    assert "import " not in page_code()
    assert page_code().count("\nexport ") == 1
    assert subprocess.run([NODE, "--check", code]).returncode == 0
