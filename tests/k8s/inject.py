"""Writes k8s/install/policy.yaml: what the components put into a scheduler's pod, in CEL, for an admission policy.

    python3 tests/k8s/inject.py > k8s/install/policy.yaml

The containers, volumes and hooks are read from the components, so nothing of them is written twice. What a policy knows and a
component doesn't is here: which pod it is for, and what is the pod's own.
"""

import pathlib
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONTAINER = "Object.spec.initContainers"
# Where a scheduler looks for scheduler.yaml, and where its certificates are by components/scheduler-tls.
CONFIG = "!has(mount.subPathExpr) && mount.mountPath.matches('^/etc/dragonfly(/|/scheduler.yaml)?$')"
CERTIFICATES = "!has(mount.subPathExpr) && mount.mountPath.matches('^/etc/dragonfly(-tls)?(/.*)?$')"
MOUNTS = "one.?volumeMounts.orValue([])"
# On a namespace that wants the sidecar; on a pod, with any other value, that doesn't.
LABEL = "signoff.dragonflyoss.io/inject"
ENABLED = "enabled"

HEADER = f"""\
# Generated from components/ by tests/k8s/inject.py, which a test holds it against: change those, not this.
#
# Puts the sidecar into each new pod that is a Dragonfly scheduler's, as components/sidecar does, first of its init containers.
# Whose pod is touched: in a namespace with the label {LABEL}={ENABLED}, the pod has the label component=scheduler, and
# a container of it mounts a volume at /etc/dragonfly or at /etc/dragonfly/scheduler.yaml.
# Whose is left as it is: one with the annotation or label {LABEL} and another value than {ENABLED}; one that has a
# container or a volume `signoff` (or `signoff-...` of ours) already; one with the node's network whose containers have a port of ours.
#
# Whatever fails here lets the pod through without the sidecar (failurePolicy: Ignore): no scheduler waits for us.
# The variables up to `spool` are set by kustomization.yaml.
"""


class Cel(str):
    """An expression, not a text."""


class Terms:
    """A list of several parts, each with its condition or None."""

    def __init__(self, *parts):
        self.parts = parts


def one_line(text):
    return "\n" not in text and len(text) < 110


def cel(value, kind, depth=0):
    """A manifest's value as CEL, at that depth: an object is of the type that its place in the pod names."""
    pad, end = "  " * (depth + 1), "  " * depth
    if isinstance(value, Cel):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    if isinstance(value, Terms):
        parts = [
            cel(part, kind, depth + 1) if when is None else f"({when} ? {cel(part, kind, depth + 1)} : [])"
            for when, part in value.parts
        ]
        return f"\n{pad}+ ".join([f"\n{pad}{parts[0]}", *parts[1:]])
    if isinstance(value, list):
        inner = [cel(one, kind, depth + 1) for one in value]
        short = f"[{', '.join(inner)}]"
        return short if one_line(short) and "{" not in short else "[\n" + ",\n".join(f"{pad}{one}" for one in inner) + f"\n{end}]"
    inner = [(key, cel(one, f"{kind}.{key}", depth + 1)) for key, one in value.items()]
    inner = [f"{key}:{text}" if text.startswith("\n") else f"{key}: {text}" for key, text in inner]
    short = f"{kind}{{{', '.join(inner)}}}"
    return short if one_line(short) else f"{kind}{{\n" + ",\n".join(f"{pad}{one}" for one in inner) + f"\n{end}}}"


def component(k8s, name):
    """A component's patch: its pod's spec."""
    patch = yaml.safe_load((k8s / "components" / name / "statefulset.yaml").read_text())
    return patch["spec"]["template"]["spec"]


def inline(k8s, name):
    """The same of one whose patch stands in its kustomization."""
    patches = yaml.safe_load((k8s / "components" / name / "kustomization.yaml").read_text())["patches"]
    return yaml.safe_load(patches[0]["patch"])["spec"]["template"]["spec"]


def named(things, name):
    return next(one for one in things if one["name"] == name)


