"""A Kubernetes with one node, or two, in namespaces of its own.

Whatever is started, mounted or put into the network is inside `enter_a_world`'s namespaces, and ends with them. Outside of them are only
the directory and the cgroups: `Keeper` takes those away.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "k8s"))

from container import LIBC, PDEATHSIG, mount  # noqa: E402
from render import Failed, run  # noqa: E402
from wait import eventually  # noqa: E402

CGROUPS = pathlib.Path("/sys/fs/cgroup")
DNS = "10.0.0.1"
# How long the whole of it may take to be up.
BOUND = 180


class Keeper:
    """Runs a command that enters a world, and takes away what that leaves outside of it, however it ends."""

    def __init__(self, dir):
        self.dir, self.name = dir, dir.name

    def hierarchies(self):
        """Every cgroup hierarchy's root: one with cgroups v2."""
        if (CGROUPS / "cgroup.controllers").exists():
            return [CGROUPS]
        return sorted(each for each in CGROUPS.iterdir() if (each / "cgroup.procs").exists() and not each.is_symlink())

    def make(self):
        for hierarchy in self.hierarchies():
            for group in (hierarchy / self.name, hierarchy / self.name / "node-2"):
                group.mkdir()
                for one in ("cpuset.cpus", "cpuset.mems"):
                    if (group / one).exists() and not (group / one).read_text().strip():
                        (group / one).write_text((group.parent / one).read_text())

    def keep(self, command):
        ended = []

        def end(number, _):
            ended.append(number)
            process.kill()

        self.make()
        process = subprocess.Popen(command, preexec_fn=lambda: LIBC.prctl(PDEATHSIG, signal.SIGKILL), start_new_session=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end)
        try:
            code = process.wait()
        finally:
            self.take_away()
        return 128 + ended[0] if ended else code

    def take_away(self):
        # The world's processes end at once, but not within this line.
        eventually("the cgroups are empty", self.cgroups_are_gone, within=60)
        eventually("the directory is gone", self.directory_is_gone, within=60)

    def cgroups_are_gone(self):
        for hierarchy in self.hierarchies():
            top = hierarchy / self.name
            for path, _, _ in os.walk(top, topdown=False):
                os.rmdir(path)
            if top.exists():
                return False
        return True

    def directory_is_gone(self):
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.dir)], capture_output=True)
        return not self.dir.exists()


