//! The mock manager's page, as a browser shows it.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{path::PathBuf, time::Duration};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::{Config, Fault, Kind, MockManager, Registration, Scope},
};

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|dir| ["chromium", "chromium-browser", "google-chrome"].map(|name| dir.join(name)))
        .find(|file| file.is_file())
}

/// The page's DOM after two seconds of its own time; none, said aloud, where there is no browser.
async fn dom(url: &str) -> Option<String> {
    let Some(browser) = browser() else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI has to have chromium");
        eprintln!("SKIPPED: there is no chromium in PATH, so the page was not looked at");
        return None;
    };
    let profile = tempfile::tempdir().unwrap();
    let run = tokio::process::Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(Duration::from_secs(120), run).await.expect("the browser ends").unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!dom.is_empty(), "no DOM: {}", String::from_utf8_lossy(&output.stderr));
    Some(dom)
}

/// The text of the table row of an IP, its class first.
fn row<'a>(dom: &'a str, ip: &str) -> &'a str {
    let body = dom.split("<tbody id=\"rows\">").nth(1).unwrap().split("</tbody>").next().unwrap();
    body.split("<tr").find(|row| row.contains(&format!("<td>{ip}</td>"))).unwrap_or_else(|| {
        panic!("no row of {ip} in {body}");
    })
}

#[tokio::test]
async fn it_shows_what_is_active_inactive_and_duplicated_and_which_faults_are_on() {
    let mock = MockManager::start(Config::default()).await.unwrap();
    for (name, ip, state) in [
        ("sched-0", "10.0.0.1", State::Active),
        ("SCHED-0", "10.0.0.2", State::Active),
        ("sched-1", "10.0.0.3", State::Active),
        ("sched-<b>2", "10.0.0.4", State::Inactive),
    ] {
        let row = Registration {
            hostname: name.into(),
            ip: ip.into(),
            port: 8002,
            cluster_id: 1,
            ..Registration::default()
        };
        mock.table().register(row).unwrap();
        if state == State::Active {
            let key = SchedulerKey::new(1.try_into().unwrap(), name.parse().unwrap(), ip.parse().unwrap());
            mock.table().set_by_hand(&key, state).unwrap();
        }
    }
    mock.faults().add(Fault::new(Kind::Unavailable).count(3).scope(Scope::Grpc)).unwrap();
    let Some(dom) = dom(&format!("http://{}/", mock.admin_addr().unwrap())).await else { return };
    for (ip, class) in [
        ("10.0.0.1", "active duplicated"),
        ("10.0.0.2", "active duplicated"),
        ("10.0.0.3", "active"),
        ("10.0.0.4", "inactive"),
    ] {
        let row = row(&dom, ip);
        assert!(row.starts_with(&format!(" class=\"{class}\"")), "{row}");
    }
    assert!(row(&dom, "10.0.0.4").contains("sched-&lt;b&gt;2"), "a name is text, never markup");
    assert!(dom.contains("3 active, 1 inactive, 2 duplicated"));
    assert!(dom.contains("<li>unavailable, count 3, scope grpc</li>"));
    for kind in signoff::mock::fault::KINDS {
        assert!(dom.contains(&format!("<option>{kind}</option>")), "{kind} can be switched");
    }
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!dom.contains(outside), "the page needs nothing from elsewhere: {outside}");
    }
}

#[tokio::test]
async fn an_empty_table_says_so() {
    let mock = MockManager::start(Config::default()).await.unwrap();
    let Some(dom) = dom(&format!("http://{}/", mock.admin_addr().unwrap())).await else { return };
    assert!(dom.contains("no scheduler has registered yet"));
}
