"""The order over all columns, and how far it depends on metrics, groups and chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluator.leaderboard.columns import Draft
from evaluator.leaderboard.questions import same_quantity
from evaluator.leaderboard.ranks import Ranked
from evaluator.leaderboard.records import Agreement, Robustness, Standing, Variant
from evaluator.statistics.standings import (
    kendall_tau,
    mean_win_rates,
    steadiness,
    win_shares,
)

Floats = NDArray[np.float64]


class Ranking(NamedTuple):
    """One column with ranks."""

    draft: Draft
    ranked: Ranked

    def shares(self, num_runs: int) -> Floats:
        """(R,) share of the others that each run beats; NaN where it is not ranked."""
        return self._spread(self._won(self.ranked.values), num_runs)

    def drawn_shares(self, num_runs: int) -> Floats:
        """(B, R) the same in each resample."""
        return self._spread(self._won(self.ranked.draws), num_runs)

    def oriented(self, num_runs: int) -> Floats:
        """(R,) values, more is better; NaN where it is not ranked."""
        sign = 1.0 if self.draft.higher_is_better else -1.0
        return self._spread(sign * self.ranked.values, num_runs)

    def _won(self, values: Floats) -> Floats:
        return win_shares(values, higher_is_better=bool(self.draft.higher_is_better))

    def _spread(self, values: Floats, num_runs: int) -> Floats:
        spread = np.full((*values.shape[:-1], num_runs), np.nan)
        spread[..., list(self.ranked.runs)] = values
        return spread


def counted(rankings: Sequence[Ranking]) -> list[Ranking]:
    """The columns that a win rate is over: one for each quantity, lest it weigh twice.

    Of two columns of one quantity (`metrics.families.ONE_QUANTITY`: KID over subsets and over all
    samples), the one does not count whose runs are all ranked in the other; where both rank the
    same runs, that is the one with more noise.
    """
    return [ranking for ranking in rankings if _counts_as(ranking, rankings) is ranking]


def _counts_as(ranking: Ranking, rankings: Sequence[Ranking]) -> Ranking:
    """The column that counts in place of this one; itself where there is none."""
    quantity, runs = same_quantity(ranking.draft.question), set(ranking.ranked.runs)

    def order(other: Ranking) -> tuple[int, int]:
        return -len(other.ranked.runs), quantity.names.index(other.draft.question.metric)

    instead = [
        other
        for other in rankings
        if other.draft.question.metric != ranking.draft.question.metric
        and same_quantity(other.draft.question) == quantity
        and runs.issubset(other.ranked.runs)
        and order(other) < order(ranking)
    ]
    return min(instead, key=order, default=ranking)


def standings_of(
    rankings: Sequence[Ranking], names: Sequence[str], *, by: str | None = None
) -> tuple[tuple[Standing, ...], Robustness | None]:
    """Standings of all runs that are ranked somewhere, and the robustness of their order.

    Shares of wins are over `counted` columns; all columns are compared with each other.
    """
    num, every = len(names), rankings
    rankings = counted(rankings)
    shown = [i for i in range(num) if any(i in r.ranked.runs for r in rankings)]
    if len(shown) < 2:
        return (), None
    shares = np.stack([r.shares(num) for r in rankings])[:, shown]
    drawn = np.stack([r.drawn_shares(num) for r in rankings])[:, :, shown]
    rates = mean_win_rates(shares)
    steady = steadiness(rates, mean_win_rates(drawn))
    kept = [names[i] for i in shown]
    left_out = _left_out(rankings, shares, rates, kept)
    spans = _place_spans(left_out, rates, kept)
    standings = [
        Standing(
            row=name,
            place=int(1 + (rates > rates[k]).sum()),
            win_rate=float(rates[k]),
            low=float(steady.low[k]),
            high=float(steady.high[k]),
            num_metrics=int((~np.isnan(shares[:, k])).sum()),
            first=float(steady.first[k]),
            keeps=float(steady.keeps[k]),
            place_low=spans[name][0],
            place_high=spans[name][1],
            by_metric={
                r.draft.id: float(share)
                for r, share in zip(rankings, shares[:, k], strict=True)
                if not np.isnan(share)
            },
        )
        for k, name in enumerate(kept)
    ]
    known = steady.taus[~np.isnan(steady.taus)]
    robustness = Robustness(
        between_metrics=_between(every, num),
        left_out=left_out,
        groups=_groups(rankings, names, dict(zip(kept, rates, strict=True)), by),
        num_resamples=drawn.shape[1],
        tau=float(known.mean()) if known.size else None,
        tau_low=float(np.quantile(known, 0.025)) if known.size else None,
    )
    return tuple(sorted(standings, key=lambda s: (s.place, s.row))), robustness


def standing_remarks(
    rankings: Sequence[Ranking], standings: Sequence[Standing], names: Sequence[str]
) -> list[str]:
    """What hinders comparing win rates: runs that never met, and runs with few of the metrics."""
    remarks = []
    for ranking in rankings:
        counts = _counts_as(ranking, rankings)
        if counts is not ranking:
            remarks.append(
                f"{ranking.draft.label} counts in no win rate: {counts.draft.label} is of the same "
                "quantity and counts once for both"
            )
    rankings = counted(rankings)
    circles = _circles(rankings)
    if len(circles) > 1:
        told = " | ".join(_some([names[i] for i in sorted(circle)]) for circle in circles)
        remarks.append(
            "these groups of runs share no ranked metric, so win rates and places are comparable "
            f"within a group only: {told}"
        )
    most = {
        names[i]: sum(not circle.isdisjoint(r.ranked.runs) for r in rankings)
        for circle in circles
        for i in circle
    }
    remarks += [
        f"{standing.row}: its win rate stands on {standing.num_metrics} of {most[standing.row]} "
        "metrics; compare it with care"
        for standing in standings
        if standing.num_metrics < most[standing.row]
    ]
    return remarks


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more


def _circles(rankings: Sequence[Ranking]) -> list[set[int]]:
    """Runs that are ranked with each other, directly or through third ones."""
    circles: list[set[int]] = []
    for ranking in rankings:
        met = set(ranking.ranked.runs)
        apart = [circle for circle in circles if circle.isdisjoint(met)]
        circles = [*apart, met.union(*(c for c in circles if not c.isdisjoint(met)))]
    return sorted(circles, key=min)


def _left_out(
    rankings: Sequence[Ranking], shares: Floats, rates: Floats, names: Sequence[str]
) -> tuple[Variant, ...]:
    """The order without each metric, where two or more are left."""
    if len(rankings) < 2:
        return ()
    found = []
    for k, ranking in enumerate(rankings):
        rest = mean_win_rates(np.delete(shares, k, axis=0))
        found.append(_variant(f"without {ranking.draft.label}", names, rest, rates))
    return tuple(found)


def _place_spans(
    variants: Sequence[Variant], rates: Floats, names: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """Best and worst place of each run over the variants; its own place where there are none."""
    spans = {}
    for k, name in enumerate(names):
        found = [
            1 + sum(rate > v.win_rates[name] for rate in v.win_rates.values())
            for v in variants
            if name in v.win_rates
        ]
        found = found or [int(1 + (rates > rates[k]).sum())]
        spans[name] = (min(found), max(found))
    return spans


def _between(rankings: Sequence[Ranking], num: int) -> tuple[Agreement, ...]:
    values = [ranking.oriented(num) for ranking in rankings]
    found = []
    for i, one in enumerate(values):
        for j in range(i + 1, len(values)):
            other = values[j]
            found.append(
                Agreement(
                    rankings[i].draft.id,
                    rankings[j].draft.id,
                    kendall_tau(one, other),
                    int((~np.isnan(one) & ~np.isnan(other)).sum()),
                )
            )
    return tuple(found)


def _groups(
    rankings: Sequence[Ranking], names: Sequence[str], rates: Mapping[str, float], by: str | None
) -> tuple[Variant, ...]:
    """The order in each group of samples, by the metrics that two runs or more have there."""
    tags = dict.fromkeys(group for r in rankings for group in r.draft.groups)
    found = []
    for tag, value in tags:
        if by is not None and tag != by:
            continue
        shares = [_group_shares(r, (tag, value), len(names)) for r in rankings]
        means = mean_win_rates(np.stack(shares))
        inside = [i for i in range(len(names)) if not np.isnan(means[i])]
        if len(inside) < 2:
            continue
        kept = [names[i] for i in inside]
        overall = np.array([rates.get(name, np.nan) for name in kept])
        found.append(_variant(f"{tag}={value}", kept, means[inside], overall))
    return tuple(found)


def _group_shares(ranking: Ranking, group: tuple[str, str], num: int) -> Floats:
    answers = ranking.draft.groups.get(group, {})
    values = np.full(num, np.nan)
    for run, answer in answers.items():
        if run in ranking.ranked.runs and answer.record.value is not None:
            values[run] = answer.record.value
    return win_shares(values, higher_is_better=bool(ranking.draft.higher_is_better))


def _variant(name: str, names: Sequence[str], rates: Floats, overall: Floats) -> Variant:
    known = {n: float(rate) for n, rate in zip(names, rates, strict=True) if not np.isnan(rate)}
    order = tuple(sorted(known, key=lambda n: (-known[n], n)))
    return Variant(name, order, known, kendall_tau(overall, rates))
