"""The SkyPilot task: only fields that SkyPilot documents, of the kinds it takes, and commands that pcclip has."""

import re
import shlex

import jsonschema
import pytest
import yaml
from helpers.runs import ROOT

from pcclip.cli import parser
from pcclip.workbook.sweep import read_sweep

TASKS = sorted((ROOT / "params" / "sky").glob("*.yaml"))
TEXT, AMOUNT = {"type": "string"}, {"type": ["string", "number"]}
NAMES = {
    "type": "object",
    "propertyNames": {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
    "additionalProperties": {"type": ["string", "null"]},
}
TASK = {  # what we use of get_task_schema, get_resources_schema and get_storage_schema, sky/utils/schemas.py of 0.14.1
    "type": "object",
    "additionalProperties": False,
    "required": ["resources", "run"],
    "properties": {
        "name": TEXT,
        "workdir": TEXT,
        "num_nodes": {"type": "integer"},
        "setup": TEXT,
        "run": TEXT,
        "envs": NAMES,
        "secrets": NAMES,
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "infra": TEXT,
                "cpus": AMOUNT,
                "memory": AMOUNT,
                "instance_type": TEXT,
                "use_spot": {"type": "boolean"},
                "disk_size": {"type": ["string", "integer"]},
                "disk_tier": TEXT,
                "image_id": TEXT,
                "accelerators": {
                    "type": ["string", "object", "array"],
                    "additionalProperties": {"type": ["number", "null"]},
                },
                "job_recovery": {
                    "type": ["string", "object"],
                    "additionalProperties": False,
                    "properties": {
                        "strategy": {"type": ["string", "null"]},
                        "max_restarts_on_errors": {"type": "integer", "minimum": 0},
                    },
                },
            },
        },
        "file_mounts": {
            "type": "object",
            "additionalProperties": {
                "type": ["string", "object"],
                "additionalProperties": False,
                "properties": {
                    "name": TEXT,
                    "source": TEXT,
                    "store": {"enum": ["S3", "GCS", "AZURE", "R2", "IBM", "OCI"]},
                    "persistent": {"type": "boolean"},
                    "mode": {"enum": ["COPY", "MOUNT", "MOUNT_CACHED"]},
                },
            },
        },
    },
}


@pytest.fixture(params=TASKS, ids=lambda path: path.name)
def task(request) -> dict:
    return yaml.safe_load(request.param.read_text())


def test_there_is_one():
    assert TASKS


def test_its_fields_are_skypilots(task):
    jsonschema.validate(task, TASK)


@pytest.mark.parametrize(
    "wrong",
    [
        {"runs": "x"},
        {"envs": {"A-B": "x"}},
        {"resources": {"gpus": 1}},
        {"file_mounts": {"/x": {"source": "s3://x", "mode": "SYNC"}}},
    ],
)
def test_other_fields_are_refused(task, wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(task | wrong, TASK)


def test_it_runs_a_parameter_file_that_is_there(task):
    assert read_sweep(ROOT / task["envs"]["PARAMS"])
    commands = [
        shlex.split(line.replace("$PARAMS", task["envs"]["PARAMS"]))[1:]
        for line in task["run"].splitlines()
        if "bin/pcclip" in line
    ]
    assert [vars(parser().parse_args(words))["check"] for words in commands] == [True, False]


def test_every_variable_is_given_a_name(task):
    variables = {**task["envs"], **task["secrets"]}
    loops = set(re.findall(r"for (\w+) in", task["setup"]))
    used = set(re.findall(r"\$\{?(\w+)", yaml.safe_dump([task["file_mounts"], task["setup"], task["run"]])))
    assert used - loops <= set(variables)
