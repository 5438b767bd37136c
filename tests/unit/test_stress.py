"""`engine stress`: a chain whose gate is a known function of the image, slowed by aim and not by noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from chain import IMAGES, NO_FILE, PATTERN, THRESHOLD, chain, nested, pack
from edgewright.types import Stage
from edgewright_runtime import load


def test_aim_slows_the_chain_and_noise_of_its_size_does_not(engine, tmp_path):
    pack(tmp_path, chain(THRESHOLD))
    np.savez(tmp_path / "data.npz", image=IMAGES)
    asked = ("--task", "data.npz", "--examples", "12", "--queries", "120", "--deadline", "500ms", "--json")
    code, out, _ = engine("stress", "bundle", *asked)
    assert code == 0
    found = json.loads(out)
    cases = {case["name"]: case for case in found["cases"]}
    assert found["cases"][0]["name"] == "real inputs"
    assert (cases["real inputs"]["depth"], cases["jitter"]["depth"]) == (1.0, 1.0)
    assert cases["slowdown"]["depth"] > 1.9
    assert cases["slowdown"]["through"] > 0.9
    least = quickest_ms(tmp_path / "bundle", (1 - PATTERN) / 2) / 2
    assert cases["slowdown"]["latency"][0]["value"] > least, "it was timed to the end, which takes so long on any day"
    assert cases["slowdown"]["runs"] == 60
    assert len(cases["slowdown"]["capped"]) == 3
    assert 0 <= cases["slowdown"]["idle_misses"] <= 60
    assert found["whole"]["value"] > least
    assert found["energy"]["value"] is None
    assert "no meter was read" in found["energy"]["reason"]
    assert found["advice"].startswith("worst: ")
    assert "with a deadline of 500 ms" in found["advice"]


def quickest_ms(bundle: Path, image) -> float:
    """What the quickest of many runs of an image takes that goes to the end."""
    loaded = load(bundle, cache=False)
    results = [loaded.run(image) for _ in range(300)]
    assert {result.exits for result in results} == {(1,)}
    return min(result.spent_ms for result in results)


def test_without_a_task_the_inputs_are_noise_and_the_table_says_so(engine, tmp_path):
    pack(tmp_path, chain(0.0))
    code, out, _ = engine("stress", "bundle", "--examples", "4", "--queries", "2")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("on ")
    assert lines[1].split() == ["inputs", "exit", "to", "the", "end", "mean", "p99", "worst"]
    assert lines[2].startswith("seeded noise")
    assert "only how they compare with one another means much" in out
    assert "cap every run with `engine run --deadline " in lines[-1]


def test_a_bundle_without_exits_cannot_be_slowed(engine, tmp_path):
    (first, model), _ = chain(0.0)
    del model.graph.output[1:]
    pack(tmp_path, [(replace(first, carry=(), gate=None), model)])
    assert engine("stress", "bundle")[:2] == (
        0,
        "inputs cannot slow it: every run takes the same way through the model\n",
    )


def test_a_graph_that_decides_inside_is_slowed_by_its_depth_alone_and_cannot_be_stopped(engine, tmp_path):
    pack(tmp_path, [(Stage("all", NO_FILE, ("image",), ("y",), exits="exits"), nested())])
    np.savez(tmp_path / "data.npz", image=IMAGES)
    code, out, _ = engine("stress", "bundle", "--task", "data.npz", "--examples", "4", "--queries", "10", "--json")
    assert code == 0
    found = json.loads(out)
    depths = {case["name"]: case["depth"] for case in found["cases"]}
    assert depths["real inputs"] == depths["jitter"] == 1.0
    assert depths["noise-uniform"] > 1.0
    assert "deploy it in stages" in found["advice"]
    assert "decides inside" in found["whole"]["reason"]


def test_a_bad_deadline_is_one_sentence(engine, tmp_path):
    pack(tmp_path, chain(0.0))
    code, _, err = engine("stress", "bundle", "--deadline", "soon")
    assert code == 2
    assert err.startswith("error: --deadline 'soon'")
