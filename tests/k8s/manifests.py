"""What the rendered manifests promise. Each function is one promise about a tree; it raises Failed where it is broken."""

import json
import re

import yaml
from container import expand
from render import (
    RELEASES,
    ROOT,
    TOKEN,
    Failed,
    containers,
    helm_template,
    load,
    name_of,
    pod_spec,
    require,
    scheduler_set,
    signoff_container,
    skip,
    tool,
    variables,
    without_nulls,
)

# The Prometheus Operator's kinds, of which Kubernetes has no schema.
FOREIGN = {"PodMonitor", "PrometheusRule"}
# From which version of Kubernetes on a variant is meant to work; all others from 1.29.
FIRST = {"plain-sidecar": 28, "drain-image-volume": 35}
# What sets up a volume for the agent, and so comes before it.
BEFORE_THE_SIDECAR = {"spool-hostpath": ["signoff-spool"], "spool-claim": ["signoff-spool"]}


def charts():
    """The chart's output by several releases' names."""
    if not tool("helm"):
        skip("the chart needs helm")
    for release in RELEASES:
        yield release, helm_template(release)


def dump(docs):
    return yaml.safe_dump_all(docs, sort_keys=False)


def components_of(tree, example):
    kustomization = yaml.safe_load((tree.k8s / "examples" / example / "kustomization.yaml").read_text())
    return [path.removeprefix("../../") for path in kustomization.get("components", [])]


def composed(tree):
    """Each list of components that an example shows."""
    found = {tuple(components_of(tree, example)): example for example in tree.examples()}
    return {example: list(components) for components, example in found.items() if components}


def by_name(docs):
    found = {name_of(doc): without_nulls(doc) for doc in docs}
    require(len(found) == len(docs), "two documents have one name")
    return found


def every_variant_fits_the_api_of_every_version(tree):
    try:
        import kubernetes_validate
    except ImportError:
        skip("kubernetes-validate is missing (pip install kubernetes-validate)")
    newest = int(kubernetes_validate.latest_version().split(".")[1])
    require(newest >= 37, f"kubernetes-validate knows 1.{newest} at the most")

    def fits(doc, version):
        try:
            kubernetes_validate.validate(doc, f"1.{version}", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Failed(f"{name_of(doc)} does not fit 1.{version}: {error.json_path}: {error.message[:300]}") from error

    seen, foreign = set(), set()
    for path in [f"examples/{name}" for name in tree.examples()] + ["base", "reconcile", "secrets", "monitoring"]:
        for doc in tree.render(path):
            for version in range(FIRST.get(path.split("/")[-1], 29), newest + 1):
                key = (json.dumps(doc, sort_keys=True, default=str), version)
                if doc["kind"] in FOREIGN:
                    foreign.add(doc["kind"])
                elif key not in seen:
                    seen.add(key)
                    fits(doc, version)
    require(foreign == FOREIGN, f"without a schema: {foreign}")
    # It can fail: a key that no version knows.
    wrong = tree.render("base")[-1]
    wrong["spec"]["replica"] = 1
    try:
        fits(wrong, newest)
    except Failed:
        return f"{len(seen)} pairs of a resource and a version, up to 1.{newest}"
    raise Failed("a misspelt key passes")


def the_sidecar_touches_nothing_else(tree):
    """Taken out again, nothing of it is left, and nothing is missing."""
    sources = [("base", tree.text("base")), *charts()]
    for variant in ("sidecar", "plain-sidecar"):
        for source, text in sources:
            before, after = by_name(load(text)), by_name(load(tree.compose([f"components/{variant}"], text)))
            require(before.keys() == after.keys(), f"{source}: {before.keys() ^ after.keys()} came or went")
            changed = {name for name in before if before[name] != after[name]}
            patched = name_of(scheduler_set(load(text)))
            require(changed == {patched}, f"{source} with {variant}: changed are {changed}, not {patched} alone")
            spec = pod_spec(after[patched])
            where = "initContainers" if variant == "sidecar" else "containers"
            spec[where] = [one for one in spec[where] if one["name"] != "signoff"]
            spec["volumes"] = [one for one in spec["volumes"] if one["name"] != "signoff"]
            if not spec[where]:
                del spec[where]
            require(after[patched] == before[patched], f"{source} with {variant}: {patched} differs without it too")


def the_sidecar_goes_by_kind_and_label_alone(tree):
    def workload(kind, name, label):
        pod = {"containers": [{"name": "x", "image": "x"}], "volumes": [{"name": "config", "emptyDir": {}}]}
        labels = {"component": label} if label else {}
        meta = {"name": name, "labels": labels}
        return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": {"template": {"spec": pod}}}

    docs = [
        workload("StatefulSet", "anything-at-all", "scheduler"),
        workload("StatefulSet", "scheduler", "seed-client"),
        workload("StatefulSet", "dragonfly-scheduler", None),
        workload("Deployment", "scheduler", "scheduler"),
        workload("DaemonSet", "scheduler", "scheduler"),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "labels": {"component": "scheduler"}}},
    ]
    before = by_name(docs)
    after = by_name(load(tree.compose(["components/sidecar"], dump(docs))))
    changed = {name for name in before if before[name] != after.get(name)}
    require(changed == {"StatefulSet anything-at-all"}, f"changed are {changed}")


