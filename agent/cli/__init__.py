"""agentctl: asks the daemon, or looks for itself. It never changes the machine."""
