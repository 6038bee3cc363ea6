"""What `status` and `check` say, as blocks made from the JSON of the contract. Pure."""

from collections.abc import Iterable
from typing import Any

from agent.cli.blocks import Block, Entry, Line, local
from agent.cli.records import identical, restarts

SEVERITIES = ("critical", "error", "warning", "info", "unknown")
GROUPS = (
    ("These did not come back after their restart", {"broken"}),
    ("Not restarted, for they would not come back", {"refused"}),
    ("Restarted by themselves, as soon as nothing speaks against it", {"restart"}),
    ("Waiting for their time", {"timed"}),
    ("Waiting for your word", {"defer"}),
    ("Waiting for a reboot", {"reboot"}),
    ("Mail", {"mail"}),
    ("numpy", {"numpy"}),
    ("Left to whoever runs them", {"session", "container", "never", "leftover", ""}),
)
"""Headings of `status` and the groups of findings below each, in the order of urgency."""
TOPICS = {"spf": "mail", "exim": "mail", "numpy": "numpy"}
"""Checks whose findings are a group of their own; others go by their disposition."""


PHASES = {
    "starting": "aftercare is starting.",
    "settling": "A package transaction is under way, or has just ended.",
    "checking": "Looking for processes that run replaced code.",
    "restarting": "Restarting units.",
}
"""What is going on while the findings may be about to change."""
OBSERVED = {
    "Restarted by themselves, as soon as nothing speaks against it": "Would be restarted, but the mode is observe",
    "Waiting for their time": "Would be restarted in their time, but the mode is observe",
}
"""Headings that are others where nothing is restarted by itself."""


def status(view: dict[str, Any]) -> list[Block]:
    """Return what `agentctl status` says of a view: first what keeps it from being the whole truth of now."""
    phase = PHASES.get(view.get("phase", ""), "")
    blocks: list[Block] = [Line(line) for line in (phase,) if line]
    if view.get("trouble"):
        of = f" What follows is as of {local(view['checked_at'])}." if view.get("checked_at") else ""
        blocks.append(Line(f"{view['trouble']}.{of}", "error"))
    blocks.append(Line(headline(view), worst(view["findings"])))
    if view.get("silenced"):
        blocks.append(Line(_unsaid(view["silenced"])))
    if view.get("mode", "auto") != "auto":
        blocks.append(Line(f"The mode is {view['mode']}: nothing is restarted by itself."))
    if view.get("rejected"):
        blocks.append(Line(f"The configuration on disk is not used: {view['rejected']}", "error"))
    if view.get("held") and view["held"] != view.get("trouble"):
        goes_on = "agentctl restart --resume goes on" if view.get("braked") else "the rest goes on by itself"
        blocks.append(Line(f"No further restart is begun: {view['held']}; {goes_on}.", "error"))
    blocks += findings(view["findings"], view.get("mode", "auto"))
    if view.get("restarts"):
        blocks.append(restarts(view["restarts"]))
    if same := view.get("detail", {}).get("libraries", {}).get("identical"):
        blocks.append(identical(same))
    blocks += reboot(view.get("detail", {}).get("reboot", {}))
    blocks += [Line(_silenced(item)) for item in view.get("silenced", ())]
    return blocks + [Line(f"not seen: {line}") for line in view.get("unseen", ())]


def headline(view: dict[str, Any]) -> str:
    """Return the one sentence that sums a view up."""
    groups = [_group(item) for item in view["findings"]]
    words = {
        "broken": "did not come back",
        "refused": "not restarted, for it would not come back",
        "restart": "to be restarted" if view.get("mode", "auto") == "auto" else "that would be restarted",
        "timed": "waiting for their time",
        "defer": "waiting for your word",
        "reboot": "waiting for a reboot",
    }
    parts = [f"{groups.count(group)} {text}" for group, text in words.items() if group in groups]
    parts += [f"{groups.count(topic)} about {topic}" for topic in ("mail", "numpy") if topic in groups]
    rest = len(groups) - sum(groups.count(group) for group in (*words, "mail", "numpy"))
    parts += [f"{rest} left to whoever runs them"] if rest else []
    exposed = {cve for item in view["findings"] for cve in item["evidence"].get("cves", ())}
    if exposed:
        parts.append(f"{_count(len(exposed), 'CVE')} fixed on disk, not in effect")
    if parts:
        return f"{'; '.join(parts)}."
    if is_doubtful(view):
        return "Whether every process runs the code that is installed is not known."
    looked = view.get("detail") or {"libraries": {}}
    return "Every process runs the code that is installed." if "libraries" in looked else "Nothing is wrong."


