"""What k8s/install promises without a cluster, and the directory as its user edits it. What it does in one is in policy.py."""

import pathlib
import re
import shutil
import tempfile

import inject
import pss
import yaml
from manifests import by_name
from render import ROOT, Failed, kustomize, load, name_of, pod_spec, require, signoff_container, variables

# The lines of kustomization.yaml that make a variant of it, and the components that do the same to a StatefulSet.
VARIANTS = {
    "default": ([], []),
    "rest": (["- path: rest.yaml"], ["rest"]),
    "drain": (["- drain"], ["drain-http"]),
    "spool": (["- spool"], ["spool-hostpath"]),
    "all": (["- path: rest.yaml", "- drain", "- spool"], ["drain-http", "rest", "spool-hostpath"]),
}
NAMESPACE = "dragonfly-system"
SETTINGS = "[['SIGNOFF_REPAIR', 'report']]"


def edited(k8s, dir, image=None, variant="default", namespace=None, settings=None):
    """A copy of k8s/install in which its user uncommented and replaced what it offers."""
    shutil.copytree(k8s, dir / "k8s", symlinks=True)
    install = dir / "k8s/install"
    text = (install / "kustomization.yaml").read_text()
    for line in VARIANTS[variant][0]:
        require(text.count(f"  # {line}\n") == 1, f"kustomization.yaml doesn't offer {line!r}")
        text = text.replace(f"  # {line}\n", f"  {line}\n")
    if image:
        name, _, tag = image.rpartition(":")
        text = re.sub(r"newName: .+", f"newName: {name}", text)
        text = re.sub(r"newTag: .+", f'newTag: "{tag}"', text)
    if namespace:
        text = text.replace(f"\nnamespace: {NAMESPACE}\n", f"\nnamespace: {namespace}\n")
    if settings is not None:
        begin = text.index("  # - target: {kind: MutatingAdmissionPolicy")
        end = text.index("\n\n", begin)
        offered = re.sub(r"^  # ", "  ", text[begin:end], flags=re.M)
        require(SETTINGS in offered, f"the settings that are offered are {offered}")
        text = text[:begin] + offered.replace(SETTINGS, settings) + text[end:]
    (install / "kustomization.yaml").write_text(text)
    return install


def rendered(tree, **edits):
    with tempfile.TemporaryDirectory() as dir:
        return load(kustomize(edited(tree.k8s, pathlib.Path(dir), **edits)))


def policy_of(docs):
    return next(doc for doc in docs if doc["kind"] == "MutatingAdmissionPolicy")


def expressions(docs):
    return {one["name"]: one["expression"] for one in policy_of(docs)["spec"]["variables"]}


def deployment_of(docs):
    return next(doc for doc in docs if doc["kind"] == "Deployment")


def the_policy_is_what_is_generated_from_the_components(tree):
    found = (tree.k8s / "install/policy.yaml").read_text()
    require(found == inject.policy(tree.k8s), "k8s/install/policy.yaml is stale: python3 tests/k8s/inject.py > k8s/install/policy.yaml")


def the_image_is_named_in_one_place_for_the_policy_and_for_reconcile(tree):
    text = "".join(path.read_text() for path in sorted((tree.k8s / "install").glob("**/*.yaml")))
    require(text.count("registry.example.com") == 1, "several places name the image")
    for variant in VARIANTS:
        image = "registry.internal:5000/dragonfly/signoff:1.2.3"
        docs = rendered(tree, image=image, variant=variant)
        require(signoff_container(pod_spec(deployment_of(docs)))["image"] == image, f"{variant}: reconcile has another image")
        require(expressions(docs)["image"] == f"'{image}'", f"{variant}: the policy has {expressions(docs)['image']}")


def each_variant_sets_its_variable_and_nothing_else(tree):
    plain = rendered(tree)
    before = expressions(plain)
    manager = variables(signoff_container(pod_spec(deployment_of(plain))))["SIGNOFF_MANAGER"]
    sets = {"rest": {"manager": f"'{manager}'"}, "drain": {"drain": "true"}, "spool": {"spool": "true"}}
    sets["all"] = {**sets["rest"], **sets["drain"], **sets["spool"]}
    for variant, wanted in sets.items():
        docs = rendered(tree, variant=variant)
        require(expressions(docs) == {**before, **wanted}, f"{variant}: its variables are {expressions(docs)}")
        for each in (docs, plain):
            policy_of(each)["spec"]["variables"] = None
        require(by_name(docs) == by_name(plain), f"{variant}: it changes something else")
        plain = rendered(tree)
    wanted = {**before, "settings": SETTINGS}
    require(expressions(rendered(tree, settings=SETTINGS)) == wanted, "the settings that it offers are not put in")


def the_namespace_is_named_in_one_place(tree):
    docs = rendered(tree, namespace="elsewhere")
    for doc in docs:
        require(doc["metadata"]["namespace"] == "elsewhere", f"{name_of(doc)} is in {doc['metadata']['namespace']}")
    require(NAMESPACE not in yaml.safe_dump_all(docs), f"something is in {NAMESPACE} still")
    require(len(docs) == 6, f"there are {[name_of(doc) for doc in docs]}")


