//! The generated code in `src/proto` is what `proto/*.proto` says. `SIGNOFF_BLESS=1 cargo test --test proto` rewrites it.

use std::{fs, path::Path};

#[test]
fn the_committed_code_is_what_the_proto_files_generate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let set = protox::compile(["manager.proto", "health.proto"], [root.join("proto")]).unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .server_mod_attribute(".", "#[cfg(feature = \"mock\")]")
        .out_dir(out.path())
        .compile_fds(set)
        .unwrap();
    for (made, kept) in [("manager.v2.rs", "manager_v2.rs"), ("grpc.health.v1.rs", "health_v1.rs")] {
        let made = fs::read_to_string(out.path().join(made)).unwrap();
        let kept = root.join("src/proto").join(kept);
        if std::env::var_os("SIGNOFF_BLESS").is_some() {
            fs::write(&kept, &made).unwrap();
        }
        assert!(
            fs::read_to_string(&kept).unwrap_or_default() == made,
            "{} is stale: run SIGNOFF_BLESS=1 cargo test --test proto",
            kept.display()
        );
    }
}
