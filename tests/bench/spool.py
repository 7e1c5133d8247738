"""What thousands of sign-offs cost that a dead agent left: how long they take, what memory, and what waits meanwhile."""

import functools
import os
import re
import threading
import time
import urllib.request

from world import World, eventually, percentile, table, thousands, timed

COUNTS = (1_000, 10_000)
LIMIT = 1200
# Between two looks at what has come of them, and two questions.
EVERY = 0.25


class Meanwhile(threading.Thread):
    """Asks the agent the same thing again and again, and keeps how long each answer took."""

    def __init__(self, ask):
        super().__init__(daemon=True)
        self.ask, self.taken, self.over = ask, [], threading.Event()

    def run(self):
        while not self.over.wait(EVERY):
            began = time.perf_counter()
            self.ask()
            self.taken.append(time.perf_counter() - began)

    def end(self):
        self.over.set()
        self.join()
        return [f"{of * 1e3:.1f}" for of in (percentile(self.taken, 50), max(self.taken))]


def metric(world, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{world.listen}/metrics") as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))


def peak(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"^VmHWM:\s+(\d+)", status.read(), re.M)[1])


def spool(binary):
    """A full spool: sign-offs that a dead agent left, from the start of the next; beside a client that makes the same calls."""
    rows = []
    for count in COUNTS:
        with World(binary, rest=True, asks=count) as world:
            ids = {f"{id:016x}" for id in range(count)}
            left = lambda: sum(name.endswith(".ask.json") and name.split(".")[1] in ids for name in os.listdir(world.dir / "spool"))
            meanwhile = [Meanwhile(functools.partial(world.answer, request)) for request in ("pre-stop", "status")]
            for thread in meanwhile:
                thread.start()
            since = lambda what, test: eventually(what, test, LIMIT, EVERY) and time.time() - world.began
            looked = since("all of them found", lambda: metric(world, "signoff_inherited_total") >= count)
            acknowledged = world.acknowledged()
            settled = since("all of them settled", lambda: left() == 0)
            client = timed("calls", f"127.0.0.1:{world.grpc}", count)["seconds"]
            rows.append((thousands(count), f"{client:.1f}", f"{looked:.1f}", f"{acknowledged:.1f}", f"{settled:.1f}", f"{peak(world.pid()) / 1024:.1f}",
                         *(figure for thread in meanwhile for figure in thread.end())))
    return table(("sign-offs", "client, s", "found, s", "acknowledged, s", "settled, s", "memory at most, MiB",
                  "`pre-stop` p50, ms", "at most, ms", "`status` p50, ms", "at most, ms"), rows), {}