def nothing_waits_for_a_secret(tree):
    """A pod whose Secret is not there starts: the sidecar, for its scheduler's sake, and reconcile, to say so."""
    docs = rendered(tree, variant="all")
    text = policy_of(docs)["spec"]["mutations"][0]["jsonPatch"]["expression"]
    for kind in ("volumes.secret", "env.valueFrom.secretKeyRef"):
        named = re.findall(rf"{re.escape(kind)}{{([^}}]*)}}", text)
        require(named and all("optional: true" in one for one in named), f"of the policy's {kind} are {named}")
    spec = pod_spec(deployment_of(docs))
    require([one["secret"]["optional"] for one in spec["volumes"]] == [True], f"reconcile's volumes are {spec['volumes']}")
    taken = [one["name"] for one in signoff_container(spec)["env"] if "secretKeyRef" in one.get("valueFrom", {})]
    require(not taken, f"reconcile takes {taken} from a Secret, and would not see it change")


def reconcile_here_is_the_cronjob_s_but_stays_and_repairs(tree):
    docs = rendered(tree)
    spec = pod_spec(deployment_of(docs))
    of_the_job = pod_spec(tree.render("reconcile")[0])
    ours, theirs = signoff_container(spec), signoff_container(of_the_job)
    for field in ("resources", "securityContext", "volumeMounts"):
        require(ours[field] == theirs[field], f"its {field} differ")
    require(spec["securityContext"] == of_the_job["securityContext"], "its pod's securityContext differs")
    require(not pss.offences(spec), f"restricted Pod Security: {pss.offences(spec)}")
    require(ours["command"] == [*theirs["command"], "--apply", "--every=20s"], f"it runs {ours['command']}")
    require(deployment_of(docs)["spec"]["strategy"] == {"type": "Recreate"}, "two at a time")
    require(variables(ours)["SIGNOFF_PODS"] == "true" and spec["serviceAccountName"] == "signoff-reconcile", "it can't list pods")
    # By `kubectl exec` a run in it is one, and only reports.
    wrong = {"SIGNOFF_APPLY", "SIGNOFF_EVERY"} & variables(ours).keys()
    require(not wrong, f"as variables {wrong} hold for `signoff reconcile` by kubectl exec, too")
    rights = next(doc for doc in docs if doc["kind"] == "Role")["rules"]
    require(rights == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}], f"it may {rights}")


def the_policy_fails_open_and_goes_by_two_labels(tree):
    spec = policy_of(rendered(tree))["spec"]
    require(spec["failurePolicy"] == "Ignore", "where it fails, no scheduler starts")
    require("paramKind" not in spec, "a parameter may be stale")
    constraints = spec["matchConstraints"]
    require(constraints["namespaceSelector"] == {"matchLabels": {inject.LABEL: inject.ENABLED}}, "other namespaces")
    require(constraints["objectSelector"] == {"matchLabels": {"component": "scheduler"}}, "other pods")
    rules = [(one["operations"], one["resources"]) for one in constraints["resourceRules"]]
    require(rules == [(["CREATE"], ["pods"])], f"it is asked at {rules}")


def every_variable_that_the_policy_sets_is_one_that_the_program_reads(tree):
    known = set(re.findall(r"`(SIGNOFF_[A-Z_]+|POD_NAME|POD_IP|HOST_IP)`", (ROOT / "docs/reference.md").read_text()))
    text = policy_of(rendered(tree))["spec"]["mutations"][0]["jsonPatch"]["expression"]
    named = set(re.findall(r"\.env\{\s*name: '(\w+)'", text))
    put_in = set(re.findall(r"\$\((\w+)\)", text))
    require(len(named) > 8 and not named - known - put_in, f"nothing reads {named - known - put_in}")


def it_fits_the_api_from_the_version_that_has_such_policies(tree):
    try:
        import kubernetes_validate
    except ImportError:
        from render import skip

        skip("kubernetes-validate is missing (pip install kubernetes-validate)")
    newest = int(kubernetes_validate.latest_version().split(".")[1])
    for variant in VARIANTS:
        for doc in rendered(tree, variant=variant):
            # kustomize gives it to what it doesn't know, too, and kubectl takes it away again.
            if doc["kind"].startswith("Mutating"):
                del doc["metadata"]["namespace"]
            for version in range(36, newest + 1):
                try:
                    kubernetes_validate.validate(doc, f"1.{version}", strict=True)
                except kubernetes_validate.ValidationError as error:
                    raise Failed(f"{variant}: {name_of(doc)} does not fit 1.{version}: {error.message[:300]}") from error
    return f"1.36 to 1.{newest}"


PROMISES = [
    the_policy_is_what_is_generated_from_the_components,
    the_image_is_named_in_one_place_for_the_policy_and_for_reconcile,
    each_variant_sets_its_variable_and_nothing_else,
    the_namespace_is_named_in_one_place,
    nothing_waits_for_a_secret,
    reconcile_here_is_the_cronjob_s_but_stays_and_repairs,
    the_policy_fails_open_and_goes_by_two_labels,
    every_variable_that_the_policy_sets_is_one_that_the_program_reads,
    it_fits_the_api_from_the_version_that_has_such_policies,
]
