"""Pictures by matplotlib: one style for all, as SVG whose colours a page may set, and as PNG."""

import hashlib
import io
import math
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.digits import rounded
from harness.errors import UserError
from harness.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 440, 290  # pixels; narrow, so that letters stay readable on a phone
# Colours by the name of the page's variable. Series are told apart by colour-blind readers too (Okabe and Ito 2008).
COLOURS = {
    "ink": "#1d2430",
    "muted": "#667084",
    "grid": "#e3e7ee",
    "paper": "#ffffff",
    "s0": "#0b6bcb",
    "s1": "#d2600f",
    "s2": "#0f8a6a",
    "s3": "#b0468f",
    "s4": "#8a6d00",
    "s5": "#5b5fc7",
    "good": "#1a7f4b",
    "warn": "#a86400",
    "bad": "#c2362f",
}
SERIES = ("s0", "s1", "s2", "s3", "s4", "s5")
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_STYLE: Any = {
    "svg.fonttype": "none",  # letters stay letters: they can be searched, and read aloud
    "text.parse_math": False,  # a "$" in a model's name is a dollar
    "font.size": 12,
    "font.family": ["DejaVu Sans"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "text.color": COLOURS["ink"],
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
}
_ABOVE = 22  # pixels over the axes
MISSING = "pictures need matplotlib, which is missing or broken here ({}): pip install matplotlib"


@dataclass(frozen=True)
class Picture:
    """A picture that can be drawn: `name` is that of its file, `caption` says how to read it, `alt` what it shows.

    `paint` draws into an axes and a `Tips`; `height` is in pixels.
    """

    name: str
    title: str
    caption: str
    alt: str
    paint: Callable[["Axes", "Tips"], None]
    height: int = HEIGHT

    @cached_property
    def svg(self) -> str:
        """An SVG document on white paper."""
        return _xml(self._tree(paper=True))

    @cached_property
    def inline(self) -> str:
        """An SVG element for a page, with the page's variables as colours."""
        root = self._tree(paper=False)
        del root.attrib["width"], root.attrib["height"]
        for element in root.iter():
            for attribute in ("style", "fill", "stroke"):
                if attribute in element.attrib:
                    element.set(attribute, _with_variables(element.get(attribute, "")))
        return _xml(root)

    @cached_property
    def png(self) -> bytes:
        """The same at twice the size. Raises UserError where matplotlib cannot write it."""
        try:
            with _quiet():
                from matplotlib.backends.backend_agg import FigureCanvasAgg
        except ImportError as problem:
            raise UserError(MISSING.format(problem)) from None
        file = io.BytesIO()
        with _quiet():
            figure, _ = self._figure(paper=True)
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
        return file.getvalue()

    def _figure(self, paper: bool) -> "tuple[Figure, Tips]":
        import matplotlib
        from matplotlib.figure import Figure

        tips = Tips()
        with matplotlib.rc_context(_STYLE):
            figure = Figure((WIDTH / 72, self.height / 72), dpi=144)
            figure.patch.set_facecolor(COLOURS["paper"] if paper else "none")
            axes = figure.add_axes((0.14, 42 / self.height, 0.83, 1 - (42 + _ABOVE) / self.height))
            axes.patch.set_alpha(0.0)
            self.paint(axes, tips)
        return figure, tips

    def _tree(self, paper: bool) -> ET.Element:
        """The drawing as XML with a title and a description, without what matplotlib says of itself. Raises UserError
        where matplotlib is missing."""
        try:
            with _quiet():
                import matplotlib
                from matplotlib.backends.backend_svg import FigureCanvasSVG
        except ImportError as problem:
            raise UserError(MISSING.format(problem)) from None
        file = io.StringIO()
        # Ids must differ between the pictures of a page, and be the same whenever it is made.
        salt = hashlib.sha256(self.name.encode()).hexdigest()[:8]
        with _quiet(), matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
            figure, tips = self._figure(paper)
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
        root = ET.fromstring(file.getvalue())
        for child in list(root):
            if child.tag.endswith("metadata"):
                root.remove(child)
        used = {value.partition("#")[2].rstrip(")") for e in root.iter() for value in e.attrib.values() if "#" in value}
        tips.put(root)
        for element in root.iter():
            own = element.get("id")
            if own and own not in used:
                del element.attrib["id"]
        for place, (tag, text) in enumerate((("title", self.title), ("desc", self.alt))):
            element = ET.Element(f"{{{_SVG}}}{tag}")
            element.text = visible(text)
            root.insert(place, element)
        root.set("role", "img")
        root.set("aria-label", visible(f"{self.title}. {self.alt}"))
        return root


class Tips:
    """Texts that show when a mark is pointed at: by id of the drawn marks, one per mark in their order."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}

    def add(self, marks: Any, texts: Sequence[str]) -> None:
        """Gives the marks of one line of a plot their texts."""
        name = f"tip-{len(self.texts)}"
        marks.set_gid(name)
        self.texts[name] = [visible(text) for text in texts]

    def put(self, root: ET.Element) -> None:
        """Writes the texts into the drawing."""
        for group in root.iter(f"{{{_SVG}}}g"):
            marks = list(group.iter(f"{{{_SVG}}}use"))
            for mark, text in zip(marks, self.texts.get(group.get("id", ""), ()), strict=False):
                ET.SubElement(mark, f"{{{_SVG}}}title").text = text


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """A colour per name, in their order; they come again where there are more."""
    return {name: COLOURS[SERIES[i % len(SERIES)]] for i, name in enumerate(dict.fromkeys(names))}


def short(text: str, most: int) -> str:
    """`text` without its middle where it has more than `most` letters, safe to draw."""
    text = visible(" ".join(text.split())) or "-"
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}…{text[-half:]}"


def legend_above(axes: "Axes") -> None:
    """Names the lines over the axes, where they hide nothing."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 3 if max(map(len, labels), default=0) < 16 else 2 if max(map(len, labels)) < 24 else 1
    lines, box = -(-len(handles) // columns), axes.get_position()
    height = axes.figure.bbox.height / axes.figure.dpi * 72
    axes.set_position((box.x0, box.y0, box.width, box.height - 15 * (lines - 1) / height))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=columns, borderaxespad=0.2, columnspacing=1.4,
                handletextpad=0.5, labelspacing=0.25)  # fmt: skip


def plain_ticks(axis: Any, values: Sequence[float]) -> None:
    """Ticks at `values` alone, as plain numbers; thinned where there are many."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    some = sorted(set(values))
    while len(some) > 8:
        some = some[::2]
    axis.set_major_locator(FixedLocator(some))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(lambda value, _: rounded(value, 6))


def log_ticks(axis: Any) -> None:
    """A logarithmic axis in plain numbers: 0.5, 20, 300."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = math.log10(high / low) if 0 < low < high else 1.0
    axis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0) if decades < 1.8 else (1.0, 3.0) if decades < 3 else (1.0,)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(LogLocator(10, (), numticks=9))
    axis.set_major_formatter(lambda value, _: f"{value:g}" if 1e-4 <= value < 1e6 else f"{value:.0e}")


def _with_variables(style: str) -> str:
    for name, colour in COLOURS.items():
        style = style.replace(colour, f"var(--{name})")
    return style


def _xml(root: ET.Element) -> str:
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    return ET.tostring(root, encoding="unicode")


class _quiet(warnings.catch_warnings):
    """No word of letters that the font lacks, for the browser has them, nor of old calls within matplotlib itself."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore")
        return entered
