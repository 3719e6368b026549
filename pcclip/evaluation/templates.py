"""Prompts of a class: the paper's one template, the two sets that were made for ImageNet, and described classes."""

from collections.abc import Sequence

from pcclip.evaluation.class_texts import EXTENDED
from pcclip.torchvision_shim import declare_missing


def prompts(classes: Sequence[str], templates: str) -> list[list[str]]:
    """Every class in every template of a set, one list of texts a class.

    Args:
        classes: names as they go into the text.
        templates: 'single' (the paper's), 'official80' (of CLIP's authors, for ImageNet) or 'simple7' (seven that
            they selected from those); the latter two as open_clip ships them.
    """
    if templates == "single":
        return [[f"This is a photo of a {name}"] for name in classes]
    declare_missing()
    from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    fillers = {"official80": OPENAI_IMAGENET_TEMPLATES, "simple7": SIMPLE_IMAGENET_TEMPLATES}[templates]
    return [[fill(name) for fill in fillers] for name in classes]


def described(classes: Sequence[str], descriptions: Sequence[Sequence[str]]) -> list[list[str]]:
    """The paper's extended prompts: its template with a description behind it, one list of texts a class.

    Args:
        classes: names as they go into the text.
        descriptions: of each class, in the order of `classes`; one text or more a class.
    """
    return [[EXTENDED.format(name, text) for text in texts] for name, texts in zip(classes, descriptions, strict=True)]
