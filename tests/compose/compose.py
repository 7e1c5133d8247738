"""The part of tests/compose/run that runs compose/compose.yaml: `compose.py ROOTS [--break order|network|alone]`.

ROOTS has what image/build made: signoff-root in amd64 and mock. All of it happens in namespaces of its own; judged from the manager's table and
from what podman says of its containers.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

import yaml

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "k8s"), str(TESTS / "image")]

import container  # noqa: E402
from container import enter_a_world, eventually, mount  # noqa: E402
from containers import Table  # noqa: E402
from render import ROOT, Failed, require, run, tool  # noqa: E402

TOOLS = ("podman-compose", "docker-compose")
# Over gRPC alone a manager's list may be 30 s old.
container.BOUND = 90
NETWORK, SUBNET, MANAGER = "dragonfly", "10.77.7.0/24", "10.77.7.2"
FIRST, SECOND = "10.77.7.10", "10.77.7.11"
SERVICES = ("network", "agent", "scheduler")
# Where podman, runc and CNI keep something outside the directory they are told: each is empty here, and gone in the end.
ELSEWHERE = ("/run", "/dev/shm", "/var/lib/containers", "/var/lib/cni", "/etc/cni")

CONTAINERS_CONF = """
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


def fails_without(broken, services):
    """What `--break` does to the services."""
    if broken == "order":
        services["agent"]["depends_on"].append("scheduler")
        services["scheduler"]["depends_on"].remove("agent")
    if broken == "network":
        services["network"]["command"][2] = "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"
    if broken == "alone":
        del services["agent"]
        services["scheduler"]["depends_on"].remove("agent")


class Engine:
    """podman, its images, and the mock manager beside the project."""

    def __init__(self, directory, roots):
        self.directory = directory
        self.tables = directory / "table"
        self.tables.mkdir()
        os.chown(self.tables, 65532, 65532)
        self.table = Table(self.tables / "table")
        (directory / "containers.conf").write_text(CONTAINERS_CONF)
        (directory / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{directory}/store"\nrunroot = "{directory}/run"\n'
        )
        os.environ["CONTAINERS_CONF"] = str(directory / "containers.conf")
        os.environ["CONTAINERS_STORAGE_CONF"] = str(directory / "storage.conf")
        for name, root in (("signoff", roots / "amd64"), ("signoff-mock", roots / "mock")):
            run(["buildah", "build", "--quiet", "--build-context", f"build={root}", "--tag", name, str(ROOT)])
        subprocess.run(["podman", "import", "--quiet", "-", "busybox"], input=busybox(), check=True, capture_output=True)
        self("network", "create", "--subnet", SUBNET, NETWORK)

    def __call__(self, *arguments):
        return run(["podman", *arguments])

    def serve(self):
        """What docker-compose speaks to; it ends with this world."""
        subprocess.Popen(["podman", "system", "service", "--time=0", "unix:///run/podman.sock"], stderr=subprocess.DEVNULL)
        eventually("podman's socket is there", lambda: os.path.exists("/run/podman.sock"))

    def start_manager(self):
        self(
            "run", "--detach", "--name=manager", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
            # One that comes back has its old addresses: nobody has to find out anew where it is.
            f"--network={NETWORK}", f"--ip={MANAGER}", "--mac-address=02:00:00:00:00:02", f"--volume={self.tables}:/table", "signoff-mock",
            "mock-manager", "--grpc-listen=0.0.0.0:65003", "--state=/table/table",
        )  # fmt: skip

    def lose_manager(self):
        self("rm", "--force", "--time=0", "manager")

    def empty(self):
        """Whether there is no container any more. One that others depend on is refused until those are gone."""
        subprocess.run(["podman", "rm", "--all", "--force", "--time=0"], capture_output=True)
        return not self("ps", "--all", "--quiet").strip()

    def state(self, ip=FIRST):
        return next((row["state"] for row in self.table.row(ip)), None)


