"""The part of tests/cluster/run that has a cluster made, and the scenarios run on it."""

import argparse
import pathlib
import sys
import tempfile
import time

import up
from container import enter_a_world


def arguments():
    parser = argparse.ArgumentParser(prog="tests/cluster/run")
    parser.add_argument("--kubernetes", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--inside", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--break", dest="broken", choices=["alone", "twin", "stubborn", "strict"], help="what is broken on purpose")
    parser.add_argument("words", nargs="*", help="only scenarios with one of these words in their name")
    return parser.parse_args()


def inside(options):
    import images
    import scenarios

    dir = options.inside
    archives = images.archives(dir / "images", options.images.resolve())

    def work():
        up.ignore_hangups()
        cluster = up.Cluster(dir, str(options.kubernetes.resolve()), archives, options.images.resolve() / "mock/signoff-root")
        began = time.monotonic()
        cluster.up()
        print(f"the cluster is up after {time.monotonic() - began:.1f} s", flush=True)
        return scenarios.run_all(cluster, options)

    return enter_a_world(work)


def main():
    options = arguments()
    if options.inside:
        return inside(options)
    dir = pathlib.Path(tempfile.mkdtemp(prefix="signoff-cluster-"))
    dir.chmod(0o755)
    return up.Keeper(dir).keep([sys.executable, *sys.argv, "--inside", str(dir)])


if __name__ == "__main__":
    sys.exit(main())
