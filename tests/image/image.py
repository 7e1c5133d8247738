"""The part of tests/image/run that looks at the images and runs them: `image.py ROOTS`.

ROOTS has what image/build made, as it is in the Dockerfile's stage: signoff-root in amd64, mock and, where it could be built, arm64.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "k8s"))

from container import eventually  # noqa: E402
from containers import DOMAIN, Network, Podman, Table  # noqa: E402
from life import MANAGER_IP, World, agent_of, is_signed_off  # noqa: E402
from render import ROOT, Tree, run, signoff_container  # noqa: E402

# An image's content, all files together.
LARGEST = 6 * 1024 * 1024


def the_binary_is_static_and_carries_its_audit_data(root, machine):
    binary = root / "fs/usr/local/bin/signoff"
    headers = run(["readelf", "--wide", "--program-headers", "--dynamic", "--file-header", str(binary)])
    assert "INTERP" not in headers and "NEEDED" not in headers, headers
    assert machine in headers, headers
    section = run(["readelf", "--wide", "--section-headers", str(binary)])
    line = next((line for line in section.splitlines() if ".dep-v0" in line), None)
    assert line, "no cargo-auditable data"
    offset, size = (int(field, 16) for field in line.split("PROGBITS")[1].split()[1:3])
    audited = json.loads(zlib.decompress(binary.read_bytes()[offset : offset + size]))
    crates = {package["name"] for package in audited["packages"] if package.get("kind") != "build"}
    assert {"signoff", "tokio", "rustls"} <= crates, crates
    return crates


def the_image_holds_what_it_should_and_nothing_else(root):
    fs = root / "fs"
    files = sorted(str(path.relative_to(fs)) for path in fs.rglob("*") if path.is_file())
    assert not [path for path in (root / "own").rglob("*") if path.is_file()]
    assert files == [
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "usr/local/bin/signoff",
        "usr/share/doc/signoff/LICENSE",
        "usr/share/doc/signoff/sbom.cdx.json",
    ], files
    size = sum((fs / file).stat().st_size for file in files)
    print(f"  {root.parent.name}: {size} bytes ({size / 1024 / 1024:.2f} MiB), the binary {(fs / files[3]).stat().st_size}")
    return size


def the_sbom_names_what_is_in_the_binary(root, audited):
    sbom = json.loads((root / "fs/usr/share/doc/signoff/sbom.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    named = {component["name"] for component in sbom["components"]} | {sbom["metadata"]["component"]["name"]}
    assert audited <= named, audited - named


def it_runs_on_arm64(roots):
    """A stop, played by the arm64 agent under qemu-user, against the mock of this machine."""
    mock, agent = roots / "mock/signoff-root/fs/usr/local/bin/signoff", roots / "arm64/signoff-root/fs/usr/local/bin/signoff"
    qemu = ["qemu-aarch64-static", str(agent)]
    assert run([*qemu, "--version"]).startswith("signoff ")
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as running:
        table = Table(f"{temporary}/table.json")

        def start(*command, env=None):
            process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
            running.callback(process.wait)
            running.callback(process.kill)
            return process

        # Said by the kernel: two ports nobody has.
        grpc, port = free_ports(2)
        start(
            str(mock), "mock-manager", f"--grpc-listen=127.0.0.1:{grpc}", "--rest-listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0", "--state", str(table.path),
        )  # fmt: skip
        scheduler = None

        def serves():
            nonlocal scheduler
            # It ends where the manager isn't there yet, as a real one does.
            if scheduler is None or scheduler.poll() is not None:
                scheduler = start(
                    str(mock), "mock-scheduler", "--hostname=arm-0", f"--port={port}",
                    f"--manager=127.0.0.1:{grpc}", "--keep-alive-interval=100ms",
                )  # fmt: skip
            return [row["state"] for row in table.rows()] == ["active"]

        eventually("the scheduler's row is active", serves)
        env = {
            **os.environ,
            "SIGNOFF_HOSTNAME": "arm-0",
            "SIGNOFF_IP": "127.0.0.1",
            "SIGNOFF_MANAGER": f"127.0.0.1:{grpc}",
            "SIGNOFF_SCHEDULER_ADDR": f"127.0.0.1:{port}",
            "SIGNOFF_SPOOL": f"{temporary}/spool",
            "SIGNOFF_RUN_DIR": f"{temporary}/run",
            "SIGNOFF_LISTEN": "127.0.0.1:0",
        }
        process = start(*qemu, "agent", env=env)
        eventually("the agent sees it serve", lambda: '"serving"' in status(qemu, env))
        scheduler.send_signal(signal.SIGTERM)
        scheduler.wait()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate()
        assert process.returncode == 0, (process.returncode, log)
        assert [row["state"] for row in table.rows()] == ["inactive"], table.rows()
        # The scheduler's own end makes the row inactive too: it is the agent that was told so.
        assert '"attempt.outcome":"confirmed"' in log, log


def status(qemu, env):
    return subprocess.run([*qemu, "status", "-o", "json"], env=env, capture_output=True, text=True).stdout


def free_ports(count):
    import socket

    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def main():
    roots = pathlib.Path(sys.argv[1])
    amd64, mock, arm64 = (roots / name / "signoff-root" for name in ("amd64", "mock", "arm64"))
    for root, machine in ((amd64, "X86-64"), (arm64, "AArch64")):
        if not root.exists():
            continue
        print(f"{root.parent.name}: the binary is static, audited, in the SBOM, and alone")
        audited = the_binary_is_static_and_carries_its_audit_data(root, machine)
        assert "axum" not in audited, "the mock is in the cluster's image"
        the_sbom_names_what_is_in_the_binary(root, audited)
        size = the_image_holds_what_it_should_and_nothing_else(root)
        assert size < LARGEST, f"{size} bytes are more than {LARGEST}"
    if arm64.exists():
        print("arm64: a sign-off under qemu-user")
        it_runs_on_arm64(roots)
    with a_directory() as temporary, contextlib.ExitStack() as stack:
        podman = stack.enter_context(Podman(pathlib.Path(temporary)))
        podman.build("signoff", amd64)
        podman.build("signoff-mock", mock)
        print("the image's configuration")
        the_dockerfile_leaves_the_architecture_to_the_builder()
        the_image_is_configured_for_a_cluster(podman)
        print("without a volume, hardened: an agent starts and answers")
        it_runs_alone_read_only_without_rights(podman)
        for scene in (
            a_stop_is_signed_off_through_the_runtimes_sigterm,
            a_sign_off_of_an_outage_is_replayed_by_the_restarted_container,
            a_drain_is_signed_off_while_the_scheduler_serves,
        ):
            print(scene.__name__.replace("_", " "))
            began = time.monotonic()
            with a_directory() as directory, Network() as network:
                os.chmod(directory, 0o755)
                scene(lambda example, config=lambda text: text: world(podman, network, directory, example, config))  # noqa: B023
                podman.remove_all()
            print(f"  ({time.monotonic() - began:.1f} s)")
    print("tests/image: all as promised")


@contextlib.contextmanager
def a_directory():
    """One that is removed in the end, though what podman left behind to tidy up after a container still writes there for a moment."""
    directory = tempfile.mkdtemp(prefix="signoff-image-")
    try:
        yield directory
    finally:

        def is_gone():
            shutil.rmtree(directory, ignore_errors=True)
            return not os.path.exists(directory)

        eventually("the directory is gone", is_gone)


def the_dockerfile_leaves_the_architecture_to_the_builder():
    """A default of a predefined argument wins over what BuildKit knows: each architecture's image would hold the same program."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    for argument in ("TARGETARCH", "BUILDPLATFORM"):
        assert not [line for line in lines if line.startswith(f"ARG {argument}=")]
    assert "ARG TARGETARCH" in lines


