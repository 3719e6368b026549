# /// script
# requires-python = ">=3.11"
# dependencies = ["huggingface_hub>=1.3"]
# ///
"""Run a parameter file on a rented GPU, export the finetuned model, and push it with the report to the hub.

    hf jobs uv run --flavor a10g-large --secrets HF_TOKEN --with 'pcclip[workbook,paper] @ git+ADDRESS' \\
        params/hf_job.py https://.../mine.yaml --to OWNER/NAME
    uv run --with 'pcclip[workbook,paper] @ git+ADDRESS' params/hf_job.py mine.yaml --to OWNER/NAME --dry-run

ADDRESS is this repository's. The file is a local one or an address; on a rented machine its images come from the hub
(`data.source: huggingface`, `data.download: true`). A dry run checks the file, says what would be pushed, and stops.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from urllib.request import urlopen

from huggingface_hub import HfApi

from pcclip.config import shipped
from pcclip.errors import PcclipError
from pcclip.workbook.model_card import publish
from pcclip.workbook.notebooks import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("params", help="a parameter file, or the https:// address of one")
    parser.add_argument("--to", required=True, metavar="OWNER/NAME", help="the repository on the hub")
    parser.add_argument("--dry-run", action="store_true", help="check, say what would be pushed, and stop")
    options = parser.parse_args()
    file = Path(options.params)
    if options.params.startswith("https://"):
        file = Path(tempfile.mkdtemp()) / "params.yaml"
        with urlopen(options.params, timeout=60) as answer:
            file.write_bytes(answer.read(50_000))
    if not options.dry_run and not os.environ.get("HF_TOKEN"):
        raise PcclipError("set $HF_TOKEN, a token that may write to the repository; nothing was run")
    shipped("notebooks")
    folder = run(file, check_only=options.dry_run)
    if options.dry_run:
        print(f"{options.to}: would get the model of {folder} in all formats that hold it, its card, and the report")
        return
    publish(str(folder), f"hf-hub:{options.to}")
    for name in ("report.html", "metrics.csv", "parameters.yaml"):
        HfApi().upload_file(path_or_fileobj=folder / name, path_in_repo=name, repo_id=options.to)


if __name__ == "__main__":
    try:
        main()
    except PcclipError as error:
        sys.exit(f"hf_job: {error}")
