"""The templates that graphs are rewritten with, and what one kernel of theirs is.

A template of ours goes by its name; one of a plugin by the name of its module, which the process that compiles imports.
It has a frozen dataclass `Case` of numbers, words and tuples, and `tiles`, `items`, `arguments`, `pack`, `function`
and `reference`, as those in `edgewright_exporters.kernels` have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgewright_exporters.kernels.window import Window
from edgewright_exporters.tir.isa import Isa

CASES = {
    "attention": "AttentionCase",
    "blockattention": "BlockAttentionCase",
    "conv": "ConvCase",
    "depthwise": "DepthwiseCase",
    "gatedconv": "GatedConvCase",
    "gemm": "GemmCase",
    "hamming": "HammingCase",
    "norm": "NormCase",
    "pool": "PoolCase",
    "qconv": "QConvCase",
    "qdepthwise": "QDepthwiseCase",
    "qgemm": "QGemmCase",
    "reorder": "ReorderCase",
}
"""The class of the cases of each template of ours; its module in `edgewright_exporters.kernels` has its name."""

MEMBERS = ("Case", "tiles", "items", "arguments", "function", "reference")
"""What the template of a plugin must have; `pack` too where it takes constants."""


@dataclass(frozen=True)
class Job:
    """What is to be computed: a template, and one of its cases."""

    template: str
    case: Any

    @property
    def module(self) -> Any:
        """The template."""
        return _module(self.template)

    @property
    def name(self) -> str:
        """What its kernels are called after, as C takes it."""
        return self.template.replace(".", "_")


@dataclass(frozen=True)
class Kernel:
    """A job, and how it is done: by which of the template's tiles, counted from its best guess."""

    job: Job
    choice: int

    def tile(self, isa: Isa) -> Any:
        """The tile on an instruction set."""
        return self.job.module.tiles(self.job.case, isa)[self.choice]

    def symbol(self, isa: Isa) -> str:
        """Its name in a library: `gemm_197x192x576_` and a digest of all there is to know about it."""
        sizes = "x".join(str(size) for size in _sizes(self.job.case))
        about = repr((self.job, self.tile(isa), isa))
        return f"{self.job.name}_{sizes}_{hashlib.sha256(about.encode()).hexdigest()[:8]}"

    def arguments(self, isa: Isa) -> Sequence[Any]:
        """The pointers it takes."""
        return self.job.module.arguments(self.job.case, self.tile(isa), isa)

    def items(self, isa: Isa) -> int:
        """How many pieces of work it can be cut into."""
        return self.job.module.items(self.job.case, self.tile(isa), isa)

    def pack(self, isa: Isa, weights: Mapping[str, Any]) -> Sequence[Any]:
        """Constants as it reads them; none where it takes none."""
        return self.job.module.pack(self.job.case, self.tile(isa), isa, **weights) if weights else ()

    def function(self, isa: Isa) -> Any:
        """Its loop nest; needs TVM."""
        return self.job.module.function(self.job.case, self.tile(isa), isa, self.symbol(isa))


def job_of(template: str, fields: Mapping[str, Any]) -> Job:
    """The job whose case has these fields; JSON has turned its tuples into lists, its window into a mapping."""
    case = getattr(_module(template), CASES.get(template, "Case"))
    return Job(template, case(**_values(fields)))


def _module(template: str) -> Any:
    return import_module(f"edgewright_exporters.kernels.{template}" if template in CASES else template)


def _values(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    def read(value: Any) -> Any:
        if isinstance(value, Mapping):
            return Window(**_values(value))
        return tuple(value) if isinstance(value, list) else value

    return {name: read(value) for name, value in fields.items()}


def entry_of(kernel: Kernel) -> dict[str, Any]:
    """A kernel as JSON; `kernel_of` reads it."""
    return {"template": kernel.job.template, "case": asdict(kernel.job.case), "choice": kernel.choice}


def kernel_of(entry: Mapping[str, Any]) -> Kernel:
    """The kernel that `entry_of` wrote."""
    return Kernel(job_of(entry["template"], entry["case"]), entry["choice"])


@cache
def source_digest(template: str = "") -> str:
    """The digest of every template of ours, of what compiles them, and of the package of another one.

    An edit makes all that was kept of them stale.
    """
    sha = hashlib.sha256()
    package = Path(__file__).parents[1]
    ours = [path for folder in ("kernels", "tir") for path in sorted((package / folder).glob("*.py"))]
    for path in (*ours, *(() if template in ("", *CASES) else _sources(template))):
        sha.update(path.read_bytes())
    return sha.hexdigest()


def _sources(template: str) -> Sequence[Path]:
    """Every file of the package that a module is in, or its own where it is in none."""
    top = find_spec(template.partition(".")[0])
    folders = top.submodule_search_locations if top else None
    if folders is None:
        return [Path(top.origin)] if top and top.origin else []
    return [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))]


def _sizes(case: Any) -> Sequence[int]:
    """The plain numbers of a case, for its name."""
    return [value for value in asdict(case).values() if type(value) is int]
