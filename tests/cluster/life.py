"""The lives of pods, judged from the manager's table.

The manager writes `inactive` itself where a scheduler's stream ends and it is told. So in each life it isn't: the end of that stream is lost,
or the manager is away, or the node is. Without signoff the row of what is gone stays `active`.
"""

import os
import signal
import subprocess
import sys
import time

from dragonfly import World
from render import require
from wait import eventually

# A sign-off is a matter of milliseconds; this leaves room for a busy machine.
SOON = 6
SCENARIOS = []


def life(example="sidecar", alone=False, **options):
    """A scenario with a world of its own; `alone`: beside no other, as it disturbs the node."""

    def named(play):
        name = play.__name__.replace("_", "-")

        def scenario(cluster, broken):
            if example == "spool-claim":
                cluster.volume(f"life-{name}")
            with World(cluster, f"life-{name}", example, broken=broken, **options) as world:
                play(world)

        SCENARIOS.append((f"life: {name}", scenario, alone))
        return play

    return named


def is_signed_off(world, key, since, within=SOON):
    """The old row is inactive soon, the next pod's is active, and no two were for long."""
    at = world.table.wait(key, "inactive", since, within)
    after = world.serving(key[0], other_than=key)
    require(world.table.state(key) == "inactive", f"{key} is active again: {world.table.told(since)}")
    world.table.no_twins()
    return at, after


@life()
def deleted(world):
    key = world.serving()
    world.lose_ends()
    is_signed_off(world, key, world.delete())


def drain(world):
    """The key, when the pod was deleted, and how long its scheduler still served after its row was inactive."""
    key = world.serving()
    world.lose_ends(2)
    (pid, *_) = world.processes(world.identifier("scheduler"))
    since = world.delete()
    at = world.table.wait(key, "inactive", since, SOON)
    ended = eventually("the scheduler ends", lambda: not os.path.exists(f"/proc/{pid}") and time.monotonic(), within=60)
    require(ended > at, f"the scheduler ended {at - ended:.1f} s before its row was inactive")
    require(not world.events("FailedPreStopHook"), world.events("FailedPreStopHook"))
    return key, since, ended - at


@life("drain")
def drained(world):
    """The row is inactive while the scheduler still serves, and for as long as the hook lingers."""
    key, since, lingered = drain(world)
    require(lingered > 5, f"the scheduler ended {lingered:.1f} s after its row was inactive: its hook waited for nothing")
    world.serving(other_than=key)
    require(world.table.state(key) == "inactive", world.table.told(since))
    require(not world.events("FailedPreStopHook"), world.events("FailedPreStopHook"))


@life("drain-http")
def drained_over_http(world):
    drain(world)


@life()
def force_deleted(world):
    key = world.serving()
    world.lose_ends()
    # Whoever comes first: the dying agent, or its successor.
    is_signed_off(world, key, world.delete(grace=0), within=45)


@life()
def evicted(world):
    key = world.serving()
    world.lose_ends()
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": key[0], "namespace": world.namespace}}
    since = time.monotonic()
    world.api.post(world.path("pods", f"{key[0]}/eviction"), eviction)
    is_signed_off(world, key, since)


@life(replicas=3)
def rolled(world):
    """Three, one after the other."""
    keys = [world.serving(f"scheduler-{number}") for number in range(3)]
    world.lose_ends(3)
    since = time.monotonic()
    world.api.kubectl("-n", world.namespace, "rollout", "restart", "statefulset/scheduler")
    for key in reversed(keys):
        world.table.wait(key, "inactive", since, 120)
    for key in keys:
        world.serving(key[0], other_than=key)
    for key in keys:
        require(world.table.state(key) == "inactive", world.table.told(since))
    world.table.no_twins()


@life()
def scheduler_killed(world):
    """It comes back in the same place; in between its row says that it is gone."""
    key = world.serving()
    world.lose_ends()
    since = time.monotonic()
    world.signal(signal.SIGKILL)
    at = world.table.wait(key, "inactive", since, SOON)
    world.table.wait(key, "active", at, 60)


@life()
def agent_killed(world):
    """Its row stays active, and the next agent signs it off all the same."""
    key = world.serving()
    if world.has_agent():
        since = time.monotonic()
        world.signal(signal.SIGKILL, "signoff")
        eventually("the agent is back", lambda: world.restarts("signoff")[0] == 1, within=60)
        world.serving()
        require(world.table.became(key, "inactive", since) is None, f"a living scheduler was inactive: {world.table.told(since)}")
    world.lose_ends()
    is_signed_off(world, key, world.delete())


