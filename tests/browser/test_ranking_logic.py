"""The logic of notebook 06's page under node's own test runner, and the page's code as the browser loads it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pcclip.ranking.widget.surface import page_code

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node on this machine (apt-get install nodejs)")


def test_the_logic_of_the_page():
    tests = Path(__file__).with_name("ranking_logic.test.mjs")
    done = subprocess.run([NODE, "--test", tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_joined_code_is_one_module(tmp_path):
    code = tmp_path / "page.mjs"
    code.write_text(page_code())
    assert "import " not in page_code()
    assert page_code().count("\nexport ") == 1
    assert subprocess.run([NODE, "--check", code]).returncode == 0
