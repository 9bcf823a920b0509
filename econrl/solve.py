"""The front door: solve a model by a method, or compare several."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from econrl.accuracy.error_table import samples
from econrl.checks import check, with_fitted_domain
from econrl.checks.declarations import check_class
from econrl.checks.fit_domain import open_states
from econrl.display.progress import Progress
from econrl.errors import EconrlError, MethodError, NotAccurate
from econrl.family.family import Family
from econrl.family.reward_units import ScaledFamily, scaled, unscaled
from econrl.problem.domain import in_numbers
from econrl.problem.mdp import MDP
from econrl.problem.quadrature import Quadrature
from econrl.problem.state_function import StateFunction
from econrl.solution import Solution
from econrl.solvers import METHODS
from econrl.solvers.common.method import Method
from econrl.solvers.common.task import Task
from econrl.spec.model import Model
from econrl.storage.checkpoint import Checkpoint
from econrl.storage.saving import fingerprint


def solve(
    model: Model,
    method: str | Method = "auto",
    *,
    steps: int | None = None,
    time_limit: float | None = None,
    tol: float | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    warm_start: Solution | None = None,
    over: dict[str, tuple[float, float]] | None = None,
) -> Solution:
    """Solve a model.

    model       an instance of a Model; it is checked first
    method      a name of `econrl.METHODS`, "auto" among them, or a method with its settings, DDPG(hidden=(128, 128))
    steps       the budget: gradient steps of ddpg, sweeps of vi
    time_limit  seconds for everything; it is turned into steps, which the solution reports, so that `steps=` repeats
                the run bit for bit on the same machine
    tol         stop once the held-out error is at most this: the mean Euler error (greedy and Bellman errors where
                there is none) plus the share of periods in which simulated paths leave the domain
    seed        of all random numbers
    device      "auto" (CUDA where there is one), "cpu", "cuda"
    progress    show the error while it runs; default: on a terminal
    checkpoint  a file that keeps the state of the run, whatever the method, written at every measurement of the error
                and after every period of a life cycle. The same call with a file that is there goes on from it, and
                gives the result of a run that was never interrupted, bit for bit (but for a time limit that then falls
                elsewhere)
    warm_start  a solution of the model, perhaps with other parameters, to begin from, for a method that takes one
    over        ranges of parameters, {"gamma": (1, 5)}: one policy solves the model at all of them, and `solution.at(
                gamma=3.2)` is the solution of one

    Returns the policy with the lowest error seen on held-out points. Ctrl-C returns the best so far.
    Raises SpecError, MethodError or SolveError, each with what, where and what to do.
    """
    started = time.perf_counter()
    chosen = method_of(method)
    declared, model = model, ready(model, over)
    domain = {name: ends for name, ends in model.domain.items() if name not in declared.domain}
    fitted = f"the domain was fitted: {in_numbers(domain)}" if domain else ""
    if over is not None:
        if warm_start is not None:
            raise MethodError("a solve over a range of parameters begins anew: leave out warm_start, or over")
        check(model)
        model = Family(one=model, over=over)
    said = check(model)
    chosen_device = device_of(device)
    solved = scaled(model, chosen_device, seed) if isinstance(model, Family) else model
    task = Task(
        solved,
        chosen_device,
        seed,
        whole(steps),
        positive("time_limit", time_limit),
        positive("tol", tol),
        started=started,
    )
    mdp = MDP(solved, task.device, chosen.dtype, Quadrature(nodes=chosen.nodes))
    reason = chosen.why_not(mdp)
    if reason is not None:
        able = ", ".join(name for name, cls in METHODS.items() if cls.improves and cls().why_not(mdp) is None)
        raise MethodError(f"{chosen.name} cannot solve {model.title}: {reason}. Methods that can: {able}")
    if warm_start is not None:
        task.warm_start = functions_of(warm_start, model, chosen)
    if checkpoint is not None:
        task.checkpoint = Checkpoint(checkpoint, identity(model, chosen, task))
    with Progress(task.device, chosen.name, progress) as shown, arithmetic(chosen), torch.random.fork_rng(devices=[]):
        for text in [*([fitted] if fitted else []), *(f"warning: {warning}" for warning in said)]:
            shown.say(text)
        task.report = shown.row
        result = chosen.run(mdp, task)
        shown.say(result.message)
    info = {
        "method": chosen.name,
        "settings": dataclasses.asdict(chosen),  # type: ignore[call-overload]
        "steps": result.steps,
        "planned_steps": result.planned_steps,
        "seconds": task.elapsed(),
        "seed": seed,
        "device": str(task.device),
        "time_limit": time_limit,
        "tol": tol,
        "converged": result.converged,
        "message": "; ".join(text for text in (fitted, result.message) if text),
        "warnings": said,
        "torch": torch.__version__,
    }
    policy, value = result.policy, result.value
    if isinstance(solved, ScaledFamily):
        policy, value = policy.by_itself(), unscaled(solved, value)
    solution = Solution(result.model or model, policy, value, pd.DataFrame(result.log), info)
    with arithmetic(chosen), torch.random.fork_rng(devices=[]):
        warn(solution)
    return solution


def ready(model: Model, over: dict[str, tuple[float, float]] | None) -> Model:
    """The model with a domain for all states; over a range of parameters, one that holds those of its members."""
    check_class(model)
    if over is None or not open_states(model):
        return with_fitted_domain(model)
    domains = [with_fitted_domain(member).domain for member in Family(one=model, over=over).outer]
    pairs = {name: [torch.as_tensor(domain[name], dtype=torch.float64) for domain in domains] for name in domains[0]}
    ends = {name: (torch.stack(x).amin(dim=0)[0], torch.stack(x).amax(dim=0)[1]) for name, x in pairs.items()}
    return model.with_domain({name: (low.tolist(), high.tolist()) for name, (low, high) in ends.items()})


def warn(solution: Solution) -> None:
    """Put what its verdict leaves in doubt among the solution's warnings, and warn of it."""
    for doubt in solution.verdict.doubts:
        said = f"{solution.name} by {solution.info['method']} ({solution.status}), {doubt}"
        solution.info["warnings"] = [*solution.warnings, said]
        warnings.warn(said, NotAccurate, stacklevel=3)


