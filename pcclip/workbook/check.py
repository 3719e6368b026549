"""Check a parameter file before any work: what is fine, what will be fetched, what the run costs, what is missing.

No weights are loaded and nothing is fetched. What is wrong in the file itself is an error at once.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pcclip.arithmetic import stage as arithmetic
from pcclip.comparisons import filters, llm
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.llm.identity import gguf_path, weights_source
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import COMPARISONS, Config, Generate, resolve
from pcclip.data import image_set as data
from pcclip.embedding.stage import FOLDER as EMBED
from pcclip.encoders import minilm_efficientnet, openclip, saved
from pcclip.encoders import toy_clip as student
from pcclip.encoders import toy_diffusion as drawn_teacher
from pcclip.encoders.diffusion import missing_teacher
from pcclip.errors import PcclipError
from pcclip.evaluation import stage as report
from pcclip.finetuning import stage as trainer
from pcclip.runs.progress import say
from pcclip.runs.stage import Stage, finished
from pcclip.workbook import sizes
from pcclip.workbook.estimate import Row, estimate, in_bytes, memory, summed, table
from pcclip.workbook.teacher_size import FILES as TEACHER_FILES
from pcclip.workbook.teacher_size import TeacherSize, of_teacher

FINE, FETCHED, MISSING = "fine", "to fetch", "missing"
_SECONDS = 2.0  # for a server to take a connection
_ANY = ("*.safetensors", "*.bin", "*.pt")
_TEACHER_WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")


@dataclass(frozen=True)
class Finding:
    state: str  # FINE, FETCHED or MISSING
    text: str


def check(plan: list[tuple[Config, list[str]]], params_file: str | Path) -> None:
    """Print what was found, each thing once, and the estimate over all runs of the file.

    Args:
        plan: each run with the notebooks it runs; 01 and 02 of another run are looked for and not counted.

    Raises:
        PcclipError: something in the file is wrong, or, one line each, what is missing.
    """
    found, rows, assumed, held = {}, [], {}, {}
    made = {config.run for config, notebooks in plan if "02_embed_images" in notebooks}
    for config, notebooks in plan:
        findings, of_run, why, needed = _run(config, notebooks)
        held.update(dict.fromkeys(needed))
        found.update(dict.fromkeys([*findings, *(_built_on(config) if config.reuse not in made else [])]))
        rows += of_run
        assumed.update(dict.fromkeys(why))
    missing = [finding.text for finding in found if finding.state == MISSING]
    for finding in found:
        if finding.state != MISSING:
            say(f"{finding.state:<8}  {finding.text}")
    say(f"\n{table(summed(rows))}\n")
    for line in held:
        say(f"memory    {line}")
    for line in assumed:
        say(f"assumed   {line}")
    if missing:
        raise PcclipError("\n".join([f"{params_file}: missing:", *missing]))
    say(f"\n{params_file}: fine, nothing is missing")


def _run(config: Config, notebooks: list[str]) -> tuple[list[Finding], list[Row], list[str], list[str]]:
    """Of one run: what was found, rows of the estimate, what is assumed in them, and what a step has in memory."""
    found = list(_texts(config))
    images, of_data = _data(config)
    towers, why_no_towers = _tried(sizes.of_model, config.model)
    size, why_no_size = _tried(sizes.of_llm, config.generate)
    judge, why_no_judge = _tried(sizes.of_llm, config.generate.judging)
    found += [*of_data, *_model(config.model, towers, why_no_towers)]
    numbers = {name[:2] for name in notebooks}
    if "01" in numbers or config.evaluate.judge:
        found += _language_model(config.generate, size, why_no_size)
    if "01" in numbers and config.generate.attributes:
        found += _language_model(config.generate.judging, judge, why_no_judge)
    if config.engine == "ray" and numbers & {"01", "02"} and find_spec("ray") is None:
        found.append(Finding(MISSING, "engine = ray needs Ray: `pip install 'pcclip[ray]'`"))
    teacher, matcher, needed = None, None, []
    if "03" in numbers:
        found += _finetuning(config)
        if config.finetune.sds:
            teacher, finding = _teacher(config.finetune.sds.teacher)
            found.append(finding)
        needed = _memory(config, towers, teacher)
    if "04" in numbers and config.evaluate.teacher:
        matcher, finding = _teacher(config.evaluate.teacher.spec)
        found += [] if finding in found else [finding]
    found += [Finding(MISSING, line) for line in report.lacking(config)]
    rows, assumed = estimate(config, images, towers, size, judge, teacher, matcher)
    return found, [row for row in rows if row.stage[:2] in numbers], assumed, needed


def _memory(config: Config, towers: sizes.Towers | None, teacher: TeacherSize | None) -> list[str]:
    """One line for each thing that a step of objective clip has on the GPU, and their sum."""
    if config.finetune.objective != "clip":
        return []
    kept = sizes.kept_by_towers(config.model, config.finetune.tune) if towers else None
    parts = memory(config, towers, teacher, kept)
    unknown = " and what is unknown" if any(size is None for _, size in parts) else ""
    return [
        *(f"{in_bytes(size):>8}  {what}" for what, size in parts),
        f"{in_bytes(sum(size or 0 for _, size in parts)):>8}  in all{unknown}, beside what kernels need while they "
        f"work: {config.run}",
    ]


def _built_on(config: Config) -> Iterator[Finding]:
    """The stages of another run that this one starts from."""
    folders = [config.source_folder / name for name in (COMPARISONS, EMBED)] if config.reuse or config.tuned else []
    for folder in [*folders, *([config.tuned_folder / trainer.FOLDER] if config.tuned else [])]:
        try:
            finished(folder)
        except PcclipError as error:
            yield Finding(MISSING, str(error))


def reachable(url: str) -> bool:
    """Whether something takes a TCP connection at the URL's host, or at the proxy that leads there, in two seconds."""
    answered = []

    def connect() -> None:
        try:
            socket.create_connection(_place(url), _SECONDS).close()
            answered.append(True)
        except (OSError, ValueError):  # no such port or name
            pass

    thread = threading.Thread(target=connect, daemon=True)  # looking a name up knows no time limit
    thread.start()
    thread.join(_SECONDS)
    return bool(answered)


