"""The part of a kubelet that makes runc's configurations from a pod's manifest and an image.

Rules that hold here:
- A volume of the host is a directory below `node`.
- A secret is a directory with one file for each key.
- Limits, the periods of probes and separate networks are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # manifests come from YAML

PROPAGATION = {
    None: "rprivate",
    "None": "rprivate",
    "HostToContainer": "rslave",
    "Bidirectional": "rshared",
}
PLAIN = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]
PRIVILEGED = [*PLAIN, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_MKNOD", "CAP_DAC_READ_SEARCH"]
SYSTEM = (
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]},
)


@dataclass(frozen=True)
class Node:
    """A machine: its root directory, the unpacked image, and the image's configuration."""

    root: Path
    image: Path
    settings: Mapping[str, Any]
    secrets: Mapping[str, Mapping[str, str]]

    def source(self, volume: Mapping[str, Any]) -> Path:
        """The directory of a pod's volume, created if the manifest requests it."""
        if "secret" in volume:
            place = self.root / "secrets" / volume["name"]
            place.mkdir(parents=True, exist_ok=True)
            for item in volume["secret"]["items"]:
                (place / item["path"]).write_text(
                    self.secrets[volume["secret"]["secretName"]][item["key"]]
                )
            return place
        path = volume["hostPath"]["path"]
        if path.startswith("/dev/"):
            return Path(path)
        place = self.root / path.lstrip("/")
        if volume["hostPath"].get("type") == "DirectoryOrCreate":
            place.mkdir(parents=True, exist_ok=True)
        return place

    def bundle(self, place: Path, pod: Mapping[str, Any], container: Mapping[str, Any]) -> None:
        """Write the configuration of one container of a pod's `spec` into a directory."""
        volumes = {volume["name"]: self.source(volume) for volume in pod["volumes"]}
        security = container.get("securityContext", {})
        held = PRIVILEGED if security.get("privileged") else PLAIN
        process = {
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "env": self.settings.get("Env", []),
            "args": [
                *container.get("command", self.settings["Entrypoint"]),
                *container.get("args", [] if "command" in container else self.settings["Cmd"]),
            ],
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), held),
        }
        mounts = [_mount(each, volumes[each["name"]]) for each in container["volumeMounts"]]
        back = any("rshared" in each["options"] for each in mounts)
        whole = {
            "ociVersion": "1.0.2",
            "process": process,
            "root": {
                "path": str(self.image),
                "readonly": bool(security.get("readOnlyRootFilesystem")),
            },
            "mounts": [*SYSTEM, *mounts],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
                "resources": {"devices": [{"allow": True, "access": "rwm"}]},
                "rootfsPropagation": "rshared" if back else "rslave",
            },
        }
        place.mkdir()
        (place / "config.json").write_text(json.dumps(whole, indent=2))


def _mount(wanted: Mapping[str, Any], source: Path) -> dict[str, Any]:
    options = [
        "rbind",
        PROPAGATION[wanted.get("mountPropagation")],
        "ro" if wanted.get("readOnly") else "rw",
    ]
    return {
        "destination": wanted["mountPath"],
        "type": "bind",
        "source": str(source),
        "options": options,
    }
