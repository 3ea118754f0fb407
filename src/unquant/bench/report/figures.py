"""Figures of curves, as files and as elements of the report's page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from unquant.bench.analysis.curves import AXES, Line
from unquant.bench.report.looks import colour, marker
from unquant.errors import OptionError
from unquant.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "svg", "swatch"]

INK, RULE, FAINT = "#1b1f24", "#d5d9de", "#69717a"
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.8), (1, 1.4), (5, 1.5, 1, 1.5), (9, 3), (3, 5))
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "unquant",  # and no date: the same lines give the same bytes
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "font.size": 9.5,
    "grid.color": RULE,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw(lines: Sequence[Line], x: str, y: str, out: Path) -> None:
    """Write the figure as SVG or PNG, by the extension; the same lines give the same bytes.

    Raises OptionError for another extension and without matplotlib (extra `bench`), InputError where it cannot be written.
    """
    kind = out.suffix.lower()
    if kind not in (".svg", ".png"):
        raise OptionError(f"{out}: figures are .svg or .png")

    def save(figure: Figure) -> None:
        figure.axes[0].set(xlabel=AXES[x], ylabel=AXES[y])
        figure.legend(loc="outside right upper", fontsize=8, handlelength=3)
        metadata = {"Date": None} if kind == ".svg" else {}
        figure.savefig(buffer, format=kind[1:], metadata=metadata, dpi=150)

    buffer = BytesIO()
    _with_figure(lines, x, (7.2, 4.2), {}, save)
    write_whole(out, buffer.getvalue(), force=True)


def svg(lines: Sequence[Line], x: str, *, name: str, alt: str, labels: Sequence[str] = ()) -> str:
    """The figure as an <svg> element for a page that holds several, without a legend.

    name: makes its ids unique on the page. alt: what it shows, for those who cannot see it. labels: a word at an end of
    each line, "" for none; one that finds no room is left out. Every line is a group with its name in `data-series`,
    every point tells its note. Colours are CSS variables named after themselves (--h1b1f24), so that the page can change
    them. Raises OptionError without matplotlib.
    """
    buffer = BytesIO()

    def save(figure: Figure) -> None:
        figure.axes[0].set(xlabel=AXES[x])
        _label(figure, lines, labels)
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)

    # letters stay letters: smaller, and the page's style applies to them
    _with_figure(lines, x, (7.0, 4.1), {"svg.fonttype": "none"}, save)
    return _for_page(buffer.getvalue().decode(), lines, name, alt)


def _with_figure(
    lines: Sequence[Line],
    x: str,
    size: tuple[float, float],
    style: Mapping[str, Any],
    use: Callable[[Figure], None],
) -> None:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as e:
        raise OptionError("figures need matplotlib; install unquant[bench]") from e
    context: dict[Any, Any] = _STYLE | dict(style)
    with mpl.rc_context(context):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(linewidth=0.6)
        axes.set_axisbelow(True)
        for number, line in enumerate(lines):
            _plot(axes, line, f"s{number}")
        _scale(axes, x, [point[0] for line in lines for point in line.points])
        use(figure)


def _plot(axes: Axes, line: Line, gid: str) -> None:
    measured = line.kind == "measured"
    shade = colour(line.codec) if measured else FAINT
    looks: dict[str, Any] = {
        "color": shade,
        "marker": marker(line.codec),
        "markersize": 5.5 if measured else 4.5,
        "markerfacecolor": "none" if line.kind == "low trust" else shade,
        "linestyle": (0, _dashes(line)) if _dashes(line) else "-",
        "linewidth": 1.7 if measured else 0.7,
        "zorder": 3 if measured else 2,
        "clip_on": False,
    }
    drawn = axes.plot(*zip(*line.points, strict=True), label=line.name, **looks)[0]
    drawn.set_gid(f"{gid}-line")
    if line.sigmas is not None:
        xs, ys = zip(*line.points, strict=True)
        low = [y - sigma for y, sigma in zip(ys, line.sigmas, strict=True)]
        high = [y + sigma for y, sigma in zip(ys, line.sigmas, strict=True)]
        axes.vlines(xs, low, high, colors=shade, linewidth=1.1, zorder=2).set_gid(f"{gid}-bars")


def _label(figure: Figure, lines: Sequence[Line], labels: Sequence[str]) -> None:
    """A word at an end of each line, where it meets neither another word nor a measured point."""
    axes = figure.axes[0]
    figure.draw_without_rendering()  # places are known only now
    frame = axes.get_window_extent()
    points = [axes.transData.transform(point) for line in lines if line.kind == "measured" for point in line.points]
    taken: list[Any] = []
    for number, (line, label) in enumerate(zip(lines, labels, strict=False)):
        ends = ((line.points[-1], 6, "left"), (line.points[-1], -6, "right"), (line.points[0], -6, "right"))
        for end, shift, side in ends if label else ():
            options: dict[str, Any] = {
                "textcoords": "offset points",
                "fontsize": 7.5,
                "color": FAINT,
                "va": "center",
                "ha": side,
            }
            word = axes.annotate(label, end, (shift, 0), in_layout=False, gid=f"s{number}-label", **options)
            box = word.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 + 40
            if inside and not any(box.overlaps(other) for other in taken) and not any(box.contains(*p) for p in points):
                taken.append(box)
                break
            word.remove()


def _dashes(line: Line) -> tuple[float, ...]:
    return _DASHES[line.variant % len(_DASHES)] if line.kind == "measured" else ()


def _scale(axes: Axes, x: str, values: Sequence[float]) -> None:
    """A logarithmic axis for rates, with round ticks, and for steps that differ by orders, with those taken."""
    low, high = min(values) / 1.1, max(values) * 1.1
    if x == "bpp":
        ticks = [step * 10.0**power for power in range(-4, 3) for step in (1, 1.5, 2, 3, 5, 7)]
    elif x == "steps" and 0 < 10 * low < high:
        ticks = sorted({*values})
    else:
        return
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks([tick for tick in ticks if low <= tick <= high], minor=False)
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")


def swatch(line: Line) -> str:
    """A small <svg> of the line's colour, dashes and marker, for a legend outside the figure. Colours as in `svg`."""
    try:
        from matplotlib.markers import MarkerStyle
    except ImportError as e:
        raise OptionError("figures need matplotlib; install unquant[bench]") from e
    style = MarkerStyle(marker(line.codec))
    shape: list[Any] = style.get_path().transformed(style.get_transform()).to_polygons()
    outline = "".join(
        "M" + "L".join(f"{17 + 8 * x:.1f} {6 - 8 * y:.1f}" for x, y in polygon) + "Z" for polygon in shape
    )
    shade = colour(line.codec) if line.kind == "measured" else FAINT
    ink = f"var(--h{shade[1:]}, {shade})"
    width = 1.8 if line.kind == "measured" else 0.8
    dashes = " ".join(f"{width * part:g}" for part in _dashes(line)) or "none"
    fill = "none" if line.kind == "low trust" else ink
    return (
        f'<svg viewBox="0 0 34 12" aria-hidden="true"><path d="M0 6H34" fill="none" stroke-width="{width}" '
        f'stroke-dasharray="{dashes}" style="stroke: {ink}"/><path d="{outline}" style="stroke: {ink}; fill: {fill}"/></svg>'
    )


