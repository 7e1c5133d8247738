"""What the admission policy of k8s/install does to pods, seen on a real API server (1.36 or later).

policy.py KUBECONFIG             on a cluster that is there: it makes namespaces of its own, and takes them and the policy away again
policy.py --hyper PROGRAM        on an API server of its own: PROGRAM has kube-apiserver and kube-controller-manager as subcommands
policy.py ... --mutate           also breaks the policy, each time in one place, and sees the promise that is for it broken

No kubelet is needed: what a policy does is seen in what the API server would store.
"""

import contextlib
import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import inject
import wait
import yaml
from container import enter_a_world
from install import VARIANTS, edited
from render import (
    RELEASES,
    ROOT,
    Failed,
    Tree,
    containers,
    helm_template,
    load,
    require,
    run,
    scheduler_set,
    tool,
    variables,
)

# Of the namespaces that this makes: one wants the sidecar, one doesn't, one wants it and is restricted.
WANTS, DOES_NOT, RESTRICTED = "signoff-wants", "signoff-does-not", "signoff-restricted"
# So long the API server may take until it goes by a changed policy.
BOUND = 60


def eventually(what, question):
    return wait.eventually(what, question, BOUND)


class Cluster:
    """An API server, by its kubeconfig, and k8s/install on it, with each text in it that is to be broken replaced."""

    def __init__(self, kubeconfig, breaks=None):
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self.breaks = breaks
        self.tree = Tree(ROOT / "k8s")
        self.installs = 0

    def kubectl(self, *arguments, text=None):
        return run([tool("kubectl"), *arguments], env=self.environment, input=text)

    def make_namespaces(self):
        for name, labels in (
            (WANTS, {inject.LABEL: inject.ENABLED}),
            (DOES_NOT, {}),
            (RESTRICTED, {inject.LABEL: inject.ENABLED, "pod-security.kubernetes.io/enforce": "restricted"}),
        ):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            self.kubectl("apply", "-f", "-", text=json.dumps(namespace))
        for name in (WANTS, DOES_NOT, RESTRICTED):
            eventually(f"{name} has its service account", lambda: self.there("serviceaccount", "default", name))

    def take_away(self):
        self.uninstall()
        self.kubectl("delete", "namespace", "--ignore-not-found", WANTS, DOES_NOT, RESTRICTED)

    def there(self, kind, name, namespace):
        return self.kubectl("get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "name").strip()

    def directory(self, dir, image, variant="default", settings=None):
        """A copy of k8s/install as its user edits it, and with what is to be broken broken."""
        install = edited(self.tree.k8s, dir, image=image, variant=variant, namespace=WANTS, settings=settings)
        if self.breaks:
            old, new = self.breaks
            policy = (install / "policy.yaml").read_text()
            require(old in policy, f"{old!r} is not in the policy")
            (install / "policy.yaml").write_text(policy.replace(old, new))
        return install

    def install(self, variant="default", settings=None, effective=True):
        """Applies it under an image that nothing else has, waits until it counts, and gives that image."""
        self.installs += 1
        image = f"registry.example.com/signoff:{os.getpid()}-{self.installs}"
        with tempfile.TemporaryDirectory() as dir:
            self.kubectl("apply", "-k", str(self.directory(pathlib.Path(dir), image, variant, settings=settings)))
        if effective:
            eventually("the policy counts", lambda: image in [one["image"] for one in containers(self.created(PLAIN)["spec"])])
        return image

    def uninstall(self):
        """Takes it away, and waits until it counts no more."""
        with tempfile.TemporaryDirectory() as dir:
            install = self.directory(pathlib.Path(dir), "registry.example.com/signoff:none")
            self.kubectl("delete", "--ignore-not-found", "-k", str(install))
        eventually("no pod gets the sidecar", lambda: "signoff" not in json.dumps(self.created(PLAIN)["spec"]))

    def created(self, pod, namespace=WANTS):
        """The pod as the API server would store it; fails where it would refuse it."""
        text = json.dumps({**pod, "metadata": {**pod["metadata"], "namespace": namespace}})
        stored = self.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", text=text)
        # The volume of the service account's token has a drawn name.
        return json.loads(re.sub(r'"kube-api-access-\w+"', '"kube-api-access"', stored))


def pod_of(stateful, name="dragonfly-scheduler-0"):
    """As the StatefulSet's controller makes it, as far as a policy sees it."""
    template = copy.deepcopy(stateful["spec"]["template"])
    meta = {key: value for key, value in template["metadata"].items() if value}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **meta}, "spec": template["spec"]}


