"""Whether the times add up: the hooks', the agent's and Kubernetes' own, in the manifests and in the agent's code."""

import re

from render import ROOT, Failed, name_of, pod_spec, require, scheduler_set, signoff_container, variables

# What a scheduler gets between its SIGTERM and the agent's at the least, in seconds: an idle one takes milliseconds, one with
# calls under way as long as they take.
SCHEDULERS_STOP = 5


def constant(file, name):
    """A Duration of the agent's, in seconds."""
    text = (ROOT / file).read_text()
    found = re.search(rf"const {name}: Duration = Duration::from_(secs|millis)\((\d+)\);", text)
    if not found:
        raise Failed(f"{file} has no {name}")
    return int(found[2]) / {"secs": 1, "millis": 1000}[found[1]]


def seconds(text):
    """As the program reads a duration: a bare number, or 5s, 4m."""
    found = re.fullmatch(r"(\d+)(s|m|)", text)
    require(found, f"not a duration that is checked here: {text}")
    return int(found[1]) * (60 if found[2] == "m" else 1)


def longest_hook(command):
    """How long `signoff pre-stop` takes at the most: the answer, the way there and back, the linger."""
    options = dict(one.removeprefix("--").split("=") for one in command[2:])
    deadline = seconds(options["deadline"]) if "deadline" in options else constant("src/agent/lifecycle/mod.rs", "HOOK_WAIT")
    return deadline + constant("src/cli/pre_stop.rs", "MARGIN") + seconds(options.get("linger", "0"))


def the_grace_budget_adds_up(tree):
    least = constant("src/agent/lifecycle/mod.rs", "LEAST_AFTER_SIGTERM")
    slack = constant("src/agent/lifecycle/mod.rs", "DRAIN_SLACK")
    default = constant("src/identity/settings.rs", "DEFAULT_GRACE")
    require(default == 30, f"without SIGNOFF_GRACE the agent takes {default} s, and Kubernetes 30")
    drains = set()
    for example in tree.examples():
        docs = tree.render(f"examples/{example}")
        if not any(doc["kind"] == "StatefulSet" for doc in docs):
            continue
        spec = pod_spec(scheduler_set(docs))
        total = spec.get("terminationGracePeriodSeconds", 30)
        grace = seconds(variables(signoff_container(spec))["SIGNOFF_GRACE"])
        scheduler = next(one for one in spec["containers"] if one["name"] == "scheduler")
        hook = scheduler.get("lifecycle", {}).get("preStop", {})
        if "exec" in hook:
            longest = longest_hook(hook["exec"]["command"])
        elif "httpGet" in hook:
            # It has no time-out of its own: the agent answers in time.
            longest = constant("src/agent/lifecycle/mod.rs", "HOOK_WAIT")
        else:
            longest = 0
        require(grace == total, f"{example}: SIGNOFF_GRACE is {grace}, the pod's grace {total}")
        needed = longest + SCHEDULERS_STOP + least
        require(needed <= total, f"{example}: the hook's {longest} s, the stops' {SCHEDULERS_STOP + least} s, and only {total} s")
        require(longest < grace + slack, f"{example}: the drain is over before the hook is")
        drains |= {example} if hook else set()
    require(drains == {"drain", "drain-image-volume", "drain-http", "all"}, f"a hook is in {drains}")


def a_run_of_reconcile_fits_into_its_period(tree):
    for path in ("reconcile", "examples/reconcile", "examples/reconcile-database", "examples/reconcile-pods", "examples/all"):
        job = next(doc for doc in tree.render(path) if doc["kind"] == "CronJob")
        spec = job["spec"]
        require(job["metadata"]["name"] == "signoff-reconcile", f"{path}: it is {name_of(job)}")
        require(spec["concurrencyPolicy"] == "Forbid", f"{path}: two at a time")
        one = spec["jobTemplate"]["spec"]
        require(one["backoffLimit"] == 0, f"{path}: tried again at once")
        require(one["template"]["spec"]["restartPolicy"] == "Never", f"{path}: restarted in place")
        period = 60 * int(re.fullmatch(r"\*/(\d+) \* \* \* \*", spec["schedule"])[1])
        given = variables(signoff_container(pod_spec(job))).get("SIGNOFF_DEADLINE")
        deadline = seconds(given) if given else constant("src/cli/reconcile.rs", "DEADLINE")
        active = one["activeDeadlineSeconds"]
        require(deadline + 10 <= active < period, f"{path}: deadline {deadline} s, killed after {active} s, period {period} s")
        # Under 10 s the controller may miss every start: it looks that often.
        require(spec["startingDeadlineSeconds"] >= 10, f"{path}: it may never be started")
