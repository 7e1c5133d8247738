//! The committed corpora, and small changes of them, through every target.

use std::{fs, path::Path};

use super::{TARGETS, Target};

/// Drawn from it are all changes; the same ones each time.
const SEED: u64 = 0x5157_0ff5;
/// Changed inputs for each target.
const CHANGES: usize = 300;

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let read = |path: std::path::PathBuf| (path.display().to_string(), fs::read(path).unwrap());
    let mut seeds: Vec<_> = entries.map(|entry| read(entry.unwrap().path())).collect();
    seeds.sort();
    seeds
}

/// Runs it, and says on what if it panics.
fn run(target: Target, what: &str, data: &[u8]) {
    let data = std::panic::AssertUnwindSafe(data);
    if let Err(panic) = std::panic::catch_unwind(|| target(&data)) {
        eprintln!("The input was {what}:\n{:?}", String::from_utf8_lossy(&data));
        std::panic::resume_unwind(panic);
    }
}

/// A part taken out, put in, doubled, or replaced; from this seed and another.
fn changed(random: &mut fastrand::Rng, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=data.len());
        let end = (at + random.usize(..8)).min(data.len());
        match random.u8(..6) {
            0 if at < data.len() => data[at] ^= 1 << random.u8(..8),
            1 if at < data.len() => data[at] = random.u8(..),
            2 => drop(data.drain(at..end)),
            3 => {
                let part = data[at..end].to_vec();
                drop(data.splice(at..at, part));
            }
            4 => {
                let from = random.usize(..=other.len());
                let to = (from + random.usize(..16)).min(other.len());
                drop(data.splice(at..end, other[from..to].iter().copied()));
            }
            _ => data.truncate(at),
        }
    }
    data
}

/// A test of one target's corpus.
macro_rules! replay {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($name);
            let (_, target) = *TARGETS.iter().find(|(target, _)| *target == name).unwrap();
            let seeds = corpus(name);
            assert!(!seeds.is_empty());
            for (path, data) in &seeds {
                run(target, path, data);
            }
            let mut random = fastrand::Rng::with_seed(SEED);
            for number in 0..CHANGES {
                let (path, seed) = &seeds[random.usize(..seeds.len())];
                let other = &seeds[random.usize(..seeds.len())].1;
                let data = changed(&mut random, seed, other);
                run(target, &format!("change {number}, of {path}"), &data);
            }
        }

        )*
        #[test]
        fn every_target_is_replayed_and_fuzzed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), replayed);
            let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let mut built: Vec<String> = fs::read_dir(fuzz.join("fuzz_targets")).unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
            built.sort();
            let mut replayed = replayed.map(str::to_owned).to_vec();
            replayed.sort();
            assert_eq!(built, replayed);
            let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
            for name in replayed {
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            }
        }
    };
}

replay! {
    spool_file
    spool_directory
    scheduler_yaml
    hosts_file
    mountinfo
    values
    agent_json
    database_url
    settings
    rest_answer
    grpc_answer
    http_request
    hook_request
    socket_request
}
