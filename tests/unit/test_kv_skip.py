"""KV skip: whole texts and single tokens agree, what is stored, networks never seen, and what it learns to store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from edgewright.deploying.trained import revived, shelved
from edgewright.errors import RecipeError, RefusedError
from edgewright.testing import Rig
from edgewright.types import Model, Signature, TensorSpec, TorchGraph

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from decoder import Decoder, decoder, votes  # noqa: E402
from edgewright import onnxkit  # noqa: E402
from edgewright.deploying.context import Workbench  # noqa: E402
from edgewright.store import key_of  # noqa: E402
from edgewright.task import Task  # noqa: E402
from edgewright.torchkit.data import Batch  # noqa: E402
from edgewright.torchkit.fit import fit  # noqa: E402
from edgewright.torchkit.losses import supervised  # noqa: E402
from edgewright.torchkit.training import Training  # noqa: E402
from edgewright.types import Metric  # noqa: E402
from edgewright_plugins.kv_skip import KV_SKIP, Params  # noqa: E402
from edgewright_plugins.kv_skip.learn import learning, level, skipping  # noqa: E402
from edgewright_plugins.kv_skip.net import Plan, Skipping, Steps, states_of, visible  # noqa: E402
from edgewright_plugins.kv_skip.read import checked, layers_of, rolled  # noqa: E402
from edgewright_plugins.lower.export import lower_module  # noqa: E402
from edgewright_plugins.tokens.learning import groups  # noqa: E402

CONTEXT = 24


def plan_of(net: nn.Module, rows: int, *, after: int = 1, recent: int = 3, context: int = CONTEXT) -> Plan:
    layers = layers_of(net, torch.zeros(1, context, dtype=torch.int64), "net")
    return Plan(layers, context, after, rows, recent)


def skipping_net(rows: int = 9, **settings: int) -> Skipping:
    """One whose predictor has random weights, and stores half."""
    net = Skipping(decoder(), plan_of(decoder(), rows, **settings)).eval()
    level(net, 0.5, [texts()])
    return net


def texts(rows: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(8, (rows, CONTEXT), generator=torch.Generator().manual_seed(seed))


def test_a_cache_with_room_for_all_changes_nothing() -> None:
    net = Skipping(decoder(), plan_of(decoder(), CONTEXT)).eval()
    with torch.no_grad():
        wanted = decoder()(texts())
        assert torch.equal(net(texts()), wanted)
        assert torch.allclose(rolled(Steps(net), texts()), wanted, atol=1e-5)


@pytest.mark.parametrize(("rows", "recent", "after"), [(9, 3, 1), (9, 1, 1), (20, 4, 2), (6, 5, 0)])
def test_token_by_token_it_answers_as_over_the_whole_text(rows: int, recent: int, after: int) -> None:
    net = skipping_net(rows, recent=recent, after=after)
    with torch.no_grad():
        wanted = net(texts())
        kept = net.noted[1] if net.noted else torch.ones(1)
        assert 0 < float(kept.mean()) < 1  # some are stored, some are not
        assert float((wanted - decoder()(texts())).abs().max()) > 1e-2  # and that makes a difference
        assert torch.allclose(rolled(Steps(net), texts()), wanted, atol=1e-5)


def test_what_is_seen_is_what_two_rings_hold() -> None:
    keep = (torch.rand(2, 30, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    for rows, recent in ((9, 1), (9, 4), (6, 3)):
        seen = visible(keep, rows, recent)[:, 0].bool()
        for text in range(2):
            stored: list[int] = []
            for token in range(30):
                leaving = token - recent
                if leaving >= 0 and keep[text, leaving]:
                    stored = [*stored, leaving][-(rows - recent) :]
                held = {*stored, *range(max(0, leaving + 1), token + 1)}
                assert set(seen[text, token].nonzero().flatten().tolist()) == held


def test_the_graph_has_smaller_caches_and_answers_as_the_whole_text() -> None:
    net = skipping_net(9)
    states = states_of(net.plan, 1)
    assert states["keys_0"].shape[2] == CONTEXT
    assert states["keys_1"].shape[2] == states["values_2"].shape[2] == 10  # nine rows, and one that nobody reads
    names = ["logits", *(f"{name}_next" for name in states)]
    tokens = texts(1)
    graph = onnxkit.pack(lower_module(Steps(net).eval(), {"tokens": tokens[:, :1].numpy(), **states}, names))
    found: list[np.ndarray[Any, Any]] = []
    for at in range(CONTEXT):
        feed = {"tokens": tokens[:, at : at + 1].numpy(), **states}
        logits, *after = next(iter(onnxkit.run(graph, [feed], names)))
        found.append(logits)
        states = dict(zip(states, after, strict=True))
    with torch.no_grad():
        assert np.allclose(np.concatenate(found, 1), net(tokens).numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["GPT2", "Llama"])
def test_decoders_of_transformers_answer_token_by_token(family: str) -> None:
    transformers: Any = pytest.importorskip("transformers")
    said = {
        "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT},
        "Llama": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2},
    }[family]  # fmt: skip
    config = getattr(transformers, f"{family}Config")(
        vocab_size=8, bos_token_id=0, eos_token_id=0, use_cache=False, **said
    )
    torch.manual_seed(0)
    net = getattr(transformers, {"GPT2": "GPT2LMHeadModel", "Llama": "LlamaForCausalLM"}[family])(config).eval()
    plan = plan_of(net, 9)
    checked(net, texts(), plan, family)
    skips = Skipping(net, plan).eval()
    with torch.no_grad():
        assert torch.allclose(rolled(Steps(skips), texts()), skips(texts()).logits, atol=1e-5)


class Averaging(Decoder):
    """Looks at what comes later."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) + super().forward(tokens).mean(1, keepdim=True)


