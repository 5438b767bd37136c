"""`engine calibrate`: networks measured on a device or in a file give a profile; a wrong file is told by its line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.cli import main
from edgewright.verbs import calibrating
from edgewright_devices.predictor import probes

WIDTHS = (64, 128, 256, 384, 512, 640)


def write_networks(folder: Path) -> list[str]:
    """Rows of networks of one product each, and the latency that they would have at 2 GMAC/s."""
    rows = ["model,latency_ms,energy_mj"]
    for width in WIDTHS:
        weight = numpy_helper.from_array(np.ones((width, width), np.float32), "w")
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, width]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
            folder / f"{width}.onnx",
        )
        rows.append(f"{width}.onnx,{64 * width * width / 2e6},")
    return rows


def calibrate(folder: Path, rows: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of the command."""
    (folder / "measured.csv").write_text("\n".join(rows) + "\n")
    words = ["calibrate", "--measured", str(folder / "measured.csv"), "--target", "raspberry-pi-4", "--json"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "-o", str(folder / "mine.toml"), "--cache", str(folder / "cache")])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_measured_networks_give_a_profile_that_predicts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = calibrate(tmp_path, write_networks(tmp_path), capsys)
    assert code == 0, err
    assert json.loads(out)["fitted"]["latency"]["n"] == len(WIDTHS)
    with pytest.raises(SystemExit):
        main(["predict", str(tmp_path / "256.onnx"), "--target", str(tmp_path / "mine.toml"), "--json"])
    said = json.loads(capsys.readouterr().out)
    found = next(each for each in said["predictions"] if each["quantity"] == "latency")
    assert found["value"] == pytest.approx(64 * 256 * 256 / 2e6, rel=0.1)


def test_a_device_is_calibrated_over_its_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six micro-networks, measured by an agent of this host; the profile predicts one of them again."""
    monkeypatch.setattr(probes, "KINDS", (probes.perceptron,))
    monkeypatch.setattr(probes, "EACH", 3)
    monkeypatch.setattr(calibrating, "PASSES", 1)
    profile, cache = tmp_path / "here.toml", ("--cache", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--on", "local", "--threads", "1", "--target", "cpu", "-o", str(profile), "--json", *cache])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    found = json.loads(said.out)
    assert (found["target"], found["networks"], found["fitted"]["latency"]["n"]) == ("here", 6, 6)
    assert "6 networks measured on this device" in found["fitted"]["latency"]["source"]
    (path,) = (path for path in probes.write_probes(tmp_path) if path.name == "perceptron-0-float32.onnx")
    with pytest.raises(SystemExit):
        main(["predict", str(path), "--target", str(profile), "--json", *cache])
    latency = json.loads(capsys.readouterr().out)["predictions"][0]
    assert latency["interval"][0] < latency["value"] < latency["interval"][1]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("64.onnx,-3,", "measured.csv, line 8: latency_ms is '-3'; write a number above 0"),
        (
            "64.onnx,,5",
            "measured.csv, line 8: model or latency_ms is missing; the columns are model, latency_ms, energy_mj",
        ),
    ],
)
def test_a_wrong_row_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, says: str) -> None:
    code, _, err = calibrate(tmp_path, [*write_networks(tmp_path), row], capsys)
    assert code == 2
    assert says in err
    assert not (tmp_path / "mine.toml").exists()


def test_too_few_rows_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = calibrate(tmp_path, write_networks(tmp_path)[:3], capsys)
    assert code == 2
    assert "has 2 rows; 5 measured networks are the fewest" in err
