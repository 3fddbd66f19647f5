"""Kinds of artifact that are virtual machines, disks, kernels or parts of an operating system.

Part of the table in table.py; its rules hold here.
"""

from __future__ import annotations

from ocifs.oci.kinds.kind import ArtifactKind

_TART = "application/vnd.cirruslabs.tart."
_VETU = "application/vnd.cirruslabs.vetu."
_LUME = "application/vnd.trycua.lume."
_IRONCORE = "application/vnd.ironcore.image."
_UNIKRAFT = "application/vnd.unikraft."
_KUBEVIRT = "application/vnd.kubevirt."
_ORKA = "application/vnd.macstadium.orka-engine."
_EVE = "application/vnd.lfedge."
_SYSEXT = "application/vnd.systemd.sysext."
_APPLE_KERNEL = "application/vnd.apple.containerization.kernel"
_HYPERLIGHT = "application/vnd.hyperlight.snapshot."

MACHINES = (
    ArtifactKind(
        "tart-vm",
        "Tart virtual machine",
        types=(_TART + "*",),
        layer_types=(_TART + "*",),
        file_names=(
            (_TART + "config.v1", "config.json"),
            # Both have Apple's LZ4 framing. In v1 the layers are parts of one stream, in v2 each
            # layer is a stream with 512 MiB of the disk.
            (_TART + "disk.v1", "disk.img.lz4"),
            (_TART + "disk.v2", "disk.img.{n}.lz4"),
            (_TART + "nvram.v1", "nvram.bin"),
        ),
        joined_types=(_TART + "disk.v1",),
    ),
    ArtifactKind(
        "vetu-vm",
        "Vetu virtual machine",
        types=(_VETU + "*",),
        layer_types=(_VETU + "*",),
        file_names=(
            (_VETU + "config.*", "config.json"),
            (_VETU + "kernel.*", "kernel"),
            (_VETU + "initramfs.*", "initramfs"),
            # The disks have LZ4 frames. A machine can have several disks, with their names.
            (_VETU + "disk.*", "{org.cirruslabs.vetu.disk-name}.lz4"),
            (_VETU + "disk.*", "disk.img.lz4"),
        ),
        joined_types=(_VETU + "disk.*",),
    ),
    ArtifactKind(
        "lume-vm",
        "Lume virtual machine",
        types=(_LUME + "*",),
        layer_types=(_LUME + "*",),
        file_names=(
            (_LUME + "config.*", "config.json"),
            (_LUME + "disk.chunk.lz4", "disk.img.lz4"),
            (_LUME + "disk.*", "disk.img"),
            (_LUME + "nvram.*", "nvram.bin"),
        ),
        # Each part of a disk is a gzip stream, and so is the whole.
        joined_types=(_LUME + "disk.*",),
        part_number="org.trycua.lume.part.number",
    ),
    ArtifactKind(
        "kubevirt-vm",
        "KubeVirt virtual machine, or a template of one",
        types=(_KUBEVIRT + "virtualmachine*",),
        index_types=(_KUBEVIRT + "virtualmachine*",),
        layer_types=(_KUBEVIRT + "disk.*",),
        file_names=(
            (_KUBEVIRT + "disk.raw+zstd", "{io.kubevirt.disk.name}.raw.zst"),
            (_KUBEVIRT + "disk.raw+zstd", "disk{shard}.raw.zst"),
        ),
        config_file="virtualmachine.json",
    ),
    ArtifactKind(
        "orka-vm",
        "Orka virtual machine",
        types=(_ORKA + "*",),
        layer_types=(_ORKA + "*",),
        # The parts of a disk overlap: they are not joined.
        file_names=((_ORKA + "disk.layer.*", "disk.img.{n}.lz4"),),
    ),
    ArtifactKind(
        "edge-container",
        "Virtual machine for EVE (edge container)",
        types=(_EVE + "eci.*",),
        layer_types=(_EVE + "*",),
        # For older registries, the layers have the types of an image.
        layer_annotations=("org.lfedge.eci.mediaType",),
        file_names=(
            (_EVE + "eci.kernel.*", "kernel"),
            (_EVE + "eci.initrd.*", "initrd"),
            *(
                (f"{_EVE}disk.layer.v1+{form}", f"disk{{shard}}.{form}")
                for form in ("raw", "vhd", "vmdk", "iso", "qcow", "qcow2", "ova", "vhdx")
            ),
        ),
    ),
    ArtifactKind(
        "linux-kernel",
        "Linux kernel for Apple's containers",
        layer_types=(_APPLE_KERNEL,),
        file_names=((_APPLE_KERNEL, "vmlinux"),),
    ),
    ArtifactKind(
        "sysext",
        "System extension for systemd",
        types=(_SYSEXT + "*",),
        index_types=(_SYSEXT + "*",),
        layer_types=(_SYSEXT + "*",),
        file_names=((_SYSEXT + "image.*", "sysext.raw"),),
    ),
    ArtifactKind(
        "os-image",
        "Operating system: disk, kernel and initramfs",
        # IronCore was called OnMetal. Garden Linux pushes the files of a build with titles.
        types=(_IRONCORE + "*", "application/vnd.onmetal.image.*", "application/vnd.gardenlinux.*"),
        layer_types=(
            _IRONCORE + "*",
            "application/vnd.onmetal.image.*",
            "application/vnd.gardenlinux.*",
        ),
        file_names=(
            ("application/vnd.onmetal.image.rootfs.*", "rootfs"),
            ("application/vnd.onmetal.image.vmlinuz.*", "kernel"),
            ("application/vnd.onmetal.image.initramfs.*", "initramfs"),
            ("application/vnd.gardenlinux.metadata.info", "info.yaml"),
            (_IRONCORE + "disk.img", "disk.img"),
            (_IRONCORE + "kernel", "kernel"),
            (_IRONCORE + "initramfs", "initramfs"),
            (_IRONCORE + "squashfs", "root.squashfs"),
            (_IRONCORE + "cmdline", "cmdline"),
            (_IRONCORE + "uki", "uki.efi"),
            (_IRONCORE + "iso", "image.iso"),
        ),
    ),
    ArtifactKind(
        "unikernel-image",
        "Unikraft unikernel",
        types=(_UNIKRAFT + "*",),
        layer_types=(_UNIKRAFT + "*",),
        is_image=True,
        file_names=(
            (_UNIKRAFT + "kernel.dbg.*", "kernel.dbg"),
            (_UNIKRAFT + "kernel.*", "kernel"),
            (_UNIKRAFT + "image.*", "kernel"),
            (_UNIKRAFT + "initrd.*", "initrd"),
            (_UNIKRAFT + "rom.*", "rom"),
        ),
    ),
    ArtifactKind(
        "incus-image",
        "Incus image, or its metadata",
        types=("application/vnd.incus.*",),
        layer_types=("application/vnd.incus.*",),
        file_names=(
            ("application/x-xz", "incus.tar.xz"),
            ("application/vnd.incus.image.layer.*", "incus.tar.gz"),
        ),
    ),
    ArtifactKind(
        "vm-snapshot",
        "Hyperlight snapshot of a sandbox",
        types=(_HYPERLIGHT + "*",),
        layer_types=(_HYPERLIGHT + "*",),
        file_names=((_HYPERLIGHT + "memory.*", "memory.bin"),),
    ),
)
