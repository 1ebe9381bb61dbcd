"""What is seen of the panel; what it knows is in `ui.models`."""
