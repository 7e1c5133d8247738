"""The restricted Pod Security Standard, as its documentation has it: what a pod's spec offends against.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ (restricted, which has baseline in it)
"""

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SECCOMP = {"RuntimeDefault", "Localhost"}


def offences(spec):
    """In words, one each."""
    found = [f"{key} is true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    pod = spec.get("securityContext") or {}
    for volume in spec.get("volumes") or []:
        for kind in set(volume) - {"name"} - VOLUMES:
            found.append(f"volume {volume['name']} is a {kind}")
    for sysctl in pod.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            found.append(f"sysctl {sysctl['name']}")
    found += of_context("the pod", pod)
    for container in (spec.get("initContainers") or []) + (spec.get("containers") or []):
        found += of_container(container, pod)
    return found


def of_context(where, context):
    """What may be set on the pod and on a container alike."""
    found = []
    options = context.get("seLinuxOptions") or {}
    if options.get("type") not in SELINUX_TYPES or options.get("user") or options.get("role"):
        found.append(f"{where}: seLinuxOptions")
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        found.append(f"{where}: AppArmor is unconfined")
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        found.append(f"{where}: hostProcess")
    if context.get("runAsUser") == 0:
        found.append(f"{where}: runAsUser is 0")
    if context.get("runAsNonRoot") is False:
        found.append(f"{where}: runAsNonRoot is false")
    seccomp = (context.get("seccompProfile") or {}).get("type")
    if seccomp is not None and seccomp not in SECCOMP:
        found.append(f"{where}: seccompProfile is {seccomp}")
    return found


def of_container(container, pod):
    where = f"container {container['name']}"
    context = container.get("securityContext") or {}
    found = of_context(where, context)
    if context.get("privileged"):
        found.append(f"{where}: privileged")
    if context.get("allowPrivilegeEscalation") is not False:
        found.append(f"{where}: allowPrivilegeEscalation is not false")
    if context.get("procMount") not in (None, "", "Default"):
        found.append(f"{where}: procMount")
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        found.append(f"{where}: capabilities are not all dropped")
    if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        found.append(f"{where}: capabilities are added")
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        found.append(f"{where}: runAsNonRoot is not true")
    if not (context.get("seccompProfile") or pod.get("seccompProfile")):
        found.append(f"{where}: no seccompProfile")
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            found.append(f"{where}: hostPort {port['hostPort']}")
    # From 1.34: a probe or a hook may not name a host.
    probes = [container.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    lifecycle = container.get("lifecycle") or {}
    for action in probes + [lifecycle.get(name) or {} for name in ("preStop", "postStart")]:
        for way in ("httpGet", "tcpSocket"):
            if (action.get(way) or {}).get("host"):
                found.append(f"{where}: a probe or hook names a host")
    return found
