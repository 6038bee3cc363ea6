"""A plan with less in it: of some units alone. Pure."""

from dataclasses import replace

from agent.model.restarts import MANAGER, Plan


def only(plan: Plan, names: frozenset[str]) -> Plan:
    """Return `plan` without the units that are not in `names`; the agent itself is never in it."""
    waves = tuple(
        replace(wave, steps=steps)
        for wave in plan.waves
        if (steps := tuple(step for step in wave.steps if step.unit in names))
    )
    return replace(plan, waves=waves, manager=plan.manager and MANAGER in names, agent=False)


def unit_names(plan: Plan) -> frozenset[str]:
    """Return the units that `plan` restarts, PID 1's among them."""
    manager = {MANAGER} if plan.manager else set()
    return frozenset(step.unit for wave in plan.waves for step in wave.steps) | manager


def has_steps(plan: Plan) -> bool:
    """Return whether there is anything to do but to restart the agent."""
    return bool(plan.waves or plan.manager)
