"""The public measurements that the predictor is judged by: where, of which network, how long, how many joules."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx

from edgewright_devices.workload import Work, count
from predictor.ncnn import read_ncnn
from predictor.nets import fbnet, live_edges, mobilenet_v1, mobilenet_v2, nasbench201


@dataclass(frozen=True)
class Case:
    """One measured network. `place` is the device with its runtime and round; `same` is alike for networks that
    compute the same; `family` names the architecture it was drawn from.
    """

    place: str
    family: str
    same: str
    dtype: str
    works: tuple[Work, ...]
    ms: float
    mj: float | None = None


def works_of(model: onnx.ModelProto) -> tuple[Work, ...]:
    """What a predictor sees of a graph."""
    load = count(model)
    assert not load.opaque, load.opaque
    return load.works


def rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a compressed CSV file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from csv.DictReader(file)


@cache
def cell_works(arch: str) -> tuple[Work, ...]:
    """The work of a NAS-Bench-201 network."""
    return works_of(nasbench201(arch))


def nasbench_cases(data: Path, file: str = "nasbench201_edge.csv.gz") -> Iterator[Case]:
    """NAS-Bench-201 on every column of a file; networks without a convolution in their cells are left out."""
    for row in rows(data / file):
        arch = row.pop("arch_str")
        edges = live_edges(arch)
        if not any("conv" in operator for _, _, operator in edges):
            continue
        works = cell_works(arch)
        for column, value in row.items():
            if float(value) > 0:
                yield Case(column, "nasbench201", str(canonical(edges)), "float32", works, float(value))


def canonical(edges: tuple[tuple[int, int, str], ...]) -> tuple[tuple[int, int, str], ...]:
    """The same for cells that compute the same: what a skip passes on is its source."""
    value: dict[int, str] = {0: "x"}
    for end in (1, 2, 3):
        terms = []
        for start, other, operator in edges:
            if other == end:
                term = value[start]
                terms.append(term if operator == "skip_connect" else f"{operator}({term})")
        value[end] = terms[0] if len(terms) == 1 else "+".join(sorted(terms)).join("()")
    return ((0, 3, value[3]),)


@cache
def fbnet_works(arch: str) -> tuple[Work, ...]:
    """The work of an FBNet."""
    return works_of(fbnet(arch))


def fbnet_cases(data: Path) -> Iterator[Case]:
    """FBNets on every column."""
    for row in rows(data / "fbnet.csv.gz"):
        arch = row.pop("arch_str")
        for column, value in row.items():
            yield Case(column, "fbnet", arch, "float32", fbnet_works(arch), float(value))


@cache
def mobilenet_works(version: str, alpha: float, size: int, dtype: str) -> tuple[Work, ...]:
    """The work of a MobileNet."""
    return works_of((mobilenet_v1 if version == "v1" else mobilenet_v2)(alpha, size, dtype))


def mlperf_cases(data: Path) -> Iterator[Case]:
    """MLPerf Inference, open edge, SingleStream: the MobileNets on boards; a place is one board, runtime and round."""
    for row in rows(data / "mlperf_boards.csv.gz"):
        found = re.fullmatch(r"mobilenet-(v[12])-([\d.]+)-(\d+)-(non-)?quantized", row["model"])
        if found is None:
            continue
        dtype = "float32" if found[4] else "int8"
        works = mobilenet_works(found[1], float(found[2]), int(found[3]), dtype)
        energy = row["energy_mj_w_x_mean"] if row["round"] == "v1.1" else row["energy_mj_per_query"]
        place = f"{row['round']} {row['system']}"
        same = "-".join(found.group(1, 2, 3))
        p50 = float(row["p50_ms"])
        yield Case(place, found[1], same, dtype, works, p50, float(energy) if energy else None)


FAMILIES = ("mobilenet_v3", "mobilenet_v2", "mobilenetv2", "mobilenet", "squeezenet", "yolo-fastest")


def family_of(model: str) -> str:
    """The architecture a model of ncnn's benchmark is built on; detectors belong to their backbones."""
    name = model.removesuffix("_int8")
    found = next((family for family in FAMILIES if name.startswith(family)), name)
    return "mobilenet_v2" if found == "mobilenetv2" else found


@cache
def ncnn_works(path: Path, dtype: str) -> tuple[Work, ...]:
    """The work of a model of ncnn's benchmark; empty where its file states no sizes."""
    model = read_ncnn(path, dtype) if path.is_file() else None
    return works_of(model) if model else ()


def ncnn_cases(data: Path) -> Iterator[Case]:
    """ncnn's community benchmark; a place is a device with its threads and backend.

    Where Vulkan was asked for, int8 runs on the CPU, so it counts there only.
    """
    for row in rows(data / "ncnn.csv.gz"):
        dtype = "int8" if "int8" in row["model"] else "float32"
        works = ncnn_works(data / "ncnn_params" / f"{row['model']}.param", dtype)
        if works and (row["backend"], dtype) != ("gpu_vulkan", "int8"):
            place = f"ncnn {row['backend']} {row['num_threads']} {row['device']} {row['gpu_name']}"
            name = row["model"].removesuffix("_int8")
            yield Case(place, family_of(row["model"]), name, dtype, works, float(row["min_ms"]))
