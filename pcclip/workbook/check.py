"""Check a parameter file before any work: which parts are fine, to be fetched or missing, and the cost of its runs.

Nothing is fetched; of weights that are here the names and shapes are read. A mistake in the file raises PcclipError at once.
"""

import os
from collections.abc import Callable, Iterator
from http.client import HTTPException
from importlib.util import find_spec
from math import isnan, nan
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from pcclip.arithmetic import stage as arithmetic
from pcclip.comparisons import filters, llm
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.llm.identity import gguf_path, weights_source
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import COMPARISONS, Config, Generate, resolve, without_password
from pcclip.data import image_set as data
from pcclip.embedding.stage import FOLDER as EMBED
from pcclip.encoders import check_name, huggingface, minilm_efficientnet, openclip, saved
from pcclip.encoders.diffusion import missing_teacher
from pcclip.encoders.toy_clip import SHAPES_CLIP
from pcclip.encoders.toy_diffusion import SHAPES_DIFFUSION
from pcclip.encoders.weight_files import check_folder
from pcclip.errors import PcclipError
from pcclip.evaluation import stage as evaluation
from pcclip.finetuning import stage as finetuning
from pcclip.runs.progress import say
from pcclip.runs.stage import Stage, finished, read_manifest
from pcclip.workbook.cost import Cost, Scale, constants, table, with_prefix
from pcclip.workbook.sizes import encoder_size, language_model_size, stored
from pcclip.workbook.sweep import planned, read_sweep

FINE, FETCHED, MISSING = "fine", "to fetch", "missing"
Finding = tuple[str, str]  # one of the three words above, and a line about one thing
_CONNECT_SECONDS = 2.0
_UNET = "diffusion_pytorch_model.safetensors"
_TEACHER_FILES = {"unet": _UNET, "vae": _UNET, "text_encoder": "model.safetensors"}


def check(params_file: str | Path, scale: Scale | None = None) -> None:
    """Print each finding once, and the cost of all runs; a stage of another run must be there and costs nothing.

    The cost is of `scale`, by default of the file's own images on one A100.

    Raises:
        PcclipError: a mistake in the file; or, one line for each missing part.
    """
    runs = planned(read_sweep(params_file))
    embedded_here = {config.run for config, notebooks in runs if "02_embed_images" in notebooks}
    findings: list[Finding] = []
    costs = []
    for config, notebooks in runs:
        images, source = _images(config), f"data source {config.data.source}"
        findings += _texts(config)
        findings += [(MISSING, f"{source}: {line}") for line in data.missing(config.data)]
        if images is None:
            findings += [(FETCHED, f"{source}: {line}") for line in data.to_fetch(config.data)]
        else:
            sizes = [len(images.train), len(images.held_out), len(images.left_out)]
            findings.append((FINE, "{}: {} train images, {} held out, {} left out".format(source, *sizes)))
            refuse(config, notebooks, images)
        findings += [(MISSING, line) for line in evaluation.lacking(config)]
        if config.reuse not in embedded_here:
            findings += _stages_of_other_runs(config, images)
        findings += _models(config, {name[:2] for name in notebooks})
        costs.append((Cost(config, scale or Scale(), images), notebooks))
    findings = list(dict.fromkeys(findings))
    for state, line in findings:
        if state != MISSING:
            say(f"{state:<8}  {line}")
    _show(costs)
    if missing := [line for state, line in findings if state == MISSING]:
        raise PcclipError("\n".join([f"{params_file}: missing:", *missing]))
    say(f"\n{params_file}: fine, nothing is missing")


def plan(params_file: str | Path, scale: Scale) -> None:
    """Print the cost of the file's runs at this scale, with a '?' for unknown amounts; nothing is checked.

    Raises:
        PcclipError: a mistake in the file, or an impossible scale.
    """
    runs = planned(read_sweep(params_file))
    _show([(Cost(c, scale, _images(c) if scale.images is None else None), notebooks) for c, notebooks in runs])