def variables(k8s):
    """What the policy knows before it writes anything: name and expression, in their order."""
    step = named(component(k8s, "spool-owner")["initContainers"], "signoff-spool")
    return [
        # kustomization.yaml sets these.
        ("image", "'signoff'"),
        ("busybox", cel(step["image"], "")),
        ("settings", "[]"),
        ("manager", "''"),
        ("drain", "false"),
        ("token", "''"),
        ("spool", "false"),
        # These are the pod's own.
        ("hostNetwork", "object.spec.?hostNetwork.orValue(false)"),
        (
            "hostPath",
            "variables.spool\n"
            "&& namespaceObject.metadata.?labels[?'pod-security.kubernetes.io/enforce'].orValue('privileged') == 'privileged'",
        ),
        ("at", f"object.spec.containers.map(one, {MOUNTS}.exists(mount, {CONFIG})).indexOf(true)"),
    ]


def mutation(k8s):
    """The list of changes, as one: it is made as a whole or not at all."""
    sidecar, rest, http = (component(k8s, name) for name in ("sidecar", "rest", "drain-http"))
    spool, owner, node = component(k8s, "spool-hostpath"), component(k8s, "spool-owner"), inline(k8s, "host-ip")
    agent = named(sidecar["initContainers"], "signoff")
    of_rest, of_http, of_spool, of_node = (named(one["initContainers"], "signoff") for one in (rest, http, spool, node))
    by_rest, by_token = "variables.manager != ''", "variables.token != ''"

    grace, manager = named(agent["env"], "SIGNOFF_GRACE"), named(of_rest["env"], "SIGNOFF_MANAGER")
    grace["value"] = Cel(f"string(object.spec.?terminationGracePeriodSeconds.orValue({int(grace['value'])}))")
    manager["value"] = Cel("variables.manager")
    pods_own = named(agent["env"], "SIGNOFF_SPOOL")
    setting = cel({"name": Cel("string(one[0])"), "value": Cel("string(one[1])")}, f"{CONTAINER}.env")
    config = {"name": Cel("mount.name"), "mountPath": Cel("mount.mountPath"), "subPath": Cel("mount.?subPath.orValue('')"), "readOnly": True}
    container = {
        **agent,
        "image": Cel("variables.image"),
        "env": Terms(
            (None, [one for one in agent["env"] if one != pods_own]),
            ("!variables.hostPath", [pods_own]),
            # In this order: one is put into another.
            ("variables.hostPath", of_spool["env"]),
            ("variables.hostNetwork || variables.drain", of_node["env"]),
            (by_rest, of_rest["env"]),
            ("variables.drain", of_http["env"]),
            (by_token, [{"name": "SIGNOFF_HOOK_TOKEN_FILE", "value": "/etc/signoff/hook/token"}]),
            # What the API server would refuse would keep the scheduler from starting.
            (None, Cel(f"variables.settings.filter(one, string(one[0]).matches('^SIGNOFF_[A-Z_]+$')).map(one, {setting})")),
        ),
        "ports": Terms((None, agent["ports"]), ("variables.drain", of_http["ports"])),
        "volumeMounts": Terms(
            (
                None,
                Cel(
                    "object.spec.containers[variables.at].volumeMounts\n"
                    f"          .filter(mount, {CERTIFICATES})\n"
                    f"          .map(mount, {cel(config, f'{CONTAINER}.volumeMounts', 5)})"
                ),
            ),
            (None, [one for one in agent["volumeMounts"] if one["name"] != "config"]),
            ("variables.hostPath", of_spool["volumeMounts"]),
            (by_rest, of_rest["volumeMounts"]),
            (by_token, [{"name": "signoff-hook", "mountPath": "/etc/signoff/hook", "readOnly": True}]),
        ),
    }
    volumes = Terms(
        (None, sidecar["volumes"]),
        ("variables.hostPath", spool["volumes"]),
        (by_rest, rest["volumes"]),
        (by_token, [{"name": "signoff-hook", "secret": {"secretName": "signoff-hook", "defaultMode": 0o444, "optional": True}}]),
    )
    step = {**named(owner["initContainers"], "signoff-spool"), "image": Cel("variables.busybox")}
    stop = named(http["containers"], "scheduler")["lifecycle"]["preStop"]
    stop["httpGet"]["httpHeaders"] = Terms((by_token, [{"name": "Authorization", "value": Cel("'Bearer ' + variables.token")}]))
    hooks = "object.spec.containers[variables.at].?lifecycle"
    hook = "'/spec/containers/' + string(variables.at) + '/lifecycle"

    def add(path, value, kind, when=None):
        change = f"[JSONPatch{{op: 'add', path: {path}, value: {cel(value, kind, 2)}}}]"
        return change if when is None else f"({when} ? {change} : [])"

    at_first = "'/spec/initContainers/0'"
    changes = [
        add("'/spec/volumes'", [], "", "!has(object.spec.volumes)"),
        f"({cel(volumes, 'Object.spec.volumes', 1)}\n  ).map(one, JSONPatch{{op: 'add', path: '/spec/volumes/-', value: one}})",
        add("'/spec/initContainers'", [], "", "!has(object.spec.initContainers)"),
        add(at_first, container, CONTAINER),
        # What is put there last is first.
        add(at_first, step, CONTAINER, "variables.hostPath"),
        add(f"{hook}'", {}, "Object.spec.containers.lifecycle", f"variables.drain && !{hooks}.hasValue()"),
        add(f"{hook}/preStop'", stop, "Object.spec.containers.lifecycle.preStop", f"variables.drain && !{hooks}.?preStop.hasValue()"),
    ]
    return "\n+ ".join(changes) + "\n"


