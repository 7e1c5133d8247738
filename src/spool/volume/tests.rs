use super::*;

/// A pod's mounts as containerd sets them up on a node whose kubelet is on /dev/nvme0n1p1 (259:1), with `volume` at
/// /var/lib/signoff.
fn pod(volume: &str) -> String {
    let overlay = "600 500 0:120 / / rw,relatime master:300 - overlay overlay rw,lowerdir=/var/lib/containerd/io.containerd.\
                   snapshotter.v1.overlayfs/snapshots/9/fs,upperdir=/var/lib/containerd/x/fs,workdir=/var/lib/containerd/x/work";
    let kubelet = "/var/lib/kubelet/pods/6d1f0f0c-6d5c-4a7e-8f2b-2b1f5d1c9a01";
    format!(
        "{overlay}\n\
         601 600 0:121 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
         602 600 0:122 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755\n\
         603 602 259:1 {kubelet}/containers/signoff/3a4b /dev/termination-log rw,relatime - ext4 /dev/nvme0n1p1 rw\n\
         604 600 259:1 {kubelet}/etc-hosts /etc/hosts rw,relatime - ext4 /dev/nvme0n1p1 rw\n\
         605 600 0:119 / /run/secrets/kubernetes.io/serviceaccount ro,relatime - tmpfs tmpfs rw,size=65536k\n\
         {volume}\n"
    )
}

fn find_in(mountinfo: &str, dir: &str) -> Option<Volume> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mountinfo");
    std::fs::write(&file, mountinfo).unwrap();
    find(Path::new(dir), &file)
}

fn in_pod(volume: &str) -> Durability {
    find_in(&pod(volume), "/var/lib/signoff").unwrap().durability
}

const POD: &str = "/var/lib/kubelet/pods/6d1f0f0c-6d5c-4a7e-8f2b-2b1f5d1c9a01/volumes";

#[test]
fn an_empty_dir_lives_as_long_as_its_pod() {
    for root in [
        format!("{POD}/kubernetes.io~empty-dir/spool"),
        // /var is a file system of its own; subPath; btrfs; microk8s.
        "/lib/kubelet/pods/6d1f/volumes/kubernetes.io~empty-dir/spool".to_owned(),
        format!("{POD}/kubernetes.io~empty-dir/spool/agent"),
        format!("/@{POD}/kubernetes.io~empty-dir/spool"),
        "/var/snap/microk8s/common/var/lib/kubelet/pods/6d1f/volumes/kubernetes.io~empty-dir/spool"
            .to_owned(),
    ] {
        let line = format!("610 600 259:1 {root} /var/lib/signoff rw,relatime - ext4 /dev/nvme0n1p1 rw");
        assert_eq!(in_pod(&line), Durability::Pod, "{root}");
    }
    // On a node whose own root is an overlay, as kind's may be.
    let line =
        format!("610 600 0:50 {POD}/kubernetes.io~empty-dir/s /var/lib/signoff rw - overlay overlay rw");
    assert_eq!(in_pod(&line), Durability::Pod);
}

#[test]
fn memory_lives_as_long_as_its_pod() {
    let line = "610 600 0:118 / /var/lib/signoff rw,relatime - tmpfs tmpfs rw,size=65536k";
    assert_eq!(in_pod(line), Durability::Pod);
}

#[test]
fn a_host_path_stays_on_the_node() {
    for line in [
        "610 600 259:1 /var/lib/signoff /var/lib/signoff rw,relatime - ext4 /dev/nvme0n1p1 rw",
        "610 600 259:1 / /var/lib/signoff rw,relatime - ext4 /dev/nvme0n1p1 rw",
        "610 600 259:9 /signoff /var/lib/signoff rw,relatime - xfs /dev/nvme1n1 rw",
        "610 600 0:44 /var/lib/signoff /var/lib/signoff rw,relatime shared:1 master:2 - zfs rpool/var rw",
        "610 600 259:1 /opt/local-path-provisioner/pvc-1_ns_spool /var/lib/signoff rw - ext4 /dev/nvme0n1p1 rw",
        "610 600 0:50 /data/signoff /var/lib/signoff rw,relatime - overlay overlay rw",
    ] {
        assert_eq!(in_pod(line), Durability::Node, "{line}");
    }
}

#[test]
fn a_claims_volume_lives_on_its_own() {
    for line in [
        "610 600 259:5 / /var/lib/signoff rw,relatime - ext4 /dev/nvme2n1 rw".to_owned(),
        format!("610 600 0:70 {POD}/kubernetes.io~csi/pvc-8d/mount /var/lib/signoff rw - fuse.x x rw"),
        format!(
            "610 600 259:1 {POD}/kubernetes.io~aws-ebs/pvc-8d /var/lib/signoff rw - ext4 /dev/nvme0n1p1 rw"
        ),
        "610 600 0:71 / /var/lib/signoff rw - nfs4 10.0.0.9:/exports/spool rw,vers=4.2".to_owned(),
        "610 600 0:72 / /var/lib/signoff rw - ceph 10.0.0.9:/volumes/x rw".to_owned(),
    ] {
        assert_eq!(in_pod(&line), Durability::Claim, "{line}");
    }
}

