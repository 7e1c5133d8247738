"""What the rendered pods may do and see: Pod Security, and no service account's token."""

import pathlib
import tempfile

import pss
import yaml
from manifests import charts
from render import TOKEN, containers, kustomize, load, name_of, pod_spec, require, scheduler_set

# The default variant, and those whose headers don't say that they can't.
RESTRICTED = (
    "sidecar",
    "plain-sidecar",
    "drain",
    "drain-http",
    "drain-image-volume",
    "scheduler-tls",
    "rest",
    "reconcile",
    "reconcile-pods",
    "all",
)
UNRESTRICTED = ("spool-hostpath", "spool-claim", "host-network")


def restricted_pod_security_passes(tree):
    for example in RESTRICTED:
        for doc in tree.render(f"examples/{example}"):
            spec = pod_spec(doc)
            if spec:
                found = pss.offences(spec)
                require(not found, f"{example}: {name_of(doc)}: {'; '.join(found)}")
    for example in UNRESTRICTED:
        found = pss.offences(pod_spec(scheduler_set(tree.render(f"examples/{example}"))))
        require(found, f"{example} passes restricted Pod Security, and its header says that it can't")
    every = {*RESTRICTED, *UNRESTRICTED, "reconcile-database"}
    require(every == set(tree.examples()), f"neither restricted nor not: {every ^ set(tree.examples())}")


def the_claim_with_an_fsgroup_passes_restricted_pod_security(tree):
    """As the header of components/spool-claim shows it, letter for letter."""
    header = (tree.k8s / "components/spool-claim/kustomization.yaml").read_text()
    shown = header[header.index("#   patches:") :].split("\n#\n")[0].replace("\n#   ", "\n").removeprefix("#   ")
    with tempfile.TemporaryDirectory() as dir:
        dir = pathlib.Path(dir)
        (dir / "k8s").symlink_to(tree.k8s)
        (dir / "kustomization.yaml").write_text(f"resources: [k8s/examples/spool-claim]\n{shown}\n")
        spec = pod_spec(scheduler_set(load(kustomize(dir))))
    found = pss.offences(spec)
    require(not found, f"{'; '.join(found)}")
    require([one["name"] for one in spec["initContainers"]] == ["signoff"], "the step is still there")
    require(spec["securityContext"]["fsGroup"] == 65532, f"its securityContext is {spec['securityContext']}")