# The least pod that is one of a scheduler.
PLAIN = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "plain", "labels": {"component": "scheduler"}},
    "spec": {
        "containers": [
            {"name": "scheduler", "image": "scheduler", "volumeMounts": [{"name": "config", "mountPath": "/etc/dragonfly"}]}
        ],
        "volumes": [{"name": "config", "configMap": {"name": "scheduler"}}],
    },
}


def changed(pod, change):
    pod = copy.deepcopy(pod)
    change(pod)
    return pod


def stateful_sets(tree):
    """Schedulers of every shape: what they are, the StatefulSet's text, the components that are for it, and a volume's other name."""
    yield "base", tree.text("base"), ["grace"], None
    yield "a volume of another name", tree.text("base"), ["grace"], "scheduler-settings"
    for release in RELEASES:
        yield f"the chart, {release}", helm_template(release), [], None
    yield "a grace of 47", helm_template("df", "--set", "scheduler.terminationGracePeriodSeconds=47"), ["grace"], None
    yield "the node's network", helm_template("df", "--set", "scheduler.hostNetwork=true"), ["host-ip"], None
    certificates = {
        "extraVolumes": [{"name": "scheduler-tls", "secret": {"secretName": "scheduler-tls"}}],
        "extraVolumeMounts": [{"name": "scheduler-tls", "mountPath": "/etc/dragonfly-tls", "readOnly": True}],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as values:
        yaml.safe_dump({"scheduler": certificates}, values)
        values.flush()
        yield "certificates", helm_template("df", "-f", values.name), ["scheduler-tls"], None


def normal(pod):
    """A pod's spec in which no order is left but those that count: init containers', and containers'."""
    spec = copy.deepcopy(pod["spec"])
    spec["volumes"] = {one["name"]: one for one in spec["volumes"]}
    for one in containers(spec):
        named = {each["name"]: each for each in one.get("env") or []}
        require(len(named) == len(one.get("env") or []), f"{one['name']} has a variable twice")
        one["env"] = named
        one["ports"] = {each["containerPort"]: each for each in one.get("ports") or []}
        one["volumeMounts"] = {each["mountPath"]: each for each in one.get("volumeMounts") or []}
    return spec


def difference(one, other, path="spec"):
    """Where two values part first, in words."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            if one.get(key) != other.get(key):
                return difference(one.get(key), other.get(key), f"{path}.{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other)):
            if left != right:
                return difference(left, right, f"{path}[{index}]")
    return f"{path}: {json.dumps(one)} by the policy, {json.dumps(other)} by the components"


def what_the_policy_puts_in_is_what_the_components_put_in(cluster):
    """Field by field, as the API server stores it, in every variant, for schedulers of every shape."""
    compared = 0
    for variant, (_, components) in VARIANTS.items():
        image = cluster.install(variant)
        for what, text, own, volume in stateful_sets(cluster.tree):
            before = pod_of(scheduler_set(load(text)))
            chosen = ["sidecar", *(one for one in own if one not in components), *components]
            after = pod_of(scheduler_set(load(cluster.tree.compose([f"components/{one}" for one in chosen], text))))
            as_text = json.dumps(after).replace('"image": "signoff"', f'"image": "{image}"')
            both = [before, json.loads(as_text)]
            if volume:
                both = [json.loads(json.dumps(one).replace('"name": "config"', f'"name": "{volume}"')) for one in both]
            by_policy = cluster.created(both[0], WANTS)
            by_components = cluster.created(both[1], DOES_NOT)
            found, wanted = normal(by_policy), normal(by_components)
            require(found == wanted, f"{variant}, {what}: {difference(found, wanted)}")
            compared += 1
    return f"{compared} pods"


def the_sidecar_is_the_first_init_container_and_what_names_another_variable_stands_behind_it(cluster):
    for variant, before in (("default", []), ("all", ["signoff-spool"])):
        cluster.install(variant)
        spec = cluster.created(pod_of(scheduler_set(load(helm_template("df")))))["spec"]
        names = [one["name"] for one in spec["initContainers"]]
        require(names == [*before, "signoff", "wait-for-manager"], f"{variant}: the init containers are {names}")
        agent = spec["initContainers"][len(before)]
        require(agent["restartPolicy"] == "Always", f"{variant}: it is not a native sidecar")
        seen = set()
        for one in agent["env"]:
            named = set(re.findall(r"\$\((\w+)\)", one.get("value", "")))
            require(named <= seen, f"{variant}: {one['name']} names {named - seen}, which stand behind it")
            seen.add(one["name"])


def a_pod_without_init_containers_and_every_way_to_mount_scheduler_yaml_is_understood(cluster):
    image = cluster.install()

    def mounts(*mounts):
        return changed(PLAIN, lambda pod: pod["spec"]["containers"][0].update(volumeMounts=list(mounts)))

    file = {"name": "config", "mountPath": "/etc/dragonfly/scheduler.yaml", "subPath": "scheduler.yaml"}
    within = {"name": "config", "mountPath": "/etc/dragonfly", "subPath": "dragonfly"}
    slash = {"name": "config", "mountPath": "/etc/dragonfly/"}
    logs = {"name": "config", "mountPath": "/var/log/dragonfly"}
    beside = {"name": "helper", "image": "helper"}
    for pod, wanted in (
        (PLAIN, {"name": "config", "mountPath": "/etc/dragonfly"}),
        (mounts(logs, file), file),
        (mounts(within), within),
        (mounts(slash), slash),
        (changed(PLAIN, lambda pod: pod["spec"]["containers"].insert(0, beside)), {"name": "config", "mountPath": "/etc/dragonfly"}),
    ):
        spec = cluster.created(pod)["spec"]
        require([one["name"] for one in spec["initContainers"]] == ["signoff"], f"{wanted}: {spec['initContainers']}")
        agent = spec["initContainers"][0]
        require(agent["image"] == image, f"its image is {agent['image']}")
        found = [one for one in agent["volumeMounts"] if one["mountPath"].startswith("/etc/dragonfly")]
        require(found == [{**wanted, "readOnly": True}], f"mounted is {found}, not {wanted}")


def left_alone():
    """Pods that are not ours to touch, and why."""

    def pod(change):
        return changed(PLAIN, change)

    def label(pod):
        pod["metadata"]["labels"][inject.LABEL] = "disabled"

    def annotation(pod):
        pod["metadata"]["annotations"] = {inject.LABEL: "false"}

    def airflow(pod):
        pod["spec"]["containers"][0]["volumeMounts"] = [
            {"name": "config", "mountPath": "/opt/airflow/airflow.cfg", "subPath": "airflow.cfg"}
        ]

    def by_expression(pod):
        mount = {"name": "config", "mountPath": "/etc/dragonfly", "subPathExpr": "$(HOME)"}
        pod["spec"]["containers"][0].update(volumeMounts=[mount], env=[{"name": "HOME", "value": "x"}])

    def on_the_node(pod):
        pod["spec"].update(hostNetwork=True)
        pod["spec"]["containers"].append({"name": "other", "image": "other", "ports": [{"containerPort": 9802}]})

    native = {"name": "signoff", "image": "mine", "restartPolicy": "Always"}
    return [
        ("another component", pod(lambda pod: pod["metadata"]["labels"].update(component="manager"))),
        ("no label", pod(lambda pod: pod["metadata"].pop("labels"))),
        ("Airflow's scheduler", pod(airflow)),
        ("nothing is mounted", pod(lambda pod: pod["spec"]["containers"][0].pop("volumeMounts"))),
        ("no volumes", pod(lambda pod: (pod["spec"].pop("volumes"), pod["spec"]["containers"][0].pop("volumeMounts")))),
        ("a mount by subPathExpr", pod(by_expression)),
        ("opted out by an annotation", pod(annotation)),
        ("opted out by a label", pod(label)),
        ("a native sidecar is there", pod(lambda pod: pod["spec"].update(initContainers=[native]))),
        ("a plain sidecar is there", pod(lambda pod: pod["spec"]["containers"].append({"name": "signoff", "image": "mine"}))),
        ("a volume of that name", pod(lambda pod: pod["spec"]["volumes"].append({"name": "signoff", "emptyDir": {}}))),
        ("the node's port is taken", pod(on_the_node)),
    ]


def what_is_not_ours_is_left_alone(cluster):
    for variant in ("default", "all"):
        cluster.install(variant)
        for what, pod in left_alone():
            found, wanted = cluster.created(pod, WANTS)["spec"], cluster.created(pod, DOES_NOT)["spec"]
            require(found == wanted, f"{variant}, {what}: it is touched: {difference(found, wanted)}")
        ours = cluster.created(PLAIN, DOES_NOT)["spec"]
        require("initContainers" not in ours, f"{variant}: a namespace that didn't ask is touched")
    for kind in ("Deployment", "StatefulSet"):
        template = {"metadata": PLAIN["metadata"], "spec": PLAIN["spec"]}
        meta = {"name": "x", "labels": PLAIN["metadata"]["labels"]}
        spec = {"selector": {"matchLabels": meta["labels"]}, "serviceName": "x", "template": template}
        if kind == "Deployment":
            del spec["serviceName"]
        stored = cluster.created({"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": spec})
        require("initContainers" not in stored["spec"]["template"]["spec"], f"a {kind} itself is touched")


def a_hook_of_the_scheduler_s_own_is_kept(cluster):
    cluster.install("drain")
    own = {"exec": {"command": ["/bin/true"]}}
    for given, wanted in (
        ({"preStop": own}, own),
        ({"postStart": own}, {"httpGet": {"path": "/pre-stop", "port": 9803, "scheme": "HTTP"}}),
        (None, {"httpGet": {"path": "/pre-stop", "port": 9803, "scheme": "HTTP"}}),
    ):
        pod = changed(PLAIN, lambda pod: given and pod["spec"]["containers"][0].update(lifecycle=given))
        lifecycle = cluster.created(pod)["spec"]["containers"][0]["lifecycle"]
        require(lifecycle == {**(given or {}), "preStop": wanted}, f"{given}: the hooks are {lifecycle}")


def restricted_pod_security_lets_its_pods_in(cluster):
    """Where it is enforced. With a hostPath it would not: there the spool stays in the pod."""
    for variant in ("default", "all"):
        cluster.install(variant)
        pod = cluster.created(pod_of(scheduler_set(cluster.tree.render("base"))), RESTRICTED)
        names = [one["name"] for one in pod["spec"].get("initContainers", [])]
        require(names == ["signoff"], f"{variant}: the init containers are {names}")
        require("hostPath" not in json.dumps(pod["spec"]["volumes"]), f"{variant}: it has a hostPath")
        spool = variables(pod["spec"]["initContainers"][0])["SIGNOFF_SPOOL"]
        require(spool == "/run/signoff/spool", f"{variant}: the spool is at {spool}")


def applied_twice_it_changes_nothing(cluster):
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as dir:
            install = cluster.directory(pathlib.Path(dir), "registry.example.com/signoff:twice", variant)
            cluster.kubectl("apply", "-k", str(install))
            again = cluster.kubectl("apply", "-k", str(install)).splitlines()
            require(len(again) == 6 and all(one.endswith(" unchanged") for one in again), f"{variant}: {again}")


def applied_changed_deleted_and_applied_again_each_counts(cluster):
    """The image is in the policy's own text, so that no parameter of it can be stale."""
    for _ in range(2):
        first = cluster.install()
        second = cluster.install()
        require(first != second, "one image")
        used = {one["image"] for one in containers(cluster.created(PLAIN)["spec"])}
        require(used == {"scheduler", second}, f"the images are {used}")
        cluster.uninstall()
        for kind in ("mutatingadmissionpolicy", "mutatingadmissionpolicybinding"):
            require(not cluster.there(kind, "signoff", WANTS), f"a {kind} is left")
        for kind in ("deployment", "serviceaccount", "role", "rolebinding"):
            require(not cluster.there(kind, "signoff-reconcile", WANTS), f"a {kind} is left")


def settings_are_put_in_and_a_wrong_one_keeps_no_pod_out(cluster):
    """An expression that fails lets the pod through as it was."""
    cluster.install(settings="[['SIGNOFF_REPAIR', 'report'], ['SIGNOFF_LOG_LEVEL', 'debug']]")
    agent = cluster.created(PLAIN)["spec"]["initContainers"][0]
    found = {name: variables(agent).get(name) for name in ("SIGNOFF_REPAIR", "SIGNOFF_LOG_LEVEL")}
    require(found == {"SIGNOFF_REPAIR": "report", "SIGNOFF_LOG_LEVEL": "debug"}, f"set is {found}")
    for odd in ("[['', 'x'], ['a=b', 'x'], ['SIGNOFF_REPAIR', 'report']]", "[[1, 2]]"):
        cluster.install(settings=odd)
        agent = cluster.created(PLAIN)["spec"]["initContainers"][0]
        found = {*variables(agent)} - {"POD_NAME", "POD_IP", "SIGNOFF_GRACE", "SIGNOFF_SPOOL", "SIGNOFF_REPAIR"}
        require(not found, f"{odd}: set is {found}")
    for impossible in ("[['SIGNOFF_REPAIR', 'report'], [1, 2]]", "['SIGNOFF_REPAIR=report']", "[['SIGNOFF_REPAIR', 'report']"):
        try:
            cluster.install(settings=impossible)
        except Failed as failed:
            require("compilation failed" in str(failed), f"{impossible}: {failed}")
        else:
            raise Failed(f"{impossible}: the API server takes it")
    for wrong in ("[['SIGNOFF_REPAIR']]", "[[string(1 / 0), 'report']]"):
        cluster.install(settings=wrong, effective=False)
        spec = eventually(
            f"{wrong}: a pod goes without", lambda: (pod := cluster.created(PLAIN)["spec"]).get("initContainers") is None and pod
        )
        require(len(spec["volumes"]) == len(cluster.created(PLAIN, DOES_NOT)["spec"]["volumes"]), f"{wrong}: half of it is there")


def a_quota_of_cpu_limits_refuses_the_pod_as_the_documents_say(cluster):
    """No policy can prevent that: the quota looks after it. The annotation lets the pod in."""
    cluster.install()
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "cpu"}, "spec": {"hard": {"limits.cpu": "8"}}}
    limited = changed(PLAIN, lambda pod: pod["spec"]["containers"][0].update(resources={"limits": {"cpu": "1"}}))
    out = changed(limited, lambda pod: pod["metadata"].update(annotations={inject.LABEL: "disabled"}))
    cluster.kubectl("apply", "-n", WANTS, "-f", "-", text=json.dumps(quota))
    try:

        def refused():
            try:
                cluster.created(limited)
            except Failed as failed:
                return str(failed)
            return None

        said = eventually("the quota refuses it", refused)
        require("limits.cpu for: signoff" in said, f"it says {said}")
        cluster.created(out)
    finally:
        cluster.kubectl("delete", "quota", "cpu", "-n", WANTS)


