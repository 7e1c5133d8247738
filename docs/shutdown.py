#!/usr/bin/env python3
"""Draws docs/shutdown.svg: what happens when a scheduler's pod is deleted, with signoff as a native sidecar.

Run from anywhere, it prints the picture: `python3 docs/shutdown.py > docs/shutdown.svg`. The same input gives the same bytes;
tests/docs.rs sees that the committed picture is what this prints. It exits 1 where two texts would overlap, or one would leave
its bar or the page, by an estimate of their widths that is on the wide side.
"""

import sys
from html import escape

WIDTH = 1180
LABELS = 20  # where the lanes' names begin
LEFT = 150  # where time begins
T0 = 250  # the deletion
RESERVE = 850  # one second before the end of the grace
END = 930  # the end of the grace
RIGHT = 1160
LANE = 34
BAR = 22

# Class: (light, dark), each (fill, stroke or text).
COLOURS = {
    "page": ("#ffffff", "#0d1117"),
    "panel": ("#f6f8fa", "#161b22"),
    "text": ("#1f2328", "#e6edf3"),
    "dim": ("#59636e", "#9198a1"),
    "line": ("#c4ccd4", "#3d444d"),
    "good": ("#b7e4c2", "#1f5c33"),
    "going": ("#ffe1a3", "#6b4d0c"),
    "agent": ("#bcdcff", "#1d4a80"),
    "off": ("#dfe3e8", "#353c45"),
    "bad": ("#ffc9c4", "#7d2722"),
    "mark": ("#1f2328", "#e6edf3"),
    "number": ("#ffffff", "#0d1117"),
}


class Picture:
    """Collects shapes, and where texts are."""

    def __init__(self):
        self.shapes = []
        self.texts = []
        self.faults = []

    def rect(self, x, y, width, height, kind, radius=3):
        self.shapes.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>')

    def line(self, x1, y1, x2, y2, dashed=False):
        dash = ' stroke-dasharray="3 4"' if dashed else ""
        self.shapes.append(f'<line class="line" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"{dash}/>')

    def text(self, x, y, words, kind="text", size=13, anchor="start", bold=False, within=(0, WIDTH)):
        wide = len(words) * size * (0.6 if bold else 0.56)
        begin = {"start": x, "middle": x - wide / 2, "end": x - wide}[anchor]
        if begin < within[0] or begin + wide > within[1]:
            self.faults.append(f"does not fit: {words!r}")
        box = (begin, y - size * 0.8, begin + wide, y + size * 0.25)
        for words_there, there in self.texts:
            if box[0] < there[2] and there[0] < box[2] and box[1] < there[3] and there[1] < box[3]:
                self.faults.append(f"overlap: {words!r} and {words_there!r}")
        self.texts.append((words, box))
        weight = ' font-weight="600"' if bold else ""
        self.shapes.append(
            f'<text class="{kind}" x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
        )

    def number(self, x, y, n):
        self.shapes.append(f'<circle class="mark" cx="{x}" cy="{y}" r="9"/>')
        self.shapes.append(
            f'<text class="number" x="{x}" y="{y + 4}" font-size="12" text-anchor="middle" font-weight="600">{n}</text>'
        )