def applied_twice_is_applied_once(tree):
    sources = [("base", tree.text("base"))]
    if tool("helm"):
        sources.append(("the chart", helm_template("df", "--set", "scheduler.terminationGracePeriodSeconds=45")))
    for example, components in composed(tree).items():
        for source, text in sources:
            once = tree.compose(components, text)
            # What an overlay adds as a resource can't be added twice; that is kustomize's own rule.
            patches = [one for one in components if one not in ("components/network-policy", "components/reconcile-pods")]
            twice = tree.compose(patches, once)
            require(once == twice, f"{source} with the components of {example}: the second time changes it")


def the_sidecar_is_the_first_init_container_and_native(tree):
    sources = [("base", tree.text("base")), *charts()]
    for source, text in sources:
        spec = pod_spec(scheduler_set(load(tree.compose(["components/sidecar"], text))))
        names = [one["name"] for one in spec["initContainers"]]
        require(names[0] == "signoff", f"{source}: the init containers are {names}")
        rest = ["wait-for-manager"] if source != "base" else []
        require(names[1:] == rest, f"{source}: behind it come {names[1:]}")
        require(signoff_container(spec).get("restartPolicy") == "Always", f"{source}: it is not a native sidecar")
    for example in tree.examples():
        components = components_of(tree, example)
        if "components/sidecar" in components:
            names = [one["name"] for one in pod_spec(scheduler_set(tree.render(f"examples/{example}")))["initContainers"]]
            before = names[: names.index("signoff")]
            require(before == BEFORE_THE_SIDECAR.get(example, []), f"{example}: before the sidecar come {before}")


def the_sidecar_is_the_documented_minimum(tree):
    """What it asks of the official chart's pod: that alone, by the environment alone."""
    for source, text in charts():
        spec = pod_spec(scheduler_set(load(tree.compose(["components/sidecar"], text))))
        container = signoff_container(spec)
        require(container["command"] == ["signoff", "agent"] and "args" not in container, f"{source}: it has arguments")
        names = {one["name"] for one in container["env"]}
        require(names == {"POD_IP", "POD_NAME", "SIGNOFF_GRACE", "SIGNOFF_SPOOL"}, f"{source}: its variables are {names}")
        require(variables(container)["SIGNOFF_GRACE"] == "30", f"{source}: SIGNOFF_GRACE is not Kubernetes' default")
        mounts = {(one["name"], one["mountPath"]) for one in container["volumeMounts"]}
        wanted = {("config", "/etc/dragonfly"), ("signoff", "/run/signoff"), ("signoff", TOKEN)}
        require(mounts == wanted, f"{source}: its mounts are {mounts}")
        volumes = [one for one in spec["volumes"] if one["name"] != "config"]
        require(volumes == [{"name": "signoff", "emptyDir": {}}], f"{source}: its volumes are {volumes}")
        for probe in ("readinessProbe", "livenessProbe"):
            require(probe not in container, f"{source}: it has a {probe}")
        require(container["startupProbe"].get("exec"), f"{source}: its startup probe is no exec")
        require(container["resources"]["requests"] and container["resources"]["limits"], f"{source}: no resources")