def busybox():
    """An image's files: busybox alone, under the names that compose.yaml calls it by."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(os.path.realpath(tool("busybox")), "bin/busybox")
        for name in ("sh", "grep", "sleep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return archive.getvalue()


class Project:
    """compose.yaml as it is, with test.yaml over it, in the hands of one tool."""

    def __init__(self, engine, name, broken):
        self.engine, self.tool, self.broken = engine, name, broken
        self.directory = engine.directory / name
        shutil.copytree(ROOT / "compose", self.directory)
        self.edit("scheduler.yaml", lambda config: config["manager"].update(addr=f"{MANAGER}:65003"))
        if broken:
            self.edit("compose.yaml", lambda config: fails_without(broken, config["services"]))
        test = yaml.safe_load((TESTS / "compose/test.yaml").read_text())
        if broken == "alone":
            del test["services"]["agent"]
        (self.directory / "test.yaml").write_text(yaml.safe_dump(test))
        self.ip = FIRST

    def edit(self, name, change):
        path = self.directory / name
        config = yaml.safe_load(path.read_text())
        change(config)
        path.write_text(yaml.safe_dump(config))

    def command(self, *arguments):
        return [tool(self.tool), "-p", "signoff", "-f", "compose.yaml", "-f", "test.yaml", *arguments]

    def options(self):
        environment = {
            **os.environ, "AGENT_IMAGE": "localhost/signoff", "MOCK_IMAGE": "localhost/signoff-mock",
            "PAUSE_IMAGE": "localhost/busybox", "TEST_IP": self.ip, "TEST_MANAGER": f"{MANAGER}:65003", "TEST_NETWORK": NETWORK,
            "DOCKER_HOST": "unix:///run/podman.sock",
        }  # fmt: skip
        return {"cwd": self.directory, "env": environment}

    def __call__(self, *arguments):
        return run(self.command(*arguments), timeout=2 * container.BOUND, **self.options())

    def begin(self, *arguments):
        """The same, beside what follows; what is returned waits for its end."""
        process = subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **self.options()
        )

        def finish():
            said, _ = process.communicate(timeout=container.BOUND)
            require(process.returncode == 0, f"{arguments}: ended with {process.returncode}: {said}")

        return finish

    def inspect(self, service):
        """What podman says of the service's container: podman-compose joins its name with _, docker-compose with -."""
        names = self.engine("ps", "--all", "--format={{.Names}}").split()
        found = [name for name in names if name.replace("_", "-") == f"signoff-{service}-1"]
        return json.loads(self.engine("container", "inspect", found[0]))[0] if found else None

    def of(self, service, field):
        made = self.inspect(service)
        return made and made["State"][field]

    def kill(self, service):
        """As if it had crashed: the engine isn't asked."""
        os.kill(self.of(service, "Pid"), signal.SIGKILL)

    def signoff(self, *arguments):
        return self("exec", "-T", "agent", "signoff", *arguments)

    def log(self, service):
        done = subprocess.run(["podman", "logs", self.inspect(service)["Id"]], capture_output=True, text=True)
        return done.stdout + done.stderr

    def sees(self):
        """Whether the agent has seen the scheduler serve, and its row in the manager."""
        if self.broken == "alone":
            return True
        try:
            said = self.signoff("status")
        except Failed:
            return False
        return "listed by the manager" in said and "serving at" in said

    def asks(self):
        volume = json.loads(self.engine("volume", "inspect", "signoff_spool"))[0]["Mountpoint"]
        return list(pathlib.Path(volume).glob("*.ask.json"))

    def up(self):
        self("up", "-d")
        eventually("the row is active", lambda: self.engine.state(self.ip) == "active")
        eventually("the agent sees its scheduler and its row", self.sees)


