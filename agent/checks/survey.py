"""What dpkg did since the last look at it: joins its status, the code files of changed packages and the logs.

Facts for the store, no judgement. Runs in a worker, once it has settled.
"""

from datetime import datetime

from agent.host import packages, transactions
from agent.model.facts import Host, Snapshot
from agent.model.findings import Survey

DPKG = "dpkg"


def survey(host: Host, old: Snapshot | None, now: datetime, since: datetime | None) -> Survey:
    """Return what changed between the snapshot `old`, taken at `since`, and `now`.

    old None: there is no history; every package is new, and the index is made in full. `changed` and
    `unfinished` are package names: the index is by name, so all architectures of a changed package are
    read. A journal that dpkg left behind makes dpkg itself unfinished. Raises AgentError(UNREADABLE) where
    dpkg's status cannot be read.
    """
    snapshot = transactions.read_snapshot(host)
    changes = transactions.diff(old or {}, snapshot)
    names = {change.package for change in changes}
    story = transactions.read_story(host, since, now, changes)
    unfinished = {state.name for state in transactions.unfinished(snapshot)}
    if transactions.is_interrupted(host):
        unfinished.add(DPKG)
    return Survey(
        snapshot=snapshot,
        changed=tuple(sorted(names)),
        index=tuple(packages.read_index(host, (state for state in snapshot.values() if state.name in names))),
        unfinished=tuple(sorted(unfinished)),
        begun=story.begun,
        command=story.command,
        requester=story.requester,
        full=old is None,
    )
