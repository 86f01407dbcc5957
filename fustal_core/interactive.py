"""Pictures with controls: sliders, menus and buttons in a live JupyterLab, one static picture in batch.

What a notebook lets its reader explore is a function that draws; those of this study are in
`views_interactive`. Nothing is kept between two drawings.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from html import escape
from typing import Any

import pandas as pd

from fustal_core.progress import VARIABLE, Progress, show_progress


def is_live() -> bool:
    """Whether somebody sits at this notebook in JupyterLab and can move a slider."""
    # The first is set by Jupyter's server and inherited by a batch run from its terminal.
    return "JPY_SESSION_NAME" in os.environ and VARIABLE not in os.environ


def explore(
    draw: Callable[..., Any],
    *,
    button: str = "",
    play: str = "",
    while_dragging: bool = False,
    **choices: tuple,
) -> Any:
    """Controls for a drawing in a live JupyterLab; in batch the drawing of the first values.

    What goes wrong in a live drawing is shown in its place, in one sentence.

    Args:
        draw: called with one value per choice; returns a picture (a figure or a `Timeline`), or a
            tuple of tables and text with the picture as its last item. Live, what it prints is shown
            above the picture.
        button: name of a button: draw when it is pressed and not when a value changes. `draw` then
            also gets ``progress``, to be called as (done, total, note).
        play: name of a choice of whole numbers that gets a play button.
        while_dragging: redraw while a slider moves (drawings well below a second), not after it.
        choices: name -> (value, lowest, highest) for a slider, of whole numbers if these are, or
            (value, [all values]) for a menu.

    Returns:
        Live: the widgets, for the cell to show. In batch: the picture; what comes before it in the
        tuple is displayed.
    """
    start = {name: choice[0] for name, choice in choices.items()}
    if is_live():
        panel = _Panel(draw, choices, button, while_dragging)
        with show_progress(button or "drawing") as progress:
            panel.show(panel.drawing(start, progress))
        return panel.box(play)
    if not button:
        return _display(draw(**start))
    with show_progress(button) as progress:
        return _display(draw(**start, progress=progress))


def _display(drawing: Any) -> Any:
    """Show all but the last part of a drawing, and return that one for the cell to show."""
    from IPython.display import display

    *above, picture = drawing if isinstance(drawing, tuple) else (drawing,)
    for part in above:
        display(part)
    return picture


class _Panel:
    """The widgets of one live drawing: controls, text, picture, progress."""

    def __init__(
        self,
        draw: Callable[..., Any],
        choices: Mapping[str, tuple],
        button: str,
        while_dragging: bool,
    ) -> None:
        import ipywidgets

        self.draw = draw
        self.controls = {name: _control(name, c, while_dragging) for name, c in choices.items()}
        self.words = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png")
        self.bar = ipywidgets.IntProgress(layout={"visibility": "hidden"})
        self.button = ipywidgets.Button(description=button) if button else None
        if self.button:
            self.button.on_click(lambda _: self.redraw())
        else:
            for control in self.controls.values():
                control.observe(lambda _: self.redraw(), names="value")

    def box(self, play: str) -> Any:
        """All widgets, from top to bottom."""
        import ipywidgets

        rows = list(self.controls.values())
        if play:
            slider = self.controls[play]
            player = ipywidgets.Play(min=slider.min, max=slider.max, value=slider.value)
            player.interval = 1000  # milliseconds a picture
            ipywidgets.link((player, "value"), (slider, "value"))
            rows.append(player)
        if self.button:
            rows.append(ipywidgets.HBox([self.button, self.bar]))
        return ipywidgets.VBox([*rows, self.words, self.picture])

    def drawing(self, values: Mapping[str, Any], progress: Progress) -> tuple[str, bytes]:
        """Text above the picture (HTML), and the picture (PNG; empty without one)."""
        said = io.StringIO()
        with redirect_stdout(said):
            drawing = self.draw(**values, **({"progress": progress} if self.button else {}))
        parts = list(drawing) if isinstance(drawing, tuple) else [drawing]
        picture = _png(parts[-1])
        above = [said.getvalue(), *(parts[:-1] if picture else parts)]
        return "".join(_html(part) for part in above), picture

    def show(self, drawing: tuple[str, bytes]) -> None:
        self.words.value, self.picture.value = drawing
        self.picture.layout.display = "" if drawing[1] else "none"

    def redraw(self) -> None:
        """Draw with the controls' values; a mistake becomes a sentence."""
        values = {name: control.value for name, control in self.controls.items()}
        self._busy(True)
        try:
            self.show(self.drawing(values, self._progress))
        except Exception as error:  # a traceback would go to JupyterLab's log, which nobody reads
            message = " ".join(str(error).split())
            self.show((_html(f"This does not work: {type(error).__name__}: {message}"), b""))
        finally:
            self._busy(False)

    def _busy(self, busy: bool) -> None:
        self.bar.value = 0
        self.bar.layout.visibility = "visible" if busy else "hidden"
        if self.button:
            self.button.disabled = busy

    def _progress(self, done: int, total: int, note: str) -> None:
        self.bar.max, self.bar.value, self.bar.description = total, done, note


def _control(name: str, choice: tuple, while_dragging: bool) -> Any:
    import ipywidgets

    look: dict[str, Any] = {"description": name, "style": {"description_width": "130px"}}
    look["layout"] = {"width": "440px"}
    if len(choice) == 2:
        return ipywidgets.Dropdown(options=choice[1], value=choice[0], **look)
    value, low, high = choice
    look |= {"value": value, "min": min(low, value), "max": max(high, value)}
    look["continuous_update"] = while_dragging
    if all(isinstance(number, int) for number in choice):
        return ipywidgets.IntSlider(**look)
    step = (high - low) / 100
    return ipywidgets.FloatSlider(step=step, readout_format=".3g", **look)


def _png(part: Any) -> bytes:
    """A picture as PNG; empty for what is none."""
    if hasattr(part, "savefig"):
        file = io.BytesIO()
        part.savefig(file, format="png", dpi=part.dpi)
        return file.getvalue()
    return part._repr_png_() if hasattr(part, "_repr_png_") else b""


def _html(part: Any) -> str:
    if isinstance(part, pd.DataFrame):
        return part.to_html(border=0)
    return f"<pre>{escape(str(part))}</pre>" if str(part) else ""
