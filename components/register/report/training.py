"""What the report tells of the training: its curves and what it cost."""

import itertools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.common import storage
from components.common.errors import StorageError
from components.common.manifest import Manifest
from components.register.card.card import Footprint, footprint
from components.register.card.card_settings import CardSettings
from components.register.report.plots import Points

log = logging.getLogger(__name__)

_POINTS = 240  # of a curve: more than a chart has pixels for


@dataclass(frozen=True)
class Curves:
    """What a training run measured, over the tokens that it had learned from.

    Attributes:
        loss: Mean cross entropy of a step in nats; where there are many steps, the mean of some in a row.
        perplexity: On held-out articles.
        learning_rate: Of a step.
        steps: All of them.
        skipped: Those that were left out, as their loss or gradient was no good.
        obstacle: Why there are no curves; empty where there are.
    """

    loss: Points = ()
    perplexity: Points = ()
    learning_rate: Points = ()
    steps: int = 0
    skipped: int = 0
    obstacle: str = ""


@dataclass(frozen=True)
class Cost:
    """What a training run took; None is what nobody measured or said.

    Attributes:
        devices: That worked together.
        tokens_per_second: Of all together.
        mfu: Share of the devices' peak that went into the model.
        price: In the currency of the recipe's ``train.gpu_hour_price``.
    """

    footprint: Footprint
    devices: int
    tokens_per_second: float | None
    mfu: float | None
    hour_price: float | None
    price: float | None


def curves(model: Manifest) -> Curves:
    """Read what the train stage wrote step by step.

    A report is worth having without it, so a missing file is no error: the page says that it is missing.
    """
    uri = model.extra.get("losses_uri")
    if not uri:
        return Curves(obstacle="This model came without a record of its training.")
    try:
        records = [json.loads(line) for line in storage.read(str(uri)).splitlines()]
        return _curves(records)
    except (StorageError, ValueError, KeyError, TypeError) as error:
        log.warning("The report has no training curves: %s: %s", uri, error)
        return Curves(obstacle=f"The record of the training, {uri}, cannot be read: {error}")


def cost(model: Manifest, settings: CardSettings) -> Cost:
    """Work out what the training took from the totals that the train stage wrote."""
    totals, found = model.totals, footprint(model, settings)
    hour_price = model.settings.get("gpu_hour_price")
    return Cost(
        footprint=found,
        devices=int(totals.get("processes", 1)),
        tokens_per_second=totals.get("mean_tokens_per_second"),
        mfu=totals.get("mean_mfu"),
        hour_price=hour_price,
        price=None if hour_price is None or found.device_hours is None else found.device_hours * hour_price,
    )


def _curves(records: Sequence[Mapping[str, Any]]) -> Curves:
    tokens, series = 0, {name: list[tuple[float, float]]() for name in ("loss", "learning_rate", "validation_loss")}
    for record in records:
        tokens += int(record["tokens"])
        for name, members in series.items():
            value = record.get(name)
            if value is not None and not (name == "loss" and record.get("skipped")):
                members.append((float(tokens), float(value)))
    return Curves(
        loss=_thinned(series["loss"]),
        perplexity=_thinned([(x, math.exp(min(y, 700.0))) for x, y in series["validation_loss"]]),
        learning_rate=_thinned(series["learning_rate"]),
        steps=len(records),
        skipped=sum(bool(record.get("skipped")) for record in records),
    )


def _thinned(points: Sequence[tuple[float, float]]) -> Points:
    """Return the means of as many runs of neighbours as a chart can show; few points stay as they are."""
    if len(points) <= _POINTS:
        return points
    edges = [len(points) * place // _POINTS for place in range(_POINTS + 1)]
    runs = [points[low:high] for low, high in itertools.pairwise(edges)]
    return [(run[-1][0], sum(y for _, y in run) / len(run)) for run in runs]
