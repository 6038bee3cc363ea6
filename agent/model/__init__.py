"""The nouns that all rooms share. Nothing here touches the machine."""