def functions_of(warm_start: Solution, model: Model, method: Method) -> tuple[StateFunction, StateFunction]:
    """The policy and value to begin from. Raises MethodError where the solution is of another model."""
    if not method.warm:
        able = [name for name, cls in METHODS.items() if cls.warm]
        raise MethodError(f"{method.name} takes no warm_start; methods that do: {', '.join(able)}")
    mdp, other = MDP(model), warm_start.mdp
    if (mdp.state_slots, mdp.action_slots, mdp.horizon) != (other.state_slots, other.action_slots, other.horizon):
        raise MethodError(
            f"the warm start solves {type(warm_start.model).__name__}, whose states and actions are not those of "
            f"{type(model).__name__}"
        )
    return warm_start.policy_function.on(mdp), warm_start.value_function.on(mdp)


def identity(model: Model, method: Method, task: Task) -> dict[str, Any]:
    """What two runs must share so that one can go on where the other was stopped."""
    return {
        "model": type(model).__name__,
        "fingerprint": hashlib.sha256(json.dumps(fingerprint(MDP(model))).encode()).hexdigest(),
        "method": method.name,
        "settings": dataclasses.asdict(method),  # type: ignore[call-overload]
        "warm_start": None if task.warm_start is None else digest(task.warm_start),
        "seed": task.seed,
        "steps": task.steps,
        "time_limit": task.time_limit,
        "tol": task.tol,
        "device": str(task.device),
        "torch": torch.__version__,
    }


