"""Documentation of the parameters, from their types and descriptions in pcclip/config.py."""

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

    @property
    def block(self) -> str:
        """The block that the key is in; '' for the keys that all notebooks share."""
        return self.key.rpartition(".")[0]


def parameters(key: str = "") -> list[Parameter]:
    """Return every key, the keys of the block `key`, or the one key. Raises PcclipError for an unknown key."""
    schema = Config.model_json_schema()
    rows = list(_rows(schema, schema["$defs"], ""))
    matches = [row for row in rows if not key or row.key == key or row.key.startswith(f"{key}.")]
    if not matches:
        names = [row.key for row in rows]
        near = [name for name in names if name.endswith(f".{key}")] or get_close_matches(key, names, n=3)
        near = near or get_close_matches(key, names, n=1, cutoff=0)
        raise PcclipError(f"{key}: no such parameter; did you mean {' or '.join(near)}?")
    return matches


def parameters_page() -> str:
    """The text of docs/parameters.md: a table for each block."""
    lines = [_PREAMBLE]
    rows = parameters()
    for block in dict.fromkeys(row.block for row in rows):
        lines += [
            f"## {block or 'Shared keys'}",
            "",
            "| key | values | default | meaning |",
            "| --- | --- | --- | --- |",
        ]
        for row in rows:
            if row.block != block:
                continue
            name = row.key.rpartition(".")[2]
            default = f"`{row.default}`" if row.default else ""
            cells = [f"`{name}`", row.values, default, row.description]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _rows(block: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[Parameter]:
    """The keys of a block's JSON schema, each followed by the keys of the block that it holds."""
    for key, field in block["properties"].items():
        path = f"{prefix}{key}"
        default = "" if "default" not in field or "$ref" in field else _text(field["default"])
        yield Parameter(path, _values(field), default, field["description"])
        inner, suffix = _inner_block(field)
        if inner:
            yield from _rows(definitions[inner], definitions, f"{path}{suffix}.")


def _inner_block(field: dict[str, Any]) -> tuple[str, str]:
    """The block that a value holds ('' for none), and what stands between the key and that block's keys."""
    for alternative in field.get("anyOf", [field]):
        for container, suffix in ((alternative, ""), *_items(alternative)):
            if "$ref" in container:
                return container["$ref"].rpartition("/")[2], suffix
    return "", ""


def _items(field: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    if isinstance(field.get("additionalProperties"), dict):
        yield field["additionalProperties"], ".NAME"
    if "items" in field:
        yield field["items"], ".N"


def _values(field: dict[str, Any]) -> str:
    """The allowed values in words."""
    if "anyOf" in field:
        return " or ".join(_values(alternative) for alternative in field["anyOf"])
    if "enum" in field:
        return ", ".join(field["enum"])
    if "$ref" in field:
        return "block"
    if field["type"] == "array":
        return f"list of {_values(field['items'])}"
    if field["type"] == "object":
        names = ", ".join(field.get("propertyNames", {}).get("enum", []))
        values = field["additionalProperties"]
        return f"{_values(values) if isinstance(values, dict) else 'anything'} by name" + (
            f" ({names})" if names else ""
        )
    bounds = " and ".join(f"{sign} {field[bound]}" for bound, sign in _BOUNDS.items() if bound in field)
    return f"{_TYPES[field['type']]} {bounds}".rstrip()


def _text(default: Any) -> str:
    """A default as YAML has it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list):
        return f"[{', '.join(_text(item) for item in default)}]"
    return "null" if default is None else "{}" if default == {} else '""' if default == "" else f"{default}"
