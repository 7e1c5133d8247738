"""`signoff reconcile` over large tables: its time beside that of a client that reads the same rows twice, its memory, what it asks for."""

import itertools
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request

from world import MOCKS, ROOT, Missing, as_in_the_image, eventually, free_port, run, table, thousands

SIZES = (1_000, 10_000, 100_000)
RUNS = 5
# Seconds between the looks: the largest table's rows are moved within them.
APART = 6
# Of so many rows one is inactive and stands still. The others are active and heard of between the looks: nobody is probed.
INACTIVE = 10
COLUMNS = "id, host_name, ip, port, state, scheduler_cluster_id, updated_at, config, last_keep_alive_at"
PASSWORD = "dragonfly"


class Server:
    """Who has the rows, in a directory of its own; gone with the block."""

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="signoff-rows-"))
        (self.dir / "password").write_text(PASSWORD)
        self.port = free_port()
        self.start()
        return self

    def serve(self, *command):
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir)


class MariaDb(Server):
    """A MariaDB with the manager's table."""

    name = "MariaDB"

    def start(self):
        user = ["--user=root"] if os.geteuid() == 0 else []
        run("mariadb-install-db", "--no-defaults", f"--datadir={self.dir}/data", "--auth-root-authentication-method=normal",
            "--skip-test-db", *user)
        self.serve(shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin"), "--no-defaults", *user, f"--datadir={self.dir}/data",
                   f"--socket={self.dir}/socket", f"--pid-file={self.dir}/pid", f"--port={self.port}", "--bind-address=127.0.0.1",
                   "--skip-name-resolve", "--skip-log-bin", "--innodb-buffer-pool-size=256M", "--innodb-flush-log-at-trx-commit=0")
        eventually("MariaDB", lambda: "ready for connections" in (self.dir / "log").read_text())
        self.run("CREATE DATABASE manager")
        self.run((ROOT / "tests/database/schema-mysql-v2.5.sql").read_text(), "manager")
        self.run(f"CREATE USER 'signoff'@'%' IDENTIFIED BY '{PASSWORD}';"
                 f"GRANT SELECT ({COLUMNS}, is_del) ON manager.scheduler TO 'signoff'@'%'")

    def run(self, sql, *database):
        return run("mariadb", "--no-defaults", f"--socket={self.dir}/socket", "-uroot", "-BN", "-e", sql, *database)

    def fill(self, rows):
        at = "'2026-11-23 20:54:32.734'"
        self.run("TRUNCATE scheduler;"
                 "INSERT INTO scheduler (id, created_at, updated_at, is_del, config, host_name, idc, location, ip, port, state, features,"
                 " last_keep_alive_at, scheduler_cluster_id)"
                 f" SELECT seq, {at}, {at}, 0, '{{\"manager_keep_alive_interval\":5000000000}}', CONCAT('dragonfly-scheduler-', seq), '', '',"
                 f" INET_NTOA(INET_ATON('10.0.0.0') + seq), 8002, IF(MOD(seq, {INACTIVE}) = 0, 'inactive', 'active'),"
                 f" '[\"schedule\",\"preheat\"]', {at}, 1 + seq DIV 1000 FROM seq_1_to_{rows}; ANALYZE TABLE scheduler", "manager")

    def move(self):
        self.run("UPDATE scheduler SET last_keep_alive_at = last_keep_alive_at + INTERVAL 5 SECOND, updated_at = last_keep_alive_at"
                 " WHERE state = 'active'", "manager")

    def arguments(self):
        return ["--database-url", f"mysql://signoff@127.0.0.1:{self.port}/manager?ssl-mode=disabled",
                "--database-password-file", self.dir / "password"]

    def client(self):
        read = f"SELECT {COLUMNS} FROM scheduler WHERE is_del = 0;"
        return ["mariadb", "--no-defaults", "--skip-ssl", "--quick", "-BN", "-h127.0.0.1", f"-P{self.port}", "-usignoff", f"-p{PASSWORD}",
                "-e", 2 * read, "manager"]

    def asked(self, work):
        """How many statements it takes that select something."""
        count = lambda: int(self.run("SHOW GLOBAL STATUS LIKE 'Com_select'").split()[1])
        before = count()
        work(())
        return count() - before


