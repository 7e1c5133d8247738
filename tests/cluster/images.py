"""The images, as archives that containerd imports, under the names that k8s/ uses."""

import io
import json
import pathlib
import hashlib
import shutil
import subprocess
import tarfile

from render import ROOT, run

SIGNOFF, MOCK, BUSYBOX = "registry.example.com/signoff:0.1.0", "registry.example.com/signoff-mock:0.1.0", "docker.io/library/busybox:1.37"


def archives(dir, roots):
    """The Dockerfile's final stage out of what image/build made; a pause and a busybox out of this machine's."""
    dir.mkdir()
    store = [f"--root={dir}/store", f"--runroot={dir}/run", "--storage-driver=vfs"]
    made = []
    for name, content in ((SIGNOFF, "amd64"), (MOCK, "mock")):
        archive = dir / f"{content}.tar"
        context = f"--build-context=build={roots / content}"
        run(["buildah", *store, "build", "--quiet", context, "--tag", name, str(ROOT)])
        run(["buildah", *store, "push", "--quiet", name, f"docker-archive:{archive}:{name}"])
        made.append(archive)
    shutil.rmtree(dir / "store")
    pause = dir / "pause"
    run(["cc", "-static", "-Os", "-o", str(pause), str(pathlib.Path(__file__).with_name("pause.c"))])
    made.append(archive_of(dir / "pause.tar", "localhost/pause:1", {"pause": pause.read_bytes()}, {}, ["/pause"]))
    busybox = pathlib.Path(shutil.which("busybox"))
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    links = {f"bin/{applet}": "/bin/busybox" for applet in applets if applet != "busybox"}
    made.append(archive_of(dir / "busybox.tar", BUSYBOX, {"bin/busybox": busybox.read_bytes()}, links, ["sh"]))
    return made


def archive_of(path, name, files, links, command):
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for each, content in files.items():
            info = tarfile.TarInfo(each)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
        for each, target in links.items():
            info = tarfile.TarInfo(each)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    layer = layer.getvalue()
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint" if len(command[0]) > 3 else "Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    config = json.dumps(config).encode()
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for each, content in (("layer.tar", layer), ("config.json", config), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(each)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