def digest(functions: Sequence[StateFunction]) -> str:
    """What a policy and a value are, in 64 letters."""
    found = hashlib.sha256()
    for function in functions:
        found.update(json.dumps([type(function).__name__, function.describe()]).encode())
        for name, tensor in function.state_dict().items():
            found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def compare(
    model: Model,
    methods: str | Method | Sequence[str | Method],
    *,
    steps: int | None = None,
    time_limit: float | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    points: int = 10_000,
) -> pd.DataFrame:
    """Solve by several methods under one budget and measure them at the same states with the same shocks.

    The ergodic sample pools equal shares of every solution's own simulation. One row a method and measure: method,
    seconds, steps, sample, measure, unit, mean, p99, max; a method that failed has one row with its message.
    """
    methods = [methods] if isinstance(methods, str | Method) else list(methods)
    if not methods:
        raise MethodError(f"compare needs at least one method; there are: {', '.join(METHODS)}")
    methods = [method_of(method) for method in methods]
    model = ready(model, None)
    check(model)  # once, before each method fails by the same mistake
    solutions: dict[str, Solution] = {}
    failed: list[dict[str, Any]] = []
    for label, method in labelled(methods).items():
        try:
            solutions[label] = solve(
                model, method, steps=steps, time_limit=time_limit, seed=seed, device=device, progress=progress
            )
        except EconrlError as error:
            failed.append({"method": label, "message": str(error)})
    common = pooled_samples(list(solutions.values()), points)
    tables = []
    for label, solution in solutions.items():
        run = {"method": label, "seconds": solution.info["seconds"], "steps": solution.info["steps"]}
        table = solution.accuracy_at(common).assign(**run, message=solution.info["message"])
        tables.append(table[[*run, "sample", "measure", "unit", "mean", "p99", "max", "message"]])
    return pd.concat([*tables, pd.DataFrame(failed)] if failed else tables, ignore_index=True)


def labelled(methods: Sequence[str | Method]) -> dict[str, str | Method]:
    """Each method under its name; a name that occurs again gets a number."""
    labels: dict[str, str | Method] = {}
    for method in methods:
        name = method if isinstance(method, str) else method.name
        count = sum(label.split("#")[0] == name for label in labels)
        labels[name if count == 0 else f"{name}#{count + 1}"] = method
    return labels


@torch.no_grad()
def pooled_samples(solutions: list[Solution], points: int) -> dict[str, Any]:
    """The box, and equal shares of the solutions' own simulations."""
    own = [samples(s.mdp, s.policy_function, points) for s in solutions]
    if not own:
        return {}
    share = points // len(own)
    states = torch.cat([sample["ergodic"][0][:: len(own)][:share] for sample in own])
    return {"ergodic": (states, sum(sample["ergodic"][1] for sample in own) / len(own)), "box": own[0]["box"]}


def method_of(method: str | Method) -> Method:
    """A method by name, with its default settings."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise MethodError(f"unknown method '{method}'; there are: {', '.join(METHODS)}")
    return METHODS[method]()


def device_of(name: str) -> torch.device:
    """The device of this name; "auto" is CUDA where there is one. Raises MethodError where there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MethodError(f"unknown device '{name}'; use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise MethodError(f"device '{name}' is not supported; use auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MethodError(f"device '{name}' was asked for, but torch finds no such CUDA device; use cpu or auto")
    return device


def whole(steps: int | None) -> int | None:
    """The number of steps, if any. Raises MethodError unless it is a whole number of at least 1."""
    if steps is not None and (steps != int(steps) or steps < 1):
        raise MethodError(f"steps must be a whole number of at least 1, got {steps}")
    return None if steps is None else int(steps)


def positive(name: str, value: float | None) -> float | None:
    """The number, if any. Raises MethodError, which calls it `name`, unless it is positive."""
    if value is not None and not value > 0:
        raise MethodError(f"{name} must be positive, got {value}")
    return value


@contextlib.contextmanager
def arithmetic(method: Method) -> Iterator[None]:
    """The threads that a method runs best with, and no denormal numbers, which are slow; both as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(method.threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
