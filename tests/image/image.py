"""The part of tests/image/run that looks at the images and runs them: `image.py ROOTS`.

ROOTS has what image/build made, as it is in the Dockerfile's stage: signoff-root in amd64, mock and, where it could be built, arm64.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import zlib

from containers import Network, Pod, Podman, eventually, rendered, rows, workload

# An image's content, all files together.
LARGEST = 7 * 1024 * 1024
LONG = 60
TREE = pathlib.Path(__file__).resolve().parents[2]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def the_binary_is_static_and_carries_its_audit_data(root, machine):
    binary = root / "fs/usr/local/bin/signoff"
    headers = output("readelf", "--wide", "--program-headers", "--dynamic", "--file-header", str(binary))
    assert "INTERP" not in headers and "NEEDED" not in headers, headers
    assert machine in headers, headers
    section = output("readelf", "--wide", "--section-headers", str(binary))
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
        "etc/ssl/certs/ca-certificates.crt",
        "usr/local/bin/signoff",
        "usr/share/doc/signoff/LICENSE",
        "usr/share/doc/signoff/sbom.cdx.json",
    ], files
    size = sum((fs / file).stat().st_size for file in files)
    print(f"  {root.parent.name}: {size} bytes ({size / 1024 / 1024:.2f} MiB), the binary {(fs / files[4]).stat().st_size}")
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
    assert output(*qemu, "--version").startswith("signoff ")
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as running:
        state = f"{temporary}/table.json"

        def start(*command, env=None):
            process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
            running.callback(process.wait)
            running.callback(process.kill)
            return process

        # Said by the kernel: two ports nobody has.
        grpc, port = free_ports(2)
        start(
            str(mock), "mock-manager", f"--grpc-listen=127.0.0.1:{grpc}", "--rest-listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0", "--state", state,
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
            return rows(state) == {"arm-0": ["active"]}

        eventually("the scheduler's row is active", serves, LONG)
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
        eventually("the agent sees it serve", lambda: '"serving"' in status(qemu, env), LONG)
        # Stopped hard: its own stream's end is not what makes the row inactive for good.
        scheduler.send_signal(signal.SIGTERM)
        scheduler.wait()
        process.send_signal(signal.SIGTERM)
        process.wait()
        assert process.returncode == 0, (process.returncode, process.stderr.read())
        assert rows(state) == {"arm-0": ["inactive"]}, rows(state)
        history = json.loads(pathlib.Path(state).read_text())
        print(f"  arm64 under qemu: signed off, {len(history)} parts of the table's file read")


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
    with tempfile.TemporaryDirectory(prefix="signoff-image-") as temporary, contextlib.ExitStack() as stack:
        podman = stack.enter_context(Podman(pathlib.Path(temporary)))
        podman.build("signoff", amd64)
        podman.build("signoff-mock", mock)
        print("the image's configuration")
        the_dockerfile_leaves_the_architecture_to_the_builder()
        the_image_is_configured_for_a_cluster(podman)
        print("without a volume, hardened: an agent starts and answers")
        it_runs_alone_read_only_without_rights(podman)
        network = stack.enter_context(Network())
        with Cluster(podman, network, pathlib.Path(temporary)) as cluster:
            for scene in (
                a_stop_is_signed_off_through_the_runtimes_sigterm,
                a_sign_off_of_an_outage_is_replayed_by_the_restarted_container,
                a_drain_is_signed_off_while_the_scheduler_serves,
            ):
                print(scene.__name__.replace("_", " "))
                began = time.monotonic()
                scene(cluster)
                print(f"  ({time.monotonic() - began:.1f} s)")
    print("tests/image: all as promised")


def the_dockerfile_leaves_the_architecture_to_the_builder():
    """A default of a predefined argument wins over what BuildKit knows: each architecture's image would hold the same program."""
    lines = (TREE / "Dockerfile").read_text().splitlines()
    for argument in ("TARGETARCH", "BUILDPLATFORM"):
        assert not [line for line in lines if line.startswith(f"ARG {argument}=")]
    assert "ARG TARGETARCH" in lines


def the_image_is_configured_for_a_cluster(podman):
    image = podman.inspect_image("signoff")
    config = image["Config"]
    assert config["User"] == "65532:65532", config
    assert config["Entrypoint"] == ["/usr/local/bin/signoff"], config
    labels = config["Labels"]
    version = next(line for line in (TREE / "Cargo.toml").read_text().splitlines() if line.startswith("version = "))
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
    eventually("it has started", lambda: podman.ok("exec", "alone", "signoff", "status", "--started"), LONG)
    shown = json.loads(podman("exec", "alone", "signoff", "status", "-o", "json"))
    assert not shown.get("degraded"), shown
    podman("rm", "--force", "alone")


