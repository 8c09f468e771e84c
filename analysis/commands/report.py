"""``ablate report``: the page of a study, or the index of all; Markdown, tables and a card on request."""

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
from ablations.record.contents import read_contents
from ablations.record.run_record import list_runs

__all__ = ["ReportOptions", "main"]


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of ``conf/report.yaml``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    study: str | None = None
    """Folder under ``runs_dir``; null = write an index of all studies."""
    runs_dir: str = "runs"
    """Folder of the records."""
    out: str | None = None
    """HTML file; null = ``runs_dir/study/report.html``, or ``runs_dir/index.html`` for the index."""
    single_file: bool = False
    """Put plotly's script (5 MB) into the page; otherwise the reports of a runs folder share one file."""
    markdown: str | None = None
    """Also write Markdown for a pull request to this file; ``-`` prints it."""
    frames: str | None = None
    """Also export every frame into this folder."""
    frames_format: Literal["parquet", "csv"] = "parquet"
    """Format of the exported frames."""
    promotions: str = "promotions"
    """Parent folder of the promotions, which the page and the index list."""
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
    """Write the report, or the index, and print its path."""
    own = {key: value for key, value in config.items() if key not in ("config_dirs", "hydra")}
    options = validate(ReportOptions, own)
    families = options.families()
    if options.study is None:
        return _index(options)
    return _report(options, options.study, families)


def _report(options: ReportOptions, study: str, families: tuple[str, ...]) -> int:
    from analysis.report import gather_report, model_card, pages, render_html, render_markdown
    from analysis.study_files import ailments

    runs_dir = Path(options.runs_dir)
    content = gather_report(
        runs_dir,
        study,
        verdict=options.verdict,
        surrogates=families,
        promotions_dir=Path(options.promotions),
    )
    for text in ailments(runs_dir / study):
        print(text, file=sys.stderr)
    for record in list_runs(runs_dir, study):
        for text in read_contents(record).ailments:
            print(f"{record.name}: {text}", file=sys.stderr)
    page = Path(options.out) if options.out else runs_dir / study / "report.html"
    _require_file(page, "out")
    # The studies of a runs folder share the script beside them, other pages the one in their folder.
    shared = page.parent if options.out else runs_dir
    plotly = None if options.single_file else pages.share_plotly(shared)
    index = runs_dir / _INDEX
    html = render_html(
        content,
        report_command=_command(options),
        plotly_file=pages.link(page, plotly) if plotly else "",
        index_file=pages.link(page, index) if index.exists() else "",
    )
    _write(page, html, "out")
    if plotly is not None:
        print(f"its figures need {plotly}; single_file=true makes one file to send")
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


_INDEX = "index.html"


def _index(options: ReportOptions) -> int:
    """Write the index of a runs folder.

    Raises:
        ConfigError: an option that needs a study was given.
        DataError: no study is recorded there.
    """
    from analysis.report.index import gather_index, index_html, index_markdown

    given = [name for name in ("frames", "card") if getattr(options, name) is not None]
    if given:
        raise ConfigError(
            [
                Problem(name, "needs a study", do="add study=…, or leave it out for the index")
                for name in given
            ]
        )
    runs_dir = Path(options.runs_dir)
    rows = gather_index(runs_dir, Path(options.promotions))
    page = Path(options.out) if options.out else runs_dir / _INDEX
    _write(page, index_html(rows, runs_dir, page, command=_command(options)), "out")
    if options.markdown == "-":
        print(index_markdown(rows), end="")
    elif options.markdown:
        _write(Path(options.markdown), index_markdown(rows), "markdown")
    return 0


def _command(options: ReportOptions) -> str:
    """Return the command that makes the page again, without options at their defaults."""
    given = []
    for option in fields(options):
        value = getattr(options, option.name)
        if value != option.default:
            text = f"[{','.join(value)}]" if isinstance(value, tuple) else value
            text = str(text).lower() if isinstance(text, bool) else text
            given.append(f"{option.name}={text}")
    return shlex.join(["ablate", "report", *given])


def _require_file(path: Path, key: str) -> None:
    """Refuse a folder where a file is to be written."""
    if path.is_dir():
        raise ConfigError(Problem(key, "is a folder", found=path, allowed="a file"))


def _write(path: Path, text: str, key: str) -> None:
    """Write one file of the report and print its path."""
    _require_file(path, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    print(f"{path}: {len(text.encode()) / 1e6:.1f} MB" if len(text) > 1e5 else path)