class Sliced(Decoder):
    """Does not number its tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Last(Decoder):
    """Answers once."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens)[:, -1]


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4)), "calls no scaled_dot_product_attention"),
        (Averaging(), "answers otherwise token by token"),
        (Sliced(), "must number its tokens with torch.arange"),
        (Last(), "decoders that answer for each token"),
    ],
)
def test_what_cannot_answer_token_by_token_is_refused(net: nn.Module, words: str) -> None:
    net = net.eval()
    with pytest.raises(RefusedError, match=words):
        checked(net, texts(), plan_of(net, 9), "net")


# ------------------------------------------------------------------ as a method


def bench_of(rig: Rig) -> tuple[Model, Workbench]:
    """A decoder with a task of votes, on a bench."""
    bench = rig.benches["torch"]
    (x, y), (tests, labels) = (votes(count, CONTEXT, seed) for seed, count in enumerate((80, 20)))
    task = Task.from_arrays(
        {"tokens": tests.numpy()}, labels.numpy(), training=({"tokens": x.numpy()}, y.numpy()), name="votes",
        metric=Metric("right", unit="%", direction="higher", full_scale=100.0),
        score=lambda outputs, labels: float(100 * (outputs["logits"].argmax(-1) == labels).mean()),
    )  # fmt: skip
    signature = Signature(
        (TensorSpec("tokens", "int64", (1, CONTEXT)),), (TensorSpec("logits", "float32", (1, CONTEXT, 4)),)
    )
    graph = TorchGraph(decoder(depth=2), "decoder")
    base = bench.original
    stage = replace(base.stages[0], graph=graph, inputs=("tokens",), outputs=("logits",))
    variants = (replace(base.variants[0], stages=(stage,)),)
    model = replace(base, name="decoder", signature=signature, variants=variants, example={"tokens": x[:1].numpy()})
    return model, Workbench(replace(bench, original=model, reference=model, task=task), key_of("kv-skip"))