def _place(url: str) -> tuple[str, int]:
    """Host and port to connect to."""
    place = urlsplit(url)
    proxy = getproxies().get(place.scheme)
    if proxy and not proxy_bypass(place.hostname):
        place = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return place.hostname, place.port or {"https": 443}.get(place.scheme, 80)


def _texts(config: Config) -> Iterator[Finding]:
    """Prompt, filters and bank. Raises PcclipError when one does not load."""
    settings = config.generate
    filters.rule_list(settings.filters)
    prompts = [load_prompt(settings.prompt).name]
    for name in filter(None, (settings.rewrites, settings.negatives)):
        prompts.append(load_prompt(name, slots=("first",)).name)
    bank = f", attribute bank {load_bank(settings.attributes).name}" if settings.attributes else ""
    yield Finding(FINE, f"parameters, prompt {' and '.join(prompts)}, filters {settings.filters}{bank}")


def _data(config: Config) -> tuple[data.ImageSet | None, list[Finding]]:
    """The images, if they are here. Raises PcclipError when they are and something asked of them is not in them."""
    source = config.data.source
    if missing := data.missing(config.data):
        return None, [Finding(MISSING, f"data source {source}: {line}") for line in missing]
    if to_fetch := data.to_fetch(config.data):
        return None, [Finding(FETCHED, f"data source {source}: {line}") for line in to_fetch]
    images = data.load_images(config)
    report.check_attributes(config, images)
    arithmetic.check(config, images)
    return images, [
        Finding(
            FINE,
            f"data source {source}: {len(images.train)} train images, {len(images.held_out)} "
            f"held out, {len(images.left_out)} left out",
        )
    ]


