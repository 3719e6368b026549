"""The parameter files of SDS-CLIP: every value states its source."""

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
