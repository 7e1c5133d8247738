"""A container, run from its manifest as a runtime would: its root file system, its process 1, and what is run in it.

Not as in a cluster: no seccomp filter, no limit of memory or CPU, and a registry's images are one local binary.
"""

import ctypes
import fcntl
import os
import pathlib
import re
import signal
import socket
import struct
import time

from render import TOKEN

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
CAPBSET_DROP, NO_NEW_PRIVS, PDEATHSIG = 24, 38, 1
CAPABILITIES = {"CHOWN": 0, "FOWNER": 3}
# What a runtime gives a container's root unless told otherwise (containerd's defaults).
DEFAULT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
CLUSTER_IP, NODE_IP = "10.96.0.1", "10.0.0.1"
# The device that pods have their addresses on.
PODS = b"eth0"
# The outer bound of whatever a test waits for.
BOUND = 40


def call(what, result):
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def unshare(flags):
    call("unshare", LIBC.unshare(flags))


def mount(source, target, kind, flags, options=""):
    arguments = (str(source).encode(), str(target).encode(), kind.encode(), flags, options.encode())
    call(f"mount {target}", LIBC.mount(*arguments))


def bind(source, target, readonly):
    mount(source, target, "", BIND | REC)
    if readonly:
        mount("", target, "", BIND | REMOUNT | RDONLY | NOSUID)


def exit_code(status):
    """As a shell has it: 128 and the signal."""
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def eventually(what, question):
    """What the question answers, once that is true."""
    until = time.monotonic() + BOUND
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"not within {BOUND} s: {what}")
        time.sleep(0.02)


