//! What looks for secrets in everything that the other tests' processes print, answer and leave finds one.

use std::process::Command;

use crate::{
    harness::{Process, World, run},
    hook::{own_address, send},
    secret::{MARK, none_in},
};

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env("SECRET", format!("{MARK}x"));
    command
}

/// Whether this fails for a secret that was found.
async fn is_found(test: impl Future<Output = ()> + Send + 'static) -> bool {
    let Err(failed) = tokio::spawn(test).await else { return false };
    let said = failed.into_panic().downcast::<String>().unwrap();
    assert!(!said.contains(MARK), "it repeats the secret: {said}");
    said.starts_with("a secret is in ")
}

#[tokio::test]
async fn a_secret_that_a_process_prints_answers_or_leaves_on_disk_fails_its_test() {
    for script in ["echo $SECRET", "echo so: $SECRET. >&2", "echo $SECRET; echo on; exec sleep 100"] {
        let killed = script.ends_with("100");
        let started = is_found(async move {
            let process = Process::start(shell(script));
            if killed { process.says("on").await } else { drop(process.ended().await) }
        });
        assert!(started.await, "{script}");
        assert!(killed || is_found(async move { drop(run(shell(script)).await) }).await, "{script}");
    }
    for dir in ["spool", "run"] {
        let left = is_found(async move {
            let world = World::new().await;
            std::fs::create_dir(world.path(dir)).unwrap();
            std::fs::write(world.path(dir).join("file"), format!("a\nb {MARK}x")).unwrap();
        });
        assert!(left.await, "{dir}");
    }
    let answered = is_found(async {
        let address = own_address();
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let (answer, ()) = tokio::join!(send(address, None, ""), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\n\r\n{MARK}x");
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await.unwrap();
        });
        drop(answer);
    });
    assert!(answered.await);
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let (first, rest) = key.split_once('\n').unwrap();
    for (text, secret) in [
        (first, true),
        (rest, true),
        ("{\"token\":\"viewer.1790000000000.1.0\"}", true),
        ("/etc/secret/key.pem: no private key in PEM", false),
    ] {
        let text = text.to_owned();
        assert_eq!(is_found(async move { none_in(&text, "a text") }).await, secret);
    }
}
