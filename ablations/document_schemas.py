"""The JSON Schemas of the documents that commands print with ``json=true``.

    python -m ablations.document_schemas [FOLDER]     writes ablations/schemas/<command>.json

They are made from the dataclasses of the results and the docstrings under their fields. A test makes them
again and compares.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablations.command_table import COMMANDS
from ablations.config.option_docs import field_docs
from ablations.documents import ErrorDocument
from ablations.files import write_text

__all__ = ["SCHEMAS", "document_schema", "stored_schema"]

SCHEMAS = Path(__file__).parent / "schemas"
"""Folder of the schemas inside the package."""


def stored_schema(command: str) -> Mapping[str, Any]:
    """Return the schema of a command's document, as the package holds it."""
    schema: Mapping[str, Any] = json.loads((SCHEMAS / f"{command}.json").read_text("utf-8"))
    return schema


def document_schema(command: str) -> dict[str, Any]:
    """Return the schema of a command's document, made from its dataclasses."""
    entry = COMMANDS[command]
    assert entry.document is not None
    module, _, name = entry.document.partition(":")
    kind = getattr(importlib.import_module(module), name)
    definitions: dict[str, Any] = {}
    for one in (kind, ErrorDocument):
        definitions |= _definitions(one)
    body = {
        "command": {"const": command},
        "version": {"const": entry.document_version},
        "ok": {"type": "boolean", "description": "True if the exit code is 0."},
        "exit_code": {"enum": [0, 1, 2], "description": "0 done, 1 work failed, 2 wrong request."},
        "result": {"anyOf": [{"$ref": f"#/$defs/{kind.__name__}"}, {"type": "null"}]},
        "error": {"anyOf": [{"$ref": "#/$defs/ErrorDocument"}, {"type": "null"}]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"ablate {command} json=true, version {entry.document_version}",
        "type": "object",
        "properties": body,
        "required": list(body),
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _definitions(kind: Any) -> dict[str, Any]:
    """Return the schemas of a dataclass and of those within it, by name."""
    from pydantic import TypeAdapter

    made = TypeAdapter(kind).json_schema(mode="serialization")
    found = {**made.pop("$defs", {}), kind.__name__: made}
    described = {one.__name__: one for one in _dataclasses(kind)}
    return {name: _closed(schema, described.get(name)) for name, schema in found.items()}


def _closed(schema: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Return the schema of one dataclass: every field is there, no other one is."""
    texts = {} if kind is None else field_docs(kind)
    properties = {}
    for name, value in schema.get("properties", {}).items():
        shown = _nullable_numbers({k: v for k, v in value.items() if k not in ("title", "default")})
        properties[name] = {**shown, **({"description": texts[name]} if texts.get(name) else {})}
    closed = {key: value for key, value in schema.items() if key not in ("title", "properties")}
    if not properties:
        return closed
    return {
        **closed,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _nullable_numbers(schema: Any) -> Any:
    """Return a schema in which a number may be null: one that is not finite or not known is."""
    if isinstance(schema, Mapping):
        changed = {key: _nullable_numbers(value) for key, value in schema.items()}
        if changed.get("type") == "number":
            changed["type"] = ["number", "null"]
        return changed
    return [_nullable_numbers(one) for one in schema] if isinstance(schema, list) else schema


def _dataclasses(kind: Any, known: frozenset[Any] = frozenset()) -> Iterator[Any]:
    """Yield a dataclass and every dataclass that its fields may hold."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if kind in known:
            return
        yield kind
        for hint in typing.get_type_hints(kind).values():
            yield from _dataclasses(hint, known | {kind})
    for argument in typing.get_args(kind):
        yield from _dataclasses(argument, known)


def main() -> int:
    """Write every schema."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SCHEMAS
    folder.mkdir(parents=True, exist_ok=True)
    for name, command in COMMANDS.items():
        if command.document is not None:
            text = json.dumps(document_schema(name), indent=2, ensure_ascii=False) + "\n"
            write_text(folder / f"{name}.json", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
