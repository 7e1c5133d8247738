"""The part of tests/alerts/run that reads YAML and JSON.

extract DIR  writes the rules as rules.yaml and the dashboard's queries as dashboard.yaml, both for promtool, and fails if
             a name, a label's value or a variable is used that nothing makes, or an alert lacks what each must have.
mutate DIR   breaks each rule in each way of `breaks`, and fails if the tests pass all the same.
"""

import concurrent.futures
import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

RULES = pathlib.Path("k8s/monitoring/prometheus-rule.yaml")
DASHBOARD = pathlib.Path("k8s/monitoring/dashboard.json")
TESTS = pathlib.Path("tests/alerts")
METRICS = ("src/agent/metrics", "src/repair/metrics")

# What kube-state-metrics calls what we use of it.
KUBE = {
    "kube_cronjob_created",
    "kube_cronjob_next_schedule_time",
    "kube_cronjob_spec_suspend",
    "kube_cronjob_status_last_schedule_time",
    "kube_cronjob_status_last_successful_time",
}

NAME = re.compile(r"\b(?:signoff|kube)_[a-z_]+")
MATCHER = re.compile(r'\b(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')

# What stands for a variable when a query of the dashboard is checked.
STANDS_FOR = {
    "namespace": ".*",
    "pod": ".*",
    "datasource": "prometheus",
    "__rate_interval": "5m",
    "__interval": "1m",
    "__range": "1h",
}


def groups():
    return yaml.safe_load(RULES.read_text())["spec"]["groups"]


def sources(stems):
    """The Rust files of these modules, wherever their tests live."""
    files = [path for stem in stems for path in [pathlib.Path(stem + ".rs"), *pathlib.Path(stem).glob("**/*.rs")]]
    return [path.read_text() for path in files if path.exists()]


def made():
    """The names that the code makes."""
    names = {name for text in sources(METRICS) for name in re.findall(r'"(signoff_[a-z_]+)"', text)}
    for stem in METRICS:
        if not sources([stem]):
            sys.exit(f"no metrics are found in {stem}.rs")
    return names | KUBE


def words():
    """Every string of the code that could be a label's value."""
    files = [path.read_text() for path in pathlib.Path("src").glob("**/*.rs")]
    found = {word for text in files for word in re.findall(r'"([a-z][a-z-]*)"', text)}
    return found | {"signoff-reconcile"}


def unknown(expr, names, values):
    """What a query asks for and nothing makes."""
    bare = re.sub(r'"[^"]*"', '""', expr)
    wrong = [name for name in NAME.findall(bare) if name not in names]
    for label, value in MATCHER.findall(expr):
        if label not in ("namespace", "pod", "job"):
            wrong += [f'{label}="{one}"' for one in value.split("|") if one not in values]
    return wrong


def expected_labels():
    """The labels that each alert has in the tests, by its name."""
    labels = {}
    for path in sorted(TESTS.glob("*_test.yaml")):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test.get("promql_expr_test", []):
                for sample in case["exp_samples"]:
                    found = dict(MATCHER.findall(sample["labels"]))
                    labels.setdefault(found.pop("alertname"), set()).update(found)
    return labels


def check_rules(names, values):
    errors = []
    labels = expected_labels()
    seen = set()
    for group in groups():
        for rule in group["rules"]:
            alert = rule["alert"]
            if alert in seen:
                errors.append(f"{alert} is there twice")
            seen.add(alert)
            errors += [f"{alert}: nothing makes {what}" for what in unknown(rule["expr"], names, values)]
            if rule.get("labels", {}).get("severity") not in ("warning", "critical"):
                errors.append(f"{alert}: severity is neither warning nor critical")
            notes = rule.get("annotations", {})
            for note in ("summary", "description"):
                text = notes.get(note, "")
                if not text or "\n" in text.strip():
                    errors.append(f"{alert}: {note} is missing, or has more than one line")
                for label in re.findall(r"\$labels\.(\w+)", text):
                    if label not in labels.get(alert, ()):
                        errors.append(f"{alert}: {note} names the label {label}, which the tests never see on it")
            if "`signoff " not in notes.get("description", ""):
                errors.append(f"{alert}: description has no command to run")
            if alert not in labels:
                errors.append(f"{alert}: no test sees it fire")
    return errors


def panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def substituted(expr, defined):
    """The query as Grafana would send it, and the variables that nobody defines."""
    wrong = []

    def stand_in(match):
        name = match[1] or match[2]
        if name not in defined and not name.startswith("__"):
            wrong.append(f"${name}")
        if name not in STANDS_FOR:
            wrong.append(f"${name} (alerts.py does not know what to put there)")
        return STANDS_FOR.get(name, "x")

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", stand_in, expr), wrong


def check_dashboard(names, values):
    """Its faults, and its queries as rules for promtool."""
    dashboard = json.loads(DASHBOARD.read_text())
    errors, rules = [], []
    defined = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    for variable in defined.values():
        query = variable["query"]
        if variable["type"] == "query":
            query = query["query"]
            errors += [f"${variable['name']}: nothing makes {what}" for what in unknown(query, names, values)]
    ids, taken = set(), {}
    for panel in panels(dashboard):
        where = f"panel {panel['id']} ({panel['title']})"
        if panel["id"] in ids:
            errors.append(f"{where}: its id is there twice")
        ids.add(panel["id"])
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if x >= 24 or (x, y) in taken:
                    errors.append(f"{where}: lies on {taken.get((x, y), 'the edge')}")
                    break
                taken[x, y] = where
        if panel["type"] == "row":
            continue
        if not panel.get("description"):
            errors.append(f"{where}: no description")
        if panel["datasource"]["uid"] != "${datasource}":
            errors.append(f"{where}: its data source is not the variable")
        refs = [target["refId"] for target in panel["targets"]]
        if not refs or len(refs) != len(set(refs)):
            errors.append(f"{where}: no query, or two of one name")
        for target in panel["targets"]:
            expr, wrong = substituted(target["expr"], defined)
            errors += [f"{where}: nobody defines {what}" for what in wrong]
            errors += [f"{where}: nothing makes {what}" for what in unknown(expr, names, values)]
            rules.append({"record": f"panel:{panel['id']}:{target['refId']}", "expr": expr})
    shown = json.dumps(dashboard)
    errors += [f"the dashboard does not show {name}" for name in sorted(names - KUBE) if unshown(name, shown)]
    return errors, [{"name": "dashboard", "rules": rules}]


def unshown(name, shown):
    # A histogram's sum and count say nothing that its buckets don't.
    return name.startswith("signoff_") and not name.endswith(("_sum", "_count")) and name not in shown


def extract(to):
    names, values = made(), words()
    errors = check_rules(names, values)
    wrong, queries = check_dashboard(names, values)
    if errors + wrong:
        sys.exit("\n".join(errors + wrong))
    (to / "rules.yaml").write_text(yaml.safe_dump({"groups": groups()}, sort_keys=False))
    (to / "dashboard.yaml").write_text(yaml.safe_dump({"groups": queries}, sort_keys=False))
    alerts = sum(len(group["rules"]) for group in groups())
    print(f"{alerts} alerts and {len(queries[0]['rules'])} queries ask only for what is made.")


# Each place that one of these matches is broken once, alone: what it is called, what to look for, what to put there.
BREAKS = [
    ("a turned comparison", r"(?<![<>=!])>(?!=)", "<"),
    ("a turned comparison", r"<=", ">"),
    ("a turned comparison", r">=", "<"),
    ("a turned comparison", r"==", "!="),
    ("a wrong sign", r"(?m)(?<=[\w)}] )- |^( *)- ", "+ "),
    ("a branch left out", r"\bor(?: on \([^)]*\))?\n\s*", "unless\n"),
    ("a condition undone", r"\band(?: on \([^)]*\))?\n?", "or\n"),
    ("an exception undone", r"\bunless(?: on \([^)]*\))?\n", "and on (namespace, pod)\n"),
    ("a look back undone", r" offset \w+", ""),
    ("a look back at one instant", r"last_over_time\((signoff_\w+(?:\{[^}]*\})?)\[\w+\] offset (\w+)\)", r"\1 offset \2"),
    ("a shorter range", r"\[(?:\d+[dh]|15m|10m)(?=[:\]])", "[1m"),
    ("a tenth of the threshold", r"> (\d{2})(\d+)\b", r"> 0.\1"),
    ("ten times the threshold", r"(>=?) ([1-9][\d.]*)\b", r"\1 10 * (1 + \2)"),
    ("increase() of a counter that is born at its value", None, None),
]


