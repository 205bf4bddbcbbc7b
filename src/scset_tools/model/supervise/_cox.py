"""Partial likelihood of proportional hazards (Cox 1972), its baseline hazard, and concordance."""

from __future__ import annotations

import torch
from torch import Tensor

TIES = ("efron", "breslow")


def cox_loss(log_hazard: Tensor, time: Tensor, is_event: Tensor, *, ties: str = "efron") -> Tensor:
    r"""Negative log partial likelihood per event, ().

    An event at time :math:`t` of the sample :math:`i` contributes :math:`\log \sum_{j: t_j \ge t} e^{h_j} - h_i`. Of :math:`d` events
    at one time, Breslow gives each the same risk set; Efron takes from the :math:`l`-th, counted from 0, the share
    :math:`l / d` of the hazards of the tied events, which comes nearer to the likelihood without ties.

    Parameters
    ----------
    log_hazard
        Logarithm of the hazard relative to the baseline, (n,).
    time
        Time of the event, or of the end of follow-up, (n,).
    is_event
        Whether the event was seen, (n,); otherwise the sample is censored at its time.
    ties
        ``"efron"`` or ``"breslow"``.

    Returns
    -------
    The mean over events, float64; zero, with a gradient of zero, if there are none.
    """
    order = torch.argsort(time, descending=True, stable=True)
    h, is_event = log_hazard.double()[order], is_event.bool()[order]
    if not bool(is_event.any()):
        return 0 * h.sum()
    at, of_time = _risk(h, time[order])
    at, event_at, h = at[of_time][is_event], of_time[is_event], h[is_event]
    n_tied = torch.bincount(event_at)
    first = n_tied.cumsum(0) - n_tied
    # share of the tied events in the hazard of their risk set
    share = torch.zeros(len(n_tied), dtype=h.dtype, device=h.device).index_add(0, event_at, (h - at).exp())
    taken = (torch.arange(len(h), device=h.device) - first[event_at]).double() / n_tied[event_at]
    if ties == "breslow":
        taken = torch.zeros_like(taken)
    return (at + torch.log1p(-taken * share[event_at]) - h).mean()


def _risk(h: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the summed hazard at risk at each distinct time, and the number of the time of each, latest first."""
    _, of_time, counts = torch.unique_consecutive(time, return_inverse=True, return_counts=True)
    return torch.logcumsumexp(h, 0)[counts.cumsum(0) - 1], of_time


def baseline_hazard(log_hazard: Tensor, time: Tensor, is_event: Tensor) -> tuple[Tensor, Tensor]:
    r"""Breslow's estimate of the cumulative hazard of the baseline, :math:`H_0(t) = \sum_{t_k \le t} d_k / \sum_{j: t_j \ge t_k} e^{h_j}`.

    Returns
    -------
    Times of events, ascending, and the cumulative hazard at each, both (times,), float64.
    """
    order = torch.argsort(time, descending=True, stable=True)
    h, is_event, time = log_hazard.double()[order], is_event.bool()[order], time.double()[order]
    at, of_time = _risk(h, time)
    n_events = torch.bincount(of_time[is_event], minlength=len(at))
    steps, times = n_events * torch.exp(-at), torch.unique_consecutive(time)
    has_event = n_events > 0
    return times[has_event].flip(0), steps[has_event].flip(0).cumsum(0)


def concordance(log_hazard: Tensor, time: Tensor, is_event: Tensor) -> tuple[Tensor, int]:
    """Share of comparable pairs in which the earlier event has the higher hazard, NaN without one; and their number.

    Of a comparable pair the earlier time is that of an event; at equal times an event comes before a censored sample. Equal
    hazards count half.
    """
    is_event = is_event.bool()
    later = (time[None, :] > time[:, None]) | ((time[None, :] == time[:, None]) & ~is_event[None, :])
    is_pair = is_event[:, None] & later
    n = int(is_pair.sum())
    h = log_hazard.double()
    order = (torch.sign(h[:, None] - h[None, :]) + 1) / 2
    return (order * is_pair).sum() / n if n else torch.full((), torch.nan, dtype=h.dtype, device=h.device), n