def refuse(config: Config, notebooks: list[str], images: data.ImageSet) -> None:
    """Raise PcclipError when the parameters name something that these images do not have, or that no notebook runs."""
    evaluation.check_attributes(config, images)
    config.stored(config.folder)
    if "05_analyze_embedding_arithmetic" in notebooks:
        arithmetic.check(config, images)
    settings, rank, has_01 = config.generate, config.rank, "01_generate_comparisons" in notebooks
    sides = {"training captions": images.train.caption, "held-out concepts": images.held_out.concept}
    problems = [
        f"data: a pair needs two different {name}; raise the limit or change data.held_out"
        for name, values in sides.items()
        if values.nunique() < 2
    ]
    problems += [
        f"generate.{key}: backend template cannot do it; name a language model's, or leave {key} out"
        for key, backend in (("rewrites", settings.backend), ("attributes", settings.judging.backend))
        if has_01 and getattr(settings, key) and backend == "template"
    ]
    if config.arithmetic.composed and notebooks[-1] == "04_evaluate":
        problems.append("arithmetic.composed: 05 is not run with `tuned`, nor in a sweep; leave composed out")
    if rank.attribute and not rank.photos and rank.attribute not in images.attributes:
        attributes = ", ".join(images.attributes) or "none"
        problems.append(f"rank.attribute: {images.name} has no attribute {rank.attribute!r}; it has: {attributes}")
    if problems:
        raise PcclipError("\n".join(problems))


def _images(config: Config) -> data.ImageSet | None:
    """The images, or None where they are not here yet."""
    return None if data.missing(config.data) or data.to_fetch(config.data) else data.load_images(config)


def _show(costs: list[tuple[Cost, list[str]]]) -> None:
    """The table of all runs, what is assumed where the images are not here, and the constants."""
    shown = [row for cost, names in costs for row in cost.rows if row.stage[:2] in {name[:2] for name in names}]
    say(f"\n{table(shown)}\n")
    for line in dict.fromkeys(cost.assumed for cost, _ in costs if cost.assumed):
        say(f"assumed   {line}")
    for value, source in constants().values():
        say(f"constant  {value:g} {source}")


def _texts(config: Config) -> Iterator[Finding]:
    """Prompt, filters and bank. Raises PcclipError when one does not load."""
    settings = config.generate
    check_name(config.model)
    filters.rule_list(settings.filters)
    names = [load_prompt(settings.prompt).name]
    names += [load_prompt(settings.rewrites, slots=("first",)).name] if settings.rewrites else []
    bank = f", attribute bank {load_bank(settings.attributes).name}" if settings.attributes else ""
    yield FINE, f"parameters, prompt {' and '.join(names)}, filters {settings.filters}{bank}"


def _stages_of_other_runs(config: Config, images: data.ImageSet | None) -> list[Finding]:
    """Stages of another run that this one builds on, and that have not finished or were made from other inputs."""
    folders = [config.source_folder / name for name in (COMPARISONS, EMBED)] if config.reuse or config.tuned else []
    folders += [config.tuned_folder / finetuning.FOLDER] if config.tuned else []
    problems = [line for folder in folders if (line := _problem(finished, folder))]
    if folders and images is not None and not problems:
        problems = [_problem(evaluation.stage if config.tuned else finetuning.stage, config, images)]
    return [(MISSING, line) for line in problems if line]


def _problem(look: Callable[..., object], *arguments: object) -> str:
    """The line of the PcclipError that a call raises; '' for none."""
    try:
        look(*arguments)
    except PcclipError as error:
        return str(error)
    return ""


