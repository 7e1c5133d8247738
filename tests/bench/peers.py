"""A peer that can be had as it is, at rest beside the agent: Contour's shutdown-manager, the sidecar that signs an Envoy off."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

from world import WORK, Missing, World, eventually, free_port, run, table, thousands, usage, wake_ups

CONTOUR = "github.com/projectcontour/contour/cmd/contour@v1.33.8"
REQUESTS = 200


def contour():
    """Built from the Go module proxy, stripped, as its image's is."""
    if not shutil.which("go"):
        raise Missing("Go is not installed, and Contour is built with it")
    places = os.environ | {"GOBIN": str(WORK / "bin"), "CGO_ENABLED": "0"}
    try:
        run("go", "install", "-trimpath", "-ldflags=-s -w", CONTOUR, env=places)
    except subprocess.CalledProcessError as error:
        raise Missing(f"Contour was not built: {error.stderr.strip().splitlines()[-1]}") from error
    return WORK / "bin/contour"


@contextlib.contextmanager
def shutdown_manager(program):
    """Contour's, and the port that it serves."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="signoff-bench-") as directory:
        with open(f"{directory}/log", "wb") as log:
            child = subprocess.Popen([program, "envoy", "shutdown-manager", f"--serve-port={port}", f"--ready-file={directory}/ok"],
                                     stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            eventually("Contour's shutdown-manager", lambda: get(port, "healthz"))
            yield child, port
        finally:
            child.kill()
            child.wait()


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
        return answer.read()


def peers(binary, minutes=3):
    """Contour's shutdown-manager at rest beside the agent, in one run: the program, memory after 200 health checks, wake-ups."""
    program = contour()
    with shutdown_manager(program) as (child, port), World(binary, rest=False) as world:
        both = {"Contour's shutdown-manager": (program, child.pid), "signoff": (binary, world.pid())}
        for _ in range(REQUESTS):
            get(port, "healthz")
            get(world.listen, "livez")
        # After the reads that follow a start.
        time.sleep(60)
        used = {name: usage(pid) for name, (_, pid) in both.items()}
        before = {name: wake_ups(pid) for name, (_, pid) in both.items()}
        time.sleep(60 * minutes)
        rows = []
        for name, (program, pid) in both.items():
            resident, own, threads = used[name]
            size = thousands(pathlib.Path(program).stat().st_size)
            rows.append((name, size, thousands(resident), thousands(own), threads, f"{(wake_ups(pid) - before[name]) / minutes:.1f}"))
    return table(("sidecar", "binary, bytes", "resident, KiB", "of it its own, KiB", "threads", "wake-ups a minute"), rows), {}