def panel(picture, top, title, lanes, captions, later=None):
    """Lanes: (name, [(from, to, kind, words)], [(x, number)]). Answers where the panel ends."""
    height = 66 + LANE * (len(lanes) + 1) + 19 * len(captions) + 14
    picture.rect(8, top, WIDTH - 16, height, "panel", 6)
    picture.text(LABELS, top + 25, title, size=15, bold=True)
    y = top + 38
    lanes_end = y + LANE * (len(lanes) + 1)
    for x in (T0, END):
        picture.line(x, y, x, lanes_end, dashed=True)
    # The grace is a lane of its own: every time-out derives from it.
    picture.text(LABELS, y + 20, "the grace", "dim")
    picture.rect(T0, y + 5, RESERVE - T0, BAR, "off")
    picture.text(
        (T0 + RESERVE) / 2, y + 20, "--grace = terminationGracePeriodSeconds, counted from t = 0", "text", 12, "middle",
        within=(T0, RESERVE),
    )
    picture.rect(RESERVE, y + 5, END - RESERVE, BAR, "going")
    picture.text((RESERVE + END) / 2, y + 20, "reserve: 1 s", "text", 11, "middle", within=(RESERVE, END))
    if later:
        picture.text((END + RIGHT) / 2, y + 20, later, "dim", 12, "middle", within=(END, RIGHT))
    for name, bars, numbers in lanes:
        y += LANE
        picture.text(LABELS, y + 20, name, "dim")
        picture.line(LEFT, y + 16, RIGHT, y + 16)
        for begin, end, kind, words in bars:
            picture.rect(begin, y + 5, end - begin, BAR, kind)
            if words:
                # Numbers sit on a bar's edges: the words stay clear of them.
                edges = [begin, end]
                for x, _ in numbers:
                    if begin <= x < begin + 14:
                        edges[0] = x + 10
                    if end - 14 < x <= end:
                        edges[1] = x - 10
                picture.text(
                    sum(edges) / 2, y + 20, words, "text", 12, "middle", within=(edges[0], edges[1])
                )
        for x, n in numbers:
            picture.number(x, y + 16, n)
    y += LANE + 22
    picture.text(T0, y - 4, "t = 0", "dim", 12, "middle")
    picture.text(END, y - 4, "the kubelet kills", "dim", 12, "middle")
    y += 18
    for n, words in captions:
        if n:
            picture.number(LABELS + 9, y - 4, n)
        picture.text(LABELS + 28, y, words)
        y += 19
    return top + height + 10


