"""The renderers, and what is the same for every check: YAML, and the parts of a pod."""

import copy
import os
import pathlib
import shutil
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "tests/k8s/chart"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
RELEASES = ("dragonfly", "df", "my-dragonfly-2")

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def tool(name):
    return shutil.which(name)


class Failed(Exception):
    """A check's verdict, in words."""


class Skipped(Exception):
    """What is missing."""


def require(condition, words):
    if not condition:
        raise Failed(words)


def run(command, **options):
    """Its output; a failure with its words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr.strip()}")
    return done.stdout


def load(text):
    return [doc for doc in yaml.load_all(text, LOADER) if doc]


def kustomize(dir, *flags):
    return run([tool("kubectl"), "kustomize", *flags, str(dir)])


def helm_template(release, *arguments, helm="helm", plugins=None):
    """The chart of tests/k8s, as that Helm renders it, without a cluster and without its user's settings."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home}
        environment["HELM_PLUGINS"] = str(plugins or home)
        command = [tool(helm), "template", release, str(CHART), "--namespace", "somewhere", *arguments]
        return run(command, env=environment)


class Tree:
    """A checkout's k8s directory: the real one, or a copy in which something was broken."""

    def __init__(self, k8s):
        self.k8s = pathlib.Path(k8s).resolve()
        self.rendered = {}

    def examples(self):
        return sorted(path.parent.name for path in self.k8s.glob("examples/*/kustomization.yaml"))

    def text(self, path):
        if path not in self.rendered:
            self.rendered[path] = kustomize(self.k8s / path)
        return self.rendered[path]

    def render(self, path):
        """The documents of a directory's kustomization; a copy, so that nobody changes another check's."""
        return copy.deepcopy(load(self.text(path)))

    def compose(self, components, resources):
        """What an overlay with these components and these resources (the YAML's text) gives, as text."""
        with tempfile.TemporaryDirectory() as dir:
            dir = pathlib.Path(dir)
            (dir / "resources.yaml").write_text(resources)
            (dir / "k8s").symlink_to(self.k8s)
            kustomization = {
                "resources": ["resources.yaml"],
                "components": [f"k8s/{component}" for component in components],
            }
            (dir / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            return kustomize(dir)


def name_of(doc):
    return f"{doc['kind']} {doc['metadata']['name']}"


def pod_spec(doc):
    """The pod's spec of whatever makes pods, or None."""
    spec = doc.get("spec", {})
    if doc["kind"] == "Pod":
        return spec
    if doc["kind"] == "CronJob":
        return spec["jobTemplate"]["spec"]["template"]["spec"]
    return spec.get("template", {}).get("spec") if isinstance(spec.get("template"), dict) else None


def containers(spec):
    return spec.get("initContainers", []) + spec.get("containers", [])


def scheduler_set(docs):
    """The one StatefulSet with the label component=scheduler."""
    found = [
        doc for doc in docs if doc["kind"] == "StatefulSet" and doc["metadata"].get("labels", {}).get("component") == "scheduler"
    ]
    require(len(found) == 1, f"{len(found)} StatefulSets have the label component=scheduler")
    return found[0]


def signoff_container(spec):
    found = [one for one in containers(spec) if one["name"] == "signoff"]
    require(len(found) == 1, f"{len(found)} containers are called signoff")
    return found[0]


def variables(container):
    """The environment's plain values."""
    return {one["name"]: one.get("value") for one in container.get("env") or []}


def without_nulls(value):
    """A null field and none are the same to the API."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


def skip(what):
    """Ends the check, visibly; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        raise Failed(f"in CI nothing is skipped: {what}")
    raise Skipped(what)
