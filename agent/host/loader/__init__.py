"""What ld.so would load, read from disk and from what sets its variables. Loads nothing, judges nothing."""
