"""Breaks the manifests one by one, each in a copy, and sees the promise that is for it broken.

Each mutation: the promise, the file under k8s/, what is there, what is put there instead. A promise of a pod's needs the binary.
"""

import concurrent.futures
import os
import pathlib
import shutil
import sys
import tempfile

import budget
import helm
import install
import life
import manifests
import security
from render import ROOT, Failed, Tree

SIDECAR = "components/sidecar/statefulset.yaml"
PLAIN = "components/plain-sidecar/statefulset.yaml"
DRAIN = "components/drain/statefulset.yaml"
HOSTPATH = "components/spool-hostpath/statefulset.yaml"
PROBE = "[signoff, status, --started]"

MUTATIONS = [
    (manifests.every_directory_says_what_it_is_for, "README.md", "`spool-claim`", "`claim`"),
    (manifests.every_directory_says_what_it_is_for, "components/grace/kustomization.yaml", "# SIGNOFF_GRACE", "x: y # "),
    (manifests.every_variant_fits_the_api_of_every_version, SIDECAR, "failureThreshold", "failuresThreshold"),
    (manifests.every_variant_fits_the_api_of_every_version, "reconcile/cronjob.yaml", "backoffLimit: 0", "backoffLimit: none"),
    (manifests.every_variant_fits_the_api_of_every_version, "base/manager.yaml", "tcpSocket", "tcp"),
    (manifests.the_sidecar_touches_nothing_else, SIDECAR, "    spec:\n", "    spec:\n      hostPID: false\n"),
    (
        manifests.the_sidecar_touches_nothing_else,
        SIDECAR,
        "      volumes:\n",
        "      containers:\n        - name: scheduler\n          tty: true\n      volumes:\n",
    ),
    (manifests.the_sidecar_touches_nothing_else, SIDECAR, "  name: any\nspec:\n", "  name: any\nspec:\n  replicas: 2\n"),
    (
        manifests.the_sidecar_goes_by_kind_and_label_alone,
        "components/sidecar/kustomization.yaml",
        "      labelSelector: component=scheduler",
        "      name: scheduler",
    ),
    (
        manifests.the_sidecar_goes_by_kind_and_label_alone,
        "components/sidecar/kustomization.yaml",
        "      kind: StatefulSet\n",
        "",
    ),
    (
        manifests.applied_twice_is_applied_once,
        "components/sidecar/kustomization.yaml",
        "patches:\n",
        "nameSuffix: -x\npatches:\n",
    ),
    (manifests.the_sidecar_is_the_first_init_container_and_native, SIDECAR, "          restartPolicy: Always\n", ""),
    (
        manifests.the_sidecar_is_the_first_init_container_and_native,
        SIDECAR,
        "        - name: signoff\n          image",
        "        - name: wait-for-manager\n        - name: signoff\n          image",
    ),
    (
        manifests.the_sidecar_is_the_first_init_container_and_native,
        "components/spool-claim/statefulset.yaml",
        "        - name: signoff-spool\n        - name: signoff\n",
        "        - name: signoff\n",
    ),
    (manifests.the_sidecar_is_the_documented_minimum, SIDECAR, "[signoff, agent]", "[signoff, agent, --repair=off]"),
    (manifests.the_sidecar_is_the_documented_minimum, SIDECAR, "startupProbe", "livenessProbe"),
    (manifests.the_sidecar_is_the_documented_minimum, SIDECAR, "SIGNOFF_SPOOL", "HOST_IP"),
    (manifests.the_plain_sidecar_is_the_same_container, PLAIN, "64Mi", "65Mi"),
    (security.restricted_pod_security_passes, SIDECAR, "            allowPrivilegeEscalation: false\n", ""),
    (security.restricted_pod_security_passes, DRAIN, "            runAsNonRoot: true\n", ""),
    (security.restricted_pod_security_passes, "base/scheduler.yaml", "              drop: [ALL]", "              drop: [KILL]"),
    (
        security.the_claim_with_an_fsgroup_passes_restricted_pod_security,
        "components/spool-claim/kustomization.yaml",
        "$patch: delete",
        "image: x",
    ),
    (manifests.the_version_is_that_of_the_program, "helm/plugin/plugin.yaml", "version: 0.1.0", "version: 0.2.0"),
    (manifests.the_version_is_that_of_the_program, "examples/drain/kustomization.yaml", "0.1.0", "latest"),
    (security.no_container_of_ours_is_given_a_token_but_reconcile_where_it_lists_pods, SIDECAR, "/var/run/secrets/kubernetes.io/serviceaccount", "/x"),
    (security.no_container_of_ours_is_given_a_token_but_reconcile_where_it_lists_pods, DRAIN, "/var/run/secrets/kubernetes.io/serviceaccount", "/x"),
    (
        security.no_container_of_ours_is_given_a_token_but_reconcile_where_it_lists_pods,
        "reconcile/cronjob.yaml",
        "automountServiceAccountToken: false",
        "hostPID: false",
    ),
    (
        security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
        "components/reconcile-pods/role.yaml",
        "resources: [pods]",
        "resources: [pods, secrets]",
    ),
    (
        security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
        "components/reconcile-pods/role.yaml",
        "verbs: [get, list, watch]",
        'verbs: ["*"]',
    ),
    (
        security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
        "components/reconcile-pods/role.yaml",
        "kind: Role\nmetadata",
        "kind: ClusterRole\nmetadata",
    ),
    (
        security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
        "components/reconcile-pods/role.yaml",
        "  - kind: ServiceAccount\n    name: signoff-reconcile",
        "  - kind: ServiceAccount\n    name: default",
    ),
    (
        security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
        "components/reconcile-pods/cronjob.yaml",
        "automountServiceAccountToken: true",
        "automountServiceAccountToken: false",
    ),
    *(
        (
            security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
            f"components/reconcile-pods/{kind}.yaml",
            'value: "true"',
            'value: "false"',
        )
        for kind in ("cronjob", "deployment")
    ),
    (
        security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
        "components/reconcile-pods/deployment.yaml",
        "serviceAccountName: signoff-reconcile",
        "serviceAccountName: default",
    ),
    (
        security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
        "components/reconcile-pods/kustomization.yaml",
        "      kind: Deployment\n      labelSelector: app.kubernetes.io/name=signoff,app.kubernetes.io/component=reconcile",
        "      kind: Deployment",
    ),
    (
        security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
        "components/reconcile-pods/kustomization.yaml",
        "port: 6443",
        "port: 6444",
    ),
    (
        security.reconcile_may_list_pods_of_its_namespace_where_it_is_asked_for_and_nothing_else,
        "examples/reconcile/kustomization.yaml",
        "resources:\n",
        "components: [../../components/reconcile-pods]\nresources:\n",
    ),
    (
        manifests.the_grace_is_copied_and_its_absence_is_loud,
        "components/grace/kustomization.yaml",
        "[name=SIGNOFF_GRACE]",
        "[name=SIGNOFF_SPOOL]",
    ),
    (
        manifests.the_grace_is_copied_and_its_absence_is_loud,
        "components/grace/kustomization.yaml",
        "      kind: StatefulSet\n      labelSelector: component=scheduler",
        "      kind: StatefulSet\n      name: scheduler",
    ),
    (manifests.images_are_named_in_one_place, SIDECAR, "image: signoff", "image: signoff:0.1.0"),
    (manifests.images_are_named_in_one_place, "examples/drain/kustomization.yaml", "  - name: signoff\n", "  - name: sign\n"),
    (manifests.the_names_that_others_go_by_are_there, "reconcile/cronjob.yaml", "name: signoff-reconcile", "name: reconcile"),
    (manifests.the_names_that_others_go_by_are_there, "monitoring/podmonitor.yaml", "port: signoff", "port: metrics"),
    (manifests.the_names_that_others_go_by_are_there, "components/network-policy/scheduler.yaml", "port: 9802", "port: 9803"),
    (manifests.the_names_that_others_go_by_are_there, "components/network-policy/reconcile.yaml", "port: 65003", "port: 65002"),
    (manifests.every_variable_is_one_that_the_program_reads, SIDECAR, "SIGNOFF_SPOOL", "SIGNOFF_SPOOL_DIR"),
    (manifests.each_dragonfly_has_a_directory_of_its_own_on_the_node, HOSTPATH, "$(POD_NAMESPACE).", ""),
    (manifests.each_dragonfly_has_a_directory_of_its_own_on_the_node, HOSTPATH, "$(POD_APP)", "$(POD_INSTANCE)"),
    (manifests.each_dragonfly_has_a_directory_of_its_own_on_the_node, HOSTPATH, "- name: POD_NAMESPACE", "- name: NAMESPACE"),
    (manifests.each_dragonfly_has_a_directory_of_its_own_on_the_node, HOSTPATH, "$(POD_NAMESPACE).", "$(POD_NAMESPACE)/"),
    (manifests.each_dragonfly_has_a_directory_of_its_own_on_the_node, HOSTPATH, "path: /var/lib/signoff\n", "path: /var/lib/spools\n"),
    (manifests.what_a_pod_mounts_is_there, "secrets/rest.yaml", "  password:", "  pass:"),
    (manifests.what_a_pod_mounts_is_there, "secrets/database.yaml", "  url:", "  uri:"),
    (manifests.what_a_pod_mounts_is_there, "components/scheduler-tls/statefulset.yaml", "/etc/dragonfly-tls", "/etc/tls"),
    (budget.the_grace_budget_adds_up, PLAIN, 'value: "30"', 'value: "20"'),
    (budget.the_grace_budget_adds_up, DRAIN, "--linger=10s", "--linger=20s"),
    (budget.the_grace_budget_adds_up, DRAIN, "--deadline=5s", "--deadline=15s"),
    (budget.the_grace_budget_adds_up, "components/drain-http/statefulset.yaml", "preStop:", "postStart:"),
    (
        budget.a_run_of_reconcile_fits_into_its_period,
        "reconcile/cronjob.yaml",
        "activeDeadlineSeconds: 280",
        "activeDeadlineSeconds: 240",
    ),
    (budget.a_run_of_reconcile_fits_into_its_period, "reconcile/cronjob.yaml", '"*/5 ', '"*/4 '),
    (budget.a_run_of_reconcile_fits_into_its_period, "reconcile/cronjob.yaml", "Forbid", "Allow"),
    (
        budget.a_run_of_reconcile_fits_into_its_period,
        "reconcile/cronjob.yaml",
        "restartPolicy: Never",
        "restartPolicy: OnFailure",
    ),
    (helm.the_script_patches_the_scheduler_whatever_the_release, "helm/post-render", "trap 'rm", "true 'rm"),
    (helm.the_script_patches_the_scheduler_whatever_the_release, "helm/post-render", "kustomize build", "kustomize render"),
    (
        helm.the_script_patches_the_scheduler_whatever_the_release,
        "helm/post-render",
        'pwd)" "$dir/component"',
        'pwd)" "$dir/comp"',
    ),
    (helm.the_script_fails_loudly_where_it_finds_no_scheduler, "helm/post-render", "((patched == 0))", "((patched < 0))"),
    (
        helm.the_script_fails_loudly_where_it_finds_no_scheduler,
        "helm/post-render",
        "set && scheduler && agent; set",
        "agent; set",
    ),
    (
        helm.the_script_warns_of_the_examples_image_and_of_another_grace_than_the_pods,
        "helm/post-render",
        "grace > pod",
        "grace > 90",
    ),
    (
        helm.the_script_warns_of_the_examples_image_and_of_another_grace_than_the_pods,
        "helm/post-render",
        "grace && grace < pod",
        "grace && grace < 9",
    ),
    (helm.the_script_warns_of_a_host_network_that_the_agent_is_not_told_of, "helm/post-render", "host && !ip", "host"),
    (helm.the_script_warns_of_a_host_network_that_the_agent_is_not_told_of, "helm/post-render", "host = ip = 0; pod", "pod"),
    (helm.the_script_says_where_the_scheduler_has_no_manager, "helm/post-render", 'if (addr == "")', 'if (addr == "-")'),
    (helm.helm_4_takes_the_plugin, "helm/plugin/plugin.yaml", "postrenderer/v1", "cli/v1"),
    (helm.helm_3_takes_the_script, "helm/post-render", "exit 1\n", "exit 0\n"),
    (helm.flux_is_given_the_component_s_patch, "helm/flux.yaml", "memory: 64Mi", "memory: 48Mi"),
    (helm.flux_is_given_the_component_s_patch, SIDECAR, "cpu: 10m", "cpu: 20m"),
    (helm.argo_cd_renders_the_chart_with_the_sidecar, "helm/argocd/kustomization.yaml", "  - ../../components/grace\n", ""),
    (install.the_policy_is_what_is_generated_from_the_components, SIDECAR, "memory: 64Mi", "memory: 65Mi"),
    (install.the_policy_is_what_is_generated_from_the_components, HOSTPATH, "$(POD_APP)", "$(POD_INSTANCE)"),
    (install.the_policy_is_what_is_generated_from_the_components, "install/policy.yaml", "restartPolicy: 'Always'", "restartPolicy: ''"),
    (install.the_image_is_named_in_one_place_for_the_policy_and_for_reconcile, "install/image.yaml", "[name=image]", "[name=busybox]"),
    (install.the_image_is_named_in_one_place_for_the_policy_and_for_reconcile, "install/kustomization.yaml", "  - path: image.yaml\n", ""),
    (
        install.the_image_is_named_in_one_place_for_the_policy_and_for_reconcile,
        "install/policy.yaml",
        "expression: '''signoff'''",
        "expression: '''registry.example.com/signoff'''",
    ),
    (install.each_variant_sets_its_variable_and_nothing_else, "install/rest.yaml", "[name=manager]", "[name=token]"),
    (install.each_variant_sets_its_variable_and_nothing_else, "install/spool/kustomization.yaml", "/6/expression", "/4/expression"),
    (install.each_variant_sets_its_variable_and_nothing_else, "install/drain/kustomization.yaml", 'value: "true"', 'value: "false"'),
    (install.each_variant_sets_its_variable_and_nothing_else, "install/kustomization.yaml", "/2/expression", "/3/expression"),
    (install.the_namespace_is_named_in_one_place, "install/reconcile.yaml", "name: signoff-reconcile\n", "name: dragonfly-system\n"),
    (install.nothing_waits_for_a_secret, "install/reconcile.yaml", "optional: true", "optional: false"),
    (install.nothing_waits_for_a_secret, "install/policy.yaml", "name: 'signoff-rest', key: 'username', optional: true", "name: 'signoff-rest', key: 'username'"),
    (install.reconcile_here_is_the_cronjob_s_but_stays_and_repairs, "reconcile/cronjob.yaml", "memory: 128Mi", "memory: 256Mi"),
    (install.reconcile_here_is_the_cronjob_s_but_stays_and_repairs, "install/reconcile.yaml", "--apply, ", ""),
    (install.reconcile_here_is_the_cronjob_s_but_stays_and_repairs, "install/reconcile.yaml", "SIGNOFF_CLUSTER_ID", "SIGNOFF_APPLY"),
    (install.reconcile_here_is_the_cronjob_s_but_stays_and_repairs, "install/kustomization.yaml", "  - ../components/reconcile-pods\n", ""),
    (install.the_policy_fails_open_and_goes_by_two_labels, "install/policy.yaml", "failurePolicy: Ignore", "failurePolicy: Fail"),
    (install.the_policy_fails_open_and_goes_by_two_labels, "install/policy.yaml", "inject: enabled", "inject: disabled"),
    (
        install.every_variable_that_the_policy_sets_is_one_that_the_program_reads,
        "install/policy.yaml",
        "SIGNOFF_HOOK_LISTEN",
        "SIGNOFF_HOOK_LISTENER",
    ),
    (install.it_fits_the_api_from_the_version_that_has_such_policies, "install/policy.yaml", "matchConditions:", "matchCondition:"),
    (helm.the_scripts_pass_shellcheck, "helm/post-render", 'cat >"$dir', 'cat >$dir"'),
    (life.the_default_variant_signs_its_scheduler_off, SIDECAR, PROBE, "[signoff, status, --begun]"),
    (life.the_plain_sidecar_waits_for_its_scheduler_and_signs_it_off, PLAIN, "mountPath: /etc/dragonfly\n", "mountPath: /etc/x\n"),
    (life.the_default_variant_signs_its_scheduler_off, SIDECAR, "mountPath: /etc/dragonfly\n", "mountPath: /etc/x\n"),
    (life.the_default_variant_signs_its_scheduler_off, SIDECAR, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    (life.the_default_variant_signs_its_scheduler_off, SIDECAR, "subPath: no-token", "subPath: spool"),
    (life.the_default_variant_signs_its_scheduler_off, SIDECAR, "fieldPath: status.podIP", "fieldPath: status.hostIP"),
    (life.the_default_variant_signs_its_scheduler_off, SIDECAR, "memory: 64Mi", "memory: 16Mi"),
    (life.the_minimum_on_a_chart_like_the_official_one_signs_its_scheduler_off, SIDECAR, "- name: POD_NAME", "- name: POD"),
    (life.the_startup_probe_needs_neither_manager_scheduler_spool_nor_port, SIDECAR, PROBE, "[signoff, check]"),
    (life.the_agent_reads_its_row_over_rest, "components/rest/statefulset.yaml", "rest/password", "rest/passwort"),
    (life.the_startup_probe_fails_without_an_agent, SIDECAR, PROBE, "[signoff, --version]"),
    (
        life.the_agent_reads_the_certificates_that_scheduler_yaml_names,
        "components/scheduler-tls/statefulset.yaml",
        "/etc/dragonfly-tls",
        "/etc/tls",
    ),
    (
        life.the_installed_hook_drains_in_a_container_that_is_root,
        DRAIN,
        "mountPath: /run/signoff\n      volumes",
        "mountPath: /run/x\n      volumes",
    ),
    (life.the_installed_hook_drains_and_lingers, DRAIN, "install, /run/signoff/signoff", "install, /run/signoff/so"),
    (life.the_installed_hook_drains_and_lingers, DRAIN, "--linger=10s", "--linger=0s"),
    (life.the_hook_out_of_an_image_volume_drains, "components/drain-image-volume/statefulset.yaml", "pre-stop,", "status,"),
    (life.the_http_hook_drains_for_the_node_alone, "components/host-ip/kustomization.yaml", "status.hostIPs", "status.podIPs"),
    (
        life.a_sign_off_outlives_the_pod_on_a_hostpath,
        "components/spool-owner/statefulset.yaml",
        "&& chown 65532:65532 /var/lib/signoff",
        "",
    ),
    (
        life.what_lies_where_all_dragonflies_had_their_spool_is_taken_over,
        HOSTPATH,
        "value: /var/lib/signoff/",
        "value: /var/lib/signoff/spools/",
    ),
    (
        life.a_sign_off_outlives_the_pod_on_a_claim,
        "components/spool-claim/statefulset.yaml",
        "value: /var/lib/signoff",
        "value: /run/signoff/spool",
    ),
    (
        life.the_cronjob_reads_the_rows_with_its_secret,
        "reconcile/cronjob.yaml",
        "value: /etc/signoff/rest/password",
        "value: /etc/signoff/password",
    ),
    (
        life.the_cronjob_repairs_the_row_of_one_that_was_scaled_down,
        "examples/reconcile/kustomization.yaml",
        "_APPLY",
        "_APPLYING",
    ),
]


def broken(mutation, binary):
    """Whether the promise fails; and why there is nothing to see."""
    promise, path, old, new = mutation
    with tempfile.TemporaryDirectory() as dir:
        k8s = pathlib.Path(dir) / "k8s"
        shutil.copytree(ROOT / "k8s", k8s, symlinks=True)
        os.chmod(dir, 0o755)
        text = (k8s / path).read_text()
        if old not in text:
            return False, f"{old!r} is not there"
        (k8s / path).write_text(text.replace(old, new))
        if promise in life.PROMISES:
            fine, said, _ = life.in_a_process(promise.__name__, binary, k8s)
            return not fine, said
        try:
            promise(Tree(k8s))
        except (Failed, StopIteration, AttributeError, KeyError, TypeError) as failed:
            return True, repr(failed)
    return False, ""


def all_caught(static, binary):
    mutations = [one for one in MUTATIONS if binary or one[0] not in life.PROMISES]
    caught = 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [(one, pool.submit(broken, one, binary)) for one in mutations]
        for (promise, path, old, new), job in jobs:
            seen, said = job.result()
            caught += seen
            words = f"{path}: {old.strip()!r} -> {new.strip()!r}"
            if os.environ.get("VERBOSE"):
                print(f"{promise.__name__}: {words}\n    {seen}: {said[-600:]}\n", flush=True)
            if not seen:
                print(f"NOT CAUGHT by {promise.__name__}: {words} {said}", file=sys.stderr, flush=True)
    # Those that prove something of the checks themselves.
    free = {security.the_check_of_pod_security_can_fail}
    without = {one for one in [*static, *life.PROMISES]} - {one[0] for one in MUTATIONS} - free
    for promise in without:
        print(f"NO MUTATION for {promise.__name__}", file=sys.stderr)
        caught = -1
    print(f"{caught} of {len(mutations)} broken manifests caught")
    return caught == len(mutations)