class Node:
    """A kubelet, a containerd and a proxy, in the network of this process or in one of their own."""

    def __init__(self, cluster, number):
        self.cluster, self.number, self.name = cluster, number, f"node-{number}"
        self.ip, self.pods = f"10.0.0.{number}", f"10.244.{number}"
        self.dir = cluster.dir / self.name
        self.inside = [] if number == 1 else ["nsenter", f"--net=/run/netns/{self.name}"]
        self.socket = self.dir / "containerd.sock"
        self.processes = {}

    def up(self):
        self.dir.mkdir()
        (self.dir / "containerd.toml").write_text(self.containerd_toml())
        (self.dir / "cni").mkdir()
        (self.dir / "cni/10-bridge.conflist").write_text(json.dumps(self.network()))
        (self.dir / "kubelet.yaml").write_text(json.dumps(self.kubelet_yaml()))
        (self.dir / "resolv.conf").write_text(f"nameserver {DNS}\n")
        self.start("containerd", "containerd", "--config", str(self.dir / "containerd.toml"))
        eventually("containerd answers", lambda: self.ctr("version"), BOUND)
        for image in self.cluster.images:
            self.ctr("images", "import", str(image))
        self.start_kubelet()
        self.start(
            "proxy", self.cluster.program, "proxy", f"--kubeconfig={self.cluster.kubeconfig}", f"--hostname-override={self.name}",
            "--proxy-mode=iptables", "--cluster-cidr=10.244.0.0/16", "--conntrack-max-per-core=0", "--conntrack-min=0",
        )  # fmt: skip
        try:
            eventually(f"{self.name} is ready", self.ready, within=60)
        except Failed as failed:
            log = (self.cluster.logs / f"{self.name}.kubelet.log").read_text()
            raise Failed(f"{failed}; its kubelet said last: {log[-1500:]}") from failed

    def link(self):
        """Two ends of one cable: the nodes. The pods' bridge is there before its first pod."""
        if self.number == 1:
            run(["ip", "link", "set", "lo", "up"])
            run(["ip", "link", "add", "node-1", "type", "veth", "peer", "name", "cable"])
            space = []
            device = "node-1"
            run(["ip", "link", "set", "cable", "up"])
        else:
            run(["ip", "netns", "add", self.name])
            run(["ip", "link", "set", "cable", "netns", self.name])
            space, device = ["-n", self.name], "cable"
            run(["ip", *space, "link", "set", "lo", "up"])
        other = 3 - self.number
        for command in (
            ["addr", "add", f"{self.ip}/24", "dev", device],
            ["link", "set", device, "up"],
            ["link", "add", "pods", "type", "bridge"],
            ["addr", "add", f"{self.pods}.1/24", "dev", "pods"],
            ["link", "set", "pods", "up"],
            ["route", "add", f"10.244.{other}.0/24", "via", f"10.0.0.{other}"],
            ["route", "add", "10.96.0.0/16", "dev", device],
        ):
            run(["ip", *space, *command])
        run([*self.inside, "sysctl", "-qw", "net.ipv4.ip_forward=1"])

    def network(self):
        ranges = [[{"subnet": f"{self.pods}.0/24"}]]
        ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": str(self.dir / "ipam")}
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": ipam}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]}

    def containerd_toml(self):
        return f"""version = 2
root = "{self.dir}/containerd"
state = "{self.dir}/containerd-run"
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""

    def kubelet_yaml(self):
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cluster.dir.name}" + ("" if self.number == 1 else f"/{self.name}"),
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.dir / "resolv.conf"),
            "evictionHard": {"memory.available": "50Mi"},
            "featureGates": {"KubeletInUserNamespace": True},
            "imageGCHighThresholdPercent": 100,
            "imageMinimumGCAge": "24h",
            "volumePluginDir": str(self.dir / "plugins"),
            "podLogsDir": str(self.dir / "logs"),
            "maxPods": 200,
            "registerWithTaints": [],
            "nodeStatusUpdateFrequency": "2s",
            # Many pods in one go are what is tested, not how slowly they are asked for.
            "registryPullQPS": 0,
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
            "syncFrequency": "10s",
        }

    def start(self, name, *command):
        log = (self.cluster.logs / f"{self.name}.{name}.log").open("ab")
        self.processes[name] = subprocess.Popen([*self.inside, *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def start_kubelet(self):
        self.start(
            "kubelet", self.cluster.program, "kubelet", f"--config={self.dir}/kubelet.yaml", f"--kubeconfig={self.cluster.kubeconfig}",
            f"--hostname-override={self.name}", f"--node-ip={self.ip}", f"--root-dir={self.dir}/kubelet", "--v=1",
        )  # fmt: skip

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()

    def ctr(self, *arguments):
        return run([*self.inside, "ctr", "-a", str(self.socket), "-n", "k8s.io", *arguments])

    def ready(self):
        conditions = self.cluster.api.get(f"/api/v1/nodes/{self.name}")["status"].get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def lose(self):
        """As when its power fails: nobody there says a last word, and what is sent to it is dropped."""
        run(["ip", "-n", self.name, "link", "set", "cable", "down"])
        self.kill("kubelet")
        self.kill("proxy")
        # The shims live on without their containerd; what is in this node's network or cgroups is its own.
        self.kill("containerd")
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pids(self):
        mark = f"/{self.cluster.dir.name}/{self.name}/"
        for each in pathlib.Path("/proc").iterdir():
            if not each.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if mark in (each / "cgroup").read_text() or str(self.socket) in (each / "cmdline").read_text():
                    yield int(each.name)


class Cluster:
    """etcd, the API server, the controllers, the scheduler, a name server, and node-1."""

    def __init__(self, dir, program, images, mock):
        self.dir, self.program, self.images, self.mock = dir, program, images, mock
        self.logs, self.kubeconfig = dir / "log", dir / "kubeconfig"
        self.nodes, self.api, self.processes = [], None, {}

    def start(self, name, *command):
        log = (self.logs / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def up(self):
        from api import Api

        for each in ("/run", "/var/lib", "/var/log"):
            mount("tmpfs", each, "tmpfs", 0, "mode=0755")
        for each in ("/run/netns", "/var/lib/signoff"):
            os.mkdir(each)
        pki = self.dir / "pki"
        for each in (self.logs, pki):
            each.mkdir()
        node = Node(self, 1)
        key, public = pki / "key", pki / "public"
        run(["openssl", "genrsa", "-out", str(key), "2048"])
        run(["openssl", "rsa", "-in", str(key), "-pubout", "-out", str(public)])
        (pki / "tokens").write_text("admin-token,admin,admin,system:masters\n")
        cluster = {"name": "c", "cluster": {"server": "https://10.0.0.1:6443", "insecure-skip-tls-verify": True}}
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [cluster],
                    "users": [{"name": "u", "user": {"token": "admin-token"}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        node.link()
        self.start("etcd", "etcd", "--data-dir", str(self.dir / "etcd"), "--unsafe-no-fsync")
        self.start(
            "apiserver", self.program, "apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0",
            "--secure-port=6443", "--advertise-address=10.0.0.1", f"--cert-dir={pki}/api", f"--token-auth-file={pki}/tokens",
            "--authorization-mode=RBAC", f"--service-account-key-file={public}", f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged=true", "--profiling=false", "--kubelet-preferred-address-types=InternalIP", "--enable-priority-and-fairness=false",
        )  # fmt: skip
        self.api = Api(self.kubeconfig)
        eventually("the API server is ready", lambda: self.api.text("/readyz") == "ok", BOUND)
        self.start(
            "controller-manager", self.program, "controller-manager", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false",
            f"--service-account-private-key-file={key}", "--use-service-account-credentials=false", "--profiling=false",
            f"--root-ca-file={pki}/api/apiserver.crt", "--node-monitor-grace-period=20s",
        )  # fmt: skip
        self.start("scheduler", self.program, "scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false")
        self.nodes.append(node)
        node.up()
        hosts = self.dir / "hosts"
        hosts.mkdir()
        self.start(
            "dnsmasq", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
            f"--listen-address={DNS}", "--bind-interfaces", "--local=/cluster.local/", "--pid-file=", f"--hostsdir={hosts}",
        )  # fmt: skip

    def name(self, namespace):
        """Lets the name server know a namespace's Services."""
        lines = []
        for one in self.api.get(f"/api/v1/namespaces/{namespace}/services")["items"]:
            ip = one["spec"].get("clusterIP")
            if ip and ip != "None":
                lines.append(f"{ip} {one['metadata']['name']}.{namespace}.svc.cluster.local\n")
        temporary = self.dir / f"{namespace}.hosts"
        temporary.write_text("".join(lines))
        temporary.rename(self.dir / "hosts" / namespace)

    def volume(self, name):
        """What a claim finds: nobody here makes volumes on demand."""
        source = {"path": str(self.dir / "volumes" / name), "type": "DirectoryOrCreate"}
        spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": source}
        self.api.post("/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": spec})

    def second_node(self):
        node = Node(self, 2)
        self.nodes.append(node)
        node.link()
        node.up()
        return node


def ignore_hangups():
    """Of the controlling terminal's: the keeper ends the world."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