def _models(config: Config, stages: set[str]) -> Iterator[Finding]:
    """Every model that the stages of a run use, and the packages that run them."""
    settings, finetune = config.generate, config.finetune
    peers = config.evaluate.peers.values() if "04" in stages else ()
    parts = [_encoder(spec) for spec in (config.model, *peers)]
    if "01" in stages:
        parts.append(_language_model(settings))
    if "01" in stages and settings.attributes:
        parts.append(_language_model(settings.judging))
    packages = [
        ("ray", "engine = ray", "'pcclip[ray]'", config.engine == "ray" and stages & {"01", "02"}),
        ("peft", "finetune.tune = lora", "'pcclip[paper]'", "03" in stages and finetune.tune == "lora"),
        ("accelerate", "finetune.processes", "'pcclip[paper]'", "03" in stages and finetune.processes > 1),
        ("tensorboardX", "finetune.tracker", "tensorboardX", "03" in stages and finetune.tracker),
    ]
    parts += [
        _package(name, f"{key} needs {name}: `pip install {package}`") for name, key, package, used in packages if used
    ]
    if "03" in stages and finetune.sds:
        parts.append(_teacher(finetune.sds.teacher))
    if "04" in stages and config.evaluate.teacher:
        parts.append(_teacher(config.evaluate.teacher.spec))
    for part in parts:
        try:
            yield from part
        except PcclipError as error:
            yield MISSING, str(error)


def _package(name: str, line: str) -> Iterator[Finding]:
    if find_spec(name) is None:
        yield MISSING, line


def _encoder(spec: str) -> Iterator[Finding]:
    if folder := saved.folder_of(spec):
        finished(folder) if read_manifest(folder) else check_folder(folder)
        yield FINE, f"model {spec}: finetuned weights are in {folder}"
        yield from _encoder(saved.read_card(folder)["base"])
        return
    image, text = encoder_size(spec)[:2]
    known = f"{image.parameters / 1e6:.0f} M image and {text.parameters / 1e6:.0f} M text parameters"
    yield FINE, f"model {spec}: {'its size is known on the hub alone' if isnan(image.parameters) else known}"
    toy = SHAPES_CLIP.seed(spec)
    if toy is not None:
        yield FINE, f"weights of {spec}: {_trained(SHAPES_CLIP.stage(toy))}"
    elif spec.startswith(huggingface.SCHEMA):
        place, files = huggingface.split(spec)[0], ["model.safetensors", "model.safetensors.index.json", "modules.json"]
        label, size = f"weights of {spec}", 4 * (image.parameters + text.parameters)
        if Path(place).is_dir():
            huggingface.check_folder(spec)
            yield FINE, f"{label}: in {place}"
        else:
            yield _on_hub(label, place, [files], size, "give model as hf:FOLDER")
    elif spec != minilm_efficientnet.SPEC:
        yield _open_clip_weights(spec, 4 * (image.parameters + text.parameters))
        if tokenizer := openclip.tokenizer_source(spec):
            label, names = f"tokenizer of {spec}", [["tokenizer.json", "tokenizer_config.json"]]
            advice = "put tokenizer.json beside the checkpoint"
            local = FINE, f"{label}: in {tokenizer}"
            yield local if Path(tokenizer).is_dir() else _on_hub(label, tokenizer, names, 4e6, advice)


def _trained(stage: Stage) -> str:
    """A toy model is trained on drawn pictures when it is first used."""
    return "there" if stage.done() else f"trained the first time, into {stage.folder}"


