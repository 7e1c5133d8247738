"""What the rendered pods may do and see: Pod Security, and no service account's token."""

import pathlib
import tempfile

import pss
from manifests import charts
from render import TOKEN, containers, kustomize, load, name_of, pod_spec, require, scheduler_set

# The default variant, and those whose headers don't say that they can't.
RESTRICTED = ("sidecar", "plain-sidecar", "drain", "drain-http", "drain-image-volume", "scheduler-tls", "rest", "reconcile", "all")
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


def no_container_of_ours_is_given_a_token(tree):
    """The kubelet mounts none where the pod says so, or where the container has a mount of its own at that path."""
    sources = [(example, tree.render(f"examples/{example}")) for example in tree.examples()]
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
