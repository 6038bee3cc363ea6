"""Python environments, found and described without running anything of them. Nothing here judges."""
