"""What the tests of SPF share: the suites of the RFCs, a zone in memory, a DNS server that can misbehave, an oracle."""