def a_stateful_set_stays_as_it_is_and_its_new_pods_have_the_sidecar(cluster):
    """Rolled with the policy, and rolled once more without."""
    image = cluster.install()
    text = helm_template("df", "--set", "scheduler.replicas=2")
    stateful = scheduler_set(load(text))
    stateful["metadata"]["namespace"] = WANTS
    cluster.kubectl("apply", "-f", "-", text=json.dumps(stateful))
    name = stateful["metadata"]["name"]

    def pods():
        found = json.loads(cluster.kubectl("get", "pods", "-n", WANTS, "-l", "component=scheduler", "-o", "json"))["items"]
        return {one["metadata"]["name"]: one for one in found}

    def first():
        """Nobody makes it ready without a kubelet, so the next is never made."""
        return pods().get(f"{name}-0")

    try:
        pod = eventually("the first pod", first)
        require([one["name"] for one in pod["spec"]["initContainers"]] == ["signoff", "wait-for-manager"], "no sidecar")
        require(pod["spec"]["initContainers"][0]["image"] == image, "another image")
        stored = json.loads(cluster.kubectl("get", "statefulset", name, "-n", WANTS, "-o", "json"))
        require("signoff" not in json.dumps(stored["spec"]["template"]), "the StatefulSet is changed")
        cluster.uninstall()
        uid = pod["metadata"]["uid"]
        cluster.kubectl("delete", "pod", f"{name}-0", "-n", WANTS, "--force", "--grace-period=0")
        pod = eventually("the next pod", lambda: (one := first()) and one["metadata"]["uid"] != uid and one)
        require([one["name"] for one in pod["spec"]["initContainers"]] == ["wait-for-manager"], "it still has the sidecar")
    finally:
        cluster.kubectl("delete", "statefulset", name, "-n", WANTS, "--ignore-not-found")
        cluster.kubectl("delete", "pods", "-n", WANTS, "-l", "component=scheduler", "--force", "--grace-period=0")


