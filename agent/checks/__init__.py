"""Checks: each joins facts of `host/` to an engine and returns a `CheckResult`. They run in worker processes."""