def the_plain_sidecar_is_the_same_container(tree):
    native, plain = (
        signoff_container(pod_spec(scheduler_set(tree.render(f"examples/{name}")))) for name in ("sidecar", "plain-sidecar")
    )
    require(native.pop("restartPolicy") == "Always", "the native one has no restartPolicy")
    require(native == plain, "the two differ in more than restartPolicy")


def the_grace_is_copied_and_its_absence_is_loud(tree):
    if not tool("helm"):
        skip("the chart needs helm")
    components = ["components/sidecar", "components/grace"]
    for release in RELEASES:
        text = helm_template(release, "--set", "scheduler.terminationGracePeriodSeconds=47")
        before, after = load(text), load(tree.compose(components, text))
        spec = pod_spec(scheduler_set(after))
        require(variables(signoff_container(spec))["SIGNOFF_GRACE"] == "47", f"{release}: 47 is not copied")
        alone = by_name(load(tree.compose(components[:1], text)))
        both = by_name(after)
        container = signoff_container(pod_spec(both[name_of(scheduler_set(before))]))
        [one for one in container["env"] if one["name"] == "SIGNOFF_GRACE"][0]["value"] = "30"
        require(alone == both, f"{release}: it changes more than SIGNOFF_GRACE")
    unset = helm_template("df")
    two = dump(load(unset) + [{**scheduler_set(load(text)), "metadata": {"name": "b", "labels": {"component": "scheduler"}}}])
    for what, source, words in (("unset", unset, "terminationGracePeriodSeconds"), ("two of them", two, "multiple matches")):
        try:
            tree.compose(components, source)
        except Failed as failed:
            require(words in str(failed), f"{what}: kustomize says {failed}")
        else:
            raise Failed(f"{what}: kustomize finds nothing wrong")


def images_are_named_in_one_place(tree):
    """Each of ours by a bare name, which one entry of an overlay's `images:` replaces everywhere."""
    for path in sorted(tree.k8s.glob("**/*.yaml")):
        where = path.relative_to(tree.k8s)
        text = path.read_text()
        # A policy's is an expression: k8s/install has a place of its own, and promises of its own.
        found = re.findall(r"^\s*(?:- )?(?:image|reference):[ \t]+(?!variables\.)(\S+)", text, re.M)
        wrong = set(found) - {"signoff", "signoff-mock", "docker.io/library/busybox:1.37"}
        require(not wrong, f"{where} names the images {wrong}")
        named = re.findall(
            r"registry\.example\.com/(\S+)", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
        )
        require(len(named) == len(set(named)), f"{where} names an image twice: {named}")
    for example in tree.examples():
        kustomization = yaml.safe_load((tree.k8s / "examples" / example / "kustomization.yaml").read_text())
        entries = kustomization["images"]
        require(len([one for one in entries if one["name"] == "signoff"]) == 1, f"{example}: no entry for signoff, or two")
        wanted = {f"{one['newName']}:{one['newTag']}" for one in entries}
        used = set()
        for doc in tree.render(f"examples/{example}"):
            spec = pod_spec(doc) or {}
            used |= {one["image"] for one in containers(spec)}
            used |= {one["image"]["reference"] for one in spec.get("volumes") or [] if "image" in one}
        require(used - {"docker.io/library/busybox:1.37"} == wanted, f"{example}: {used} are used, {wanted} are set")


def the_version_is_that_of_the_program(tree):
    version = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    named = 0
    for path in sorted(tree.k8s.glob("**/*.yaml")):
        for found in re.findall(r'^ *newTag: "?([^"\n]+)|^version: (.+)', path.read_text(), re.M):
            named += 1
            require(version in found, f"{path.relative_to(tree.k8s)} names {found}, and this is {version}")
    require(named > len(tree.examples()), f"only {named} places name a version")


