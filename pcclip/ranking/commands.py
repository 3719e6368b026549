"""The commands of the command line that rank photos: rank, app, rankings and cache.

Each parses, calls one function and prints.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from pcclip.errors import PcclipError


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    _add_rank(commands.add_parser("rank", help="order photos by an attribute"))
    app = commands.add_parser("app", help="open the page that ranks a folder's photos, in the browser")
    app.add_argument("photos", help="a folder, a glob in quotes, or a run: its folder or its parameter file")
    app.add_argument("--model", default="minilm-efficientnet", help="the model that ranks a folder")
    app.add_argument("--port", type=int, default=0, help="the port of the address (default: any that is free)")
    app.add_argument("--no-browser", action="store_true", help="only print the address")
    app.set_defaults(command=_app)
    rankings = commands.add_parser("rankings", help="list, print, rename or delete the rankings that the page saved")
    actions = rankings.add_mutually_exclusive_group()
    actions.add_argument("--export", metavar="NAME", help="print a ranking as JSON")
    actions.add_argument("--rename", nargs=2, metavar=("NAME", "TO"))
    actions.add_argument("--delete", metavar="NAME")
    rankings.set_defaults(command=_rankings)
    page = commands.add_parser("export-page", help="write a saved ranking as one HTML file that needs no Python")
    page.add_argument("ranking", help="its name")
    page.add_argument("--to", type=Path, required=True, metavar="FILE")
    page.add_argument("--photos", default="", help="the photos (default: those on which the ranking was saved)")
    page.add_argument("--most", type=int, default=500, metavar="N", help="photos in the file; of more both ends (500)")
    page.set_defaults(command=_export_page)
    cache = commands.add_parser("cache", help="show and bound the stored vectors of photos")
    cache.add_argument(
        "--limit",
        type=float,
        metavar="GB",
        help="delete the vectors not used for longest until so much is left; $PCCLIP_CACHE_GB is the bound for good",
    )
    cache.set_defaults(command=_cache)


def _add_rank(rank: argparse.ArgumentParser) -> None:
    """Add the options of `pcclip rank`: photos, then what to rank by, then the model, then the output."""
    add = rank.add_argument
    add("photos", help="a folder, a glob in quotes, a run's folder such as outputs/demo, or vectors ('*.parquet')")
    add(
        "--more",
        help='a text for the top of the ranking, or a sum, e.g. "a large animal" or "2:golden retriever - puppy"',
    )
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
    add("--ranking", metavar="NAME", help="a ranking saved on the page, in place of words, examples and votes")
    add("--votes", type=Path, metavar="FILE", help="pairwise votes in JSON lines, as the page stores them")
    add("--model", help="a model's name or a run's folder (default: the run's own, else minilm-efficientnet)")
    add("--alpha", type=float, default=1.0, help="weight of the finetuned weights in the average with the base (1)")
    add("--top", type=int, metavar="N", help="print only the N highest")
    add("--bottom", type=int, metavar="N", help="print only the N lowest; with --top, both ends")
    add("--json", action="store_true", help="print JSON")
    add("--csv", type=Path, metavar="FILE", help="also write the table to this CSV file")
    add("--sheet", type=Path, metavar="FILE", help="also write a contact sheet of at most 60 photos to this PNG file")
    rank.set_defaults(command=_rank)


def _rank(options: argparse.Namespace) -> None:
    from contextlib import redirect_stdout

    from pcclip.config import Generate
    from pcclip.ranking.examples import Examples
    from pcclip.ranking.rank import rank
    from pcclip.runs.files import spreadsheet, write_csv

    if options.csv and not options.csv.absolute().parent.is_dir():
        raise PcclipError(f"{options.csv.parent}: no such folder; make it first")
    ways = (options.more, options.less, options.examples, options.most, options.least, options.votes, options.ranking)
    if ways == (None,) * len(ways) and _has_display():
        _app(
            argparse.Namespace(
                photos=options.photos, model=options.model or "minilm-efficientnet", port=0, no_browser=False
            )
        )
        return
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
            ranking=options.ranking,
        )
    if options.csv:
        write_csv(options.csv, spreadsheet(table))
    if options.json:
        print(json.dumps(table.astype(object).where(table.notna(), None).to_dict("records"), indent=1))
        return
    for row in table.itertuples():
        score = f"{row.score:+.4f}" + (f" +/- {row.deviation:.4f}" if "deviation" in table else "")
        print(f"{row.position:5d}  {row.problem or score:>8}  {row.path}")


def _has_display() -> bool:
    """Whether a browser window can be opened, and a person is at the terminal."""
    named = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return named and sys.stdout.isatty()


def _app(options: argparse.Namespace) -> None:
    from pcclip.config import Rank
    from pcclip.ranking.app import open_app

    open_app(options.photos, Rank(), options.model, options.port, not options.no_browser)


def _export_page(options: argparse.Namespace) -> None:
    from pcclip.ranking.app import export_page

    size = export_page(options.ranking, options.to, options.photos, options.most)
    print(f"{options.to}: {size / 1e6:.1f} MB")


def _rankings(options: argparse.Namespace) -> None:
    from pcclip.ranking import saved

    if options.rename:
        saved.rename(*options.rename)
    elif options.delete:
        saved.delete(options.delete)
    elif options.export:
        print(json.dumps(saved.summary(options.export), indent=1))
    else:
        for ranking in map(saved.summary, saved.names()):
            words = f"{ranking['more']} / {ranking['less']}".removesuffix(" / ")
            counts = f"{len(ranking['examples'])} examples, {len(ranking['votes'])} votes"
            print(f"{ranking['name']}: {words}; {counts}, {ranking['changed']}")


def _cache(options: argparse.Namespace) -> None:
    from pcclip.ranking.cache import VectorCache

    if options.limit is not None:
        VectorCache().trim(1e9 * options.limit)
    print(VectorCache().summary())
