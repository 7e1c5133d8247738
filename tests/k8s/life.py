"""What the pods promise, run from the rendered manifests (pod.py). Each function is one promise, in a world of its own.

life.py PROMISE SIGNOFF K8S   runs that one, with that binary and those manifests
"""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib

from container import BOUND, enter_a_world, eventually
from pod import Cluster, Manager, Pod, answers
from render import ROOT, TOKEN, Skipped, Tree, helm_template, load, pod_spec, run, scheduler_set, signoff_container, skip, tool

POD_IP, NEXT_IP, MANAGER_IP = "10.244.1.7", "10.244.1.8", "10.244.0.5"


class World:
    """A cluster with the manager running, and the table."""

    def __init__(self, docs, dir, binary, manager=True, table=None, **cluster):
        self.docs, self.table = docs, table or Manager()
        self.cluster = Cluster(docs, dir, binary, **cluster)
        self.set = scheduler_set(docs)
        self.name = f"{self.set['metadata']['name']}-0"
        if manager:
            self.manager = self.start_manager("manager-0", MANAGER_IP)

    def start_manager(self, name, ip):
        deployment = next(doc for doc in self.docs if doc["kind"] == "Deployment")
        # Its database: on a volume that outlives it.
        database = self.cluster.dir / "database"
        database.mkdir(exist_ok=True)
        database.chmod(0o777)
        container = pod_spec(deployment)["containers"][0]
        container["command"] = [*container["command"], "--state=/database/table"]
        container["volumeMounts"] = [{"name": "database", "mountPath": "/database"}]
        made = Pod(self.cluster, deployment, name, ip)
        made.volumes["database"] = database
        made.start()
        eventually("the manager answers", self.table.answers)
        return made.containers["manager"]

    def scheduler(self, ip=POD_IP):
        return Pod(self.cluster, self.set, self.name, ip)

    def state(self, ip=POD_IP):
        """active or inactive; None where there is no such row."""
        rows = self.table.row(ip)
        assert len(rows) < 2, f"two rows of {ip}"
        return rows[0]["state"] if rows else None

    def started(self, ip=POD_IP):
        made = self.scheduler(ip)
        made.start()
        eventually(f"the row of {ip} is active", lambda: self.state(ip) == "active")
        return made


def agent_of(made):
    return made.containers["signoff"]


def is_signed_off(world, made):
    """After its end: the row is inactive, and the agent was told so."""
    agent = agent_of(made)
    assert agent.status == 0, f"the agent ended with {agent.status}: {agent.log()}"
    assert world.state() == "inactive", f"the row is {world.state()}: {agent.log()}"
    assert "confirmed" in agent.last_words(), f"its last words: {agent.last_words()!r}"


def ended_well(world, made, gone):
    """After `stop`: it is signed off, and the agent was no later than a kubelet waits."""
    is_signed_off(world, made)
    late = gone["signoff"] - gone["scheduler"]
    assert late < 2, f"it left {late:.1f} s after the scheduler, and 2 s may be all there is"