class Cluster:
    """A mock manager in a container, its table in a file, and the pods of the manifests beside it."""

    def __init__(self, podman, network, temporary):
        self.podman, self.network, self.temporary = podman, network, temporary
        self.state = temporary / "table/table.json"

    def __enter__(self):
        self.state.parent.mkdir()
        os.chmod(self.state.parent, 0o777)
        objects = rendered("sidecar")
        spec = workload(objects, "Deployment", "manager")["spec"]["template"]["spec"]
        # The manifest's keeps its table in memory; here the manager is killed and started again.
        spec["containers"][0]["command"].append("--state=/table/table.json")
        spec["containers"][0]["volumeMounts"] = [{"name": "table", "mountPath": "/table"}]
        spec["volumes"] = [{"name": "table", "hostPath": {"path": str(self.state.parent)}}]
        self.manager = Pod(self.podman, self.network, self.temporary, "manager", spec, objects, service="manager")
        self.manager.start("manager")
        eventually("the manager has its table", self.state.exists, LONG)
        return self

    def __exit__(self, *_):
        pass

    def pod(self, example, name, config=lambda text: text):
        """The pod `name` of an example's StatefulSet, as it would be with the scheduler.yaml that `config` makes of the rendered one."""
        objects = rendered(example)
        for each in objects:
            if each["kind"] == "ConfigMap" and "scheduler.yaml" in each.get("data", {}):
                each["data"]["scheduler.yaml"] = config(each["data"]["scheduler.yaml"])
        spec = workload(objects, "StatefulSet", "scheduler")["spec"]["template"]["spec"]
        return Pod(self.podman, self.network, self.temporary, name, spec, objects, service="scheduler")

    def up(self, pod):
        """Starts its containers in the kubelet's order, and waits until its row is active."""
        for container in pod.init:
            if container.get("restartPolicy") == "Always":
                pod.start(container["name"])
                probe = container["startupProbe"]["exec"]["command"]
                eventually("the startup probe succeeds", lambda: pod.exec_ok(container["name"], *probe), LONG)  # noqa: B023
            else:
                pod.run(container["name"])
        for container in pod.containers:
            pod.start(container["name"])
        self.becomes(pod, "active")
        eventually("the agent sees it serve", lambda: '"serving"' in pod.exec("signoff", "signoff", "status", "-o", "json"), LONG)

    def becomes(self, pod, state):
        eventually(f"the row of {pod.name} is {state}", lambda: rows(self.state).get(pod.fqdn) == [state], LONG)


def a_stop_is_signed_off_through_the_runtimes_sigterm(cluster):
    # A short name: the pod's search domains have to be tried.
    def short(text):
        assert "manager.dragonfly.svc.cluster.local:" in text
        return text.replace("manager.dragonfly.svc.cluster.local:", "manager:")

    pod = cluster.pod("sidecar", "scheduler-0", short)
    cluster.up(pod)
    assert pod.stop("scheduler") == 0
    assert pod.stop("signoff") == 0, pod.log("signoff")
    assert rows(cluster.state)[pod.fqdn] == ["inactive"]
    assert "Settled" in pod.log("signoff"), pod.log("signoff")


def a_sign_off_of_an_outage_is_replayed_by_the_restarted_container(cluster):
    pod = cluster.pod("sidecar", "scheduler-1")
    cluster.up(pod)
    cluster.manager.kill("manager")
    pod.stop("scheduler")
    spool = pod.volumes["signoff"] / "spool"
    eventually("the sign-off is in the spool", lambda: list(spool.glob("*.ask.json")), LONG)
    pod.kill("signoff")
    assert rows(cluster.state)[pod.fqdn] == ["active"], "the manager was gone: nobody could tell it"
    cluster.manager.start("manager")
    pod.start("signoff")
    cluster.becomes(pod, "inactive")
    # Confirmed, though the record is kept for a while: an attempt of the killed agent could still be applied.
    eventually("it is confirmed", lambda: "confirmed, watched" in pod.exec("signoff", "signoff", "status"), LONG)
    assert pod.stop("signoff") == 0, pod.log("signoff")


def a_drain_is_signed_off_while_the_scheduler_serves(cluster):
    pod = cluster.pod("drain", "scheduler-2")
    cluster.up(pod)
    scheduler = next(each for each in pod.containers if each["name"] == "scheduler")
    command = scheduler["lifecycle"]["preStop"]["exec"]["command"]
    hook = pod.spawn("scheduler", *command)
    cluster.becomes(pod, "inactive")
    # It lingers, the scheduler not yet told to stop.
    began = time.monotonic()
    assert pod.running("scheduler")
    assert hook.wait() == 0, pod.log("signoff")
    linger = next(int(word.removeprefix("--linger=").removesuffix("s")) for word in command if word.startswith("--linger="))
    # Its row was seen inactive a little after it was: half of it is more than a hook that doesn't wait could take.
    assert time.monotonic() - began > linger / 2, pod.log("scheduler")
    assert pod.stop("scheduler") == 0
    assert pod.stop("signoff") == 0, pod.log("signoff")
    assert rows(cluster.state)[pod.fqdn] == ["inactive"]


if __name__ == "__main__":
    main()
