"""Many agents at once, whose manager comes back after an outage: simulated, and for real."""

import re

from world import ROOT, run, table, thousands, timed

HEAD = ("agents", "requests in the worst second", "all settled after", "attempts at most", "refused")
# New requests that a manager takes in a second.
LIMIT = 4000


def herd(_):
    """A herd after an outage of two minutes, simulated with the shipped delays."""
    return table(HEAD, sorted(simulated())), {}


def simulated():
    told = run("cargo", "test", "--lib", "herd", "--", "--nocapture", cwd=ROOT)
    found = re.findall(r"^(.+): Told \{ peak: (\d+), last: ([\d.]+)(m?)s, most: (\d+), refused: (\d+)", told, re.M)
    rows = {
        name: (name, thousands(int(peak)), f"{float(last) / (1000 if milli else 1):.3f} s", most, refused)
        for name, peak, last, milli, most, refused in found
    }
    return rows.values()


def agents(_, count=1000, outage="30s"):
    """As many agents for real, in one process, on sockets; beside the simulation's, and what the same connections ask without a pause."""
    told = timed("crowd", count, LIMIT, outage)
    rows = [(f"{thousands(count)} that shut down, on sockets", thousands(told["peak"]), f"{told['last']:.3f} s", told["most"], told["refused"])]
    rows += [(f"{name}, simulated", *more) for name, *more in simulated() if name.startswith(thousands(count))]
    rows += [("the same connections without a pause", thousands(told["able"]), "", "", thousands(told["turned_away"]))]
    return table(HEAD, rows), {}