def the_image_is_configured_for_a_cluster(podman):
    image = podman.inspect_image("signoff")
    config = image["Config"]
    assert config["User"] == "65532:65532", config
    assert config["Entrypoint"] == ["/usr/local/bin/signoff"], config
    # A misspelt tunable is ignored without a word.
    assert "GLIBC_TUNABLES=glibc.malloc.arena_max=1:glibc.malloc.tcache_max=64" in config["Env"], config
    labels = config["Labels"]
    version = next(line for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version = "))
    assert f'"{labels["org.opencontainers.image.version"]}"' in version, (labels, version)
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0", labels
    print(f"  {image['Size']} bytes as podman counts")
    for path, owner in podman.owners("signoff").items():
        own = path in ("run/signoff/", "var/lib/signoff/")
        assert owner == ("65532/65532" if own else "0/0"), (path, owner)


HARDENED = (
    "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges",
)  # fmt: skip


def it_runs_alone_read_only_without_rights(podman):
    said = podman("run", "--rm", *podman.limits, *HARDENED, "--network=none", "signoff", "--version")
    assert said.startswith("signoff "), said
    # Its own directories belong to its user: without a volume and without --read-only it can write them.
    agent = ["agent", "--hostname=alone", "--ip=10.9.8.7", "--manager=127.0.0.1:1"]
    podman("run", "--detach", "--name=alone", *podman.limits, *HARDENED[2:], "--network=none", "signoff", *agent)
    eventually("it has started", lambda: podman.ok("exec", "alone", "signoff", "status", "--started"))
    shown = json.loads(podman("exec", "alone", "signoff", "status", "-o", "json"))
    assert not shown.get("degraded"), shown
    podman("rm", "--force", "alone")


def world(podman, network, directory, example, config):
    """An example's cluster: its mock manager runs, and its scheduler.yaml is what `config` makes of the rendered one."""
    docs = [doc for doc in Tree(ROOT / "k8s").render(f"examples/{example}") if doc["kind"] != "Service"]
    for doc in docs:
        if "scheduler.yaml" in doc.get("data", {}):
            doc["data"]["scheduler.yaml"] = config(doc["data"]["scheduler.yaml"])
    # In place of the Service.
    network.names(f"manager.{DOMAIN}", MANAGER_IP)
    table = Table(f"{directory}/database/table")
    return World(docs, directory, "", table=table, network=network, runtime=podman.runtime)


def up(made):
    """Its scheduler's row is active, and its agent has seen that it serves."""
    agent = agent_of(made)
    eventually("the agent sees it serve", lambda: '"serving"' in agent.run(["signoff", "status", "-o", "json"])[1])
    return agent


def a_stop_is_signed_off_through_the_runtimes_sigterm(new):
    # A short name: the pod's search domains have to be tried.
    def short(text):
        assert "manager.dragonfly.svc.cluster.local:" in text
        return text.replace("manager.dragonfly.svc.cluster.local:", "manager:")

    world = new("sidecar", short)
    made = world.started()
    agent = up(made)
    made.stop()
    assert made.containers["scheduler"].status == 0
    is_signed_off(world, made)
    assert "Settled" in agent.log(), agent.log()


def a_sign_off_of_an_outage_is_replayed_by_the_restarted_container(new):
    world = new("sidecar")
    made = world.started()
    agent = up(made)
    world.manager.signal(signal.SIGKILL)
    world.manager.wait()
    made.containers["scheduler"].signal(signal.SIGTERM)
    made.containers["scheduler"].wait()
    spool = made.volumes["signoff"] / "spool"
    eventually("the sign-off is in the spool", lambda: list(spool.glob("*.ask.json")))
    agent.signal(signal.SIGKILL)
    agent.wait()
    assert world.state() == "active", "the manager was gone: nobody could tell it"

    world.manager = world.manager.pod.create(world.manager.manifest)
    agent = made.create(signoff_container(made.spec))
    agent.wait_until_started()
    eventually("the row is inactive", lambda: world.state() == "inactive")
    # Confirmed, though the record is kept for a while: an attempt of the killed agent could still be applied.
    eventually("it is confirmed", lambda: "confirmed, watched" in agent.run(["signoff", "status"])[1])
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0, agent.log()
    assert world.state() == "inactive"


def a_drain_is_signed_off_while_the_scheduler_serves(new):
    world = new("drain")
    made = world.started()
    up(made)
    scheduler = made.containers["scheduler"]
    command = scheduler.manifest["lifecycle"]["preStop"]["exec"]["command"]
    hook = scheduler.begin(command)
    eventually("the row is inactive", lambda: world.state() == "inactive")
    # It lingers, the scheduler not yet told to stop.
    began = time.monotonic()
    assert not scheduler.ended()
    code, said = hook()
    assert code == 0, said
    linger = next(int(word.removeprefix("--linger=").removesuffix("s")) for word in command if word.startswith("--linger="))
    # Its row was seen inactive a little after it was: half of it is more than a hook that doesn't wait could take.
    assert time.monotonic() - began > linger / 2, said
    for container in (scheduler, agent_of(made)):
        container.signal(signal.SIGTERM)
        assert container.wait() == 0, container.log()
    is_signed_off(world, made)


if __name__ == "__main__":
    main()