#[test]
fn the_containers_own_layer_is_lost_with_it() {
    let volume = find_in(&pod(""), "/var/lib/signoff").unwrap();
    let expected =
        Volume { durability: Durability::Container, mount_point: "/".into(), fs_type: "overlay".into() };
    assert_eq!(volume, expected);
    // A volume that the image declares; another snapshotter.
    let line = "610 600 259:1 /var/lib/containerd/io.containerd.grpc.v1.cri/containers/3a/volumes/9f /var/lib/signoff rw - \
                ext4 /dev/nvme0n1p1 rw";
    assert_eq!(in_pod(line), Durability::Container);
    let mapper = pod("").replace("- overlay overlay rw", "- ext4 /dev/mapper/snap-12 rw");
    assert_eq!(find_in(&mapper, "/var/lib/signoff").unwrap().durability, Durability::Container);
}

#[test]
fn on_a_host_a_disk_is_the_nodes_and_memory_is_not_trusted() {
    let host = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
                25 27 0:23 / /run rw - tmpfs tmpfs rw\n\
                26 27 0:24 / /srv rw - nfs4 10.0.0.9:/srv rw\n";
    for (dir, durability) in [
        ("/var/lib/signoff", Durability::Node),
        ("/run/signoff", Durability::Unknown),
        ("/srv/signoff", Durability::Claim),
    ] {
        // /run may be a link elsewhere where this test runs; what does not exist is taken as written.
        let dir = format!("{dir}-that-is-not-there");
        assert_eq!(find_in(host, &dir).unwrap().durability, durability, "{dir}");
    }
}

#[test]
fn the_longest_mount_point_counts_whole_names_and_the_last_of_equals() {
    let text = pod("610 600 259:1 /a /nowhere rw - ext4 /dev/nvme0n1p1 rw\n\
                    611 600 0:9 / /nowhere/spool rw - tmpfs tmpfs rw\n\
                    612 600 0:71 / /nowhere/spool rw - nfs4 s:/x rw\n\
                    613 600 259:1 /b /nowhere/spool-2 rw - ext4 /dev/nvme0n1p1 rw");
    for (dir, point, durability) in [
        ("/nowhere", "/nowhere", Durability::Node),
        ("/nowhere/sp", "/nowhere", Durability::Node),
        ("/nowhere/spool/deep", "/nowhere/spool", Durability::Claim),
        ("/nowhere/spool-2", "/nowhere/spool-2", Durability::Node),
        ("/nowherespool", "/", Durability::Container),
    ] {
        let volume = find_in(&text, dir).unwrap();
        assert_eq!(
            (volume.mount_point.as_path(), volume.durability),
            (Path::new(point), durability),
            "{dir}"
        );
    }
}

#[test]
fn octal_escapes_are_decoded() {
    assert_eq!(unescape(br"/a\040b\011c\134d\012"), b"/a b\tc\\d\n");
    assert_eq!(unescape(br"\x\04\400\0401"), b"\\x\\04\\400 1");
    let text = pod(r"610 600 0:9 /x /no\040where/a\134b rw - tmpfs tmp\040fs rw");
    assert_eq!(find_in(&text, r"/no where/a\b/spool").unwrap().durability, Durability::Pod);
}

#[test]
fn a_link_is_followed_to_the_volume_it_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    fs::create_dir(real.join("volume")).unwrap();
    std::os::unix::fs::symlink(real.join("volume"), real.join("link")).unwrap();
    let text = pod(&format!("610 600 0:71 / {}/volume rw - nfs4 s:/x rw", real.display()));
    let through = real.join("link/not/yet/there");
    assert_eq!(find_in(&text, &through.to_string_lossy()).unwrap().durability, Durability::Claim);
}

#[test]
fn what_cannot_be_read_is_unknown() {
    assert_eq!(durability(Path::new("/"), Path::new("/no/such/file")), Durability::Unknown);
    for text in ["", "\n\n", "garbage", "1 2 3:4 / /\n", "1 2 3:4 / / rw - \n", "\u{0}\u{0} - - - -"] {
        assert_eq!(find_in(text, "/x"), None, "{text:?}");
    }
    let odd = pod("610 600 0:9 / /nowhere rw - 9p share rw");
    assert_eq!(find_in(&odd, "/nowhere/spool").unwrap().durability, Durability::Unknown);
}

#[test]
fn the_mounts_of_this_process_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    assert!(find(dir.path(), Path::new(MOUNTINFO)).is_some());
}