class Rest(Server):
    """A mock manager over a state file."""

    name = "REST"
    # A manager refuses a second sign-in of one user within 30 s.
    users = [f"user{n}" for n in range(100)]

    def start(self):
        self.rows, self.at = 1, 1_795_467_272_734
        self.write()
        self.free = iter(self.users)
        self.serve(MOCKS, "mock-manager", "--grpc-listen", f"127.0.0.1:{free_port()}", "--rest-listen", f"127.0.0.1:{self.port}",
                   "--admin-listen", f"127.0.0.1:{free_port()}", "--state", self.dir / "state", "--latency", "0s",
                   *(f"--user={user}:{PASSWORD}:guest" for user in self.users))
        self.url = f"http://127.0.0.1:{self.port}/api/v1"
        eventually("the mock manager", lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthy"))
        who = json.dumps({"name": next(self.free), "password": PASSWORD}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/users/signin", who)) as answer:
            self.token = json.load(answer)["token"]
        # Ones that signoff doesn't take: no answer comes from a manager's memory.
        self.sizes = itertools.count(1300)

    def write(self):
        """Puts the rows into the file."""
        rows = [{"id": n, "created_at": 0, "updated_at": self.at if n % INACTIVE else 0, "is_del": 0, "config": {"manager_keep_alive_interval": 5_000_000_000},
                 "host_name": f"dragonfly-scheduler-{n}", "idc": "", "location": "", "ip": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}",
                 "port": 8002, "state": "active" if n % INACTIVE else "inactive", "features": ["schedule", "preheat"],
                 "last_keep_alive_at": self.at if n % INACTIVE else 0, "scheduler_cluster_id": 1 + n // 1000} for n in range(1, self.rows + 1)]
        new = self.dir / "state.moved"
        new.write_text(json.dumps({"last_id": self.rows, "rows": rows}))
        new.rename(self.dir / "state")

    def fill(self, rows):
        self.rows = rows
        self.move()

    def move(self):
        self.at += 5_000
        self.write()
        # So that no page waits for the file to be read.
        run(*self.curl(), "-o", os.devnull, self.pages(1))

    def arguments(self):
        return ["--manager", f"http://127.0.0.1:{self.port}", "--username", next(self.free), "--password-file", self.dir / "password"]

    def curl(self):
        return ["curl", "-sfS", "-H", f"Authorization: Bearer {self.token}"]

    def pages(self, count=None):
        size = next(self.sizes)
        return f"{self.url}/schedulers?page=[1-{count or -(-self.rows // size)}]&per_page={size}"

    def client(self):
        return [*self.curl(), self.pages(), self.pages()]

    def asked(self, work):
        """How many requests it takes, by strace."""
        log = self.dir / "strace"
        work(("strace", "-f", "-qq", "-e", "trace=write,writev,sendto,sendmsg", "-s", "40", "-o", log))
        return len(re.findall(r"(?:GET|POST) /api/", log.read_text()))


def processor_time(pid):
    """Ticks that the process below whatever starts it has used so far."""
    while children := pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[11:13]


def between_the_looks(pid):
    """Waits until a reconcile waits: it has used no processor time for a while."""
    last, since = None, time.monotonic()
    def idle():
        nonlocal last, since
        if (used := processor_time(pid)) != last:
            last, since = used, time.monotonic()
        return time.monotonic() - since > 0.5
    eventually("the wait between the looks", idle)


def reconcile(server, binary, rows, prefix=()):
    """A dry run: its seconds but for the wait, and its peak in MiB. Every row must have been judged as it is."""
    peak = server.dir / "peak"
    command = ["/usr/bin/time", "-f", "%M", "-o", peak, *prefix, binary, "reconcile", *server.arguments(), "--recheck-after", f"{APART}s", "-o", "json"]
    began = time.perf_counter()
    with subprocess.Popen([str(part) for part in command], env=as_in_the_image(), text=True, stdout=subprocess.PIPE) as child:
        between_the_looks(child.pid)
        server.move()
        told = child.stdout.read()
    took = time.perf_counter() - began - APART
    counts = json.loads(told)["counts"]
    inactive = rows // INACTIVE
    assert (counts["rows"], counts["active"], counts["live"], counts["wrongly_inactive"]) == (rows, rows - inactive, rows - inactive, 0), counts
    return took, int(peak.read_text().split()[-1]) / 1024


def client(server):
    """The seconds of a client that reads the rows twice and keeps nothing."""
    command = [str(part) for part in server.client()]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measured(server, binary, rows):
    server.fill(rows)
    took, peaks, clients = [], [], []
    for _ in range(RUNS):
        seconds, peak = reconcile(server, binary, rows)
        took.append(seconds)
        peaks.append(peak)
        clients.append(client(server))
    asked = server.asked(lambda prefix: reconcile(server, binary, rows, prefix))
    ours, theirs = statistics.median(took), statistics.median(clients)
    return (server.name, thousands(rows), f"{ours * 1e3:.0f}", f"{theirs * 1e3:.0f}", f"{ours / theirs:.2f}", f"{ours / rows * 1e6:.1f}",
            f"{statistics.median(peaks):.1f}", asked)


def rows(binary):
    """Reconcile over large tables, its wait between the looks left out, in turn with a client that reads the same rows twice; peak memory."""
    for program, package in (("mariadb-install-db", "mariadb-server"), ("curl", "curl"), ("strace", "strace"), ("/usr/bin/time", "time")):
        if not shutil.which(program):
            raise Missing(f"{program} is not installed (Debian: {package})")
    told = []
    for kind, size in itertools.product((MariaDb, Rest), SIZES):
        # A new one each: a manager's memory of the last size's rows would be asked for half a minute.
        with kind() as server:
            told.append(measured(server, binary, size))
    return table(("rows from", "rows", "reconcile, ms", "client, ms", "ratio", "µs a row", "peak, MiB", "asked"), told), {}