def conditions():
    """All must hold: name and expression."""
    every = "(object.spec.containers + object.spec.?initContainers.orValue([]))"
    ours = "^signoff(-spool|-rest|-hook|-install)?$"
    return [
        (
            "mounts-scheduler-yaml",
            f"object.spec.containers.exists(one, {MOUNTS}.exists(mount, {CONFIG}))",
        ),
        (
            "its-place-is-free",
            f"!{every}.exists(one, one.name.matches('{ours}'))\n"
            f"&& !object.spec.?volumes.orValue([]).exists(one, one.name.matches('{ours}'))",
        ),
        (
            "its-ports-are-free",
            "!object.spec.?hostNetwork.orValue(false)\n"
            f"|| !{every}.exists(one, one.?ports.orValue([]).exists(port, port.containerPort in [9802, 9803]))",
        ),
        (
            "not-opted-out",
            f"object.metadata.?annotations[?'{LABEL}'].orValue('{ENABLED}') == '{ENABLED}'\n"
            f"&& object.metadata.?labels[?'{LABEL}'].orValue('{ENABLED}') == '{ENABLED}'",
        ),
    ]


class Text(str):
    """Written as a block where it has several lines."""


yaml.SafeDumper.add_representer(
    Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|" if "\n" in text else None)
)


def policy(k8s):
    """The whole file's text."""
    meta = {"name": "signoff", "labels": {"app.kubernetes.io/name": "signoff", "app.kubernetes.io/component": "inject"}}
    selector = {"matchLabels": {LABEL: ENABLED}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}
    docs = [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": meta,
            "spec": {
                "failurePolicy": "Ignore",
                "reinvocationPolicy": "Never",
                # All that the API server would put in is here: so the second `kubectl apply` changes nothing.
                "matchConstraints": {
                    "matchPolicy": "Equivalent",
                    "namespaceSelector": selector,
                    "objectSelector": {"matchLabels": {"component": "scheduler"}},
                    "resourceRules": [rule],
                },
                "matchConditions": [{"name": name, "expression": Text(text)} for name, text in conditions()],
                "variables": [{"name": name, "expression": Text(text)} for name, text in variables(k8s)],
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": Text(mutation(k8s))}}],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": meta,
            "spec": {"policyName": "signoff"},
        },
    ]
    yaml.SafeDumper.ignore_aliases = lambda *_: True
    return HEADER + yaml.safe_dump_all(docs, sort_keys=False, width=10**6)


if __name__ == "__main__":
    sys.stdout.write(policy(ROOT / "k8s"))