def the_check_of_pod_security_can_fail(tree):
    def change(path, value):
        spec = pod_spec(scheduler_set(tree.render("examples/sidecar")))
        at = spec
        for key in path[:-1]:
            at = at[key] if isinstance(at, list) else at.setdefault(key, {})
        at[path[-1]] = value
        return spec

    context = ("initContainers", 0, "securityContext")
    for path, value in [
        (("hostNetwork",), True),
        (("hostPID",), True),
        (("volumes", 0), {"name": "signoff", "hostPath": {"path": "/"}}),
        (("securityContext", "runAsUser"), 0),
        (("securityContext", "sysctls"), [{"name": "kernel.msgmax", "value": "1"}]),
        ((*context, "runAsNonRoot"), None),
        ((*context, "runAsUser"), 0),
        ((*context, "privileged"), True),
        ((*context, "allowPrivilegeEscalation"), None),
        ((*context, "capabilities"), {}),
        ((*context, "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        ((*context, "seccompProfile"), None),
        ((*context, "seccompProfile"), {"type": "Unconfined"}),
        ((*context, "seLinuxOptions"), {"type": "spc_t"}),
        ((*context, "procMount"), "Unmasked"),
        (("initContainers", 0, "ports", 0, "hostPort"), 9802),
        (("initContainers", 0, "startupProbe", "httpGet"), {"host": "10.0.0.1", "port": 1}),
    ]:
        require(pss.offences(change(path, value)), f"{'.'.join(map(str, path))} = {value} passes")


# The one that asks the API server something: reconcile, with the component that says so.
ASKS = "reconcile-pods"


def no_container_of_ours_is_given_a_token_but_reconcile_where_it_lists_pods(tree):
    """The kubelet mounts none where the pod says so, or where the container has a mount of its own at that path."""
    sources = [(example, tree.render(f"examples/{example}")) for example in tree.examples() if example != ASKS]
    for source, text in charts():
        sources.append((source, load(tree.compose(["components/drain", "components/sidecar", "components/spool-claim"], text))))
    for source, docs in sources:
        for doc in docs:
            spec = pod_spec(doc) or {}
            for container in containers(spec):
                ours = container["name"].startswith("signoff") or doc["kind"] == "CronJob"
                shadowed = TOKEN in [one["mountPath"] for one in container.get("volumeMounts") or []]
                automatic = spec.get("automountServiceAccountToken", True)
                require(not ours or shadowed or not automatic, f"{source}: {name_of(doc)}: {container['name']} gets a token")
    for example in ("sidecar", "reconcile"):
        for doc in tree.render(f"examples/{example}"):
            spec = pod_spec(doc)
            automatic = not spec or spec.get("automountServiceAccountToken", True)
            require(not spec or not automatic, f"{example}: {name_of(doc)}: a token is mounted")


def reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else(tree):
    for example in tree.examples():
        rights = [doc for doc in tree.render(f"examples/{example}") if "rbac" in doc["apiVersion"]]
        require(bool(rights) == (example == ASKS), f"{example}: its rights are {[name_of(doc) for doc in rights]}")
    docs = tree.render(f"examples/{ASKS}")
    found = {doc["kind"]: doc for doc in docs if "rbac" in doc["apiVersion"] or doc["kind"] == "ServiceAccount"}
    require(found.keys() == {"ServiceAccount", "Role", "RoleBinding"}, f"there are {found.keys()}")
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    require(found["Role"]["rules"] == rules, f"the Role gives {found['Role']['rules']}")
    binding, account = found["RoleBinding"], found["ServiceAccount"]["metadata"]
    require(binding["roleRef"]["name"] == found["Role"]["metadata"]["name"], "the RoleBinding is of another Role")
    subject = {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    require(binding["subjects"] == [subject], f"the RoleBinding is for {binding['subjects']}")
    require({doc["metadata"]["namespace"] for doc in docs} == {account["namespace"]}, "they are in several namespaces")
    policies = {doc["metadata"]["name"]: doc["spec"] for doc in docs if doc["kind"] == "NetworkPolicy"}
    opened = {port["port"] for rule in policies["signoff-reconcile"]["egress"] for port in rule["ports"]}
    require({443, 6443, 65003, 8002, 53} <= opened, f"the policy lets it reach {opened}")
    # Or a Deployment, which the component knows by its labels.
    labels = {"app.kubernetes.io/name": "signoff", "app.kubernetes.io/component": "reconcile"}
    pod = {"automountServiceAccountToken": False, "containers": [{"name": "signoff", "image": "signoff"}]}
    others = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": pod}}}
    deployments = [
        {**others, "metadata": {"name": "mine", "labels": labels}},
        {**others, "metadata": {"name": "manager", "labels": {"component": "manager"}}},
    ]
    composed = load(tree.compose([f"components/{ASKS}"], yaml.safe_dump_all(deployments)))
    for doc in docs + composed:
        spec = pod_spec(doc)
        if spec:
            told = [{one["name"]: one.get("value") for one in each.get("env", [])} for each in containers(spec)]
            lists = [one.get("SIGNOFF_PODS") for one in told]
            require(lists == [None if name_of(doc) == "Deployment manager" else "true"], f"{name_of(doc)}: {told}")
            with_token = (spec["automountServiceAccountToken"], spec.get("serviceAccountName")) == (True, account["name"])
            require(with_token == (name_of(doc) != "Deployment manager"), f"{name_of(doc)}: its pod's account is wrong")
