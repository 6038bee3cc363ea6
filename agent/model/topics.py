"""What may move on a machine, as those who watch it and those who look after it call it."""

from enum import StrEnum


class Topic(StrEnum):
    """The area that a wake-up touches.

    MAIL: exim's configuration, and the names that it goes by. NETWORK: addresses, routes, the host name, resolvers.
    LINKING: what decides which library a name leads to: alternatives, the linker's configuration, the environment.
    """

    PACKAGES = "packages"
    MAIL = "mail"
    NETWORK = "network"
    LINKING = "linking"
