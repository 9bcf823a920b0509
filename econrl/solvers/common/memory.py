"""How much memory a method may use."""

from __future__ import annotations

import os

import torch

from econrl.errors import SolveError
from econrl.problem.mdp import MDP

CHUNK = {"cpu": 400_000, "cuda": 8_000_000}  # numbers gathered at once: states x nodes x coefficients a query


def require_memory(name: str, mdp: MDP, needed: float, size: str, advice: str, limit: float | None = None) -> None:
    """Raise SolveError, in the name of a method, where so many bytes are more than `limit`, or half of what is free."""
    allowed = limit if limit is not None else 0.5 * free_memory(mdp.device)
    if needed > allowed:
        model = type(mdp.model).__name__
        raise SolveError(
            f"{name} on {model} needs about {needed:.3g} bytes for {size}, and may use {allowed:.3g}. {advice}"
        )


def free_memory(device: torch.device) -> float:
    """Bytes that are free on the device."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return float(os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE"))
