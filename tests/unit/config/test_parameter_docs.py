"""docs/parameters.md and `pcclip params` explain every key."""

import pytest
from helpers.runs import ROOT

from pcclip import cli, config
from pcclip.errors import PcclipError
from pcclip.workbook.parameter_docs import parameters, parameters_page


def test_the_page_is_in_step_with_the_keys():
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf8")
    assert page == parameters_page(), "run pcclip params --markdown > docs/parameters.md"


def test_every_key_has_a_description():
    rows = {row.key: row for row in parameters()}
    assert {key for key in rows if "." not in key} == set(config.Config.model_fields)
    assert {"finetune.sds.weight", "evaluate.labelled.NAME.limit", "arithmetic.changes.N.start"} <= set(rows)
    assert all(row.description.endswith(".") and row.values for row in rows.values())


def test_one_key_is_explained(capsys):
    assert cli.main(["params", "finetune.lr"]) == 0
    key, description = capsys.readouterr().out.splitlines()
    assert key == "finetune.lr: number > 0; default 1e-08"
    assert "Learning rate" in description


def test_a_block_is_explained_with_all_its_keys():
    assert {row.key for row in parameters("embed")} == {
        "embed",
        *(f"embed.{key}" for key in config.Embed.model_fields),
    }


@pytest.mark.parametrize(("key", "hint"), [("lr", "finetune.lr"), ("finetune.epoch", "finetune.epochs")])
def test_an_unknown_key_has_a_guess(key, hint):
    with pytest.raises(PcclipError, match=f"{key}: no such parameter; did you mean .*{hint}"):
        parameters(key)
