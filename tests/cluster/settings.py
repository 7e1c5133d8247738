"""G8 of docs/guarantees.md in pods: whatever is put into the sidecar's environment, its scheduler starts.

What can be put there is every variable that docs/reference.md names; there is no list here.
"""

import copy
import re

from dragonfly import World, rendered, state_of, statuses
from render import ROOT, Failed, require
from wait import eventually

SCENARIOS = []
# What no variable takes, and where a variable says where to listen, the scheduler's own port.
GARBAGE, TAKEN = "no such thing: ,%", "0.0.0.0:8002"
# So many sidecars of one pod start one after the other; the pods side by side.
SIDECARS = 8
WITHIN = 90


def variables():
    """Each that a table of docs/reference.md names, with its flag; and those of the downward API, which have none."""
    text = (ROOT / "docs/reference.md").read_text()
    found = {name: flag for flag, name in re.findall(r"^\| `(--[^`]+)` \| `(SIGNOFF_\w+)` \|", text, re.M)}
    (line,) = re.findall(r"from the downward API: (.+)", text)
    found |= {name: "" for name in re.findall(r"`([A-Z_]+)`", line)}
    missed = set(re.findall(r"`((?:SIGNOFF|POD|HOST)_[A-Z_]+)`", text)) - found.keys()
    require(not missed and "POD_IP" in found and "SIGNOFF_EVERY" in found, f"docs/reference.md was misread; it names {missed} too")
    return found


def missing(kind, name):
    """A value from where none is; as the manifests' own references, it is no reason to wait."""
    return {"name": name, "valueFrom": {kind: {"name": "signoff-nowhere", "key": name.lower(), "optional": True}}}


def all_at_once():
    """The pods whose one sidecar has all of it: name, environment."""
    every = variables()
    return {
        "garbage": [{"name": name, "value": GARBAGE} for name in every],
        "empty": [{"name": name, "value": ""} for name in every],
        "taken": [{"name": name, "value": TAKEN} for name, flag in every.items() if "IP:PORT" in flag],
        "no-secret": [missing("secretKeyRef", name) for name in every],
        "no-config": [missing("configMapKeyRef", name) for name in every],
    }


class Settings(World):
    """A manager, and pods that differ in their sidecars' environment alone."""

    def docs(self):
        docs = super().docs()
        (stateful,) = [doc for doc in docs if doc["kind"] == "StatefulSet"]
        docs.remove(stateful)
        template = stateful["spec"]["template"]
        for name, env in all_at_once().items():
            docs.append(self.pod_of(template, f"scheduler-{name}", lambda agent, env=env: [with_env(agent, env)]))
        every = list(variables())
        for number, names in enumerate(every[at : at + SIDECARS] for at in range(0, len(every), SIDECARS)):
            docs.append(self.pod_of(template, f"scheduler-alone-{number}", lambda agent, names=names: [alone(agent, one) for one in names]))
        # As it is, and without the Secret that it names.
        (stateful,) = [doc for doc in rendered("examples/rest", self.namespace) if doc["kind"] == "StatefulSet"]
        docs.append(self.pod_of(stateful["spec"]["template"], "scheduler-rest", lambda agent: [agent]))
        return docs

    def pod_of(self, template, name, sidecars):
        """As the StatefulSet's controller makes one, with these sidecars instead of the one that there is."""
        template = copy.deepcopy(template)
        spec = template["spec"] | {"hostname": name, "subdomain": "scheduler"}
        if self.has_agent():
            (agent,) = [one for one in spec["initContainers"] if one["name"] == "signoff"]
            spec["initContainers"] = sidecars(agent)
            spec["volumes"] += [{"name": each["name"], "emptyDir": {}} for each in spec["initContainers"] if each["name"] != "signoff"]
            if self.broken == "strict":
                for each in spec["initContainers"]:
                    is_strict(each, spec)
        labels = template["metadata"]["labels"]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.namespace, "labels": labels}, "spec": spec}


def with_env(agent, env):
    """Among equal names the last counts, so none is left twice."""
    agent = copy.deepcopy(agent)
    names = {one["name"] for one in env}
    agent["env"] = [one for one in agent["env"] if one["name"] not in names] + env
    return agent


def alone(agent, variable):
    """A sidecar with one wrong variable, which shares nothing with its neighbours but the network: they have its port already."""
    agent = with_env(agent, [{"name": variable, "value": GARBAGE}])
    agent["name"] = variable.lower().replace("_", "-")
    for mount in agent["volumeMounts"]:
        if mount["name"] == "signoff":
            mount["name"] = agent["name"]
    del agent["ports"]
    agent["resources"] = {"limits": agent["resources"]["limits"], "requests": {"cpu": "1m", "memory": "8Mi"}}
    return agent


def is_strict(agent, spec):
    """As if nobody had thought of it: what is named has to be there, and a probe asks as people do, whom a wrong value is refused."""
    agent["startupProbe"]["exec"]["command"] = ["signoff", "status"]
    for one in agent["env"]:
        for reference in one.get("valueFrom", {}).values():
            reference.pop("optional", None)
    for volume in spec["volumes"]:
        volume.get("secret", {}).pop("optional", None)


def wrong_settings(cluster, broken):
    with Settings(cluster, "settings", broken=broken) as world:
        names = [each["metadata"]["name"] for each in world.pods()]
        require(len(names) > len(all_at_once()) + 1, f"there are only {names}")

        def late():
            return sorted(set(names) - {host for (host, _), state in world.table.rows().items() if state == "active"})

        try:
            eventually("each scheduler is active", lambda: not late(), WITHIN)
        except Failed as failed:
            raise Failed(f"{failed}; not so: {', '.join(late())}") from failed
        for pod in world.pods():
            ended = [one["name"] for one in statuses(pod) if one["restartCount"] or not one["ready"] and one["name"] != "scheduler"]
            require(not ended, f"{ended} of {pod['metadata']['name']} did not stay: {state_of(pod)}")


SCENARIOS.append(("settings: wrong", wrong_settings, False))
