"""podman as the runtime of tests/k8s' pods: the image's own files, on a network with a name server, all as a kubelet would have it.

What a manifest means (volumes, environment, the order of a pod's life) is tests/k8s/pod.py's; here is what runs a container.
"""

import io
import json
import os
import pathlib
import signal
import subprocess
import tarfile

from container import BOUND, Container, image_name
from render import ROOT, run

NAMESPACE = "dragonfly"
DOMAIN = f"{NAMESPACE}.svc.cluster.local"
# The bridge's, and the name server's: in the network of tests/k8s' addresses.
GATEWAY = "10.244.0.1"


class Table:
    """The mock manager's table, out of the file that a killed one leaves too."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def answers(self):
        return self.path.exists()

    def rows(self):
        try:
            return json.loads(self.path.read_text())["rows"]
        except (FileNotFoundError, json.JSONDecodeError):
            return []

    def row(self, ip):
        return [row for row in self.rows() if row["ip"] == ip]


class Network:
    """A bridge in a network namespace of its own, with a namespace for each address on it, and a name server."""

    made = 0

    def __init__(self):
        Network.made += 1
        self.id = f"signoff-{os.getpid()}-{Network.made}"
        self.spaces, self.dns = {}, None

    def __enter__(self):
        self.space(GATEWAY, self.id)
        inside = ["ip", "-n", self.id]
        run([*inside, "link", "add", "bridge", "type", "bridge"])
        run([*inside, "addr", "add", f"{GATEWAY}/16", "dev", "bridge"])
        run([*inside, "link", "set", "bridge", "up"])
        return self

    def space(self, ip, name):
        run(["ip", "netns", "add", name])
        self.spaces[ip] = name
        run(["ip", "-n", name, "link", "set", "lo", "up"])

    def add(self, ip):
        """A namespace with this address; a pod's next incarnation finds it there."""
        if ip in self.spaces:
            return
        number = len(self.spaces)
        name = f"{self.id}-{number}"
        self.space(ip, name)
        run(["ip", "-n", self.id, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name])
        run(["ip", "-n", self.id, "link", "set", f"v{number}", "master", "bridge", "up"])
        run(["ip", "-n", name, "addr", "add", f"{ip}/16", "dev", "eth0"])
        run(["ip", "-n", name, "link", "set", "eth0", "up"])
        run(["ip", "-n", name, "route", "add", "default", "via", GATEWAY])

    add_service = add

    def names(self, name, ip):
        """Lets the name server answer for a Service, and refuse all else of the cluster's."""
        self.dns = subprocess.Popen(
            ["ip", "netns", "exec", self.id, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
             "--bind-interfaces", f"--listen-address={GATEWAY}", "--local=/cluster.local/", "--pid-file=",
             f"--host-record={name},{ip}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __exit__(self, *_):
        if self.dns:
            self.dns.kill()
            self.dns.wait()
        for space in reversed(self.spaces.values()):
            subprocess.run(["ip", "netns", "del", space], capture_output=True)


class Podman:
    """podman and buildah with a store of their own."""

    # What Debian's podman asks for as root is more than a sandbox may have.
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")

    def __init__(self, temporary):
        self.store = [f"--root={temporary}/store", f"--runroot={temporary}/run", "--storage-driver=vfs"]
        self.command = ["podman", *self.store, "--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=file"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove_all()

    def remove_all(self):
        subprocess.run([*self.command, "rm", "--all", "--force", "--time=0"], capture_output=True)

    def __call__(self, *arguments):
        return run([*self.command, *arguments])

    def ok(self, *arguments):
        return subprocess.run([*self.command, *arguments], capture_output=True).returncode == 0

    def build(self, name, root):
        """The Dockerfile's final stage, with what `image/build` made in place of the stage before it."""
        run(["buildah", *self.store, "build", "--quiet", "--build-context", f"build={root.parent}", "--tag", name, str(ROOT)])

    def owners(self, name):
        """An image's files, and the user and group of each, as `user/group`."""
        container = self("create", name).strip()
        exported = subprocess.run([*self.command, "export", container], check=True, capture_output=True).stdout
        self("rm", container)
        with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
            return {
                each.name.removeprefix("./").rstrip("/") + ("/" if each.isdir() else ""): f"{each.uid}/{each.gid}" for each in archive
            }

    def inspect_image(self, name):
        return json.loads(self("image", "inspect", name))[0]

    def runtime(self, pod, manifest):
        """What makes a pod's containers."""
        return PodmanContainer(self, pod, manifest)


class PodmanContainer(Container):
    """A container of an image, run by podman: its files, its PATH and its user's name are the image's."""

    def __init__(self, podman, pod, manifest):
        super().__init__(pod, manifest)
        self.podman = podman
        before = pod.containers.get(self.name)
        self.id = f"{pod.name}.{self.name}.{0 if before is None else int(before.id.rsplit('.', 1)[1]) + 1}"
        self.dir.mkdir(parents=True, exist_ok=True)

    def files(self):
        """What a kubelet and a runtime write: (file, path in the container)."""
        pod = self.pod
        fqdn = f"{pod.name}.{pod.service}.{DOMAIN}\t" if pod.service else ""
        resolv = f"search {DOMAIN} svc.cluster.local cluster.local\nnameserver {GATEWAY}\noptions ndots:5\n"
        texts = {
            "/etc/hosts": f"127.0.0.1\tlocalhost\n{pod.ip}\t{fqdn}{pod.name}\n",
            "/etc/resolv.conf": resolv,
            "/dev/termination-log": "",
        }
        for path, text in texts.items():
            file = self.dir / pathlib.Path(path).name
            file.write_text(text)
            file.chmod(0o666)
            yield file, path, path.startswith("/etc/")

    def arguments(self):
        yield from (f"--name={self.id}", f"--network=ns:/run/netns/{self.pod.cluster.network.spaces[self.pod.ip]}", "--no-hosts")
        yield from (f"--hostname={self.pod.name}", *self.podman.limits)
        assert self.security("seccompProfile", None) == {"type": "RuntimeDefault"}, "podman's default is the runtime's default"
        if self.security("readOnlyRootFilesystem", False):
            yield from ("--read-only", "--read-only-tmpfs=false")
        if not self.security("allowPrivilegeEscalation", True):
            yield "--security-opt=no-new-privileges"
        yield from (f"--cap-drop={capability}" for capability in self.security("capabilities", {}).get("drop", []))
        yield f"--user={self.security('runAsUser', None)}:{self.security('runAsGroup', None)}"
        # PATH is to be the image's own: probes and hooks say just `signoff`.
        yield from (f"--env={key}={value}" for key, value in self.environment.items() if key not in ("PATH", "HOSTNAME"))
        for source, path, readonly in [*self.files(), *self.mounts()]:
            yield f"--volume={source}:{path}{':ro' if readonly else ''}"
        yield f"--entrypoint={json.dumps(self.command)}"
        # Where the image is said to be is the example's.
        yield image_name(self.manifest["image"])

    def start(self):
        self.podman("run", "--detach", *self.arguments())

    def begin(self, command):
        process = subprocess.Popen(
            [*self.podman.command, "exec", self.id, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

        def finish():
            said, _ = process.communicate(timeout=BOUND)
            return process.returncode, said

        return finish

    def signal(self, number):
        """Through the runtime."""
        if not self.ended():
            self.podman("kill", f"--signal={signal.Signals(number).name}", self.id)

    def ended(self):
        if self.status is None:
            state = json.loads(self.podman("container", "inspect", self.id))[0]["State"]
            if not state["Running"] and state["Status"] == "exited":
                self.status = state["ExitCode"]
        return self.status is not None

    def log(self):
        done = subprocess.run([*self.podman.command, "logs", self.id], capture_output=True, text=True)
        return done.stdout + done.stderr


