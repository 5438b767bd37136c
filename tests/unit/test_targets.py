"""The target that a device is, and how far a device is from the one that was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgewright.asking.targets import check_device, find_target, is_model, offered, target_of, unlike
from edgewright.cli.console import open_registry
from edgewright.errors import TargetError
from edgewright.registry import Registry
from edgewright.types import Device, Target

GB = 2**30


def device(cpu: str, **facts: Any) -> Device:
    """A board with four CPUs and 4 GB, of which the system leaves a little less."""
    plain = Device("", "aarch64", cpu, 4, int(3.7 * GB), "Linux", "", "3.11", ("asimd",), {}, (), "", False)
    return replace(plain, **facts)


PI_4 = device("Raspberry Pi 4 Model B Rev 1.4", soc="brcm,bcm2711")
PI_5 = device(
    "Raspberry Pi 5 Model B Rev 1.0", features=("asimd", "asimddp", "asimdhp"), memory_bytes=8 * GB, soc="brcm,bcm2712"
)
NAMES = {
    "Raspberry Pi 4 Model B Rev 1.4": "raspberry-pi-4",
    "Raspberry Pi 5 Model B Rev 1.0": "raspberry-pi-5",
    "NVIDIA Jetson Orin Nano Developer Kit": "jetson-orin-nano",
    "NVIDIA Jetson AGX Orin Developer Kit": "jetson-agx-orin",
    "Jetson-AGX": "jetson-agx-xavier",
    "quill": "jetson-tx2",
    "Pixel 6": "pixel-6",
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return open_registry()


def target(name: str, registry: Registry) -> Target:
    return find_target(name, registry)[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_device_is_the_target_that_it_says_it_is(name: str, registry: Registry) -> None:
    assert target_of(device(name), registry).name == NAMES[name]


def test_a_phone_is_known_by_its_chip(registry: Registry) -> None:
    assert target_of(device("SM-S911B", soc="SM8550"), registry).name == "snapdragon-8-gen-2"


def test_a_device_without_a_profile_is_a_target_of_what_was_found(registry: Registry) -> None:
    found = target_of(device("Rockchip RK3588 EVB7", providers=("CPUExecutionProvider",)), registry)
    assert (found.name, found.isa, found.cores.value) == ("rockchip-rk3588-evb7", "aarch64", 4)
    assert {"ina3221", "battery", "pmic"} <= set(found.meters)
    assert "rapl" not in found.meters
    assert unlike(found, device("Rockchip RK3588 EVB7"), registry) == ""


def test_nothing_is_said_of_the_device_that_was_asked_for(registry: Registry) -> None:
    assert unlike(target("raspberry-pi-4", registry), PI_4, registry) == ""
    larger = replace(PI_4, memory_bytes=8 * GB, cores=8)
    assert unlike(target("raspberry-pi-4", registry), larger, registry) == ""


def test_another_model_is_told_with_all_that_is_different(registry: Registry) -> None:
    assert unlike(target("raspberry-pi-4", registry), PI_5, registry) == (
        "this is not quite the raspberry-pi-4 that was asked for: it calls itself Raspberry Pi 5 Model B Rev 1.0, "
        "the target raspberry-pi-5; it has asimddp, asimdhp besides; 8.59 GB of memory instead of 4.29 GB"
    )
    back = unlike(target("raspberry-pi-5", registry), PI_4, registry)
    assert back.endswith("the target raspberry-pi-4; it has no asimddp, asimdhp")


def test_what_the_right_model_lacks_is_told(registry: Registry) -> None:
    small = replace(PI_4, cores=2, memory_bytes=GB, features=())
    assert unlike(target("raspberry-pi-4", registry), small, registry).partition(": ")[2] == (
        "it has no asimd; 2 CPUs instead of 4; 1.07 GB of memory instead of 4.29 GB"
    )


def test_an_accelerator_that_its_runtime_does_not_offer_is_told(registry: Registry) -> None:
    orin = target("jetson-orin-nano", registry)
    found = device("NVIDIA Jetson Orin Nano Developer Kit", features=orin.features, cores=6, memory_bytes=7 * GB)
    assert unlike(orin, found, registry) == ""
    plain = replace(found, providers=("CPUExecutionProvider",))
    assert unlike(orin, plain, registry).endswith(
        "its onnxruntime has no TensorrtExecutionProvider, and offers CPUExecutionProvider"
    )


def test_providers_that_the_device_does_not_have_are_not_tried(registry: Registry) -> None:
    orin, board = target("jetson-orin-nano", registry), device("NVIDIA Jetson Orin Nano Developer Kit")
    assert offered(orin, replace(board, providers=("CPUExecutionProvider", "Azure"))).providers == (
        "CPUExecutionProvider",
    )
    assert offered(orin, board) == orin


def test_another_instruction_set_is_an_error(registry: Registry) -> None:
    with pytest.raises(TargetError, match="ssh://pc is x86_64, but the target raspberry-pi-4 is aarch64"):
        check_device(target("raspberry-pi-4", registry), replace(PI_4, isa="x86_64"), "ssh://pc")


def test_names_are_compared_without_case(registry: Registry) -> None:
    assert is_model(device("RASPBERRY PI 4 model b"), target("raspberry-pi-4", registry))
    assert not is_model(device("Raspberry Pi 400 Rev 1.0"), target("raspberry-pi-4", registry))
