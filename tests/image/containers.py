"""Pods of a rendered manifest in podman containers, on a network of their own: as a kubelet would, for as much as the tests need."""

import io
import json
import os
import pathlib
import re
import subprocess
import tarfile
import time

import yaml

TREE = pathlib.Path(__file__).resolve().parents[2]
NAMESPACE = "dragonfly"
DOMAIN = f"{NAMESPACE}.svc.cluster.local"
SUBNET = "10.231.77"


def eventually(what, holds, limit):
    """Waits for a condition; the limit is only there so that a broken build ends."""
    end = time.monotonic() + limit
    while not (result := holds()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.05)
    return result


def rows(state):
    """The mock manager's table, out of its file: a host's rows' states by its name."""
    try:
        table = json.loads(pathlib.Path(state).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    states = {}
    for row in table["rows"]:
        states.setdefault(row["host_name"], []).append(row["state"])
    return states


def rendered(example):
    text = subprocess.run(
        ["kubectl", "kustomize", str(TREE / "k8s/examples" / example)], check=True, capture_output=True, text=True
    ).stdout
    return list(yaml.safe_load_all(text))


def workload(objects, kind, name):
    return next(each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


class Network:
    """A bridge, in a network namespace of its own, with a name server that knows the manager."""

    def __init__(self):
        self.id = f"signoff-{os.getpid()}"
        self.used, self.spaces, self.dns = 10, [], None

    def __enter__(self):
        self._space(self.id)
        inside = ("ip", "-n", self.id)
        run(*inside, "link", "add", "bridge", "type", "bridge")
        run(*inside, "addr", "add", f"{SUBNET}.1/24", "dev", "bridge")
        run(*inside, "link", "set", "bridge", "up")
        return self

    def _space(self, name):
        run("ip", "netns", "add", name)
        self.spaces.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")

    def join(self, name):
        """A namespace on the bridge: its name, and its address."""
        self.used += 1
        space, address = f"{self.id}-{name}", f"{SUBNET}.{self.used}"
        self._space(space)
        run("ip", "-n", self.id, "link", "add", f"v{self.used}", "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "-n", self.id, "link", "set", f"v{self.used}", "master", "bridge", "up")
        run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")
        run("ip", "-n", space, "route", "add", "default", "via", f"{SUBNET}.1")
        return space, address

    def names(self, name, address):
        """Lets the name server answer for a Service, and refuse all else."""
        self.dns = subprocess.Popen(
            ["ip", "netns", "exec", self.id, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
             "--bind-interfaces", f"--listen-address={SUBNET}.1", "--local=/cluster.local/", "--pid-file=",
             f"--host-record={name},{address}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __exit__(self, *_):
        if self.dns:
            self.dns.kill()
            self.dns.wait()
        for space in reversed(self.spaces):
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
        subprocess.run([*self.command, "rm", "--all", "--force", "--time=0"], capture_output=True)

    def __call__(self, *arguments):
        return run(*self.command, *arguments)

    def ok(self, *arguments):
        return subprocess.run([*self.command, *arguments], capture_output=True).returncode == 0

    def build(self, name, root):
        """The Dockerfile's final stage, with what `image/build` made in place of the stage before it."""
        run("buildah", *self.store, "build", "--quiet", "--build-context", f"build={root.parent}", "--tag", name, str(TREE))

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


class Pod:
    """One pod of a rendered template: a network namespace, volumes, and its containers when they are told to start."""

    def __init__(self, podman, network, temporary, name, spec, objects, service):
        self.podman, self.name, self.spec = podman, name, spec
        self.space, self.ip = network.join(name)
        self.fqdn = f"{name}.{service}.{DOMAIN}"
        if service == "manager":
            network.names(f"manager.{DOMAIN}", self.ip)
        self.dir = temporary / name
        self.dir.mkdir()
        self.init = spec.get("initContainers", [])
        self.containers = spec["containers"]
        self.volumes = {volume["name"]: self._volume(volume, objects) for volume in spec.get("volumes", [])}
        # As the kubelet writes them.
        (self.dir / "hosts").write_text(f"127.0.0.1\tlocalhost\n{self.ip}\t{self.fqdn}\t{name}\n")
        (self.dir / "resolv.conf").write_text(
            f"search {DOMAIN} svc.cluster.local cluster.local\nnameserver {SUBNET}.1\noptions ndots:5\n"
        )
        self.made = set()

    def _volume(self, volume, objects):
        if "hostPath" in volume:
            return pathlib.Path(volume["hostPath"]["path"])
        path = self.dir / volume["name"]
        path.mkdir()
        if "configMap" in volume:
            data = workload(objects, "ConfigMap", volume["configMap"]["name"])["data"]
            for key, text in data.items():
                (path / key).write_text(text)
        else:
            assert "emptyDir" in volume, volume
            # As the kubelet makes it.
            os.chmod(path, 0o777)
        return path

    def _environment(self, container):
        fields = {
            "metadata.name": self.name,
            "metadata.namespace": NAMESPACE,
            "status.podIP": self.ip,
            "status.hostIP": f"{SUBNET}.1",
            "status.hostIPs": f"{SUBNET}.1",
        }
        return {
            each["name"]: each["value"] if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for each in container.get("env", [])
        }

    def _arguments(self, container):
        environment = self._environment(container)

        def expand(word):
            return re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], word)

        security = container["securityContext"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, "podman's default is the runtime's default"
        yield from (f"--name={self._id(container['name'])}", f"--network=ns:/run/netns/{self.space}", f"--hostname={self.name}")
        yield from self.podman.limits
        yield "--no-hosts"
        for file in ("hosts", "resolv.conf"):
            yield f"--volume={self.dir / file}:/etc/{file}:ro"
        if security.get("readOnlyRootFilesystem"):
            yield from ("--read-only", "--read-only-tmpfs=false")
        if security.get("allowPrivilegeEscalation") is False:
            yield "--security-opt=no-new-privileges"
        yield from (f"--cap-drop={capability}" for capability in security.get("capabilities", {}).get("drop", []))
        yield f"--user={security['runAsUser']}:{security['runAsGroup']}"
        for key, value in environment.items():
            yield f"--env={key}={expand(value)}"
        for mount in container.get("volumeMounts", []):
            source = self.volumes[mount["name"]]
            if "subPath" in mount:
                source = source / mount["subPath"]
                source.mkdir(exist_ok=True)
            yield f"--volume={source}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"
        command = [expand(word) for word in container.get("command", [])]
        if command:
            yield f"--entrypoint={json.dumps(command)}"
        # Where the image is said to be is the example's; its last part is its name.
        yield re.sub(r"^.*/|:[^:/]*$", "", container["image"])
        yield from (expand(word) for word in container.get("args", []))

    def _id(self, container):
        return f"{self.name}.{container}"

    def _container(self, name):
        return next(each for each in self.init + self.containers if each["name"] == name)

    def start(self, name):
        """Starts a container, or starts it again."""
        if name in self.made:
            self.podman("start", self._id(name))
        else:
            self.made.add(name)
            self.podman("run", "--detach", *self._arguments(self._container(name)))

    def run(self, name):
        """An init container: to its end."""
        self.podman("run", *self._arguments(self._container(name)))

    def exec(self, name, *command):
        return self.podman("exec", self._id(name), *command)

    def exec_ok(self, name, *command):
        return self.podman.ok("exec", self._id(name), *command)

    def spawn(self, name, *command):
        return subprocess.Popen([*self.podman.command, "exec", self._id(name), *command])

    def stop(self, name):
        """SIGTERM through the runtime, and SIGKILL when the grace is over. The exit code."""
        self.podman("stop", f"--time={self.spec.get('terminationGracePeriodSeconds', 30)}", self._id(name))
        return self._state(name)["ExitCode"]

    def kill(self, name):
        self.podman("kill", "--signal=KILL", self._id(name))
        eventually(f"{name} is gone", lambda: not self.running(name), 30)

    def _state(self, name):
        return json.loads(self.podman("container", "inspect", self._id(name)))[0]["State"]

    def running(self, name):
        return self._state(name)["Running"]

    def log(self, name):
        done = subprocess.run([*self.podman.command, "logs", self._id(name)], capture_output=True, text=True)
        return done.stdout + done.stderr
