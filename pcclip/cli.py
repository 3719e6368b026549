"""The command line: run, plan, params, new, export, convert, ranking's. Each parses, calls one function and prints."""

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from pcclip import __version__
from pcclip.errors import PcclipError
from pcclip.ranking.commands import add_commands


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 a problem the user can mend, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        options.command(options)
        return 0
    except PcclipError as error:
        print(f"pcclip: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends a slow exit, without a traceback
        sys.unraisablehook = lambda problem: None  # nor do finalisers
        threading.excepthook = lambda problem: None  # and threads print one
        print("pcclip: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `command` of its result is the function to call with the options."""
    root = argparse.ArgumentParser(prog="pcclip", description="Teach CLIP the difference between two images.")
    root.add_argument("--version", action=_Version, nargs=0, help="print version and build, and stop")
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the notebooks of a parameter file, in order")
    run.add_argument("params", help="a file such as params/demo.yaml")
    run.add_argument("--check", action="store_true", help="check the parameters and what they name, then stop")
    run.add_argument("--submit", choices=["slurm"], help="one job a notebook, as the file's block `slurm` says")
    run.set_defaults(command=_run)

    plan = commands.add_parser("plan", help="tokens, FLOP, bytes, hours and memory of a parameter file at any size")
    plan.add_argument("params", help="a file such as params/paper_coco.yaml")
    plan.set_defaults(command=_plan)
    for command in (run, plan):  # run's are of --check
        command.add_argument(
            "--images", type=float, help="of the cost, in place of the file's, e.g. 1e9; a pair for each"
        )
        command.add_argument("--gpus", type=int, default=1, help="of the cost: GPUs that share the work (default 1)")
        command.add_argument("--gpu", default="A100", help="of the cost: their kind: A100 (default), H100, ...")

    params = commands.add_parser("params", help="explain the keys of a parameter file")
    params.add_argument("key", nargs="?", default="", help="a key such as finetune.lr, or a block such as finetune")
    params.add_argument("--markdown", action="store_true", help="print the page docs/parameters.md")
    params.set_defaults(command=_params)

    add_commands(commands)

    new = commands.add_parser("new", help="make a workbook: a new folder with the notebooks and parameter files")
    new.add_argument("folder", type=Path)
    new.set_defaults(command=_new)

    export = commands.add_parser("export", help="write a finetuned model for open_clip, transformers, ...")
    export.add_argument("run", help="a run's folder, such as outputs/demo")
    export.add_argument("--to", required=True, help="a new folder, or hf-hub:OWNER/NAME with a token in $HF_TOKEN")
    export.add_argument(
        "--format",
        default="all",
        choices=["all", "open_clip", "transformers", "sentence-transformers"],
        help="whose files; all (default): of each library that can hold the model",
    )
    export.add_argument("--alpha", type=float, default=1.0, help="weight of the finetuned weights, beside the base's")
    export.set_defaults(command=_export)

    convert = commands.add_parser("convert", help="convert the paper's released pickles to tables")
    convert.add_argument("embeddings", type=Path, help="the pickle of image embeddings and captions")
    convert.add_argument("differences", type=Path, help="the pickle of differences")
    convert.add_argument("--to", type=Path, metavar="FOLDER", required=True, help="where the tables are written")
    convert.set_defaults(command=_convert)
    return root


def _run(options: argparse.Namespace) -> None:
    from pcclip.workbook.sweep import read_sweep

    read_sweep(options.params)  # a bad file is refused before the seconds that torch takes to load
    if options.check:
        return _plan(options)
    if options.submit:
        from pcclip.workbook.slurm import submit

        submit(options.params)
        return
    from pcclip.workbook.notebooks import run

    run(options.params)


def _plan(options: argparse.Namespace) -> None:
    from pcclip.workbook.check import check, plan
    from pcclip.workbook.cost import Scale

    (check if options.command is _run else plan)(options.params, Scale(options.images, options.gpus, options.gpu))


def _params(options: argparse.Namespace) -> None:
    from pcclip.workbook.parameter_docs import parameters, parameters_page

    if options.markdown:
        print(parameters_page(), end="")
    else:
        print(*parameters(options.key), sep="\n")


class _Version(argparse.Action):
    """Print the version and, of a checkout or an installation by a git address, the commit."""

    def __call__(self, parser: argparse.ArgumentParser, *ignored: object) -> None:
        from importlib.metadata import PackageNotFoundError, distribution
        from shutil import which
        from subprocess import run

        root = Path(__file__).resolve().parent.parent
        words = ["git", "-C", str(root), "describe", "--always", "--dirty"]
        checkout = (root / ".git").exists() and which("git")
        build = run(words, capture_output=True, text=True).stdout.strip() if checkout else ""
        try:
            origin = json.loads(distribution("pcclip").read_text("direct_url.json") or "{}")
        except PackageNotFoundError:
            origin = {}
        build = build or origin.get("vcs_info", {}).get("commit_id", "")[:12]
        print(f"pcclip {__version__}{build and f' ({build})'}")
        parser.exit()


def _new(options: argparse.Namespace) -> None:
    from shutil import copytree

    from pcclip.config import shipped

    if options.folder.exists():
        raise PcclipError(f"new: {options.folder} is there already; name a new folder")
    for name in ("notebooks", "params"):
        copytree(shipped(name), options.folder / name)
    print(f"{options.folder}: a workbook; `cd {options.folder}`, then `pcclip run params/demo.yaml` or `jupyter lab`")


def _export(options: argparse.Namespace) -> None:
    from pcclip.workbook.model_card import publish

    formats = [] if options.format == "all" else [options.format]
    for name, reason in publish(options.run, options.to, formats, options.alpha).items():
        print(f"{options.to}: {name}: {reason and 'no: '}{reason or 'written'}")


def _convert(options: argparse.Namespace) -> None:
    from pcclip.workbook.authors_release import convert

    counts = convert(options.embeddings, options.differences, options.to)
    print(f"{options.to}: {', '.join(f'{name} {count}' for name, count in counts.items())}")


if __name__ == "__main__":
    sys.exit(main())
