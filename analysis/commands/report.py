"""``ablate report``: one self-contained HTML file of a study; Markdown, tables and a card on request."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from ablations.config.schema import validate
from ablations.errors import ConfigError, Problem, unknown_name
from ablations.files import write_text
from ablations.record.run_record import list_runs

__all__ = ["ReportOptions", "main"]


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of ``conf/report.yaml``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    study: str
    """Folder under ``runs_dir``."""
    runs_dir: str = "runs"
    """Folder of the records."""
    out: str | None = None
    """HTML file; null = ``runs_dir/study/report.html``."""
    markdown: str | None = None
    """Also write Markdown for a pull request to this file; ``-`` prints it."""
    frames: str | None = None
    """Also export every frame into this folder."""
    frames_format: Literal["parquet", "csv"] = "parquet"
    """Format of the exported frames."""
    card: str | None = None
    """Promotion folder: also write its model and data card there, as ``model_card.md``."""
    verdict: Literal["auto", "stored", "none"] = "auto"
    """auto = the stored verdict, else one computed and not stored; stored = only a stored one; none."""
    surrogates: str | tuple[str, ...] = "quick"
    """``quick``, ``none``, or names of families."""

    def families(self) -> tuple[str, ...]:
        """Return the families to compare.

        Raises:
            ConfigError: no family has that name.
        """
        # Imported here: `--help` needs no surrogate.
        from analysis.score_fit import QUICK_FAMILIES
        from sweeps.search.surrogates import FAMILIES

        asked = (self.surrogates,) if isinstance(self.surrogates, str) else self.surrogates
        if asked in (("quick",), ("none",)):
            return QUICK_FAMILIES if asked == ("quick",) else ()
        problems = [
            unknown_name("surrogates", "surrogate", name, [*FAMILIES, "quick", "none"])
            for name in asked
            if name not in FAMILIES
        ]
        if problems:
            raise ConfigError(problems)
        return tuple(asked)


def main(config: Mapping[str, Any]) -> int:
    """Write the report and print its path."""
    own = {key: value for key, value in config.items() if key not in ("config_dirs", "hydra")}
    options = validate(ReportOptions, own)
    families = options.families()
    runs_dir = Path(options.runs_dir)

    from analysis.report import gather_report, model_card, render_html, render_markdown
    from analysis.study_files import ailments

    content = gather_report(runs_dir, options.study, verdict=options.verdict, surrogates=families)
    for text in ailments(runs_dir / options.study):
        print(text, file=sys.stderr)
    for record in list_runs(runs_dir, options.study):
        for text in record.ailments():
            print(f"{record.name}: {text}", file=sys.stderr)
    page = Path(options.out) if options.out else runs_dir / options.study / "report.html"
    _write(page, render_html(content, report_command=_command(options)), "out")
    if options.markdown == "-":
        print(render_markdown(content), end="")
    elif options.markdown:
        _write(Path(options.markdown), render_markdown(content), "markdown")
    if options.frames:
        content.frames.export(Path(options.frames), options.frames_format)
        print(f"{options.frames}: every frame as {options.frames_format}")
    if options.card:
        folder = Path(options.card)
        _write(folder / "model_card.md", model_card(folder, runs_dir), "card")
    return 0


def _command(options: ReportOptions) -> str:
    """Return the command that makes the page again, without options at their defaults."""
    given = []
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name == "study" or value != option.default:
            text = f"[{','.join(value)}]" if isinstance(value, tuple) else value
            given.append(f"{option.name}={text}")
    return shlex.join(["ablate", "report", *given])


def _write(path: Path, text: str, key: str) -> None:
    """Write one file of the report and print its path."""
    if path.is_dir():
        raise ConfigError(Problem(key, "is a folder", found=path, allowed="a file"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    print(f"{path}: {len(text.encode()) / 1e6:.1f} MB" if len(text) > 1e5 else path)