def is_confined(made):
    """The agent runs as the manifest says, and sees no token."""
    agent = agent_of(made)
    status = pathlib.Path(f"/proc/{agent.pid}/status").read_text()
    for line in ("Uid:\t65532", "Gid:\t65532", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status, f"no {line!r} in {status}"
    root = f"/proc/{agent.pid}/root"
    assert os.statvfs(root).f_flag & os.ST_RDONLY, "its root can be written"
    assert os.listdir(root + TOKEN) == [], "it sees a token"
    limit = agent.manifest["resources"]["limits"]["memory"]
    peak = agent.peak_memory() / 2**20
    assert limit.endswith("Mi") and peak < int(limit[:-2]) * 0.75, f"it needed {peak:.0f} MiB of {limit}"
    return peak


def is_on_the_official_charts_minimum(made):
    """Nothing but what the kubelet, the runtime and these five give it."""
    given = set(agent_of(made).environment)
    own = {"POD_IP", "POD_NAME", "SIGNOFF_GRACE", "SIGNOFF_SPOOL"}
    rest = {name for name in given - own if "SERVICE" not in name and not name.endswith("_PORT")}
    assert rest == {"PATH", "HOSTNAME"} and own <= given, f"its environment: {given}"


def stand_ins(docs):
    """The chart's own programs aren't here: the mocks take their commands, and keep all else of their containers."""
    mocks = {"scheduler": scheduler_set(Tree(ROOT / "k8s").render("base"))}
    mocks["manager"] = next(doc for doc in Tree(ROOT / "k8s").render("base") if doc["kind"] == "Deployment")
    config = next(doc for doc in docs if doc["kind"] == "ConfigMap" and "scheduler.yaml" in doc["data"])
    address = load(config["data"]["scheduler.yaml"])[0]["manager"]["addr"]
    for doc in docs:
        name = doc["metadata"].get("labels", {}).get("component")
        if doc["kind"] in ("StatefulSet", "Deployment") and name in mocks:
            theirs = next(one for one in pod_spec(doc)["containers"] if one["name"] == name)
            mock = next(one for one in pod_spec(mocks[name])["containers"] if one["name"] == name)
            command = [one.replace("manager.dragonfly.svc.cluster.local:65003", address) for one in mock["command"]]
            theirs.update(image=mock["image"], command=command, env=mock.get("env", []))
            for init in pod_spec(doc)["initContainers"]:
                if init["name"].startswith("wait-for-"):
                    init.update(image="signoff-mock", command=["signoff", "--version"])
    return docs


def the_default_variant_signs_its_scheduler_off(tree, new):
    world = new(tree.render("examples/sidecar"))
    made = world.started()
    row = world.table.row(POD_IP)[0]
    assert row["host_name"] == f"{world.name}.scheduler.dragonfly.svc.cluster.local", row
    code, said = agent_of(made).run(["signoff", "check"])
    assert code == 0, f"signoff check: {code}: {said}"
    settings = json.loads((made.volumes["signoff"] / "agent.json").read_text())
    told = (settings["pod_name"], settings["pod_ip"])
    assert told == (world.name, POD_IP), f"the agent was told that it is in {told}"
    peak = is_confined(made)
    gone = made.stop()
    ended_well(world, made, gone)
    return f"the agent needed {peak:.0f} MiB"


def the_minimum_on_a_chart_like_the_official_one_signs_its_scheduler_off(tree, new):
    if not tool("helm"):
        skip("the chart needs helm")
    rendered = run([tree.k8s / "helm/post-render"], input=helm_template("df"))
    world = new(stand_ins(load(rendered)))
    made = world.scheduler()
    asked = []
    made.start(after_sidecar=lambda: asked.append(agent_of(made).probe()))
    assert asked == [(True, "")], f"its probe says {asked}"
    eventually("the row is active", lambda: world.state() == "active")
    is_on_the_official_charts_minimum(made)
    is_confined(made)
    assert os.listdir(f"/proc/{made.containers['scheduler'].pid}/root{TOKEN}"), "the scheduler lost its token"
    ended_well(world, made, made.stop())


def the_plain_sidecar_waits_for_its_scheduler_and_signs_it_off(tree, new):
    world = new(tree.render("examples/plain-sidecar"))
    made = world.started()
    is_confined(made)
    ended_well(world, made, made.stop())


def the_startup_probe_needs_neither_manager_scheduler_spool_nor_port(tree, new):
    world = new(tree.render("examples/sidecar"), manager=False)
    made = world.scheduler()
    spool = made.volumes["signoff"] / "spool"
    spool.mkdir(mode=0o700)
    taken = socket.socket(socket.AF_INET6)
    taken.bind(("::", 9802))
    taken.listen()
    agent = made.create(signoff_container(made.spec))
    agent.wait_until_started()
    status = agent.run(["signoff", "status"])[1]
    for word in ("spool", "9802"):
        assert word in status, f"it says nothing of {word}: {status}"


def the_startup_probe_fails_without_an_agent(tree, new):
    """Or it would prove nothing."""
    world = new(tree.render("examples/sidecar"), manager=False)
    made = world.scheduler()
    manifest = signoff_container(made.spec)
    manifest["command"] = ["signoff", "mock-manager"]
    agent = made.create(manifest)
    eventually("the stand-in runs", lambda: answers(8081, "127.0.0.1"))
    assert not agent.probe()[0], "it succeeds"


def the_agent_reads_the_certificates_that_scheduler_yaml_names(tree, new):
    """Their paths are right and they may be read; what is in the examples' Secret is no certificate."""
    world = new(tree.render("examples/scheduler-tls") + tree.render("secrets"), manager=False)
    made = world.scheduler()
    agent = made.create(signoff_container(made.spec))
    agent.wait_until_started()
    said = agent.run(["signoff", "check"])[1] + agent.log()
    assert "/etc/dragonfly-tls/ca.crt" in said, f"it says nothing of the certificates: {said}"
    for fault in ("No such file", "not found", "ermission denied"):
        assert fault not in said, f"{fault}: {said}"


def the_agent_reads_its_row_over_rest(tree, new):
    world = new(with_the_mocks_user(tree.render("examples/rest") + tree.render("secrets")))
    made = world.started()
    eventually("it reads the row over rest", lambda: "over rest" in agent_of(made).run(["signoff", "status"])[1])
    ended_well(world, made, made.stop())


def drained(world, made):
    """Called when the hooks are done and nobody has got SIGTERM."""
    scheduler = made.containers["scheduler"]
    assert not scheduler.ended() and answers(8002, POD_IP), "the scheduler doesn't serve any more"
    assert world.state() == "inactive", f"the row is {world.state()}: {scheduler.hook}: {agent_of(made).log()}"
    code, said = scheduler.hook
    assert code == 0 and "confirmed" in said, f"the hook ended with {code}: {said}"


def drains(tree, new, example):
    world = new(tree.render(f"examples/{example}"))
    made = world.started()
    began = time.monotonic()
    gone = made.stop(before_sigterm=lambda: drained(world, made))
    ended_well(world, made, gone)
    return made, time.monotonic() - began


def the_installed_hook_drains_and_lingers(tree, new):
    made, took = drains(tree, new, "drain")
    linger = int(
        made.containers["scheduler"].manifest["lifecycle"]["preStop"]["exec"]["command"][-1].removeprefix("--linger=")[:-1]
    )
    assert 0 < linger <= took < linger + 5, f"it took {took:.1f} s, {linger} s of which it had to linger"
    assert "confirmed" in made.containers["scheduler"].log(), "its words are not in the scheduler's log"


def the_installed_hook_drains_in_a_container_that_is_root(tree, new):
    """As the official chart's is; and its pod is nothing like ours."""
    if not tool("helm"):
        skip("the chart needs helm")
    docs = stand_ins(load(tree.compose(["components/drain", "components/sidecar"], helm_template("df"))))
    scheduler = next(one for one in pod_spec(scheduler_set(docs))["containers"] if one["name"] == "scheduler")
    scheduler["securityContext"] = {"runAsUser": 0}
    world = new(docs)
    made = world.started()
    ended_well(world, made, made.stop(before_sigterm=lambda: drained(world, made)))


def the_hook_out_of_an_image_volume_drains(tree, new):
    drains(tree, new, "drain-image-volume")


def the_http_hook_drains_for_the_node_alone(tree, new):
    world = new(tree.render("examples/drain-http"))
    made = world.started()
    get = made.containers["scheduler"].manifest["lifecycle"]["preStop"]["httpGet"]
    stranger = socket.create_connection((POD_IP, get["port"]), timeout=BOUND, source_address=(MANAGER_IP, 0))
    stranger.sendall(f"GET {get['path']} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert b" 403 " in stranger.recv(4096), "a stranger may call it"
    assert world.state() == "active", "a stranger's call drained"
    ended_well(world, made, made.stop(before_sigterm=lambda: drained(world, made)))


def replays(tree, new, example, durability, meanwhile=lambda volume: None):
    """A sign-off that the manager could not be told outlives the pod on that volume, and the next pod's agent tells it."""
    world = new(tree.render(f"examples/{example}"))
    made = world.scheduler()
    spool = made.volumes["signoff-spool"]
    # As a new file system has it: root's, with something in it that isn't ours.
    (spool / "lost+found").mkdir(mode=0o700)
    made.start()
    agent = agent_of(made)
    eventually("the row is active", lambda: world.state() == "active")
    code, said = agent.run(["signoff", "check"])
    assert code == 0 and "EACCES" not in said, f"signoff check: {code}: {said}"
    for container in (world.manager, made.containers["scheduler"]):
        container.signal(signal.SIGKILL)
        container.wait()
    eventually("the ask is on the volume", lambda: list(spool.rglob("*.ask.json")))
    assert f'"spool.durability":"{durability}"' in agent.log(), f"it takes the volume for another: {agent.log()}"
    agent.signal(signal.SIGKILL)
    agent.wait()
    world.cluster.network.remove(POD_IP)
    meanwhile(spool)
    world.start_manager("manager-1", "10.244.0.6")
    assert world.state() == "active", "the row is inactive already: there is nothing left to do"
    after = Pod(world.cluster, world.set, world.name, NEXT_IP)
    after.volumes["signoff-spool"] = spool
    after.start()
    eventually("the row of the pod that is gone is inactive", lambda: world.state() == "inactive")
    eventually("the row of the next is active", lambda: world.state(NEXT_IP) == "active")
    # And not by succession, which needs no volume.
    assert "Signed another key off" in agent_of(after).log(), agent_of(after).log()


def a_sign_off_outlives_the_pod_on_a_hostpath(tree, new):
    replays(tree, new, "spool-hostpath", "node")


def as_the_release_before_left_it(volume):
    """In one directory for all, and its records don't say which manager they are for."""
    for path in list(volume.rglob("*.json")):
        record = json.loads(path.read_text())["record"]
        assert record.pop("managers"), f"{path} doesn't name its manager"
        covered = f'"version":1,"record":{json.dumps(record)}}}\n'
        (volume / path.name).write_text(f'{{"crc32":"{zlib.crc32(covered.encode()):08x}",{covered}')
        os.chown(volume / path.name, 65532, 65532)
    (volume / "spool.lock").touch()
    os.chown(volume / "spool.lock", 65532, 65532)
    for directory in [path.parent for path in volume.rglob("spool.*.lock")]:
        shutil.rmtree(directory)


def what_lies_where_all_dragonflies_had_their_spool_is_taken_over(tree, new):
    replays(tree, new, "spool-hostpath", "node", as_the_release_before_left_it)


def a_sign_off_outlives_the_pod_on_a_claim(tree, new):
    replays(tree, new, "spool-claim", "claim")


def with_the_mocks_user(docs):
    """As its user would: the mock manager's one user, in place of the example's."""
    for doc in docs:
        if doc["metadata"]["name"] == "signoff-rest":
            doc["stringData"] = {"username": "root", "password": "dragonfly"}
    return docs


def its_manager_is_the_bases(docs):
    """As its user would: the base's mock manager, in place of the official chart's."""
    for doc in docs:
        for variable in signoff_container(pod_spec(doc))["env"]:
            if variable["name"] == "SIGNOFF_MANAGER":
                variable["value"] = variable["value"].replace("dragonfly-manager.dragonfly-system.", "manager.dragonfly.")
    return docs


def run_the_cronjob(world):
    """Once, to its end: the container."""
    job = next(doc for doc in world.docs if doc["kind"] == "CronJob")
    finder = Pod(world.cluster, job, "signoff-reconcile-1", "10.244.2.9")
    made = finder.create(signoff_container(finder.spec))
    made.wait()
    return made


def the_cronjob_reads_the_rows_with_its_secret(tree, new):
    world = new(with_the_mocks_user(tree.render("examples/sidecar") + tree.render("reconcile") + tree.render("secrets")))
    made = world.started()
    finder = run_the_cronjob(world)
    assert finder.status == 0, f"it ended with {finder.status}: {finder.log()}"
    assert "live" in finder.log() + finder.last_words(), f"it says {finder.log()}"
    ended_well(world, made, made.stop())


def the_cronjob_repairs_the_row_of_one_that_was_scaled_down(tree, new):
    """Nobody comes back for it: another hostname lives, and the spool went with the pod."""
    world = new(with_the_mocks_user(tree.render("examples/sidecar") + its_manager_is_the_bases(tree.render("examples/reconcile")) + tree.render("secrets")))
    gone = world.started()
    for container in (world.manager, *gone.containers.values()):
        container.signal(signal.SIGKILL)
        container.wait()
    world.cluster.network.remove(POD_IP)
    world.start_manager("manager-1", "10.244.0.6")
    world.name = f"{world.set['metadata']['name']}-1"
    world.started(NEXT_IP)
    assert world.state() == "active", f"the row is {world.state()} already: there is nothing left to do"
    finder = run_the_cronjob(world)
    assert finder.status == 0, f"it ended with {finder.status}: {finder.log()}"
    assert world.state() == "inactive", f"the row is {world.state()}: {finder.log()}"
    assert world.state(NEXT_IP) == "active", f"the living one's row is {world.state(NEXT_IP)}: {finder.log()}"


PROMISES = [
    the_default_variant_signs_its_scheduler_off,
    the_minimum_on_a_chart_like_the_official_one_signs_its_scheduler_off,
    the_plain_sidecar_waits_for_its_scheduler_and_signs_it_off,
    the_startup_probe_needs_neither_manager_scheduler_spool_nor_port,
    the_startup_probe_fails_without_an_agent,
    the_agent_reads_the_certificates_that_scheduler_yaml_names,
    the_agent_reads_its_row_over_rest,
    the_installed_hook_drains_and_lingers,
    the_installed_hook_drains_in_a_container_that_is_root,
    the_hook_out_of_an_image_volume_drains,
    the_http_hook_drains_for_the_node_alone,
    a_sign_off_outlives_the_pod_on_a_hostpath,
    what_lies_where_all_dragonflies_had_their_spool_is_taken_over,
    a_sign_off_outlives_the_pod_on_a_claim,
    the_cronjob_reads_the_rows_with_its_secret,
    the_cronjob_repairs_the_row_of_one_that_was_scaled_down,
]


def one_promise(name, binary, k8s):
    """In this process; its exit code."""
    promise = next(one for one in PROMISES if one.__name__ == name)
    tree = Tree(k8s)

    # Outside of the world: whoever still runs in it when it ends, ends before the directory goes.
    with tempfile.TemporaryDirectory() as dir:
        os.chmod(dir, 0o755)

        def work():
            try:
                found = promise(tree, lambda docs, **options: World(docs, dir, binary, **options))
            except Skipped as skipped:
                print(f"SKIPPED: {skipped}")
                return 0
            except BaseException:
                for log in sorted(pathlib.Path(dir).glob("kubelet/pods/*/containers/*/log")):
                    print(f"{log.parent.name}:\n{log.read_text()[-3000:]}")
                raise
            print(found or "")
            return 0

        return enter_a_world(work)


def in_a_process(name, binary, k8s):
    """(whether it is kept, what was said, the seconds it took)"""
    began = time.monotonic()
    command = [sys.executable, __file__, name, str(binary), str(k8s)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=4 * BOUND)
    return done.returncode == 0, done.stdout.strip(), time.monotonic() - began


def all_promises(binary):
    kept = True
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [(one.__name__, pool.submit(in_a_process, one.__name__, binary, ROOT / "k8s")) for one in PROMISES]
        for name, job in jobs:
            fine, said, took = job.result()
            words = name.replace("_", " ")
            if fine:
                print(f"ok     {words}{f': {said}' if said else ''} ({took:.1f} s)", flush=True)
            else:
                print(f"FAILED {words}\n{said}", file=sys.stderr, flush=True)
                kept = False
    return kept


if __name__ == "__main__":
    sys.exit(one_promise(*sys.argv[1:]))
