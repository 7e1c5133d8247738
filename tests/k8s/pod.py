"""A pod, run from its manifest as a kubelet would, and what it shares with others.

Each container gets a root file system like that of an image with nothing but the program in it, and its own mount, PID
and UTS namespaces; its command, environment, mounts, user, capabilities and read-only root are the manifest's, letter for
letter, and so are the probes' and hooks' commands, which are run inside it. All share one network namespace, where each
pod has its address on an ordinary device, the Services and the node on the loopback device; the names of Services are in
/etc/hosts, as there is no DNS. Needs root.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import time
import urllib.request

from container import BOUND, CLUSTER_IP, NODE_IP, Container, Network, expand, is_signoff


class Cluster:
    """The rendered resources, by kind and name, and what the pods of them share: the network, and what runs a container."""

    def __init__(self, docs, dir, binary, network=None, runtime=Container):
        self.docs = docs
        self.dir = pathlib.Path(dir)
        self.binary = pathlib.Path(binary).resolve()
        self.network = network or Network()
        self.runtime = runtime
        self.services = {}
        for number, service in enumerate(doc for doc in docs if doc["kind"] == "Service"):
            if service["spec"].get("clusterIP") != "None":
                ip = f"10.96.0.{10 + number}"
                self.network.add_service(ip)
                self.services[service["metadata"]["name"]] = (ip, service)

    def find(self, kind, name):
        for doc in self.docs:
            if doc["kind"] == kind and doc["metadata"]["name"] == name:
                return doc
        raise AssertionError(f"no {kind} {name} is rendered")

    def hosts(self):
        for name, (ip, service) in self.services.items():
            namespace = service["metadata"].get("namespace", "default")
            yield f"{ip}\t{name}.{namespace}.svc.cluster.local {name}.{namespace}.svc {name}.{namespace} {name}"

    def data(self, kind, name):
        """The keys of a ConfigMap or Secret."""
        doc = self.find(kind, name)
        return {**doc.get("data", {}), **doc.get("stringData", {})}


class Pod:
    """One pod of a workload: `start` and `stop` are what the kubelet does."""

    def __init__(self, cluster, workload, name, ip):
        self.cluster, self.name, self.ip = cluster, name, ip
        self.namespace = workload["metadata"].get("namespace", "default")
        self.service = workload["spec"].get("serviceName")
        template = workload["spec"]["template"] if workload["kind"] != "CronJob" else None
        self.template = template or workload["spec"]["jobTemplate"]["spec"]["template"]
        self.spec = self.template["spec"]
        self.claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        self.uid = f"{name}-{ip}"
        self.dir = cluster.dir / "kubelet" / "pods" / self.uid
        self.containers = {}
        self.volumes = {}
        for volume in self.spec.get("volumes", []):
            self.volumes[volume["name"]] = self.make_volume(volume)
        for claim in self.claims:
            self.volumes[claim] = self.directory("csi", claim, 0o755)
        cluster.network.add(ip)

    def directory(self, plugin, name, mode):
        path = self.dir / "volumes" / f"kubernetes.io~{plugin}" / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        return path

    def make_volume(self, volume):
        name = volume["name"]
        if "emptyDir" in volume:
            return self.directory("empty-dir", name, 0o777)
        if "hostPath" in volume:
            # As the kubelet makes it: root's, and 0755.
            path = self.cluster.dir / "node" / volume["hostPath"]["path"].lstrip("/")
            path.mkdir(parents=True, exist_ok=True)
            return path
        if "image" in volume:
            path = self.directory("image", name, 0o755)
            (path / "usr/local/bin").mkdir(parents=True, exist_ok=True)
            shutil.copy(self.cluster.binary, path / "usr/local/bin/signoff")
            return path
        kind, source = ("ConfigMap", volume["configMap"]) if "configMap" in volume else ("Secret", volume["secret"])
        path = self.directory(kind.lower(), name, 0o755)
        data = self.cluster.data(kind, source.get("name") or source.get("secretName"))
        items = source.get("items") or [{"key": key, "path": key} for key in data]
        for item in items:
            (path / item["path"]).write_text(data[item["key"]])
            mode = source.get("defaultMode", 0o644)
            group = self.spec.get("securityContext", {}).get("fsGroup")
            if group is not None:
                # As the kubelet does: the group's, which may read what its owner may.
                os.chown(path / item["path"], 0, group)
                mode |= mode >> 3 & 0o040
            (path / item["path"]).chmod(mode)
        return path

    def field(self, path):
        fields = {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "metadata.uid": self.uid,
            "spec.nodeName": "node-1",
            "status.podIP": self.ip,
            "status.podIPs": self.ip,
            "status.hostIP": NODE_IP,
            "status.hostIPs": NODE_IP,
        }
        label = re.fullmatch(r"metadata\.labels\['(.+)'\]", path)
        if label:
            # As the kubelet: empty where there is no such label.
            return self.template["metadata"].get("labels", {}).get(label[1], "")
        return fields[path]

    def environment(self, container):
        """What the runtime, the kubelet and the manifest set, in that order."""
        # The first is what our image sets, the other a runtime's default.
        path = (
            "/usr/local/bin" if is_signoff(container["image"]) else "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        )
        found = {"PATH": path, "HOSTNAME": self.name}
        found["KUBERNETES_SERVICE_HOST"], found["KUBERNETES_SERVICE_PORT"] = CLUSTER_IP, "443"
        if self.spec.get("enableServiceLinks", True):
            for name, (ip, service) in self.cluster.services.items():
                prefix, port = name.upper().replace("-", "_"), service["spec"]["ports"][0]["port"]
                found[f"{prefix}_SERVICE_HOST"], found[f"{prefix}_SERVICE_PORT"] = ip, str(port)
                found[f"{prefix}_PORT"] = f"tcp://{ip}:{port}"
        for entry in container.get("env", []):
            if "valueFrom" not in entry:
                found[entry["name"]] = expand(entry.get("value", ""), found)
            elif "fieldRef" in entry["valueFrom"]:
                found[entry["name"]] = self.field(entry["valueFrom"]["fieldRef"]["fieldPath"])
            else:
                reference = entry["valueFrom"]["secretKeyRef"]
                found[entry["name"]] = self.cluster.data("Secret", reference["name"])[reference["key"]]
        return found

    def create(self, container):
        made = self.cluster.runtime(self, container)
        self.containers[container["name"]] = made
        made.start()
        return made

    def start(self, after_sidecar=lambda: None):
        """The init containers one after the other, a native sidecar until it has started, then all others."""
        for container in self.spec.get("initContainers", []):
            made = self.create(container)
            if container.get("restartPolicy") == "Always":
                made.wait_until_started()
                after_sidecar()
            elif (code := made.wait()) != 0:
                raise AssertionError(f"init container {made.name} ended with {code}: {made.log()}")
        for container in self.spec["containers"]:
            self.create(container)
        for container in self.spec["containers"]:
            self.containers[container["name"]].wait_until_started()

    def natives(self):
        inits = self.spec.get("initContainers", [])
        return [self.containers[one["name"]] for one in inits if one.get("restartPolicy") == "Always"]

    def regulars(self):
        return [self.containers[one["name"]] for one in self.spec["containers"]]

    def stop(self, before_sigterm=lambda: None):
        """As at a deletion; the seconds from its beginning until each container had gone, by name."""
        began = time.monotonic()
        end = began + self.spec.get("terminationGracePeriodSeconds", 30)
        hooks = [container.begin_hook() for container in self.natives() + self.regulars()]
        for hook in hooks:
            hook()
        before_sigterm()
        for container in self.regulars():
            container.signal(signal.SIGTERM)
        gone = {}
        for containers in ([], self.regulars()), (self.natives()[::-1], self.natives()):
            for container in containers[0]:
                # The least that a kubelet gives.
                end = max(end, time.monotonic() + 2)
                container.signal(signal.SIGTERM)
            for container in containers[1]:
                container.wait(end)
                gone[container.name] = time.monotonic() - began
        return gone


def answers(port, ip):
    try:
        socket.create_connection((ip, port), timeout=1).close()
    except OSError:
        return False
    return True


class Manager:
    """What the mock manager's own page says and does."""

    ADMIN = "http://127.0.0.1:8081"

    def answers(self):
        return answers(8081, "127.0.0.1")

    def rows(self):
        with urllib.request.urlopen(f"{self.ADMIN}/state", timeout=BOUND) as answer:
            return json.load(answer)["rows"]

    def row(self, ip):
        return [row for row in self.rows() if row["ip"] == ip]