@life()
def both_killed(world):
    key = world.serving()
    world.lose_ends()
    world.signal(signal.SIGKILL)
    if world.has_agent():
        world.signal(signal.SIGKILL, "signoff")
        eventually("the agent is back", lambda: world.restarts("signoff")[0] == 1, within=60)
    eventually("the scheduler is back", lambda: world.restarts("scheduler")[0] == 1, within=60)
    world.serving()
    world.lose_ends()
    is_signed_off(world, key, world.delete())


def hasty_liveness(_, container):
    container["livenessProbe"] |= {"periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 2, "terminationGracePeriodSeconds": 2}


@life(change=hasty_liveness)
def hung(world):
    """A scheduler that answers nobody is killed by its liveness probe: then its row says so, until it is back."""
    key = world.serving()
    world.lose_ends()
    since = time.monotonic()
    world.signal(signal.SIGSTOP)
    at = world.table.wait(key, "inactive", since, 60)
    world.table.wait(key, "active", at, 60)


@life()
def agent_out_of_memory(world):
    """The kernel takes the agent; the next one signs off all the same."""
    key = world.serving()
    if world.has_agent():
        (pid, *_) = world.processes(world.identifier("signoff"))
        fill_memory_of(pid)
        eventually("the agent is back", lambda: world.restarts("signoff")[0] == 1, within=60)
        require(world.restarts("signoff")[1] == "OOMKilled", f"the agent ended otherwise: {world.restarts('signoff')[1]}")
        world.serving()
    world.lose_ends()
    is_signed_off(world, key, world.delete())


# Puts itself into that process' cgroup, and takes memory until that process is gone. As four, or it would be the largest.
GLUTTON = """
import os, sys
group, pid = sys.argv[1:]
with open(f"{group}/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
os.fork(), os.fork()
taken = []
while os.path.exists(f"/proc/{pid}"):
    taken.append(bytearray(os.urandom(1 << 10)) * (1 << 10))
"""


def fill_memory_of(pid):
    """Until the kernel ends that process: it is the first that is to go."""
    lines = [line.strip().split(":", 2) for line in open(f"/proc/{pid}/cgroup")]
    group = next(f"/sys/fs/cgroup/{'memory' if names else ''}{path}" for _, names, path in lines if names in ("memory", ""))
    with open(f"/proc/{pid}/oom_score_adj", "w") as score:
        score.write("1000")
    done = subprocess.run([sys.executable, "-c", GLUTTON, group, str(pid)], capture_output=True, text=True)
    require(not os.path.exists(f"/proc/{pid}"), f"the agent has memory still: {done.returncode} {done.stderr}")


@life(grace=6)
def manager_away(world):
    """For longer than the grace, while a pod is replaced: the next one signs its predecessor off."""
    key = world.serving()
    world.manager_goes()
    world.delete()
    after = eventually("the next pod has an address", lambda: (now := world.key()) and now != key and now, within=90)
    require(world.table.state(key) == "active", "somebody told a manager that is not there")
    since = world.manager_comes()
    world.table.wait(key, "inactive", since, 90)
    world.serving(other_than=key)
    require(world.table.state(after) == "active", world.table.told(since))
    world.table.no_twins()


def replayed(world):
    """The next pod finds what was asked in the spool; it is not allowed to find out by itself."""
    key = world.serving()
    world.manager_goes()
    world.delete()
    eventually("the next pod has an address", lambda: (now := world.key()) and now != key, within=90)
    require(world.table.state(key) == "active", "somebody told a manager that is not there")
    since = world.manager_comes()
    world.table.wait(key, "inactive", since, 90)


@life("spool-hostpath", grace=6, settings={"SIGNOFF_REPAIR": "off"})
def replayed_from_the_node(world):
    replayed(world)


@life("spool-claim", grace=6, settings={"SIGNOFF_REPAIR": "off"})
def replayed_from_a_claim(world):
    replayed(world)


@life(alone=True)
def kubelet_restarted(world):
    """In the middle of a termination."""
    key = world.serving()
    world.lose_ends()
    world.cluster.nodes[0].kill("kubelet")
    since = world.delete()
    world.cluster.nodes[0].start_kubelet()
    is_signed_off(world, key, since, within=60)


ELSEWHERE = {
    "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 100,
                "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-2"]}]},
            }
        ]
    }
}


def node_lost(cluster, broken):
    """Nobody there says a word, and the manager hears of no end. The pod comes back on another node."""
    node = cluster.second_node()
    with World(cluster, "life-node-lost", node=ELSEWHERE, broken=broken) as world:
        key = world.serving()
        require(world.pod()["spec"]["nodeName"] == node.name, "the pod is not on the node that is to be lost")
        node.lose()
        since = time.monotonic()
        cluster.api.delete(f"/api/v1/nodes/{node.name}")
        cluster.api.delete(world.path("pods", key[0]), 0)
        is_signed_off(world, key, since, within=90)


SCENARIOS.append(("life: node-lost", node_lost, True))
