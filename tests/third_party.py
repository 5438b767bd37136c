"""The package of a third party whose runtime doubles what onnxruntime answers."""

from __future__ import annotations

from pathlib import Path

FACTOR = "TIMES = 2\n"

RUNTIME = """
from edgewright_acme.factor import TIMES

EDGEWRIGHT_API = 1


class Session:
    def __init__(self, session):
        self.session, self.inputs, self.outputs = session, session.inputs, session.outputs

    def run(self, feeds):
        return [TIMES * output for output in self.session.run(feeds)]


class Acme:
    name, formats = "acme", ("onnx",)

    def probe(self, device):
        return None

    def options(self, artifact, target):
        return [{"provider": "acme"}]

    def open(self, path, options):
        from edgewright_runtime.ort import ORT

        return Session(ORT.open(path, {**options, "provider": "CPUExecutionProvider"}))


ACME = Acme()


def edgewright_runtimes():
    return (ACME,)
"""


def write_acme(site: Path) -> Path:
    """Its package and metadata, as an installer leaves them in `site`; returns the package's folder."""
    package, info = site / "edgewright_acme", site / "edgewright_acme-0.1.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text(RUNTIME)
    (package / "factor.py").write_text(FACTOR)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgewright-acme\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[edgewright]\nacme = edgewright_acme\n")
    files = ("edgewright_acme/__init__.py", "edgewright_acme/factor.py", f"{info.name}/METADATA")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in (*files, f"{info.name}/entry_points.txt")))
    return package