def scenes(engine, name, broken):
    project = Project(engine, name, broken)
    # Each as in one sentence of docs/compose.md.
    for scene in (
        it_is_a_compose_file_for_the_tool,
        a_start,
        a_stop_while_the_manager_is_away_for_a_moment,
        *(() if broken else (
            the_agent_is_killed,
            the_scheduler_is_killed,
            down_while_the_manager_is_away_is_replayed_by_the_next_agent,
            a_new_ip_after_all_was_lost,
        )),
    ):  # fmt: skip
        began = time.monotonic()
        scene(project)
        print(f"  {scene.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    project("down", "-v")
    require(not project.inspect("agent"), "down leaves a container")


def it_is_a_compose_file_for_the_tool(project):
    config = yaml.safe_load(project("config"))
    require(set(SERVICES) - {project.broken == "alone" and "agent"} == set(config["services"]), config["services"])


def a_start(project):
    project.engine.start_manager()
    project.up()
    if project.broken:
        return
    started = [project.of(service, "StartedAt") for service in SERVICES]
    require(started == sorted(started), f"not started one after the other: {started}")
    said = project.signoff("check")
    require(" 0 failed" in said, said)
    if os.environ.get("SIGNOFF_TRANSCRIPT"):
        print(project.signoff("status"), said, sep="")
    for service in ("network", "agent"):
        made = project.inspect(service)
        require(made["HostConfig"]["ReadonlyRootfs"], f"{service}: its root isn't read-only")
        require(made["Config"]["User"] == "65532:65532", f"{service}: {made['Config']['User']}")
        require(not made["EffectiveCaps"] and not made["BoundingCaps"], f"{service}: {made['EffectiveCaps']} {made['BoundingCaps']}")
        status = pathlib.Path(f"/proc/{made['State']['Pid']}/status").read_text()
        require("NoNewPrivs:\t1" in status, f"{service}: it may get new privileges")


def a_stop_while_the_manager_is_away_for_a_moment(project):
    engine = project.engine
    engine.lose_manager()
    stopped = project.begin("stop")
    eventually("the scheduler has stopped", lambda: project.of("scheduler", "Status") == "exited")
    if project.broken != "alone":
        # To podman one that was told to stop is no longer running.
        status = project.of("agent", "Status")
        require(status in ("running", "stopping"), f"the agent ended before its scheduler: {status}")
    require(engine.state() == "active", "the manager was away, and yet the row isn't active any more")
    engine.start_manager()
    eventually("the row is inactive", lambda: engine.state() == "inactive")
    stopped()
    ended = [project.of(service, "FinishedAt") for service in reversed(SERVICES)]
    require(ended == sorted(ended), f"scheduler, agent, network: not stopped one after the other: {ended}")
    require(project.of("agent", "ExitCode") == 0, f"the agent ended with {project.of('agent', 'ExitCode')}")
    require('"attempt.outcome":"confirmed"' in project.log("agent"), project.log("agent"))
    project.up()


def the_agent_is_killed(project):
    agent, scheduler = (project.of(service, "Pid") for service in ("agent", "scheduler"))
    project.kill("agent")
    eventually("it is back", lambda: project.of("agent", "Pid") not in (0, agent))
    eventually("it sees its scheduler and its row", project.sees)
    require(project.of("scheduler", "Pid") == scheduler, "the scheduler was restarted too")
    require(project.engine.state() == "active", "the row isn't active")


def the_scheduler_is_killed(project):
    agent, scheduler = (project.of(service, "Pid") for service in ("agent", "scheduler"))
    project.kill("scheduler")
    eventually("it is back", lambda: project.of("scheduler", "Pid") not in (0, scheduler))
    eventually("the agent sees it again", project.sees)
    eventually("the row is active", lambda: project.engine.state() == "active")
    require(project.of("agent", "Pid") == agent, "the agent was restarted too")


def down_while_the_manager_is_away_is_replayed_by_the_next_agent(project):
    engine = project.engine
    engine.lose_manager()
    project("down")
    require(engine.state() == "active", "the manager was away, and yet the row isn't active any more")
    require(project.asks(), "the sign-off isn't in the spool")
    listed = project("run", "--rm", "-T", "agent", "queue", "list")
    require("scheduler-0/" in listed, listed)
    engine.start_manager()
    # Without a scheduler: whoever makes the row inactive has it from the spool.
    project("up", "-d", "network", "agent")
    require(not project.inspect("scheduler"), "there is a scheduler")
    eventually("the row is inactive", lambda: engine.state() == "inactive")
    project("down")


def a_new_ip_after_all_was_lost(project):
    engine = project.engine
    project.up()
    engine.lose_manager()
    # The agent first: it must not write anything down. In no time SIGTERM is left out.
    engine("stop", "--time=0", project.inspect("agent")["Id"])
    for service in reversed(SERVICES):
        engine("rm", "--force", "--time=0", project.inspect(service)["Id"])
    require(not project.asks(), "something was written down")
    engine.start_manager()
    require(engine.state() == "active", "the row of before isn't active")
    project.ip = SECOND
    project.up()
    eventually("the row of before is inactive", lambda: engine.state(FIRST) == "inactive")
    require(engine.state(SECOND) == "active", "the new row isn't active")


def work(directory, roots, names, broken):
    run(["ip", "link", "set", "lo", "up"])
    for path in ELSEWHERE:
        os.makedirs(path, exist_ok=True)
        mount("tmpfs", path, "tmpfs", 0)
    engine = Engine(directory, roots)
    try:
        engine.serve()
        for name in names:
            print(f"{name}, {run([tool(name), '--version']).splitlines()[0]}", flush=True)
            scenes(engine, name, broken)
            engine.lose_manager()
            engine.table.path.unlink()
        return 0
    except (Failed, AssertionError, subprocess.SubprocessError) as error:
        print(f"FAILED: {error}", file=sys.stderr, flush=True)
        for name in engine("ps", "--all", "--format={{.Names}}").split():
            done = subprocess.run(["podman", "logs", "--tail=15", name], capture_output=True, text=True)
            print(f"--- {name}: {engine('container', 'inspect', '--format={{json .State}}', name)}{done.stdout}{done.stderr}", file=sys.stderr)
        return 1
    finally:
        eventually("no container is left", engine.empty)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("roots", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--break", dest="broken", choices=("order", "network", "alone"))
    asked = parser.parse_args()
    # podman-compose stops all services at once, docker-compose one after the other: each needs something else.
    needed = {"order": TOOLS[1:], "network": TOOLS[:1], "alone": TOOLS}.get(asked.broken, TOOLS)
    names = [name for name in needed if tool(name)]
    if not names:
        print(f"SKIPPED tests/compose: {' and '.join(needed)} missing", file=sys.stderr)
        return int(os.environ.get("CI") == "true")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="signoff-compose-"))
    directory.chmod(0o755)
    # Of podman's own making: whoever else has a container here keeps it.
    before = cgroups()
    try:
        return enter_a_world(lambda: work(directory, asked.roots, names, asked.broken))
    finally:
        eventually("the directory is gone", lambda: shutil.rmtree(directory, ignore_errors=True) or not directory.exists())
        if not before:
            eventually("podman's cgroups are gone", lambda: not swept())


def cgroups():
    return [path for depth in ("", "*/") for path in pathlib.Path("/sys/fs/cgroup").glob(f"{depth}libpod_parent")]


def swept():
    """What is left of podman's cgroups after the empty ones are removed, deepest first."""
    for top in cgroups():
        for path in sorted([top, *(path for path in top.rglob("*") if path.is_dir())], reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
    return cgroups()


if __name__ == "__main__":
    code = main()
    if code == 0:
        print("tests/compose: all as promised")
    sys.exit(code)
