"""The parameter files of SDS-CLIP: every value states its source; rivals differ from the file beside by variant."""

import pytest
from helpers.runs import ROOT

from pcclip.workbook.sweep import read_sweep


def test_the_file_says_of_each_value_whether_it_is_known():
    path = ROOT / "params" / "sds_coco.yaml"
    lines = path.read_text().splitlines()
    start, end = lines.index("finetune:"), lines.index("evaluate:")
    plain = {"keep_epochs", "checkpoint_every", "evaluate_every", "sds"}
    silent = [
        line
        for line in lines[start + 1 : end]
        if line.strip()
        and line.split(":")[0].strip() not in plain
        and not any(f"{word}" in line.partition("#")[2] for word in ("known", "assumed", "ours"))
    ]
    assert not silent
    members = read_sweep(path)
    assert len({member.config.model for member in members}) == 6
    for config in (member.config for member in members):
        assert (config.finetune.objective, config.finetune.tune) == ("clip", "layernorm")
        assert (len(config.evaluate.compositional), config.finetune.sds.baseline) == (11, True)


@pytest.mark.parametrize("name", ["sds_demo", "sds_coco"])
def test_rivals_are_trained_and_judged_as_the_file_they_stand_beside(name):
    """In all but the variants; the baseline is one of them, and the teacher as a matcher is the other file's."""
    own = read_sweep(ROOT / "params" / f"{name}.yaml")[0].config
    members = {
        member.variant: member.config
        for member in read_sweep(ROOT / "params" / f"{name}_rivals.yaml")
        if member.config.seed == own.seed
    }
    rival = members["SDS"]
    for block in ("model", "data", "generate", "embed", "arithmetic"):
        assert getattr(rival, block) == getattr(own, block), block
    alone = own.finetune.sds.model_copy(update={"baseline": False})
    assert rival.finetune == own.finetune.model_copy(update={"sds": alone})
    assert rival.evaluate == own.evaluate.model_copy(update={"teacher": None})
    assert sum(config.finetune.negatives == "rules" for config in members.values()) >= 1
    assert sum(config.finetune.sds is not None for config in members.values()) == 1
