"""The image's program as the linker laid it out."""

import os
import re

from world import ROOT, WORK, run

PIECE = re.compile(r" *([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+) +\d+ +(\S.*):\((\.[^)]+)\)$")


def linked(features="database"):
    """The image's program and the linker's map of it: their files."""
    WORK.mkdir(parents=True, exist_ok=True)
    linker_map, root = WORK / "linked.map", WORK / "linked-root"
    environment = os.environ | {"CARGO_TARGET_DIR": str(WORK / "linked"), "LINK_MAP": str(linker_map)}
    run(ROOT / "image/build", "amd64", features, root, env=environment)
    return root / "fs/usr/local/bin/signoff", linker_map


def pieces(linker_map):
    """What was linked, each piece: its address, its bytes, the file it is from, its section's name."""
    for line in linker_map.read_text().splitlines():
        if found := PIECE.match(line):
            yield int(found[1], 16), int(found[2], 16), found[3], found[4]
