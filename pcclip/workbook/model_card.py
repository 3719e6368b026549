"""Hand a finetuned model over: write it for other libraries with a model card, into a folder or onto the hub.

The card is made of the run's manifests and metrics.csv: base, pairs, prompt, language model, licences, results, limits.
"""

import json
import os
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from pcclip import config as parameters
from pcclip.comparisons import stage as generate
from pcclip.config import resolve
from pcclip.encoders import load_model
from pcclip.encoders.export import export
from pcclip.encoders.saved import CARD
from pcclip.errors import PcclipError
from pcclip.evaluation import stage as evaluation
from pcclip.finetuning import stage as finetuning
from pcclip.runs.files import make_folder, move_folder
from pcclip.runs.stage import finished, output, read_manifest

_HUB = "hf-hub:"
_USES = {
    "open_clip": "import open_clip\n\nmodel, _, preprocess = open_clip.create_model_and_transforms('{schema}{place}')",
    "transformers": "from transformers import AutoModel, AutoProcessor\n\nmodel = AutoModel.from_pretrained('{place}')\n"
    "processor = AutoProcessor.from_pretrained('{place}')",
    "sentence-transformers": "from sentence_transformers import SentenceTransformer\n\n"
    "model = SentenceTransformer('{place}')",
}
_LIMITS = """\
- The sentences were written by a language model that read captions and saw no image; its errors and biases, and the base
  model's, are in this model too. Rankings of people by their looks are no intended use.
- transformers rounds resized pixels differently from open_clip and can crop an odd margin one pixel further: vectors of
  resized images differ a little. Typographic quotes and HTML entities can become other tokens there.
- Numbers were measured on the images named above; they say nothing of other kinds of images."""


def publish(run: str, to: str, formats: Collection[str] = (), alpha: float = 1.0) -> dict[str, str]:
    """Export a run's finetuned model with its card.

    Args:
        run: the run's folder.
        to: a new folder, or hf-hub:OWNER/NAME, for which $HF_TOKEN must be set.
        formats: as `pcclip.encoders.export.export` takes them.
        alpha: weight of the finetuned weights in the average with the base.

    Returns:
        As `export`.

    Raises:
        PcclipError: the run has not finished 03, the folder is there already, no token, or as `export`.
    """
    on_hub, place = to.startswith(_HUB), to.removeprefix(_HUB)
    folder = Path(os.path.expanduser(place)).absolute()
    if on_hub and not os.environ.get("HF_TOKEN"):
        raise PcclipError(f"export: {to} needs a token that may write there, in $HF_TOKEN")
    if not on_hub and folder.exists():
        raise PcclipError(f"export: {folder} is there already; name a new folder")
    finished(resolve(run) / finetuning.FOLDER)
    if not on_hub:
        make_folder(folder.parent)
    with TemporaryDirectory(dir=None if on_hub else folder.parent, prefix=".export-") as temporary:
        files = Path(temporary) / folder.name
        files.mkdir()
        reasons = export(load_model(run, alpha, device="cpu"), files, formats)
        written = [name for name, reason in reasons.items() if not reason]
        (files / "README.md").write_text(model_card(resolve(run), alpha, written, to), encoding="utf8")
        if on_hub:
            from huggingface_hub import HfApi

            HfApi().create_repo(place, exist_ok=True)
            HfApi().upload_folder(repo_id=place, folder_path=files)
        else:
            move_folder(files, folder)
    return reasons


def model_card(run: Path, alpha: float, written: Collection[str], to: str) -> str:
    """The card, in Markdown with the hub's metadata, of a run's model as `publish` wrote it."""
    from huggingface_hub import ModelCardData

    source = run if (run / generate.FOLDER).is_dir() else parameters.read(run / "parameters.yaml").source_folder
    tuned, sentences = finished(run / finetuning.FOLDER), finished(source / generate.FOLDER)
    base = json.loads((run / finetuning.FOLDER / CARD).read_text(encoding="utf8"))["base"]
    place, finetune = to.removeprefix(_HUB), tuned["inputs"]["finetune"]
    inputs, settings = sentences["inputs"], sentences["inputs"]["generate"]
    writer = settings["gguf"] if settings["backend"] == "llama_cpp" else settings["llm"] or "none"
    data = ModelCardData(
        library_name=min(written, default="pcclip"),
        tags=["pcclip", "clip", "image-text differences"],
        base_model=base.removeprefix("hf:") if "/" in base and not Path(base.partition(":")[2]).exists() else None,
        pipeline_tag="zero-shot-image-classification",
    )
    facts = {
        "Base model": f"`{base}`; its licence holds for these weights",
        "Weights": f"alpha = {alpha:g} times the finetuned weights, and 1 - alpha times the base's",
        "Comparisons": f"{tuned['counts'].get('train')} texts, drawn from {sentences['counts'].get('images')} images",
        "Images": f"SHA-256 of the table {tuned['inputs']['images'][:16]}; their licence is their source's",
        "Language model": f"`{writer}` by {settings['backend']}, hash {inputs['backend']}",
        "Prompt": f"`{settings['prompt']}`, hash {inputs['prompt']}",
        "Training": ", ".join(f"{key} {finetune[key]}" for key in ("objective", "tune", "epochs", "batch_size", "lr")),
        "Made with": ", ".join(f"{name} {version}" for name, version in tuned["versions"].items() if version),
    }
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {Path(place).name}",
        "A CLIP whose text tower was finetuned on differences between images (PC-CLIP).",
        "## Use",
        *(
            f"```python\n{_USES[name].format(place=place, schema=_HUB if to.startswith(_HUB) else 'local-dir:')}\n```"
            for name in written
        ),
        *("## How it was made", "\n".join(f"- **{name}**: {text}" for name, text in facts.items())),
        *("## Results", _results(run, alpha)),
        *("## Limits", _LIMITS),
    ]
    return "\n\n".join(parts) + "\n"


def _results(run: Path, alpha: float) -> str:
    """Base and finetuned beside each other, with 95% intervals, as far as stage 04 measured these weights."""
    evaluated = read_manifest(run / evaluation.FOLDER)
    if evaluated is None:
        return "Not evaluated."
    name = "finetuned" if alpha == evaluated["inputs"]["evaluate"]["alpha"] else f"alpha={alpha:g}"
    keys = ["task", "dataset", "protocol", "metric"]
    table = pd.read_csv(
        output(run / evaluation.FOLDER, f"../{evaluation.METRICS}"), keep_default_na=False, dtype={"n": int}
    )
    table["text"] = [f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]" for row in table.itertuples()]
    sides = [table[table.model == model].set_index(keys) for model in ("base", name)]
    both = sides[0].join(sides[1], how="inner", rsuffix="_tuned")
    if both.empty:
        return f"These weights (alpha = {alpha:g}) were not evaluated."
    rows = [f"| {' | '.join(key)} | {row.text} | {row.text_tuned} | {row.n} |" for key, row in both.iterrows()]
    head = f"| {' | '.join(keys)} | base | this model | n |\n|{'---|' * (len(keys) + 3)}"
    return "Brackets are 95% bootstrap intervals.\n\n" + "\n".join([head, *rows])
