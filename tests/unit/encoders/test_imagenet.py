"""ImageNet's names: those of open_clip, without importing it."""

import subprocess
import sys

from pcclip.encoders.imagenet_classes import imagenet_names
from pcclip.torchvision_shim import declare_missing


def test_names_are_open_clips():
    declare_missing()
    from open_clip import IMAGENET_CLASSNAMES

    assert imagenet_names() == list(IMAGENET_CLASSNAMES)
    assert len(imagenet_names()) == 1000


def test_a_bank_with_imagenets_names_does_not_import_open_clip():
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\nfrom pcclip.comparisons.attributes import load_bank\n"
            "assert len(load_bank('size').things) == 281\nprint('open_clip' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "False\n"