def _model(spec: str, towers: sizes.Towers | None, why_none: str) -> Iterator[Finding]:
    """Raises PcclipError when nothing is known by that name."""
    if saved.folder_of(spec):
        yield Finding(FINE, f"model {spec}: finetuned weights are there")
        yield from _model(sizes.base_of(spec), towers, why_none)
        return
    drawn = student.SPEC.fullmatch(spec)
    if spec != minilm_efficientnet.SPEC and not drawn:
        openclip.check(spec)
    if why_none:
        yield Finding(MISSING, why_none)
        return
    told = (
        f"{towers.image_parameters / 1e6:.0f} M image and {towers.text_parameters / 1e6:.0f} M text parameters"
        if towers
        else "its size is told on the hub alone"
    )
    yield Finding(FINE, f"model {spec}: {told}")
    if drawn:
        yield _made_here(spec, student.stage(student.seed_of(spec)))
    elif spec != minilm_efficientnet.SPEC:
        yield _weights(spec, towers and towers.bytes)


def _made_here(spec: str, stage: Stage) -> Finding:
    """A small model that is trained on drawn pictures the first time it is asked for."""
    there = "there" if stage.done() else f"trained the first time, into {stage.folder}"
    return Finding(FINE, f"weights of {spec}: {there}")


def _weights(spec: str, size: int | None) -> Finding:
    """Of an open_clip model."""
    from open_clip.pretrained import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME, get_pretrained_cfg

    name, tag = openclip.split(spec)
    what = f"weights of {spec}"
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        there = any(any(folder.glob(pattern)) for pattern in _ANY)
        return (
            Finding(FINE, f"{what}: there")
            if there
            else Finding(MISSING, f"{what}: none in {folder}; put {HF_SAFE_WEIGHTS_NAME} there")
        )
    if tag == "random" or (tag and Path(tag).is_file()):
        return Finding(FINE, f"{what}: {'drawn at random' if tag == 'random' else 'there'}")
    if name.startswith("hf-hub:"):
        repository, file = name.removeprefix("hf-hub:"), ""
    else:
        entry = get_pretrained_cfg(name, tag)
        repository, _, file = entry.get("hf_hub", "").rpartition("/")
        if not repository:
            path = Path("~/.cache/clip").expanduser() / Path(entry["url"]).name
            return (
                Finding(FINE, f"{what}: there")
                if path.is_file()
                else _to_fetch(what, size, entry["url"], f"download {entry['url']} to {path}")
            )
    files = [Path(file).with_suffix(".safetensors").name, file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    if any(_cached(repository, file) for file in files):
        return Finding(FINE, f"{what}: in the hub's cache")
    return _to_fetch(
        what,
        size,
        _hub(),
        f"run `hf download {repository}` where there is a network and bring the hub's "
        "cache here, or give model as NAME:/path/to/checkpoint",
    )


def _language_model(settings: Generate, size: sizes.LanguageModel | None, why_none: str) -> Iterator[Finding]:
    if settings.backend == "template":
        return
    package, how = llm.NEEDS[settings.backend]
    if find_spec(package) is None:
        yield Finding(MISSING, f"generate.backend = {settings.backend} needs {package}: {how}")
    if settings.backend == "openai":
        yield _server(settings, size)
        return
    if why_none:
        yield Finding(MISSING, why_none)
        return
    told = (
        f"{size.parameters / 1e9:.3g} G parameters by {size.source}"
        if size
        else ("unknown size: give generate.llm a local folder to know")
    )
    if settings.backend == "llama_cpp":
        yield Finding(FINE, f"language model {gguf_path(settings.gguf)}: {told}")
        return
    yield _hub_model(settings.llm, told, size and size.bytes)


def _server(settings: Generate, size: sizes.LanguageModel | None) -> Finding:
    told = (
        f"{settings.llm} of {size.parameters / 1e9:.3g} G parameters by its name"
        if size
        else f"{settings.llm} of unknown size"
    )
    key = f"$OPENAI_API_KEY is {'set' if os.environ.get('OPENAI_API_KEY') else 'not set'}"
    silent = [url for url in settings.servers if not reachable(url)]
    if not silent:
        return Finding(FINE, f"language model {told}: a server is at {' and '.join(settings.servers)}; {key}")
    return Finding(
        MISSING,
        f"language model {told}: nothing answers at generate.base_url = {' and '.join(silent)}; "
        f"start the server there or change it; {key}",
    )


def _hub_model(name: str, told: str, size: float | None) -> Finding:
    """A transformers model by hub name, or in a folder."""
    source, revision = weights_source(name)
    what = f"language model {name}: {told}"
    if Path(source).is_dir():
        lacking = [kind for kind in ("config.json", "*.safetensors") if not any(Path(source).glob(kind))]
        return (
            Finding(MISSING, f"{what}, but no {' and no '.join(lacking)} in it; fetch it again")
            if lacking
            else (Finding(FINE, f"{what}, there"))
        )
    if _cached(source, "config.json", revision) and any(
        _cached(source, file, revision) for file in ("model.safetensors", "model.safetensors.index.json")
    ):
        return Finding(FINE, f"{what}, in the hub's cache")
    return _to_fetch(
        what, size, _hub(), f"run `hf download {source}` where there is a network and give its folder as generate.llm"
    )


def _finetuning(config: Config) -> Iterator[Finding]:
    if config.finetune.tune == "lora" and find_spec("peft") is None:
        yield Finding(MISSING, "finetune.tune = lora needs peft: `pip install 'pcclip[paper]'`")
    if config.finetune.negatives == "llm" and config.generate.negatives is None:
        yield Finding(MISSING, "finetune.negatives = llm needs generate.negatives, a prompt file for 01 to write them")


def _teacher(spec: str) -> tuple[TeacherSize | None, Finding]:
    """A diffusion model: drawn here, in a folder, or by hub name."""
    if find_spec("diffusers") is None:
        return None, Finding(MISSING, f"teacher {spec} needs diffusers: `pip install 'pcclip[pictures]'`")
    if lines := missing_teacher(spec):
        return None, Finding(MISSING, "; ".join(lines))
    size, why_none = _tried(of_teacher, spec)
    return size, Finding(MISSING, why_none) if why_none else _teacher_weights(spec, size)


def _teacher_weights(spec: str, size: TeacherSize | None) -> Finding:
    if drawn_teacher.SPEC.fullmatch(spec):
        return _made_here(spec, drawn_teacher.stage(drawn_teacher.seed_of(spec)))
    told = (
        f"UNet {size.unet / 1e6:.0f} M, VAE {size.vae / 1e6:.0f} M, text encoder {size.text_encoder / 1e6:.0f} M "
        "parameters"
        if size
        else "its size is told on the hub alone"
    )
    what = f"teacher {spec}: {told}"
    if resolve(spec).is_dir():
        return Finding(FINE, f"{what}, there")
    if all(
        _cached(spec, file) and any(_cached(spec, str(Path(file).with_name(name))) for name in _TEACHER_WEIGHTS)
        for file in TEACHER_FILES
    ):
        return Finding(FINE, f"{what}, in the hub's cache")
    count = size and 4 * (size.unet + size.vae + size.text_encoder)
    return _to_fetch(
        what,
        count,
        _hub(),
        f"run `hf download {spec}` where there is a network and give its folder as finetune.sds.teacher",
    )


def _to_fetch(what: str, size: float | None, url: str, by_hand: str) -> Finding:
    """Fetched by itself where there is a network; else how to do it by hand."""
    much = f"about {in_bytes(size)}" if size else "of unknown size"
    if reachable(url) and not _offline():
        return Finding(FETCHED, f"{what}: {much}")
    return Finding(MISSING, f"{what}: not here, and {urlsplit(url).hostname} cannot be reached; {by_hand} ({much})")


def _hub() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _cached(repository: str, file: str, revision: str | None = None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, file, revision=revision), str)


def _tried(size_of: Callable, what) -> tuple:
    """What a function finds and '', or None and what it says is missing."""
    try:
        return size_of(what), ""
    except PcclipError as error:
        return None, str(error)
