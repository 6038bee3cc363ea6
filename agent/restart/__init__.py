"""Carries restarts out and proves them: plan and verdict are pure, `precheck` and `execute` act."""
