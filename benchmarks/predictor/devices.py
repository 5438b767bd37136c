"""The devices of the public measurements whose peaks are known, and which profile each stands for."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.types import Figure, Target
from edgewright_devices.profiles import built_in

WIDTH = {"float32": 4, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Cpu:
    """Cores x GHz x operations per cycle in float32, float16, int8; GB/s. Source: the makers' product pages."""

    cores: int
    ghz: float
    rates: tuple[int, int, int]
    bandwidth: float

    def target(self, name: str) -> Target:
        """The peaks as the predictor takes them."""
        source = f"{self.cores} cores x {self.ghz} GHz x {self.rates} operations per cycle"
        peaks = zip(WIDTH, (self.cores * self.ghz * rate for rate in self.rates))
        compute = {dtype: Figure(peak, "GFLOP/s", source) for dtype, peak in peaks}
        cores, bandwidth = Figure(self.cores, "cores", source), Figure(self.bandwidth, "GB/s", "theoretical")
        return Target(name, name, "", Figure(1, "B", "not used"), compute, bandwidth, cores)


A72, A55, A76 = (8, 8, 16), (8, 16, 32), (16, 32, 64)  # also A57 and A73 as A72, A78 as A76
CPUS = {
    "odroid-n2": Cpu(4, 1.8, A72, 10.6),  # S922X: 4 Cortex-A73; DDR4-2640 on 32 bits
    "vim4": Cpu(4, 2.2, A72, 32.3),  # A311D2: 4 Cortex-A73; LPDDR4X-4032 on 64 bits
    "rk3588": Cpu(4, 2.4, A76, 34.1),  # 4 Cortex-A76; LPDDR4X-4266 on 64 bits
    "rk3399": Cpu(2, 1.8, A72, 12.8),  # 2 Cortex-A72; LPDDR4-1600 on 64 bits
    "rk3566": Cpu(4, 1.8, A55, 12.8),  # 4 Cortex-A55; LPDDR4-3200 on 32 bits
    "jetson-nano-cpu": Cpu(4, 1.43, A72, 25.6),  # 4 Cortex-A57; LPDDR4-3200 on 64 bits
    "jetson-orin-nano-cpu": Cpu(6, 1.5, A76, 68.0),  # 6 Cortex-A78AE
    "jetson-agx-orin-cpu": Cpu(12, 2.2, A76, 204.8),  # 12 Cortex-A78AE
    "snapdragon-835": Cpu(4, 2.45, A72, 29.8),  # 4 Kryo 280 (Cortex-A73); LPDDR4X-3732 on 64 bits
    "snapdragon-855-plus": Cpu(4, 2.56, A76, 34.1),  # Kryo 485 (Cortex-A76), 2.96 + 3 x 2.42 GHz
    "kirin-970": Cpu(4, 2.4, A72, 29.8),  # 4 Cortex-A73; LPDDR4X-3732 on 64 bits
    "ryzen-5700g": Cpu(8, 3.8, (32, 32, 42), 51.2),  # two 256-bit FMA, no VNNI; two channels of DDR4-3200
}
JETSON_NANO = Target(
    "jetson-nano",
    "",
    "aarch64",
    Figure(4 * 2**30, "B", "not used"),
    {"float32": Figure(235.9, "GFLOP/s", "128 x 0.9216 GHz x 2"), "float16": Figure(471.9, "GFLOP/s", "twice")},
    Figure(25.6, "GB/s", "NVIDIA Jetson Nano data sheet"),
    Figure(4, "cores", "4 Cortex-A57"),
    unit="gpu",
)

NCNN = {
    # the start of the device's name, threads, backend: device, what its float models run in
    ("Raspberry Pi 5 Broadcom BCM2712, Cortex", "4", "cpu"): ("raspberry-pi-5", "float16"),
    ("NVIDIA Jetson AGX Orin", "12", "cpu"): ("jetson-agx-orin-cpu", "float16"),
    ("NVIDIA Jetson Orin Nano", "6", "cpu"): ("jetson-orin-nano-cpu", "float16"),
    ("NVIDIA Jetson Nano", "4", "cpu"): ("jetson-nano-cpu", "float32"),
    ("Rockchip RK3588 ", "4", "cpu"): ("rk3588", "float16"),
    ("OrangePi5 Plus", "4", "cpu"): ("rk3588", "float16"),
    ("Rockchip RK3399", "2", "cpu"): ("rk3399", "float32"),
    ("OrangePicm4", "4", "cpu"): ("rk3566", "float16"),
    ("Qualcomm SM8150-AC", "4", "cpu"): ("snapdragon-855-plus", "float16"),
    ("Qualcomm SM8550", "4", "cpu"): ("snapdragon-8-gen-2", "float16"),
    ("Qualcomm MSM8998", "4", "cpu"): ("snapdragon-835", "float32"),
    ("Kirin 970", "4", "cpu"): ("kirin-970", "float32"),
    ("AMD Ryzen 5700g", "16", "cpu"): ("ryzen-5700g", "float32"),
    ("NVIDIA Jetson Nano", "4", "gpu_vulkan"): ("jetson-nano", "float16"),
    ("NVIDIA Jetson AGX Xavier", "1", "gpu_vulkan"): ("jetson-agx-xavier", "float16"),
    ("NVIDIA Jetson Orin Nano", "1", "gpu_vulkan"): ("jetson-orin-nano", "float16"),
    ("NVIDIA Jetson AGX Orin", "1", "gpu_vulkan"): ("jetson-agx-orin", "float16"),
}
MLPERF = {
    ("v3.0", "odroid"): "odroid-n2",
    ("v3.0", "vim4"): "vim4",
    ("v3.0", "firefly"): "rk3588",
    ("v3.0", "orin"): "jetson-agx-orin-cpu",
    ("v3.0", "rpi4"): "raspberry-pi-4",
    ("v2.1", "rpi4"): "raspberry-pi-4",
}
NASBENCH = {
    "eagle_jetson": ("jetson-nano", "float32"),
    "eagle_jetson_16": ("jetson-nano", "float16"),
    "rice_edgegpu": ("jetson-tx2", "float16"),
}


def targets() -> dict[str, Target]:
    """Every device of the fit, by name."""
    known = {target.name: target for target in (*built_in(), JETSON_NANO)}
    return known | {name: cpu.target(name) for name, cpu in CPUS.items()}


def target_of(place: str) -> Target | None:
    """The device behind a place of the measurements, None where its peaks are not known."""
    known = targets()
    if place in NASBENCH:
        return known[NASBENCH[place][0]]
    for (start, threads, backend), (name, _) in NCNN.items():
        if place.startswith(f"ncnn {backend} {threads} {start}"):
            return known[name]
    if "opencl" in place or place.startswith("ncnn"):
        return None
    edition, _, system = place.partition(" ")
    name = MLPERF.get((edition, system.split("-")[0]))
    return known[name] if name else None
