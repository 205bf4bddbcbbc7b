"""Is torch left with the threads that were asked for?"""

from __future__ import annotations

import os
import warnings

import torch


def warn_of_more_threads() -> None:
    """Warn where torch computes with more threads than ``OMP_NUM_THREADS`` says, and no GPU takes the work.

    Parallel functions of numba, as ``sc.pp.normalize_total`` of sparse counts, leave torch with their own number of threads. On cores that
    others use too, a training then took up to 14 times its processor time.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    n_threads = torch.get_num_threads()
    if not asked.isdecimal() or n_threads <= int(asked) or torch.cuda.is_available():
        return
    warnings.warn(
        f"torch computes with {n_threads} threads, where OMP_NUM_THREADS={asked}: sc.pp.normalize_total and other parallel functions of numba "
        f"change its number. On a shared machine that can be many times slower: set NUMBA_NUM_THREADS={asked} as well, or call "
        f"torch.set_num_threads({asked}) before training.",
        UserWarning,
        stacklevel=2,
    )
