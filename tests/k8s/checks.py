"""The part of tests/k8s/run that is not shell: runs the promises, or breaks the manifests to see each of them broken.

checks.py static             what the manifests promise
checks.py pods SIGNOFF       what the pods promise, with that binary
checks.py mutate [SIGNOFF]   each mutation must break its promise
"""

import sys
import time

import budget
import helm
import install
import manifests
import security
from render import ROOT, Failed, Skipped, Tree

STATIC = [
    manifests.every_directory_says_what_it_is_for,
    manifests.every_variant_fits_the_api_of_every_version,
    manifests.the_sidecar_touches_nothing_else,
    manifests.the_sidecar_goes_by_kind_and_label_alone,
    manifests.applied_twice_is_applied_once,
    manifests.the_sidecar_is_the_first_init_container_and_native,
    manifests.the_sidecar_is_the_documented_minimum,
    manifests.the_plain_sidecar_is_the_same_container,
    security.restricted_pod_security_passes,
    security.the_claim_with_an_fsgroup_passes_restricted_pod_security,
    security.the_check_of_pod_security_can_fail,
    security.no_container_of_ours_is_given_a_token_but_reconcile_where_it_lists_pods,
    security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
    manifests.the_grace_is_copied_and_its_absence_is_loud,
    manifests.images_are_named_in_one_place,
    manifests.the_version_is_that_of_the_program,
    manifests.the_names_that_others_go_by_are_there,
    manifests.every_variable_is_one_that_the_program_reads,
    manifests.each_dragonfly_has_a_directory_of_its_own_on_the_node,
    manifests.what_a_pod_mounts_is_there,
    budget.the_grace_budget_adds_up,
    budget.a_run_of_reconcile_fits_into_its_period,
    *install.PROMISES,
    *helm.PROMISES,
]


def check(promise, tree):
    began = time.monotonic()
    words = promise.__name__.replace("_", " ")
    try:
        found = promise(tree)
    except Failed as failed:
        print(f"FAILED {words}\n  {failed}", file=sys.stderr, flush=True)
        return False
    except Skipped as skipped:
        print(f"SKIPPED {words}: {skipped}", file=sys.stderr, flush=True)
        return True
    print(f"ok     {words}{f': {found}' if found else ''} ({time.monotonic() - began:.1f} s)", flush=True)
    return True


def static():
    tree = Tree(ROOT / "k8s")
    return all([check(promise, tree) for promise in STATIC])


def main():
    what = sys.argv[1]
    if what == "static":
        return static()
    if what == "pods":
        import life

        return life.all_promises(sys.argv[2])
    import mutate

    return mutate.all_caught(STATIC, sys.argv[2] if len(sys.argv) > 2 else None)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
