"""From stale units to waves."""

from datetime import UTC, datetime

from agent.model.facts import StaleFile, StaleProcess, Unit
from agent.model.findings import Confidence, StaleUnit
from agent.model.restarts import Disposition, Plan, Rule
from agent.restart.plan import USERS_WAVE, make_plan

OWN = "aftercare.service"
SSL = StaleFile("/usr/lib/libssl.so.3", "libssl3", "3.0.20", "3.0.22")
CRYPTO = StaleFile("/usr/lib/libcrypto.so.3", "libssl3", "3.0.20", "3.0.22")
UNKNOWN = StaleFile("/usr/lib/libz.so.1", "zlib1g", None, None)
RULES = (Rule("*"), Rule("journald.service", wave=10), Rule("ssh.service", wave=90, limit=30.0))


def stale(
    name: str, disposition: Disposition = Disposition.RESTART, confidence: Confidence = Confidence.CERTAIN
) -> StaleUnit:
    process = StaleProcess(4, datetime(2026, 11, 20, tzinfo=UTC), "/usr/sbin/x", "x", 0, (SSL, CRYPTO, UNKNOWN))
    return StaleUnit(name, disposition, confidence, (process,))


def units(*known: Unit) -> dict[str, Unit]:
    return {unit.name: unit for unit in known}


def planned(*names: str, known: dict[str, Unit] | None = None) -> Plan:
    known = known or units(*(Unit(name, invocation=f"{name}-1", main_pid=9) for name in names))
    return make_plan(3, [stale(name) for name in names], known, RULES, OWN)


def shape(plan: Plan) -> list[tuple[int, list[str]]]:
    return [(wave.number, [step.unit for step in wave.steps]) for wave in plan.waves]


def test_waves_come_in_the_order_of_their_rules() -> None:
    plan = planned("ssh.service", "nginx.service", "journald.service", "exim4.service")
    assert shape(plan) == [(10, ["journald.service"]), (50, ["exim4.service", "nginx.service"]), (90, ["ssh.service"])]
    assert plan.transaction == 3 and not plan.manager and not plan.agent


def test_a_step_carries_what_is_needed_to_prove_it() -> None:
    (wave,) = planned("ssh.service").waves
    (step,) = wave.steps
    assert (step.invocation_before, step.main_pid, step.rule.limit) == ("ssh.service-1", 9, 30.0)
    assert step.reasons == ("libssl3 3.0.20 → 3.0.22", "zlib1g of unknown version → removed")


def test_only_what_is_certain_and_to_be_restarted_is_planned() -> None:
    spared = [stale(f"{kind}.service", kind) for kind in Disposition if kind is not Disposition.RESTART]
    likely = stale("likely.service", Disposition.DEFER, confidence=Confidence.LIKELY)
    known = units(*(Unit(item.unit) for item in (*spared, likely)))
    assert make_plan(3, [*spared, likely], known, RULES, OWN).waves == ()


def test_an_administrator_may_name_what_is_likely_or_deferred_and_nothing_else() -> None:
    items = [stale(f"{kind}.service", kind, Confidence.LIKELY) for kind in Disposition]
    known = units(*(Unit(item.unit) for item in items))
    plan = make_plan(3, items, known, RULES, OWN, named=frozenset(known))
    assert shape(plan) == [(50, ["defer.service", "restart.service"])]


def test_pid_1_and_the_agent_are_no_steps() -> None:
    plan = planned("init.scope", OWN, "nginx.service")
    assert plan.manager and plan.agent
    assert shape(plan) == [(50, ["nginx.service"])]


def test_a_unit_that_systemd_no_longer_has_is_left_out() -> None:
    assert planned("gone.service", known=units(Unit("nginx.service"))).waves == ()


def test_what_goes_down_with_a_unit_is_followed_through_what_is_up() -> None:
    known = units(
        Unit("base.service", pulls=("middle.service", "off.service", "base.service", "nowhere.service")),
        Unit("middle.service", pulls=("top.service",)),
        Unit("top.service", pulls=("base.service",), active="reloading"),
        Unit("off.service", active="inactive", pulls=("beyond.service",)),
        Unit("beyond.service"),
    )
    (wave,) = planned("base.service", known=known).waves
    assert wave.steps[0].pulls == ("middle.service", "top.service")


def test_a_dependant_in_the_middle_of_its_own_restart_is_followed_as_well() -> None:
    """So it is found when a restart is resumed after a crash."""
    known = units(Unit("base.service", pulls=("top.service",)), Unit("top.service", active="inactive", job="12"))
    (wave,) = planned("base.service", known=known).waves
    assert wave.steps[0].pulls == ("top.service",)


def test_units_that_share_dependants_share_the_later_wave() -> None:
    known = units(
        Unit("journald.service", pulls=("ssh.service",)),
        Unit("other.service", pulls=("shared.service",)),
        Unit("another.service", pulls=("shared.service", "ssh.service")),
        Unit("shared.service"),
        Unit("ssh.service"),
        Unit("nginx.service"),
    )
    plan = planned("journald.service", "other.service", "another.service", "ssh.service", "nginx.service", known=known)
    assert shape(plan) == [
        (50, ["nginx.service"]),
        (90, ["another.service", "journald.service", "other.service", "ssh.service"]),
    ]


def test_a_shared_target_does_not_join_waves() -> None:
    known = units(
        Unit("journald.service", pulls=("multi-user.target",)),
        Unit("ssh.service", pulls=("multi-user.target",)),
        Unit("multi-user.target"),
    )
    plan = planned("journald.service", "ssh.service", known=known)
    assert [number for number, _ in shape(plan)] == [10, 90]


def test_users_units_have_the_last_wave_to_themselves_whatever_their_rules_say() -> None:
    names = ("user@1000.service/a.service", "user@1001.service/b.service", "ssh.service", "nginx.service")
    known = units(*(Unit(name, invocation="1") for name in names))
    rules = (*RULES, Rule("user@*.service/*", wave=1, limit=7.0))
    plan = make_plan(3, [stale(name) for name in names], known, rules, OWN)
    assert shape(plan) == [(50, ["nginx.service"]), (90, ["ssh.service"]), (USERS_WAVE, [*names[:2]])]
    assert plan.waves[-1].steps[0].rule.limit == 7.0
