"""What `agentctl exim --fix` does to the machine: an edit is proposed, applied as root, judged, and undone if refused.

The daemon never loads this. Whether to go on is asked elsewhere; here is only what happens then.
"""