def enter_a_world(work):
    """Runs `work` where nobody else is: no other network, no other process; whatever it leaves ends with it."""
    unshare(NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            LIBC.prctl(PDEATHSIG, signal.SIGKILL)
            mount("", "/", "", REC | PRIVATE)
            mount("proc", "/proc", "proc", 0)
            code = work()
        except BaseException:
            import traceback

            traceback.print_exc()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return exit_code(status)


class Network:
    """Two devices, and what has an address there: pods on an ordinary one, as theirs are no loopback addresses, the rest on lo."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.names = {}
        # SIOCBRADDBR: a bridge that leads nowhere.
        self.request(0x89A0, PODS + b"\0")
        for device in (b"lo", PODS):
            self.request(0x8914, struct.pack("16sh14x", device, 0x1 | 0x40))
        for ip in (CLUSTER_IP, NODE_IP):
            self.add_to(b"lo", ip)

    def request(self, code, argument):
        fcntl.ioctl(self.socket, code, argument)

    def add(self, ip):
        """Gives a pod its address."""
        self.add_to(PODS, ip)

    def add_service(self, ip):
        self.add_to(b"lo", ip)

    def add_to(self, device, ip):
        name = self.names[ip] = b"%s:%d" % (device, len(self.names))
        for code, value in ((0x8916, ip), (0x891C, "255.255.255.255")):
            self.request(code, struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(value)))

    def remove(self, ip):
        """Nobody has the address any more, and whoever dials it is told so, as by the node that knows the pod is gone."""
        self.request(0x8914, struct.pack("16sh14x", self.names[ip], 0))
        host = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(ip))
        nothing = struct.pack("H14x", socket.AF_INET)
        # A struct rtentry with RTF_UP, RTF_HOST and RTF_REJECT.
        self.request(0x890B, struct.pack("@L16s16s16sHhLPhPLLH", 0, host, nothing, nothing, 0x205, 0, 0, 0, 0, 0, 0, 0, 0))


def expand(text, environment):
    """`$(NAME)`, which is the kubelet's and needs no shell."""
    return re.sub(r"\$\((\w+)\)", lambda match: environment.get(match[1], match[0]), text)


class Container:
    """One container: its root file system, its process 1, and what is run in it."""

    def __init__(self, pod, manifest):
        self.pod, self.manifest, self.name = pod, manifest, manifest["name"]
        self.environment = pod.environment(manifest)
        if "command" not in manifest:
            raise AssertionError(f"container {self.name} leaves its command to the image, which can't be seen here")
        self.command = [expand(one, self.environment) for one in manifest["command"] + manifest.get("args", [])]
        self.dir = pod.dir / "containers" / self.name
        self.root = self.dir / "root"
        self.status = None

    def mounts(self):
        """(source, path, read-only) of each, the token's included where nothing hides it."""
        found = []
        for one in self.manifest.get("volumeMounts", []):
            source = self.pod.volumes[one["name"]]
            if "subPath" in one:
                source = source / one["subPath"]
                source.mkdir(exist_ok=True)
                source.chmod(source.parent.stat().st_mode & 0o777)
            found.append((source, one["mountPath"], one.get("readOnly", False)))
        given = self.pod.spec.get("automountServiceAccountToken", True)
        if given and TOKEN not in [path for _, path, _ in found]:
            token = self.dir / "token"
            token.mkdir()
            (token / "token").write_text("the service account's token")
            found.append((token, TOKEN, True))
        return sorted(found, key=lambda mount: mount[1])

    def make_root(self):
        """What a scratch image has, and what a runtime adds. Once: mounts come in a namespace of their own."""
        for path in ("usr/local/bin", "etc", "dev", "proc", "tmp"):
            (self.root / path).mkdir(parents=True)
        for name in ("null", "urandom"):
            (self.root / "dev" / name).touch()
        (self.dir / "termination-log").touch()
        (self.dir / "termination-log").chmod(0o666)
        (self.root / "dev/termination-log").touch()
        fqdn = f"{self.pod.name}.{self.pod.service}.{self.pod.namespace}.svc.cluster.local\t" if self.pod.service else ""
        lines = ["127.0.0.1\tlocalhost", f"{self.pod.ip}\t{fqdn}{self.pod.name}", *self.pod.cluster.hosts()]
        (self.root / "etc/hosts").write_text("\n".join(lines) + "\n")
        (self.root / "etc/hostname").write_text(self.pod.name + "\n")
        (self.root / "etc/nsswitch.conf").write_text("hosts: files\n")
        (self.root / "usr/local/bin/signoff").touch()

    def mount_all(self):
        bind(self.root, self.root, False)
        # For a debug build, which is linked dynamically; and the shell of an image that isn't ours.
        shared = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"]
        if not is_signoff(self.manifest["image"]):
            shared += ["/bin", "/usr/bin"]
        for path in (path for path in shared if os.path.exists(path)):
            inside = self.root / path.lstrip("/")
            if os.path.islink(path):
                inside.symlink_to(os.readlink(path))
            else:
                inside.mkdir(parents=True, exist_ok=True)
                bind(path, inside, True)
        bind(self.pod.cluster.binary, self.root / "usr/local/bin/signoff", True)
        for name in ("null", "urandom"):
            bind(f"/dev/{name}", self.root / "dev" / name, False)
        bind(self.dir / "termination-log", self.root / "dev/termination-log", False)
        for source, path, readonly in self.mounts():
            inside = self.root / path.lstrip("/")
            inside.mkdir(parents=True, exist_ok=True)
            bind(source, inside, readonly)
        mount("proc", self.root / "proc", "proc", NOSUID | NODEV)
        if self.security("readOnlyRootFilesystem", False):
            mount("", self.root, "", BIND | REMOUNT | RDONLY)

    def security(self, key, default):
        return self.manifest.get("securityContext", {}).get(key, self.pod.spec.get("securityContext", {}).get(key, default))

    def become(self):
        """The container's user and what it may, as the manifest says; in the child, right before exec."""
        capabilities = self.security("capabilities", {})
        kept = set() if "ALL" in capabilities.get("drop", []) else set(DEFAULT_CAPABILITIES)
        kept |= {CAPABILITIES[name] for name in capabilities.get("add", [])}
        for number in range(64):
            if number not in kept and LIBC.prctl(CAPBSET_DROP, number, 0, 0, 0) < 0:
                break
        group = self.security("fsGroup", None)
        os.setgroups([] if group is None else [group])
        user = self.security("runAsUser", 65532 if is_signoff(self.manifest["image"]) else 0)
        gid = self.security("runAsGroup", user)
        if self.security("runAsNonRoot", False) and user == 0:
            raise AssertionError("runAsNonRoot, and the user is root")
        os.setresgid(gid, gid, gid)
        os.setresuid(user, user, user)
        if not self.security("allowPrivilegeEscalation", True):
            call("no_new_privs", LIBC.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))

    def execute(self, command, output):
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        for number, target in ((0, null), (1, output), (2, output)):
            os.dup2(target, number)
        os.closerange(3, 256)
        self.become()
        os.execvpe(command[0], command, self.environment)

    def start(self):
        self.make_root()
        report, told = os.pipe()
        # Two forks: a PID namespace begins with the child of whoever asks for it.
        self.shim = os.fork()
        if self.shim == 0:
            try:
                unshare(NEWNS | NEWPID | NEWUTS)
                socket.sethostname(self.pod.name)
                output = os.open(self.dir / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
                os.fchmod(output, 0o666)
                child = os.fork()
                if child == 0:
                    self.mount_all()
                    os.chroot(self.root)
                    os.chdir("/")
                    self.execute(self.command, output)
                os.write(told, str(child).encode())
                os.close(told)
                _, status = os.waitpid(child, 0)
                os._exit(exit_code(status))
            except BaseException as error:
                os.write(2, f"container {self.name}: {error}\n".encode())
                os._exit(126)
        os.close(told)
        self.pid = int(os.read(report, 32) or 0)
        os.close(report)

    def run(self, command):
        """As `kubectl exec`, a probe or a hook: in the container, with its environment and user. Code and output."""
        finish = self.begin(command)
        return finish()

    def begin(self, command):
        path = self.dir / f"exec-{time.monotonic_ns()}"
        child = os.fork()
        if child == 0:
            try:
                root = os.open(f"/proc/{self.pid}/root", os.O_RDONLY)
                spaces = [os.open(f"/proc/{self.pid}/ns/{name}", os.O_RDONLY) for name in ("pid", "uts", "mnt")]
                output = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
                for space in spaces:
                    call("setns", LIBC.setns(space, 0))
                os.fchdir(root)
                os.chroot(".")
                inner = os.fork()
                if inner == 0:
                    self.execute(command, output)
                os._exit(exit_code(os.waitpid(inner, 0)[1]))
            except BaseException as error:
                os.write(2, f"exec in {self.name}: {command}: {error}\n".encode())
                os._exit(126)

        def finish():
            code = exit_code(os.waitpid(child, 0)[1])
            return code, path.read_text() if path.exists() else ""

        return finish

    def begin_hook(self):
        """Starts the preStop hook; what is returned waits for its end, and keeps its code and its words."""
        hook = self.manifest.get("lifecycle", {}).get("preStop", {})
        self.hook = None
        if "exec" in hook:
            finish = self.begin(hook["exec"]["command"])

            def wait():
                self.hook = finish()

            return wait
        if "httpGet" in hook:
            return lambda: setattr(self, "hook", http_get(self.pod.ip, hook["httpGet"]))
        return lambda: None

    def probe(self):
        """The startup probe, once: whether it succeeded, and what was said."""
        command = self.manifest["startupProbe"]["exec"]["command"]
        code, said = self.run(command)
        return code == 0, said

    def wait_until_started(self):
        """As often and as long as the manifest says, and no longer."""
        probe = self.manifest.get("startupProbe")
        if probe is None:
            return
        for _ in range(probe.get("failureThreshold", 3)):
            if self.ended():
                raise AssertionError(f"{self.name} ended with {self.status}: {self.log()}")
            if self.probe()[0]:
                return
            time.sleep(probe.get("periodSeconds", 10))
        raise AssertionError(f"{self.name} never started: {self.log()}")

    def signal(self, number):
        if not self.ended():
            os.kill(self.pid, number)

    def ended(self):
        if self.status is None:
            pid, status = os.waitpid(self.shim, os.WNOHANG)
            if pid:
                self.status = exit_code(status)
        return self.status is not None

    def wait(self, end=None):
        """Its exit code; killed where it is still there at the end."""
        bound = time.monotonic() + BOUND
        while not self.ended():
            if time.monotonic() > (end or bound):
                if not end:
                    raise AssertionError(f"{self.name} still runs after {BOUND} s: {self.log()}")
                self.signal(signal.SIGKILL)
            time.sleep(0.005)
        return self.status

    def log(self):
        return (self.dir / "log").read_text()

    def last_words(self):
        return (self.dir / "termination-log").read_text()

    def peak_memory(self):
        """In bytes, of process 1."""
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024


def image_name(image):
    """Its last part, without tag and digest."""
    return image.rsplit("/", 1)[-1].split(":")[0].split("@")[0]


def is_signoff(image):
    return image_name(image) in ("signoff", "signoff-mock")


def http_get(ip, get):
    """As the kubelet's hook: from the node's address; the status is not looked at."""
    with socket.create_connection((ip, get["port"]), timeout=BOUND, source_address=(NODE_IP, 0)) as stream:
        request = f"GET {get['path']} HTTP/1.1\r\nHost: {ip}:{get['port']}\r\nConnection: close\r\n\r\n"
        stream.sendall(request.encode())
        answer = b""
        while piece := stream.recv(4096):
            answer += piece
    head, _, body = answer.decode().partition("\r\n\r\n")
    return 0 if " 200 " in head.splitlines()[0] else 1, body
