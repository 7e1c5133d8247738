//! One MariaDB and one PostgreSQL for all tests, in temporary directories. A shell beside each ends it and removes its
//! directory when this process has gone, however it went.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

/// An outer bound, never a verdict.
const LONG: Duration = Duration::from_secs(120);
/// Debian's `nobody` and `nogroup`: PostgreSQL refuses to be root.
const NOBODY: u32 = 65534;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    MariaDb,
    Postgres,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    /// PEM of the CA that signed the server's certificate, which is for 127.0.0.1 alone.
    pub(crate) ca: String,
    /// Its end of a pipe is what keeps the server.
    _keeper: Child,
}

/// Ends the server by the signal `$1` and removes the directory `$2` once nobody holds the other end of its input.
const KEEPER: &str = r#"trap '' INT TERM HUP
signal=$1 dir=$2; shift 2
"$@" >"$dir/log" 2>&1 </dev/null & pid=$!
read -r _
exec 2>/dev/null
kill -"$signal" $pid; wait $pid; rm -rf "$dir""#;

/// The server of an engine; none where it isn't installed.
pub(crate) fn server(engine: Engine) -> Option<&'static Server> {
    static MARIADB: OnceLock<Option<Server>> = OnceLock::new();
    static POSTGRES: OnceLock<Option<Server>> = OnceLock::new();
    let server = match engine {
        Engine::MariaDb => MARIADB.get_or_init(|| Some(mariadb(&program("mariadbd")?))),
        Engine::Postgres => POSTGRES.get_or_init(|| Some(postgres(&programs_of_postgres()?))),
    };
    if server.is_none() {
        let line = format!("skipped on {engine:?}: it is not installed (Debian: mariadb-server, postgresql)");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "in CI this must run: {line}");
        eprintln!("{line}");
    }
    server.as_ref()
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    places.map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Where `initdb` and `postgres` are: Debian keeps them apart, by version.
fn programs_of_postgres() -> Option<PathBuf> {
    if let Some(found) = program("initdb") {
        return found.parent().map(Path::to_owned);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<_> = versions.flatten().map(|v| v.path().join("bin")).collect();
    found.retain(|bin| bin.join("initdb").is_file());
    found.sort();
    found.pop()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(command: &mut Command) {
    let done = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {} {said}", String::from_utf8_lossy(&done.stdout));
}

/// A CA's certificate, and a certificate with its key for 127.0.0.1, in PEM.
fn certificate() -> (String, String, String) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    (ca.pem(), leaf.pem(), key.serialize_pem())
}

/// A CA's certificate that signed nothing here.
pub(crate) fn another_ca() -> String {
    certificate().0
}

/// A directory with certificate and key, owned by whoever runs the server.
fn directory(owner: Option<u32>) -> (PathBuf, String) {
    let dir = tempfile::Builder::new().prefix("signoff-database-").tempdir().unwrap().keep();
    let (ca, cert, key) = certificate();
    fs::write(dir.join("cert.pem"), cert).unwrap();
    fs::write(dir.join("key.pem"), key).unwrap();
    fs::set_permissions(dir.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    if let Some(id) = owner {
        for path in [dir.join("cert.pem"), dir.join("key.pem"), dir.clone()] {
            std::os::unix::fs::chown(path, Some(id), Some(id)).unwrap();
        }
    }
    (dir, ca)
}

/// Starts it with the port that `command` is given, and waits until that takes connections.
fn start(signal: &str, dir: &Path, command: impl Fn(u16) -> Vec<String>) -> (u16, Child) {
    let end = Instant::now() + LONG;
    loop {
        // Free now; somebody else may take it before the server does.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh", signal])
            .arg(dir)
            .args(command(port))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        loop {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            if log.contains("ready for connections") || log.contains("ready to accept connections") {
                return (port, keeper);
            }
            assert!(Instant::now() < end, "no server in {dir:?}: {log}");
            if log.contains("ddress already in use") {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Another port, in what is left of the directory.
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        fs::write(dir.join("log"), "").unwrap();
    }
}

fn mariadb(mariadbd: &Path) -> Server {
    let (dir, ca) = directory(None);
    let at = |name: &str| dir.join(name).display().to_string();
    let mut install = Command::new("mariadb-install-db");
    install.arg("--no-defaults").arg(format!("--datadir={}", at("data")));
    install.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
    if is_root() {
        install.arg("--user=root");
    }
    run(&mut install);
    fs::write(
        dir.join("init.sql"),
        // A statement a line.
        "CREATE USER 'admin'@'%' IDENTIFIED BY 'admin';\nGRANT ALL ON *.* TO 'admin'@'%' WITH GRANT OPTION;\n",
    )
    .unwrap();
    let (port, keeper) = start("KILL", &dir, |port| {
        let mut command = vec![mariadbd.display().to_string(), "--no-defaults".into()];
        command.extend(is_root().then(|| "--user=root".to_owned()));
        command.extend([
            format!("--datadir={}", at("data")),
            format!("--socket={}", at("socket")),
            format!("--pid-file={}", at("pid")),
            format!("--init-file={}", at("init.sql")),
            format!("--ssl-cert={}", at("cert.pem")),
            format!("--ssl-key={}", at("key.pem")),
            format!("--port={port}"),
            "--bind-address=127.0.0.1".into(),
            "--skip-name-resolve".into(),
            "--skip-log-bin".into(),
            "--innodb-buffer-pool-size=16M".into(),
            "--innodb-flush-log-at-trx-commit=0".into(),
            // A session that asked for no zone would show this one.
            "--default-time-zone=+08:00".into(),
        ]);
        command
    });
    Server { port, ca, _keeper: keeper }
}

fn postgres(bin: &Path) -> Server {
    let owner = is_root().then_some(NOBODY);
    let (dir, ca) = directory(owner);
    let at = |name: &str| dir.join(name).display().to_string();
    let dropped: Vec<String> = match owner {
        None => Vec::new(),
        Some(id) => {
            let (reuid, regid) = (format!("--reuid={id}"), format!("--regid={id}"));
            vec!["setpriv".into(), reuid, regid, "--clear-groups".into()]
        }
    };
    let line = |name: &str, args: Vec<String>| {
        let program = bin.join(name).display().to_string();
        dropped.iter().cloned().chain([program]).chain(args).collect::<Vec<_>>()
    };
    let pgdata = ["--no-sync", "-U", "admin", "-A", "trust", "-E", "UTF8", "--locale=C", "-D", &at("data")];
    let install = line("initdb", pgdata.map(str::to_owned).to_vec());
    run(Command::new(&install[0]).args(&install[1..]).current_dir(&dir));
    let hba = "host all admin 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(dir.join("data/pg_hba.conf"), hba).unwrap();
    let (port, keeper) = start("QUIT", &dir, |port| {
        let settings = [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".into(),
            "unix_socket_directories=".into(),
            "fsync=off".into(),
            "ssl=on".into(),
            format!("ssl_cert_file={}", at("cert.pem")),
            format!("ssl_key_file={}", at("key.pem")),
            // A session that asked for no zone would show this one.
            "timezone=Asia/Shanghai".into(),
        ];
        let settings = settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]);
        line("postgres", ["-D".to_owned(), at("data")].into_iter().chain(settings).collect())
    });
    Server { port, ca, _keeper: keeper }
}
