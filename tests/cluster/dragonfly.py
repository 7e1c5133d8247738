"""A Dragonfly of mocks in a namespace of its own, out of an example of k8s/ and an overlay."""

import http.client
import json
import os
import pathlib
import signal
import sys
import tempfile
import time

import yaml
from images import MOCK, SIGNOFF
from render import LOADER, ROOT, Failed, require, run, tool
from table import Table
from wait import eventually

# As k8s/ has it, and as these tests have it: a life is over sooner.
INTERVAL, SHORT = "interval: 5s", "interval: 1s"


def rendered(path, namespace, components=()):
    """An example, or a base, in that namespace: each object, and where names name the namespace they name that one."""
    with tempfile.TemporaryDirectory() as dir:
        dir = os.path.realpath(dir)
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": namespace,
            "resources": [os.path.relpath(ROOT / "k8s" / path, dir)],
            "components": [os.path.relpath(ROOT / "k8s/components" / each, dir) for each in components],
            "images": [
                {"name": name, "newName": image.rpartition(":")[0], "newTag": image.rpartition(":")[2]}
                for name, image in (("signoff", SIGNOFF), ("signoff-mock", MOCK))
            ],
        }
        (pathlib.Path(dir) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        text = run([tool("kubectl"), "kustomize", dir])
    for one in ("dragonfly", "dragonfly-system"):
        text = text.replace(f".{one}.svc", f".{namespace}.svc")
    return [doc for doc in yaml.load_all(text, LOADER) if doc]


def statuses(pod):
    """Of each of its containers, the sidecars' among them."""
    return [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]


def state_of(pod):
    containers = (f"{one['name']} {one['ready']} {json.dumps(one['state'])}" for one in statuses(pod))
    return ", ".join([pod["status"].get("phase", ""), *containers])


class World:
    """One Dragonfly. `broken` takes something out of it, as `--break` says."""

    def __init__(self, cluster, name, example="sidecar", replicas=1, grace=None, settings=None, broken=None, change=None, node=None):
        self.cluster, self.api, self.namespace = cluster, cluster.api, name
        self.replicas, self.grace, self.settings = replicas, grace, settings or {}
        self.broken, self.change, self.node = broken, change, node
        self.example = example
        self.dir = cluster.dir / "tables" / name
        self.table, self.said = None, ""

    def __enter__(self):
        self.dir.mkdir(parents=True)
        self.dir.chmod(0o777)
        self.table = Table(self.dir / "table")
        self.apply()
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.tell()
        self.table.close()
        self.api.delete(f"/api/v1/namespaces/{self.namespace}", 0)

    def tell(self):
        """What there is to see of it, for whoever looks into a failure."""
        pods = [f"{name}: {words}" for name, words in ((each["metadata"]["name"], state_of(each)) for each in self.pods(None))]
        events = [f"{each['reason']}: {each['message'][:200]}" for each in self.api.get(self.path("events"))["items"]]
        warnings = [each for each in events if not each.startswith(("Pulled", "Created", "Started", "Scheduled", "Successful", "Killing"))]
        lines = [f"{self.namespace}:", *pods, *warnings[-12:], self.table.told(0), self.said]
        print("\n".join(lines), file=sys.stderr, flush=True)

    def docs(self):
        example = self.example
        if self.broken == "alone":
            example = None
        if self.broken == "twin" and example.startswith("spool"):
            example = "sidecar"
        docs = rendered(f"examples/{example}" if example else "base", self.namespace)
        for doc in docs:
            if doc["kind"] == "ConfigMap" and "scheduler.yaml" in doc["data"]:
                doc["data"]["scheduler.yaml"] = doc["data"]["scheduler.yaml"].replace(INTERVAL, SHORT)
            if doc["kind"] == "Deployment":
                self.keeps_its_table(doc["spec"]["template"]["spec"])
            if doc["kind"] == "StatefulSet":
                self.schedulers(doc)
        return docs

    def keeps_its_table(self, pod):
        (container,) = pod["containers"]
        container["command"] = [one.replace("--admin-listen=127.0.0.1", "--admin-listen=0.0.0.0") for one in container["command"]]
        container["command"].append("--state=/state/table")
        container["volumeMounts"] = [{"name": "state", "mountPath": "/state"}]
        container["readinessProbe"]["periodSeconds"] = 1
        pod["volumes"] = [{"name": "state", "hostPath": {"path": str(self.dir)}}]
        pod["nodeName"] = "node-1"

    def schedulers(self, doc):
        doc["spec"]["replicas"] = self.replicas
        pod = doc["spec"]["template"]["spec"]
        if self.node:
            pod["affinity"] = self.node
        (container,) = [each for each in pod["containers"] if each["name"] == "scheduler"]
        container["command"].append("--keep-alive-interval=1s")
        # What isn't ready is no reason to wait: three at once would be.
        container["readinessProbe"]["periodSeconds"] = 1
        settings = dict(self.settings)
        if self.broken == "twin":
            settings["SIGNOFF_REPAIR"] = "off"
        if self.grace:
            pod["terminationGracePeriodSeconds"] = self.grace
            settings["SIGNOFF_GRACE"] = str(self.grace)
        for agent in pod.get("initContainers", []):
            if agent["name"] == "signoff":
                agent["env"] = [each for each in agent["env"] if each["name"] not in settings]
                agent["env"] += [{"name": name, "value": value} for name, value in settings.items()]
        if self.broken == "stubborn":
            self.ignores_sigterm(pod, container)
        if self.change:
            self.change(pod, container)

    def ignores_sigterm(self, pod, container):
        """Its process 1 is a shell that tells nobody."""
        words = " ".join(container["command"])
        container["image"] = "docker.io/library/busybox:1.37"
        container["command"] = ["sh", "-c", f"trap '' TERM; /mock/{words} & while :; do wait; done"]
        container.setdefault("volumeMounts", []).append({"name": "mock", "mountPath": "/mock"})
        path = str(self.cluster.mock / "fs/usr/local/bin")
        pod.setdefault("volumes", []).append({"name": "mock", "hostPath": {"path": path}})

    def apply(self):
        docs = self.docs()
        self.api.apply(yaml.safe_dump_all(doc for doc in docs if doc["kind"] == "Namespace"))
        self.account()
        self.api.apply(yaml.safe_dump_all(docs))
        self.cluster.name(self.namespace)

    def account(self):
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default"
        eventually("the namespace has its service account", lambda: self.api.there(path), within=60)

    # What is there.

    def path(self, kind, name=""):
        prefix = "/apis/apps/v1" if kind in ("statefulsets", "deployments") else "/api/v1"
        return f"{prefix}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def pods(self, component="scheduler"):
        selector = f"?labelSelector=component%3D{component}" if component else ""
        return self.api.get(self.path("pods") + selector)["items"]

    def pod(self, name="scheduler-0"):
        return self.api.there(self.path("pods", name))

    def key(self, name="scheduler-0"):
        """Its row's: the host, by its first label, and the IP."""
        pod = self.pod(name)
        return pod and pod["status"].get("podIP") and (name, pod["status"]["podIP"])

    def serving(self, name="scheduler-0", other_than=None, within=60):
        """The key of a pod whose row is active and whose agent has seen it serve."""

        def question():
            key = self.key(name)
            if not key or key == other_than or self.table.state(key) != "active":
                return None
            if not self.has_agent():
                return key
            code, said = self.api.exec(self.namespace, name, "signoff", "signoff", "status", "-o", "json")
            self.said = said if code else ""
            return key if code == 0 and '"serving"' in said else None

        return eventually(f"{name} serves, and its agent knows", question, within=within, every=0.5)

    def has_agent(self):
        return self.broken != "alone"

    def identifier(self, container, name="scheduler-0"):
        for one in statuses(self.pod(name)):
            if one["name"] == container:
                return one.get("containerID", "").rpartition("/")[2]
        raise Failed(f"{name} has no container {container}")

    def processes(self, identifier):
        found = []
        for each in pathlib.Path("/proc").iterdir():
            if each.name.isdigit():
                try:
                    if identifier in (each / "cgroup").read_text():
                        found.append(int(each.name))
                except OSError:
                    continue
        return sorted(found)

    def signal(self, number, container="scheduler", name="scheduler-0"):
        """To all of a container's processes, from outside."""
        pids = self.processes(self.identifier(container, name))
        require(pids, f"{container} of {name} has no process")
        for pid in pids:
            os.kill(pid, number)
        return pids

    def delete(self, name="scheduler-0", grace=None):
        self.api.delete(self.path("pods", name), grace)
        return time.monotonic()

    def restarts(self, container, name="scheduler-0"):
        for one in statuses(self.pod(name)):
            if one["name"] == container:
                return one["restartCount"], one.get("lastState", {}).get("terminated", {}).get("reason")
        return 0, None

    # The manager.

    def manager(self):
        pods = [each for each in self.pods("manager") if "deletionTimestamp" not in each["metadata"]]
        return next((each for each in pods if each["status"].get("podIP")), None)

    def lose_ends(self, count=1):
        """The next KeepAlive streams end without a word of theirs in the table: the manager's database is lost at that moment."""
        self.fault({"kind": "database-lost", "scope": "grpc", "call": "keep-alive", "count": count})

    def fault(self, fault):
        ip = self.manager()["status"]["podIP"]
        connection = http.client.HTTPConnection(ip, 8081, timeout=10)
        connection.request("POST", "/faults", json.dumps(fault), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        require(answer.status == 201, f"the fault was refused: {answer.status} {answer.read()!r}")
        connection.close()

    def manager_goes(self):
        """Killed, and no other comes: it is frozen first, so that it writes nothing more."""
        name = self.manager()["metadata"]["name"]
        pids = self.signal(signal.SIGSTOP, "manager", name)
        self.api.patch(self.path("deployments", "manager"), {"spec": {"replicas": 0}})
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.api.delete(self.path("pods", name), 0)
        eventually("the manager is gone", lambda: not self.pods("manager"), within=60)

    def manager_comes(self):
        self.api.patch(self.path("deployments", "manager"), {"spec": {"replicas": 1}})
        eventually("the manager is back", self.manager_is_ready, within=120)
        return time.monotonic()

    def manager_is_ready(self):
        status = self.api.get(self.path("deployments", "manager"))["status"]
        return status.get("readyReplicas", 0) >= 1

    def events(self, reason):
        items = self.api.get(self.path("events"))["items"]
        return [each["message"] for each in items if each["reason"] == reason]
