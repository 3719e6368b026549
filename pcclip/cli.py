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
    run.set_defaults(command=_run)

    rank = commands.add_parser("rank", help="order photos by an attribute")
    rank.add_argument("photos", help="a folder, a glob in quotes, or a run's folder such as outputs/demo")
    rank.add_argument("--more", required=True, help='what the top looks like, e.g. "a large animal"')
    rank.add_argument("--less", help='what the bottom looks like, e.g. "a small animal"')
    rank.add_argument("--model", help="a spec or a run's folder (default: the run's own, else minilm-efficientnet)")
    rank.add_argument("--alpha", type=float, default=1.0, help="share of the finetuned weights (default 1)")
    rank.add_argument("--json", action="store_true", help="print JSON")
    rank.add_argument("--sheet", type=Path, help="also write a contact sheet of them to this PNG")
    rank.add_argument("--top", type=int, help="print only this many")
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
    from pcclip.workbook import run

    run(options.params, check_only=options.check)


def _rank(options) -> None:
    from contextlib import redirect_stdout

    from pcclip.ranking import rank

    with redirect_stdout(sys.stderr):  # progress must not get into the result
        table = rank(options.photos, options.more, options.less, options.model, options.alpha,
                     top=options.top, sheet=options.sheet)
    if options.json:
        print(json.dumps(json.loads(table.to_json(orient="records")), indent=1))
        return
    for row in table.itertuples():
        print(f"{row.position:5d}  {row.problem or format(row.score, '+.4f'):>8}  {row.path}")


def _convert(options) -> None:
    from pcclip.released import convert, write_released

    if options.to:
        counts = convert(options.embeddings, options.differences, options.to)
        print(f"{options.to}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    else:
        print(*write_released(options.back, options.embeddings, options.differences), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
