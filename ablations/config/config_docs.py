"""The reference of a run's config, made from the dataclasses and the docstrings under their fields.

    python -m ablations.config.config_docs > docs/config.md

A test makes it again and compares, so the page cannot rot.
"""

from __future__ import annotations

from collections.abc import Iterator

from ablations.config.option_docs import sections
from ablations.config.schema import RunConfig

__all__ = ["render"]

_HEAD = """# The config of a run

Made from the code by `python -m ablations.config.config_docs`; do not edit. `ablate run KEY=VALUE` overrides
any of these; a key in angle brackets is a name of your choice. `ablate run --cfg job` prints a config as
composed.
"""


def render() -> str:
    """Return the page, as Markdown."""
    page = _HEAD + "\n".join(_lines()) + "\n"
    return page.replace("``", "`")


def _lines() -> Iterator[str]:
    for section in sections("", RunConfig):
        title = f"`{section.prefix}`" if section.prefix else "The run"
        yield f"\n## {title}\n\n{section.summary}\n"
        yield "| key | type | default | |\n|---|---|---|---|"
        for option in section.options:
            yield f"| `{option.key}` | {option.type} | {option.default} | {option.text} |"


if __name__ == "__main__":
    print(render(), end="")
