"""Parts that every page of a report shares: templates, style, scripts, and plotly beside the page.

A page opens without a network. A content security policy forbids every request, except the script
beside the page: plotly.js has 5 MB, so the reports of one folder share one copy::

    runs/plotly-3.0.1.min.js        written once; a copied folder takes it along
    runs/<study>/report.html        <script src="../plotly-3.0.1.min.js">
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ablations.files import write_text
from analysis.report.tables import PAGE_ROWS, Table, rows_json

if TYPE_CHECKING:
    import jinja2

__all__ = ["environment", "link", "page_script", "share_plotly", "style"]

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> jinja2.Environment:
    """Return the templates, with autoescape; names of users cannot become markup."""
    import jinja2
    from markupsafe import Markup, escape

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["coded"] = lambda text: Markup(
        re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    )

    def rows(table: Table) -> Any:
        return Markup(rows_json(table))

    made.filters["rows_json"] = rows
    made.globals["page_rows"] = PAGE_ROWS
    return made


def style() -> str:
    """Return the style of a page."""
    return (_TEMPLATES / "report.css").read_text()


def page_script(*names: str) -> str:
    """Return the scripts of a page, one after another."""
    parts = [(_TEMPLATES / f"{name}.js").read_text() for name in names]
    # Each in a block of its own, so that their names do not meet.
    text = "".join(f"{{\n{part}}}\n" for part in parts)
    return text.replace("{{ page_rows }}", str(PAGE_ROWS))


def share_plotly(folder: Path) -> Path:
    """Write plotly's script into ``folder``, unless it is there as it should be; return its path.

    The name has the version: pages that another version made keep theirs.
    """
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    path = folder / f"plotly-{get_plotlyjs_version()}.min.js"
    text = get_plotlyjs()
    try:
        present = path.read_bytes() == text.encode()
    except OSError:
        present = False
    if not present:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return path


def link(page: Path, target: Path) -> str:
    """Return the relative address of ``target`` in a link of ``page``."""
    return quote(Path(os.path.relpath(target.absolute(), page.absolute().parent)).as_posix())
