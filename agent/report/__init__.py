"""How aftercare tells what it knows: sinks of views and outcomes. Nothing here decides or acts."""