def _open_clip_weights(spec: str, size: float) -> Finding:
    from open_clip.pretrained import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME, get_pretrained_cfg

    name, tag = openclip.split(spec)
    label, (schema, _, place) = f"weights of {spec}", name.rpartition(":")
    if tag == "random" or openclip.local_weights(spec):
        openclip.load(spec, "meta")
        return FINE, f"{label}: {'drawn at random' if tag == 'random' else 'there'}"
    files = [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    if not schema:
        place, _, file = get_pretrained_cfg(name, tag)["hf_hub"].rpartition("/")
        files = [str(Path(file).with_suffix(".safetensors")), file] if file else files
    return _on_hub(label, place, [files], size, "bring the hub's cache here, or give model as NAME:/path/to/checkpoint")


def _language_model(settings: Generate) -> Iterator[Finding]:
    if settings.backend == "template":
        return
    package, installation = llm.NEEDS[settings.backend]
    yield from _package(package, f"generate.backend = {settings.backend} needs {package}: {installation}")
    size = language_model_size(settings).parameters
    known = "unknown size: its name has no number of parameters" if isnan(size) else f"{size / 1e9:.3g} G parameters"
    label = f"language model {settings.llm}: {known}"
    if settings.backend == "llama_cpp":
        with (file := gguf_path(settings.gguf)).open("rb") as opened:
            is_gguf = opened.read(4) == b"GGUF"
        yield (
            FINE if is_gguf else MISSING,
            f"language model {file}: {known if is_gguf else 'no GGUF file; fetch it again'}",
        )
    elif settings.backend == "openai":
        key = f"$OPENAI_API_KEY is {'set' if os.environ.get('OPENAI_API_KEY') else 'not set'}"
        for url in settings.servers:
            shown, advice = without_password(url), "start the server there or change it"
            silent = f"nothing answers at generate.base_url = {shown}; {advice}"
            answers = reachable(url)
            yield FINE if answers else MISSING, f"{label}; {f'a server is at {shown}' if answers else silent}; {key}"
    elif Path(weights_source(settings.llm or "")[0]).is_dir():
        from pcclip.comparisons.llm.transformers_model import TransformersModel

        TransformersModel(settings, load_prompt(settings.prompt), "meta")
        yield FINE, f"{label}, there"
    else:
        files = [["config.json"], ["model.safetensors", "model.safetensors.index.json"]]
        yield _on_hub(label, settings.llm or "", files, 2 * size, "give its folder as generate.llm")


def _teacher(spec: str) -> Iterator[Finding]:
    """A diffusion model: a toy that is trained here, in a folder, or by hub name."""
    yield from _package("diffusers", f"teacher {spec} needs diffusers: `pip install 'pcclip[pictures]'`")
    toy = SHAPES_DIFFUSION.seed(spec)
    if lines := missing_teacher(spec):
        yield MISSING, "; ".join(lines)
    elif toy is not None:
        yield FINE, f"weights of {spec}: {_trained(SHAPES_DIFFUSION.stage(toy))}"
    elif resolve(spec).is_dir():
        yield FINE, f"teacher {spec}: there"
    else:
        parts = [[f"{part}/{name}"] for part, file in _TEACHER_FILES.items() for name in ("config.json", file)]
        yield _on_hub(f"teacher {spec}", spec, parts, nan, "give its folder as finetune.sds.teacher")


def _on_hub(label: str, repository: str, files: list[list[str]], size: float, advice: str) -> Finding:
    """In the hub's cache, with one file of each list in `files`; or to fetch, where there is a network; or missing."""
    from huggingface_hub import constants as hub

    if all(any(stored(repository, file) for file in names) for names in files):
        return FINE, f"{label}: in the hub's cache"
    amount = "of unknown size" if isnan(size) else f"about {with_prefix(size)}B"
    if not hub.HF_HUB_OFFLINE and reachable(hub.ENDPOINT):
        return FETCHED, f"{label}: {amount}"
    return (
        MISSING,
        f"{label}: not here, and {urlsplit(hub.ENDPOINT).hostname} cannot be reached; run `hf download "
        f"{repository.partition('@')[0]}` where there is a network and {advice} ({amount})",
    )


def reachable(url: str) -> bool:
    """Whether a server answers at the URL within two seconds, directly or through the environment's proxy."""
    try:
        urlopen(without_password(url).replace("***@", ""), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError, HTTPException) as error:  # no such name or port, or an answer that is no HTTP
        return isinstance(error, HTTPError)
    return True
