"""`engine report`: pages from bundles, pictures only of the task that a bundle was judged by."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image

from edgewright.bundle import Contents, file_digest, write_bundle
from edgewright.reporting.pictures import image_of
from edgewright.task import load_task
from edgewright.types import (
    Artifact,
    Exit,
    Exits,
    GraphFile,
    Placement,
    Plan,
    Report,
    Signature,
    Stage,
    TensorSpec,
    Variant,
    Verdict,
)
from edgewright_exporters.report_json import JSON

IMAGE_NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 1, 4, 4] image) => (float[1, 16] y) { y = Flatten(image) }
"""
EXITS = Exits("test", "top-1 %", (Exit("main", None, 1.0, 24, 90.0, 90.0, None, None),), (), early=(1, 2), late=(5,))
REPORT = Report("net", "cpu", "here", (), Verdict("met", "net", (), 1), (), (), (), {"seed": 3}, exits=EXITS)


def write_data(path: Path, shade: float = 0.0) -> Path:
    images = np.random.default_rng(0).random((40, 1, 4, 4)).astype(np.float32) + shade
    np.savez(path, x=images, y=np.zeros(40, int))
    return path


def pack(folder: Path, report: Report | None, task: Path) -> Path:
    file = folder / "net.onnx"
    file.write_bytes(onnx.parser.parse_model(IMAGE_NET).SerializeToString())
    digest = file_digest(file)
    signature = Signature((TensorSpec("image", "float32", (1, 1, 4, 4)),), (TensorSpec("y", "float32", (1, 16)),))
    checked = load_task(str(task), signature, 3).checked(signature)
    contents = Contents(
        name="net",
        signature=signature,
        variants=(Variant("main", (Stage("main", GraphFile(file, digest), ("image",), ("y",)),)),),
        artifacts=(Artifact("main", file, digest, 1, "onnx", "main", "main"),),
        plan=Plan((Placement("main", "main", "main", "ort", "CPUExecutionProvider"),)),
        files={"report.json": JSON.render(report).encode()} if report else {},
        extra={"recipe": {"seed": 3}, "task": {"name": checked.name, "digest": checked.digest}},
    )
    return write_bundle(folder / "bundle", contents).path


def test_pictures_are_the_examples_that_left_first_and_last(engine, tmp_path):
    data = write_data(tmp_path / "data.npz")
    pack(tmp_path, REPORT, data)
    code, out, _ = engine("report", "bundle", "--task", "data.npz", "-o", "page.html")
    assert (code, out) == (0, "report: page.html\n")
    page = (tmp_path / "page.html").read_text()
    found = re.findall(r'base64,([^"]+)" alt="example (\d+)"', page)
    assert [int(id_) for _, id_ in found] == [1, 2, 5]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[2][0]))))
    wanted = np.load(data)["x"][5, 0]
    np.testing.assert_array_equal(pixels, np.round(255 * (wanted - wanted.min()) / np.ptp(wanted)).astype(np.uint8))


def test_without_a_task_there_are_ids_only_and_several_bundles_share_a_page(engine, tmp_path):
    pack(tmp_path, REPORT, write_data(tmp_path / "data.npz"))
    assert engine("report", "bundle", "bundle")[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<article") == 2
    assert "<img" not in page
    assert "Left first: examples 1, 2" in page
    assert "engine verify bundle" in page


def test_other_renderers_write_one_report(engine, tmp_path):
    pack(tmp_path, REPORT, write_data(tmp_path / "data.npz"))
    assert engine("report", "bundle", "-o", "report.md")[0] == 0
    assert (tmp_path / "report.md").read_text().startswith("# net on cpu")
    code, _, err = engine("report", "bundle", "bundle", "-o", "report.md")
    assert code == 2
    assert "markdown writes one report a file; choose --out report.html" in err


def test_other_data_is_refused(engine, tmp_path):
    pack(tmp_path, REPORT, write_data(tmp_path / "data.npz"))
    write_data(tmp_path / "other.npz", shade=1.0)
    code, _, err = engine("report", "bundle", "--task", "other.npz")
    assert code == 2
    assert "is not the data that bundle was judged by (data)" in err
    assert not (tmp_path / "report.html").exists()


def test_unknown_endings_missing_reports_and_places_are_one_sentence(engine, tmp_path):
    data = write_data(tmp_path / "data.npz")
    pack(tmp_path, REPORT, data)
    assert "did you mean '.html'?" in engine("report", "bundle", "-o", "a.htm")[2]
    assert "cannot be written" in engine("report", "bundle", "-o", "missing/a.html")[2]
    pack(tmp_path, None, data)
    assert engine("report", "bundle")[::2] == (
        2,
        "error: bundle/report.json is missing: an older version made this bundle; deploy again for a report\n",
    )


def test_models_without_exits_or_images_show_none(engine, tmp_path):
    pack(tmp_path, replace(REPORT, exits=None), write_data(tmp_path / "data.npz"))
    assert engine("report", "bundle", "--task", "data.npz")[0] == 0
    assert "<img" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("shape", "image"), [((1, 4, 5), (4, 5)), ((3, 4, 5), (4, 5, 3)), ((4, 5, 3), (4, 5, 3)), ((4, 5, 1), (4, 5))]
)
def test_images_come_in_either_layout(shape, image):
    found = image_of(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    assert found is not None
    assert found.shape == image
    assert (found.min(), found.max()) == (0, 255)


def test_what_is_no_image_has_no_picture_and_a_flat_one_is_black():
    assert image_of(np.zeros((16,), np.float32)) is None
    assert image_of(np.zeros((2, 4, 4), np.float32)) is None
    flat = image_of(np.full((1, 2, 2), 7.0, np.float32))
    assert flat is not None
    assert flat.max() == 0