def test_a_deployed_decoder_keeps_its_state_and_comes_back_from_the_shelf(rig: Rig) -> None:
    model, context = bench_of(rig)
    assert KV_SKIP.check(model, context.target) is None
    decision = KV_SKIP.decide(model, Params(keep=0.4, epochs=1), context)
    assert json.loads(json.dumps(decision)) == decision
    fitted = KV_SKIP.fit(KV_SKIP.rewrite(model, decision), decision, context)
    assert [spec.name for spec in fitted.signature.fed] == ["tokens"]
    assert [spec.name for spec in fitted.signature.answers] == ["logits"]
    assert "have room for 10, the latest 4 among them" in fitted.history[-1].notes[0]
    # Through the agent, from a bundle: whole texts are fed, the runtime keeps the state from token to token.
    answers = context.outputs(fitted, limit=2)["logits"]
    wanted = next(context.bench.task.batches("selection", 2, limit=2)).inputs["tokens"]
    graph = fitted.graph
    assert isinstance(graph, TorchGraph)
    with torch.no_grad():
        assert np.allclose(answers, graph.module.net(torch.from_numpy(wanted)).numpy(), atol=1e-4)
    again = revived(shelved(fitted, context), KV_SKIP.rewrite(model, decision), "again")
    assert again.example["tokens"].shape == (1, 1)
    assert isinstance(again.graph, TorchGraph)
    with torch.no_grad():
        assert np.allclose(rolled(again.graph.module, torch.from_numpy(wanted)).numpy(), answers, atol=1e-4)


def test_what_does_not_fit_is_told_in_a_sentence(rig: Rig) -> None:
    model, context = bench_of(rig)
    with pytest.raises(RecipeError, match="after=2 leaves nothing to skip; decoder calls 2 attentions, and 0 to 1"):
        KV_SKIP.decide(model, Params(after=2), context)
    with pytest.raises(RecipeError, match=r"keep=0\.1 leaves room for 2 of 24 tokens, and recent=4 takes all of it"):
        KV_SKIP.decide(model, Params(keep=0.1), context)
    refusal = KV_SKIP.check(rig.benches["torch"].original, context.target)
    assert refusal is not None
    assert "kv-skip takes decoders of one input of tokens" in refusal.reason


# ------------------------------------------------------------------ what it learns


@dataclass(frozen=True, eq=False)
class Votes:
    """New texts in each epoch."""

    batches: int = 30

    def __len__(self) -> int:
        return self.batches

    def epoch(self, number: int) -> Iterator[Batch]:
        for at in range(self.batches):
            tokens, leaders = votes(64, CONTEXT, 1000 * (number + 1) + at)
            yield Batch((tokens,), leaders)


def right(net: nn.Module) -> float:
    tokens, leaders = votes(500, CONTEXT, 7)
    with torch.no_grad():
        return 100 * float((net.eval()(tokens).argmax(-1) == leaders).float().mean())


def test_it_beats_storing_at_random_and_keeps_the_budget() -> None:
    whole = decoder(depth=1)
    fit(whole, Votes(), Training(epochs=4, rate=5e-3), supervised())
    plan = plan_of(whole, 8, after=0, recent=1)
    assert right(whole) > 85

    def learned(rule: Any) -> tuple[float, Skipping]:
        torch.manual_seed(0)
        net = Skipping(decoder(depth=1), plan)
        net.backbone.load_state_dict(whole.state_dict())
        learning(net, 0.3)
        net.rule = rule or net.rule
        objective = skipping(whole, None, keep=0.3, distill=0.5)
        fit(net, Votes(), Training(epochs=4, rate=5e-3), objective, groups=groups)
        if rule is None:
            share = level(net, 0.3, [votes(64, CONTEXT, 3)[0]])
            assert share == pytest.approx(0.3, abs=0.03)
        return right(net), net

    random, _ = learned(lambda logits: (torch.rand_like(logits) < 0.3).to(logits.dtype))
    found, net = learned(None)
    assert found > random + 10
    assert net.noted is not None
    assert float(net.noted[1].mean()) == pytest.approx(0.3, abs=0.05)
