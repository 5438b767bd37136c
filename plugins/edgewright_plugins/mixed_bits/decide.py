"""The story of a mix: what layers lose, what they cost, the programme's choice, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from edgewright.errors import RecipeError
from edgewright.protocols import Context
from edgewright.types import Model
from edgewright_plugins.mixed_bits import Params
from edgewright_plugins.mixed_bits.job import Job
from edgewright_plugins.mixed_bits.latency import learn, random_mixes
from edgewright_plugins.mixed_bits.losses import Losses
from edgewright_plugins.mixed_bits.net import FULL, Mix
from edgewright_plugins.mixed_bits.prices import Prices, bitops_of, bytes_of, prices_of
from edgewright_plugins.mixed_bits.start import options_of, start
from edgewright_plugins.mixed_bits.tell import Outcome, as_it_was, shipped

BUDGETS = {"bytes": 5 / 8, "bitops": 5 / 8, "latency": 1.1}
"""What is spent when nothing is said: shares of the cost of 8 bits everywhere."""
RUNGS = 12
"""Budgets that may be tried between the one that was asked for and the cost of the most precise mix."""
AGREES = 0.05
"""A race within this share of what the prices say ends the learning."""
TRIES = 5
"""Choices that are raced and learnt from."""


def decide(model: Model, params: Params, context: Context) -> Model:
    """The model in the mix that loses least within the budget; in a dearer one where the metric needs it."""
    budget, options = budget_of(params), options_of(params)
    job = start(model, params, context)
    losses = job.losses(options)
    prices = prices_for(job, losses, params, budget)
    mixes = ladder(prices, losses, budget)
    floor = lowest_score(job)
    chosen = first_that_holds(job, mixes, floor, tune=params.tune)
    outcome = Outcome(job, params, losses, prices, budget)
    return as_it_was(outcome, mixes[-1]) if chosen is None else shipped(outcome, chosen, relaxed=chosen != mixes[0])


def budget_of(params: Params) -> float:
    """The budget as a share of the cost of 8 bits everywhere.

    Raises: RecipeError when it is said twice, or in bits where bytes are not what counts.
    """
    if params.average is None:
        return BUDGETS[params.cost] if params.budget is None else params.budget
    if params.cost != "bytes":
        raise RecipeError(f"mixed-bits: average counts bits per weight; with cost={params.cost} write budget=SHARE")
    if params.budget is not None:
        raise RecipeError("mixed-bits: average and budget say the same thing twice; write one of them")
    return params.average / FULL


# ------------------------------------------------------------------ prices


def prices_for(job: Job, losses: Losses, params: Params, budget: float) -> Prices:
    """What layers cost in the unit that was asked for."""
    if params.cost == "bytes":
        return prices_of(job.net.layers, losses.options, bytes_of)
    if params.cost == "bitops":
        return prices_of(job.net.layers, losses.options, partial(bitops_of, activations=params.activations))
    return learnt_prices(job, losses, budget, params.races)


def learnt_prices(job: Job, losses: Losses, budget: float, races: int) -> Prices:
    """Prices in latency, learnt from random mixes and then from the programme's own choices until these come true.

    The programme seeks out what the prices think too cheap, so its choices are where they must be right.
    """
    known = job.race(random_mixes(len(job.net.layers), races, job.context.seed))
    for _ in range(TRIES):
        prices = learn(job.net, known)
        choice = prices.best(losses, budget)
        [found] = job.race([choice])
        known.append(found)
        if abs(found.share / prices.share(choice) - 1) <= AGREES:
            return prices
    return learn(job.net, known)


# ------------------------------------------------------------------ the choice


def ladder(prices: Prices, losses: Losses, budget: float) -> list[Mix]:
    """The best mix within the budget, and those within ever larger ones up to no limit.

    Raises: RecipeError when the budget is below the cheapest mix.
    """
    first = prices.best(losses, budget)
    most = max(prices.share(prices.best(losses, np.inf)), budget)
    budgets = np.linspace(budget, most, RUNGS)[1:]
    return list(dict.fromkeys((first, *(prices.best(losses, float(each)) for each in budgets))))


def lowest_score(job: Job) -> float | None:
    """The goodness that may not be fallen below: the original's less what may be lost; None when nothing binds.

    Where an earlier method has spent that, it counts from the model at hand.
    """
    bound = job.context.max_drop
    if job.metric is None or bound is None:
        return None
    before, original = goodness(job, job.model), goodness(job, job.context.original)
    allowed = bound * job.metric.full_scale
    return original - allowed if before >= original - allowed else before - allowed


def goodness(job: Job, model: Model) -> float:
    """The metric, negated where less is better."""
    score = job.score(model)
    if score is None or job.metric is None:
        return 0.0
    return score if job.metric.direction == "higher" else -score


def first_that_holds(job: Job, mixes: Sequence[Mix], floor: float | None, *, tune: bool) -> Mix | None:
    """The first of the mixes, ever dearer ones, that keeps the metric, by bisection; None when the last does not."""

    def holds(mix: Mix) -> bool:
        return floor is None or goodness(job, job.finished(mix, tune=tune)) >= floor

    if holds(mixes[0]):
        return mixes[0]
    if not holds(mixes[-1]):
        return None
    fails, good = 0, len(mixes) - 1
    while good - fails > 1:
        middle = (fails + good) // 2
        fails, good = (fails, middle) if holds(mixes[middle]) else (middle, good)
    return mixes[good]
