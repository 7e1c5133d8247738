"""All scenarios: those that disturb nobody side by side, then the others one by one."""

import concurrent.futures
import time
import traceback

import life
import settings
from render import Failed

TOGETHER = 5


def wanted(words):
    every = settings.SCENARIOS + life.SCENARIOS
    return [each for each in every if not words or any(word in each[0] for word in words)]


def timed(scenario, cluster, broken):
    began = time.monotonic()
    try:
        why = scenario(cluster, broken)
    except Failed as failed:
        why = str(failed)
    except Exception:
        why = traceback.format_exc()
    return time.monotonic() - began, why


def run_all(cluster, options):
    began = time.monotonic()
    chosen, held, judged = wanted(options.words), 0, 0

    def tell(name, seconds, why):
        nonlocal held, judged
        judged += 1
        held += why is None
        print(f"{'held  ' if why is None else 'FAILED'} {seconds:6.1f} s  {name}" + (f": {why}" if why else ""), flush=True)

    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        running = {pool.submit(timed, each, cluster, options.broken): name for name, each, alone in chosen if not alone}
        for done in concurrent.futures.as_completed(running):
            tell(running[done], *done.result())
    for name, each, alone in chosen:
        if alone:
            tell(name, *timed(each, cluster, options.broken))
    print(f"{held} of {judged} held in {time.monotonic() - began:.0f} s", flush=True)
    return 0 if judged and held == judged else 1