PROMISES = [
    what_the_policy_puts_in_is_what_the_components_put_in,
    the_sidecar_is_the_first_init_container_and_what_names_another_variable_stands_behind_it,
    a_pod_without_init_containers_and_every_way_to_mount_scheduler_yaml_is_understood,
    what_is_not_ours_is_left_alone,
    a_hook_of_the_scheduler_s_own_is_kept,
    restricted_pod_security_lets_its_pods_in,
    applied_twice_it_changes_nothing,
    applied_changed_deleted_and_applied_again_each_counts,
    settings_are_put_in_and_a_wrong_one_keeps_no_pod_out,
    a_quota_of_cpu_limits_refuses_the_pod_as_the_documents_say,
    a_stateful_set_stays_as_it_is_and_its_new_pods_have_the_sidecar,
]

# The promise, what is in the policy, and what is put there instead.
MUTATIONS = [
    (PROMISES[0], "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
    (PROMISES[0], "terminationGracePeriodSeconds.orValue(30)", "activeDeadlineSeconds.orValue(30)"),
    (PROMISES[0], "(variables.hostNetwork || variables.drain ?", "(variables.drain ?"),
    (PROMISES[0], "subPath: 'no-token'", "subPath: 'token'"),
    (PROMISES[0], "memory: '64Mi'", "memory: '65Mi'"),
    (PROMISES[0], "port: 9803", "port: 9802"),
    (PROMISES[0], "dragonfly(-tls)?(/.*)?$", "dragonfly(/.*)?$"),
    (PROMISES[1], "path: '/spec/initContainers/0', value", "path: '/spec/initContainers/-', value"),
    (PROMISES[1], "restartPolicy: 'Always',", ""),
    (PROMISES[2], "(!has(object.spec.initContainers) ?", "(false ?"),
    (PROMISES[2], "dragonfly(/|/scheduler.yaml)?$", "dragonfly$"),
    (PROMISES[2], "subPath: mount.?subPath.orValue('')", "subPath: ''"),
    (PROMISES[3], "!has(mount.subPathExpr) && ", ""),
    (PROMISES[3], "        component: scheduler\n", "        app: scheduler\n"),
    (PROMISES[3], "dragonfly(/|/scheduler.yaml)?$')", "dragonfly.*') || true"),
    (PROMISES[3], "port.containerPort in [9802, 9803]", "port.containerPort in [1]"),
    (PROMISES[3], "object.metadata.?annotations[", "object.metadata.?labels["),
    (PROMISES[3], "^signoff(", "^sign("),
    (PROMISES[4], "variables.drain && !object.spec.containers[variables.at].?lifecycle.?preStop.hasValue()", "variables.drain"),
    (PROMISES[5], "== 'privileged'", "!= ''"),
    (PROMISES[5], "            runAsNonRoot: true,\n", ""),
    (PROMISES[6], "      scope: Namespaced\n", ""),
    (PROMISES[7], "  policyName: signoff", "  policyName: sign"),
    (PROMISES[8], "failurePolicy: Ignore", "failurePolicy: Fail"),
    (PROMISES[8], ".filter(one, string(one[0]).matches('^SIGNOFF_[A-Z_]+$'))", ""),
    (PROMISES[9], "limits: Object.spec.initContainers.resources.limits{memory", "limits: Object.spec.initContainers.resources.limits{cpu: '1', memory"),
    (PROMISES[10], "CREATE", "UPDATE"),
]


def check(promise, cluster):
    began = time.monotonic()
    words = promise.__name__.replace("_", " ")
    try:
        found = promise(cluster)
    except Failed as failed:
        print(f"FAILED {words}\n  {failed}", file=sys.stderr, flush=True)
        return False
    print(f"ok     {words}{f': {found}' if found else ''} ({time.monotonic() - began:.1f} s)", flush=True)
    return True


def all_promises(kubeconfig):
    cluster = Cluster(kubeconfig)
    cluster.make_namespaces()
    try:
        return all([check(promise, cluster) for promise in PROMISES])
    finally:
        cluster.take_away()


def all_caught(kubeconfig):
    global BOUND
    Cluster(kubeconfig).make_namespaces()
    # What is broken is not waited for as long as what may be slow.
    BOUND, caught = 6, 0
    for promise, old, new in MUTATIONS:
        cluster = Cluster(kubeconfig, breaks=(old, new))
        try:
            promise(cluster)
            print(f"NOT CAUGHT by {promise.__name__}: {old!r} -> {new!r}", file=sys.stderr, flush=True)
        except (Failed, KeyError, IndexError) as failed:
            caught += 1
            if os.environ.get("VERBOSE"):
                print(f"{promise.__name__}: {old!r} -> {new!r}\n    {str(failed)[-500:]}\n", flush=True)
        finally:
            Cluster(kubeconfig).uninstall()
    Cluster(kubeconfig).take_away()
    for promise in set(PROMISES) - {one[0] for one in MUTATIONS}:
        print(f"NO MUTATION for {promise.__name__}", file=sys.stderr)
        caught = -1
    print(f"{caught} of {len(MUTATIONS)} broken policies caught")
    return caught == len(MUTATIONS)


@contextlib.contextmanager
def api_server(program):
    """etcd, the API server and its controllers, on loopback; gives the kubeconfig. To be run where nobody else's are."""
    run(["ip", "link", "set", "lo", "up"])
    with tempfile.TemporaryDirectory() as dir, contextlib.ExitStack() as ends:
        dir = pathlib.Path(dir)
        key, public, tokens, kubeconfig = (dir / name for name in ("sa.key", "sa.pub", "tokens", "kubeconfig"))
        run(["openssl", "genrsa", "-out", str(key), "2048"])
        run(["openssl", "rsa", "-in", str(key), "-pubout", "-out", str(public)])
        tokens.write_text("admin,admin,admin,system:masters\n")
        address = "https://127.0.0.1:6443"
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "one", "cluster": {"server": address, "insecure-skip-tls-verify": True}}],
                    "users": [{"name": "one", "user": {"token": "admin"}}],
                    "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
                    "current-context": "one",
                }
            )
        )

        def start(*command):
            log = ends.enter_context((dir / f"{pathlib.Path(command[0]).name}-{command[1]}.log").open("w"))
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            ends.callback(process.wait)
            ends.callback(process.kill)

        start("etcd", "--data-dir", str(dir / "etcd"), "--unsafe-no-fsync")
        start(
            program,
            "apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--cert-dir={dir}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
        )
        kubectl = [tool("kubectl"), "--kubeconfig", str(kubeconfig)]

        def ready():
            return subprocess.run([*kubectl, "get", "--raw", "/readyz"], capture_output=True, check=False).returncode == 0

        eventually("the API server is ready", ready)
        account = f"--service-account-private-key-file={key}"
        start(program, "controller-manager", f"--kubeconfig={kubeconfig}", account, "--leader-elect=false")
        yield kubeconfig


def main():
    arguments = [one for one in sys.argv[1:] if one != "--mutate"]

    def all_of_it(kubeconfig):
        return all_promises(kubeconfig) and ("--mutate" not in sys.argv or all_caught(kubeconfig))

    if arguments[0] != "--hyper":
        return all_of_it(arguments[0])

    def alone():
        with api_server(str(pathlib.Path(arguments[1]).resolve())) as kubeconfig:
            return 0 if all_of_it(kubeconfig) else 1

    return enter_a_world(alone) == 0


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
