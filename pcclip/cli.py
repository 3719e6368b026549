"""The command line: run, plan, params, rank and convert. Each command parses, calls one function and prints."""

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from pcclip import __version__
from pcclip.errors import PcclipError


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
    root.add_argument("--version", action="version", version=f"pcclip {__version__}")
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the notebooks of a parameter file, in order")
    run.add_argument("params", help="a file such as params/demo.yaml")
    run.add_argument("--check", action="store_true", help="check the parameters and what they name, then stop")
    run.add_argument("--submit", choices=["slurm"], help="one job a notebook, as the file's block `slurm` says")
    run.set_defaults(command=_run)

    plan = commands.add_parser("plan", help="tokens, FLOP, bytes, hours and memory of a parameter file at any size")
    plan.add_argument("params", help="a file such as params/paper_coco.yaml")
    plan.add_argument("--images", type=float, help="images in place of the file's, e.g. 1e9; one pair for each of them")
    plan.add_argument("--gpus", type=int, default=1, help="GPUs that share the work (default 1)")
    plan.add_argument("--gpu", default="A100", help="their kind: A100 (default), H100, ...")
    plan.set_defaults(command=_plan)

    params = commands.add_parser("params", help="explain the keys of a parameter file")
    params.add_argument("key", nargs="?", default="", help="a key such as finetune.lr, or a block such as finetune")
    params.add_argument("--markdown", action="store_true", help="print the page docs/parameters.md")
    params.set_defaults(command=_params)

    _add_rank(commands.add_parser("rank", help="order photos by an attribute"))

    convert = commands.add_parser("convert", help="convert the paper's released pickles to tables")
    convert.add_argument("embeddings", type=Path, help="the pickle of image embeddings and captions")
    convert.add_argument("differences", type=Path, help="the pickle of differences")
    convert.add_argument("--to", type=Path, metavar="FOLDER", required=True, help="where the tables are written")
    convert.set_defaults(command=_convert)
    return root


def _add_rank(rank: argparse.ArgumentParser) -> None:
    """Add the options of `pcclip rank`: photos, then what to rank by, then the model, then the output."""
    add = rank.add_argument
    add("photos", help="a folder, a glob in quotes, a run's folder such as outputs/demo, or vectors ('*.parquet')")
    add("--more", help='a text for the top of the ranking, e.g. "a large animal"')
    add("--less", help='a text for the bottom of the ranking, e.g. "a small animal"')
    add(
        "--estimator",
        default="two_prompt",
        help="how the texts become an axis: one_sided, antisymmetric, two_prompt (default) or ensemble",
    )
    add(
        "--paraphrases",
        action="store_true",
        help="ensemble: add paraphrases that the small language model of `make setup` writes",
    )
    add("--examples", type=Path, metavar="FILE", help="CSV or JSON lines with columns path and side (most or least)")
    add("--most", nargs="+", metavar="PHOTO", help="example photos with much of the attribute")
    add("--least", nargs="+", metavar="PHOTO", help="example photos with little of the attribute")
    add("--votes", type=Path, metavar="FILE", help="pairwise votes in JSON lines, as notebook 06 stores them")
    add("--model", help="a model's name or a run's folder (default: the run's own, else minilm-efficientnet)")
    add("--alpha", type=float, default=1.0, help="weight of the finetuned weights in the average with the base (1)")
    add("--top", type=int, metavar="N", help="print only the N highest")
    add("--bottom", type=int, metavar="N", help="print only the N lowest; with --top, both ends")
    add("--json", action="store_true", help="print JSON")
    add("--csv", type=Path, metavar="FILE", help="also write the table to this CSV file")
    add("--sheet", type=Path, metavar="FILE", help="also write a contact sheet of at most 60 photos to this PNG file")
    rank.set_defaults(command=_rank)


def _run(options: argparse.Namespace) -> None:
    from pcclip.workbook.sweep import read_sweep

    read_sweep(options.params)  # a bad file is refused before the seconds that torch takes to load
    if options.submit and not options.check:
        from pcclip.workbook.slurm import submit

        submit(options.params)
        return
    from pcclip.workbook.notebooks import run

    run(options.params, check_only=options.check)


def _plan(options: argparse.Namespace) -> None:
    from pcclip.workbook.check import plan
    from pcclip.workbook.cost import Scale

    plan(options.params, Scale(options.images, options.gpus, options.gpu))


def _params(options: argparse.Namespace) -> None:
    from pcclip.workbook.parameter_docs import parameters, parameters_page

    if options.markdown:
        print(parameters_page(), end="")
    else:
        print(*parameters(options.key), sep="\n")


def _rank(options: argparse.Namespace) -> None:
    from contextlib import redirect_stdout

    from pcclip.config import Generate
    from pcclip.ranking.examples import Examples
    from pcclip.ranking.rank import rank
    from pcclip.runs.files import atomic, spreadsheet

    for path in (options.csv, options.sheet):
        if path and not path.absolute().parent.is_dir():
            raise PcclipError(f"rank: {path}: there is no folder {path.parent}; make it, or name another file")
    examples = options.examples
    if options.most or options.least:
        if examples:
            raise PcclipError("rank: --examples and --most/--least both name examples; give them one way")
        examples = Examples(options.most or (), options.least or ())
    with redirect_stdout(sys.stderr):  # progress is no part of the printed result
        table = rank(
            options.photos,
            options.more,
            options.less,
            options.model,
            options.alpha,
            options.top,
            options.sheet,
            bottom=options.bottom,
            estimator=options.estimator,
            examples=examples,
            votes=options.votes,
            writer=Generate(max_tokens=40) if options.paraphrases else None,
        )
    if options.csv:
        with atomic(options.csv) as temporary:
            spreadsheet(table).to_csv(temporary, index=False)
    if options.json:
        print(json.dumps(json.loads(table.to_json(orient="records")), indent=1))
        return
    for row in table.itertuples():
        score = f"{row.score:+.4f}" + (f" +/- {row.deviation:.4f}" if "deviation" in table else "")
        print(f"{row.position:5d}  {row.problem or score:>8}  {row.path}")


def _convert(options: argparse.Namespace) -> None:
    from pcclip.workbook.authors_release import convert

    counts = convert(options.embeddings, options.differences, options.to)
    print(f"{options.to}: {', '.join(f'{name} {count}' for name, count in counts.items())}")


if __name__ == "__main__":
    sys.exit(main())
