"""The command line: parse, call, print."""

import argparse
import json
import sys
from pathlib import Path

from pcclip import __version__
from pcclip.errors import PcclipError


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 a problem the user can mend, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
        return 0
    except PcclipError as error:
        print(f"pcclip: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pcclip: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pcclip", description="Teach CLIP the difference between two images.")
    parser.add_argument("--version", action="version", version=f"pcclip {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the notebooks of a parameter file, in order")
    run.add_argument("params", help="a file such as params/demo.yaml")
    run.add_argument("--check", action="store_true", help="check the parameters and what they name, then stop")
    run.add_argument(
        "--submit",
        choices=["slurm", "local"],
        help="as jobs, one for each notebook: of Slurm, or of "
        "this machine to try them out; the file's block `slurm` says what they ask for",
    )
    run.add_argument("--wait", action="store_true", help="with --submit slurm: return when the jobs have ended")
    run.set_defaults(command=_run)

    plan = commands.add_parser("plan", help="tokens, FLOPs, bytes, hours and memory of a parameter file at any size")
    plan.add_argument("params", help="a file such as params/paper_coco.yaml")
    plan.add_argument("--images", type=float, help="so many images in place of the file's, e.g. 1e9")
    plan.add_argument(
        "--pairs",
        type=float,
        help="so many training comparisons (default: the file's; where it has all "
        "pairs and --images is given, one for each training image)",
    )
    plan.add_argument("--gpus", type=int, default=1, help="how many work at once (default 1)")
    plan.add_argument("--gpu", default="A100", help="which: A100 (default), H100, ...")
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.set_defaults(command=_plan)

    params = commands.add_parser("params", help="explain the keys of a parameter file")
    params.add_argument("key", nargs="?", default="", help="a key such as finetune.lr, or a block such as finetune")
    params.add_argument("--markdown", action="store_true", help="print the page docs/parameters.md")
    params.set_defaults(command=_params)

    rank = commands.add_parser("rank", help="order photos by an attribute")
    rank.add_argument(
        "photos",
        help="a folder, a glob in quotes, a run's folder such as outputs/demo, or stored vectors ('*.parquet')",
    )
    rank.add_argument("--more", help='what the top looks like, e.g. "a large animal"')
    rank.add_argument("--less", help='what the bottom looks like, e.g. "a small animal"')
    rank.add_argument(
        "--estimator",
        default="two_prompt",
        help="how the words become an axis: one_sided, antisymmetric, two_prompt (default) or ensemble",
    )
    rank.add_argument(
        "--paraphrases",
        action="store_true",
        help="ensemble: also by paraphrases that the small language model of `make setup` writes",
    )
    rank.add_argument(
        "--examples", type=Path, metavar="FILE", help="examples: CSV or JSON lines with path and side (most or least)"
    )
    rank.add_argument("--most", nargs="+", metavar="PHOTO", help="examples of much of it")
    rank.add_argument("--least", nargs="+", metavar="PHOTO", help="examples of little of it")
    rank.add_argument(
        "--votes", type=Path, metavar="FILE", help="pairwise votes in JSON lines, as notebook 06 keeps them"
    )
    rank.add_argument("--model", help="a spec or a run's folder (default: the run's own, else minilm-efficientnet)")
    rank.add_argument("--alpha", type=float, default=1.0, help="share of the finetuned weights (default 1)")
    rank.add_argument("--top", type=int, help="only so many of the best")
    rank.add_argument("--bottom", type=int, help="only so many of the worst; with --top, both ends")
    rank.add_argument("--json", action="store_true", help="print JSON")
    rank.add_argument("--csv", type=Path, metavar="FILE", help="also write the table to this CSV")
    rank.add_argument("--sheet", type=Path, metavar="FILE", help="also write a contact sheet of at most 60 (PNG)")
    rank.set_defaults(command=_rank)

    convert = commands.add_parser("convert", help="the paper's released pickles to tables, or back")
    convert.add_argument("embeddings", type=Path, help="the pickle of image embeddings and captions")
    convert.add_argument("differences", type=Path, help="the pickle of differences")
    direction = convert.add_mutually_exclusive_group(required=True)
    direction.add_argument("--to", type=Path, metavar="FOLDER", help="read the pickles, write tables to this folder")
    direction.add_argument("--back", type=Path, metavar="FOLDER", help="write the pickles from this folder's tables")
    convert.set_defaults(command=_convert)
    return parser


def _run(options) -> None:
    if options.wait and not options.submit:
        raise PcclipError("run: --wait goes with --submit; without it everything is waited for")
    if options.submit and not options.check:
        from pcclip.workbook.slurm import submit

        submit(options.params, options.submit, options.wait)
        return
    from pcclip.workbook.notebooks import run

    run(options.params, check_only=options.check)


def _plan(options) -> None:
    from pcclip.workbook import plan

    found = plan.plan(options.params, options.images, options.pairs, options.gpus, options.gpu)
    print(json.dumps(found, indent=1) if options.json else plan.table(found))


def _params(options) -> None:
    from pcclip.workbook.parameter_docs import parameters, parameters_page

    if options.markdown:
        print(parameters_page(), end="")
    else:
        print(*parameters(options.key), sep="\n")


def _rank(options) -> None:
    from contextlib import redirect_stdout

    from pcclip.config import Generate
    from pcclip.ranking.examples import Examples
    from pcclip.ranking.rank import rank
    from pcclip.runs.files import atomic

    examples = options.examples
    if options.most or options.least:
        if examples:
            raise PcclipError("rank: --examples and --most/--least both name examples; give them one way")
        examples = Examples(options.most or (), options.least or ())
    with redirect_stdout(sys.stderr):  # progress must not get into the result
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
            table.to_csv(temporary, index=False)
    if options.json:
        print(json.dumps(json.loads(table.to_json(orient="records")), indent=1))
        return
    for row in table.itertuples():
        score = f"{row.score:+.4f}" + (f" +/- {row.deviation:.4f}" if "deviation" in table else "")
        print(f"{row.position:5d}  {row.problem or score:>8}  {row.path}")


def _convert(options) -> None:
    from pcclip.workbook.authors_release import convert, write_released

    if options.to:
        counts = convert(options.embeddings, options.differences, options.to)
        print(f"{options.to}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    else:
        print(*write_released(options.back, options.embeddings, options.differences), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
