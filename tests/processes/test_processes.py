"""What only a Python of its own shows: which packages are imported, what an interrupted command prints, equal hashes."""

import os
import subprocess
import sys

RANKED = """
import sys
class Absent:
    def find_spec(self, name, *others):
        if name.split(".")[0] in {"papermill", "seaborn", "matplotlib", "nbclient", "ipywidgets", "anywidget", "xllamacpp"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from pcclip import cli
print(cli.main(sys.argv[1:]))
class Late:
    def __del__(self):
        raise RuntimeError("a finaliser of another package")
def interrupted(*arguments, **options):
    raise KeyboardInterrupt
late = Late()
import pcclip.ranking.rank
pcclip.ranking.rank.rank = interrupted
print(file=sys.stderr)
sys.exit(cli.main(sys.argv[1:]))
"""


def test_ranking_needs_no_language_model_and_no_notebooks_and_is_interrupted_in_one_line(photos, tiny_model, tmp_path):
    sheet = tmp_path / "sheet.png"
    words = ["rank", photos, "--more", "big", "--model", tiny_model, "--sheet", sheet, "--top", "2"]
    done = subprocess.run([sys.executable, "-c", RANKED, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (130, 3), done.stderr
    assert done.stdout.splitlines()[-1] == "0"
    assert sheet.is_file()
    assert done.stderr.endswith("\n\npcclip: interrupted; run the same command again to continue\n")


def test_another_process_finds_the_same_fingerprint(tiny_model, tiny_encoder):
    """An attribute bank needs ImageNet's names without the seconds that importing open_clip takes. torchvision's
    operators are declared where its library does not load. Nothing in a model's description (an address, a hash seed)
    differs between processes. `pcclip.rank` is the function, whatever was imported before."""
    code = (
        "import sys; from pcclip.comparisons.attributes import load_bank; assert len(load_bank('size').things) == 281; "
        "assert 'open_clip' not in sys.modules; import pcclip.ranking.rank, pcclip.ranking.widget, pcclip; "
        "assert callable(pcclip.rank); model = pcclip.load_model(sys.argv[1]); "
        "import open_clip, torchvision.ops; from pcclip.encoders.imagenet_classes import imagenet_names; "
        "assert list(imagenet_names()) == list(open_clip.IMAGENET_CLASSNAMES); print(model.image_fingerprint())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code, tiny_model]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == tiny_encoder.image_fingerprint(), done.stderr[-2000:]