def draw():
    picture = Picture()
    top = 62
    picture.text(LABELS, 28, "A scheduler's pod is deleted: who does what, when", size=18, bold=True)
    picture.text(
        LABELS, 49, "Time runs to the right, not to scale. signoff is a native sidecar (Kubernetes 1.29 and later).", "dim"
    )
    gone = 520
    top = panel(
        picture, top, "No hook: the scheduler's own going is the news",
        [
            ("scheduler", [(LEFT, T0, "good", "serving"), (T0, gone, "going", "finishes its open calls")], [(T0, 1), (gone, 4)]),
            (
                "signoff", [(LEFT, T0 + 18, "agent", "watches it"), (T0 + 18, gone, "agent", "signed off; watches the row"),
                            (gone, gone + 120, "agent", "SIGTERM: exit 0")], [(T0 + 18, 3)],
            ),
            ("manager", [(LEFT, RIGHT, "good", "answers")], []),
            (
                "its row", [(LEFT, T0 + 6, "good", "active"), (T0 + 6, RIGHT, "off", "inactive")], [(T0 + 6, 2)],
            ),
        ],
        [
            (1, "The hooks of all containers would start now, all at once; there is none, so the scheduler gets SIGTERM at once."),
            (2, "It ends its keep-alive stream, which makes its row inactive (seen on v2.5: 7 ms later on loopback, 2 to 58 ms in a cluster), and closes its listener."),
            (3, "The agent's idle connection ends, a new one is refused: down. It writes its ask to disk, then signs off: the manager says OK."),
            (4, "The scheduler has exited. Only now the native sidecar gets SIGTERM. Everything is settled: it exits 0."),
        ],
    )
    hook, linger, gone = 420, 560, 730
    top = panel(
        picture, top, "Drain: a hook on the scheduler's own container, before the scheduler is told",
        [
            ("its hook", [(T0, hook, "agent", "signoff pre-stop"), (hook, linger, "agent", "--linger, if any")], [(T0, 1)]),
            (
                "scheduler", [(LEFT, linger, "good", "serving: running downloads finish"),
                              (linger, gone, "going", "finishes its calls")], [(linger, 3), (gone, 4)],
            ),
            (
                "signoff", [(LEFT, T0 + 18, "agent", "watches it"), (T0 + 18, gone, "agent", "signed off; a revived row is signed off again"),
                            (gone, gone + 120, "agent", "SIGTERM: exit 0")], [],
            ),
            (
                "its row", [(LEFT, T0 + 24, "good", "active"), (T0 + 24, RIGHT, "off", "inactive: the manager hands it out no more")],
                [(T0 + 24, 2)],
            ),
        ],
        [
            (1, "The hook holds back this one container, nobody else. The agent writes its ask to disk, then signs off."),
            (2, "The manager acknowledged. The hook answers at once; at the latest after 5 s: then it is queued."),
            (3, "The hook has returned: the scheduler gets SIGTERM, with what the hook has left of the grace (2 s at the least)."),
            (4, "It has exited: the sidecar gets SIGTERM, and exits 0. If it serves on past grace + 5 s, it was no deletion: its row is given back."),
        ],
    )
    gone, back = 430, 1010
    top = panel(
        picture, top, "Outage: nobody is there to be told",
        [
            ("scheduler", [(LEFT, T0, "good", "serving"), (T0, gone, "going", "finishes its calls")], [(T0, 1), (gone, 3)]),
            (
                "signoff", [(LEFT, T0 + 18, "agent", "watches it"), (T0 + 18, gone, "agent", "ask on disk; tries"),
                            (gone, END - 8, "agent", "SIGTERM: goes on trying")],
                [(T0 + 18, 2), (END - 8, 4)],
            ),
            ("manager", [(LEFT, 190, "good", ""), (190, back, "bad", "away: killed, restarting or cut off"), (back, RIGHT, "good", "answers")], []),
            (
                "its row", [(LEFT, T0, "good", "active"),
                            (T0, back + 70, "bad", "still active, though nobody is there: every peer waits a connect time-out for it"),
                            (back + 70, RIGHT, "off", "inactive")], [(back + 70, 5)],
            ),
            ("next agent", [(back - 30, RIGHT, "agent", "opens the spool: replays")], []),
        ],
        [
            (1, "The keep-alive stream ends, but no manager sees it: the row stays active."),
            (2, "The ask is on disk, file and directory fsynced, before the first attempt; the next ones back off to 1 s apart, 5 s if overloaded."),
            (3, "The scheduler has exited: SIGTERM to the sidecar. Where hooks have used the grace up, it comes with 2 s left."),
            (4, "The reserve is for the disk and the log. The agent exits 75 (queued) 150 ms before the end; a kill would find nothing undone."),
            (5, "The manager is back. Whoever has the spool's volume replays it: the restarted container, the next pod, or signoff queue flush."),
        ],
        later="afterwards",
    )
    return picture, top


def style():
    light, dark = [], []
    for kind, colours in COLOURS.items():
        for rules, colour in zip((light, dark), colours):
            paint = "stroke" if kind == "line" else "fill"
            rules.append(f".{kind}{{{paint}:{colour}}}")
    return "".join(light) + "@media (prefers-color-scheme:dark){" + "".join(dark) + "}"


def main():
    picture, bottom = draw()
    for fault in picture.faults:
        print(fault, file=sys.stderr)
    if picture.faults:
        return 1
    alt = "Three time-lines of a scheduler pod's deletion: without a hook, with a drain, and while the manager is away"
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" width="{WIDTH}" height="{bottom}" role="img"'
        f' font-family="-apple-system, \'Segoe UI\', Helvetica, Arial, sans-serif">'
    )
    print(f"<title>{alt}</title>")
    print("<!-- Made by docs/shutdown.py: change that, not this. -->")
    print(f"<style>{style()}</style>")
    print(f'<rect class="page" width="{WIDTH}" height="{bottom}"/>')
    print("\n".join(picture.shapes))
    print("</svg>")
    return 0


if __name__ == "__main__":
    sys.exit(main())
