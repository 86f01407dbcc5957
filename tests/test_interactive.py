"""Controls in a live session and static pictures in batch; widgets are driven without a browser."""

from __future__ import annotations

import gc
from typing import Any

import ipywidgets
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from fustal_core.figures import new_figure
from fustal_core.interactive import explore

PNG = b"\x89PNG"


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "00_data.ipynb")
    monkeypatch.delenv("FUSTAL_PROGRESS", raising=False)


def bars(gamma: float, video: str) -> tuple[pd.DataFrame, Figure]:
    """A picture and a table that tell which values they were drawn with."""
    print(f"said of {video}")
    figure = new_figure(height_in=1.0)
    figure.subplots().bar([0, 1], [gamma, 1])
    return pd.DataFrame({"gamma": [gamma]}, index=[video]), figure


def widget(box: ipywidgets.Box, kind: type) -> Any:
    """The first widget of a kind."""
    for child in box.children:
        if isinstance(child, kind):
            return child
        if isinstance(child, ipywidgets.Box) and (found := widget(child, kind)):
            return found
    return None


CHOICES = {"gamma": (0.2, 0.0, 1.0), "video": ("b", ["a", "b"])}


@pytest.mark.parametrize("from_lab_terminal", [False, True])
def test_batch_draws_the_first_values(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    from_lab_terminal: bool,
) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if from_lab_terminal:
        monkeypatch.setenv("JPY_SESSION_NAME", "00_data.ipynb")
        monkeypatch.setenv("FUSTAL_PROGRESS", "progress")
    assert isinstance(explore(bars, **CHOICES), Figure)
    said = capsys.readouterr().out
    assert "said of b" in said
    assert "0.2" in said  # the table, displayed before the picture is returned


def test_batch_with_a_button_draws_once_with_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    steps = []

    def train(strength: float, progress: Any) -> str:
        progress(1, 2, "half")
        steps.append(strength)
        return f"trained with {strength}"

    assert explore(train, button="train", strength=(0.5, 0.0, 1.0)) == "trained with 0.5"
    assert steps == [0.5]


def test_a_mistake_in_batch_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    with pytest.raises(ZeroDivisionError):
        explore(lambda n: 1 / n, n=(0, 0, 1))


def test_controls_start_where_they_are_told(live: None) -> None:
    box = explore(bars, **CHOICES)
    slider, menu = widget(box, ipywidgets.FloatSlider), widget(box, ipywidgets.Dropdown)
    assert (slider.description, slider.min, slider.value, slider.max) == ("gamma", 0.0, 0.2, 1.0)
    assert (menu.description, menu.value, list(menu.options)) == ("video", "b", ["a", "b"])
    assert not slider.continuous_update
    dragged = explore(bars, while_dragging=True, **CHOICES)
    assert widget(dragged, ipywidgets.FloatSlider).continuous_update
    beyond = explore(bars, gamma=(7.5, 0.0, 1.0), video=("b", ["b"]))
    assert widget(beyond, ipywidgets.FloatSlider).max == 7.5


def test_a_moved_slider_and_another_choice_draw_anew(live: None) -> None:
    box = explore(bars, **CHOICES)
    words, picture = widget(box, ipywidgets.HTML), widget(box, ipywidgets.Image)
    first = picture.value
    assert bytes(first).startswith(PNG)
    assert "said of b" in words.value
    assert "<th>b</th>" in words.value
    widget(box, ipywidgets.FloatSlider).value = 0.9
    assert bytes(picture.value).startswith(PNG)
    assert picture.value != first
    assert "0.9" in words.value
    widget(box, ipywidgets.Dropdown).value = "a"
    assert "said of a" in words.value
    assert "said of b" not in words.value
    widget(box, ipywidgets.FloatSlider).value = 0.2
    widget(box, ipywidgets.Dropdown).value = "b"
    assert picture.value == first


def test_whole_numbers_can_be_played(live: None) -> None:
    seen = []
    box = explore(lambda epoch: seen.append(epoch) or "", play="epoch", epoch=(5, 3, 5))
    play, slider = widget(box, ipywidgets.Play), widget(box, ipywidgets.IntSlider)
    assert (play.min, play.value, play.max) == (3, 5, 5)
    for epoch in (3, 4):
        play.value = epoch
        assert slider.value == epoch
    slider.value = 5
    assert play.value == 5
    assert seen == [5, 3, 4, 5]


def test_a_button_waits_for_its_press_and_shows_progress(live: None) -> None:
    seen = []

    def train(strength: float, progress: Any) -> str:
        progress(3, 4, "CoLA")
        seen.append((strength, bar.value, bar.max, bar.layout.visibility, button.disabled))
        return f"strength {strength}"

    bar, button = ipywidgets.IntProgress(), ipywidgets.Button()  # for the drawing before the box
    box = explore(train, button="simulate and train", strength=(0.5, 0.0, 1.0))
    bar, button = widget(box, ipywidgets.IntProgress), widget(box, ipywidgets.Button)
    assert button.description == "simulate and train"
    widget(box, ipywidgets.FloatSlider).value = 0.8
    assert len(seen) == 1
    assert "strength 0.5" in widget(box, ipywidgets.HTML).value
    button.click()
    assert seen[1:] == [(0.8, 3, 4, "visible", True)]
    assert "strength 0.8" in widget(box, ipywidgets.HTML).value
    assert (bar.layout.visibility, button.disabled) == ("hidden", False)


def test_a_mistake_is_a_sentence_and_the_next_drawing_is_as_usual(live: None) -> None:
    def draw(n: int) -> Figure:
        if n == 2:
            raise ValueError("n must not be 2,\n  nor <b>")
        return bars(n, "a")[1]

    box = explore(draw, n=(1, 0, 3))
    slider, words = widget(box, ipywidgets.IntSlider), widget(box, ipywidgets.HTML)
    picture = widget(box, ipywidgets.Image)
    slider.value = 2
    assert "This does not work: ValueError: n must not be 2, nor &lt;b&gt;" in words.value
    assert "Traceback" not in words.value
    assert picture.layout.display == "none"
    slider.value = 3
    assert "must not" not in words.value
    assert picture.layout.display == ""
    assert bytes(picture.value).startswith(PNG)


def test_dragging_leaves_no_figures_behind(live: None) -> None:
    def figures() -> int:
        gc.collect()
        return sum(type(thing) is Figure for thing in gc.get_objects())

    box = explore(bars, **CHOICES)
    slider = widget(box, ipywidgets.FloatSlider)
    before = figures()
    for value in (0.3, 0.4, 0.5, 0.6):
        slider.value = value
    assert figures() == before
    assert pyplot.get_fignums() == []