def the_names_that_others_go_by_are_there(tree):
    """The alerts', the PodMonitor's, the NetworkPolicies', the documents'."""
    docs = tree.render("examples/all")
    rules = (tree.k8s / "monitoring/prometheus-rule.yaml").read_text()
    for cronjob in set(re.findall(r'cronjob="([^"]+)"', rules)):
        require(f"CronJob {cronjob}" in {name_of(doc) for doc in docs}, f"the alerts look for a CronJob {cronjob}")
    named = set(re.findall(r"-c (\S+)\s+--", rules))
    require(named == {"signoff"}, f"the alerts run commands in the containers {named}")
    stateful = scheduler_set(docs)
    container = signoff_container(pod_spec(stateful))
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    monitor = next(doc for doc in docs if doc["kind"] == "PodMonitor")
    require(monitor["spec"]["selector"]["matchLabels"].items() <= labels.items(), "the PodMonitor selects other pods")
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        require(endpoint["port"] in ports and endpoint["path"] == "/metrics", f"the PodMonitor asks {endpoint}")
    policies = {doc["metadata"]["name"]: doc["spec"] for doc in docs if doc["kind"] == "NetworkPolicy"}
    require(policies["signoff"]["podSelector"]["matchLabels"].items() <= labels.items(), "the policy selects other pods")
    opened = {port["port"] for rule in policies["signoff"]["ingress"] for port in rule["ports"]}
    serving = next(one for one in pod_spec(stateful)["containers"] if one["name"] == "scheduler")
    wanted = {ports["signoff"], *(one["containerPort"] for one in serving["ports"])}
    require(wanted <= opened, f"the policy opens {opened}, and {wanted} are served")
    job = next(doc for doc in docs if doc["kind"] == "CronJob")
    labels = job["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    require(policies["signoff-reconcile"]["podSelector"]["matchLabels"].items() <= labels.items(), "reconcile has no policy")
    reached = {int(port) for port in re.findall(r":(\d+)", variables(signoff_container(pod_spec(job)))["SIGNOFF_MANAGER"])}
    opened = {port["port"] for rule in policies["signoff-reconcile"]["egress"] for port in rule["ports"]}
    require(reached | {8002, 53} <= opened, f"the policy lets reconcile reach {opened}, and it needs {reached}")
    dashboard = next(doc for doc in docs if doc["metadata"]["name"] == "signoff-dashboard")
    text = (tree.k8s / "monitoring/dashboard.json").read_text()
    require(dashboard["data"] == {"signoff.json": text}, "the ConfigMap is not the dashboard")
    require(dashboard["metadata"]["labels"].get("grafana_dashboard") == "1", "Grafana's sidecar doesn't look for it")


def every_variable_is_one_that_the_program_reads(tree):
    """A misspelt one is silent. docs/reference.md's tables, which are the program's own, have them all; the kubelet reads some for others."""
    known = set(re.findall(r"`(SIGNOFF_[A-Z_]+|POD_NAME|POD_IP|HOST_IP)`", (ROOT / "docs/reference.md").read_text()))
    for example in tree.examples():
        for doc in tree.render(f"examples/{example}"):
            for container in containers(pod_spec(doc) or {}):
                if container["name"].startswith("signoff"):
                    put_in = set(re.findall(r"\$\((\w+)\)", " ".join(filter(None, variables(container).values()))))
                    unknown = {one["name"] for one in container.get("env") or []} - known - put_in
                    require(not unknown, f"{example}: {name_of(doc)}: nothing reads {unknown}")


def each_dragonfly_has_a_directory_of_its_own_on_the_node(tree):
    """Whatever the namespace and the release; and with no label at all, one of its namespace's."""
    if not tool("helm"):
        skip("the chart needs helm")
    components = ["components/sidecar", "components/spool-hostpath"]
    found = {}
    for release in (*RELEASES, None):
        text = helm_template(release) if release else tree.text("base")
        stateful = scheduler_set(load(tree.compose(components, text)))
        spec = pod_spec(stateful)
        container = signoff_container(spec)
        for namespace in ("one", "two"):
            # As the kubelet does it: in the list's order, a label that isn't there is empty, and a variable that isn't stays.
            given = {}
            for one in container["env"]:
                field = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
                labels = stateful["spec"]["template"]["metadata"]["labels"]
                label = re.fullmatch(r"metadata\.labels\['(.+)'\]", field or "")
                value = labels.get(label[1], "") if label else {"metadata.namespace": namespace}.get(field, field)
                given[one["name"]] = expand(one["value"], given) if field is None else value
            spool = given["SIGNOFF_SPOOL"]
            mount = next(one for one in container["volumeMounts"] if one["name"] == "signoff-spool")["mountPath"]
            above, _, name = spool.rpartition("/")
            # Directly below: what lies in the directory that all used is looked for there.
            require(above == mount and name and "$" not in name, f"{release} in {namespace}: its spool is {spool}")
            require(spool not in found, f"{release} in {namespace} and {found.get(spool)} share {spool}")
            found[spool] = f"{release} in {namespace}"
        volume = next(one for one in spec["volumes"] if one["name"] == "signoff-spool")
        require(volume["hostPath"]["path"] == "/var/lib/signoff", f"{release}: it lies at {volume}, not where it lay before")


def what_a_pod_mounts_is_there(tree):
    """Secrets and ConfigMaps, by name and by key, and the certificates that scheduler.yaml names."""
    secrets = tree.render("secrets")
    for example in tree.examples():
        docs = tree.render(f"examples/{example}")
        data = {
            name_of(doc): {**doc.get("data", {}), **doc.get("stringData", {})}
            for doc in docs + secrets
            if doc["kind"] in ("Secret", "ConfigMap")
        }
        for doc in docs:
            spec = pod_spec(doc) or {}
            for volume in spec.get("volumes") or []:
                if "secret" in volume:
                    require(f"Secret {volume['secret']['secretName']}" in data, f"{example}: no Secret for {volume}")
                if "configMap" in volume:
                    held = data.get(f"ConfigMap {volume['configMap']['name']}", {})
                    wanted = {item["key"] for item in volume["configMap"].get("items", [])}
                    require(held and wanted <= held.keys(), f"{example}: no ConfigMap for {volume}")
            volumes = {one["name"]: one for one in spec.get("volumes") or []}
            volumes |= {one["metadata"]["name"]: {"claim": True} for one in doc.get("spec", {}).get("volumeClaimTemplates", [])}
            for container in containers(spec):
                for mount in container.get("volumeMounts") or []:
                    require(mount["name"] in volumes, f"{example}: {container['name']} mounts {mount['name']}, which isn't there")
                for one in container.get("env") or []:
                    reference = one.get("valueFrom", {}).get("secretKeyRef")
                    held = data.get(f"Secret {reference['name']}", {}) if reference else {}
                    require(not reference or reference["key"] in held, f"{example}: no such key: {reference}")
                files = {
                    value
                    for name, value in variables(container).items()
                    if name.endswith("_FILE") and name != "SIGNOFF_SCHEDULER_CONFIG"
                }
                for file in files:
                    require(
                        found_in_a_mount(file, container, volumes, data), f"{example}: {container['name']}: no volume has {file}"
                    )
    docs = tree.render("examples/scheduler-tls")
    config = yaml.safe_load(next(doc for doc in docs if doc["kind"] == "ConfigMap")["data"]["scheduler.yaml"])
    files = {file for section in ("server", "manager") for file in config[section]["tls"].values()}
    require(len(files) == 3, f"scheduler.yaml names the files {files}")
    spec = pod_spec(scheduler_set(docs))
    volumes = {one["name"]: one for one in spec["volumes"]}
    data = {name_of(doc): doc["stringData"] for doc in secrets}
    for container in containers(spec):
        for file in files:
            require(found_in_a_mount(file, container, volumes, data), f"{container['name']} has no {file}")


def found_in_a_mount(file, container, volumes, data):
    for mount in container.get("volumeMounts") or []:
        dir, _, name = file.rpartition("/")
        if mount["mountPath"] == dir and "secret" in volumes[mount["name"]]:
            return name in data[f"Secret {volumes[mount['name']]['secret']['secretName']}"]
    return False


def every_directory_says_what_it_is_for(tree):
    readme = (tree.k8s / "README.md").read_text()
    for path in sorted([*tree.k8s.glob("**/kustomization.yaml"), *tree.k8s.glob("helm/*/plugin.yaml")]):
        where = path.relative_to(tree.k8s)
        require(path.read_text().startswith("# "), f"{where} has no header")
        if where.parts[0] in ("components", "helm"):
            said = f"`{where.parts[1]}`" in readme or f"`helm/{where.parts[1]}`" in readme or where.name == "plugin.yaml"
            require(said, f"README.md doesn't say when to use {where.parent}")
    for example, components in composed(tree).items():
        for component in components:
            require((tree.k8s / component).is_dir(), f"{example}: {component} is not there")
    shown = {one.split("/")[1] for components in composed(tree).values() for one in components}
    # Those that others bring.
    brought = {"spool-owner"}
    every = {path.parent.name for path in tree.k8s.glob("components/*/kustomization.yaml")}
    require(every == shown | brought, f"no example shows {every - shown - brought}")
