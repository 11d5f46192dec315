"""The pictures: drawn from the table and nothing else, whole, legible in both themes, in every format."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from common import saga, topology
from common.saga import SAGA, Step
from common.settings import Delay
from ops.doctor import commands
from ops.drawing import canvas, lanes, mermaid, objects, png, words
from ops.drawing.canvas import Canvas, Theme
from ops.output import CannotLookError

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
DELAYS = tuple(map(Delay.parse, ("1s", "5s", "30s", "5m")))
INVOICE = Step(
    "invoice",
    on="point.deducted",
    emits="invoice.written",
    refusals=("no_address",),
    compensation="invoice.voided",
)
#: A table with a step more before the pivot.
LONGER = (*SAGA[:3], INVOICE, *SAGA[3:])
PICTURES: dict[str, Callable[[], Canvas]] = {
    "flow": lanes.draw,
    "longer flow": lambda: lanes.draw(LONGER),
    "broker": lambda: objects.draw(DELAYS),
    "broker with one level": lambda: objects.draw(DELAYS[:1]),
}

app = typer.Typer()
app.command()(commands.topology)


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a picture, and the rectangle that it covers."""

    text: str
    left: float
    right: float
    top: float
    bottom: float

    def covers(self, other: Text) -> bool:
        """Whether it lies over another one."""
        apart = self.right <= other.left or other.right <= self.left
        return not apart and self.top < other.bottom and other.top < self.bottom


def _texts(picture: Canvas) -> Iterator[Text]:
    for element in ET.fromstring(picture.svg()).iter(f"{SVG}text"):
        size = float(element.attrib["font-size"])
        words_ = element.text or ""
        wide = canvas.width(words_, size)
        anchor = {"start": 0.0, "middle": 0.5, "end": 1.0}[element.attrib["text-anchor"]]
        left, base = float(element.attrib["x"]) - anchor * wide, float(element.attrib["y"])
        yield Text(words_, left, left + wide, base - 0.75 * size, base + 0.2 * size)


@pytest.mark.parametrize("draw", [lanes.draw, mermaid.flow, words.flow, words.flow_as_data])
def test_a_step_that_is_added_to_the_table_is_drawn(draw: Callable[..., object]) -> None:
    """A picture that somebody has to remember to change is wrong from the next change on."""

    def told(steps: tuple[Step, ...]) -> str:
        drawn = draw(steps)
        return drawn.svg() if isinstance(drawn, Canvas) else json.dumps(drawn)

    assert "invoice" not in told(SAGA)
    assert {"invoice.written", "invoice.failed", "invoice.voided"} - set(
        re.findall(r"invoice\.\w+", told(LONGER))
    ) <= (
        # Mermaid draws one way back for all failures.
        {"invoice.failed"} if draw is mermaid.flow else set()
    )


@pytest.mark.parametrize("step", SAGA, ids=lambda step: step.service)
def test_every_word_of_the_table_is_in_the_picture(step: Step) -> None:
    """Who publishes what, what it is called when it fails, and what undoes it."""
    told = {text.text for text in _texts(lanes.draw())}
    assert {step.service, step.on, step.emits} <= told
    assert not step.refusals or step.failed in told
    assert not step.compensation or f"undoes: {step.compensation}" in told
    assert ("the pivot" in told) is any(it.pivot for it in SAGA)


@pytest.mark.parametrize("queue", topology.derive(DELAYS).queues, ids=lambda queue: queue.name)
def test_every_queue_of_the_broker_is_in_its_pictures(queue: topology.Queue) -> None:
    """A queue that no picture shows is one that nobody looks into."""
    assert queue.name in {text.text for text in _texts(objects.draw(DELAYS))}
    assert f'["{queue.name}"]' in mermaid.objects(DELAYS)
    assert re.search(rf"^{re.escape(queue.name)} +<-", words.objects(DELAYS), re.MULTILINE)


def test_every_binding_is_in_the_pictures_of_the_broker() -> None:
    """The keys are what one looks up there."""
    shown = {text.text for text in _texts(objects.draw(DELAYS))}
    for binding in topology.derive(DELAYS).bindings:
        assert binding.exchange != topology.EVENTS or binding.key in shown
        assert f"{binding.exchange} {binding.key}" in words.objects(DELAYS)
        assert binding.key in mermaid.objects(DELAYS)


@pytest.mark.parametrize("picture", PICTURES)
def test_no_text_is_cut_off_or_lies_over_another(picture: str) -> None:
    """Positions follow from the lengths of words, so that a longer name does not spoil the picture."""
    drawn = PICTURES[picture]()
    texts = list(_texts(drawn))
    assert len(texts) > 10
    for text in texts:
        assert text.left >= 0, text
        assert text.right <= drawn.width, text
        assert text.bottom <= drawn.height, text
    assert [pair for pair in itertools.combinations(texts, 2) if pair[0].covers(pair[1])] == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("colour", ["ink", "muted", "forward", "back", "undo", "pivot-edge", "done-edge"])
