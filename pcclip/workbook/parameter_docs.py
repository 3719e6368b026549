"""Documentation of the parameters, from their types and descriptions in pcclip/config.py."""

import json
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple

from pcclip.config import Config
from pcclip.errors import PcclipError

_BOUNDS = {
    "minimum": ">=",
    "ge": ">=",
    "exclusiveMinimum": ">",
    "gt": ">",
    "maximum": "<=",
    "le": "<=",
    "exclusiveMaximum": "<",
    "lt": "<",
}
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
_PREAMBLE = """# Parameters

Every key of a parameter file, with its values, its default and its meaning. NAME stands for a name that you choose or
that docs/data.md lists, N for an item of a list. `pcclip params KEY` prints one key or one block.

`pcclip params --markdown > docs/parameters.md` writes this page.
"""


class Parameter(NamedTuple):
    """One documented key of a parameter file; a row of the tables."""

    key: str
    values: str
    default: str
    description: str

    def __str__(self) -> str:
        default = f"; default {self.default}" if self.default else ""
        return f"{self.key}: {self.values}{default}\n    {self.description}"


def parameters(key: str = "") -> list[Parameter]:
    """Return every key, the keys of the block `key`, or the one key. Raises PcclipError for an unknown key."""
    schema = Config.model_json_schema()
    rows = list(_rows(schema, schema["$defs"], ""))
    matches = [row for row in rows if not key or row.key == key or row.key.startswith(f"{key}.")]
    if not matches:
        names = [row.key for row in rows]
        near = [name for name in names if name.endswith(f".{key}")] or get_close_matches(key, names, cutoff=0)
        raise PcclipError(f"{key}: no such parameter; did you mean {' or '.join(near)}?")
    return matches


def parameters_page() -> str:
    """The text of docs/parameters.md: a table for each block."""
    tables: dict[str, list[str]] = {}
    for row in parameters():
        block, _, name = row.key.rpartition(".")
        cells = [f"`{name}`", row.values, row.default and f"`{row.default}`", row.description]
        head = [f"## {block or 'Shared keys'}\n", "| key | values | default | meaning |", "| --- | --- | --- | --- |"]
        line = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        tables.setdefault(block, head).append(line)
    return "\n".join([_PREAMBLE, *("\n".join([*lines, ""]) for lines in tables.values())])


def _rows(block: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[Parameter]:
    """The keys of a block's JSON schema, each followed by the keys of the block that it holds."""
    for key, field in block["properties"].items():
        shown = "default" in field and "$ref" not in field
        default = field["default"] if shown else ""
        text = default if isinstance(default, str) and (default or not shown) else json.dumps(default)
        yield Parameter(prefix + key, _values(field), text, field["description"])
        for alternative in field.get("anyOf", [field]):
            parts = {"": alternative, ".NAME": alternative.get("additionalProperties"), ".N": alternative.get("items")}
            for suffix, part in parts.items():
                if isinstance(part, dict) and "$ref" in part:
                    inner = definitions[part["$ref"].rpartition("/")[2]]
                    yield from _rows(inner, definitions, f"{prefix}{key}{suffix}.")


def _values(field: dict[str, Any]) -> str:
    """The allowed values in words."""
    if "anyOf" in field:
        return " or ".join(map(_values, field["anyOf"]))
    if "enum" in field or "$ref" in field:
        return ", ".join(field.get("enum", ["block"]))
    if field["type"] == "array":
        return f"list of {_values(field['items'])}"
    if field["type"] == "object":
        names = ", ".join(field.get("propertyNames", {}).get("enum", []))
        values = field["additionalProperties"]
        kind = _values(values) if isinstance(values, dict) else "anything"
        return f"{kind} by name" + (f" ({names})" if names else "")
    bounds = " and ".join(f"{sign} {field[bound]}" for bound, sign in _BOUNDS.items() if bound in field)
    return f"{_TYPES[field['type']]} {bounds}".rstrip()