def breaks(rule):
    """The rule's broken versions, each with what is broken. None: it is taken out."""
    yield "taken out", None
    if "for" in rule:
        yield "at once", {**rule, "for": "0m"}
        yield "three times as late", {**rule, "for": f"{3 * int(rule['for'][:-1])}{rule['for'][-1]}"}
    severe = {"warning": "critical", "critical": "warning"}[rule["labels"]["severity"]]
    yield "another severity", {**rule, "labels": {"severity": severe}}
    expr = rule["expr"]
    if "{" in expr:
        # At once: where one of two branches asks for it, the other needn't.
        yield "any label's value", {**rule, "expr": re.sub(r"\{[^}]*\}", "", expr)}
    for what, pattern, instead in BREAKS:
        if pattern is None:
            born = re.search(
                r"(signoff_\w+(?:\{[^}]*\})?)\s*- last_over_time\(.*? offset (\w+)\)\s*>= 0\s*or\s*(?:0 \+ )?\1", expr
            )
            if born:
                yield what, {**rule, "expr": expr.replace(born[0], f"increase({born[1]}[{born[2]}])")}
            continue
        for match in re.finditer(pattern, expr):
            broken = expr[: match.start()] + match.expand(instead) + expr[match.end() :]
            line = expr.count("\n", 0, match.start()) + 1
            yield f"{what}, line {line} ({match[0].strip()})", {**rule, "expr": broken}


def only(alert, test):
    """The test, with an eye for this alert alone."""
    test = copy.deepcopy(test)
    test.pop("alert_rule_test", None)
    for case in test["promql_expr_test"]:
        case["expr"] = re.sub(r"ALERTS\{?", f'ALERTS{{alertname="{alert}",', case["expr"].replace("ALERTS[", "ALERTS{}["))
        mine = f'alertname="{alert}"'
        case["exp_samples"] = [sample for sample in case["exp_samples"] if mine in sample["labels"]]
    return test


def passes(rule, tests):
    """Whether promtool finds the tests to hold with that rule alone."""
    with tempfile.TemporaryDirectory() as dir:
        dir = pathlib.Path(dir)
        group = {"groups": [{"name": "broken", "rules": [rule] if rule else []}]}
        (dir / "rules.yaml").write_text(yaml.safe_dump(group))
        for test in tests:
            (dir / "test.yaml").write_text(test)
            if subprocess.run(["promtool", "test", "rules", "test.yaml"], cwd=dir, capture_output=True).returncode:
                return False
        return True


def relevant(rule):
    """The tests that have to do with the rule, each as a file, those first in which it fires."""
    metrics = set(NAME.findall(re.sub(r'"[^"]*"', '""', rule["expr"])))
    files = []
    for path in sorted(TESTS.glob("*_test.yaml")):
        file = yaml.safe_load(path.read_text())
        for test in file["tests"]:
            series = [one for one in test["input_series"] if re.match(r"\w+", one["series"])[0] in metrics]
            for one in series:
                if not isinstance(one["values"], str):
                    sys.exit(f"{path}: quote the values of {one['series']}: to YAML they are a number")
            if series:
                files.append({**file, "tests": [{**only(rule["alert"], test), "input_series": series}]})

    def fires(file):
        return any(case["exp_samples"] for case in file["tests"][0]["promql_expr_test"])

    return [yaml.safe_dump(file) for file in sorted(files, key=fires, reverse=True)]


def mutate():
    rules = [rule for group in groups() for rule in group["rules"]]
    jobs, faults = [], []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for rule in rules:
            tests = relevant(rule)
            jobs.append((rule["alert"], "as it is", pool.submit(passes, rule, tests)))
            for what, broken in breaks(rule):
                jobs.append((rule["alert"], what, pool.submit(passes, broken, tests)))
    caught = total = 0
    for alert, what, job in jobs:
        whole = what == "as it is"
        if whole and not job.result():
            faults.append(f"{alert}: fails its tests alone, as it is")
        if not whole:
            total += 1
            caught += not job.result()
            if job.result():
                faults.append(f"{alert}: passes its tests all the same: {what}")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{caught} of {total} broken rules caught")
    if faults or {alert for alert, what, _ in jobs if what == "taken out"} != {rule["alert"] for rule in rules}:
        sys.exit(1)


if sys.argv[1] == "extract":
    extract(pathlib.Path(sys.argv[2]))
else:
    mutate()
