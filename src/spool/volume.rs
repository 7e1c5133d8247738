//! How long the volume under a spool lives, as far as `/proc/self/mountinfo` tells.
//!
//! In a container a volume is a mount of its own, and the root field of its line is where it lies on the node: the kubelet puts an
//! emptyDir under `pods/<uid>/volumes/kubernetes.io~empty-dir/`. A block device that is a claim's is mounted whole (root `/`), a
//! hostPath is a part of a node's file system. Where two answers are possible, the shorter life is told.

use std::{
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// Where a process's mounts are listed.
pub const MOUNTINFO: &str = "/proc/self/mountinfo";

/// How long what is in the spool is kept, at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The container's own layer: lost when the container is restarted.
    Container,
    /// An emptyDir, or memory: lost with the pod.
    Pod,
    /// The node's disk (hostPath): lost with the node.
    Node,
    /// A volume of its own (a claim's, a network file system).
    Claim,
    /// Can't be told.
    Unknown,
}

impl Durability {
    /// `container`, `pod`, `node`, `claim` or `unknown`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Claim => "claim",
            Self::Unknown => "unknown",
        }
    }

    /// What `queued` means there, for answers.
    pub fn queued(self) -> &'static str {
        match self {
            Self::Container => "queued, lost with this container",
            Self::Pod => "queued, lost with this pod",
            Self::Node => "queued on the node",
            Self::Claim => "queued on a volume of its own",
            Self::Unknown => "queued, for as long as its volume lives",
        }
    }
}

/// The mount a directory is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// How long it lives.
    pub durability: Durability,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its file system's type, as the kernel names it.
    pub fs_type: String,
}

/// How long the volume of `dir` lives; `Unknown` where `mountinfo` (normally [`MOUNTINFO`]) can't be read.
pub fn durability(dir: &Path, mountinfo: &Path) -> Durability {
    find(dir, mountinfo).map_or(Durability::Unknown, |volume| volume.durability)
}

/// The volume of `dir`, which need not exist yet; `None` where `mountinfo` can't be read or has no mount for it.
pub fn find(dir: &Path, mountinfo: &Path) -> Option<Volume> {
    find_in(dir, &fs::read(mountinfo).ok()?)
}

/// The volume of `dir`, by a mountinfo's text.
pub(crate) fn find_in(dir: &Path, text: &[u8]) -> Option<Volume> {
    let mounts: Vec<Mount> = text.split(|b| *b == b'\n').filter_map(Mount::parse).collect();
    let dir = resolved(dir);
    // Of two mounts on one point the later hides the earlier; `max_by_key` keeps the last of equals.
    let mount =
        mounts.iter().filter(|m| dir.starts_with(&m.point)).max_by_key(|m| m.point.components().count())?;
    Some(Volume {
        durability: mount.durability(&mounts),
        mount_point: mount.point.clone(),
        fs_type: mount.fs_type.clone(),
    })
}

/// The directory without links, or what there is of it.
fn resolved(dir: &Path) -> PathBuf {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    for parent in dir.ancestors() {
        if let Ok(real) = fs::canonicalize(parent) {
            let rest = dir.strip_prefix(parent).unwrap_or(Path::new(""));
            return real.join(rest);
        }
    }
    dir
}

struct Mount {
    device: String,
    root: String,
    point: PathBuf,
    fs_type: String,
    source: String,
}

impl Mount {
    /// `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw`: any number of fields before the hyphen.
    fn parse(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        let hyphen = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
        let text = |at: usize| Some(String::from_utf8_lossy(&unescape(fields.get(at)?)).into_owned());
        Some(Self {
            device: text(2)?,
            root: text(3)?,
            point: PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.get(4)?))),
            fs_type: text(hyphen + 1)?,
            source: text(hyphen + 2)?,
        })
    }

    fn durability(&self, mounts: &[Mount]) -> Durability {
        if let Some(plugin) = kubelet_plugin(&self.root) {
            return match plugin {
                "empty-dir" | "secret" | "configmap" | "projected" | "downward-api" => Durability::Pod,
                "local-volume" => Durability::Node,
                _ => Durability::Claim,
            };
        }
        match self.fs_type.as_str() {
            // The kubelet, containers' runtimes and every container's name resolution mount one of these.
            _ if !in_container(mounts) => self.on_a_host(),
            "tmpfs" | "ramfs" | "hugetlbfs" => Durability::Pod,
            // Images may declare a volume; the runtime makes one for each container.
            _ if self.root.contains("/io.containerd.grpc.v1.cri/containers/")
                || self.root.contains("/overlay-containers/") =>
            {
                Durability::Container
            }
            _ if self.point == Path::new("/") => Durability::Container,
            "overlay" | "fuse.fuse-overlayfs" if self.root == "/" => Durability::Container,
            fs_type if is_network(fs_type) => Durability::Claim,
            "zfs" | "overlay" => Durability::Node,
            _ if !self.source.starts_with("/dev/") => Durability::Unknown,
            // A part of the disk that the kubelet's own files of this pod are on is the node's, whatever its path; so is, at
            // the least, a part of any other disk. A whole file system is somebody's volume.
            _ if self.root == "/" && !mounts.iter().any(|m| is_kubelets(m) && m.device == self.device) => {
                Durability::Claim
            }
            _ => Durability::Node,
        }
    }

    fn on_a_host(&self) -> Durability {
        match self.fs_type.as_str() {
            fs_type if is_network(fs_type) => Durability::Claim,
            "zfs" => Durability::Node,
            _ if self.source.starts_with("/dev/") => Durability::Node,
            _ => Durability::Unknown,
        }
    }
}

/// `X` in a root `…/pods/<uid>/volumes/kubernetes.io~X/…`.
fn kubelet_plugin(root: &str) -> Option<&str> {
    let (_, rest) = root.split_once("/volumes/kubernetes.io~")?;
    rest.split('/').next()
}

fn in_container(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| {
        is_kubelets(mount) || (mount.point == Path::new("/") && mount.fs_type.contains("overlay"))
    })
}

/// A file that a pod or a container is given by whoever runs it.
fn is_kubelets(mount: &Mount) -> bool {
    ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/dev/termination-log"]
        .into_iter()
        .any(|point| mount.point == Path::new(point))
}

fn is_network(fs_type: &str) -> bool {
    matches!(
        fs_type,
        "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "lustre" | "beegfs" | "gpfs" | "glusterfs" | "afs"
    ) || matches!(
        fs_type,
        "fuse.glusterfs" | "fuse.ceph-fuse" | "fuse.juicefs" | "fuse.JuiceFS" | "fuse.s3fs"
    )
}

/// Decodes `\040` and its like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if first == b'\\' => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(first));
        rest = if octal.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    out
}

#[cfg(test)]
mod tests;