def test_texts_are_legible_on_light_and_on_dark_ground(colour: str, dark: bool) -> None:
    """At least 4.5 to 1, as WCAG 2 asks for (https://www.w3.org/TR/WCAG22/#contrast-minimum)."""
    grounds: tuple[str, ...] = {"done-edge": ("done",), "pivot-edge": ("ground",)}.get(
        colour, ("ground", "band", "box")
    )
    if colour in {"ink", "muted"}:
        grounds += ("pivot", "done")
    for ground in grounds:
        contrast = _contrast(canvas._COLOURS[colour][dark], canvas._COLOURS[ground][dark])
        assert contrast >= 4.5, (colour, ground, contrast)


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_picture_follows_the_reader_s_screen_unless_it_is_told_its_theme() -> None:
    """The same file stands in a light page and in a dark one."""
    drawn = lanes.draw()
    light, dark = (pair for pair in canvas._COLOURS["ground"])
    assert "prefers-color-scheme: dark" in drawn.svg(Theme.AUTO)
    assert light in drawn.svg(Theme.LIGHT)
    assert dark not in drawn.svg(Theme.LIGHT)
    assert light not in drawn.svg(Theme.DARK).replace('"#fff', "")


def test_a_picture_loads_and_runs_nothing() -> None:
    """It is shown without internet access, and where scripts are forbidden."""
    for draw in PICTURES.values():
        svg = draw().svg()
        assert "script" not in svg.casefold().replace("description", "")
        assert re.findall(r"https?://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]


def test_a_picture_says_in_words_what_it_shows() -> None:
    """For who cannot see it, and for search."""
    root = ET.fromstring(lanes.draw().svg())
    assert root.attrib["role"] == "img"
    told = root.findtext(f"{SVG}desc") or ""
    assert all(step.emits in told for step in SAGA)


def test_hostile_words_of_a_table_stay_words() -> None:
    """Names are escaped like anything else that comes from elsewhere."""
    evil = (Step("<script>", on="a&b", emits='c"d', pivot=True),)
    assert "<script>" not in lanes.draw(evil).svg()
    ET.fromstring(lanes.draw(evil).svg())


def test_the_png_is_the_picture_at_twice_its_size() -> None:
    """Sharp also on a dense screen."""
    drawn = lanes.draw()
    picture = png.render(drawn, Theme.AUTO)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    size = int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])
    assert size == (round(2 * drawn.width), round(2 * drawn.height))
    assert png.render(drawn, Theme.DARK) != picture


def test_the_png_has_its_texts_also_where_no_font_is_installed() -> None:
    """The renderer leaves a text out in silence where it finds no font."""

    def sheet(text: str, *, bold: bool) -> bytes:
        drawn = Canvas(60, 20, title="", description="")
        drawn.text(2, 15, text, bold=bold)
        return png.render(drawn, Theme.LIGHT)

    assert len({sheet("", bold=False), sheet("saga", bold=False), sheet("saga", bold=True)}) == 3


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md"])
def test_the_documents_show_the_same_mermaid_as_the_command(document: str) -> None:
    """One picture, written once."""
    assert mermaid.fenced(mermaid.flow()) in (ROOT / document).read_text()


@pytest.mark.parametrize("what", ["flow", "broker"])
@pytest.mark.parametrize("form", ["text", "mermaid", "svg", "png", "json"])
def test_everything_can_be_drawn_in_every_format(what: str, form: str, tmp_path: Path) -> None:
    """To a file and to a pipe alike."""
    file = tmp_path / "picture"
    asked = ["--what", what, "--format", form]
    assert CliRunner().invoke(app, [*asked, "--output", str(file)]).exit_code == 0
    assert CliRunner().invoke(app, asked).stdout_bytes == file.read_bytes()


def test_the_json_holds_the_whole_table() -> None:
    """For whoever draws it better."""
    told = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    assert [step["emits"] for step in told["steps"]] == [step.emits for step in SAGA]
    assert len(told["commands"]) == len(saga.COMMANDS)


def test_the_text_shows_where_the_pivot_is() -> None:
    """Before it everything can be undone."""
    lines = words.flow().splitlines()
    assert "pivot" in lines[next(place for place, step in enumerate(SAGA, 1) if step.pivot)]


def test_the_levels_are_those_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another RETRY_DELAYS gives other queues, and a wrong one a sentence."""
    monkeypatch.setenv("RETRY_DELAYS", "7s")
    assert "point.retry.7s" in CliRunner().invoke(app, ["--what", "broker"]).stdout
    monkeypatch.setenv("RETRY_DELAYS", "soon")
    failed = CliRunner().invoke(app, ["--what", "broker"])
    assert isinstance(failed.exception, CannotLookError)
    assert "'soon' is not a delay" in str(failed.exception)


def test_a_file_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    """A traceback helps nobody who mistyped a path."""
    failed = CliRunner().invoke(app, ["--output", str(tmp_path / "no" / "picture")])
    assert isinstance(failed.exception, CannotLookError)
