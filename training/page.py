"""A page of a report: one HTML file that opens from disk, loads nothing and runs no script; sections, tables, tiles.

`report_template.html` is its frame, with the colours of light and dark that the charts (`charts.py`) follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from training.tables import Row

Tile = tuple[str, float | None, str]
"""What it is, its value, and how that is written, as `str.format` takes it; None is left out."""


def page(title: str, lead: str, sections: Sequence[tuple[str, str]], foot: str) -> str:
    """The whole page. sections: heading and HTML; those of no HTML are left out."""
    shown = [(name, name.lower().replace(" ", "-"), body) for name, body in sections if body]
    template = Template(Path(__file__).with_name("report_template.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        lead=escape(lead),
        foot=escape(foot),
        navigation="".join(f'<li><a href="#{slug}">{name}</a></li>' for name, slug, _ in shown),
        body="\n".join(
            f'<section aria-labelledby="{slug}"><h2 id="{slug}">{name}</h2>\n{body}\n</section>'
            for name, slug, body in shown
        ),
    )


def tiles(shown: Sequence[Tile]) -> str:
    """The most important figures, large."""
    boxes = [
        f'<li class="card"><b>{form.format(value)}</b><span>{name}</span></li>'
        for name, value, form in shown
        if value is not None
    ]
    return f'<ul class="tiles">{"".join(boxes)}</ul>' if boxes else ""


def table(caption: str, head: Sequence[str], rows: Sequence[Row]) -> str:
    """A table that scrolls sideways, also by keyboard, where the page is narrow."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr{" class=strong" if row.emphasis else ""}><th scope="row">{escape(row.name)}</th>'
        + "".join(f"<td>{_cell(cell)}</td>" for cell in row.cells)
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _cell(cell: str) -> str:
    """A number, with what follows it (its interval) set small."""
    value, _, rest = cell.partition(" ")
    return f"{escape(value)} <small>{escape(rest)}</small>" if rest.startswith("[") else escape(cell)
