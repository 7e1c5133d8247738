"""What the measures share: the program in a directory of its own beside its mocks, and how figures are told."""

import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target/bench"
MOCKS = ROOT / "target/release/signoff"
# What .ci/run installed, behind everything else.
os.environ["PATH"] += f":{ROOT}/target/ci-tools/bin"
# What the image has in its environment for the C library.
TUNABLES = dict(re.findall(r"^ENV (GLIBC_TUNABLES)=(\S+)$", (ROOT / "Dockerfile").read_text(), re.M))


class Missing(Exception):
    """What a measure needs and this machine has not, in words: it is left out, and the others go on."""


def as_in_the_image():
    """The environment for the program: nothing of ours, and what the image has."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SIGNOFF_")} | TUNABLES


def run(*command, **more):
    try:
        return subprocess.run([str(part) for part in command], check=True, text=True, capture_output=True, **more).stdout
    except subprocess.CalledProcessError as failed:
        sys.stderr.write(failed.stderr)
        raise


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(what, test, limit=60, every=0.02):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        with contextlib.suppress(OSError, KeyError, ValueError):
            if found := test():
                return found
        time.sleep(every)
    raise SystemExit(f"tests/bench/run: not seen within {limit} s: {what}")


@functools.cache
def image(features):
    """The image's content, built once."""
    root = WORK / f"root-{features.replace(',', '-') or 'none'}"
    run(ROOT / "image/build", "amd64", features, root)
    return root


@functools.cache
def example():
    """What is timed in one process with the mock manager, built once."""
    run("cargo", "build", "--release", "--locked", "--example", "beside", cwd=ROOT)
    return ROOT / "target/release/examples/beside"


def timed(*arguments):
    """What it tells, as it comes."""
    return json.loads(run(example(), *arguments, env=as_in_the_image()))


class World:
    """A mock manager, a mock scheduler and the agent beside it, in a directory of their own."""

    def __init__(self, binary, rest, spool=None, prefix=(), asks=0, interval="5s"):
        self.binary, self.rest, self.prefix, self.asks, self.interval = binary, rest, list(prefix), asks, interval
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="signoff-bench-", dir=spool))
        self.started = []

    def __enter__(self):
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def begin(self):
        self.grpc, self.http, self.admin, self.health, self.listen = (free_port() for _ in range(5))
        if self.asks:
            # One that has their rows, and leaves them in the spool.
            command = (example(), "spool", f"127.0.0.1:{self.grpc}", f"127.0.0.1:{self.http}", self.dir / "spool", self.asks)
            manager = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
            self.started.append(manager)
            assert manager.stdout.readline() == "ready\n"
        else:
            self.start(MOCKS, "mock-manager", "--grpc-listen", f"127.0.0.1:{self.grpc}", "--rest-listen", f"127.0.0.1:{self.http}",
                       "--admin-listen", f"127.0.0.1:{self.admin}")
        eventually("the mock manager", lambda: socket.create_connection(("127.0.0.1", self.grpc)))
        self.start(MOCKS, "mock-scheduler", "--hostname", "sched-0", "--listen", f"127.0.0.1:{self.health}",
                   "--manager", f"127.0.0.1:{self.grpc}", "--keep-alive-interval", self.interval)
        (self.dir / "password").write_text("dragonfly\n")
        self.began = time.time()
        managers = [f"127.0.0.1:{self.grpc}"] + ([f"http://127.0.0.1:{self.http}"] if self.rest else [])
        self.agent = self.start(*self.prefix, self.binary, "agent", "--hostname", "sched-0", "--ip", "127.0.0.1",
                                "--scheduler-addr", f"127.0.0.1:{self.health}", "--spool", self.dir / "spool",
                                "--run-dir", self.dir / "run", "--listen", f"127.0.0.1:{self.listen}",
                                *[part for manager in managers for part in ("--manager", manager)],
                                *(["--username", "root", "--password-file", self.dir / "password"] if self.rest else []))
        eventually("the agent", lambda: self.status()["scheduler"]["state"] == "serving")

    def start(self, *command):
        with open(self.dir / "log", "ab") as log:
            child = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=as_in_the_image())
        self.started.append(child)
        return child

    def ask(self, request, **more):
        return json.loads(self.answer(request, **more))

    def answer(self, request, **more):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(self.dir / "run/agent.sock"))
            stream.sendall(json.dumps({"version": 1, "request": request, **more}).encode() + b"\n")
            answer = b""
            while part := stream.recv(1 << 20):
                answer += part
        return answer

    def status(self):
        return self.ask("status")["status"]

    def sign_off(self):
        answer = self.ask("pre-stop")["pre-stop"]
        assert answer["result"] == "confirmed", answer

    def acknowledged(self):
        """Waits until the manager has all that were left in the spool as inactive. Answers when, in seconds since the agent's start."""
        return float(self.started[0].stdout.readline()) - self.began

    def scrape(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.listen}/metrics") as answer:
            answer.read()

    def pid(self):
        """The agent's, below whatever traces it."""
        pid = self.agent.pid
        while self.prefix and (children := pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            pid = int(children[0])
        return pid

    def __exit__(self, *_):
        for child in reversed(self.started):
            child.kill()
            child.wait()
        shutil.rmtree(self.dir)


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def thousands(number):
    return f"{number:,}"


def usage(pid):
    """Resident and of it its own (no file's), in KiB; threads. The rest is pages of the program's file."""
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    field = lambda name: int(re.search(rf"^{name}:\s+(\d+)", rollup, re.M)[1])
    return field("Rss"), field("Anonymous"), len(os.listdir(f"/proc/{pid}/task"))


def wake_ups(pid):
    """Voluntary switches of all threads: each ends a sleep."""
    read = lambda task: int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.M)[1])
    return sum(read(task) for task in pathlib.Path(f"/proc/{pid}/task").iterdir())
