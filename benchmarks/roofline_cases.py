"""The public measurements that the roofline predictor is fitted to: devices, networks, and their latencies."""

from __future__ import annotations

import csv
import gzip
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.types import Figure, Target
from edgewright_devices.profiles import built_in
from edgewright_devices.workload import Work

WIDTH = {"float32": 4, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Case:
    """One measured latency: where, with which runtime, of which network, in which dtype."""

    device: str
    runtime: str
    net: str
    dtype: str
    works: tuple[Work, ...]
    seconds: float


# ------------------------------------------------------------------ devices


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


# ------------------------------------------------------------------ networks


def convolution(
    channels: tuple[int, int], kernel: int, size: int, dtype: str, *, stride: int = 1, group: int = 1
) -> Work:
    """A convolution of `size` x `size` pixels, activation and normalisation folded in."""
    taken, given = channels
    weights = given * (taken // group) * kernel * kernel
    out = math.ceil(size / stride) ** 2
    moved = (size * size * taken + out * given) * WIDTH[dtype]
    kind = "depthwise" if group > 1 else "dense"
    return Work("", "Conv", kind, dtype, out * weights, 2 * out * weights, weights * WIDTH[dtype], moved)


def elementwise(operator: str, elements: int, dtype: str, *, tensors: int) -> Work:
    """An operator that reads and writes `tensors` tensors of `elements` each."""
    return Work("", operator, "other", dtype, 0, elements, 0, tensors * elements * WIDTH[dtype])


def divisible(channels: float) -> int:
    """Channels as the MobileNets round them: to a multiple of 8, never down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def mobilenet_v1(alpha: float, size: int, dtype: str) -> tuple[Work, ...]:
    """Howard et al., arXiv:1704.04861, table 1."""
    taken = divisible(32 * alpha)
    works = [convolution((3, taken), 3, size, dtype, stride=2)]
    size = math.ceil(size / 2)
    for given, stride in [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ]:
        works.append(convolution((taken, taken), 3, size, dtype, stride=stride, group=taken))
        size = math.ceil(size / stride)
        works.append(convolution((taken, divisible(given * alpha)), 1, size, dtype))
        taken = divisible(given * alpha)
    return (*works, convolution((taken, 1001), 1, 1, dtype))


def mobilenet_v2(alpha: float, size: int, dtype: str) -> tuple[Work, ...]:
    """Sandler et al., arXiv:1801.04381, table 2."""
    taken = divisible(32 * alpha)
    works = [convolution((3, taken), 3, size, dtype, stride=2)]
    size = math.ceil(size / 2)
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for factor, channels, repeats, first in table:
        for stride in (first, *[1] * (repeats - 1)):
            given, inner = divisible(channels * alpha), taken * factor
            if factor > 1:
                works.append(convolution((taken, inner), 1, size, dtype))
            works.append(convolution((inner, inner), 3, size, dtype, stride=stride, group=inner))
            size = math.ceil(size / stride)
            works.append(convolution((inner, given), 1, size, dtype))
            if stride == 1 and taken == given:
                works.append(elementwise("Add", size * size * given, dtype, tensors=3))
            taken = given
    last = divisible(1280 * max(1.0, alpha))
    return (*works, convolution((taken, last), 1, size, dtype), convolution((last, 1001), 1, 1, dtype))


def nasbench201(arch: str, dtype: str) -> tuple[Work, ...]:
    """Dong and Yang, arXiv:2001.00326: three stages of five cells, dead edges of the cell left out."""
    edges = live_edges(arch)
    works = [convolution((3, 16), 3, 32, dtype)]
    taken, size = 16, 32
    for channels in (16, 32, 64):
        if channels != taken:
            works.append(convolution((taken, channels), 3, size, dtype, stride=2))
            works.append(convolution((taken, channels), 1, size // 2, dtype))
            taken, size = channels, size // 2
            works.append(convolution((taken, taken), 3, size, dtype))
            works.append(elementwise("Add", size * size * taken, dtype, tensors=3))
        works += 5 * list(cell(edges, taken, size, dtype))
    return (*works, elementwise("Pool", size * size * taken, dtype, tensors=1), convolution((taken, 10), 1, 1, dtype))


def cell(edges: Sequence[tuple[int, int, str]], channels: int, size: int, dtype: str) -> Iterator[Work]:
    """The nodes of one NAS-Bench-201 cell."""
    elements = size * size * channels
    for _, _, operator in edges:
        if "conv" in operator:
            yield elementwise("Relu", elements, dtype, tensors=2)
            yield convolution((channels, channels), int(operator[-1]), size, dtype)
        elif "pool" in operator:
            yield elementwise("AveragePool", elements, dtype, tensors=2)
    sums = sum(max(0, sum(end == node for _, end, _ in edges) - 1) for node in (1, 2, 3))
    yield from [elementwise("Add", elements, dtype, tensors=3)] * sums


def live_edges(arch: str) -> list[tuple[int, int, str]]:
    """The edges (start, end, operator) of a cell that lie on a path from its input to its output."""
    nodes = [re.findall(r"(\w+)~(\d)", part) for part in arch.split("+")]
    edges = [(int(start), end + 1, op) for end, node in enumerate(nodes) for op, start in node if op != "none"]
    reached, useful = {0}, {3}
    for start, end, _ in sorted(edges, key=lambda edge: edge[1]):
        reached |= {end} if start in reached else set()
    for start, end, _ in sorted(edges, key=lambda edge: -edge[0]):
        useful |= {start} if end in useful else set()
    return [edge for edge in edges if edge[0] in reached and edge[1] in useful]


def ncnn_graph(path: Path, dtype: str) -> tuple[Work, ...]:
    """The layers of an ncnn .param file; empty where the file states no shapes."""
    views = {"Input", "Split", "Dropout", "Flatten", "Reshape", "Noop", "PriorBox", "DetectionOutput"}
    sizes: dict[str, int] = {}
    works = []
    for line in path.read_text(encoding="utf-8").splitlines()[2:]:
        layer = line.split()
        taken, given = int(layer[2]), int(layer[3])
        inputs, outputs = layer[4 : 4 + taken], layer[4 + taken : 4 + taken + given]
        options = dict(option.split("=", 1) for option in layer[4 + taken + given :])
        if "-23330" not in options:
            return ()
        dims = [int(dim) for dim in options["-23330"].split(",")[1:]]
        shapes = [dims[at + 1 : at + 4] for at in range(0, len(dims), 4)]
        sizes |= {name: math.prod(shape) for name, shape in zip(outputs, shapes)}
        if layer[0] not in views:
            moved = sum(sizes[name] for name in (*inputs, *outputs))
            works.append(ncnn_layer(layer[0], options, shapes[0], moved, dtype))
    return tuple(works)


def ncnn_layer(operator: str, options: Mapping[str, str], shape: Sequence[int], moved: int, dtype: str) -> Work:
    """One layer of an ncnn graph; `shape` is the width, height and channels it writes."""
    weights, pixels = 0, shape[0] * shape[1]
    if operator in {"Convolution", "ConvolutionDepthWise", "DeconvolutionDepthWise"}:
        weights = int(options["6"])
    elif operator == "InnerProduct":
        weights, pixels = int(options["2"]), 1
    if dtype == "int8" and not (weights and "8" in options):
        dtype = "float32"  # layers without scales stay in float
    macs = weights * pixels
    depthwise = "DepthWise" in operator and options["7"] == options["0"]
    kind = "depthwise" if depthwise else "dense" if macs else "other"
    ops = 2 * macs or math.prod(shape)
    return Work("", operator, kind, dtype, macs, ops, weights * WIDTH[dtype], moved * WIDTH[dtype])


# ------------------------------------------------------------------ measurements


def rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a compressed CSV file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def ncnn_cases(data: Path) -> Iterator[Case]:
    """ncnn's community benchmark; int8 runs on the CPU even where Vulkan was asked for, so it counts there only."""
    for row in rows(data / "ncnn.csv.gz"):
        for (start, threads, backend), (device, floats) in NCNN.items():
            if (row["num_threads"], row["backend"]) != (threads, backend) or not row["device"].startswith(start):
                continue
            dtype = "int8" if row["model"].endswith("int8") else floats
            path = data / "ncnn_params" / f"{row['model']}.param"
            works = ncnn_graph(path, dtype) if path.is_file() and (backend, dtype) != ("gpu_vulkan", "int8") else ()
            if works:
                net = row["model"].removesuffix("_int8")
                yield Case(device, f"ncnn {backend}", net, dtype, works, float(row["min_ms"]) / 1e3)


def mlperf_cases(data: Path) -> Iterator[Case]:
    """MLPerf Inference, open edge, SingleStream: the MobileNets on the CPUs of boards."""
    for row in rows(data / "mlperf_boards.csv.gz"):
        device = MLPERF.get((row["round"], row["system"].split("-")[0]))
        found = re.fullmatch(r"mobilenet-(v[12])-([\d.]+)-(\d+)-(non-)?quantized", row["model"])
        later = row["round"] == "v2.1" and "armnn" in row["system"]  # the same board and runtime is in v3.0
        if device is None or found is None or later or "opencl" in row["system"]:
            continue
        build = mobilenet_v1 if found[1] == "v1" else mobilenet_v2
        dtype = "float32" if found[4] else "int8"
        works = build(float(found[2]), int(found[3]), dtype)
        net = "-".join(found.group(1, 2, 3))
        yield Case(device, row["framework"].split()[0], net, dtype, works, float(row["p50_ms"]) / 1e3)


def nasbench_cases(data: Path) -> Iterator[Case]:
    """Every eighth NAS-Bench-201 network on the GPUs of Jetsons; cells that compute nothing are left out."""
    for row in list(rows(data / "nasbench201_edge.csv.gz"))[::8]:
        if not any("conv" in operator for _, _, operator in live_edges(row["arch_str"])):
            continue
        for column, (device, dtype) in NASBENCH.items():
            works = nasbench201(row["arch_str"], dtype)
            yield Case(device, column, row["arch_str"], dtype, works, float(row[column]) / 1e3)
