"""signoff beside what does nothing else: a bare client, a scheduler alone. In turn, in one run."""

import contextlib
import pathlib
import tempfile

from world import MOCKS, WORK, World, percentile, table, timed

# An fsync is nothing in memory; on a disk its own time is told apart.
PLACES = (("in memory", "/dev/shm"), ("on this disk", WORK))
HEAD = ("", "client, ms", "fsyncs, ms", "agent, ms", "ratio", "without the fsyncs")


def rows(name, taken):
    """The agent over the client, and less what the fsyncs add to the client in the same turn: at the median and in the tail."""
    durable = [sum(both) for both in zip(taken["client"], taken["fsyncs"])]
    for percent in (50, 99):
        client, agent = (percentile(taken[key], percent) for key in ("client", "agent"))
        # Not the percentile of the fsyncs alone: in the tail one that is slow seldom meets a call that is.
        fsyncs = percentile(durable, percent) - client
        told = [f"{time / 1e3:.2f}" for time in (client, fsyncs, agent)]
        yield (*name, f"p{percent}", *told, f"{agent / client:.2f}", f"{(agent - fsyncs) / client:.2f}")


@contextlib.contextmanager
def directory(place):
    with tempfile.TemporaryDirectory(prefix="signoff-bench-", dir=place) as name:
        yield pathlib.Path(name)


def beside(binary):
    """The hook to its acknowledgement beside a bare gRPC client on a warm connection, in turn; the mock answers after 2 ms."""
    told = []
    for name, place in PLACES:
        with World(binary, rest=False, spool=place) as world, directory(place) as bare:
            taken = timed("hook", f"127.0.0.1:{world.grpc}", world.dir / "run/agent.sock", bare, "sched-0", "127.0.0.1", 500)
        told += rows((name,), taken)
    return table(("spool", *HEAD), told), {}


def sigterm(binary, times=300):
    """SIGTERM at the agent until `inactive` is written, beside a bare client's call until then, in turn; the mock answers after 2 ms."""
    told = []
    for name, place in PLACES:
        with directory(place) as spools:
            taken = timed("sigterm", binary, spools, times)
        for connection in ("warm", "cold"):
            told += rows((name, connection), taken[connection])
    return table(("spool", "connection", *HEAD), told), {}


def exit(binary, times=100):
    """A mock scheduler's graceful stop alone, with an idle gRPC connection to it, and with the agent beside it, in turn."""
    with directory(WORK) as spools:
        taken = timed("exit", binary, MOCKS, spools, times)
    told = []
    for name, kind in (("nothing", "alone"), ("an idle connection", "connection"), ("the agent", "agent")):
        end, first, last = (percentile(taken[kind][key], 50) for key in ("end", "first", "last"))
        ratio = end / percentile(taken["alone"]["end"], 50)
        tail = percentile(taken[kind]["end"], 99)
        told.append((name, *[f"{time / 1e3:.2f}" for time in (end, tail)], f"{ratio:.2f}", *[f"{time / 1e3:.2f}" for time in (first, last)]))
    return table(("beside the scheduler", "its end, p50, ms", "p99, ms", "ratio", "row inactive, p50, ms", "for good, p50, ms"), told), {}
