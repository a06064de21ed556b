"""From a matplotlib figure to an inline SVG that is small, deterministic, accessible and follows the page's colours.

A figure is drawn with the colours of `INK`, which stand for CSS variables of the page: after drawing, each is replaced
by its variable, so one file is right on a light screen, on a dark one and on paper. Ids are prefixed with the figure's
name, because several drawings share one page. Text stays text: it can be searched, copied and read aloud.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from types import MappingProxyType

import matplotlib as mpl
import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_LONG_DECIMALS = re.compile(r"-?\d+\.\d{3,}")

# Light-page colours, each the key of one CSS variable of page.css.
INK = MappingProxyType(
    {
        "ink": "#1c2430",
        "muted": "#5d6774",
        "grid": "#e3e7ec",
        "paper": "#fefefd",
        "federated": "#0b62b8",
        "weights": "#6b4fb8",
        "pooled": "#0b7f66",
        "alone": "#b3590a",
        "baseline": "#818a96",
        "band": "#bfd9f2",
        "gain": "#0b7f67",
        "loss": "#b3261d",
    }
)
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.edgecolor": INK["grid"],
    "axes.labelcolor": INK["muted"],
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": INK["grid"],
    "ytick.color": INK["grid"],
    "xtick.labelcolor": INK["muted"],
    "ytick.labelcolor": INK["muted"],
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK["ink"],
    "text.parse_math": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Table:
    """The numbers behind a figure, each already a string; the first column names the row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """One drawing with its title, what it shows in words, and its numbers."""

    name: str
    title: str
    caption: str
    svg: Markup
    table: Table


class Sheet:
    """A figure under the report's style, whatever the user's own matplotlib settings are.

    Used as a context: drawing and `svg` happen inside it, and the settings of the process are as before afterwards.
    """

    def __init__(self, name: str, width: float, height: float) -> None:
        self._name, self._size = name, (width, height)
        self._context = mpl.rc_context()

    def __enter__(self) -> Sheet:
        self._context.__enter__()
        matplotlib.style.use(["default", {**_STYLE, "svg.hashsalt": self._name}])
        self.figure = Figure(figsize=self._size)
        self.figure.patch.set_alpha(0)
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.__exit__(None, None, None)

    def axes(self, rows: int = 1, *, ratios: list[float] | None = None) -> list[Axes]:
        """`rows` axes above each other that share x, without background."""
        panels = self.figure.subplots(rows, 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": ratios})[:, 0]
        for panel in panels:
            panel.patch.set_alpha(0)
            panel.tick_params(length=0)
        return list(panels)

    def svg(self, title: str, description: str) -> Markup:
        """The drawing as one `<svg>` element; `title` and `description` are what a screen reader says."""
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # The browser draws the letters with its own fonts; that ours lacks some of them changes nothing.
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
            self.figure.savefig(
                buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
            )
        root = ET.fromstring(buffer.getvalue())  # noqa: S314 -- written by matplotlib a line above
        _strip(root)
        _round_paths(root)
        _prefix_ids(root, self._name)
        _describe(root, self._name, title, description)
        ET.register_namespace("", _SVG)
        ET.register_namespace("xlink", _XLINK)
        text = ET.tostring(root, encoding="unicode")
        for variable, colour in INK.items():
            text = text.replace(colour, f"var(--{variable})")
        return Markup(text)  # noqa: S704 -- ElementTree escaped every text in it


def _strip(root: ET.Element) -> None:
    """Drop metadata, the global style sheet and the fixed size: the page decides the width."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)


def _round_paths(root: ET.Element) -> None:
    """Hundredths of a point are finer than any screen; six decimals are half of the bytes of a map."""
    for element in root.iter(f"{{{_SVG}}}path"):
        if "d" in element.attrib:
            element.attrib["d"] = _LONG_DECIMALS.sub(lambda found: f"{float(found[0]):.2f}", element.attrib["d"])


def _prefix_ids(root: ET.Element, name: str) -> None:
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.attrib[key] = f"{name}-{value}"
            elif key == f"{{{_XLINK}}}href" and value.startswith("#"):
                element.attrib[key] = f"#{name}-{value[1:]}"
            elif "url(#" in value:
                element.attrib[key] = value.replace("url(#", f"url(#{name}-")


def _describe(root: ET.Element, name: str, title: str, description: str) -> None:
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(position, element)