def findings(items: list[dict[str, Any]], mode: str = "auto") -> list[Block]:
    """Return findings as entries under headings, the most urgent first."""
    blocks: list[Block] = []
    for heading, groups in GROUPS:
        found = [item for item in items if _group(item) in groups]
        if found:
            heading = heading if mode == "auto" else OBSERVED.get(heading, heading)
            blocks.append(Line(f"\n{heading}:"))
            blocks += [_entry(item) for item in sorted(found, key=_urgency)]
    return blocks


def is_doubtful(view: dict[str, Any]) -> bool:
    """Return whether it is not known what runs replaced code: nobody has looked yet, or the last look failed."""
    return bool(view.get("trouble")) or view.get("checked_at", "") is None


def _unsaid(silenced: list[dict[str, Any]]) -> str:
    """What is silenced is left out of all counts, so how much that is has to be said."""
    ids = [item["finding"]["id"] for item in silenced]
    cves = {cve for item in silenced for cve in item["finding"].get("evidence", {}).get("cves", ())}
    number = "1 more finding is" if len(ids) == 1 else f"{len(ids)} more findings are"
    exposed = f", with {_count(len(cves), 'CVE')} not in effect" if cves else ""
    return f"{number} silenced{exposed}: {', '.join(ids)}."


def _silenced(item: dict[str, Any]) -> str:
    silence, finding = item["silence"], item["finding"]
    until = f"until {local(silence['until'])}" if silence["until"] else "until it is gone"
    reason = f" ({silence['reason']})" if silence["reason"] else ""
    return f"not told {until}{reason}: {finding['id']}: {finding['summary']}"


def _group(item: dict[str, Any]) -> str:
    if item["check"] in TOPICS:
        return TOPICS[item["check"]]
    result = (item["evidence"].get("outcome") or {}).get("result")
    if result == "precheck-failed":
        return "refused"
    if item["evidence"].get("opens_at"):
        return "timed"
    return "broken" if item["severity"] == "critical" else str(item["evidence"].get("disposition", ""))


def _urgency(item: dict[str, Any]) -> tuple[int, str]:
    return SEVERITIES.index(item["severity"]), item["subject"]


def _entry(item: dict[str, Any]) -> Entry:
    outcome = item["evidence"].get("outcome") or {}
    journal = [f"  {line}" for line in outcome.get("journal", ())]
    reason = item["evidence"].get("reason", "")
    if opens_at := item["evidence"].get("opens_at"):
        reason = f"{reason}: at {local(opens_at)}"
    cves = _exposure(item["evidence"].get("cves", ()))
    unlisted = ", ".join(item["evidence"].get("no_changelog", ()))
    unknown = f"What else it fixed is not known: no changelog of {unlisted} tells" if unlisted else ""
    text = ". ".join(_upper(part).rstrip(".") for part in (item["summary"], reason, cves, unknown) if part)
    return Entry(item["subject"], "\n".join([f"{text}.", *journal]), item["advice"], item["severity"])


def _exposure(cves: Iterable[str]) -> str:
    names = list(cves)
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"Not in effect: {', '.join(names[:3])}{more}"


def reboot(detail: dict[str, Any]) -> list[Block]:
    """Return what the check `reboot` knows of kernel and microcode where that is no finding."""
    if detail.get("foreign"):
        return [Line(f"Kernel and microcode are not looked at: {detail['foreign']}.")]
    known = [(name, detail[key]) for key, name in (("kernel", "Linux"), ("microcode", "Microcode")) if key in detail]
    words = {"current": "nothing newer is installed", "unknown": "not known whether a reboot is due"}
    return [
        Line(f"{name} {item['running']}: {', '.join(filter(None, (words[item['state']], item['reason'])))}.")
        for name, item in known
        if item["state"] in words
    ]


def worst(items: list[dict[str, Any]]) -> str:
    """Return the worst severity of findings; empty for none."""
    found = {item["severity"] for item in items}
    return next((severity for severity in SEVERITIES if severity in found), "")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
