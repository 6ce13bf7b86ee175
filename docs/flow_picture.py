"""Draw the picture of docs/architecture.md: the way of a picture and of a sound through the rooms of the code.

.venv/bin/python docs/flow_picture.py [--out docs/flow.svg]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1200, 700
TITLE = (
    "From capture through perception, recognition and the pipeline to the sinks. Extractors and model come from dhmd; "
    "training makes its checkpoint with the same extractors."
)
LINE = 17
"""From one line of text to the next."""

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .room { font: 600 15px system-ui, sans-serif }
  .note { font-size: 12px; fill: #59636e }
  .floor { fill: #f6f8fa; stroke: #d1d9e0 }
  .card { fill: #ffffff; stroke: #8c959f }
  .model { fill: #ddf4ff; stroke: #0969da }
  .below { fill: #fff8e5; stroke: #9a6700 }
  .way { fill: none; stroke: #57606a; stroke-width: 1.6; marker-end: url(#head) }
  .loan { fill: none; stroke: #9a6700; stroke-width: 1.4; stroke-dasharray: 5 4; marker-end: url(#lent) }
  .cut { stroke: #cf222e; stroke-width: 1.4; stroke-dasharray: 2 5 }
  .cut-note { fill: #cf222e; font-size: 12px }
  #head path { fill: #57606a }
  #lent path { fill: #9a6700 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .note { fill: #9198a1 }
    .floor { fill: #151b23; stroke: #3d444d }
    .card { fill: #212830; stroke: #656c76 }
    .model { fill: #10253f; stroke: #4493f8 }
    .below { fill: #272115; stroke: #d29922 }
    .way { stroke: #9198a1 }
    .loan { stroke: #d29922 }
    .cut { stroke: #ff7b72 }
    .cut-note { fill: #ff7b72 }
    #head path { fill: #9198a1 }
    #lent path { fill: #d29922 }
  }
"""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with a title and lines of text."""

    x: float
    y: float
    width: float
    height: float
    title: str
    lines: Sequence[str] = ()
    kind: str = "card"

    @property
    def left(self) -> tuple[float, float]:
        return self.x, self.y + self.height / 2

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width, self.y + self.height / 2

    def drawn(self) -> str:
        middle = self.x + self.width / 2
        first = self.y + self.height / 2 - LINE * len(self.lines) / 2 + 5
        parts = [_rectangle(self.x, self.y, self.width, self.height, self.kind), _text(middle, first, self.title)]
        parts += [_text(middle, first + LINE * number, line, "note") for number, line in enumerate(self.lines, start=1)]
        return "\n".join(parts)


def _rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>'


def _text(x: float, y: float, text: str, kind: str = "title", anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _room(x: float, width: float, name: str, note: str, y: float = 84, height: float = 400) -> str:
    return "\n".join(
        (
            _rectangle(x, y, width, height, "floor"),
            _text(x + 14, y + 24, name, "room", "start"),
            _text(x + 14, y + 42, note, "note", "start"),
        )
    )


def _arrow(start: tuple[float, float], end: tuple[float, float], kind: str = "way") -> str:
    """Runs along a curve from left to right, or straight up or down."""
    (x0, y0), (x1, y1) = start, end
    bend = 0 if x0 == x1 else (x1 - x0) / 2
    return f'<path class="{kind}" d="M{x0} {y0} C{x0 + bend} {y0} {x1 - bend} {y1} {x1} {y1}"/>'


def picture() -> str:
    """The whole picture, as SVG that follows the reader's light or dark scheme."""
    pictures = Box(26, 150, 170, 92, "pictures", ("camera, network", "stream, file, browser", "newest one wins"))
    sound = Box(26, 300, 170, 92, "sound", ("microphone, file,", "browser", "every loss is counted"))

    face = Box(236, 150, 168, 74, "face", ("landmarks, head pose,", "expression network"))
    voice = Box(236, 242, 168, 74, "voice", ("speech encoder,", "prosody"))
    words = Box(236, 334, 168, 54, "transcript", ("words with their times",))
    text = Box(236, 412, 168, 54, "text", ("a row a token",))
    window = Box(
        450, 200, 122, 146, "window", ("rows of the last", "5 s, one ring a", "modality, cut by", "time of capture")
    )

    engine = Box(622, 160, 160, 84, "engine", ("the model, over one", "window or many"), "model")
    estimate = Box(622, 306, 160, 84, "estimate", ("emotions, sentiment,", "valence, arousal"), "model")

    hop = Box(
        814, 216, 132, 114, "ten a second", ("cut the window,", "run the engine,", "hand the emission", "to every sink")
    )
    sinks = [
        Box(986, 142 + 66 * row, 186, 54, title, (note,))
        for row, (title, note) in enumerate(
            (
                ("mqtt", "apps, Home Assistant"),
                ("session", "a file to replay, export"),
                ("web", "the page"),
                ("terminal", "the live view"),
                ("metrics", "Prometheus"),
            )
        )
    ]
    dhmd = Box(
        222,
        540,
        574,
        60,
        "dhmd",
        ("extractors · contract of their rows · model and predictor · checkpoint · assets",),
        "below",
    )
    training = Box(
        222,
        630,
        574,
        54,
        "training",
        ("manifests → rows, by the same extractors → fit → a checkpoint with its card",),
        "below",
    )
    boxes = [pictures, sound, face, voice, words, text, window, engine, estimate, hop, *sinks, dhmd, training]
    arrows = [
        _arrow(pictures.right, face.left),
        _arrow(sound.right, voice.left),
        _arrow(sound.right, words.left),
        _arrow((320, 388), (320, 411)),
        *(_arrow(box.right, window.left) for box in (face, voice, text)),
        _arrow(window.right, engine.left),
        _arrow((702, 244), (702, 305)),
        _arrow(estimate.right, hop.left),
        *(_arrow(hop.right, sink.left) for sink in sinks),
        _arrow((320, 540), (320, 486), "loan"),
        _arrow((760, 540), (760, 486), "loan"),
        _arrow((509, 630), (509, 602), "loan"),
    ]
    head = (
        '<marker id="{}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L10 5L0 10z"/></marker>'
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="what">',
        f'<title id="what">{escape(TITLE)}</title>',
        f"<style>{STYLE}</style>",
        f"<defs>{head.format('head')}{head.format('lent')}</defs>",
        _rectangle(16, 16, 1168, 52, "floor"),
        _text(30, 38, "cli and programs", "room", "start"),
        _text(
            30,
            57,
            "one file a command of dhmd-live: run, web, edge, serve, replay, watch; each composes the rooms below",
            "note",
            "start",
        ),
        _room(16, 190, "capture", "samples and their times"),
        _room(222, 362, "perception", "extractors make rows of samples"),
        _room(610, 184, "recognition", "one estimate a window"),
        _room(806, 152, "pipeline", "from hop to hop"),
        _room(972, 212, "sinks", "take each estimate at once"),
        '<line class="cut" x1="597" y1="84" x2="597" y2="524"/>',
        _text(588, 518, "dhmd-live edge", "cut-note", "end"),
        _text(606, 518, "dhmd-live serve", "cut-note", "start"),
        *arrows,
        *(box.drawn() for box in boxes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("flow.svg"))
    parser.parse_args().out.write_text(picture(), encoding="utf-8")
