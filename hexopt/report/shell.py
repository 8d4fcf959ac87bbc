"""What every page shares: one file with its style, its scripts, Plotly and the figures' data in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs


@dataclass(frozen=True)
class Card:
    """A figure of a page with its heading and its numbers.

    Parameters
    ----------
    name
        What tells it from the page's others; its chart's element is ``NAME-chart``.
    title, text
        Heading, and how to read it.
    figure
        What is drawn; None for text and numbers alone.
    numbers
        HTML below.
    wide
        Whether it takes the page's whole width.
    """

    name: str
    title: str
    text: str
    figure: go.Figure | None
    numbers: str = ""
    wide: bool = False

    @property
    def html(self) -> str:
        """The element; a script draws the figure into it."""
        chart = ""
        if self.figure is not None:
            height = self.figure.layout.height
            chart = (
                f'<div class="chart" id="{self.name}-chart" role="img" style="min-height:{height}px" '
                f'aria-label="{escape(self.title)}: a chart of the numbers below"></div>'
            )
        wide = ' class="wide"' if self.wide else ""
        return (
            f"<figure{wide}><figcaption><h3>{escape(self.title)}</h3><p>{escape(self.text)}</p></figcaption>"
            f"{chart}{self.numbers}</figure>"
        )


def page_of(title: str, content: str, data: str, name: str) -> str:
    """A whole page.

    Parameters
    ----------
    title
        Heading, as text.
    content
        HTML beneath it.
    data
        JSON of the figures, for the script.
    name
        Its script among the assets, ``NAME.js``.
    """
    return asset("shell.html").substitute(
        title=escape(title),
        style=_text("page.css"),
        plotly=get_plotlyjs(),
        content=content,
        # "<" only ever occurs inside strings; so written it cannot end the element.
        data=data.replace("<", "\\u003c"),
        script=_text("charts.js") + _text(f"{name}.js"),
    )


def asset(name: str) -> Template:
    """A template among the assets."""
    return Template(_text(name))


def finite(value: Any) -> bool:
    """Whether there is a value, and it is a finite number."""
    return value is not None and math.isfinite(value)


def number(value: Any, percent: bool = False) -> str:
    """A number for people, three digits of it; a dash where there is none."""
    if not finite(value):
        return "–"
    if percent:
        return f"{100 * value:.1f}%"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".removesuffix(".")


def table(label: str, head: list[str], rows: list[list[str]], *, words: tuple[int, ...] = (), folded: str = "") -> str:
    """A table of texts; the first cell of a row heads it.

    Parameters
    ----------
    label
        What it shows, for who does not see it.
    words
        Columns that hold words rather than numbers.
    folded
        What to open it by; empty for a table that is always shown.
    """
    kinds = [' class="words"' if k in words else "" for k in range(len(head))]
    titles = "".join(f'<th scope="col"{kind}>{escape(text)}</th>' for text, kind in zip(head, kinds, strict=True))
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{kind}>{escape(text)}</td>" for text, kind in zip(row[1:], kinds[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    shown = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return f"<details><summary>{escape(folded)}</summary>{shown}</details>" if folded else shown


def _text(name: str) -> str:
    return (resources.files("hexopt.report") / "assets" / name).read_text(encoding="utf-8")