_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"


def _for_page(text: str, lines: Sequence[Line], name: str, alt: str) -> str:
    """matplotlib's file as an element among others: unique ids, a series for each line, a title for each point."""
    ElementTree.register_namespace("", _SVG[1:-1])
    root = ElementTree.fromstring(text)
    for child in [child for child in root if child.tag.endswith("metadata") or child.find(f"{_SVG}style") is not None]:
        root.remove(child)
    for element in list(root.iter()):
        gid = re.fullmatch(r"s(\d+)-(line|bars|label)", element.get("id", ""))
        if gid:
            line = lines[int(gid[1])]
            element.set("data-series", line.name)
            element.set("data-kind", line.kind)
            for point, note in zip(element.iter(f"{_SVG}use"), line.notes or [], strict=False):
                ElementTree.SubElement(point, f"{_SVG}title").text = f"{line.name}; {note}"
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.get('id')}")
        if _HREF in element.attrib:
            element.set("href", element.attrib.pop(_HREF).replace("#", f"#{name}-"))
        if "style" in element.attrib:
            style = re.sub(r"font-family:[^;]*;?\s*", "", element.attrib["style"])
            element.set("style", re.sub(r"#([0-9a-f]{6})", r"var(--h\1, #\1)", style))
        if "clip-path" in element.attrib:
            element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{name}-"))
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": alt, "class": "chart"}
    return ElementTree.tostring(root, encoding="unicode")
